"""Checkpoints of a running training: whole or not there, and continued from the newest sound one.

Where they lie, the environment says (``CV_FACTORY_CHECKPOINTS``): the step operator sets it. Below
it every training has a directory of its own, named by the SHA-256 of all that shapes its weights,
so that a changed setting never continues another training.
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
from cv_factory.progress import say

#: The directory below which trainings keep their checkpoints; without it none are kept.
DIRECTORY_VARIABLE = "CV_FACTORY_CHECKPOINTS"

_KIND, _VERSION, _TENSORS = "checkpoint", 1, "tensors.safetensors"
_PARTIAL = ".partial-"
_LOCK = ".lock"
#: Seconds after which a training that nobody continued is given up: two weeks.
_ABANDONED = 14 * 24 * 3600.0

_log = logging.getLogger(__name__)

Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Position:
    """Where a training stands, and what it has found so far.

    Attributes:
        epoch: The epoch that is under way, from 1.
        step: The next step in it, from 0.
        history: Metrics of the finished epochs.
        best_epoch: The best of them, 0 before the first.
        scale: State of the loss scaling, which fp16 needs; else empty.
    """

    epoch: int = 1
    step: int = 0
    history: tuple[dict[str, float], ...] = ()
    best_epoch: int = 0
    scale: dict[str, float] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A position, and the tensors of network, optimizer, average and best weights by name."""

    position: Position
    tensors: Tensors


class Checkpoints:
    """The checkpoints of one training, in one directory."""

    def __init__(self, directory: Path, keep: int, first: str | None = None) -> None:
        """Look at nothing yet.

        Args:
            directory: Of this training alone.
            keep: How many are kept.
            first: Name of the one that the training continues from; None begins it anew.
        """
        self.directory, self.first = directory, first
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
        _sync(partial / _TENSORS)
        write_header(partial, _KIND, _VERSION, asdict(position), [_TENSORS])
        _sync(partial)
        final = self.directory / name
        if final.exists():  # a damaged one, which was passed over
            shutil.rmtree(final)
        partial.rename(final)
        _sync(self.directory)
        for old in self._names()[: -self._keep]:
            shutil.rmtree(self.directory / old)

    def choose(self) -> None:
        """Continue from the newest checkpoint that is whole; warn of every newer one that is not.

        One process chooses for all that train together.
        """
        for name in reversed(self._names()):
            try:
                position = _read_position(self.directory / name, verify=True)
            except ArtifactError as error:
                _log.warning("A checkpoint is passed over: %s", error)
                continue
            say(
                f"Continuing from checkpoint {self.directory / name}: epoch {position.epoch}, "
                f"batch {position.step + 1}."
            )
            self.first = name
            return

    def load_first(self) -> Checkpoint | None:
        """Read the checkpoint that the training continues from; None where it begins anew."""
        if self.first is None:
            return None
        directory = self.directory / self.first
        position = _read_position(directory, verify=False)
        return Checkpoint(position, load_tensors(directory / _TENSORS))

    @property
    def is_empty(self) -> bool:
        """Whether there is none, whole or damaged."""
        return not self._names()

    def clear(self) -> None:
        """Remove all of this training's checkpoints."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _names(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        return sorted(p.name for p in self.directory.iterdir() if not p.name.startswith("."))


@contextmanager
def checkpoints_of(key: str, keep: int) -> Iterator[Checkpoints | None]:
    """Yield the checkpoints of a training, and remove them when the block ends without an error.

    Args:
        key: The SHA-256 of all that shapes its weights.
        keep: How many are kept.

    Yields:
        None where the environment names no directory, or where another process trains the same.
    """
    root = os.environ.get(DIRECTORY_VARIABLE)
    if not root:
        yield None
        return
    _remove_abandoned(Path(root))
    directory = Path(root) / key
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / _LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("The same training runs in another process: this one keeps no checkpoints.")
            yield None
            return
        checkpoints = Checkpoints(directory, keep)
        checkpoints.choose()
        is_finished = False
        try:
            yield checkpoints
            is_finished = True
        finally:
            if is_finished or checkpoints.is_empty:
                checkpoints.clear()


def _read_position(directory: Path, *, verify: bool) -> Position:
    body = read_header(directory, _KIND, _VERSION, verify_large=verify)
    try:
        return Position(**{**body, "history": tuple(body["history"])})
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{directory} holds no position ({error}).") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(root: Path) -> None:
    """Remove the directories of trainings that nobody continued for two weeks."""
    if not root.is_dir():
        return
    for directory in root.iterdir():
        if directory.is_dir() and time.time() - directory.stat().st_mtime > _ABANDONED:
            shutil.rmtree(directory, ignore_errors=True)
