"""Classification networks of torchvision with their default weights, by torchvision's name.

Weights are taken from torch's cache, or downloaded from the address that torchvision names.
"""

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from cv_factory.errors import ConfigError
from cv_factory.features.backbones import PretrainedBackbone, sha256_of_file

if TYPE_CHECKING:
    from torch import nn

#: What some architectures need beside their name to answer with one tensor of random features.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
_TIMEOUT_S = 10.0
#: torchvision's files carry the first digits of their checksum.
_CHECKSUM = re.compile(r"-([0-9a-f]{8,})\.")


def check_available(architecture: str) -> None:
    """Check that torchvision knows the architecture, and that its weights can be had.

    Raises:
        ConfigError: It does not, or they are neither on this machine nor within reach.
    """
    check_architecture(architecture, "features.backbone")
    weights = _default_weights(architecture)
    path = weights_path(weights)
    if path.exists():
        _verify(path)
        return
    try:
        urlopen(Request(weights.url, method="HEAD"), timeout=_TIMEOUT_S).close()  # noqa: S310 (torchvision's)
    except (URLError, OSError) as error:
        raise ConfigError(
            f"features.backbone: {weights.url} cannot be reached ({error}). Put the file into "
            f"{path.parent}, or use efficientnet_lite0, whose weights are installed."
        ) from None


def check_architecture(architecture: str, setting: str) -> None:
    """Check that torchvision has a classification network of this name.

    Raises:
        ConfigError: It has not; the message has the setting and the nearest name.
    """
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if architecture not in names:
        raise ConfigError(
            f"{setting}: torchvision has no classification network {architecture!r}."
            f"{suggest_name(architecture, names)}"
        )


def suggest_name(name: str, names: list[str]) -> str:
    """Return a question for the nearest name, empty where none is near."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f" Did you mean {near[0]!r}?" if near else ""


def build_network(architecture: str, size: tuple[int, int]) -> "nn.Module":
    """Build a network with random weights, its head replaced by the identity.

    Args:
        architecture: torchvision's name.
        size: Height and width of its input.

    Raises:
        AssertionError, ValueError: The size does not suit it.
    """
    import torchvision

    arguments = dict(_ARGUMENTS.get(architecture, {}))
    if architecture.startswith("vit_"):
        arguments["image_size"] = size[0]
    if architecture.startswith("maxvit"):
        arguments["input_size"] = size
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, **arguments)
    _remove_head(network)
    return network


def load(architecture: str, input_size: int) -> PretrainedBackbone:
    """Load network and weights, which are downloaded where they are not in torch's cache.

    Raises:
        ConfigError: They cannot be downloaded, are damaged, or do not fit the input size.
    """
    weights = _default_weights(architecture)
    try:
        network = build_network(architecture, (input_size, input_size))
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    except OSError as error:
        raise ConfigError(
            f"features.backbone: {weights.url} cannot be downloaded ({error})."
        ) from None
    except (AssertionError, KeyError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"features.input_size: {input_size} does not suit torchvision/{architecture} "
            f"({str(error).partition(chr(10))[0]}); its weights were made for "
            f"{weights.transforms().crop_size[0]}."
        ) from None
    transforms, path = weights.transforms(), weights_path(weights)
    _verify(path)
    return PretrainedBackbone(
        network,
        _pixels(transforms.mean),
        _pixels(transforms.std),
        sha256_of_file(path),
        weights.meta.get("license", f"BSD-3-Clause (torchvision); {weights.meta['recipe']}"),
    )


def weights_path(weights: Any) -> Path:
    """Return where torch keeps a file of weights."""
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])


def _default_weights(architecture: str) -> Any:
    import torchvision

    return torchvision.models.get_model_weights(architecture).DEFAULT


def _verify(path: Path) -> None:
    """Compare a file with the digits of the checksum in its name.

    Raises:
        ConfigError: They differ.
    """
    expected = _CHECKSUM.search(path.name)
    if expected is not None and not sha256_of_file(path).startswith(expected[1]):
        raise ConfigError(
            f"features.backbone: {path} is damaged: its SHA-256 does not begin with "
            f"{expected[1]}. Delete it, and it is downloaded again."
        )


def _pixels(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (255 * value for value in values)
    return red, green, blue


def _remove_head(network: "nn.Module") -> None:
    """Replace the last layer that has weights and gives class scores by the identity."""
    from torch import nn

    layers = [name for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    network.set_submodule(layers[-1], nn.Identity())
