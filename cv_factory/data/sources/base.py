"""What every image source offers: a cheap fingerprint, its classes, and records one by one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ImageRecord:
    """One image as a source gives it, not decoded.

    Attributes:
        id: Unique in the source and stable between readings.
        location: Where the image lies, for people (a path, a URL).
        label: Name of the class; None where the image has none.
        content: The encoded bytes, or pixels uint8 ``(H, W, C)`` where the source holds arrays;
            an ``ImageError`` text in ``problem`` where neither could be had.
        official_split: ``train`` or ``test`` where the source defines a split, else empty.
        problem: Why there is no content.
    """

    id: str
    location: str
    label: str | None
    content: bytes | npt.NDArray[np.uint8]
    official_split: str = ""
    problem: str = ""


class ImageSource(ABC):
    """Images of one origin, read lazily, in a stable order."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What is read and from where, for people."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; a label's number is its place here."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of records."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest that changes when the source's content does, without reading it all."""

    @abstractmethod
    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield the records at these positions, in order.

        Raises:
            DataError: The source went away or cannot be read any more.
        """
