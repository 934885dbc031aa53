"""Accuracy of a version in a rollout against that in production, from labels.

A shadow predicts the images that production predicts: of those, disagreements alone need a label
(McNemar's test). A canary predicts other images: of those, labels that were not chosen by what was
predicted are compared.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cv_factory.config.rollout import AccuracyLimits
from cv_factory.monitoring.rollout import Comparison, Verdict, largest_increase
from cv_factory.monitoring.sequential.mcnemar import mcnemar_e_value
from cv_factory.monitoring.sequential.rate_bounds import rate_bounds
from cv_factory.monitoring.sequential.two_rates import (
    ODDS_RATIOS,
    Rate,
    e_value,
    log_likelihood_ratios,
)

if TYPE_CHECKING:
    import pandas as pd

    from cv_factory.monitoring.window import Window

#: Part of ``false_alarm_rate`` of the pairs; that of the labels of a canary is the rest.
_PAIRS_PART = 0.8
#: Labels that are compared at once, in the order in which they came.
_BLOCK = 50
_BOUND_ERROR_RATE = 0.05
_NONE = Rate(0, 0)


@dataclass(frozen=True)
class AccuracyCounts:
    """What labels and pairs of predictions say.

    Attributes:
        n_pairs: Images that shadow and production predicted.
        disagreements: Of these, predicted differently.
        wins: Labelled disagreements where the version alone is right.
        losses: Labelled disagreements where production alone is right.
        both_wrong: Labelled disagreements where neither is right.
        labelled: Wrong ones among labelled predictions of the version as a canary.
        labelled_in_production: The same of production.
        canary_evidence: E-value of these that the version is worse.
    """

    n_pairs: int = 0
    disagreements: int = 0
    wins: int = 0
    losses: int = 0
    both_wrong: int = 0
    labelled: Rate = _NONE
    labelled_in_production: Rate = _NONE
    canary_evidence: float = 1.0

    @property
    def n_labelled_disagreements(self) -> int:
        """Number of disagreements with a label."""
        return self.wins + self.losses + self.both_wrong


def count_accuracy(window: "Window", version: str, production: str) -> AccuracyCounts:
    """Return what a window's predictions and labels say of a version.

    Labels of models are left out.

    Args:
        window: Since the rollout began.
        version: Number of the version, as text.
        production: That of the version in production.
    """
    rows = window.rows
    is_model = rows["label_source"].fillna("").str.startswith("model:")
    rows = rows.assign(label=rows["label"].where(~is_model, -1))
    pairs = _pair(rows, version, production)
    differs = pairs["predicted"] != pairs["predicted_production"]
    label = pairs[["label", "label_production"]].max(axis=1)
    is_labelled = differs & (label >= 0)
    wins = is_labelled & (pairs["predicted"] == label)
    losses = is_labelled & (pairs["predicted_production"] == label)
    canary, labelled, labelled_in_production = _compare_canary(rows, version, production)
    return AccuracyCounts(
        n_pairs=len(pairs),
        disagreements=int(differs.sum()),
        wins=int(wins.sum()),
        losses=int(losses.sum()),
        both_wrong=int((is_labelled & ~wins & ~losses).sum()),
        labelled=labelled,
        labelled_in_production=labelled_in_production,
        canary_evidence=canary,
    )


def compare_accuracy(counts: AccuracyCounts, limits: AccuracyLimits) -> Comparison:
    """Return what the labels say of a version."""
    pairs_threshold = 1.0 / (limits.false_alarm_rate * _PAIRS_PART)
    canary_threshold = 1.0 / (limits.false_alarm_rate * (1.0 - _PAIRS_PART))
    harm = mcnemar_e_value(counts.losses, counts.wins)
    # In units of the threshold of the pairs, so that one number is compared with one limit.
    evidence = max(harm, counts.canary_evidence * pairs_threshold / canary_threshold)
    gain = mcnemar_e_value(counts.wins, counts.losses)
    _, most = rate_bounds(counts.n_pairs, counts.disagreements, _BOUND_ERROR_RATE)
    decrease = min(most, largest_increase(counts.labelled, counts.labelled_in_production))
    verdict: Verdict = "not_enough_evidence"
    if evidence >= pairs_threshold:
        verdict = "worse"
    elif gain >= pairs_threshold:
        verdict = "better"
    elif decrease <= limits.max_decrease:
        verdict = "no_worse"
    summary = f"accuracy: {_describe(counts)}"
    if verdict == "worse":
        summary += f" (evidence {evidence:.3g}, limit {pairs_threshold:.0f})"
    elif verdict == "not_enough_evidence" and counts.disagreements:
        summary += ". More of the disagreements need a label: run.py labels queue --disagreements"
    return Comparison(
        "accuracy", verdict, f"{summary}.", evidence, pairs_threshold, limits.is_required
    )


def _describe(counts: AccuracyCounts) -> str:
    own, other = counts.labelled, counts.labelled_in_production
    parts = []
    if counts.n_pairs or not own.n:
        parts = [f"{counts.disagreements} disagreements among {counts.n_pairs} images"]
    if counts.n_labelled_disagreements:
        parts.append(
            f"of {counts.n_labelled_disagreements} labelled the version alone is right in "
            f"{counts.wins}, production alone in {counts.losses}"
        )
    if own.n:
        parts.append(
            f"{own.events} of {own.n} labelled predictions are wrong, in production "
            f"{other.events} of {other.n}"
        )
    return "; ".join(parts)


def _pair(rows: "pd.DataFrame", version: str, production: str) -> "pd.DataFrame":
    """Return a shadow's predictions beside those of production of the same image."""
    shadow = rows[(rows["version"] == version) & (rows["arm"] == "shadow")]
    answers = rows[(rows["version"] == production) & rows["request_id"].isin(shadow["request_id"])]
    keys = ["request_id", "position"]
    left, right = (
        part.assign(position=part.groupby("request_id").cumcount()) for part in (shadow, answers)
    )
    columns = [*keys, "predicted", "label", "image_hmac"]
    pairs = left[columns].merge(right[columns], on=keys, suffixes=("", "_production"))
    # Lines that were dropped or not sampled move the positions in a request of several images.
    own, other = pairs["image_hmac"], pairs["image_hmac_production"]
    return pairs[own.isna() | other.isna() | (own == other).fillna(False).astype(bool)]


