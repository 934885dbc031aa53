"""Windows of predictions from the store of monitoring, batch results or captured data."""

from datetime import UTC, datetime, timedelta

from cv_factory.config.monitoring import MonitoringPipelineConfig, WindowConfig
from cv_factory.inference.reference import Reference
from cv_factory.monitoring.assessment import Subject, assess
from cv_factory.monitoring.collected_predictions import CollectedPredictions
from cv_factory.monitoring.report import MonitoringReport
from cv_factory.monitoring.window import Window
from registry import monitoring_store
from registry.model_registry import ModelRegistry
from registry.permissions import TransitionRefusedError


def collect(config: WindowConfig, model_name: str) -> CollectedPredictions:
    """Fix the bounds of a window, so that what comes meanwhile is left to the next run."""
    now = datetime.now(UTC)
    end = config.end or now
    start = config.start
    if config.hours is not None:
        start = now - timedelta(hours=config.hours)
    return CollectedPredictions(
        source=f"prediction log of {model_name}",
        start=start.isoformat() if start else None,
        end=end.isoformat(),
    )


def assess_window(
    collected: CollectedPredictions,
    config: MonitoringPipelineConfig,
    model_name: str,
    version: int,
    reference: Reference | None,
) -> MonitoringReport:
    """Load a version's predictions and labels, and return the report of them."""
    window = _load(collected, config.window, model_name, version)
    subject = Subject(
        model_name, version, collected.source, _has_predecessor(model_name), collected.remarks
    )
    return assess(window, reference, subject, config, datetime.now(UTC))


def _load(
    collected: CollectedPredictions, config: WindowConfig, model_name: str, version: int
) -> Window:
    start, end = (
        datetime.fromisoformat(time) if time else None for time in (collected.start, collected.end)
    )
    return monitoring_store.load_window(model_name, start, end, str(version))


def _has_predecessor(model_name: str) -> bool:
    try:
        ModelRegistry(model_name).rollback_target()
    except TransitionRefusedError:
        return False
    return True
