"""Train, validation and test: stratified, seeded, and blind to the order of the source."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.artifacts.arrays import load_npz
from cv_factory.artifacts.artifact import Artifact
from cv_factory.data.additional_images import ORIGIN, count_original_images
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.image_manifest import CHUNK, get_groups
from cv_factory.errors import DataError

if TYPE_CHECKING:
    from cv_factory.config.split import SplitConfig

SPLIT_NAMES = ("train", "validation", "test")

_FILE = "split.npz"
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split(Artifact):
    """Sorted, disjoint index arrays int64 over one ImageDataset.

    Attributes:
        train: What transforms and models are fitted on.
        validation: What epochs, candidates, calibration and thresholds are chosen on.
        test: What the exported predictor is measured on, and nothing is chosen on.
        seed: The seed the split was drawn with.
        dataset_fingerprint: ``ImageDataset.fingerprint`` of the dataset that was split.
    """

    KIND: ClassVar[str] = "split"

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

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        np.savez(directory / _FILE, train=self.train, validation=self.validation, test=self.test)
        return {_FILE: None}

    def _header(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "sizes": self.sizes,
            "dataset_fingerprint": self.dataset_fingerprint,
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        arrays = load_npz(directory / _FILE, SPLIT_NAMES)
        return cls(
            train=arrays["train"].astype(np.int64),
            validation=arrays["validation"].astype(np.int64),
            test=arrays["test"].astype(np.int64),
            seed=body["seed"],
            dataset_fingerprint=body["dataset_fingerprint"],
        )


def split_dataset(dataset: ImageDataset, config: "SplitConfig") -> Split:
    """Divide a labelled dataset.

    Images with equal pixels, or of one group, stay together. Within each class what stays together
    is ordered by a hash of the seed and of its pixels (or group), so neither the source's order nor
    its file names matter, and an image that is added moves few others. A part's size is met to
    within half of the largest such set in each class.

    Images that were added to the dataset change nothing of this: they lie in the part that their
    source says, or else in train.

    Images without a label are in no part, and a class that is too small is not in every part:
    ``validate_dataset`` reports and refuses both.

    Raises:
        DataError: A part is to have more images than there are.
    """
    n_original = count_original_images(dataset)
    if n_original < len(dataset):
        return _place_additional(dataset, n_original, config)
    leakage_groups = _build_leakage_groups(dataset, config.seed)
    official = _official_parts(dataset, leakage_groups) if config.keep_official_test else {}
    sizes = {name: getattr(config, name) for name in ("test", "validation")}
    quotas = _compute_quotas(dataset, leakage_groups, official, sizes)
    part_of_group = np.zeros(len(leakage_groups.labels), dtype=np.int8)
    for label in range(len(dataset.class_names)):
        members = np.flatnonzero(leakage_groups.labels == label)
        class_quotas = {part: int(counts[label]) for part, counts in quotas.items()}
        part_of_group[members] = _divide(members, leakage_groups, official, class_quotas)
    part_of_image = part_of_group[leakage_groups.by_image]
    part_of_image[dataset.labels < 0] = -1
    parts = {n: np.flatnonzero(part_of_image == k) for k, n in enumerate(SPLIT_NAMES)}
    return Split(**parts, seed=config.seed, dataset_fingerprint=dataset.fingerprint)


def _place_additional(dataset: ImageDataset, n_original: int, config: "SplitConfig") -> Split:
    original = replace(
        dataset,
        images=dataset.images[:n_original],
        manifest=dataset.manifest.iloc[:n_original].drop(columns=ORIGIN),
        backing=None,
    )
    drawn = split_dataset(original, config)
    official = dataset.manifest["official_split"].iloc[n_original:].to_numpy()
    is_labeled = dataset.labels[n_original:] >= 0
    parts = {}
    for name, indices in drawn.items():
        is_inside = official == name
        if name == "train":
            is_inside |= ~np.isin(official, SPLIT_NAMES)
        parts[name] = np.append(indices, n_original + np.flatnonzero(is_inside & is_labeled))
    return Split(**parts, seed=config.seed, dataset_fingerprint=dataset.fingerprint)


def get_leakage_groups(dataset: ImageDataset) -> Indices:
    """Return a number int64 ``(N,)`` for each image: equal where images must stay in one part."""
    return _build_leakage_groups(dataset, 0).by_image


@dataclass(frozen=True)
class _LeakageGroups:
    """Sets of images that must stay in one part.

    Attributes:
        by_image: The group of each image, int64 ``(N,)``.
        labels: The label that a group counts for, int64 ``(F,)``: where it holds several, the one
            of which it holds the largest share. The number of classes stands for no label.
        sizes: Images of each group, int64 ``(F,)``.
        order: Seeded hash that orders the groups, uint64 ``(F,)``.
    """

    by_image: Indices
    labels: Indices
    sizes: Indices
    order: npt.NDArray[np.uint64]


def _build_leakage_groups(dataset: ImageDataset, seed: int) -> _LeakageGroups:
    """Find what must stay together: equal pixels and equal groups, also through each other."""
    pixels, unique_pixels = pd.factorize(dataset.manifest["pixels_sha256"])
    groups = get_groups(dataset.manifest)
    grouped = np.flatnonzero((groups != "").to_numpy())
    by_image = pixels.astype(np.int64)
    if len(grouped):
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        group, names = pd.factorize(groups.iloc[grouped])
        size = len(unique_pixels) + len(names)
        edges = (pixels[grouped], len(unique_pixels) + group)
        graph = coo_matrix((np.ones(len(grouped), np.int8), edges), shape=(size, size))
        by_image = connected_components(graph, directed=False)[1][pixels].astype(np.int64)
        # Numbered anew: groups were nodes of the graph, too.
        by_image = np.unique(by_image, return_inverse=True)[1].astype(np.int64)
    n_classes = len(dataset.class_names)
    labels = np.where(dataset.labels < 0, n_classes, dataset.labels)
    return _LeakageGroups(
        by_image=by_image,
        labels=_choose_group_labels(by_image, labels, n_classes + 1),
        sizes=np.bincount(by_image).astype(np.int64),
        order=_hashes(dataset, by_image, grouped, groups, seed),
    )


def _choose_group_labels(by_image: Indices, labels: Indices, n_classes: int) -> Indices:
    """Return the label of which each group holds the largest share, the smallest one of equals."""
    pairs, counts = np.unique(by_image * n_classes + labels, return_counts=True)
    group, label = np.divmod(pairs, n_classes)
    shares = counts / np.bincount(labels, minlength=n_classes)[label]
    best = np.lexsort((label, -shares, group))
    first = best[np.unique(group[best], return_index=True)[1]]
    group_labels: Indices = label[first].astype(np.int64)
    return group_labels


def _hashes(
    dataset: ImageDataset,
    by_image: Indices,
    grouped: Indices,
    groups: "pd.Series[str]",
    seed: int,
) -> npt.NDArray[np.uint64]:
    """Hash each leakage group by its first group's name, or by its pixels where it has no group."""
    first_image = np.unique(by_image, return_index=True)[1]
    order = np.empty(len(first_image), dtype=np.uint64)
    for start in range(0, len(first_image), CHUNK):
        part = first_image[start : start + CHUNK]
        keys = dataset.manifest["pixels_sha256"].iloc[part].to_list()
        order[start : start + CHUNK] = [_hash(seed, key) for key in keys]
    if len(grouped):
        names = groups.iloc[grouped].groupby(by_image[grouped]).min()
        order[names.index.to_numpy()] = [_hash(seed, f"group {name}") for name in names]
    return order


