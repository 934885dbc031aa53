"""ZenML 0.98.0 imports every framework after each tracked step, to switch off its autologging."""

import sys
from typing import Any

#: Modules of MLflow with an ``autolog``, of those that ZenML names.
_FRAMEWORKS = (
    *("tensorflow", "xgboost", "lightgbm", "statsmodels"),
    *("spark", "sklearn", "pytorch"),
)


def import_no_framework_after_steps() -> None:
    """Make ZenML's MLflow tracker switch off autologging only where a step has imported it."""
    from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

    tracker: Any = MLFlowExperimentTracker
    tracker.disable_autologging = _disable_imported_autologging


def _disable_imported_autologging(tracker: object) -> None:
    for framework in _FRAMEWORKS:
        module = sys.modules.get(f"mlflow.{framework}")
        if module is not None:
            module.autolog(disable=True)
