"""A folder with one subfolder of images a class."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cv_factory.artifact_files import fingerprint
from cv_factory.data.sources.base import ImageRecord, ImageSource
from cv_factory.errors import SourceError

_LAYOUT = "expected one subfolder of images a class, such as {root}/cat/1.jpg and {root}/dog/1.jpg"


class FolderSource(ImageSource):
    """Every file below ``root/CLASS/`` is an image of CLASS; hidden files are skipped."""

    def __init__(self, root: str) -> None:
        """List the classes.

        Raises:
            SourceError: The folder does not exist, has no subfolder, or only one.
        """
        self._root = Path(root).expanduser()
        if not self._root.is_dir():
            raise SourceError(f"The image folder {self._root} does not exist or is no folder.")
        self._class_names = tuple(
            sorted(p.name for p in self._root.iterdir() if p.is_dir() and p.name[0] != ".")
        )
        layout = _LAYOUT.format(root=self._root)
        if not self._class_names:
            raise SourceError(f"The image folder {self._root} has no subfolder: {layout}.")
        if len(self._class_names) == 1:
            raise SourceError(
                f"The image folder {self._root} has the one class {self._class_names[0]!r}; a "
                f"classifier needs two: {layout}."
            )
        if not len(self):
            raise SourceError(f"The image folder {self._root} holds no files: {layout}.")

    @property
    def description(self) -> str:
        """The folder."""
        return f"folder {self._root}"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The subfolders, sorted."""
        return self._class_names

    @cached_property
    def _files(self) -> list[tuple[str, str]]:
        """Class and path relative to the root of each file, sorted."""
        found = []
        for name in self._class_names:
            for folder, subfolders, files in os.walk(self._root / name):
                subfolders[:] = [s for s in subfolders if not s.startswith(".")]
                inside = Path(folder).relative_to(self._root)
                found += [(name, (inside / f).as_posix()) for f in files if f[0] != "."]
        return sorted(found)

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._files)

    def fingerprint(self) -> str:
        """Digest of every file's path, size and modification time."""
        stats = [(path, (self._root / path).lstat()) for _, path in self._files]
        return fingerprint([[path, s.st_size, s.st_mtime_ns] for path, s in stats])

    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield the files' bytes; one that cannot be read carries its problem instead."""
        root = self._root.resolve()
        for i in indices:
            label, relative = self._files[i]
            path = self._root / relative
            content, problem = b"", ""
            try:
                if path.resolve(strict=True).is_relative_to(root):
                    content = path.read_bytes()
                else:
                    problem = "a symbolic link that leaves the folder"
            except OSError as error:
                problem = error.strerror or str(error)
            yield ImageRecord(relative, str(path), label, content, problem=problem)
