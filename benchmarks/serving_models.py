"""The two predictors of the serving benchmarks, with random weights, since only cost matters.

ResNet18 of torchvision with random weights on 64x64 RGB, and the default small CNN of this project
on 28x28 grey. Both take uint8 images and also give 16 features, as every predictor does.
"""

import io
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from cv_factory.config.serving import ServingConfig
from cv_factory.inference.predictor import Contract, GoldenSamples, Predictor
from cv_factory.serving.bundle import Bundle

SIZES = {"resnet18": (64, 64, 3), "small_cnn": (28, 28, 1)}
_CLASSES = tuple(str(n) for n in range(10))


def network(name: str) -> Any:
    """Return the torch module: float images ``(N, C, H, W)`` in, logits out."""
    import torch

    torch.manual_seed(0)
    if name == "resnet18":
        import torchvision

        return torchvision.models.resnet18(weights=None, num_classes=10).eval()
    from cv_factory.models.small_cnn import SmallCNNConfig, build

    transform = SimpleNamespace(image_shape=SIZES[name], class_names=_CLASSES)
    return build(SmallCNNConfig(), cast(Any, transform)).eval()


def write_bundle(name: str, folder: Path, serving: ServingConfig) -> None:
    """Export a network and write its bundle, a picture (``image.png``) and torch's weights."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    module = network(name)
    graph = _export(module, SIZES[name])
    height, width, channels = SIZES[name]
    contract = Contract(height, width, channels, _CLASSES, 16, {"name": name}, {})
    images = np.random.default_rng(0).integers(0, 256, (16, *SIZES[name]), np.uint8)
    empty: npt.NDArray[Any] = np.empty((0,), np.float32)
    draft = Predictor(graph, contract, GoldenSamples(images, empty, empty))
    outputs = draft.predict(images)
    golden = GoldenSamples(images, outputs.probabilities, outputs.features)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    (folder / "bundle").mkdir()
    Bundle(Predictor(graph, contract, golden), serving, name, "1", created).save(folder / "bundle")
    save_file(module.state_dict(), folder / "weights.safetensors")
    (folder / "model.onnx").write_bytes(graph)
    (folder / "image.png").write_bytes(_picture(SIZES[name]))


def _export(module: Any, size: tuple[int, int, int]) -> bytes:
    """Return the ONNX graph from uint8 ``(N, H, W, C)`` to probabilities and features."""
    import torch

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.project = torch.nn.Linear(int(np.prod(size)), 16)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scaled = images.float() / 255
            logits = self.module(scaled.permute(0, 3, 1, 2))
            return torch.softmax(logits, 1), self.project(scaled.flatten(1))

    program = torch.onnx.export(
        Served().eval(),
        (torch.zeros(2, *size, dtype=torch.uint8),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
        input_names=["images"],
        output_names=["probabilities", "features"],
        verbose=False,
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _picture(size: tuple[int, int, int]) -> bytes:
    """Return a piece of a photograph as PNG: noise would decode slower than pictures do."""
    from sklearn.datasets import load_sample_images

    photo = Image.fromarray(load_sample_images().images[0]).crop((0, 0, 400, 400))
    height, width, channels = size
    picture = photo.resize((width, height)).convert("L" if channels == 1 else "RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
