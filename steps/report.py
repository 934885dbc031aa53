"""Step ``report``: hand a monitoring report to MLflow, Prometheus and the alerter."""

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.monitoring import ReportConfig
from cv_factory.monitoring.report import MonitoringReport


@step(experiment_tracker=True, enable_cache=False)
def report(report: MonitoringReport, config: ReportConfig) -> None:
    """Publish the report; it is stored already."""
    from registry.monitoring_reports import publish

    publish(report, config)
