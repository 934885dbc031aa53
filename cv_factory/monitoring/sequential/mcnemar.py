"""McNemar's test, sequentially: which of two models is right more often on the same images.

Only images on which exactly one of the two is right say anything. Under the null hypothesis that
the challenger is no better, it is the one with a probability of at most 1/2; the likelihood ratios
against 1/2 are averaged over larger probabilities (a mixture e-value). Where the two agree, both
are right or both are wrong: so only their disagreements need a label.

Sources: McNemar 1947; Grünwald, de Heide and Koolen, *Safe Testing* (arXiv 1906.07801).
"""

from math import exp, log

#: Probabilities that the better one is right, of those images on which one is.
_PROBABILITIES = (0.7, 0.8, 0.9)


def mcnemar_e_value(wins: int, losses: int) -> float:
    """Return the evidence that the challenger is right more often.

    Exchange the arguments for the evidence that it is right less often.

    Args:
        wins: Number of images on which it alone is right.
        losses: Number of images on which the other one alone is right.
    """
    logs = [wins * log(2 * p) + losses * log(2 * (1 - p)) for p in _PROBABILITIES]
    return sum(exp(min(value, 600.0)) for value in logs) / len(logs)
