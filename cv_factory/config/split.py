"""The section ``split``: how images are divided into train, validation and test."""

from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from cv_factory.config.section import Section, Seed


def _check_part_size(size: float) -> float:
    if 0.0 < size < 1.0:
        return size
    if size < 2 or not float(size).is_integer():
        raise ValueError("a share above 0 and below 1, such as 0.2, or a number of images from 2")
    return int(size)


PartSize = Annotated[
    int | float,
    AfterValidator(_check_part_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "integer", "minimum": 2},
            ]
        }
    ),
]


class SplitConfig(Section):
    """Division of the images into train, validation and test."""

    seed: Seed = 0
    validation: PartSize = Field(
        0.2, description="share of the images (0.2), or how many of them (500)"
    )
    test: PartSize = Field(0.2, description="as validation; unused with an official test split")
    keep_official_test: bool = Field(
        True, description="use the source's own test split, and validation split, where it has one"
    )

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitConfig":
        shares = sum(size for size in (self.validation, self.test) if isinstance(size, float))
        if shares >= 1.0:
            raise ValueError(
                f"validation + test is {shares:g}: nothing is left to train on (keep it below 1)"
            )
        return self
