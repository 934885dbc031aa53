"""Stored reports of the monitoring pipeline."""

from zenml.client import Client

from cv_factory.monitoring.report import MonitoringReport
from registry.artifact_loader import load_artifact

#: Name of the artifact that a monitoring run stores.
MONITORING_REPORT = "monitoring_report"


def load_latest_report(model_name: str, version: int | None = None) -> MonitoringReport | None:
    """Return the newest report of a model, or of one version of it; None if there is none.

    Raises:
        ArtifactError: Its files are gone or damaged.
    """
    conditions = [f"model:{model_name}", *([f"version:{version}"] if version else [])]
    stored = Client().list_artifact_versions(
        artifact=MONITORING_REPORT,
        run_metadata=conditions,
        sort_by="desc:created",
        size=1,
        hydrate=True,
    )
    return load_artifact(stored.items[0], MonitoringReport) if stored.items else None
