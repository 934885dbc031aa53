"""Expectations that compare a dataset with an earlier one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cv_factory.config.validation import ValidationConfig
from cv_factory.data.validation.rules import BETWEEN, Rule
from cv_factory.reporting.numbers import format_beside_limit, format_share


@dataclass(frozen=True)
class Reference:
    """An earlier dataset, to compare with: its manifest and the names of its labels."""

    manifest: pd.DataFrame
    class_names: Sequence[str]


def build_reference_rules(
    reference: Reference, manifest: pd.DataFrame, classes: pd.DataFrame, config: ValidationConfig
) -> tuple[pd.DataFrame, list[Rule]]:
    """Return the table of distances from the reference, and the rules for it."""
    before = reference.manifest
    rows = []
    for name in ("brightness", "contrast", "sharpness"):
        spread = max(float(before[name].std()), 1e-6)
        shift = abs(float(manifest[name].mean()) - float(before[name].mean())) / spread
        rows.append({"name": name, "statistic": shift, "share": 0.0, "is_in_reference": "yes"})
    counts = np.bincount(before["label"].to_numpy().clip(0), minlength=len(reference.class_names))
    shares = dict(zip(reference.class_names, counts / max(1, counts.sum()), strict=False))
    total = max(1, int(classes["images"].sum()))
    for name, images in zip(classes["class_name"], classes["images"], strict=True):
        shift = abs(images / total - shares.get(name, 0.0))
        is_in_reference = "yes" if name in shares else "no"
        rows.append(
            {"name": name, "statistic": 0.0, "share": shift, "is_in_reference": is_in_reference}
        )
    table = pd.DataFrame(rows)
    return table, [
        Rule("labels_as_reference", "error", "Every class is one that the reference has.",
             f"{len(shares)} classes", "ExpectColumnValuesToBeInSet",
             {"column": "is_in_reference", "value_set": ["yes"]}),
        Rule("statistics_as_reference", "warning",
             "Mean brightness, contrast and sharpness are near the reference's.",
             f"{config.max_reference_shift:g} standard deviations", BETWEEN,
             {"column": "statistic", "max_value": config.max_reference_shift},
             "at most " + format_beside_limit(float(table["statistic"].max()),
                                              config.max_reference_shift, ".2g")),
        Rule("class_shares_as_reference", "warning", "Class shares are near the reference's.",
             f"{format_share(config.max_class_share_shift)} apart", BETWEEN,
             {"column": "share", "max_value": config.max_class_share_shift},
             "at most " + format_beside_limit(float(table["share"].max()),
                                              config.max_class_share_shift)),
    ]  # fmt: skip
