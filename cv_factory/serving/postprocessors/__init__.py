"""What is made of probabilities before they are answered: one module a way, chosen by its name.

A module here holds ``Settings``, a ``Section`` of what may be set, and ``build(settings,
class_names)``, which returns a ``Postprocessor``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cv_factory.config.section import Section


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


def check_settings(name: str, settings: Mapping[str, Any]) -> Section:
    """Return the checked settings of a postprocessor.

    Raises:
        ValueError: There is no such postprocessor, or it has no such settings.
    """
    if find_spec(f"{__name__}.{name}") is None:
        known = ", ".join(sorted(module.name for module in iter_modules(__path__)))
        raise ValueError(f"there is no postprocessor {name!r}; there are: {known}")
    section: type[Section] = import_module(f"{__name__}.{name}").Settings
    return section.model_validate(dict(settings))


def build_postprocessor(
    name: str, settings: Mapping[str, Any], class_names: Sequence[str]
) -> Postprocessor:
    """Build a postprocessor for a model's classes.

    Raises:
        ValueError: The settings do not fit the classes.
    """
    checked = check_settings(name, settings)
    built: Postprocessor = import_module(f"{__name__}.{name}").build(checked, tuple(class_names))
    return built
