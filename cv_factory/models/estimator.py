"""What a classical model must be able to do, whichever package it comes from."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Estimator(Protocol):
    """A fitted classifier with scikit-learn's interface."""

    classes_: npt.NDArray[Any]

    def predict_proba(self, features: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Map features ``(N, k)`` to probabilities ``(N, K)``, columns in order of ``classes_``."""
        ...
