"""Decides whether a dataset is fit to train on: expectations over its manifest and its split.

Great Expectations evaluates each of them; what is specific to images and splits is prepared as
columns beforehand. Looks at the manifest alone and reads no pixels.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.config.validation import ValidationConfig
from cv_factory.data.bit_depth import StoredValues
from cv_factory.data.validation.class_names import build_class_name_rules
from cv_factory.data.validation.image_issues import ImageIssue, select_shown
from cv_factory.data.validation.reference import Reference as Reference
from cv_factory.data.validation.reference import build_reference_rules
from cv_factory.data.validation.report import DataReport, ExpectationResult
from cv_factory.data.validation.rules import (
    Rule,
    apply_severities,
    build_class_rules,
    build_image_rules,
    build_value_rules,
)
from cv_factory.data.validation.tables import (
    build_class_table,
    build_image_table,
    find_official_parts,
)
from cv_factory.data.validation.thumbnails import encode_thumbnails
from cv_factory.errors import DataError
from cv_factory.progress import quiet_loggers

if TYPE_CHECKING:
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation

_log = logging.getLogger(__name__)

_MAX_LISTED_IDS = 20


def validate_dataset(
    manifest: pd.DataFrame,
    *,
    class_names: Sequence[str],
    split: Mapping[str, npt.NDArray[np.int64]],
    config: ValidationConfig,
    unreadable: Sequence[tuple[str, str]] = (),
    notices: Sequence[str] = (),
    images: npt.NDArray[np.uint8] | None = None,
    reference: "Reference | None" = None,
    stored_values: StoredValues | None = None,
    issues: Sequence[ImageIssue] | None = None,
    issue_thumbnails: Mapping[str, str] | None = None,
) -> DataReport:
    """Check a dataset and its split against all expectations.

    Args:
        manifest: One row per image, with the columns of ``ImageDataset.manifest``.
        class_names: Name of each label.
        split: Row positions int64 of each part.
        config: The limits.
        unreadable: Source and reason of images that were left out; reported, not judged.
        notices: What a user should know of the reading; reported, not judged.
        images: uint8 ``(N, H, W, C)``, for thumbnails of offending images; none without it.
        reference: An earlier dataset that this one should be like.
        stored_values: What is stored in originals of more than 8 bits, where there are any.
        issues: What a backbone's features say against single images; None where nothing was asked.
        issue_thumbnails: PNGs (base64) of images with issues, by id.

    Raises:
        DataError: Great Expectations could not evaluate an expectation.
    """
    _log.info("Checking %s images and their split with Great Expectations.", f"{len(manifest):,}")
    table = build_image_table(manifest, class_names, split, config, issues)
    classes = build_class_table(table, class_names, split)
    image_rules = build_image_rules(table, class_names, config)
    official_parts = find_official_parts(manifest, split)
    class_rules = [
        *build_class_rules(classes, split, config, official_parts),
        *build_class_name_rules(classes),
    ]
    results = [
        *_evaluate(table, apply_severities(image_rules, config), _get_image_names(table)),
        *_evaluate(classes, apply_severities(class_rules, config), classes["class_name"]),
    ]
    if reference is not None:
        shifts, rules = build_reference_rules(reference, manifest, classes, config)
        results += _evaluate(shifts, apply_severities(rules, config), shifts["name"])
    if stored_values is not None:
        values, rules = build_value_rules(stored_values)
        results += _evaluate(values, apply_severities(rules, config), values["name"])
    shown = {} if images is None else encode_thumbnails(results, manifest["id"], images)
    return DataReport(
        expectations=tuple(results),
        n_images=len(table),
        class_counts=_count_by_class(classes, "images"),
        split_counts={part: _count_by_class(classes, part) for part in split},
        unreadable=tuple((source, reason) for source, reason in unreadable),
        notices=tuple(notices),
        thumbnails={**(issue_thumbnails or {}), **shown},
        issues=tuple(select_shown(issues or ())),
        issue_counts=dict(Counter(issue.kind for issue in issues or ())),
    )


def _count_by_class(classes: pd.DataFrame, column: str) -> dict[str, int]:
    return {str(k): int(v) for k, v in zip(classes["class_name"], classes[column], strict=True)}


def _get_image_names(images: pd.DataFrame) -> "pd.Series[Any]":
    """Return the name of each image in a report: its id, else its source."""
    return images["id"].where(images["id"].notna(), images["source"])


def _evaluate(
    table: pd.DataFrame, rules: Sequence[Rule], names: "pd.Series[Any]"
) -> Iterator[ExpectationResult]:
    """Run the rules through Great Expectations; yield their results in the rules' order."""
    # Great Expectations copies its table again and again: narrow, and in one block a type.
    columns = {str(rule.arguments["column"]) for rule in rules if "column" in rule.arguments}
    outcomes = _run_great_expectations(
        table[[name for name in table.columns if name in columns]].copy(), rules
    )
    for rule in rules:
        outcome = outcomes[rule.name]
        if (outcome.exception_info or {}).get("raised_exception"):
            raise DataError(
                f"Great Expectations could not evaluate {rule.name}: "
                f"{outcome.exception_info['exception_message']}"
            )
        # Also listed where the share of them is still allowed.
        count = int(outcome.result.get("unexpected_count") or 0)
        positions = rule.worst_rows or outcome.result.get("partial_unexpected_index_list") or []
        total = outcome.result.get("element_count", len(table))
        yield ExpectationResult(
            name=rule.name,
            severity=rule.severity,
            success=bool(outcome.success),
            observed=rule.observed or (f"{count:,} of {total:,}" if count else "none"),
            limit=rule.limit,
            message=rule.message,
            offending_ids=tuple(str(names.iloc[n]) for n in positions[:_MAX_LISTED_IDS]),
            n_offending=count,
            remedy="" if outcome.success else rule.remedy,
        )


def _run_great_expectations(
    table: pd.DataFrame, rules: Sequence[Rule]
) -> "dict[str, ExpectationValidationResult]":
    """Evaluate the rules in an ephemeral context without analytics; return results by rule."""
    with quiet_loggers(logging.WARNING, "great_expectations"):
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
        definition = asset.add_batch_definition_whole_dataframe("all")
        # Unlike a ValidationDefinition, a batch stores and serializes nothing.
        outcome = definition.get_batch(batch_parameters={"dataframe": table}).validate(
            gx.ExpectationSuite("rules", expectations=[_build_expectation(r) for r in rules]),
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": _MAX_LISTED_IDS},
        )
    return {_get_rule_name(result): result for result in outcome.results}


def _get_rule_name(result: "ExpectationValidationResult") -> str:
    assert result.expectation_config is not None
    return str((result.expectation_config.meta or {})["rule"])


def _build_expectation(rule: Rule) -> "Expectation":
    import great_expectations.expectations as expectations

    expectation: Expectation = getattr(expectations, rule.kind)(
        **rule.arguments, meta={"rule": rule.name}
    )
    return expectation
