"""The handwritten digits that ship in scikit-learn."""

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

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
        spec = find_spec("sklearn")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        # Read from its folder: an import of scikit-learn takes two seconds.
        folder = Path(spec.submodule_search_locations[0])
        rows = np.loadtxt(folder / "datasets" / "data" / "digits.csv.gz", delimiter=",")
        # The stored values are counts of 0-16 set bits, followed by the label.
        images = np.rint(rows[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        ids = [f"digit-{i:04d}" for i in range(len(images))]
        return Arrays(images, rows[:, 64].astype(np.int64), ids, [""] * len(images))

    def fingerprint(self) -> str:
        """Digest of the scikit-learn version that ships the images."""
        from importlib.metadata import version

        return fingerprint(["digits", version("scikit-learn")])


def open_source(config: DataConfig, *, labelled: bool) -> DigitsSource:
    """Open the set, which needs no settings."""
    return DigitsSource()
