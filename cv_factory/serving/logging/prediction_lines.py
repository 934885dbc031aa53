"""Lines of the prediction log: what is computed of predictions in the thread that writes them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cv_factory.config.serving import LogConfig
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.json_encoder import encode_json
from cv_factory.serving.logging.image_facts import (
    ImageHasher,
    LoggedImage,
    compute_statistics,
    is_sampled,
    load_key,
)
from cv_factory.serving.logging.image_folder import ImageFolder
from cv_factory.serving.logging.json_lines import timestamp

SCHEMA_VERSION = 2
#: Memory of the images whose lines are not written yet; beyond it, predictions are dropped.
_MAX_WAITING_BYTES = 64 * 2**20


@dataclass(slots=True, eq=False)
class LogRecord:
    """A prediction, or a refused image if ``result`` is None, until its line is written.

    Attributes:
        result: The prediction.
        seconds: Time of the answer, in seconds since 1970.
        key: Name of the API key.
        request_id: Of its request.
        arm: Of the service, in a rollout.
        image: The image, where its facts are to be logged.
        image_bytes: Memory of the image when the record was queued.
    """

    result: ScoredImage | None
    seconds: float
    key: str
    request_id: str
    arm: str | None
    image: LoggedImage | None = field(init=False)
    image_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Measure the image."""
        image = self.image = None if self.result is None else self.result.image
        self.image_bytes = 0
        if image is not None and image.pixels is not None:
            self.image_bytes = image.pixels.nbytes + len(image.content or b"")


class LineEncoder:
    """Encodes the predictions of one version of a model."""

    def __init__(
        self,
        folder: Path,
        model: str,
        version: str,
        config: LogConfig,
        class_names: Sequence[str],
    ) -> None:
        """Prepare; ``folder`` holds the key of the HMACs, which is read with the first lines."""
        self._folder = folder
        self._source = {"schema": SCHEMA_VERSION, "model": model, "version": version}
        self._sampling = config.sampling
        self._class_names = class_names
        self._hasher: ImageHasher | None = None
        self._images = None if config.images is None else ImageFolder(config.images)
        # Each is changed by one thread alone.
        self._queued_bytes = self._released_bytes = 0

    def has_memory(self, record: LogRecord) -> bool:
        """Whether the images that wait leave memory for this one; then it is counted to them."""
        waiting = self._queued_bytes - self._released_bytes
        if waiting and waiting + record.image_bytes > _MAX_WAITING_BYTES:
            return False
        self._queued_bytes += record.image_bytes
        return True

    def encode(self, records: Sequence[LogRecord]) -> list[Mapping[str, Any]]:
        """Return the lines of the records that are in the sample, and keep the images that are.

        Raises:
            OSError: The key of the HMACs cannot be read or created.
        """
        self._released_bytes += sum(record.image_bytes for record in records)
        if self._hasher is None:
            self._hasher = ImageHasher(load_key(self._folder))
        images = [record.image for record in records if record.image is not None]
        for image in images:
            if not image.hmac and image.pixels is not None:
                image.hmac = self._hasher.digest(image.pixels)
        sample = [record for record in records if self._is_sampled(record, self._hasher.key)]
        sampled = [record.image for record in sample if record.image is not None]
        compute_statistics(sampled)
        if self._images is not None:
            self._images.keep(sampled)
        for image in images:
            # The cache of predictions may hold it.
            image.pixels = image.content = None
        return [self._line(record) for record in sample]

    def encode_losses(self, losses: Mapping[str, int]) -> bytes:
        """Return a line for each event by which predictions were lost, with their number."""
        return b"".join(
            encode_json({**self._source, **_new_line(), "event": event, "n": n}) + b"\n"
            for event, n in losses.items()
            if n
        )

    def _is_sampled(self, record: LogRecord, key: bytes) -> bool:
        if record.result is None or self._sampling >= 1.0:
            return True
        # A shadow's prediction is in the sample where the answer of the same request is.
        image = record.image
        text = f"{record.request_id} {image.hmac if image else record.result.id}"
        return is_sampled(text, key, self._sampling)

    def _line(self, record: LogRecord) -> Mapping[str, Any]:
        result, image = record.result, record.image
        request = {"arm": record.arm, "key": record.key, "request_id": record.request_id}
        if result is None:
            line = self._source | _new_line(record.seconds) | request
            return {**line, "event": "refused", "n": 1, "sampling_probability": 1.0}
        scores = result.scores
        return {
            **self._source,
            "id": result.id,
            "time": timestamp(record.seconds),
            **request,
            "label": result.output.label,
            "probabilities": dict(
                zip(self._class_names, scores.probabilities.tolist(), strict=True)
            ),
            "unfamiliar": scores.is_unfamiliar,
            "unfamiliarity": scores.unfamiliarity,
            "features": scores.features,
            "cached": result.is_cached,
            "sampling_probability": self._sampling,
            **({} if image is None else _describe_image(image)),
        }


def _new_line(seconds: float | None = None) -> dict[str, str]:
    """Return the fields of a line that is no prediction."""
    return {"id": str(uuid.uuid4()), "time": timestamp(seconds)}


def _describe_image(image: LoggedImage) -> dict[str, Any]:
    brightness, contrast, sharpness = image.statistics or (None, None, None)
    return {
        "width": image.width,
        "height": image.height,
        "brightness": brightness,
        "contrast": contrast,
        "sharpness": sharpness,
        "image_hmac": image.hmac,
    }
