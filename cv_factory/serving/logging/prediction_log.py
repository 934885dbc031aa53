"""Prediction log: JSON lines in a folder, for monitoring and for ``run.py trace``.

A file is ``predictions-<start>-<process>.jsonl``; a new one starts after ``log.max_file_bytes``.
Each line is one prediction: ``{"id", "time", "model", "version", "arm", "label", "probabilities":
{label: …}, "unfamiliar", "unfamiliarity", "features": […], "key", "request_id"}``; null is what the
predictor does not score, and the arm of a service that is in no rollout. A shadow's line has the
request id of the answer that it is to be compared with. Images are not stored.
"""

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any

from cv_factory.config.serving import LogConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.logging.json_lines import AsyncLineWriter, log_event, timestamp

_FILES = "predictions-*.jsonl"


class PredictionLog:
    """Writes predictions in a thread, so that no request waits for the disk."""

    def __init__(
        self,
        folder: Path,
        model: str,
        version: str,
        config: LogConfig,
        *,
        on_drop: Callable[[int], None] = lambda n: None,
        is_restart: bool = False,
    ) -> None:
        """Create the folder.

        Args:
            folder: May be shared with other processes and versions.
            model: Name of the registered model.
            version: Its version.
            config: Bounds of the files and of the queue.
            on_drop: Called with the number of predictions that could not be written.
            is_restart: Whether this process replaces one that has served: then the folder may be
                created later, and predictions until then are dropped.

        Raises:
            ConfigError: The folder cannot be created.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"log.predictions: cannot create the folder {folder} ({error})."
            if not is_restart:
                raise ConfigError(message) from None
            log_event("log-unwritable", logging.ERROR, detail=message)
        self._folder = folder
        self._model, self._version = model, version
        self._config = config
        self._file: Path | None = None
        self._writer = AsyncLineWriter(self._append, config.max_waiting, on_drop)

    @classmethod
    def open(
        cls, bundle: Bundle, on_drop: Callable[[int], None], *, is_restart: bool = False
    ) -> "PredictionLog | None":
        """Open the log that a bundle configures; None if it configures none.

        Raises:
            ConfigError: The folder cannot be created.
        """
        config = bundle.serving.log
        if config.predictions is None:
            return None
        return cls(
            Path(config.predictions),
            bundle.model_name,
            bundle.version,
            config,
            on_drop=on_drop,
            is_restart=is_restart,
        )

    @property
    def dropped(self) -> int:
        """Number of predictions that could not be written."""
        return self._writer.dropped

    def put(
        self, result: ScoredImage, principal_name: str, request_id: str, arm: str | None = None
    ) -> None:
        """Queue one prediction of the service, which has this arm in a rollout now."""
        self._writer.put(
            {
                "id": result.id,
                "time": timestamp(),
                "model": self._model,
                "version": self._version,
                "arm": arm,
                "label": result.output.label,
                "probabilities": result.output.probabilities,
                "unfamiliar": result.scores.is_unfamiliar,
                "unfamiliarity": result.scores.unfamiliarity,
                "features": result.scores.features.tolist(),
                "key": principal_name,
                "request_id": request_id,
            }
        )

    def close(self) -> None:
        """Write what is queued."""
        self._writer.close()

    def _append(self, lines: str) -> None:
        # Somebody may have moved it away.
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._file is None or _size_and_last_write(self._file)[0] >= self._config.max_file_bytes:
            start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self._file = self._folder / f"predictions-{start}-{os.getpid()}.jsonl"
            self._prune()
        with self._file.open("ab", buffering=0) as file:
            # A process that prunes waits for this lock; see _prune.
            fcntl.flock(file, fcntl.LOCK_SH)
            is_linked = _is_linked(file)
            if is_linked:
                write_all(file, lines.encode())
        if not is_linked:
            self._append(lines)

    def _prune(self) -> None:
        """Remove old files so that, with a new one, at most ``log.prediction_files`` stay.

        The least recently written go first: an early file may be the present one of a process that
        writes little. If that one is removed, its process creates it again.
        """
        if self._config.prediction_files is None:
            return
        files = sorted(self._folder.glob(_FILES), key=lambda f: (_size_and_last_write(f)[1], f))
        for old in files[: max(0, len(files) + 1 - self._config.prediction_files)]:
            with suppress(FileNotFoundError), old.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # While this process waited, another may have removed it and its own recreated it.
                if _is_linked(file):
                    old.unlink()


def _is_linked(file: IO[bytes]) -> bool:
    """Whether an open file has not been removed."""
    return os.fstat(file.fileno()).st_nlink > 0


def write_all(file: FileIO, content: bytes) -> None:
    """Append all of the content or, as on a full disk, nothing."""
    size = os.fstat(file.fileno()).st_size
    try:
        while content:
            content = content[file.write(content) :]
    except OSError:
        file.truncate(size)
        raise


def _size_and_last_write(file: Path) -> tuple[int, int]:
    """Return size (bytes) and modification time (ns); zeros if the file was removed."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def find_log_files(folder: Path) -> list[Path]:
    """Return the files of a prediction log, the oldest first."""
    return sorted(folder.glob(_FILES))


def read_predictions(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the predictions of a folder, oldest file first; incomplete lines are skipped."""
    for file in find_log_files(folder):
        # A running service may prune files meanwhile.
        with suppress(FileNotFoundError), file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def find_prediction(folder: Path, prediction_id: str) -> dict[str, Any] | None:
    """Return the prediction with an id, None if the folder does not have it."""
    return next((p for p in read_predictions(folder) if p["id"] == prediction_id), None)
