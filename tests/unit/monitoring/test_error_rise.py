"""Detector error_rise: harm is shown by labels that count, weighted by how they were sampled."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from cv_factory.inference.reference import Reference
from cv_factory.monitoring.error_evidence import measure_error_rise, select_labels
from cv_factory.monitoring.label_sampling import draw_queue
from cv_factory.monitoring.labels import Labels, join_labels
from cv_factory.monitoring.window import UNKNOWN_CLASS, Window
from tests.unit.monitoring.conftest import draw_outputs, to_window
from tests.unit.monitoring.test_assessment import NO_LABELS
from tests.unit.monitoring.test_detectors import find, label


def test_a_risen_error_is_harm(reference: Reference) -> None:
    finding = find(reference, label(400, 1000, 5, error=0.15))["error_rise"]
    assert (finding.kind, finding.status, finding.n) == ("harm", "alarm", 400)
    assert "2.9% of 3,000 test images" in finding.summary


def test_a_tolerated_rise_is_no_harm(reference: Reference) -> None:
    window = label(400, 1000, 5, error=0.15)
    finding = find(reference, window, error_rise={"tolerance": 0.2})["error_rise"]
    assert finding.status == "silent"


def test_one_class_that_fails_is_named(reference: Reference) -> None:
    outputs = draw_outputs(2000, 6, error=0.01)
    is_b = outputs.labels == 1
    probabilities = outputs.probabilities.copy()
    failing = np.flatnonzero(is_b)[:100]
    probabilities[failing] = np.roll(probabilities[failing], 1, axis=1)
    window = to_window(replace(outputs, probabilities=probabilities), label=outputs.labels)
    finding = find(reference, window)["error_rise"]
    assert finding.status == "alarm"
    assert "most in b" in finding.summary
    assert finding.details["by_class"]["b"]["error"] > 0.2


def test_labels_of_a_class_that_the_model_does_not_know_are_its_errors(
    reference: Reference,
) -> None:
    window = label(200, 1000, 5, error=0.0)
    is_new = np.arange(len(window)) % 4 == 0
    labels = np.where(is_new & window.has_label, UNKNOWN_CLASS, window.labels)
    finding = find(reference, replace(window, rows=window.rows.assign(label=labels)))["error_rise"]
    assert (finding.status, finding.n) == ("alarm", 200)
    assert set(finding.details["by_class"]) <= set(reference.class_names)


def test_labels_of_models_and_repeats_do_not_count(reference: Reference) -> None:
    window = label(400, 400, 5, error=0.15)
    rows = window.rows.assign(label_source="model:digits/2")
    finding = find(reference, replace(window, rows=rows))["error_rise"]
    assert (finding.status, finding.n) == ("not_enough_evidence", 0)
    assert "400 labels do not count" in finding.summary
    rows = window.rows.assign(image_hmac="0f")
    assert len(select_labels(replace(window, rows=rows), "all")[0]) == 1


def test_labels_count_in_the_order_in_which_they_came() -> None:
    outputs = draw_outputs(3, 5)
    times = np.array(["2026-11-03", "2026-11-01", "2026-11-02"], "datetime64[ms]")
    ordered, _ = select_labels(to_window(outputs, label=outputs.labels, label_time=times), "all")
    assert list(ordered.rows.index) == [1, 2, 0]


def sample_uncertain(error: float, seed: int) -> Window:
    """Return predictions of which the least confident ones were asked for ten times as often."""
    outputs = draw_outputs(6000, seed, error=error)
    probability = np.where(outputs.confidence < 0.85, 1.0, 0.1)
    is_labeled = np.random.default_rng(seed).random(6000) < probability
    return to_window(
        outputs,
        label=np.where(is_labeled, outputs.labels, -1),
        inclusion_probability=np.where(is_labeled, probability, np.nan),
        uniform_probability=0.1,
    )


def test_asking_for_uncertain_predictions_is_no_rise(reference: Reference) -> None:
    window = sample_uncertain(0.03, 8)
    labeled = window.labeled()
    assert (labeled.predicted != labeled.labels).mean() > 0.06
    finding = find(reference, window)["error_rise"]
    assert finding.status == "silent"
    assert finding.details["error"] == pytest.approx(0.03, abs=0.01)
    assert find(reference, sample_uncertain(0.15, 9))["error_rise"].status == "alarm"


def test_a_label_changes_no_bet_on_earlier_ones() -> None:
    test = draw_outputs(500, 0, error=0.05)
    window = label(41, 41, 5, error=0.3)
    probability = np.where(np.arange(41) < 40, 0.5, 0.01)
    rows = window.rows.assign(inclusion_probability=probability, uniform_probability=0.01)
    window = replace(window, rows=rows)
    first = measure_error_rise(test, window.select(np.arange(41) < 40), 0.95, 0.0)
    assert measure_error_rise(test, window, 0.95, 0.0).evidence >= first.evidence


def test_overlapping_queues_that_prefer_uncertain_images_seldom_are_an_alarm() -> None:
    test = draw_outputs(4000, 0, error=0.1)
    start = datetime(2026, 11, 1, tzinfo=UTC)
    evidence = []
    for seed in range(1, 21):
        outputs, labels = draw_outputs(1500, seed, error=0.1), NO_LABELS
        ids = [f"{seed}/{i}" for i in range(1500)]
        window = to_window(outputs, id=ids)
        for seconds in (900, 1500):
            queue = draw_queue(
                join_labels(window.select(np.arange(1500) < seconds), labels), 150,
                (start, start + timedelta(seconds=seconds), None), start,
                uniform_share=0.2, earlier=labels.frames,
            )  # fmt: skip
            sample = pd.concat([labels.sample, queue.sample])
            labels = Labels(labels.records, sample, (*labels.frames, queue.frame))
        joined = join_labels(window, labels)
        is_asked = joined.rows["inclusion_probability"].notna()
        rows = joined.rows.assign(label=np.where(is_asked, outputs.labels, -1))
        counted, _ = select_labels(replace(joined, rows=rows), "sampled")
        assert (counted.predicted != counted.labels).mean() > 0.2, "uncertain ones are preferred"
        evidence.append(measure_error_rise(test, counted, 0.95, 0.0).evidence)
    assert (np.array(evidence) >= 20).mean() <= 0.05


def test_only_sampled_labels_count_where_there_are_some(reference: Reference) -> None:
    window = label(400, 500, 5, error=0.15)
    rows = window.rows.copy()
    rows.loc[:9, "inclusion_probability"] = 0.5
    finding = find(reference, replace(window, rows=rows))["error_rise"]
    assert (finding.n, finding.details["n_labels_left_out"]) == (10, 390)


def test_an_error_like_the_references_seldom_is_an_alarm() -> None:
    test = draw_outputs(500, 0, error=0.05)
    evidence = [
        measure_error_rise(test, label(800, 800, seed, error=0.05), 0.95, 0.0).evidence
        for seed in range(1, 60)
    ]
    assert np.mean(np.array(evidence) >= 20) <= 0.05
