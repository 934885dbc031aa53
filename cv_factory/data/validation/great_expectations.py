"""Decides whether a dataset is fit to train on: expectations over its manifest and its split.

Great Expectations evaluates each of them; what is specific to images and splits is prepared as
columns beforehand. Looks at the manifest alone and reads no pixels.
"""

import base64
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.config.validation import ValidationConfig
from cv_factory.data.manifest import groups_of
from cv_factory.data.near_duplicates import near_in_another_part
from cv_factory.data.validation.report import DataReport, ExpectationResult, Severity
from cv_factory.errors import DataError

if TYPE_CHECKING:
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation

_LISTED = 20
_THUMBNAILS = 10
_THUMBNAIL_SIDE = 96
_JUDGED = (
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


@dataclass(frozen=True)
class _Rule:
    """An expectation, with how it is told to people.

    Attributes:
        name: Its name in the report.
        severity: What its failure means.
        message: What it demands.
        limit: What is allowed.
        kind: Name of the Great Expectations class.
        arguments: What that class takes.
        observed: What was found, where the count of offending rows does not say it.
    """

    name: str
    severity: Severity
    message: str
    limit: str
    kind: str
    arguments: Mapping[str, Any]
    observed: str | None = None


def validate_dataset(
    manifest: pd.DataFrame,
    *,
    class_names: Sequence[str],
    split: Mapping[str, npt.NDArray[np.int64]],
    config: ValidationConfig,
    unreadable: Sequence[tuple[str, str]] = (),
    images: npt.NDArray[np.uint8] | None = None,
    reference: "Reference | None" = None,
) -> DataReport:
    """Check a dataset and its split against all expectations.

    Args:
        manifest: One row per image, with the columns of ``ImageDataset.manifest``.
        class_names: Name of each label.
        split: Row positions int64 of each part.
        config: The limits.
        unreadable: Source and reason of images that were left out; reported, not judged.
        images: uint8 ``(N, H, W, C)``, for thumbnails of offending images; none without it.
        reference: An earlier dataset that this one should be like.

    Raises:
        DataError: Great Expectations could not evaluate an expectation.
    """
    table = _images_table(manifest, class_names, split, config)
    classes = _classes_table(table, class_names, split)
    image_rules = _image_rules(table, class_names, config)
    class_rules = _class_rules(classes, split, config)
    results = [
        *_evaluate(table, _as_configured(image_rules, config), _image_names(table)),
        *_evaluate(classes, _as_configured(class_rules, config), classes["class_name"]),
    ]
    if reference is not None:
        shifts, rules = _against(reference, manifest, classes, config)
        results += _evaluate(shifts, _as_configured(rules, config), shifts["name"])
    return DataReport(
        expectations=tuple(results),
        n_images=len(table),
        class_counts=_counts(classes, "images"),
        split_counts={part: _counts(classes, part) for part in split},
        unreadable=tuple((source, reason) for source, reason in unreadable),
        thumbnails={} if images is None else _thumbnails(results, manifest["id"], images),
    )


def _as_configured(rules: Sequence[_Rule], config: ValidationConfig) -> list[_Rule]:
    """Give the rules the configured severities; leave out those that are off."""
    chosen: Mapping[str, str] = {str(k): v for k, v in config.severity.items()}
    kept = [rule for rule in rules if chosen.get(rule.name) != "off"]
    return [
        replace(rule, severity="error" if chosen.get(rule.name, rule.severity) == "error"
                else "warning")
        for rule in kept
    ]  # fmt: skip


def _thumbnails(
    results: Sequence[ExpectationResult],
    ids: "pd.Series[Any]",
    images: npt.NDArray[np.uint8],
) -> dict[str, str]:
    """Return PNGs (base64) of the first offending images of each expectation, by id."""
    wanted = {
        name
        for result in results
        if not result.success
        for name in result.offending_ids[:_THUMBNAILS]
    }
    positions = np.flatnonzero(ids.isin(sorted(wanted)).to_numpy(dtype=bool))
    return {str(ids.iloc[position]): _thumbnail(images[position]) for position in positions}


def _thumbnail(pixels: npt.NDArray[np.uint8]) -> str:
    """Encode one image, at most 96 pixels a side, as a PNG in base64."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _images_table(
    manifest: pd.DataFrame,
    class_names: Sequence[str],
    split: Mapping[str, npt.NDArray[np.int64]],
    config: ValidationConfig,
) -> pd.DataFrame:
    """Return the manifest's columns that are judged, with what is known of each image beside."""
    table = manifest[list(_JUDGED)].reset_index(drop=True)
    # Without a label: null. With an unknown one: a name that is no class name.
    names: dict[int, str | None] = {n: f"label {n}" for n in table["label"].unique()}
    names |= {**{n: None for n in names if n < 0}, **dict(enumerate(class_names))}
    table["class_name"] = [names[label] for label in table["label"]]
    numbers = np.full(len(table), -1)  # of the part; -1 in none of them
    for number, positions in enumerate(split.values()):
        numbers[positions] = number
    table["part"] = pd.Series(numbers).map(dict(enumerate(split)))
    pixels = pd.factorize(table["pixels_sha256"])[0]
    table["labels_of_pixels"] = _distinct(pixels, table["label"].to_numpy())
    table["parts_of_pixels"] = _distinct(pixels, numbers)
    groups = groups_of(manifest).reset_index(drop=True)
    # An image without a group is a group of its own.
    codes = pd.factorize(groups)[0].astype(np.int64)
    alone = (groups == "").to_numpy()
    codes[alone] = len(table) + np.flatnonzero(alone)
    table["parts_of_group"] = _distinct(codes, numbers)
    table["longer_side"] = table[["width", "height"]].max(axis=1)
    table["shorter_side"] = table[["width", "height"]].min(axis=1)
    table["aspect"] = table["longer_side"] / table["shorter_side"].clip(lower=1)
    table["looks_elsewhere"] = 0
    if "perceptual_hash" in manifest.columns and len(table):
        hashes = manifest["perceptual_hash"].to_numpy()
        near = near_in_another_part(hashes, numbers + 1, config.near_duplicate_bits)
        table["looks_elsewhere"] = near.astype(np.int64)
    return table


def _distinct(
    of_row: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return, for each row, how many distinct values >= 0 its set of rows holds."""
    rows = np.flatnonzero(values >= 0)
    n_values = int(values.max(initial=0)) + 1
    # Hashed, not sorted: each pair of set and value counts once.
    pairs = pd.unique(of_row[rows] * n_values + values[rows])
    counts = np.bincount(pairs // n_values, minlength=int(of_row.max(initial=-1)) + 1)
    result: npt.NDArray[np.int64] = counts[of_row]
    return result


@dataclass(frozen=True)
class Reference:
    """An earlier dataset, to compare with: its manifest and the names of its labels."""

    manifest: pd.DataFrame
    class_names: Sequence[str]


def _against(
    reference: Reference, manifest: pd.DataFrame, classes: pd.DataFrame, config: ValidationConfig
) -> tuple[pd.DataFrame, list[_Rule]]:
    """Return how far the dataset lies from the reference, and what is expected of that."""
    before = reference.manifest
    rows = []
    for name in ("brightness", "contrast", "sharpness"):
        spread = max(float(before[name].std()), 1e-6)
        shift = abs(float(manifest[name].mean()) - float(before[name].mean())) / spread
        rows.append({"name": name, "statistic": shift, "share": 0.0, "known": "yes"})
    counts = np.bincount(before["label"].to_numpy().clip(0), minlength=len(reference.class_names))
    shares = dict(zip(reference.class_names, counts / max(1, counts.sum()), strict=False))
    total = max(1, int(classes["images"].sum()))
    for name, images in zip(classes["class_name"], classes["images"], strict=True):
        shift = abs(images / total - shares.get(name, 0.0))
        known = "yes" if name in shares else "no"
        rows.append({"name": name, "statistic": 0.0, "share": shift, "known": known})
    between = "ExpectColumnValuesToBeBetween"
    table = pd.DataFrame(rows)
    return table, [
        _Rule("labels_as_reference", "error", "Every class is one that the reference has.",
              f"{len(shares)} classes", "ExpectColumnValuesToBeInSet",
              {"column": "known", "value_set": ["yes"]}),
        _Rule("statistics_as_reference", "warning",
              "Mean brightness, contrast and sharpness are near the reference's.",
              f"{config.max_reference_shift:g} standard deviations", between,
              {"column": "statistic", "max_value": config.max_reference_shift},
              f"at most {table['statistic'].max():.2g}"),
        _Rule("class_shares_as_reference", "warning", "Class shares are near the reference's.",
              f"{config.max_class_share_shift:.1%} apart", between,
              {"column": "share", "max_value": config.max_class_share_shift},
              f"at most {table['share'].max():.1%}"),
    ]  # fmt: skip


def _classes_table(
    images: pd.DataFrame, class_names: Sequence[str], split: Mapping[str, npt.NDArray[np.int64]]
) -> pd.DataFrame:
    """Return one row a class: its images, in all and in each part of the split."""
    known = images[images["class_name"].isin(list(class_names))]
    counts = known["class_name"].value_counts()
    table = pd.DataFrame({"class_name": list(class_names)}, dtype="object")
    table["images"] = [int(counts.get(name, 0)) for name in class_names]
    for part in split:
        inside = known.loc[known["part"] == part, "class_name"].value_counts()
        table[part] = [int(inside.get(name, 0)) for name in class_names]
    table["smallest_part"] = table[list(split)].min(axis=1) if split else table["images"]
    largest = int(table["images"].max()) if len(table) else 0
    table["imbalance"] = largest / table["images"].clip(lower=1)
    return table


def _image_rules(
    images: pd.DataFrame, class_names: Sequence[str], config: ValidationConfig
) -> list[_Rule]:
    return [*_identity_rules(images, class_names, config), *_look_rules(images, config)]


def _identity_rules(
    images: pd.DataFrame, class_names: Sequence[str], config: ValidationConfig
) -> list[_Rule]:
    """What every image is called and labelled, and that it stands in one part only."""
    not_null, between = "ExpectColumnValuesToNotBeNull", "ExpectColumnValuesToBeBetween"
    return [
        _Rule("ids_present", "error", "Every image has an id.", "none without",
              not_null, {"column": "id"}),
        _Rule("ids_unique", "error", "No two images have the same id.", "none repeated",
              "ExpectColumnValuesToBeUnique", {"column": "id"}),
        _Rule("sources_present", "error", "Every image says where it was read from.",
              "none without", not_null, {"column": "source"}),
        _Rule("labels_present", "error", "Every image has a label.", "none without",
              not_null, {"column": "class_name"}),
        _Rule("labels_known", "error", "Every label is one of the class names.",
              f"{len(class_names)} classes", "ExpectColumnValuesToBeInSet",
              {"column": "class_name", "value_set": list(class_names)}),
        _Rule("min_images", "error", "There are enough images.", f"at least {config.min_images:,}",
              "ExpectTableRowCountToBeBetween", {"min_value": config.min_images},
              f"{len(images):,} images"),
        _Rule("no_leakage", "error", "No two parts of the split hold the same pixels.",
              "none shared", between, {"column": "parts_of_pixels", "max_value": 1}),
        _Rule("no_group_leakage", "error", "No group has images in two parts of the split.",
              "none shared", between, {"column": "parts_of_group", "max_value": 1}),
        _Rule("near_duplicates", "warning", "Few images look like an image of another part.",
              f"at most {config.max_near_duplicate_share:.1%}", between,
              {"column": "looks_elsewhere", "max_value": 0,
               "mostly": 1.0 - config.max_near_duplicate_share},
              f"{images['looks_elsewhere'].mean() if len(images) else 0:.1%}"),
    ]  # fmt: skip


def _look_rules(images: pd.DataFrame, config: ValidationConfig) -> list[_Rule]:
    """How the images look, and whether the same picture stands there twice."""
    low, high = config.brightness
    duplicated = images["pixels_sha256"].duplicated(keep=False)
    values = images["brightness"]
    darkest = f"{values.min():.3f} to {values.max():.3f}" if len(values) else "no images"
    between = "ExpectColumnValuesToBeBetween"
    return [
        *(_Rule(name, "warning", f"The {name} of every image is usual (0 to 1).",
                f"{limits[0]:g} to {limits[1]:g}", between,
                {"column": name, "min_value": limits[0], "max_value": limits[1]},
                _range(images[name]))
          for name, limits in (("contrast", config.contrast), ("sharpness", config.sharpness))),
        _Rule("image_side", "warning", "The originals are neither tiny nor huge (pixels a side).",
              f"{config.side[0]:,} to {config.side[1]:,}", between,
              {"column": "shorter_side", "min_value": config.side[0], "max_value": config.side[1]},
              _range(images["shorter_side"])),
        _Rule("image_aspect", "warning", "The originals are no slivers (longer / shorter side).",
              f"at most {config.max_aspect_ratio:g}", between,
              {"column": "aspect", "max_value": config.max_aspect_ratio}, _range(images["aspect"])),
        _Rule("label_conflicts", "warning", "Images with the same pixels have the same label.",
              "none differing", between, {"column": "labels_of_pixels", "max_value": 1}),
        _Rule("duplicate_pixels", "warning", "Few images stand in the dataset twice.",
              f"at most {config.max_duplicate_share:.1%}", "ExpectColumnValuesToBeUnique",
              {"column": "pixels_sha256", "mostly": 1.0 - config.max_duplicate_share},
              f"{duplicated.mean() if len(duplicated) else 0:.1%} ({duplicated.sum():,} images)"),
        _Rule("brightness", "warning", "No image is all but black or white (mean brightness).",
              f"{low:g} to {high:g}", between,
              {"column": "brightness", "min_value": low, "max_value": high}, darkest),
    ]  # fmt: skip


def _range(values: "pd.Series[Any]") -> str:
    return f"{values.min():.3g} to {values.max():.3g}" if len(values) else "no images"


def _class_rules(
    classes: pd.DataFrame, split: Mapping[str, npt.NDArray[np.int64]], config: ValidationConfig
) -> list[_Rule]:
    between = "ExpectColumnValuesToBeBetween"
    most = classes["imbalance"].max() if len(classes) else 1.0
    return [
        _Rule("min_images_per_class", "error", "Every class has enough images.",
              f"at least {config.min_images_per_class:,}", between,
              {"column": "images", "min_value": config.min_images_per_class},
              _extreme(classes, "images")),
        _Rule("parts_hold_every_class", "error",
              f"Every class has images in {', '.join(split) or 'the dataset'}.",
              "at least 1 in each", between, {"column": "smallest_part", "min_value": 1},
              _extreme(classes, "smallest_part")),
        _Rule("class_imbalance", "warning", "No class is much smaller than the largest one.",
              f"at most 1 : {config.max_class_imbalance:g}", between,
              {"column": "imbalance", "max_value": config.max_class_imbalance}, f"1 : {most:.3g}"),
    ]  # fmt: skip


def _extreme(classes: pd.DataFrame, column: str) -> str:
    """Say how few images the smallest class has, such as ``174 (eight)``."""
    if not len(classes):
        return "no classes"
    row = classes.loc[classes[column].idxmin()]
    return f"{row[column]:,} ({row['class_name']})"


def _counts(classes: pd.DataFrame, column: str) -> dict[str, int]:
    return {str(k): int(v) for k, v in zip(classes["class_name"], classes[column], strict=True)}


def _image_names(images: pd.DataFrame) -> "pd.Series[Any]":
    """Return what an image is called in a report: its id, else its source."""
    return images["id"].where(images["id"].notna(), images["source"])


def _evaluate(
    table: pd.DataFrame, rules: Sequence[_Rule], names: "pd.Series[Any]"
) -> Iterator[ExpectationResult]:
    """Run the rules through Great Expectations; yield their results in the rules' order."""
    # Great Expectations copies its table again and again: narrow, and in one block a type.
    judged = {str(rule.arguments["column"]) for rule in rules if "column" in rule.arguments}
    found = _run(table[[name for name in table.columns if name in judged]].copy(), rules)
    for rule in rules:
        outcome = found[rule.name]
        if (outcome.exception_info or {}).get("raised_exception"):
            raise DataError(
                f"Great Expectations could not evaluate {rule.name}: "
                f"{outcome.exception_info['exception_message']}"
            )
        # Also listed where the share of them is still allowed.
        count = int(outcome.result.get("unexpected_count") or 0)
        positions = outcome.result.get("partial_unexpected_index_list") or []
        total = outcome.result.get("element_count", len(table))
        yield ExpectationResult(
            name=rule.name,
            severity=rule.severity,
            success=bool(outcome.success),
            observed=rule.observed or (f"{count:,} of {total:,}" if count else "none"),
            limit=rule.limit,
            message=rule.message,
            offending_ids=tuple(str(names.iloc[n]) for n in positions[:_LISTED]),
            n_offending=count,
        )


def _run(table: pd.DataFrame, rules: Sequence[_Rule]) -> "dict[str, ExpectationValidationResult]":
    """Evaluate the rules in a context that lives in memory and tells nobody."""
    with _quiet_great_expectations():
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        context = gx.get_context(
            mode="ephemeral",
            project_config=DataContextConfig(
                analytics_enabled=False,
                progress_bars=ProgressBarsConfig(globally=False),
                store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            ),
        )
        asset = context.data_sources.add_pandas("manifest").add_dataframe_asset("table")
        batch = asset.add_batch_definition_whole_dataframe("all")
        suite = gx.ExpectationSuite(name="rules", expectations=[_expectation(r) for r in rules])
        definition = gx.ValidationDefinition(
            name="validation", data=batch, suite=context.suites.add(suite)
        )
        definition = context.validation_definitions.add(definition)
        outcome = definition.run(
            batch_parameters={"dataframe": table},
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": _LISTED},
        )
    return {_rule_name(result): result for result in outcome.results}


def _rule_name(result: "ExpectationValidationResult") -> str:
    assert result.expectation_config is not None
    return str((result.expectation_config.meta or {})["rule"])


def _expectation(rule: _Rule) -> "Expectation":
    import great_expectations.expectations as expectations

    made: Expectation = getattr(expectations, rule.kind)(**rule.arguments, meta={"rule": rule.name})
    return made


@contextmanager
def _quiet_great_expectations() -> Iterator[None]:
    """Keep what Great Expectations logs on import and on setting up off the console."""
    log = logging.getLogger("great_expectations")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
