"""A small convolutional network for small images: a stem, then blocks that halve the resolution."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cv_factory.config.model_section import NetworkSection

if TYPE_CHECKING:
    from torch import nn

    from cv_factory.transforms.fitted import FittedTransform


class SmallCNNConfig(NetworkSection):
    """A small convolutional network: stem, then blocks that halve the resolution."""

    name: Literal["small_cnn"] = "small_cnn"
    channels: list[Annotated[int, Field(ge=4, le=1024)]] = Field(
        [24, 32, 64, 64], min_length=2, max_length=6, description="stem, then one number a block"
    )
    dropout: float = Field(0.0, ge=0.0, lt=1.0)


def build(config: SmallCNNConfig, transform: "FittedTransform") -> "nn.Module":
    """Build stem, blocks, pooling and a linear head, with torch's default initialization."""
    from torch import nn

    from cv_factory.models._layers import GlobalMean

    width, *widths = config.channels
    backbone = _convolution(transform.image_shape[2], width)
    for next_width in widths:
        # The second convolution works on the pooled image: a quarter of the cost.
        backbone += [*_convolution(width, next_width), nn.MaxPool2d(2, ceil_mode=True)]
        backbone += _convolution(next_width, next_width)
        width = next_width
    network = nn.Sequential()
    network.add_module("backbone", nn.Sequential(*backbone))
    network.add_module("pool", GlobalMean())
    network.add_module("dropout", nn.Dropout(config.dropout))
    network.add_module("head", nn.Linear(width, len(transform.class_names)))
    return network


def _convolution(in_channels: int, out_channels: int) -> "list[nn.Module]":
    from torch import nn

    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
