"""Scikit-learn's digits, split and transformed once a process, to train models on."""

from dataclasses import dataclass
from functools import cache

from cv_factory.config.data import DataConfig
from cv_factory.config.export import CalibrationConfig
from cv_factory.config.model import ModelConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import PCAConfig, TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.ingest import ingest
from cv_factory.data.split import Split, split_dataset
from cv_factory.export.onnx_graph import export_predictor
from cv_factory.inference.predictor import Predictor
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.train import train
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform, fit_transform


@dataclass(frozen=True)
class Digits:
    """A dataset of digits with its split and fitted transform."""

    dataset: ImageDataset
    split: Split
    transform: FittedTransform

    def train(
        self,
        model: ModelConfig,
        config: TrainConfig,
        on_epoch: EpochCallback = lambda _epoch, _metrics: None,
    ) -> TrainedModel:
        """Train a model on them."""
        return train(self.dataset, self.split, self.transform, model, config, on_epoch)

    def export(self, trained: TrainedModel, *, calibrated: bool = False) -> Predictor:
        """Export a model trained on them."""
        calibration = CalibrationConfig(method="temperature" if calibrated else "none")
        return export_predictor(
            trained, self.transform, {}, self.dataset, self.split.validation, calibration
        )


@cache
def load_digits(limit: int | None = None, n_components: int = 4) -> Digits:
    """Return the first digits, all by default, with a PCA of some components."""
    dataset = ingest(DataConfig(limit=limit))
    split = split_dataset(dataset, SplitConfig())
    config = TransformConfig(pca=PCAConfig(n_components=n_components))
    return Digits(dataset, split, fit_transform(dataset, split.train, config))
