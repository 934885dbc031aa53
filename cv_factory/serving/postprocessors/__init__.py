"""Postprocessors of probabilities: one module each, found by its name.

A module here defines ``Settings``, a ``Section``, and ``build(settings, class_names)``, which
returns a ``Postprocessor``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cv_factory.config.plugins import load_plugin
from cv_factory.config.serving import PostprocessorConfig
from cv_factory.inference.predictor import Contract, ImageScores

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.serving.postprocessors"
_UNFAMILIARITY_DECIMALS = 4


@dataclass(frozen=True)
class PostprocessedPrediction:
    """Postprocessed prediction of one image.

    Attributes:
        label: Predicted label; None if the service abstains.
        probabilities: Probabilities by label, most probable first.
    """

    label: str | None
    probabilities: dict[str, float]


#: Takes the probabilities of one image, float32 ``(K,)``.
Postprocessor = Callable[[npt.NDArray[np.float32]], PostprocessedPrediction]


def prediction_fields(prediction: PostprocessedPrediction, scores: ImageScores) -> dict[str, Any]:
    """Return a prediction as it stands in an answer, without its id."""
    fields: dict[str, Any] = {
        "label": prediction.label,
        "probabilities": prediction.probabilities,
    }
    if scores.unfamiliarity is not None:
        fields["unfamiliar"] = scores.is_unfamiliar
        fields["unfamiliarity"] = round_unfamiliarity(scores.unfamiliarity)
    return fields


def round_unfamiliarity(score: float) -> float:
    """Round a score; one above the bound stays above it.

    Rounding hides differences that depend on the batch an image was in.
    """
    rounded = round(score, _UNFAMILIARITY_DECIMALS)
    return 1.0 + 10**-_UNFAMILIARITY_DECIMALS if rounded <= 1.0 < score else rounded


def build_image_postprocessor(
    config: PostprocessorConfig, contract: Contract
) -> Callable[[ImageScores], PostprocessedPrediction]:
    """Build the configured postprocessor of a predictor's outputs, abstention included.

    Raises:
        ValueError: The settings are invalid or do not fit the predictor.
    """
    if config.abstain_when_unfamiliar and contract.familiarity is None:
        raise ValueError(
            "abstain_when_unfamiliar is set, and this predictor does not score how unfamiliar an "
            "image is: train with familiarity.method nearest_neighbor, or leave the setting out"
        )
    postprocess = build_postprocessor(config.name, config.settings, contract.class_names)

    def postprocess_image(scores: ImageScores) -> PostprocessedPrediction:
        prediction = postprocess(scores.probabilities)
        if config.abstain_when_unfamiliar and scores.is_unfamiliar:
            return replace(prediction, label=None)
        return prediction

    return postprocess_image


def build_postprocessor(
    name: str, settings: Mapping[str, Any], class_names: Sequence[str]
) -> Postprocessor:
    """Build a postprocessor for a model's classes.

    Raises:
        ValueError: There is no such postprocessor, or the settings are invalid or do not fit the
            classes.
    """
    module = load_plugin(PLUGINS, name, "postprocessor")
    section = module.Settings.model_validate(dict(settings))
    postprocessor: Postprocessor = module.build(section, tuple(class_names))
    return postprocessor
