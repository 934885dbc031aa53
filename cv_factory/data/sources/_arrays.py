"""Base of the sources whose images already are one array."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cv_factory.data.sources import ImageRecord, ImageSource

#: Where named data sets are downloaded to without --data-dir.
DOWNLOAD_FOLDER = Path("~/.cache/cv-factory")


@dataclass(frozen=True)
class Arrays:
    """Images uint8 ``(N, H, W, C)``, labels int64 ``(N,)``, ids and official splits."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    ids: list[str]
    splits: list[str]


class ArraySource(ImageSource):
    """A source whose images already are one uint8 array ``(N, H, W, C)``."""

    @property
    @abstractmethod
    def _arrays(self) -> Arrays:
        """The images, read when they are first asked for."""

    def __len__(self) -> int:
        return len(self._arrays.images)

    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        arrays = self._arrays
        for i in indices:
            yield ImageRecord(
                id=arrays.ids[i],
                location=f"{self.description}#{arrays.ids[i]}",
                label=self.class_names[arrays.labels[i]],
                content=arrays.images[i],
                official_split=arrays.splits[i],
            )
