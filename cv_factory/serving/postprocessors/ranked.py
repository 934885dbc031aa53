"""Ranks the classes; the most probable one is the label if it reaches its threshold."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cv_factory.config.section import Fraction, Section
from cv_factory.serving.postprocessors import PostprocessedPrediction

#: Decimals of probabilities in answers.
DECIMALS = 6


class Settings(Section):
    """Number of ranked classes, thresholds of abstention, and labels."""

    top_k: int | None = Field(None, ge=1, description="number of ranked classes; all if not given")
    abstain_below: Fraction = Field(0.0, description="the label is null below this probability")
    thresholds: dict[str, Fraction] = Field(
        {}, description="by class, in place of abstain_below: what it must reach to be the label"
    )
    labels: dict[str, str] = Field({}, description="by class: its name in responses")


@dataclass(frozen=True)
class Ranked:
    """Postprocessor that ranks classes by descending probability."""

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    top_k: int

    def __call__(self, probabilities: npt.NDArray[np.float32]) -> PostprocessedPrediction:
        """Return the ``top_k`` classes; the label is the first if it reaches its threshold."""
        # Plain lists: for common numbers of classes they are faster than NumPy's calls.
        values = probabilities.tolist()
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)[: self.top_k]
        # Rounding hides differences that depend on the batch an image was in.
        ranked = {self.labels[i]: round(values[i], DECIMALS) for i in order}
        best = order[0]
        label = self.labels[best]
        is_certain = ranked[label] >= self.thresholds[best]
        return PostprocessedPrediction(label if is_certain else None, ranked)


def build(settings: Settings, class_names: tuple[str, ...]) -> Ranked:
    """Build the postprocessor.

    Raises:
        ValueError: A setting names an unknown class, or two classes would have the same label.
    """
    for name in (*settings.thresholds, *settings.labels):
        if name not in class_names:
            raise ValueError(
                f"the model has no class {name!r}; its classes are {', '.join(class_names)}"
            )
    labels = tuple(settings.labels.get(name, name) for name in class_names)
    if len(set(labels)) < len(labels):
        raise ValueError("two classes have the same label: their probabilities would be merged")
    thresholds = tuple(settings.thresholds.get(n, settings.abstain_below) for n in class_names)
    return Ranked(labels, thresholds, min(settings.top_k or len(labels), len(labels)))
