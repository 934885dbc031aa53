"""SearchResult: all trials of a search, and the configuration of the best one."""

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
    """A trial of a search: its settings, scores and how it ended.

    Attributes:
        number: Sequence number, from 0.
        family: The model's name.
        values: Sampled settings by dotted key.
        state: complete, pruned (stopped as worse than the median) or failed.
        score: Mean of the folds' scores; of a pruned trial the last reported one; else None.
        fold_scores: Score of each finished fold.
        steps: Reported scores by step, for pruning; see ``trial_worker.py``.
        seconds: Duration.
        reason: Error of a failed trial.
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
        """Build a trial from ``to_json``, also from parsed JSON, whose keys are strings.

        Raises:
            ArtifactError: The content is not a trial.
        """
        try:
            steps = {int(step): float(value) for step, value in content["steps"].items()}
            scores = tuple(float(score) for score in content["fold_scores"])
            return cls(**{**content, "steps": steps, "fold_scores": scores})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"This is not a trial of a search: {error!r}.") from None


@dataclass(frozen=True)
class SearchResult(Artifact):
    """Trials of a search and the best configuration.

    Attributes:
        metric: accuracy (more is better) or log_loss (less is better), on held-out folds of the
            training images.
        trials: All, by number.
        best: Number of the best trial.
        model: The best trial's model section.
        train: The best trial's training section.
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
        return fingerprint(
            {**self._header(), "trials": [self._without_duration(t) for t in self.trials]}
        )

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
    def _without_duration(trial: Trial) -> dict[str, Any]:
        return {key: value for key, value in trial.to_json().items() if key != "seconds"}
