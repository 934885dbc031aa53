"""Time and memory of ingestion, validation, split and PCA as the number of images grows tenfold.

The images are Fashion-MNIST's, shifted, flipped and tinted to 32x32x3. Two sizes are run, ten times
apart (COUNT, by default 100,000, and ten times that); reported are seconds a stage and its peak
of anonymous memory, without the pages of mapped files.
Run: python -m benchmarks.million_images [COUNT]
"""

import json
import os
import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.anonymous_memory import PeakMemory
from benchmarks.harness import Side, parse_arguments, run_once
from cv_factory.config.data import DataConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.config.validation import ValidationConfig
from cv_factory.data.sources import ImageRecord, ImageSource

_SEEDS = 60_000
_COUNT = "BENCHMARK_COUNT"


class Augmented(ImageSource):
    """Endless variants of Fashion-MNIST, each made when it is asked for."""

    description = "augmented Fashion-MNIST"

    def __init__(self, n: int) -> None:
        """Read the originals."""
        from cv_factory.data.sources.fashion_mnist import FashionMNISTSource

        source = FashionMNISTSource(None)
        self._originals = source._arrays
        self._class_names = source.class_names
        self._n = n

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the originals' classes."""
        return self._class_names

    def __len__(self) -> int:
        """Return how many images there are."""
        return self._n

    def fingerprint(self) -> str:
        """Return the number of images: nothing else can change."""
        return str(self._n)

    def records(self, indices: npt.NDArray[np.int64]) -> Iterator[ImageRecord]:
        """Yield each image: an original at one of 25 places, mirrored or not, in one of 8 tints."""
        labels = self._originals.labels
        for index in indices.tolist():
            number, variant = index % _SEEDS, index // _SEEDS
            shift, mirror, tint = divmod(variant * 7, 25)[1], variant % 2, variant % 8
            pixels = np.zeros((32, 32, 3), np.uint8)
            original = self._originals.images[number][:, :: -1 if mirror else 1]
            scale = np.array([255 - 20 * (tint & 1), 255 - 20 * (tint & 2), 255 - 10 * (tint & 4)])
            top, left = shift // 5, shift % 5
            tinted = original.astype(np.uint16) * scale.astype(np.uint16) // 255
            pixels[top : top + 28, left : left + 28] = tinted
            yield ImageRecord(
                f"{index:08d}", f"made#{index}", self.class_names[labels[number]], pixels
            )


def stages() -> dict[str, float]:
    """Take the images through all stages; return seconds and megabytes by stage."""
    import great_expectations.expectations  # noqa: F401  (imports are not measured)

    from cv_factory.data.ingest import ingest_source
    from cv_factory.data.split import split_dataset
    from cv_factory.data.validation.great_expectations import validate_dataset
    from cv_factory.transforms.fitted import fit_transform

    n = int(os.environ[_COUNT])
    with PeakMemory() as memory:
        marks = _Marks(n, memory)
        dataset = ingest_source(Augmented(n), DataConfig())
        marks.add("ingest")
        split = split_dataset(dataset, SplitConfig())
        marks.add("split")
        limits = ValidationConfig(max_near_duplicate_share=1.0, max_duplicate_share=1.0)
        validate_dataset(
            dataset.manifest,
            class_names=dataset.class_names,
            split=dict(split.items()),
            config=limits,
            images=dataset.images,
        ).require_ok()
        marks.add("validate")
        fit_transform(dataset, split.train, TransformConfig())
        marks.add("fit_transform")
    return marks.figures


class _Marks:
    """Seconds and peak megabytes of one stage after the other, and of the whole."""

    def __init__(self, n: int, memory: PeakMemory) -> None:
        self._memory = memory
        self._last = time.perf_counter()
        self.figures: dict[str, float] = {
            "images": n, "before_MB": memory.before / 1e6, "whole_s": 0.0, "peak_MB": 0.0
        }  # fmt: skip

    def add(self, stage: str) -> None:
        now = time.perf_counter()
        seconds, peak = round(now - self._last, 2), round(self._memory.peak / 1e6)
        self.figures |= {f"{stage}_s": seconds, f"{stage}_peak_MB": peak}
        self.figures["whole_s"] += seconds
        self.figures["peak_MB"] = max(self.figures["peak_MB"], peak)
        self._last, self._memory.peak = now, 0


def main() -> int:
    """Run both sizes, each in a process of its own, and print the ratio of their times."""
    (small,) = parse_arguments(count=100_000)
    runs = []
    for n in (small, 10 * small):
        side = Side(f"{n:,} images", stages, env={_COUNT: str(n)})
        runs.append(run_once(side, timeout=1800).values)
        print(json.dumps(runs[-1], indent=1), flush=True)
    ratio = runs[1]["whole_s"] / runs[0]["whole_s"]
    print(f"10 x the images: {ratio:.2f} x the time, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
