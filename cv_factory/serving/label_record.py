"""Labels of predictions: what people and systems say of an image, and the record of it.

A record is ``{"schema": 1, "id", "time", "model", "prediction_id", "image_hmac", "label", "source",
"is_blind", "key"}``. Records are only ever added: a correction is a new one, and the last counts.
"""

import hashlib
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from cv_factory.artifacts.files import canonical_json
from cv_factory.config.section import Section

SCHEMA = 1


def _check_printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be one line of printable characters, without blanks around it")
    return text


_Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_printable)]
#: Whose label it is. That of a model never enters training.
_Source = Annotated[_Text, Field(pattern=r"^(?:person|system):\S|^model:[^/\s]+/[^/\s]+$")]


class Label(Section):
    """True class of the image behind a prediction.

    Attributes:
        label: Name of the class, which need not be one that the model knows.
        prediction_id: Id that the service answered with.
        image_hmac: HMAC of the image in the prediction log, in place of the id.
        source: ``person:NAME``, ``system:NAME`` or ``model:NAME/VERSION``.
        is_blind: Whether whoever labelled did not see the prediction.
    """

    label: _Text
    prediction_id: _Text | None = None
    image_hmac: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    source: _Source | None = None
    is_blind: bool = False

    @model_validator(mode="after")
    def _check_image(self) -> Self:
        if self.prediction_id is None and self.image_hmac is None:
            raise ValueError("has neither prediction_id nor image_hmac: name the prediction")
        return self


def build_record(
    label: Label, *, model: str, key: str | None, time: str, origin: str
) -> dict[str, Any]:
    """Return the record of a label.

    Args:
        label: Without a source, it is taken for that of the system that has the key.
        model: Name of the registered model.
        key: Name of the API key that brought it; None for a file.
        time: When it was received, ISO 8601 in UTC; the last record of an image counts.
        origin: Request or file and position: the same label of the same origin has the same id,
            so that what is stored twice, such as by the shadow that gets copies, counts once.
    """
    record = label.model_dump()
    record["source"] = label.source or f"system:{key}"
    digest = hashlib.sha256(f"{origin}\n{canonical_json(record)}".encode()).hexdigest()
    head = {"schema": SCHEMA, "id": digest[:32], "time": time, "model": model}
    return {**head, **record, "key": key}
