"""Images/s of ingestion against torchvision's ImageFolder and DataLoader, which do less.

Both read the same JPEGs of 256x256 (pieces of scikit-learn's two photographs) and resize them to
64x64 with as many workers; ingestion also hashes, measures and stores every image. The DataLoader
decodes at full size, as its users do. Rates are measured without imports: each side reads a few
images before. COUNT images (default 4,000), PAIRS pairs (default 4).
Run: python -m benchmarks.ingestion [COUNT [PAIRS]]
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Side, Spread, compare, parse_arguments
from cv_factory.cpu import available_cpus

if TYPE_CHECKING:
    from torch.utils.data import Subset
    from torchvision.datasets import ImageFolder

_FOLDER = "BENCHMARK_JPEGS"


def write_photographs(root: Path, n: int, size: int = 256, kind: str = "jpg") -> None:
    """Write n square pieces of real photographs, two classes, ``size`` pixels a side."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir(parents=True)
        image = Image.fromarray(photo)
        for number in range(n // 2):
            side = int(rng.integers(256, 420))
            left = int(rng.integers(0, image.width - side))
            top = int(rng.integers(0, image.height - side))
            piece = image.crop((left, top, left + side, top + side)).resize((size, size))
            piece.save(root / name / f"{number:05d}.{kind}", quality=90)


def dataloader() -> dict[str, float]:
    """Decode and resize with torchvision, as many worker processes as CPUs."""
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, PILToTensor, Resize

    folder = ImageFolder(os.environ[_FOLDER], Compose([Resize((64, 64)), PILToTensor()]))

    def read(images: "ImageFolder | Subset[Any]") -> int:
        loader = DataLoader(images, batch_size=256, num_workers=available_cpus())
        return sum(len(batch) for batch, _ in loader)

    read(Subset(folder, range(16)))
    start = time.perf_counter()
    images = read(folder)
    return {"images_per_second": images / (time.perf_counter() - start)}


def ingestion() -> dict[str, float]:
    """Ingest the folder."""
    from cv_factory.config.data import DataConfig
    from cv_factory.data.ingest import ingest

    config = DataConfig(source="folder", path=os.environ[_FOLDER], height=64, width=64, channels=3)
    ingest(config.model_copy(update={"limit": 16}))
    start = time.perf_counter()
    images = len(ingest(config))
    return {"images_per_second": images / (time.perf_counter() - start)}


def compare_rates(name: str, baseline: Side, ours: Side, pairs: int) -> None:
    """Compare two sides that return images/s, print both comparisons and store the result."""
    from rich.console import Console

    result = compare(name, baseline, ours, pairs=pairs)
    result.save()
    console = Console()
    console.print(result.table())
    slow, fast = ([s.values["images_per_second"] for s in side] for side in result.samples)
    ratio = Spread.of([b / a for a, b in zip(slow, fast, strict=True)])
    rates = f"{Spread.of(slow).median:,.0f} and {Spread.of(fast).median:,.0f} images/s"
    spread = f"{ratio.median:.2f} ({ratio.min:.2f} to {ratio.max:.2f}, n = {ratio.n})"
    console.print(f"Without imports: {rates}, ratio {spread}")


def main() -> int:
    """Compare, print and store the result."""
    n, pairs = parse_arguments(count=4000, pairs=4)
    with tempfile.TemporaryDirectory() as directory:
        os.environ[_FOLDER] = directory
        write_photographs(Path(directory), n)
        compare_rates(
            "ingestion",
            Side("ImageFolder + DataLoader", dataloader),
            Side("ingest", ingestion),
            pairs,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
