"""Rules for a dataset and its split: one per expectation, with its limits."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.config.validation import ValidationConfig
from cv_factory.data.bit_depth import StoredValues
from cv_factory.data.validation.report import Severity
from cv_factory.reporting.numbers import format_beside_limit, format_count, format_share

BETWEEN = "ExpectColumnValuesToBeBetween"

_MAX_LISTED_CLASSES = 100


@dataclass(frozen=True)
class Rule:
    """An expectation and its wording in the report.

    Attributes:
        name: Its name in the report.
        severity: What its failure means.
        message: What it demands.
        limit: What is allowed.
        kind: Name of the Great Expectations class.
        arguments: What that class takes.
        observed: What was found, where the count of offending rows does not say it.
        remedy: What its failure can be answered with, beside other images or limits.
        worst_rows: The offending rows in their order, where they have one; else the table's counts.
    """

    name: str
    severity: Severity
    message: str
    limit: str
    kind: str
    arguments: Mapping[str, Any]
    observed: str | None = None
    remedy: str = ""
    worst_rows: Sequence[int] = ()


def apply_severities(rules: Sequence[Rule], config: ValidationConfig) -> list[Rule]:
    """Return the rules with their configured severities, without those that are off."""
    configured: Mapping[str, str] = {str(k): v for k, v in config.severity.items()}
    enabled = [rule for rule in rules if configured.get(rule.name) != "off"]
    return [
        replace(rule, severity="error" if configured.get(rule.name, rule.severity) == "error"
               else "warning")
        for rule in enabled
    ]  # fmt: skip


def build_image_rules(
    images: pd.DataFrame, class_names: Sequence[str], config: ValidationConfig
) -> list[Rule]:
    """Return the rules for the table of images."""
    return [
        *_build_identity_rules(images, class_names, config),
        *_build_appearance_rules(images, config),
        *(_build_issue_rules(images, config) if "label_issue_rank" in images else ()),
    ]


def _build_identity_rules(
    images: pd.DataFrame, class_names: Sequence[str], config: ValidationConfig
) -> list[Rule]:
    """Return rules on ids, labels and leakage between the parts of the split."""
    not_null = "ExpectColumnValuesToNotBeNull"
    return [
        Rule("ids_present", "error", "Every image has an id.", "none without",
             not_null, {"column": "id"}),
        Rule("ids_unique", "error", "No two images have the same id.", "none repeated",
             "ExpectColumnValuesToBeUnique", {"column": "id"},
             remedy="Remove repeated rows, or name the column that tells the images apart, such as "
             "--set data.manifest.columns.id=COLUMN."),
        Rule("sources_present", "error", "Every image says where it was read from.",
             "none without", not_null, {"column": "source"}),
        Rule("labels_present", "error", "Every image has a label.", "none without",
             not_null, {"column": "class_name"}),
        Rule("labels_known", "error", "Every label is one of the class names.",
             f"{len(class_names)} classes", "ExpectColumnValuesToBeInSet",
             {"column": "class_name", "value_set": list(class_names)}),
        Rule("min_images", "error", "There are enough images.", f"at least {config.min_images:,}",
             "ExpectTableRowCountToBeBetween", {"min_value": config.min_images},
             f"{len(images):,} images"),
        Rule("no_leakage", "error", "No two parts of the split hold the same pixels.",
             "none shared", BETWEEN, {"column": "parts_of_pixels", "max_value": 1}),
        Rule("no_group_leakage", "error", "No group has images in two parts of the split.",
             "none shared", BETWEEN, {"column": "parts_of_group", "max_value": 1}),
        Rule("near_duplicates", "warning", "Few images look like an image of another part.",
             f"at most {format_share(config.max_near_duplicate_share)}", BETWEEN,
             {"column": "has_cross_split_near_duplicate", "max_value": 0,
              "mostly": _complement(config.max_near_duplicate_share)},
             format_beside_limit(_mean(images["has_cross_split_near_duplicate"]),
                                 config.max_near_duplicate_share)),
    ]  # fmt: skip


def _build_appearance_rules(images: pd.DataFrame, config: ValidationConfig) -> list[Rule]:
    """Return rules on size, brightness, contrast, sharpness and duplicates."""
    low, high = config.brightness
    duplicated = images["pixels_sha256"].duplicated(keep=False)
    values = images["brightness"]
    share = format_beside_limit(_mean(duplicated), config.max_duplicate_share)
    return [
        *(Rule(name, "warning", f"The {name} of every image is usual (0 to 1).",
               f"{limits[0]:g} to {limits[1]:g}", BETWEEN,
               {"column": name, "min_value": limits[0], "max_value": limits[1]},
               _describe_range(images[name], limits))
          for name, limits in (("contrast", config.contrast), ("sharpness", config.sharpness))),
        Rule("image_side", "warning", "The originals are neither tiny nor huge (pixels a side).",
             f"{config.side[0]:,} to {config.side[1]:,}", BETWEEN,
             {"column": "shorter_side", "min_value": config.side[0], "max_value": config.side[1]},
             _describe_range(images["shorter_side"], config.side)),
        Rule("image_aspect", "warning", "The originals are no slivers (longer / shorter side).",
             f"at most {config.max_aspect_ratio:g}", BETWEEN,
             {"column": "aspect", "max_value": config.max_aspect_ratio},
             _describe_range(images["aspect"], (0.0, config.max_aspect_ratio))),
        Rule("label_conflicts", "warning", "Images with the same pixels have the same label.",
             "none differing", BETWEEN, {"column": "labels_of_pixels", "max_value": 1}),
        Rule("duplicate_pixels", "warning", "Few images stand in the dataset twice.",
             f"at most {format_share(config.max_duplicate_share)}", "ExpectColumnValuesToBeUnique",
             {"column": "pixels_sha256", "mostly": _complement(config.max_duplicate_share)},
             f"{share} ({duplicated.sum():,} images)"),
        Rule("brightness", "warning", "No image is all but black or white (mean brightness).",
             f"{low:g} to {high:g}", BETWEEN,
             {"column": "brightness", "min_value": low, "max_value": high},
             _describe_range(values, (low, high))),
    ]  # fmt: skip


def _build_issue_rules(images: pd.DataFrame, config: ValidationConfig) -> list[Rule]:
    """Return rules on what a backbone's features say against labels and parts."""
    return [
        Rule(name, "warning", message, f"at most {format_share(limit)}", BETWEEN,
             {"column": column, "max_value": 0, "mostly": _complement(limit)},
             format_beside_limit(_mean(images[column] > 0), limit), remedy=remedy,
             worst_rows=_sort_ranked(images[column].to_numpy()))
        for name, column, limit, message, remedy in (
            ("suspicious_labels", "label_issue_rank", config.max_suspicious_label_share,
             "Few labels are doubtful by a backbone's features.",
             "List them: python run.py labels suspicious --out FILE"),
            ("similar_across_parts", "similar_pair_rank", config.max_similar_share,
             "Few images are near duplicates, by a backbone's features, of one in another part.",
             "Give near duplicates one group, or remove one of each pair."),
        )
    ]  # fmt: skip


