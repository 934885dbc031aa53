"""The section ``evaluate``: how the exported predictor is measured."""

from typing import Literal

from pydantic import Field

from cv_factory.config.section import Section, Seed

#: The classes, and what the manifest says of each image that does not tell images apart.
SliceColumn = Literal[
    "class",
    "size",
    "width",
    "height",
    "mode",
    "brightness",
    "contrast",
    "sharpness",
    "official_split",
    "group",
    "origin",  # original, additional: with data.additional
]


class EvaluateConfig(Section):
    """Evaluation of the exported predictor on the test split."""

    bootstrap_samples: int = Field(1000, ge=100, le=100_000)
    confidence: float = Field(0.95, gt=0.5, lt=1.0)
    seed: Seed = 0
    top_k: int = Field(3, ge=2, le=100, description="for the top-k accuracy")
    calibration_bins: int = Field(15, ge=2, le=100)
    slices: list[SliceColumn] = Field(
        ["class", "size", "brightness", "contrast", "sharpness"],
        description="parts of the test images that are measured; numbers are cut into quantiles",
    )
    slice_quantiles: int = Field(4, ge=2, le=20)
    min_slice_images: int = Field(
        20, ge=1, description="smaller slices are shown, but neither ranked nor gated"
    )
    robustness_images: int = Field(
        500, ge=0, description="test images that are corrupted and scored again; 0 for none"
    )
    horizontal_flip: bool = Field(False, description="labels survive a mirror image: check it")
    latency_runs: int = Field(50, ge=0, le=10_000, description="timed calls; 0 for none")
    explained_per_class: int = Field(
        1, ge=0, le=8, description="right and wrong images of each class that are explained"
    )
