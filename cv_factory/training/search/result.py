"""The SearchResult: every trial of a search, and the configuration that won."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import TypeAdapter

from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.files import fingerprint
from cv_factory.config.model import ModelConfig
from cv_factory.config.train import TrainConfig
from cv_factory.errors import ArtifactError


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried.

    Attributes:
        number: From 0.
        family: The model's name.
        values: The settings that the search chose, by dotted key.
        state: complete, pruned (stopped as worse than the median) or failed.
        score: Mean of the folds' scores; of a pruned trial the last that was known; else None.
        fold_scores: Score of each fold that was finished.
        steps: What pruning looked at, by step; see ``worker.py``.
        seconds: How long it ran.
        reason: Why it failed.
    """

    number: int
    family: str
    values: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]
    score: float | None
    fold_scores: tuple[float, ...] = ()
    steps: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the trial as plain values."""
        return {**asdict(self), "fold_scores": list(self.fold_scores)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Trial":
        """Read what ``to_json`` returned, also after a way through JSON.

        Raises:
            ArtifactError: It is something else.
        """
        try:
            steps = {int(step): float(value) for step, value in content["steps"].items()}
            scores = tuple(float(score) for score in content["fold_scores"])
            return cls(**{**content, "steps": steps, "fold_scores": scores})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"This is not a trial of a search: {error!r}.") from None


@dataclass(frozen=True)
class SearchResult(Artifact):
    """What a search found.

    Attributes:
        metric: accuracy (more is better) or log_loss (less is better), on held-out folds of the
            training images.
        trials: All, by number.
        best: The winner's number.
        model: The winner's model section.
        train: The winner's training section.
        importances: By family: how much of the score's variance each setting explains (fANOVA);
            under ``all`` the share that lies between families. Empty where trials were too few.
    """

    KIND: ClassVar[str] = "search"

    metric: str
    trials: tuple[Trial, ...]
    best: int
    model: ModelConfig
    train: TrainConfig
    importances: dict[str, dict[str, float]]

    @property
    def winner(self) -> Trial:
        """The best trial."""
        return next(trial for trial in self.trials if trial.number == self.best)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of trials and winner, not of how long trials took."""
        return fingerprint({**self._header(), "trials": [self._lasting(t) for t in self.trials]})

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
        return cls(
            metric=body["metric"],
            trials=tuple(Trial.from_json(trial) for trial in body["trials"]),
            best=body["best"],
            model=adapter.validate_python(body["model"]),
            train=TrainConfig.model_validate(body["train"]),
            importances=body["importances"],
        )

    def _header(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "trials": [trial.to_json() for trial in self.trials],
            "best": self.best,
            "model": self.model.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "importances": self.importances,
        }

    @staticmethod
    def _lasting(trial: Trial) -> dict[str, Any]:
        return {key: value for key, value in trial.to_json().items() if key != "seconds"}
