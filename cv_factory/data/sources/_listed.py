"""A source whose images are listed first and read one by one later."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from cv_factory.data.sources import ImageRecord, ImageSource
from cv_factory.data.sources._listing import Listing
from cv_factory.errors import SourceError
from cv_factory.reporting.numbers import format_count


class ListedSource(ImageSource):
    """Yields records from a listing; subclasses make the listing and read single images."""

    _listing: Listing

    @abstractmethod
    def _read(self, name: bytes) -> bytes:
        """Return one image's bytes, called in any thread.

        Raises:
            ImageError: It cannot be had.
        """

    @abstractmethod
    def _location(self, name: bytes) -> str:
        """Return where an image lies, for people."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the listing names, sorted."""
        return self._listing.class_names

    @property
    def notices(self) -> tuple[str, ...]:
        """What the listing left out, and why."""
        return tuple(self._listing.notices)

    def drop_classes_below(self, n_images: int) -> None:
        """Leave out classes with fewer images."""
        dropped = self._listing.drop_classes_below(n_images)
        if dropped:
            counts = ", ".join(f"{name} ({n:,})" for name, n in dropped.items())
            self._listing.notices.append(
                f"{format_count(len(dropped), 'class')} with fewer than {n_images:,} images left "
                f"out (data.drop_classes_below): {counts}."
            )
        if dropped and len(self.class_names) < 2:
            raise SourceError(
                f"{self.description}: fewer than two classes have {n_images:,} images or more "
                f"(data.drop_classes_below); too small are {counts}."
            )

    def __len__(self) -> int:
        """Return the number of images listed."""
        return len(self._listing)

    @property
    def has_versions(self) -> bool:
        """Whether the listing tells when an image changes."""
        return self._listing.has_versions

    def fingerprint(self) -> str:
        """Digest of the listing."""
        return self._listing.fingerprint()

    def labels_and_parts(self, indices: npt.NDArray[np.int64]) -> Iterator[tuple[str | None, str]]:
        """Yield label and official part of images; a table's bytes are not fetched."""
        for image in self._listing.rows(indices):
            yield image.label, image.split

    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield the records; their content is read when it is asked for."""
        for image in self._listing.rows(indices):
            yield ImageRecord(
                id=image.id,
                location=self._location(image.name),
                label=image.label,
                content=b"" if image.problem else partial(self._read, image.name),
                official_split=image.split,
                group=image.group,
                problem=image.problem,
            )
