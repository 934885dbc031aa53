"""Damaged and hostile files: each becomes a picture or a reason, and the process stays alive."""

import warnings
from pathlib import Path

from fuzzing import mutated, seeds

from cv_factory.config_data import DataConfig
from cv_factory.data.ingest import ingest


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
    assert all(u.reason and "\n" not in u.reason for u in dataset.unreadable)
    ids = {*dataset.manifest["id"], *(u.id for u in dataset.unreadable)}
    assert len(ids) == n == len(dataset) + len(dataset.unreadable)
    # Damage is common, and so is damage that a decoder can live with.
    assert 0.1 * n < len(dataset) < 0.9 * n
    assert dataset.images.shape == (len(dataset), 16, 16, 3)


def test_five_thousand_damaged_files_are_pictures_or_reasons(tmp_path: Path) -> None:
    ingest_damaged(tmp_path, 5000, seed=4)


def test_the_undamaged_files_are_all_read(tmp_path: Path) -> None:
    for number, content in enumerate(seeds()):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[number % 2] / f"{number}.img").write_bytes(content)
    config = DataConfig.model_validate({"source": "folder", "path": str(tmp_path)})
    assert len(ingest(config)) == len(seeds())
