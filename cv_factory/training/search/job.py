"""All that a search works on: what it looks at, and the settings that it starts from."""

from dataclasses import dataclass
from typing import Any

from cv_factory.artifacts.files import fingerprint
from cv_factory.code_fingerprint import code_fingerprint
from cv_factory.config.model import ModelConfig
from cv_factory.config.search import SearchConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split


@dataclass(frozen=True)
class SearchJob:
    """What is searched on what.

    Attributes:
        dataset: Images and labels.
        split: Of this dataset; of its parts, only the training images are looked at.
        transform: What each fold fits on what it trains on.
        model: What is not varied is taken from it, in trials of its family.
        train: Likewise, in trials of every family.
        config: What varies.
    """

    dataset: ImageDataset
    split: Split
    transform: TransformConfig
    model: ModelConfig
    train: TrainConfig
    config: SearchConfig

    @property
    def key(self) -> str:
        """SHA-256 of all that a trial's score depends on: a journal holds one key's trials.

        The number of trials, and how many run side by side, are left out: a search can be
        lengthened.
        """
        settings: dict[str, Any] = {
            "transform": self.transform.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
            "train": self.train.shaping(),
            "search": self.config.model_dump(mode="json", exclude={"trials", "jobs"}),
        }
        ids = self.dataset.manifest["id"].to_numpy()[self.split.train].tolist()
        data = [self.dataset.fingerprint, fingerprint(sorted(ids))]
        code = code_fingerprint("cv_factory.training.search.worker")
        return fingerprint({"settings": settings, "data": data, "code": code})
