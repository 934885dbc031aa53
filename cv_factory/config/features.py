"""The section ``features``: the pretrained backbone whose features a head is fitted on."""

from pydantic import Field

from cv_factory.config.model_section import InputSize
from cv_factory.config.section import Section


class FeaturesConfig(Section):
    """A pretrained backbone: classical models are fitted on its features, not on pixels."""

    backbone: str = Field(
        "efficientnet_lite0",
        pattern=r"^[a-z0-9_]+(/[A-Za-z0-9_.\-]+)?$",
        description="efficientnet_lite0 (installed with its weights), or torchvision/NAME, with "
        "its default weights from torch's cache or downloaded",
    )
    input_size: InputSize = Field(
        128, description="images are resized to this square inside the graph"
    )
    horizontal_flip: bool = Field(
        False, description="also the features of the mirrored images, for training alone"
    )
    fine_tune: int = Field(
        0,
        ge=0,
        le=1000,
        description="epochs in which the backbone is trained on, with a linear head; the head of "
        "model is fitted on its features afterwards. It takes gradient descent through all layers",
    )
    fine_tune_learning_rate: float = Field(
        2e-4,
        gt=0.0,
        le=1.0,
        description="the highest of the linear head; lower layers of the backbone have less",
    )
