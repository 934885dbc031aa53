"""Typed results of a prediction service."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction of one image.

    Attributes:
        id: Identifies the prediction in the prediction log; ``run.py trace`` takes it.
        label: Predicted label; None if the service abstains.
        probabilities: Probabilities by label, most probable first.
        model: Name of the model.
        version: Version of the model.
        unfamiliar: Whether the image is unlike the training images; None if not scored.
        unfamiliarity: Score of that; above 1 it is.
        cached: Whether it comes from the service's response cache.
    """

    id: str
    label: str | None
    probabilities: dict[str, float]
    model: str
    version: str
    unfamiliar: bool | None = None
    unfamiliarity: float | None = None
    cached: bool = False


@dataclass(frozen=True)
class ModelInfo:
    """Description of the served model.

    Attributes:
        model: Name of the model.
        version: Version of the model.
        classes: Labels; empty over gRPC, whose protocol names none.
        input_shape: Height, width and channels that the model takes; images are resized to it.
        details: Everything that the service says of it.
    """

    model: str
    version: str
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    details: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Label:
    """True class of an image that was predicted before.

    Attributes:
        label: Name of the class.
        prediction_id: Id of the prediction; this or ``image_hmac``.
        image_hmac: HMAC of the image in the prediction log.
        source: ``person:NAME``, ``system:NAME`` or ``model:NAME/VERSION``; None for the system
            that the API key belongs to.
        is_blind: Whether whoever labelled did not see the prediction.
    """

    label: str
    prediction_id: str | None = None
    image_hmac: str | None = None
    source: str | None = None
    is_blind: bool = False


_FIELDS = {field.name for field in fields(ImagePrediction)}


def parse_prediction(row: Mapping[str, Any], common: Mapping[str, Any]) -> ImagePrediction:
    """Return a prediction of an answer; fields of a later release are ignored.

    Args:
        row: The prediction, as the service writes it in JSON.
        common: Fields of all predictions of the answer.

    Raises:
        AttributeError: The row is no object.
        TypeError: A field is missing.
    """
    return ImagePrediction(**{k: v for k, v in row.items() if k in _FIELDS}, **common)
