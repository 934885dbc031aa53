"""A folder of images, here or in a bucket: one subfolder a class, or classes told by file names."""

import re
import shlex
from collections import defaultdict
from collections.abc import Iterator

from cv_factory.config.data import DataConfig, FolderConfig
from cv_factory.data.sources._listed import ListedSource
from cv_factory.data.sources._listing import (
    Examples,
    ListedImage,
    Listing,
    official_split,
    parse_part,
)
from cv_factory.data.storage.stores import ImageStore, StoredFile, open_store, printable
from cv_factory.errors import SourceError
from cv_factory.reporting.numbers import format_count

_LAYOUT = "expected one subfolder of images a class, such as {root}/cat/1.jpg and {root}/dog/1.jpg"
_PATTERN_HINT = "; where the classes are told by the file names, give data.folder.pattern"


class FolderSource(ListedSource):
    """Every file of a folder is an image; hidden files are skipped."""

    def __init__(self, store: ImageStore, config: DataConfig, *, labelled: bool = True) -> None:
        """List the files.

        Args:
            store: The folder.
            config: ``path`` is the folder as the user named it; section ``folder``.
            labelled: Without a pattern: whether subfolders are classes; else every file is an
                image without a label, wherever it lies.

        Raises:
            SourceError: The folder does not exist or is not laid out as expected.
        """
        self._store = store
        self._path = (config.path or "").rstrip("/")
        self._max_bytes = config.max_bytes
        self._follow_links = config.follow_links
        self._linked_folders, self._beside = Examples(), Examples()
        self._linked_near_root: set[str] = set()
        if not store.exists():
            raise SourceError(f"The image folder {store.root} does not exist or is no folder.")
        folder = config.folder or FolderConfig()
        if folder.pattern is not None:
            self._listing = Listing(self._by_pattern(re.compile(folder.pattern)))
        elif not labelled:
            self._listing = Listing(self._unlabelled())
        elif folder.layout == "parts":
            self._listing = self._by_part()
        else:
            self._listing = self._by_subfolder(may_be_parts=folder.layout is None)
        self._add_notices()
        if not len(self):
            layout = _LAYOUT.format(root=store.root) if labelled else "expected images"
            notices = " ".join(["", *self.notices])
            raise SourceError(f"The image folder {store.root} holds no images: {layout}.{notices}")

    @property
    def description(self) -> str:
        """The folder."""
        return f"folder {self._store.root}"

    @property
    def readers(self) -> int:
        """Number of threads that may read at once."""
        return self._store.readers

    def _by_subfolder(self, *, may_be_parts: bool) -> Listing:
        root, classes = self._store.root, self._store.folders()
        layout = _LAYOUT.format(root=root)
        if not classes:
            raise SourceError(f"The image folder {root} has no subfolder: {layout}{_PATTERN_HINT}.")
        if len(classes) == 1:
            raise SourceError(
                f"The image folder {root} has the one class {classes[0]!r}; a classifier needs "
                f"two: {layout}{_PATTERN_HINT}.{self._suggest_subfolder(classes[0])}"
            )
        parts = find_parts(classes) or self._find_nested_part(classes)
        if parts and may_be_parts:
            raise SourceError(self._describe_parts(parts))
        listing = Listing(self._in_subfolders(frozenset(classes)), tuple(classes))
        self._refuse_links([name for name in classes if name in self._linked_near_root])
        if len(listing) and (empty := listing.drop_classes_below(1)):
            listing.notices.append(
                f"{format_count(len(empty), 'empty folder')} left out: {', '.join(empty)}."
            )
            if len(listing.class_names) < 2:
                self._listing = listing
                self._add_notices()
                raise SourceError(
                    f"The image folder {root} has images of the one class "
                    f"{listing.class_names[0]!r}; a classifier needs two: {layout}. "
                    + " ".join(self.notices)
                )
        return listing

    def _refuse_links(self, folders: list[str]) -> None:
        """Refuse class folders that are links, unless links are followed: then they are circles."""
        if folders and not self._follow_links:
            raise SourceError(
                f"{format_count(len(folders), 'class folder')} of {self._store.root} are symbolic "
                f"links ({', '.join(folders)}): --set data.follow_links=true reads what they lead "
                "to."
            )

    def _find_nested_part(self, classes: list[str]) -> dict[str, str]:
        """Return a folder that is named like a training part and holds class folders, if any."""
        named = [name for name in classes if parse_part(name) == ("train", "")]
        return {name: "train" for name in named if len(self._store.folders(name)) > 1}

    def _suggest_subfolder(self, name: str) -> str:
        """Return what to do where the classes lie one folder deeper."""
        folder, n = self._find_class_folders(name)
        return f" {folder} has {n} subfolders: --set {self._set_path(folder)}" if n > 1 else ""

    def _find_class_folders(self, name: str) -> tuple[str, int]:
        """Return a folder, or the one below it that first holds several, and how many it holds."""
        below = self._store.folders(name)
        while len(below) == 1:
            name = f"{name}/{below[0]}"
            below = self._store.folders(name)
        return name, len(below)

    def _describe_parts(self, parts: dict[str, str]) -> str:
        """Return why folders are taken for the parts of a split, and what can be done with them."""
        folders = {name: self._find_class_folders(name) for name in parts}
        labeled = [name for name, (_, n) in folders.items() if n]
        unlabeled = [name for name in folders if name not in labeled]
        counts = ", ".join(
            f"{folder} ({f'{n} class folders' if n else 'no class folders'})"
            for folder, n in folders.values()
        )
        lines = [
            f"The subfolders of {self._store.root} look like a split, not like classes: {counts}."
        ]
        if labeled:
            train = next((name for name in labeled if parts[name] == "train"), labeled[0])
            path = self._set_path(folders[train][0])
            lines.append(f"To train on one, which is divided anew: --set {path}")
        if len(labeled) > 1 and all(folders[name][0] == name for name in labeled):
            lines.append("To keep the parts: --set data.folder.layout=parts")
        lines += [
            f"To score the images without labels: --pipeline batch_inference with "
            f"--set {self._set_path(name)}"
            for name in unlabeled
        ]
        lines.append("If they are classes: --set data.folder.layout=classes")
        return "\n  ".join(lines)

    def _set_path(self, subfolder: str) -> str:
        return shlex.quote(f"data.path={self._path}/{subfolder}")

    def _in_subfolders(self, classes: frozenset[str]) -> Iterator[ListedImage]:
        for name, file in self._files():
            label, separator, _ = name.partition("/")
            if separator or file.problem:
                # A folder that cannot be opened is a class, a link that leads nowhere is none.
                is_class = bool(separator) or label in classes
                yield ListedImage(
                    name,
                    file.name,
                    label if is_class else None,
                    version=file.version,
                    problem=file.problem,
                )
            else:
                self._beside.add(name)

    def _by_part(self) -> Listing:
        """List PART/CLASS/… with parts such as ``train`` and ``test``.

        Raises:
            SourceError: No subfolder is named like a part.
        """
        folders = {name: parse_part(name) for name in self._store.folders()}
        parts = {name: part[0] for name, part in folders.items() if part}
        if not parts:
            raise SourceError(
                f"data.folder.layout=parts: no subfolder of {self._store.root} is named like a "
                f"part (train, validation, test, or val, dev, …): {', '.join(folders) or 'none'}."
            )
        listing = Listing(self._in_parts(parts))
        linked = sorted(self._linked_near_root)
        self._refuse_links([name for name in linked if name.partition("/")[0] in parts])
        return listing

    def _in_parts(self, parts: dict[str, str]) -> Iterator[ListedImage]:
        for name, file in self._files():
            part, _, path = name.partition("/")
            label, separator, _ = path.partition("/")
            if part in parts and (separator or file.problem):
                yield ListedImage(
                    name,
                    file.name,
                    label if separator else None,
                    parts[part],
                    version=file.version,
                    problem=file.problem,
                )
            else:
                self._beside.add(name)

    def _unlabelled(self) -> Iterator[ListedImage]:
        for name, file in self._files():
            yield ListedImage(name, file.name, None, version=file.version, problem=file.problem)

    def _by_pattern(self, pattern: re.Pattern[str]) -> Iterator[ListedImage]:
        for name, file in self._files():
            match = pattern.fullmatch(name)
            if match is None or file.problem:
                problem = file.problem or "its path does not match data.folder.pattern"
                yield ListedImage(name, file.name, None, version=file.version, problem=problem)
                continue
            parts = match.groupdict()
            split = official_split(parts.get("split") or "", f"data.folder.pattern for {name}")
            yield ListedImage(
                name, file.name, parts["label"], split, parts.get("group") or "", file.version
            )

    def _files(self) -> Iterator[tuple[str, StoredFile]]:
        """Yield name and file of all that may be an image."""
        for file in self._store.files():
            name = printable(file.name)
            if file.is_linked_folder:
                self._linked_folders.add(name)
                if name.count("/") < 2:
                    self._linked_near_root.add(name)
            else:
                yield name, file

    def _add_notices(self) -> None:
        """Add what lies in the folder and was not listed."""
        beside, links = self._beside, self._linked_folders
        if beside.count:
            self._listing.notices.append(
                f"{format_count(beside.count, 'file')} outside of class folders left out: {beside}."
            )
        if links.count:
            remedy = "data.follow_links=true follows the link"
            reason = "a circle of links" if self._follow_links else remedy
            self._listing.notices.append(
                f"{format_count(links.count, 'linked folder')} left out ({reason}): {links}."
            )

    def _read(self, name: bytes) -> bytes:
        return self._store.read(name, self._max_bytes)

    def _location(self, name: bytes) -> str:
        return self._store.location(name)


def find_parts(folders: list[str]) -> dict[str, str]:
    """Return the part of each folder, where two or more are named like the parts of one split.

    ``train`` and ``test`` are; so are ``seg_train`` and ``seg_test``, but not ``test_tube`` and
    ``training_shoe``.
    """
    families: dict[str, dict[str, str]] = defaultdict(dict)
    for name in folders:
        if parsed := parse_part(name):
            part, rest = parsed
            families[rest][name] = part
    largest = max(families.values(), key=len, default={})
    return largest if len(largest) > 1 else {}


def open_source(config: DataConfig, *, labelled: bool) -> FolderSource:
    """Open the folder at ``path``."""
    store = open_store(config.path or "", config.storage_options, follow_links=config.follow_links)
    return FolderSource(store, config, labelled=labelled)
