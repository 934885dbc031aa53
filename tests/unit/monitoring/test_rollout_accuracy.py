"""Labels of a shadow's disagreements and of a canary's predictions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cv_factory.config.rollout import AccuracyLimits
from cv_factory.monitoring.rollout_accuracy import AccuracyCounts, compare_accuracy, count_accuracy
from cv_factory.monitoring.sequential.two_rates import Rate
from cv_factory.monitoring.window import Window, build_rows

LIMITS = AccuracyLimits()
NOON = pd.Timestamp("2026-11-29T12:00:00", tz="UTC")


def window(rows: list[dict[str, Any]]) -> Window:
    probabilities = np.eye(3, dtype=np.float32)[[row["class"] for row in rows]]
    names = ("version", "arm", "request_id", "label", "label_source", "stratum", "image_hmac")
    columns = {name: [row.get(name) for row in rows] for name in names}
    columns["label"] = [-1 if label is None else label for label in columns["label"]]
    times = pd.date_range(NOON, periods=len(rows), freq="s")
    table = build_rows(
        ("a", "b", "c"),
        probabilities,
        **columns,
        id=[str(i) for i in range(len(rows))],
        time=times,
        label_time=times,
    )
    return Window(table, probabilities, np.zeros((len(rows), 0), np.float32), ("a", "b", "c"))


def pair(request: str, own: int, other: int, label: int | None = None, **more: Any) -> list[Any]:
    """Return the lines of production and of its shadow; the label is that of production's."""
    answer = {"version": "1", "arm": "stable", "request_id": request, "class": other}
    shadow = {"version": "2", "arm": "shadow", "request_id": request, "class": own}
    return [{**answer, "label": label, "label_source": "person:ann", **more}, shadow]


def labelled(version: str, arm: str, label: int, n: int, **more: Any) -> list[Any]:
    row = {"version": version, "arm": arm, "class": 0, "label": label, "request_id": "x"}
    return [{**row, "label_source": "person:ann", **more} for _ in range(n)]


def test_only_labelled_disagreements_count() -> None:
    lines = [
        *pair("r1", 0, 0, 1),
        *pair("r2", 1, 0, 1),
        *pair("r3", 1, 0, 0),
        *pair("r4", 1, 0, 2),
        *pair("r5", 1, 0),
        *pair("r6", 1, 0, 1, label_source="model:digits/1"),
    ]
    counts = count_accuracy(window(lines), "2", "1")
    assert counts == AccuracyCounts(6, 5, wins=1, losses=1, both_wrong=1)
    assert counts.n_labelled_disagreements == 3


def test_images_of_one_request_are_paired_in_order_and_by_their_hmac() -> None:
    first, second = pair("r", 1, 1), pair("r", 2, 0, 2)
    lines = [first[0], second[0], first[1], second[1]]
    assert count_accuracy(window(lines), "2", "1") == AccuracyCounts(2, 1, wins=1)
    first, second = pair("r", 1, 1, image_hmac="x"), pair("r", 2, 0, 2, image_hmac="y")
    first[1]["image_hmac"] = "x"
    second[1]["image_hmac"] = "z"  # the line of another image was dropped
    counts = count_accuracy(window([first[0], second[0], first[1], second[1]]), "2", "1")
    assert counts == AccuracyCounts(1, 0)


def test_a_shadow_that_is_wrong_more_often_is_worse_and_one_that_is_right_better() -> None:
    worse = compare_accuracy(AccuracyCounts(1000, 30, wins=2, losses=16), LIMITS)
    assert worse.verdict == "worse"
    assert worse.threshold == pytest.approx(50.0)
    assert "of 18 labelled the version alone is right in 2, production alone in 16" in worse.summary
    better = compare_accuracy(AccuracyCounts(1000, 30, wins=16, losses=2), LIMITS)
    assert better.verdict == "better"
    unknown = compare_accuracy(AccuracyCounts(1000, 30, wins=3, losses=2), LIMITS)
    assert unknown.verdict == "not_enough_evidence"
    assert "run.py labels queue" in unknown.summary


def test_versions_that_hardly_disagree_need_no_label() -> None:
    assert compare_accuracy(AccuracyCounts(10_000, 3), LIMITS).verdict == "no_worse"
    assert compare_accuracy(AccuracyCounts(50, 0), LIMITS).verdict == "not_enough_evidence"
    assert compare_accuracy(AccuracyCounts(), LIMITS).verdict == "not_enough_evidence"


def test_a_canary_is_compared_by_labels_that_were_not_chosen_by_predictions() -> None:
    good, bad = labelled("1", "stable", 0, 4), labelled("2", "canary", 1, 1)
    chosen = labelled("2", "canary", 1, 7, stratum="uncertain")
    few = count_accuracy(window([*chosen, *good, *bad]), "2", "1")
    assert (few.labelled, few.labelled_in_production) == (Rate(1, 1), Rate(4, 0))
    assert few.canary_evidence == 1.0, "a block that is not whole yet"
    rows = [*good, *bad] * 20
    counts = count_accuracy(window(rows), "2", "1")
    assert counts.canary_evidence > 1e6
    comparison = compare_accuracy(counts, LIMITS)
    assert comparison.verdict == "worse"
    assert "20 of 20 labelled predictions are wrong, in production 0 of 80" in comparison.summary


def test_a_canary_that_is_as_accurate_is_not_worse() -> None:
    block = [
        *labelled("1", "stable", 0, 22),
        *labelled("1", "stable", 1, 3),
        *labelled("2", "canary", 0, 22),
        *labelled("2", "canary", 1, 3),
    ]
    counts = count_accuracy(window(block * 20), "2", "1")
    assert counts.canary_evidence < 1.0
    assert compare_accuracy(counts, LIMITS).verdict == "not_enough_evidence"
