"""Step ``collect_predictions``: settle which predictions a monitoring run looks at."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.monitoring import WindowConfig
from cv_factory.monitoring.collected_predictions import CollectedPredictions


@step(enable_cache=False)
def collect_predictions(
    window: WindowConfig, model_name: str
) -> Annotated[CollectedPredictions, "collected_predictions"]:
    """Store what services logged and received, and fix the bounds of the window."""
    from registry.monitoring_windows import collect

    return collect(window, model_name)
