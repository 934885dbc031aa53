"""The backbones that a configuration can name: one public module a family, found by its name.

``features.backbone`` is ``MODULE`` or ``MODULE/ARCHITECTURE``. A module has two functions:
``check_available(architecture)``, which raises ConfigError before anything is created where
network or weights are not on this machine, and ``load(architecture, input_size)``, which returns a
``PretrainedBackbone``. Heavy packages are imported inside them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cv_factory.config.plugins import load_plugin
from cv_factory.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.features.backbones"


@dataclass(frozen=True)
class PretrainedBackbone:
    """A pretrained network without its head, and what its weights expect and come from.

    Attributes:
        network: From RGB images float ``(N, 3, S, S)``, normalized, to features that flatten to
            ``(N, F)``; in evaluation mode.
        mean: Of each channel, from 0 to 255, that the images are normalized by.
        std: Likewise, what they are divided by.
        weights_sha256: SHA-256 of the file with the weights.
        license: SPDX identifier of the weights' license, or where it is stated.
    """

    network: "nn.Module"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights_sha256: str
    license: str


def check_backbone(name: str) -> None:
    """Check, before anything is created, that a backbone and its weights are there.

    Args:
        name: As in ``features.backbone``.

    Raises:
        ConfigError: There is no such backbone, or it is not on this machine.
    """
    module, architecture = _parse(name)
    module.check_available(architecture)


def load_backbone(name: str, input_size: int) -> PretrainedBackbone:
    """Load a pretrained backbone.

    Args:
        name: As in ``features.backbone``.
        input_size: S, pixels a side of its input.

    Raises:
        ConfigError: As for ``check_backbone``.
    """
    module, architecture = _parse(name)
    module.check_available(architecture)
    backbone: PretrainedBackbone = module.load(architecture, input_size)
    backbone.network.eval()
    return backbone


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file with weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(name: str) -> tuple[Any, str]:
    """Return the module of a backbone's family and the architecture, empty where none is named."""
    family, _, architecture = name.partition("/")
    try:
        return load_plugin(PLUGINS, family, "backbone"), architecture
    except ValueError as error:
        raise ConfigError(f"features.backbone: {error}") from None
