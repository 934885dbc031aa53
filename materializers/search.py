"""Stores a SearchResult, with the course of the search and what mattered in it."""

from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.metadata.metadata_types import MetadataType

from cv_factory.evaluation.plots.search_trials import search_history, search_importances
from cv_factory.training.search.result import SearchResult
from materializers.artifact import ArtifactMaterializer


class SearchResultMaterializer(ArtifactMaterializer):
    """``search.json``."""

    SKIP_REGISTRATION: ClassVar[bool] = False
    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (SearchResult,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def pictures(self, data: SearchResult) -> dict[str, bytes]:
        """Draw every trial's score, and the importance of the settings where it is known."""
        scores = [trial.score for trial in data.trials]
        model_families = [trial.family for trial in data.trials]
        best = data.trials.index(data.winner)
        pictures = {"history.png": search_history(scores, model_families, best, data.metric)}
        if data.importances:
            pictures["importances.png"] = search_importances(data.importances)
        return pictures

    def facts(self, data: SearchResult) -> dict[str, MetadataType]:
        """Name the winner and count the trials."""
        winner = data.winner
        settings = ", ".join(f"{key} {value}" for key, value in winner.values.items())
        states = [trial.state for trial in data.trials]
        return {
            "winner": f"{winner.family} ({settings or 'as configured'}), "
            f"{data.metric} {winner.score:.4f} over {len(winner.fold_scores)} fold(s)",
            "model": data.model.model_dump(mode="json"),
            "train": data.train.model_dump(mode="json"),
            **{f"n_{state}": states.count(state) for state in ("complete", "pruned", "failed")},
            "fingerprint": data.fingerprint,
        }

    def compute_content_hash(self, data: SearchResult) -> str:
        """Hash trials and winner."""
        return data.fingerprint
