"""E-values of shares: evidence that an event is more frequent than a bound, valid at any look."""

import math

import numpy as np
import numpy.typing as npt

#: Odds of the alternatives that are bet on, relative to those of the bound.
ODDS = (1.7, 3.0, 5.0)


def alternatives(bound: float) -> npt.NDArray[np.float64]:
    """Return the shares that are bet on, all above ``bound``, which lies in (0, 1)."""
    odds = bound / (1 - bound) * np.array(ODDS)
    shares: npt.NDArray[np.float64] = odds / (1 + odds)
    return shares


def log_evidence(n_events: int, n: int, bound: float) -> float:
    """Return the logarithm of the mean likelihood ratio of ``alternatives`` to ``bound``."""
    shares = alternatives(bound)
    logs = n_events * np.log(shares / bound) + (n - n_events) * np.log((1 - shares) / (1 - bound))
    return float(np.logaddexp.reduce(logs) - math.log(len(logs)))


def smallest_detectable_share(n: int, bound: float, threshold: float) -> float:
    """Return the share that n values would on average show to be above ``bound``; 1 if none.

    Args:
        n: Number of values.
        bound: In (0, 1).
        threshold: Of the evidence.
    """
    needed = math.log(threshold * len(ODDS))
    shares = np.linspace(bound, 1, 2001)[1:-1]
    divergence = shares * np.log(shares / bound) + (1 - shares) * np.log((1 - shares) / (1 - bound))
    enough = shares[n * divergence >= needed]
    return float(enough[0]) if len(enough) else 1.0
