"""Classification networks of torchvision, their head replaced by one for the classes at hand."""

from typing import TYPE_CHECKING
from urllib.error import URLError

from pydantic import Field

from cv_factory.config.model_section import BackboneSection
from cv_factory.errors import ConfigError, TrainingError
from cv_factory.features.backbones import torchvision as torchvision_backbones

if TYPE_CHECKING:
    from cv_factory.models._backbone import BackboneNetwork
    from cv_factory.transforms.fitted import FittedTransform


class TorchvisionSection(BackboneSection):
    """Base of the sections whose architecture is one of torchvision's."""

    weights: str | None = Field(
        None,
        min_length=1,
        description="pretrained weights by torchvision's name, such as IMAGENET1K_V1 (downloaded); "
        "null: random",
    )

    @property
    def torchvision_name(self) -> str:
        """The architecture as torchvision calls it."""
        return self.name


def check_available(config: TorchvisionSection) -> None:
    """Check that torchvision knows the architecture, and the weights where some are named.

    Raises:
        ConfigError: It does not; the message has the nearest name.
    """
    import torchvision

    architecture = config.torchvision_name
    torchvision_backbones.check_architecture(architecture, "model.architecture")
    weights = [weight.name for weight in torchvision.models.get_model_weights(architecture)]
    if config.weights is not None and config.weights not in weights:
        raise ConfigError(
            f"model.weights: {architecture} has no weights {config.weights!r}; there are: "
            f"{', '.join(weights)}.{torchvision_backbones.suggest_name(config.weights, weights)}"
        )


def build(
    config: TorchvisionSection, transform: "FittedTransform", *, small_stem: bool = False
) -> "BackboneNetwork":
    """Build the network with random weights.

    Args:
        config: Its section.
        transform: Gives image shape and classes.
        small_stem: ResNets alone: a first layer of 3x3 without pooling.

    Raises:
        ConfigError: torchvision does not know it.
        TrainingError: The images are too small for it.
    """
    from torch import nn

    from cv_factory.models._backbone import build_backbone_network

    check_available(config)
    architecture = config.torchvision_name
    height, width, _ = transform.image_shape
    size = (height, width) if config.input_size is None else (config.input_size,) * 2
    try:
        backbone = torchvision_backbones.build_network(architecture, size)
    except (ValueError, AssertionError) as error:
        raise TrainingError(
            f"Images of {size[0]}x{size[1]} do not suit {architecture} ({error}). Set "
            "model.input_size, such as 224: images are then resized inside the network."
        ) from None
    if small_stem:
        # K. He et al., Deep Residual Learning for Image Recognition, 2016, section 4.2.
        backbone.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    return build_backbone_network(config, architecture, backbone, transform)


def initialize(
    network: "BackboneNetwork", config: TorchvisionSection, transform: "FittedTransform"
) -> None:
    """Load pretrained weights into the backbone, where the section names some.

    Raises:
        TrainingError: They cannot be downloaded, or do not fit the first layer.
    """
    if config.weights is None:
        return
    import torchvision

    weights = torchvision.models.get_model_weights(config.torchvision_name)[config.weights]
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
