"""Checkpoints of a running training: written atomically, resumed from the newest valid one.

The step operator names their root in ``CV_FACTORY_CHECKPOINTS``. Below it every training has a
directory of its own, named by the SHA-256 of everything that determines its weights, so that a
changed setting never resumes another training.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cv_factory.artifacts.arrays import load_tensors
from cv_factory.artifacts.files import read_header, write_header
from cv_factory.errors import ArtifactError

#: Environment variable with the root of all checkpoints; unset: none are kept.
DIRECTORY_VARIABLE = "CV_FACTORY_CHECKPOINTS"

_KIND, _VERSION, _TENSORS = "checkpoint", 1, "tensors.safetensors"
_PARTIAL = ".partial-"
_LOCK = ".lock"
#: Age at which the checkpoints of a training that was not resumed are removed: two weeks.
_MAX_AGE_S = 14 * 24 * 3600.0

_log = logging.getLogger(__name__)

Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Position:
    """Progress of a training: epoch, step, history and best epoch.

    Attributes:
        epoch: The epoch that is under way, from 1.
        step: The next step in it, from 0.
        history: Metrics of the finished epochs.
        best_epoch: Number of the best epoch, 0 before the first.
        scale: State of the loss scaling, which fp16 needs; else empty.
    """

    epoch: int = 1
    step: int = 0
    history: tuple[dict[str, float], ...] = ()
    best_epoch: int = 0
    scale: dict[str, float] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A position and the tensors of network, optimizer, moving average and best weights by name."""

    position: Position
    tensors: Tensors


class Checkpoints:
    """The checkpoints of one training, in one directory."""

    def __init__(self, directory: Path, keep: int, resume_from: str | None = None) -> None:
        """Refer to a directory; nothing is read yet.

        Args:
            directory: Of this training alone.
            keep: How many checkpoints are kept.
            resume_from: Name of the checkpoint to resume from; None starts from scratch.
        """
        self.directory, self.resume_from = directory, resume_from
        self._keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint under a temporary name, move it to its own, remove the oldest."""
        from safetensors.numpy import save_file

        position = checkpoint.position
        name = f"{position.epoch:06d}-{position.step:09d}"
        partial = self.directory / f"{_PARTIAL}{name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(checkpoint.tensors, partial / _TENSORS)
        _fsync(partial / _TENSORS)
        write_header(partial, _KIND, _VERSION, asdict(position), {_TENSORS: None})
        _fsync(partial)
        final = self.directory / name
        if final.exists():  # a damaged one, which was skipped
            shutil.rmtree(final)
        partial.rename(final)
        _fsync(self.directory)
        for old in self._names()[: -self._keep]:
            shutil.rmtree(self.directory / old)

    def select_newest_valid(self) -> None:
        """Resume from the newest valid checkpoint; warn of every newer one that is damaged.

        One process selects for all that train together.
        """
        for name in reversed(self._names()):
            try:
                position = _read_position(self.directory / name, verify=True)
            except ArtifactError as error:
                _log.warning("Skipping a checkpoint: %s", error)
                continue
            _log.info(
                f"Continuing from checkpoint {self.directory / name}: epoch {position.epoch}, "
                f"batch {position.step + 1}."
            )
            self.resume_from = name
            return

    def load_selected(self) -> Checkpoint | None:
        """Read the selected checkpoint; None where the training starts from scratch."""
        if self.resume_from is None:
            return None
        directory = self.directory / self.resume_from
        position = _read_position(directory, verify=False)
        return Checkpoint(position, load_tensors(directory / _TENSORS))

    @property
    def is_empty(self) -> bool:
        """Whether there is no checkpoint, valid or damaged."""
        return not self._names()

    def clear(self) -> None:
        """Remove the directory with all checkpoints."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _names(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        return sorted(p.name for p in self.directory.iterdir() if not p.name.startswith("."))


def has_checkpoints(key: str) -> bool:
    """Return whether a training with this ``checkpoint_key`` was interrupted."""
    root = os.environ.get(DIRECTORY_VARIABLE)
    return bool(root) and not Checkpoints(Path(root or "") / key, keep=1).is_empty


@contextmanager
def open_checkpoints(key: str, keep: int) -> Iterator[Checkpoints | None]:
    """Lock and yield the checkpoints of a training; remove them when the block ends without error.

    Args:
        key: SHA-256 of everything that determines the weights (``checkpoint_key``).
        keep: How many checkpoints are kept.

    Yields:
        None where ``CV_FACTORY_CHECKPOINTS`` is unset, or another process holds the lock.
    """
    root = os.environ.get(DIRECTORY_VARIABLE)
    if not root:
        yield None
        return
    _remove_expired(Path(root))
    directory = Path(root) / key
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / _LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info(
                "The same training runs in another process, which holds its checkpoints: "
                "this one keeps none."
            )
            yield None
            return
        checkpoints = Checkpoints(directory, keep)
        checkpoints.select_newest_valid()
        succeeded = False
        try:
            yield checkpoints
            succeeded = True
        finally:
            if succeeded or checkpoints.is_empty:
                checkpoints.clear()


def _read_position(directory: Path, *, verify: bool) -> Position:
    body = read_header(directory, _KIND, _VERSION, verify_large=verify)
    try:
        return Position(**{**body, "history": tuple(body["history"])})
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{directory} holds no training position ({error}).") from None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_expired(root: Path) -> None:
    """Remove the directories of trainings that were not resumed for two weeks."""
    if not root.is_dir():
        return
    for directory in root.iterdir():
        if directory.is_dir() and time.time() - directory.stat().st_mtime > _MAX_AGE_S:
            shutil.rmtree(directory, ignore_errors=True)
