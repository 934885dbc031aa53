"""Classification networks of torchvision, their head replaced by one for the classes at hand."""

import difflib
from typing import Any
from urllib.error import URLError

import torchvision
from torch import nn

from cv_factory.config.model import MobileNetV2Config, ResNet18Config, TorchvisionModelConfig
from cv_factory.errors import ConfigError, TrainingError
from cv_factory.models.backbone import BackboneNetwork, build_backbone_network

TorchvisionSection = ResNet18Config | MobileNetV2Config | TorchvisionModelConfig

#: What some architectures need beside their name to answer with one tensor of random features.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def architecture_of(config: TorchvisionSection) -> str:
    """Return torchvision's name of a section's architecture."""
    return config.architecture if isinstance(config, TorchvisionModelConfig) else config.name


def check_architecture(config: TorchvisionSection) -> None:
    """Check that torchvision knows the architecture, and the weights where some are asked for.

    Raises:
        ConfigError: It does not; the message has the nearest name.
    """
    architecture = architecture_of(config)
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise ConfigError(
            f"model.architecture: torchvision has no classification network {architecture!r}."
            f"{_suggestion(architecture, known)}"
        )
    weights = [weight.name for weight in torchvision.models.get_model_weights(architecture)]
    if config.weights is not None and config.weights not in weights:
        raise ConfigError(
            f"model.weights: {architecture} has no weights {config.weights!r}; there are: "
            f"{', '.join(weights)}.{_suggestion(config.weights, weights)}"
        )


def build_torchvision_network(
    config: TorchvisionSection, image_shape: tuple[int, int, int], n_classes: int
) -> BackboneNetwork:
    """Build the network with random weights.

    Raises:
        ConfigError: torchvision does not know it.
        TrainingError: The images are too small for it.
    """
    check_architecture(config)
    architecture = architecture_of(config)
    arguments = dict(_ARGUMENTS.get(architecture, {}))
    height, width, _ = image_shape
    size = (height, width) if config.input_size is None else (config.input_size,) * 2
    if architecture.startswith("vit_"):
        arguments["image_size"] = size[0]
    if architecture.startswith("maxvit"):
        arguments["input_size"] = size
    try:
        backbone = torchvision.models.get_model(architecture, weights=None, **arguments)
    except (ValueError, AssertionError) as error:
        raise TrainingError(
            f"Images of {size[0]}x{size[1]} do not suit {architecture} ({error}). Set "
            "model.input_size, such as 224: images are then resized inside the network."
        ) from None
    if isinstance(config, ResNet18Config) and config.small_stem:
        # K. He et al., Deep Residual Learning for Image Recognition, 2016, section 4.2.
        backbone.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    _remove_head(backbone)
    return build_backbone_network(config, architecture, backbone, image_shape, n_classes)


def set_weights(network: nn.Module, config: TorchvisionSection) -> None:
    """Load pretrained weights into the backbone, where the section names some.

    Raises:
        TrainingError: They cannot be downloaded, or do not fit the first layer.
    """
    if config.weights is None:
        return
    assert isinstance(network, BackboneNetwork), "built above"
    weights = torchvision.models.get_model_weights(architecture_of(config))[config.weights]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError) as error:
        raise TrainingError(
            f"model.weights: {weights.url} cannot be downloaded ({error}). Put the file into "
            "$TORCH_HOME/hub/checkpoints, or set model.weights to null."
        ) from None
    own = network.backbone.state_dict()
    wrong = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
    if wrong:
        raise TrainingError(
            f"model.weights: {config.weights} does not fit this network's {wrong[0]}; pretrained "
            "weights need model.small_stem=false and the input size they were made for."
        )
    network.backbone.load_state_dict({name: state[name] for name in own})


def _remove_head(network: nn.Module) -> None:
    """Replace the last layer that has weights and gives class scores by the identity."""
    layers = [name for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    network.set_submodule(layers[-1], nn.Identity())


def _suggestion(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" Did you mean {near[0]!r}?" if near else ""