def _sort_ranked(ranks: npt.NDArray[np.int64]) -> list[int]:
    """Return the rows that have a rank, from 1 on, in its order."""
    rows = np.flatnonzero(ranks)
    ordered: list[int] = rows[np.argsort(ranks[rows])].tolist()
    return ordered


def _complement(share: float) -> float:
    """Return 1 - share without the last bits, by which 1 - 0.83 is more than 0.17."""
    return round(1.0 - share, 12)


def _mean(values: "pd.Series[Any]") -> float:
    return float(values.mean()) if len(values) else 0.0


def _describe_range(values: "pd.Series[Any]", limits: Sequence[float]) -> str:
    if not len(values):
        return "no images"
    low, high = (
        format_beside_limit(float(value), limit, ".3g")
        for value, limit in zip((values.min(), values.max()), limits, strict=True)
    )
    return f"{low} to {high}"


def build_class_rules(
    classes: pd.DataFrame,
    split: Mapping[str, npt.NDArray[np.int64]],
    config: ValidationConfig,
    official_parts: Collection[str] = (),
) -> list[Rule]:
    """Return the rules for the table of classes; ``official_parts`` are the source's own."""
    most = float(classes["imbalance"].max()) if len(classes) else 1.0
    small = classes[classes["images"] < config.min_images_per_class]
    drop = f"--set data.drop_classes_below={max(config.min_images_per_class, len(split))}"
    return [
        Rule("min_images_per_class", "error", "Every class has enough images.",
             f"at least {config.min_images_per_class:,}", BETWEEN,
             {"column": "images", "min_value": config.min_images_per_class},
             _list_classes(small) if len(small) else _describe_smallest_class(classes, "images"),
             f"Add images, leave these classes out ({drop}), or lower "
             "validation.min_images_per_class."),
        Rule("parts_hold_every_class", "error",
             f"Every class has images in {', '.join(split) or 'the dataset'}.",
             "at least 1 in each", BETWEEN, {"column": "smallest_part", "min_value": 1},
             _describe_missing(classes, split, official_parts)
             or _describe_smallest_class(classes, "smallest_part"),
             "Add images of these classes to the parts that lack them, or divide all images anew "
             "(--set split.keep_official_test=false)." if official_parts else
             f"A class needs {len(split)} images that differ and are of different groups: add "
             f"images, or leave small classes out ({drop})."),
        Rule("class_imbalance", "warning", "No class is much smaller than the largest one.",
             f"at most 1 : {config.max_class_imbalance:g}", BETWEEN,
             {"column": "imbalance", "max_value": config.max_class_imbalance},
             f"1 : {format_beside_limit(most, config.max_class_imbalance, '.3g')}"),
    ]  # fmt: skip


