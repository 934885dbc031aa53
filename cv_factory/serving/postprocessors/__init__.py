"""What is made of probabilities before they are answered: one module a way, chosen by its name.

A module here holds ``Settings``, a ``Section`` of what may be set, and ``build(settings,
class_names)``, which returns a ``Postprocessor``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cv_factory.config.plugins import load_plugin

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.serving.postprocessors"


@dataclass(frozen=True)
class PostprocessedPrediction:
    """What is said about one image.

    Attributes:
        label: What it shows; None where the service abstains.
        probabilities: By label, most probable first.
    """

    label: str | None
    probabilities: dict[str, float]


class Postprocessor(Protocol):
    """Turns the probabilities of one image, float32 ``(K,)``, into an answer."""

    def __call__(self, probabilities: npt.NDArray[np.float32]) -> PostprocessedPrediction:
        """Return the answer."""


def build_postprocessor(
    name: str, settings: Mapping[str, Any], class_names: Sequence[str]
) -> Postprocessor:
    """Build a postprocessor for a model's classes.

    Raises:
        ValueError: There is no such postprocessor, it has no such settings, or they do not fit the
            classes.
    """
    module = load_plugin(PLUGINS, name, "postprocessor")
    checked = module.Settings.model_validate(dict(settings))
    postprocessor: Postprocessor = module.build(checked, tuple(class_names))
    return postprocessor
