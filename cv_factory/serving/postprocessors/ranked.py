"""Ranks the classes: the most probable one is the label, unless none is probable enough."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cv_factory.config.section import Fraction, Section
from cv_factory.serving.postprocessors import PostprocessedPrediction

_DECIMALS = 6


class Settings(Section):
    """How many classes are named, when none is, and how they are called."""

    top_k: int | None = Field(None, ge=1, description="classes that are named; all if not given")
    abstain_below: Fraction = Field(0.0, description="the label is null below this probability")
    thresholds: dict[str, Fraction] = Field(
        {}, description="by class, in place of abstain_below: what it must reach to be the label"
    )
    labels: dict[str, str] = Field({}, description="by class: what it is called in answers")


@dataclass(frozen=True)
class Ranked:
    """Names the classes by falling probability."""

    names: tuple[str, ...]
    least: tuple[float, ...]
    top_k: int

    def __call__(self, probabilities: npt.NDArray[np.float32]) -> PostprocessedPrediction:
        """Return the first class as label if it reaches its threshold, and the first ``top_k``."""
        # Lists: NumPy's calls would take longer than the work on what classes there commonly are.
        values = probabilities.tolist()
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)[: self.top_k]
        # What differs beyond is noise of the batch that an image rode in.
        ranked = {self.names[i]: round(values[i], _DECIMALS) for i in order}
        first = order[0]
        label = self.names[first]
        return PostprocessedPrediction(
            label if ranked[label] >= self.least[first] else None, ranked
        )


def build(settings: Settings, class_names: tuple[str, ...]) -> Ranked:
    """Return the postprocessor.

    Raises:
        ValueError: A setting names a class that the model does not know, or two classes would be
            called the same.
    """
    for key in (*settings.thresholds, *settings.labels):
        if key not in class_names:
            raise ValueError(f"the model knows no class {key!r}; it knows {', '.join(class_names)}")
    names = tuple(settings.labels.get(name, name) for name in class_names)
    if len(set(names)) < len(names):
        raise ValueError("two classes would have the same label: their probabilities would merge")
    least = tuple(settings.thresholds.get(name, settings.abstain_below) for name in class_names)
    return Ranked(names, least, min(settings.top_k or len(names), len(names)))