def build_value_rules(values: StoredValues) -> tuple[pd.DataFrame, list[Rule]]:
    """Return the table of what is stored in images of more than 8 bits, and the rules for it."""
    name = f"{values.n_images:,} images of more than 8 bits"
    is_inside = values.black <= values.low and values.high <= values.white
    table = pd.DataFrame(
        {"name": [name], "share": [values.share], "is_inside": ["yes" if is_inside else "no"]}
    )
    allowed = f"{values.black:,.6g} to {values.white:,.6g}"
    observed = f"{values.low:,.6g} to {values.high:,.6g} in {name}"
    return table, [
        Rule("values_fill_range", "warning",
             "Images of more than 8 bits use most of the values between black and white; else few "
             "of 256 levels are left.",
             f"at least half of {allowed}", BETWEEN, {"column": "share", "min_value": 0.5},
             observed, _suggest_range(values)),
        Rule("values_inside_range", "warning",
             "The values of images of more than 8 bits lie inside data.value_range; those outside "
             "become black or white.",
             allowed, "ExpectColumnValuesToBeInSet",
             {"column": "is_inside", "value_set": ["yes"]}, observed),
    ]  # fmt: skip


def _suggest_range(values: StoredValues) -> str:
    """Return the setting for the bits that the values have (12: ``[0,4095]``) or their range."""
    if values.low == values.high:
        return ""
    black, white = values.low, values.high
    full = 2.0 ** math.ceil(math.log2(max(white, 0.0) + 1.0)) - 1.0
    if black >= 0.0 and white - black > 0.5 * full:
        black, white = 0.0, full
    return f"To keep them: --set 'data.value_range=[{black:.10g},{white:.10g}]'."


def _describe_missing(
    classes: pd.DataFrame,
    split: Mapping[str, npt.NDArray[np.int64]],
    official_parts: Collection[str],
) -> str:
    """Return which part lacks which classes; empty where none does."""
    missing = {part: classes[classes[part] == 0] for part in split}
    return "; ".join(
        f"no image in {f'the official {part} part' if part in official_parts else part} of "
        f"{_list_classes(lacking)}"
        for part, lacking in missing.items()
        if len(lacking)
    )


def _list_classes(classes: pd.DataFrame) -> str:
    """Return names and sizes of classes, the smallest first."""
    listed = classes.sort_values("images", kind="stable").head(_MAX_LISTED_CLASSES)
    names = [
        f"{name} ({format_count(images, 'image')}"
        + (f", {units:,} that can be divided)" if units < min(images, 3) else ")")
        for name, images, units in zip(
            listed["class_name"], listed["images"], listed["units"], strict=True
        )
    ]
    more = len(classes) - len(listed)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


def _describe_smallest_class(classes: pd.DataFrame, column: str) -> str:
    """Return the number and name of the smallest class, such as ``174 (eight)``."""
    if not len(classes):
        return "no classes"
    row = classes.loc[classes[column].idxmin()]
    return f"{row[column]:,} ({row['class_name']})"
