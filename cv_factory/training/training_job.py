"""TrainingJob: data, model and settings of a training, in memory or in a directory."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from cv_factory.artifacts.arrays import load_array, load_npz
from cv_factory.artifacts.files import canonical_json, fingerprint, write_atomic
from cv_factory.code_fingerprint import code_fingerprint
from cv_factory.config.model import ModelConfig
from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.transforms.fitted import FittedTransform

_IMAGES, _ARRAYS, _SETTINGS, _TRANSFORM = "images.npy", "arrays.npz", "job.json", "transform"

#: Validation images whose probabilities the export must reproduce.
_N_REFERENCE_IMAGES = 256


@dataclass(frozen=True)
class TrainingJob:
    """Data, model and settings of a training.

    Attributes:
        images: uint8 ``(N, H, W, C)``, memory-mapped where they come from a file.
        labels: int64 ``(N,)``.
        train: Indices of the training images, int64.
        validation: Indices of the validation images, int64.
        reference: Images uint8 ``(n, H, W, C)`` for the trained model's reference outputs.
        transform: Fitted on the training images.
        model: Section of the model.
        config: Training settings.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    reference: npt.NDArray[np.uint8]
    transform: FittedTransform
    model: ModelConfig
    config: TrainConfig

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.transform.image_shape

    @property
    def batch_size(self) -> int:
        """Images a step, over all processes."""
        return self.config.choose_batch_size(len(self.train))

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.transform.class_names)

    def save(self, directory: Path) -> None:
        """Write the job; a memory-mapped file of images is linked, not copied."""
        source = getattr(self.images, "filename", None)
        if source is not None and load_array(Path(source), mmap=True).shape == self.images.shape:
            (directory / _IMAGES).symlink_to(source)
        else:
            np.save(directory / _IMAGES, self.images)
        np.savez(
            directory / _ARRAYS,
            labels=self.labels,
            train=self.train,
            validation=self.validation,
            reference=self.reference,
        )
        (directory / _TRANSFORM).mkdir()
        self.transform.save(directory / _TRANSFORM)
        settings = {
            "model": self.model.model_dump(mode="json"),
            "config": self.config.model_dump(mode="json"),
        }
        write_atomic(directory / _SETTINGS, canonical_json(settings).encode())

    @classmethod
    def load(cls, directory: Path) -> "TrainingJob":
        """Read a job and map its images into memory.

        Raises:
            ArtifactError: A file of it is damaged.
        """
        settings = json.loads((directory / _SETTINGS).read_bytes())
        adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
        names = ("labels", "train", "validation", "reference")
        arrays = load_npz(directory / _ARRAYS, names)
        return cls(
            images=load_array(directory / _IMAGES, mmap=True),
            transform=FittedTransform.load(directory / _TRANSFORM),
            model=adapter.validate_python(settings["model"]),
            config=TrainConfig.model_validate(settings["config"]),
            **arrays,
        )


def checkpoint_key(
    dataset: ImageDataset,
    split: Split,
    job: TrainingJob,
    processes: int,
    device: str,
    module: str = "cv_factory.training.train",
) -> str:
    """Return the SHA-256 of data, split, settings, code and device, which determine the weights.

    Args:
        dataset: Images and labels.
        split: Of this dataset.
        job: Settings and transform.
        processes: Over all machines.
        device: Its type.
        module: The module that trains, whose code counts.
    """
    import torch

    return fingerprint(
        {
            "dataset": dataset.content_hash,
            "split": {n: hashlib.sha256(i.tobytes()).hexdigest() for n, i in split.items()},
            "transform": job.transform.fingerprint,
            "model": job.model.model_dump(mode="json"),
            "train": job.config.fingerprint_fields(),
            "processes": processes,
            "device": device,
            "code": code_fingerprint(module),
            "torch": torch.__version__,
        }
    )


def select_reference_indices(validation: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return up to 256 validation indices, evenly spaced."""
    n = min(_N_REFERENCE_IMAGES, len(validation))
    return validation[np.linspace(0, len(validation) - 1, n).astype(np.int64)]
