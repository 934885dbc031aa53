"""Image sources: one public module a kind, found by its name.

A module holds ``open_source(config, *, labelled)``, which returns an ``ImageSource``. Packages that
one kind alone needs are imported by its module alone.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from cv_factory.config.data import DataConfig
from cv_factory.config.plugins import load_plugin
from cv_factory.cpu import available_cpus
from cv_factory.errors import SourceError

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.data.sources"
#: Encoded bytes, or pixels uint8 ``(H, W, C)`` where the source holds arrays.
Content = bytes | npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image as a source gives it, not decoded.

    Attributes:
        id: Unique in the source and stable between readings.
        location: Where the image lies, for people (a path, a URL).
        label: Name of the class; None where the image has none.
        content: The content, or a function that reads it (called in any thread, at most once);
            it raises ``ImageError`` with the reason where the image cannot be had.
        official_split: ``train``, ``validation`` or ``test`` where the source defines a split, else
            empty.
        group: What the image belongs to (a patient, a video); empty where it stands alone.
        problem: Why there is no content.
    """

    id: str
    location: str
    label: str | None
    content: Content | Callable[[], Content]
    official_split: str = ""
    group: str = ""
    problem: str = ""

    def read(self) -> Content:
        """Return the content.

        Raises:
            ImageError: It cannot be had; the message is the reason.
        """
        return self.content() if callable(self.content) else self.content


class ImageSource(AbstractContextManager["ImageSource"]):
    """Images of one origin, read lazily, in a stable order; close it, or use it in ``with``."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Human-readable name of the source and its location."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; a label's number is its place here."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What the source left out without being asked to, one sentence each."""
        return ()

    def drop_classes_below(self, n_images: int) -> None:
        """Leave out classes with fewer images.

        Raises:
            SourceError: Fewer than two classes are left, or the source does not list its images.
        """
        raise SourceError(
            f"{self.description}: data.drop_classes_below is for sources that list their images "
            "(folder, manifest, sql, http, dvc)."
        )

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of records."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest of all that ``ingest`` depends on, without reading all content.

        It changes with class names (also of classes without images), ids, labels, splits, groups,
        what is known to be unreadable, and the versions of the images where ``has_versions``.
        """

    @property
    def has_versions(self) -> bool:
        """Whether ``fingerprint`` changes with the content of an image; else nothing is cached."""
        return True

    @abstractmethod
    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield the records at these positions, in order.

        Raises:
            DataError: The source went away or cannot be read any more.
        """

    def labels_and_parts(self, indices: npt.NDArray[np.int64]) -> Iterator[tuple[str | None, str]]:
        """Yield label and official part of the records at these positions; reads no content."""
        for record in self.records(indices):
            yield record.label, record.official_split

    @property
    def readers(self) -> int:
        """Number of threads that may read at once; above the number of CPUs where reading waits."""
        return available_cpus()

    def __enter__(self) -> Self:
        """Return the source itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close, whatever happened in the block."""
        self.close()

    def close(self) -> None:
        """Close what the source holds open; closing twice does nothing."""


def open_source(config: DataConfig, *, labelled: bool = True) -> ImageSource:
    """Open the source that the configuration names; use it in a ``with`` statement.

    Args:
        config: The section ``data``.
        labelled: Whether a folder's subfolders must be classes; images that are only scored need
            no labels.

    Raises:
        SourceError: The source does not exist, cannot be reached or is empty.
        ConfigError: A setting needs an environment variable that is not set.
    """
    module = load_plugin(PLUGINS, config.source, "source")
    source: ImageSource = module.open_source(config, labelled=labelled)
    if labelled and config.drop_classes_below is not None:
        source.drop_classes_below(config.drop_classes_below)
    return source if config.exclude is None else _exclude(source, config)


def _exclude(source: ImageSource, config: DataConfig) -> ImageSource:
    from cv_factory.data.sources._exclusion import ExcludingSource, read_exclusion_list

    try:
        return ExcludingSource(source, read_exclusion_list(config))
    except BaseException:
        source.close()
        raise
