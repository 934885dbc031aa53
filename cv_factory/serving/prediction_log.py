"""The prediction log: what was answered, for monitoring and for ``trace``; JSON lines in a folder.

A file is ``predictions-<start>-<process>.jsonl``; a new one begins after 64 MiB. Each line is one
prediction: ``{"id", "time", "model", "version", "label", "probabilities": {label: …}, "features":
[…], "key", "request_id"}``. Images are not kept.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cv_factory.errors import ConfigError
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.logs import LineLog, now
from cv_factory.serving.scoring import Scored

_MAX_FILE_BYTES = 64 * 2**20


class PredictionLog:
    """Writes predictions without keeping requests waiting."""

    def __init__(self, folder: Path, model: str, version: str, max_waiting: int) -> None:
        """Make the folder.

        Raises:
            ConfigError: It cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"log.predictions: {folder} cannot be made ({error}).") from None
        self._folder = folder
        self._model, self._version = model, version
        self._file: Path | None = None
        self._lines = LineLog(self._append, max_waiting)

    @classmethod
    def open(cls, bundle: Bundle) -> "PredictionLog | None":
        """Open the log that a bundle's configuration asks for; None if it asks for none.

        Raises:
            ConfigError: Its folder cannot be made.
        """
        settings = bundle.serving.log
        if settings.predictions is None:
            return None
        folder = Path(settings.predictions)
        return cls(folder, bundle.model_name, bundle.version, settings.max_waiting)

    @property
    def dropped(self) -> int:
        """How many predictions could not be kept."""
        return self._lines.dropped

    def put(self, scored: Scored, key: str, request_id: str) -> None:
        """Take one prediction."""
        self._lines.put(
            {
                "id": scored.id,
                "time": now(),
                "model": self._model,
                "version": self._version,
                "label": scored.answer.label,
                "probabilities": scored.answer.probabilities,
                "features": scored.scores[1].tolist(),
                "key": key,
                "request_id": request_id,
            }
        )

    def close(self) -> None:
        """Write what waits."""
        self._lines.close()

    def _append(self, lines: str) -> None:
        if self._file is None or self._file.stat().st_size >= _MAX_FILE_BYTES:
            start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self._file = self._folder / f"predictions-{start}-{os.getpid()}.jsonl"
        with self._file.open("a", encoding="utf-8") as file:
            file.write(lines)


def read_predictions(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the predictions of a folder, oldest file first; a line that was cut off is left out."""
    for file in sorted(folder.glob("predictions-*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def find_prediction(folder: Path, prediction_id: str) -> dict[str, Any] | None:
    """Return the prediction of that id, None if the folder does not have it."""
    return next((p for p in read_predictions(folder) if p["id"] == prediction_id), None)
