"""Stores DataIssues, with their page."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.curation.data_issues import DataIssues
from materializers.artifact import ArtifactMaterializer


class DataIssuesMaterializer(ArtifactMaterializer):
    """``data_issues.json`` and ``issues.html``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (DataIssues,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def pictures(self, data: DataIssues) -> dict[str, bytes]:
        """Render the issues as a page that needs no network."""
        return {"issues.html": data.to_html().encode()}

    def facts(self, data: DataIssues) -> dict[str, MetadataType]:
        """Count the issues by kind."""
        accuracy = {} if data.accuracy is None else {"out_of_fold_accuracy": data.accuracy}
        return {
            "n_images": data.n_images,
            **{f"n_{kind}": n for kind, n in data.counts.items()},
            **accuracy,
            "notices": list(data.notices),
        }
