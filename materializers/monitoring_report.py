"""Stores a MonitoringReport, with its page and Evidently's."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.monitoring.report import MonitoringReport
from cv_factory.monitoring.report_page import render_report
from materializers.artifact import ArtifactMaterializer


class MonitoringReportMaterializer(ArtifactMaterializer):
    """``monitoring_report.json`` and, where they were made, Evidently's pages."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (MonitoringReport,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def pictures(self, data: MonitoringReport) -> dict[str, bytes]:
        """Render the report, and show Evidently's pages; none of them needs the network."""
        pages = {"report": render_report(data), **data.evidently_pages}
        return {f"visualization_{name}.html": page.encode() for name, page in pages.items()}

    def facts(self, data: MonitoringReport) -> dict[str, MetadataType]:
        """Return version, window, verdict and recommendation."""
        return {
            "model": data.model_name,
            "version": data.version,
            "status": data.status,
            "window_kind": "live" if data.is_live else "other",
            "recommendation": data.recommendation.action,
            "alarms": [finding.detector for finding in data.alarms],
            "window": f"{data.start or 'no predictions'} to {data.end or '-'}",
            "n_predictions": data.n_predictions,
            "n_labels": data.n_labels,
            **{f"estimate_{e.estimator}": e.accuracy for e in data.estimates},
        }
