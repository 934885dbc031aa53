"""The reader of predictions builds the same window whatever they were logged in."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from cv_factory.monitoring.prediction_reader import Selection, build_window
from cv_factory.monitoring.prediction_table import parse_log
from cv_factory.monitoring.window import Window

_START = datetime(2026, 11, 29, 6, tzinfo=UTC)
_CLASSES = ("a", "b", "c")


def log_line(number: int, **fields: Any) -> bytes:
    """Return a line of schema version 1."""
    line = {
        "id": f"id-{number}",
        "time": (_START + timedelta(seconds=number)).isoformat(timespec="milliseconds"),
        "model": "digits",
        "version": "1",
        "arm": None,
        "label": "b",
        "probabilities": {"b": 0.7, "a": 0.2, "c": 0.1},
        "unfamiliar": None,
        "unfamiliarity": None,
        "features": [float(number), 0.5],
        "key": "anyone",
        "request_id": "request",
    }
    return json.dumps(line | fields).encode() + b"\n"


def read(*contents: bytes, **selection: Any) -> Window:
    """Return the window of some log files."""
    tables = [parse_log(content, _CLASSES)[0] for content in contents]
    return build_window(tables, Selection("digits", **selection), _CLASSES)


def test_lines_of_several_files_are_in_order_of_time_and_taken_once() -> None:
    window = read(log_line(2) + log_line(0), log_line(1) + log_line(2))
    assert list(window.rows["id"]) == ["id-0", "id-1", "id-2"]
    assert window.features.tolist() == [[0.0, 0.5], [1.0, 0.5], [2.0, 0.5]]
    np.testing.assert_allclose(window.probabilities, [[0.2, 0.7, 0.1]] * 3, rtol=1e-6)
    assert window.predicted.tolist() == [1, 1, 1]
    assert window.labels.tolist() == [-1, -1, -1]
    assert window.n_refused is None, "lines of schema version 1 know none"


def test_a_window_has_one_span_version_and_model() -> None:
    content = b"".join(
        [*map(log_line, range(4)), log_line(4, version="2"), log_line(5, model="other")]
    )
    assert len(read(content)) == 5
    span = {"start": _START + timedelta(seconds=1), "end": _START + timedelta(seconds=3)}
    assert list(read(content, **span).rows["id"]) == ["id-1", "id-2"]
    assert list(read(content, version="2").rows["id"]) == ["id-4"]


def test_what_an_answer_left_out_gets_equal_parts_of_the_rest() -> None:
    window = read(log_line(0, probabilities={"c": 0.6}, label=None))
    np.testing.assert_allclose(window.probabilities, [[0.2, 0.2, 0.6]], rtol=1e-6)
    assert window.rows["is_abstained"].tolist() == [True]


def test_damaged_lines_are_counted_and_the_last_is_awaited() -> None:
    table, n_damaged = parse_log(log_line(0) + b"{broken\n" + log_line(1) + b'{"id":', _CLASSES)
    assert (table.num_rows, n_damaged) == (2, 1)


def test_versions_with_other_classes_and_features_share_a_window() -> None:
    other = log_line(1, probabilities={"d": 0.9, "a": 0.1}, features=[1.0, 2.0, 3.0])
    window = read(log_line(0), other)
    assert window.class_names == (*_CLASSES, "d")
    np.testing.assert_allclose(window.probabilities[1], [0.1, 0.0, 0.0, 0.9], rtol=1e-6)
    assert np.isnan(window.features).tolist() == [[False, False, True], [False] * 3]


def test_a_log_without_predictions_is_an_empty_window() -> None:
    assert len(read()) == 0
    assert len(read(b"")) == 0