def _hash(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")


def _official_parts(
    dataset: ImageDataset, leakage_groups: _LeakageGroups
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which leakage groups lie in the source's own test and validation parts, if any.

    A group with an official test image goes to test as a whole: no leakage into training.
    """
    parts: dict[str, npt.NDArray[np.bool_]] = {}
    is_assigned = np.zeros(len(leakage_groups.labels), dtype=bool)
    for name in ("test", "validation"):
        images = (dataset.manifest["official_split"] == name).to_numpy()
        if images.any():
            inside = np.zeros(len(leakage_groups.labels), dtype=bool)
            inside[leakage_groups.by_image[images]] = True
            parts[name] = inside & ~is_assigned
            is_assigned |= inside
    return parts


def _compute_quotas(
    dataset: ImageDataset,
    leakage_groups: _LeakageGroups,
    official: Mapping[str, npt.NDArray[np.bool_]],
    sizes: Mapping[str, float | int],
) -> dict[str, Indices]:
    """Return how many images of each class each drawn part is to have, at least one of each."""
    free = np.ones(len(leakage_groups.labels), dtype=bool)
    for inside in official.values():
        free &= ~inside
    n_classes = len(dataset.class_names)
    weights = leakage_groups.sizes[free].astype(np.float64)
    counts = np.bincount(leakage_groups.labels[free], weights, n_classes)
    available = counts[:n_classes].astype(np.float64)
    quotas = {}
    for name, size in sizes.items():
        if name in official:
            continue
        if isinstance(size, int) and size >= available.sum():
            raise DataError(
                f"split.{name} asks for {size} images; there are {int(available.sum())} to divide."
            )
        exact = available * size if isinstance(size, float) else _shared(size, available)
        quotas[name] = np.maximum(1, np.rint(exact)).astype(np.int64)
    return quotas


def _shared(count: int, available: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share a count among classes in proportion, at least one each, to whole numbers of its sum."""
    least = (available > 0).astype(np.float64)
    rest = max(0.0, count - least.sum())
    exact = rest * (available - least) / max(1.0, (available - least).sum())
    shares: npt.NDArray[np.float64] = np.floor(exact)
    largest = np.argsort(shares - exact, kind="stable")
    shares[largest[: int(rest - shares.sum())]] += 1
    return shares + least


def _divide(
    members: Indices,
    leakage_groups: _LeakageGroups,
    official: Mapping[str, npt.NDArray[np.bool_]],
    quotas: Mapping[str, int],
) -> npt.NDArray[np.int8]:
    """Return the part (its place in ``SPLIT_NAMES``) of each of one class's leakage groups."""
    parts = np.zeros(len(members), dtype=np.int8)
    for name, inside in official.items():
        parts[inside[members]] = SPLIT_NAMES.index(name)
    free = np.flatnonzero(parts == 0)
    free = free[np.argsort(leakage_groups.order[members[free]], kind="stable")]
    for name, quota in quotas.items():
        counts = np.cumsum(leakage_groups.sizes[members[free]])
        if not len(counts):
            break
        n_taken = int(np.abs(counts - quota).argmin()) + 1
        parts[free[:n_taken]] = SPLIT_NAMES.index(name)
        free = free[n_taken:]
    return parts
