"""What is chosen to be labelled has known probabilities, and estimates from it are unbiased."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cv_factory.monitoring.label_sampling import LabelQueue, draw_queue, find_disagreements
from cv_factory.monitoring.labeled_accuracy import estimate_accuracy
from cv_factory.monitoring.labels import RECORD_COLUMNS, Frame, Labels, build_table, join_labels
from cv_factory.monitoring.window import Window, build_rows

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=1)
SPAN = (START, END, None)
NAMES = ("cat", "dog")


def build_window(
    n: int, seed: int, true_classes: np.ndarray | None = None, **columns: Any
) -> tuple[Window, np.ndarray]:
    """Return n predictions of images with random names, and the true classes.

    Errors are the more frequent the less certain a prediction is.
    """
    generator = np.random.default_rng(seed)
    world = np.random.default_rng(0)  # the same predictions and errors whatever the names
    confidence = world.uniform(0.5, 1.0, n).astype(np.float32)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    classes = (world.uniform(size=n) < (1 - confidence)).astype(int)
    names = [f"{number:016x}" for number in generator.integers(0, 2**63, n)]
    columns = {"id": names, "time": [START + timedelta(seconds=k) for k in range(n)], **columns}
    rows = build_rows(NAMES, probabilities, **columns)
    window = Window(rows, probabilities, np.zeros((n, 1), np.float32), NAMES)
    return window, classes if true_classes is None else true_classes


def label(
    window: Window, classes: np.ndarray, *queues: LabelQueue, answer: Any = lambda row: True
) -> tuple[Window, list[Frame]]:
    """Return the window with labels of what was asked for, and the frames."""
    sample = pd.concat([queue.sample for queue in queues], ignore_index=True)
    true = dict(zip(window.rows["id"], classes, strict=True))
    records = [
        {"id": str(k), "time": "2026-03-02T00:00:00+00:00", "prediction_id": row.prediction_id,
         "label": NAMES[true[row.prediction_id]], "source": "person:ann", "is_blind": True}
        for k, row in enumerate(sample.itertuples())
        if answer(row)
    ]  # fmt: skip
    frames = [queue.frame for queue in queues]
    labels = Labels(build_table(records, RECORD_COLUMNS), sample, tuple(frames))
    return join_labels(window, labels), frames


def test_about_as_many_images_are_chosen_and_a_part_of_them_uniformly() -> None:
    sizes, uniform, confidence = [], [], []
    for seed in range(30):
        window, _ = build_window(500, seed)
        queue = draw_queue(window, 40, SPAN, END, uniform_share=0.25)
        sizes.append(len(queue.positions))
        uniform.append((queue.sample["stratum"] == "uniform").sum())
        assert queue.frame.uniform_probability == pytest.approx(10 / 500)
        confidence.append(window.probabilities[queue.positions].max(axis=1).mean())
    assert np.mean(sizes) == pytest.approx(40, abs=4)
    assert np.mean(uniform) == pytest.approx(10, abs=2)
    assert np.mean(confidence) < window.probabilities.max(axis=1).mean() - 0.05


def test_the_estimate_is_unbiased_and_its_interval_covers() -> None:
    estimates, covered = [], []
    for seed in range(100):
        window, classes = build_window(400, seed)
        queue = draw_queue(window, 60, SPAN, END, uniform_share=0.3)
        joined, frames = label(window, classes, queue)
        result = estimate_accuracy(joined, frames)
        assert result.low is not None
        assert result.high is not None
        truth = float((window.predicted == classes).mean())
        estimates.append(result.accuracy)
        covered.append(result.low <= truth <= result.high)
    error = np.std(np.array(estimates, float)) / np.sqrt(len(estimates))
    assert np.mean(np.array(estimates, float)) == pytest.approx(truth, abs=4 * error)
    assert error < 0.007
    assert np.mean(covered) > 0.93


def test_a_second_queue_of_the_same_predictions_adds_images_and_stays_unbiased() -> None:
    estimates, added = [], []
    for seed in range(60):
        window, classes = build_window(400, seed)
        first = draw_queue(window, 30, SPAN, END)
        asked, frames = label(window, classes, first)
        second = draw_queue(asked, 30, SPAN, END, earlier=frames)
        assert not set(first.positions) & set(second.positions)
        added.append(len(second.positions))
        joined, frames = label(window, classes, first, second)
        result = estimate_accuracy(joined, frames)
        assert result.n_asked == result.n_labeled == len(first.positions) + len(second.positions)
        estimates.append(result.accuracy)
    truth = float((window.predicted == classes).mean())
    error = np.std(np.array(estimates, float)) / np.sqrt(len(estimates))
    assert np.mean(np.array(estimates, float)) == pytest.approx(truth, abs=4 * error)
    assert np.mean(added) == pytest.approx(30, abs=3)


def test_an_earlier_queue_of_other_predictions_changes_nothing() -> None:
    window, _ = build_window(400, 0)
    elsewhere = Frame(START - timedelta(days=2), START, None, 0.9, 0.9, 0.9)
    with_it = draw_queue(window, 40, SPAN, END, earlier=[elsewhere])
    pd.testing.assert_frame_equal(with_it.sample, draw_queue(window, 40, SPAN, END).sample)
    with pytest.raises(ValueError, match="below"):
        draw_queue(window, 40, SPAN, END, uniform_share=0.1)


def test_repeats_of_an_image_are_asked_for_once_and_disagreements_first() -> None:
    n = 200
    hmacs = [f"{k // 2:064x}" for k in range(n)]  # each image twice, by two versions
    window, _ = build_window(n, 1, image_hmac=hmacs, version=["1", "2"] * (n // 2))
    probabilities = np.tile(np.array([[0.9, 0.1]], np.float32), (n, 1))
    probabilities[1:20:2] = [[0.1, 0.9]]  # version 2 disagrees about ten images
    rows = window.rows.assign(predicted=probabilities.argmax(axis=1))
    window = Window(rows, probabilities, window.features, NAMES)
    images = np.arange(n) // 2
    assert find_disagreements(window, images).sum() == 20
    queue = draw_queue(window, 40, SPAN, END, uniform_share=0.2)
    assert queue.sample["image_hmac"].is_unique
    disputed = queue.positions[queue.positions < 20]
    assert len(disputed) == 10
    strata = queue.sample["stratum"].value_counts()
    assert strata["disagreement"] + (strata.get("uniform", 0)) >= 10


def test_everything_is_chosen_with_certainty_where_there_is_no_more() -> None:
    window, classes = build_window(20, 0)
    queue = draw_queue(window, 100, SPAN, END)
    assert (queue.sample["inclusion_probability"] == 1).all()
    joined, frames = label(window, classes, queue)
    result = estimate_accuracy(joined, frames)
    truth = (window.predicted == classes).mean()
    assert result.accuracy == result.low == result.high == pytest.approx(truth)
    again = draw_queue(joined, 10, SPAN, END, earlier=frames)
    assert len(again.positions) == 0


def test_without_labels_that_were_asked_for_there_is_no_estimate_but_its_reason() -> None:
    window, classes = build_window(100, 0)
    assert "run.py labels queue" in estimate_accuracy(window, []).reason
    queue = draw_queue(window, 60, SPAN, END)
    joined, frames = label(window, classes, queue, answer=lambda row: row.stratum == "uniform")
    result = estimate_accuracy(joined, frames)
    assert (result.accuracy, result.n_asked) == (None, len(queue.sample))
    assert result.reason == "of the images that were to be labelled, none of uncertain has a label"


def test_images_without_an_answer_count_as_those_of_their_stratum() -> None:
    estimates = []
    for seed in range(40):
        window, classes = build_window(400, seed)
        queue = draw_queue(window, 80, SPAN, END)
        joined, frames = label(
            window, classes, queue,
            answer=lambda row: row.stratum == "uniform" or int(row.prediction_id[-1], 16) % 2,
        )  # fmt: skip
        result = estimate_accuracy(joined, frames)
        assert result.n_labeled < result.n_asked
        estimates.append(result.accuracy)
    truth = float((window.predicted == classes).mean())
    assert np.mean(np.array(estimates, float)) == pytest.approx(truth, abs=0.01)


def test_predictions_outside_of_every_frame_are_left_out() -> None:
    window, classes = build_window(100, 0)
    inside = (START, START + timedelta(seconds=50), None)
    queue = draw_queue(window.select(np.arange(100) < 50), 30, inside, END)
    joined, frames = label(window, classes, queue)
    assert estimate_accuracy(joined, frames).n_predictions == 50
