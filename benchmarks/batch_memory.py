"""Peak memory of batch inference on COUNT images, and on ten times as many.

The peak of a whole process that scores 64x64 PNGs into one part and into ten. Most of the files are
hard links to COUNT different ones (default 4,000), PAIRS pairs (default 3).
Run: python -m benchmarks.batch_memory [COUNT [PAIRS]]
"""

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.batch_inference import FOLDER, export_small_cnn, score_folder
from benchmarks.harness import Side, compare, parse_arguments
from benchmarks.ingestion import write_photographs

_TIMES = 10
_ROWS = "BENCHMARK_ROWS_PER_PART"


def few() -> dict[str, float]:
    """Score the images themselves."""
    return score_folder("images", int(os.environ[_ROWS]))


def many() -> dict[str, float]:
    """Score ten times as many."""
    return score_folder("many", int(os.environ[_ROWS]))


def link_images(images: Path, many: Path) -> None:
    """Fill a folder with links to each image, ten of them."""
    for number in range(_TIMES):
        for file in images.rglob("*.png"):
            link = many / str(number) / file.relative_to(images)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, link)


def main() -> int:
    """Compare, print and store the result."""
    from rich.console import Console

    n, pairs = parse_arguments(count=4000, pairs=3)
    with tempfile.TemporaryDirectory() as directory:
        os.environ[FOLDER], os.environ[_ROWS] = directory, str(n)
        root = Path(directory)
        write_photographs(root / "images", n, size=64, kind="png")
        export_small_cnn(root / "predictor", root / "images")
        link_images(root / "images", root / "many")
        sides = (
            Side(f"{n:,} images", few),
            Side(f"{_TIMES * n:,} images", many),
        )
        result = compare("batch_memory", *sides, pairs=pairs, warmup=0)
    result.save()
    Console().print(result.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
