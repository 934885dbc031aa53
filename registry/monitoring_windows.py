"""Windows of predictions from the store of monitoring, batch results or captured data."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from cv_factory.config.monitoring import MonitoringPipelineConfig, WindowConfig
from cv_factory.config.secrets import mask_secrets
from cv_factory.inference.reference import Reference
from cv_factory.monitoring.assessment import Subject, assess
from cv_factory.monitoring.collected_predictions import CollectedPredictions
from cv_factory.monitoring.compaction import Compaction
from cv_factory.monitoring.report import MonitoringReport
from cv_factory.monitoring.window import Window
from registry import monitoring_store
from registry.label_store import collect_labels, load_labels
from registry.model_registry import ModelRegistry
from registry.permissions import TransitionRefusedError


def collect(config: WindowConfig, model_name: str) -> CollectedPredictions:
    """Store what services logged and received, and fix the bounds of a window.

    What is logged or labeled meanwhile is left to the next run.

    Raises:
        OutputError: The store of monitoring cannot be written; nothing is lost.
    """
    now, start = datetime.now(UTC), config.start
    if config.hours is not None:
        start = now - timedelta(hours=config.hours)
    remarks: tuple[str, ...] = ()
    collect_labels(model_name)
    if config.batch is None and config.captured is None:
        remarks = _describe_compaction(monitoring_store.compact_logs(model_name))
    return CollectedPredictions(
        source=_describe_source(config, model_name),
        start=start.isoformat() if start else None,
        end=None if config.batch else (config.end or now).isoformat(),
        remarks=remarks,
    )


def _describe_source(config: WindowConfig, model_name: str) -> str:
    if config.batch is not None:
        return f"batch predictions in {mask_secrets(config.batch)}"
    if config.captured is not None:
        return f"captured data in {mask_secrets(config.captured)}"
    return f"prediction log of {model_name}"


def _describe_compaction(compaction: Compaction) -> tuple[str, ...]:
    if not compaction.n_damaged:
        return ()
    return (f"{compaction.n_damaged:,} lines of the log are damaged and were skipped.",)


def assess_window(
    collected: CollectedPredictions,
    config: MonitoringPipelineConfig,
    model_name: str,
    version: int,
    reference: Reference | None,
) -> MonitoringReport:
    """Load a version's predictions and labels, and return the report of them."""
    # Arrow's own allocators keep what is freed, some 150 MB of a million predictions.
    pa.set_memory_pool(pa.system_memory_pool())
    subject = Subject(
        model_name, version, collected.source, _has_predecessor(model_name), collected.remarks
    )
    # No name holds the window, so that ``assess`` can let go of it.
    return assess(
        _load(collected, config.window, model_name, version),
        reference,
        load_labels(model_name),
        subject,
        config,
        datetime.now(UTC),
    )


def _load(
    collected: CollectedPredictions, config: WindowConfig, model_name: str, version: int
) -> Window:
    start, end = (
        datetime.fromisoformat(time) if time else None for time in (collected.start, collected.end)
    )
    if config.batch is not None:
        return monitoring_store.load_batch_window(config.batch, model_name, str(version))
    if config.captured is not None:
        return monitoring_store.load_captured_window(
            config.captured, model_name, start, end, str(version)
        )
    return monitoring_store.load_window(model_name, start, end, str(version))


def _has_predecessor(model_name: str) -> bool:
    try:
        ModelRegistry(model_name).rollback_target()
    except TransitionRefusedError:
        return False
    return True
