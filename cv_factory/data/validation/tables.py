"""The tables that expectations are evaluated on: one row an image, one row a class."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.config.validation import ValidationConfig
from cv_factory.data.image_manifest import get_groups
from cv_factory.data.near_duplicates import has_cross_split_near_duplicate
from cv_factory.data.validation.image_issues import ImageIssue

_VALIDATED_COLUMNS = (
    "id",
    "source",
    "label",
    "pixels_sha256",
    "width",
    "height",
    "brightness",
    "contrast",
    "sharpness",
)


def build_image_table(
    manifest: pd.DataFrame,
    class_names: Sequence[str],
    split: Mapping[str, npt.NDArray[np.int64]],
    config: ValidationConfig,
    issues: Sequence[ImageIssue] | None = None,
) -> pd.DataFrame:
    """Return one row an image: the validated columns of the manifest, and derived ones.

    Those of ``issues`` are there where issues were looked for.
    """
    table = manifest[list(_VALIDATED_COLUMNS)].reset_index(drop=True)
    # Without a label: null. With an unknown one: a name that is no class name.
    names: dict[int, str | None] = {n: f"label {n}" for n in table["label"].unique()}
    names |= {**{n: None for n in names if n < 0}, **dict(enumerate(class_names))}
    table["class_name"] = [names[label] for label in table["label"]]
    numbers = np.full(len(table), -1)  # of the part; -1 in none of them
    for number, positions in enumerate(split.values()):
        numbers[positions] = number
    table["part"] = pd.Series(numbers).map(dict(enumerate(split)))
    pixels = pd.factorize(table["pixels_sha256"])[0]
    table["labels_of_pixels"] = _count_distinct(pixels, table["label"].to_numpy())
    table["parts_of_pixels"] = _count_distinct(pixels, numbers)
    groups = get_groups(manifest).reset_index(drop=True)
    # An image without a group is a group of its own.
    codes = pd.factorize(groups)[0].astype(np.int64)
    alone = (groups == "").to_numpy()
    codes[alone] = len(table) + np.flatnonzero(alone)
    table["parts_of_group"] = _count_distinct(codes, numbers)
    # What can be divided: groups, and different images without one.
    table["unit"] = np.where(alone, len(table) * 2 + pixels, codes)
    table["longer_side"] = table[["width", "height"]].max(axis=1)
    table["shorter_side"] = table[["width", "height"]].min(axis=1)
    table["aspect"] = table["longer_side"] / table["shorter_side"].clip(lower=1)
    table["has_cross_split_near_duplicate"] = 0
    if "perceptual_hash" in manifest.columns and len(table):
        hashes = manifest["perceptual_hash"].to_numpy()
        near = has_cross_split_near_duplicate(hashes, numbers + 1, config.near_duplicate_bits)
        table["has_cross_split_near_duplicate"] = near.astype(np.int64)
    if issues is not None:
        suspicious = [issue.index for issue in issues if issue.kind == "label"]
        similar = [(i.index, i.other_index) for i in issues if i.is_across_parts]
        table["label_issue_rank"] = _rank(suspicious, len(table))
        table["similar_pair_rank"] = _rank([n for pair in similar for n in pair], len(table))
    return table


def _rank(rows: Sequence[int], n: int) -> npt.NDArray[np.int64]:
    """Return the place of each row among those listed, from 1 on; 0 for the others."""
    ranks = np.zeros(n, np.int64)
    # Backwards, so that the first place of a row that is listed twice is written last.
    ranks[list(rows)[::-1]] = np.arange(len(rows), 0, -1)
    return ranks


def find_official_parts(
    manifest: pd.DataFrame, split: Mapping[str, npt.NDArray[np.int64]]
) -> frozenset[str]:
    """Return the parts that hold all images of the source's own part of that name."""
    official = manifest["official_split"].to_numpy()
    own = {part: np.flatnonzero(official == part) for part in split}
    return frozenset(
        part for part, rows in own.items() if len(rows) and np.isin(rows, split[part]).all()
    )


def _count_distinct(
    set_of_row: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the number of distinct values >= 0 in the set of each row, int64 ``(N,)``."""
    rows = np.flatnonzero(values >= 0)
    n_values = int(values.max(initial=0)) + 1
    # Hashed, not sorted: each pair of set and value counts once.
    pairs = pd.unique(set_of_row[rows] * n_values + values[rows])
    counts = np.bincount(pairs // n_values, minlength=int(set_of_row.max(initial=-1)) + 1)
    result: npt.NDArray[np.int64] = counts[set_of_row]
    return result


def build_class_table(
    images: pd.DataFrame, class_names: Sequence[str], split: Mapping[str, npt.NDArray[np.int64]]
) -> pd.DataFrame:
    """Return one row a class: its images, in all and in each part of the split.

    Column ``units`` counts what can be divided: groups, and different images without one.
    """
    labeled = images[images["class_name"].isin(list(class_names))]
    counts = labeled["class_name"].value_counts()
    table = pd.DataFrame({"class_name": list(class_names)}, dtype="object")
    table["images"] = [int(counts.get(name, 0)) for name in class_names]
    for part in split:
        inside = labeled.loc[labeled["part"] == part, "class_name"].value_counts()
        table[part] = [int(inside.get(name, 0)) for name in class_names]
    units = labeled.groupby("class_name")["unit"].nunique()
    table["units"] = [int(units.get(name, 0)) for name in class_names]
    table["smallest_part"] = table[list(split)].min(axis=1) if split else table["images"]
    largest = int(table["images"].max()) if len(table) else 0
    table["imbalance"] = largest / table["images"].clip(lower=1)
    return table
