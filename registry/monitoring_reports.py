"""Stored reports of the monitoring pipeline."""

from pathlib import Path

from zenml.client import Client
from zenml.utils.io_utils import is_remote

from cv_factory.config.monitoring import ReportConfig
from cv_factory.monitoring.metrics_file import metrics_folder, write_metrics
from cv_factory.monitoring.report import MonitoringReport
from cv_factory.monitoring.report_alerts import build_alerts
from cv_factory.monitoring.report_metrics import build_metrics
from registry.artifact_loader import load_artifact
from registry.mlflow.tracking import log_monitoring_report

#: Name of the artifact that a monitoring run stores.
MONITORING_REPORT = "monitoring_report"


def load_latest_report(
    model_name: str, version: int | None = None, *, live_only: bool = True
) -> MonitoringReport | None:
    """Return the newest report of a model, or of one version of it; None if there is none.

    Args:
        model_name: The model.
        version: Number of the version; None for any.
        live_only: Leave out those of batches, and of windows that end before their run.

    Raises:
        ArtifactError: Its files are gone or damaged.
    """
    conditions = [f"model:{model_name}", *([f"version:{version}"] if version else [])]
    conditions += ["window_kind:live"] if live_only else []
    stored = Client().list_artifact_versions(
        artifact=MONITORING_REPORT,
        run_metadata=conditions,
        sort_by="desc:created",
        size=1,
        hydrate=True,
    )
    if not stored.items:
        return None
    artifact = stored.items[0]
    if not is_remote(artifact.uri):
        # ZenML would import MLflow first, which takes longer than all else.
        return MonitoringReport.load(Path(artifact.uri))
    return load_artifact(artifact, MonitoringReport)


def publish(report: MonitoringReport, config: ReportConfig) -> None:
    """Write a report to MLflow's run of the step, Prometheus' folder and the stack's alerter.

    One of a batch, or of a window that ended before, goes to MLflow alone: it says nothing of what
    is served now.

    Raises:
        OSError: The folder of metrics cannot be written.
    """
    log_monitoring_report(report)
    if not report.is_live:
        return
    folder = Path(config.metrics_folder) if config.metrics_folder else metrics_folder()
    if folder is not None:
        write_metrics(folder, f"cv_factory_monitor_{report.model_name}", build_metrics(report))
    if config.alerts:
        from registry.alerts import send_alerts

        send_alerts(build_alerts(report), report.model_name)
