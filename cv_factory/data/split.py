"""Train, validation and test: stratified, seeded, and blind to the order of the source."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.array_files import load_npz
from cv_factory.artifact_files import read_header, write_header
from cv_factory.config import SplitConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.errors import DataError

SPLIT_NAMES = ("train", "validation", "test")

_KIND, _VERSION, _FILE = "split", 1, "split.npz"
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Sorted, disjoint index arrays int64 over one ImageDataset.

    Attributes:
        train: What transforms and models are fitted on.
        validation: What epochs, candidates, calibration and thresholds are chosen on.
        test: What the exported predictor is measured on, and nothing is chosen on.
        seed: The seed the split was drawn with.
        dataset_fingerprint: ``ImageDataset.fingerprint`` of the dataset that was split.
    """

    train: Indices
    validation: Indices
    test: Indices
    seed: int
    dataset_fingerprint: str

    def items(self) -> Iterator[tuple[str, Indices]]:
        """Yield name and indices of each part."""
        for name in SPLIT_NAMES:
            yield name, getattr(self, name)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images by part."""
        return {name: len(indices) for name, indices in self.items()}

    def save(self, directory: Path) -> None:
        """Write ``split.npz`` and ``split.json``."""
        np.savez(directory / _FILE, train=self.train, validation=self.validation, test=self.test)
        body = {
            "seed": self.seed,
            "sizes": self.sizes,
            "dataset_fingerprint": self.dataset_fingerprint,
        }
        write_header(directory, _KIND, _VERSION, body, [_FILE])

    @classmethod
    def load(cls, directory: Path) -> "Split":
        """Read a split.

        Raises:
            ArtifactError: It is damaged, incomplete or of another format version.
        """
        body = read_header(directory, _KIND, _VERSION)
        arrays = load_npz(directory / _FILE, SPLIT_NAMES)
        return cls(
            **{name: arrays[name].astype(np.int64) for name in SPLIT_NAMES},
            seed=body["seed"],
            dataset_fingerprint=body["dataset_fingerprint"],
        )


def split_dataset(dataset: ImageDataset, config: SplitConfig) -> Split:
    """Divide a labelled dataset.

    Images with equal pixels stay together. Within each class the groups are ordered by a hash of
    seed and pixels, so neither the source's order nor its file names matter, and an image that is
    added moves few others.

    Raises:
        DataError: Images lack labels, or a class is too small to be in every part.
    """
    if (dataset.labels < 0).any():
        missing = dataset.manifest["source"][dataset.labels < 0].tolist()
        raise DataError(f"{len(missing)} images have no label, such as {missing[0]}.")
    official = _official_parts(dataset) if config.keep_official_test else {}
    by_class: dict[int, list[_Group]] = {n: [] for n in range(len(dataset.class_names))}
    for group in _groups(dataset):
        by_class[group.label].append(group)
    parts: dict[str, list[Indices]] = {name: [] for name in SPLIT_NAMES}
    for label, members in by_class.items():
        name = dataset.class_names[label]
        for part, chosen in _divide(members, name, config, official).items():
            parts[part] += chosen
    joined = {k: np.sort(np.concatenate(v)).astype(np.int64) for k, v in parts.items()}
    return Split(**joined, seed=config.seed, dataset_fingerprint=dataset.fingerprint)


@dataclass(frozen=True)
class _Group:
    """Images that must stay in one part."""

    label: int
    key: str
    indices: Indices


def _groups(dataset: ImageDataset) -> list[_Group]:
    """Group the images by equal pixels; a group of several labels counts for the smallest one."""
    pixels = dataset.manifest["pixels_sha256"]
    labels = dataset.labels
    members = pd.Series(np.arange(len(dataset))).groupby(pixels.to_numpy(), sort=False).indices
    return [
        _Group(int(labels[rows].min()), str(key), np.asarray(rows, dtype=np.int64))
        for key, rows in members.items()
    ]


def _official_parts(dataset: ImageDataset) -> dict[str, set[int]]:
    """Return the images of the source's own test split, if it has one with test images."""
    test = np.flatnonzero((dataset.manifest["official_split"] == "test").to_numpy())
    return {"test": set(test.tolist())} if len(test) else {}


def _divide(
    groups: list[_Group], class_name: str, config: SplitConfig, official: dict[str, set[int]]
) -> dict[str, list[Indices]]:
    """Divide one class; each part gets its share of images, and at least one."""
    ordered = sorted(
        groups, key=lambda g: hashlib.sha256(f"{config.seed}:{g.key}".encode()).digest()
    )
    parts: dict[str, list[Indices]] = {name: [] for name in SPLIT_NAMES}
    if official:
        # A group with an official test image goes to test as a whole: no leakage into training.
        is_test = [not official["test"].isdisjoint(g.indices.tolist()) for g in ordered]
        parts["test"] = [g.indices for g, test in zip(ordered, is_test, strict=True) if test]
        ordered = [g for g, test in zip(ordered, is_test, strict=True) if not test]
    else:
        parts["test"], ordered = _take(ordered, config.test, sum(len(g.indices) for g in ordered))
    remaining = sum(len(g.indices) for g in ordered)
    whole = remaining if official else sum(len(g.indices) for g in groups)
    parts["validation"], ordered = _take(ordered, config.validation, whole)
    parts["train"] = [g.indices for g in ordered]
    empty = [name for name, chosen in parts.items() if not chosen]
    if empty:
        raise DataError(
            f"Class {class_name!r} has {sum(len(g.indices) for g in groups)} images "
            f"({len(groups)} different ones): too few for train, validation and test "
            f"(none left for {', '.join(empty)}). Add images or remove the class."
        )
    return parts


def _take(groups: list[_Group], share: float, n_images: int) -> tuple[list[Indices], list[_Group]]:
    """Take groups from the front until they hold ``share`` of ``n_images``, at least one group."""
    wanted = max(1, round(share * n_images))
    taken: list[Indices] = []
    count = 0
    for position, group in enumerate(groups):
        if count >= wanted:
            return taken, groups[position:]
        taken.append(group.indices)
        count += len(group.indices)
    return taken, []
