"""Sequential test of whether something is more frequent in one arm than in another.

Observations come in batches, such as the requests between two looks at the counters. In each, given
how many events there were in both arms together, the number in one arm has a hypergeometric
distribution if both have the same rate, whatever it is, and Fisher's noncentral one if their odds
differ. The likelihood ratios of the batches are multiplied and averaged over odds ratios. So the
rate may change from batch to batch, such as when all requests fail for a while in both arms.

Sources: Turner, Ly and Grünwald, *Generic E-variables for exact sequential k-sample tests that
allow for optional stopping* (arXiv 2106.02693); Lindon, Sanden and Shirikian, *Rapid Regression
Detection in Software Deployments through Sequential Testing* (arXiv 2205.14762).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

#: Odds ratios that the evidence is averaged over; the null hypothesis is a ratio of at most 1.
ODDS_RATIOS = (1.5, 2.0, 4.0, 8.0, 16.0, 32.0)

LogEvidence = npt.NDArray[np.float64]


class Rate(NamedTuple):
    """Number of events among a number of observations."""

    n: int
    events: int


def log_likelihood_ratios(arm: Rate, other: Rate) -> LogEvidence:
    """Return the logarithms of the likelihood ratios of one batch, one for each odds ratio.

    Each has an expectation of at most 1 where events are no more frequent in ``arm``. A batch
    without events, or of one arm alone, says nothing: zeros.

    Args:
        arm: Of the version that may be worse.
        other: Of the version that it is compared with.

    Raises:
        ValueError: More events than observations.
    """
    if not (0 <= arm.events <= arm.n and 0 <= other.events <= other.n):
        raise ValueError(f"{arm} and {other}: events among observations are expected")
    total = arm.events + other.events
    low, high = max(0, total - other.n), min(arm.n, total)
    if low == high:
        return np.zeros(len(ODDS_RATIOS))
    # Logarithms of the hypergeometric weights, up to a constant, by the ratios of neighbors.
    k = np.arange(low, high, dtype=np.float64)
    steps = np.log((arm.n - k) * (total - k) / ((k + 1) * (other.n - total + k + 1)))
    weights = np.concatenate(([0.0], np.cumsum(steps)))
    log_odds = np.log(ODDS_RATIOS)
    tilted = weights + log_odds[:, None] * np.arange(high - low + 1)
    observed = (arm.events - low) * log_odds
    return np.asarray(observed + np.logaddexp.reduce(weights) - np.logaddexp.reduce(tilted, axis=1))


def e_value(log_evidence: LogEvidence) -> float:
    """Return the e-value of accumulated logarithms of likelihood ratios, of any shape.

    It is their average, which is capped so that it stays a finite number.
    """
    mean = float(np.logaddexp.reduce(log_evidence, axis=None)) - float(np.log(log_evidence.size))
    return float(np.exp(min(mean, 600.0)))
