"""SearchJob: data, base settings and search space of a hyperparameter search."""

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
from cv_factory.features.image_features import ImageFeatures


@dataclass(frozen=True)
class SearchJob:
    """Data, base settings and search space.

    Attributes:
        dataset: Images and labels.
        split: Of this dataset; only the training part is used.
        transform: Settings of the transform that each fold fits.
        model: Base settings of trials of its family.
        train: Base settings of all trials.
        config: Search space, metric and folds.
        features: A backbone's features of the images, on which all trials are fitted; or None.
    """

    dataset: ImageDataset
    split: Split
    transform: TransformConfig
    model: ModelConfig
    train: TrainConfig
    config: SearchConfig
    features: ImageFeatures | None = None

    @property
    def key(self) -> str:
        """SHA-256 of everything that a trial's score depends on; the journal's name.

        The number of trials and of parallel jobs is excluded, so that a search can be extended.
        """
        settings: dict[str, Any] = {
            "transform": self.transform.model_dump(mode="json"),
            "model": self.model.model_dump(mode="json"),
            "train": self.train.fingerprint_fields(),
            "search": self.config.model_dump(mode="json", exclude={"trials", "jobs"}),
        }
        ids = self.dataset.manifest["id"].to_numpy()[self.split.train].tolist()
        data = [self.dataset.fingerprint, fingerprint(sorted(ids))]
        if self.features is not None:
            data.append(self.features.fingerprint)
        code = code_fingerprint("cv_factory.training.search.trial_worker")
        return fingerprint({"settings": settings, "data": data, "code": code})