def _compare_canary(
    rows: "pd.DataFrame", version: str, production: str
) -> tuple[float, Rate, Rate]:
    """Return the evidence that a canary is less accurate, and the rates that it rests on."""
    is_even = rows["stratum"].isna() | (rows["stratum"] == "uniform")
    labelled = rows[(rows["label"] >= 0) & is_even].sort_values(["label_time", "id"])
    is_canary = ((labelled["version"] == version) & (labelled["arm"] == "canary")).to_numpy(bool)
    is_other = (labelled["version"] == production).to_numpy(bool)
    is_wrong = (labelled["predicted"] != labelled["label"]).to_numpy(bool)
    if not is_canary.any():
        return 1.0, _NONE, _NONE
    log_evidence = np.zeros(len(ODDS_RATIOS))
    order = np.flatnonzero(is_canary | is_other)
    # Whole blocks alone: a block that still grows would be looked at twice.
    for block in order[: len(order) // _BLOCK * _BLOCK].reshape(-1, _BLOCK):
        own, other, wrong = is_canary[block], is_other[block], is_wrong[block]
        log_evidence += log_likelihood_ratios(_rate(own, wrong), _rate(other, wrong))
    return e_value(log_evidence), _rate(is_canary, is_wrong), _rate(is_other, is_wrong)


def _rate(arm: npt.NDArray[np.bool_], is_wrong: npt.NDArray[np.bool_]) -> Rate:
    return Rate(int(arm.sum()), int((arm & is_wrong).sum()))
