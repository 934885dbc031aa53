"""Export of a pretrained backbone as an ONNX graph, checked against PyTorch on photographs."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx

from cv_factory.artifacts.onnx_graphs import export_module, set_versions, strip_metadata
from cv_factory.artifacts.onnx_session import open_session
from cv_factory.errors import ConfigError, ExportError
from cv_factory.features.backbone import Backbone
from cv_factory.features.backbones import load_backbone

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)

#: Largest difference between the graph's features and PyTorch's, as a share of the largest feature.
PARITY_TOLERANCE = 1e-4


def export_backbone(name: str, input_size: int) -> Backbone:
    """Export a backbone by PyTorch's dynamo exporter, and compare both on photographs.

    Args:
        name: As in ``features.backbone``.
        input_size: Pixels a side of its input.

    Raises:
        ConfigError: There is no such backbone, its weights are not on this machine, or the input
            is too small for it.
        ExportError: The graph's features differ from the network's.
    """
    from cv_factory.features.layers import NormalizedBackbone

    pretrained = load_backbone(name, input_size)
    _log.info("Exporting the backbone %s; license: %s.", name, pretrained.license)
    return export_network(
        NormalizedBackbone(pretrained.network, pretrained.mean, pretrained.std),
        Backbone(b"", name, input_size, 0, pretrained.weights_sha256, pretrained.license),
    )


def export_network(network: "nn.Module", description: Backbone) -> Backbone:
    """Export a network from pixels to features, and compare both on photographs.

    Args:
        network: From RGB images float ``(N, 3, S, S)`` from 0 to 255 to features ``(N, F)``; on the
            CPU.
        description: Its graph and number of features are replaced.

    Raises:
        ConfigError: The input is too small for it.
        ExportError: The graph's features differ from the network's.
    """
    import torch

    photos = load_photos(description.input_size)
    try:
        with torch.inference_mode():
            expected = network.eval()(torch.from_numpy(photos)).numpy()
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"features.input_size: {description.input_size} pixels a side do not suit "
            f"{description.name} ({str(error).partition(chr(10))[0]}): give another one, such as "
            "224."
        ) from None
    graph = _to_onnx(network, photos)
    check_parity(graph, photos, expected, description.name)
    return replace(description, graph=graph, n_features=expected.shape[1])


def load_photos(side: int) -> npt.NDArray[np.float32]:
    """Return five squares of scikit-learn's two photographs: ``(5, 3, side, side)``, 0 to 255.

    Random pixels would do less: they hardly reach the activations that photographs reach.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    china, flower = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    boxes = [(china, (x, 0, x + 427, 427)) for x in (0, 213)]
    boxes += [(flower, box) for box in ((106, 0, 533, 427), (250, 100, 450, 300), (0, 0, 96, 96))]
    squares = [np.asarray(photo.crop(box).resize((side, side))) for photo, box in boxes]
    return np.ascontiguousarray(np.stack(squares).transpose(0, 3, 1, 2), dtype=np.float32)


def check_parity(
    graph: bytes,
    photos: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    name: str,
) -> None:
    """Compare a graph's features with PyTorch's, of several photos at once and of a single one.

    Raises:
        ExportError: They differ by more than ``PARITY_TOLERANCE``, or are no numbers.
    """
    session = open_session(graph)
    batches = [photos, photos[:1]]
    features = [session.run(["backbone_features"], {"pixels": batch})[0] for batch in batches]
    difference = max(
        float(np.abs(values - expected[: len(values)]).max())
        if values.shape == expected[: len(values)].shape
        else float("inf")
        for values in features
    )
    limit = PARITY_TOLERANCE * float(np.abs(expected).max())
    # Not "difference > limit": NaN must fail as well.
    if not difference <= limit:
        raise ExportError(
            f"The exported backbone {name} differs from PyTorch's by {difference:.2g} in its "
            f"features of {len(photos)} photographs (allowed: {limit:.2g}). The export of this "
            "backbone is wrong; it is not stored. Name another one in features.backbone."
        )


def _to_onnx(module: "nn.Module", photos: npt.NDArray[np.float32]) -> bytes:
    import torch

    model = export_module(module, torch.from_numpy(photos[:2]), "pixels", "backbone_features")
    strip_metadata(set_versions(model), "backbone")
    onnx.checker.check_model(model, full_check=True)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized
