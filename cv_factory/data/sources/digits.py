"""The handwritten digits that ship in scikit-learn."""

from functools import cached_property

import numpy as np

from cv_factory.artifacts.files import fingerprint
from cv_factory.config.data import DataConfig
from cv_factory.data.sources._arrays import Arrays, ArraySource


class DigitsSource(ArraySource):
    """The 1,797 handwritten digits, 8x8, that ship in scikit-learn."""

    description = "scikit-learn digits"
    class_names = tuple("0123456789")

    @cached_property
    def _arrays(self) -> Arrays:
        from sklearn.datasets import load_digits

        digits = load_digits()
        # The stored values are counts of 0-16 set bits.
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        ids = [f"digit-{i:04d}" for i in range(len(images))]
        return Arrays(images, digits.target.astype(np.int64), ids, [""] * len(images))

    def fingerprint(self) -> str:
        """Digest of the scikit-learn version that ships the images."""
        from importlib.metadata import version

        return fingerprint(["digits", version("scikit-learn")])


def open_source(config: DataConfig, *, labelled: bool) -> DigitsSource:
    """Open the set, which needs no settings."""
    return DigitsSource()
