"""Fingerprints of the inputs of a predictor: data, split, model, config, code."""

from cv_factory.artifacts.files import fingerprint
from cv_factory.code_fingerprint import code_fingerprint
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.training.trained_model import TrainedModel

#: Modules whose import closure is all code between a source's bytes and the exported graph.
_ROOT_MODULES = (
    "cv_factory.data.ingest",
    "cv_factory.data.split",
    "cv_factory.features.compute",
    "cv_factory.features.export",
    "cv_factory.training.train",
    "cv_factory.export.onnx_graph",
    "cv_factory.export.quantize",
)


def compute_fingerprints(
    dataset: ImageDataset, split: Split, trained: TrainedModel, config_fingerprint: str
) -> dict[str, str]:
    """Return the SHA-256 of each input of a predictor, by name.

    The split is fingerprinted by image ids, so that the order of the source does not matter.
    """
    ids = dataset.manifest["id"].to_numpy()
    parts = {name: sorted(ids[indices].tolist()) for name, indices in split.items()}
    return {
        "data": dataset.fingerprint,
        "split": fingerprint(parts),
        "model": trained.fingerprint,
        "config": config_fingerprint,
        "code": code_fingerprint(*_ROOT_MODULES),
    }
