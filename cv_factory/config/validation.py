"""The section ``validation``: what a dataset must fulfil before anything is fitted on it."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cv_factory.config.section import Fraction, Problem, Section, refuse

ExpectationName = Literal[
    "brightness",
    "class_imbalance",
    "class_names_case",
    "class_names_distinct",
    "class_shares_as_reference",
    "contrast",
    "duplicate_pixels",
    "image_aspect",
    "image_side",
    "label_conflicts",
    "labels_as_reference",
    "min_images",
    "min_images_per_class",
    "near_duplicates",
    "no_group_leakage",
    "no_leakage",
    "sharpness",
    "similar_across_parts",
    "statistics_as_reference",
    "suspicious_labels",
    "values_fill_range",
    "values_inside_range",
]


class ValidationConfig(Section):
    """Expectations of a dataset, checked before anything is fitted on it."""

    min_images: int = Field(20, ge=1)
    min_images_per_class: int = Field(5, ge=1)
    max_class_imbalance: float = Field(
        20.0, ge=1.0, description="largest class / smallest class; above it is a warning"
    )
    max_duplicate_share: Fraction = Field(
        0.05, description="share of images whose pixels stand in the dataset twice; a warning"
    )
    brightness: list[Fraction] = Field(
        [0.01, 0.99], min_length=2, max_length=2, description="mean pixel value / 255; a warning"
    )
    contrast: list[Fraction] = Field(
        [0.005, 1.0], min_length=2, max_length=2, description="standard deviation / 255; a warning"
    )
    sharpness: list[Fraction] = Field(
        [0.001, 1.0], min_length=2, max_length=2, description="mean |Laplacian| / 1020; a warning"
    )
    side: list[Annotated[int, Field(ge=1)]] = Field(
        [4, 20_000], min_length=2, max_length=2, description="pixels of the original; a warning"
    )
    max_aspect_ratio: float = Field(
        10.0, ge=1.0, description="longer side / shorter side of the original; a warning"
    )
    near_duplicate_bits: int = Field(
        2, ge=0, le=15, description="perceptual hashes of 64 bits that differ in no more are alike"
    )
    max_near_duplicate_share: Fraction = Field(
        0.1, description="share of images that look like one in another part; a warning"
    )
    max_suspicious_label_share: Fraction = Field(
        0.1,
        description="share of labels that a backbone's features make doubtful; a warning, with the "
        "section features alone",
    )
    max_similar_share: Fraction = Field(
        0.01,
        description="share of images that are near duplicates, by a backbone's features, of one in "
        "another part; a warning, with the section features alone",
    )
    reference: str | None = Field(
        None,
        min_length=1,
        description="dataset to compare with: name, or id, of a stored 'dataset' artifact version",
    )
    max_reference_shift: float = Field(
        0.5, gt=0.0, description="of a mean, in the reference's standard deviations; a warning"
    )
    max_class_share_shift: Fraction = Field(
        0.1, description="of a class's share of the images, against the reference; a warning"
    )
    severity: dict[ExpectationName, Literal["error", "warning", "off"]] = Field(
        {}, description="by expectation, such as label_conflicts: error"
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> "ValidationConfig":
        refuse(self._contradictions())
        return self

    def _contradictions(self) -> Iterator[Problem]:
        for name in ("brightness", "contrast", "sharpness", "side"):
            low, high = getattr(self, name)
            if low > high:
                yield Problem((name,), f"is [{low}, {high}]: give the lower bound first")
        for name, severity in self.severity.items():
            if name.endswith("_as_reference") and severity != "off" and self.reference is None:
                yield Problem(
                    ("severity", name),
                    "is checked against validation.reference: name a stored dataset there",
                )
