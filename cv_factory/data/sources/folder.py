"""A folder of images, here or in a bucket: one subfolder a class, or classes told by file names."""

import logging
import re
from collections.abc import Iterator

from cv_factory.config.data import DataConfig, FolderConfig
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources._listing import ListedImage, Listing, official_split
from cv_factory.data.storage.stores import ImageStore, open_store, printable
from cv_factory.errors import SourceError

_log = logging.getLogger(__name__)

_LAYOUT = "expected one subfolder of images a class, such as {root}/cat/1.jpg and {root}/dog/1.jpg"
_SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "dev"})
_SPLIT_PATTERN = "(?P<split>[^/]+)/(?P<label>[^/]+)/.+"


class FolderSource(ListedSource):
    """Every file of a folder is an image; hidden files are skipped."""

    def __init__(
        self, store: ImageStore, pattern: str | None, max_bytes: int, *, labelled: bool = True
    ) -> None:
        """List the files.

        Args:
            store: The folder.
            pattern: Regular expression over a file's path that tells its class; None for one
                subfolder a class.
            max_bytes: Larger files are refused.
            labelled: Without a pattern: whether subfolders are classes; else every file is an
                image without a label, wherever it lies.

        Raises:
            SourceError: The folder does not exist or is not laid out as expected.
        """
        self._store = store
        self._max_bytes = max_bytes
        if not store.exists():
            raise SourceError(f"The image folder {store.root} does not exist or is no folder.")
        if pattern is not None:
            self._listing = Listing(self._by_pattern(re.compile(pattern)))
        elif labelled:
            self._listing = self._by_subfolder()
        else:
            self._listing = Listing(self._unlabelled())
        if not len(self):
            layout = _LAYOUT.format(root=store.root) if labelled else "expected images"
            raise SourceError(f"The image folder {store.root} holds no files: {layout}.")

    @property
    def description(self) -> str:
        """The folder."""
        return f"folder {self._store.root}"

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        return self._store.readers

    def _by_subfolder(self) -> Listing:
        root, classes = self._store.root, self._store.folders()
        layout = _LAYOUT.format(root=root)
        hint = "; where the classes are told by the file names, give data.folder.pattern"
        if not classes:
            raise SourceError(f"The image folder {root} has no subfolder: {layout}{hint}.")
        if len(classes) == 1:
            raise SourceError(
                f"The image folder {root} has the one class {classes[0]!r}; a classifier needs "
                f"two: {layout}{hint}."
            )
        if {name.lower() for name in classes} <= _SPLIT_FOLDERS:
            raise SourceError(
                f"The subfolders of {root} ({', '.join(classes)}) look like a split, not like "
                f"classes. If so: --set 'data.folder.pattern={_SPLIT_PATTERN}'."
            )
        beside: list[str] = []
        listing = Listing(self._in_subfolders(beside), tuple(classes))
        if beside:
            _log.info(
                f"{len(beside)} files lie in {root} itself, beside the class folders, and are not "
                f"read: {', '.join(sorted(beside)[:5])}{', …' if len(beside) > 5 else ''}"
            )
        return listing

    def _in_subfolders(self, beside: list[str]) -> Iterator[ListedImage]:
        for file in self._store.files():
            name = printable(file.name)
            label, separator, _ = name.partition("/")
            if separator or file.problem:
                yield ListedImage(
                    name, file.name, label or None, version=file.version, problem=file.problem
                )
            else:
                beside.append(name)

    def _unlabelled(self) -> Iterator[ListedImage]:
        for file in self._store.files():
            yield ListedImage(
                printable(file.name), file.name, None, version=file.version, problem=file.problem
            )

    def _by_pattern(self, pattern: re.Pattern[str]) -> Iterator[ListedImage]:
        for file in self._store.files():
            name, version = printable(file.name), file.version
            match = pattern.fullmatch(name)
            if match is None or file.problem:
                problem = file.problem or "its path does not match data.folder.pattern"
                yield ListedImage(name, file.name, None, version=version, problem=problem)
                continue
            parts = match.groupdict()
            split = official_split(parts.get("split") or "", f"data.folder.pattern for {name}")
            yield ListedImage(
                name, file.name, parts["label"], split, parts.get("group") or "", version
            )

    def _read(self, name: bytes) -> bytes:
        return self._store.read(name, self._max_bytes)

    def _location(self, name: bytes) -> str:
        return self._store.location(name)


def open_source(config: DataConfig, *, labelled: bool) -> FolderSource:
    """Open the folder at ``path``."""
    store = open_store(config.path or "", config.storage_options)
    pattern = (config.folder or FolderConfig()).pattern
    return FolderSource(store, pattern, config.max_bytes, labelled=labelled)
