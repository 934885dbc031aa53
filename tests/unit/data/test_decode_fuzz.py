"""Damaged and hostile files: each becomes the right picture or a reason; the process stays alive.

Right is what its bytes say, told by a second, plain decoding that shares no code with ours: full
size (no draft), upright, over white, deep grey scaled, resized once. Damage that a format cannot
notice (a changed pixel of a bitmap) is part of the picture for both.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest
from tests.support.fuzzing import mutated, seeds

#: Mean difference of 8-bit values that decoding a JPEG at a fraction of its size may make.
_DRAFT_TOLERANCE = 2.0


def decoded_plainly(content: bytes) -> npt.NDArray[np.int16]:
    """Decode to ``(16, 16, 3)`` in the simplest way that is right."""
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) / 257).astype(np.uint8))
    layer = upright.convert("RGBA")
    picture = Image.new("RGB", layer.size, "white")
    picture.paste(layer, mask=layer.getchannel("A"))
    return np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR), dtype=np.int16)


def ingest_damaged(root: Path, n: int, seed: int) -> None:
    for number, content in enumerate(mutated(seed, n)):
        folder = root / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{number:05d}.img").write_bytes(content)
    config = DataConfig.model_validate(
        {
            "source": "folder",
            "path": str(root),
            "height": 16,
            "width": 16,
            "channels": 3,
            "max_unreadable_share": 1.0,
            "max_pixels": 1_000_000,
        }
    )
    with warnings.catch_warnings():
        # Pillow warns of damaged metadata.
        warnings.simplefilter("ignore")
        dataset = ingest(config)
        contents = [Path(source).read_bytes() for source in dataset.manifest["source"]]
        plain = np.stack([decoded_plainly(content) for content in contents])
    difference = np.abs(plain - dataset.images).mean(axis=(1, 2, 3))
    wrong = dataset.manifest["id"][difference > _DRAFT_TOLERANCE]
    assert wrong.empty, f"not what their bytes say: {wrong.to_list()}"
    assert all(u.reason and "\n" not in u.reason for u in dataset.unreadable)
    ids = {*dataset.manifest["id"], *(u.id for u in dataset.unreadable)}
    assert len(ids) == n == len(dataset) + len(dataset.unreadable)
    # Damage is common, and so is damage that a decoder can live with.
    assert 0.1 * n < len(dataset) < 0.9 * n
    assert dataset.images.shape == (len(dataset), 16, 16, 3)


@pytest.mark.slow
def test_five_thousand_damaged_files_are_pictures_or_reasons(tmp_path: Path) -> None:
    ingest_damaged(tmp_path, 5000, seed=4)


def test_the_undamaged_files_are_all_read(tmp_path: Path) -> None:
    for number, content in enumerate(seeds()):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number}.img").write_bytes(content)
    config = DataConfig.model_validate({"source": "folder", "path": str(tmp_path)})
    assert len(ingest(config)) == len(seeds())
