"""The prediction log: what was answered, for monitoring and for ``trace``; JSON lines in a folder.

A file is ``predictions-<start>-<process>.jsonl``; a new one begins after ``log.max_file_bytes``.
Each line is one prediction: ``{"id", "time", "model", "version", "label", "probabilities": {label:
…}, "features": […], "key", "request_id"}``. Images are not kept.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any

from cv_factory.config.serving import LogConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.logging.request_log import AsyncLineWriter, now

_FILES = "predictions-*.jsonl"


class PredictionLog:
    """Writes predictions without keeping requests waiting."""

    def __init__(self, folder: Path, model: str, version: str, config: LogConfig) -> None:
        """Make the folder.

        Args:
            folder: May be that of other processes and versions, too.
            model: Name of the registered model.
            version: Of it.
            config: Bounds of files and of what waits.

        Raises:
            ConfigError: It cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"log.predictions: {folder} cannot be made ({error}).") from None
        self._folder = folder
        self._model, self._version = model, version
        self._config = config
        self._file: Path | None = None
        self._lines = AsyncLineWriter(self._append, config.max_waiting)

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
        return cls(folder, bundle.model_name, bundle.version, settings)

    @property
    def dropped(self) -> int:
        """How many predictions could not be kept."""
        return self._lines.dropped

    def put(self, scored: ScoredImage, key: str, request_id: str) -> None:
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
        if self._file is None or _size(self._file) >= self._config.max_file_bytes:
            start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self._file = self._folder / f"predictions-{start}-{os.getpid()}.jsonl"
            self._remove_old()
        with self._file.open("ab", buffering=0) as file:
            # Whoever removes old files waits for what is being written; see _remove_old.
            fcntl.flock(file, fcntl.LOCK_SH)
            is_there = _is_there(file)
            if is_there:
                _write_whole(file, lines.encode())
        if not is_there:
            self._append(lines)

    def _remove_old(self) -> None:
        """Remove old files so that, with the one that begins, no more than configured stay.

        Those go that were not written to for longest: one that began early may be the present one
        of a process that writes little. Should it be removed, its process begins it again.
        """
        if self._config.prediction_files is None:
            return
        files = sorted(self._folder.glob(_FILES), key=lambda file: (_last_write(file), file))
        for old in files[: max(0, len(files) + 1 - self._config.prediction_files)]:
            with suppress(FileNotFoundError), old.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # Meanwhile another process may have removed it, and its own begun it again.
                if _is_there(file):
                    old.unlink()


def _is_there(file: IO[bytes]) -> bool:
    """Whether an open file was not removed."""
    return os.fstat(file.fileno()).st_nlink > 0


def _write_whole(file: FileIO, content: bytes) -> None:
    """Append all of it or, as on a full disk, nothing."""
    size = os.fstat(file.fileno()).st_size
    try:
        while content:
            content = content[file.write(content) :]
    except OSError:
        file.truncate(size)
        raise


def _last_write(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def read_predictions(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the predictions of a folder, oldest file first; a line that was cut off is left out."""
    for file in sorted(folder.glob(_FILES)):
        # Old ones may be removed meanwhile.
        with suppress(FileNotFoundError), file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def find_prediction(folder: Path, prediction_id: str) -> dict[str, Any] | None:
    """Return the prediction of that id, None if the folder does not have it."""
    return next((p for p in read_predictions(folder) if p["id"] == prediction_id), None)
