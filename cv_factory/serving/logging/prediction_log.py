"""Prediction log: JSON lines in a folder, for monitoring and for ``run.py trace``.

A file is ``predictions-<start>-<process>.jsonl``; a new one starts after ``log.max_file_bytes``.
Each line is one prediction: ``{"schema": 2, "id", "time", "model", "version", "arm", "label",
"probabilities": {class: …}, "unfamiliar", "unfamiliarity", "features": […], "key", "request_id",
"cached", "width", "height", "brightness", "contrast", "sharpness", "image_hmac",
"sampling_probability"}``; null is what is not known, and the arm of a service that is in no
rollout. A shadow's line has the request id of the answer that it is to be compared with. ``label``
is the answer, null where it abstains; ``probabilities`` are the predictor's, of all classes. Width
and height are those of the encoded image, the statistics those of the predictor's input.

Lines with ``event`` and ``n`` are no predictions: ``refused``, an image that could not be used;
``dropped`` and ``pruned``, lines that are lost since the queue was full or a file removed. Lines of
schema version 1 have no ``schema``, nothing after ``request_id``, and the probabilities of the
answer.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, Any

from cv_factory.config.serving import LogConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.logging.json_lines import AsyncLineWriter, log_event
from cv_factory.serving.logging.prediction_lines import LineEncoder, LogRecord

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
        class_names: Sequence[str],
        on_drop: Callable[[int], None] = lambda n: None,
        is_restart: bool = False,
    ) -> None:
        """Create the folder.

        Args:
            folder: May be shared with other processes and versions.
            model: Name of the registered model.
            version: Its version.
            config: Bounds of the files and of the queue, sampling, and the images to keep.
            class_names: Names of the predictor's classes, in the order of its probabilities.
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
        self._config = config
        self._file: Path | None = None
        self._n_reported = self._n_pruned = 0
        self._lines = LineEncoder(folder, model, version, config, class_names)
        self._writer = AsyncLineWriter(
            self._append, config.max_waiting, on_drop, self._lines.encode
        )

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
            class_names=bundle.predictor.contract.class_names,
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
        record = LogRecord(result, time.time(), principal_name, request_id, arm)
        if self._writer.is_full or not self._lines.has_memory(record):
            self._writer.drop()
        else:
            self._writer.put(record)

    def put_refused(self, principal_name: str, request_id: str, arm: str | None = None) -> None:
        """Queue that an image could not be used, and its request was refused."""
        self._writer.put(LogRecord(None, time.time(), principal_name, request_id, arm))

    def close(self) -> None:
        """Write what is queued."""
        self._writer.close()

    def _append(self, lines: str) -> None:
        # Somebody may have moved it away.
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._file is None or _size_and_last_write(self._file)[0] >= self._config.max_file_bytes:
            start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self._file = self._folder / f"predictions-{start}-{os.getpid()}.jsonl"
            self._n_pruned += self._prune()
        losses = {"dropped": self.dropped - self._n_reported, "pruned": self._n_pruned}
        with self._file.open("ab", buffering=0) as file:
            # A process that prunes waits for this lock; see _prune.
            fcntl.flock(file, fcntl.LOCK_SH)
            is_linked = _is_linked(file)
            if is_linked:
                write_all(file, self._lines.encode_losses(losses) + lines.encode())
        if not is_linked:
            self._append(lines)
            return
        self._n_reported += losses["dropped"]
        self._n_pruned -= losses["pruned"]

    def _prune(self) -> int:
        """Remove old files so that, with a new one, at most ``log.prediction_files`` stay.

        Returns the number of their lines, which nobody had compacted.

        The least recently written go first: an early file may be the present one of a process that
        writes little. If that one is removed, its process creates it again.
        """
        n_lines = 0
        if self._config.prediction_files is None:
            return n_lines
        files = sorted(self._folder.glob(_FILES), key=lambda f: (_size_and_last_write(f)[1], f))
        for old in files[: max(0, len(files) + 1 - self._config.prediction_files)]:
            with suppress(FileNotFoundError), old.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                # While this process waited, another may have removed it and its own recreated it.
                if _is_linked(file):
                    n_lines += sum(1 for _ in file)
                    old.unlink()
        return n_lines


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
    """Yield the predictions of a folder, oldest file first; no events or partial lines."""
    for file in find_log_files(folder):
        # A running service may prune files meanwhile.
        with suppress(FileNotFoundError), file.open(encoding="utf-8") as lines:
            for line in lines:
                prediction = json.loads(line) if line.endswith("\n") else {"event": "partial"}
                if "event" not in prediction:
                    yield prediction


def find_prediction(folder: Path, prediction_id: str) -> dict[str, Any] | None:
    """Return the prediction with an id, None if the folder does not have it."""
    return next((p for p in read_predictions(folder) if p["id"] == prediction_id), None)
