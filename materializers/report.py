"""Stores a DataReport, with its page."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.data.validation.report import DataReport
from materializers.artifact import ArtifactMaterializer


class DataReportMaterializer(ArtifactMaterializer):
    """``data_report.json`` and ``report.html``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (DataReport,)
    FORMER_MODULES: ClassVar[tuple[str, ...]] = ("cv_factory.data.report",)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def pictures(self, data: DataReport) -> dict[str, bytes]:
        """Render the report as a page that needs no network."""
        return {"report.html": data.to_html().encode()}

    def facts(self, data: DataReport) -> dict[str, MetadataType]:
        """Return whether the dataset passed, and the failed expectations."""
        return {
            "passed": data.ok,
            "n_expectations": len(data.expectations),
            "failed": [result.name for result in data.failures],
        }
