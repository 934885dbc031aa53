"""The configuration of the export: in which numbers the predictor computes."""

from typing import Literal

from pydantic import Field

from cv_factory.config.section import Fraction, Section


class ExportConfig(Section):
    """In which numbers the exported predictor stores its weights and computes."""

    precision: Literal["float32", "float16", "int8"] = Field(
        "float32",
        description="float16: weights of half the size; int8: weights and activations as whole "
        "numbers, with ranges read off training images. Of networks only",
    )
    calibration_images: int = Field(
        256, ge=16, le=10_000, description="training images that int8 reads its ranges off"
    )
    min_agreement: Fraction = Field(
        0.98,
        description="share of the validation images that must keep the label that float32 gives "
        "them; below it the export fails",
    )

    @property
    def is_reduced(self) -> bool:
        """Whether the predictor computes in fewer bits than the model was trained in."""
        return self.precision != "float32"


class FamiliarityConfig(Section):
    """How the predictor tells images that are unlike everything it was trained on."""

    method: Literal["none", "nearest_neighbor"] = Field(
        "nearest_neighbor",
        description="nearest_neighbor: distance to the nearest training image in pixels, level of "
        "detail and the network's features",
    )
    false_rate: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="share of images like the validation images that may be called unfamiliar: it "
        "sets the threshold",
    )
    max_references: int = Field(
        512,
        ge=1,
        le=100_000,
        description="training images in the graph that an image is compared with",
    )


class CalibrationConfig(Section):
    """Whether probabilities are calibrated on the validation images before export."""

    method: Literal["none", "temperature"] = Field(
        "none", description="temperature: one number that sharpens or softens all probabilities"
    )
