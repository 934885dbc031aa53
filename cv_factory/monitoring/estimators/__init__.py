"""Estimators of the accuracy without labels, one module each.

A module holds ``estimate(validation, probabilities)``: the accuracy that labelled outputs of
held-out images let expect of unlabelled outputs, float32 ``(N, K)``, as a share of 1.
"""

import numpy as np
import numpy.typing as npt

from cv_factory.config.plugins import load_plugin, plugin_names
from cv_factory.inference.reference import LabeledOutputs

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.monitoring.estimators"


def estimator_names() -> tuple[str, ...]:
    """Return the names of all estimators, sorted."""
    return plugin_names(PLUGINS)


def estimate_accuracy(
    name: str, validation: LabeledOutputs, probabilities: npt.NDArray[np.float32]
) -> float:
    """Estimate the accuracy of unlabelled outputs.

    Args:
        name: One of ``estimator_names()``.
        validation: Labelled outputs of held-out images.
        probabilities: float32 ``(N, K)``, N at least 1.
    """
    estimate: float = load_plugin(PLUGINS, name, "estimator").estimate(validation, probabilities)
    return estimate
