"""Labels reach every prediction of their image, and the last one counts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from cv_factory.monitoring.labels import (
    RECORD_COLUMNS,
    SAMPLE_COLUMNS,
    Frame,
    Labels,
    build_table,
    describe_labels,
    join_labels,
)
from cv_factory.monitoring.report import Coverage
from cv_factory.monitoring.window import LABEL_COLUMNS, UNKNOWN_CLASS, Window, build_rows

DAY = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ("cat", "dog")


def build_window(**columns: Any) -> Window:
    """Return five predictions in two days: c and d are of one image, by two versions."""
    probabilities = np.tile(np.array([[0.8, 0.2]], np.float32), (5, 1))
    times = [DAY + timedelta(hours=12 * n) for n in range(5)]
    columns = {
        "id": list("abcde"),
        "time": times,
        "version": ["1", "1", "1", "2", "1"],
        "image_hmac": [None, "B", "C", "C", "E"],
        **columns,
    }
    rows = build_rows(NAMES, probabilities, **columns)
    return Window(rows, probabilities, np.zeros((5, 1), np.float32), NAMES)


def build_labels(
    *records: dict[str, Any], sample: tuple[dict[str, Any], ...] = (), frames: Any = ()
) -> Labels:
    rows = [
        {"id": str(n), "time": f"2026-03-02T00:00:0{n}.000+00:00", "source": "person:ann",
         "is_blind": True, **record}
        for n, record in enumerate(records)
    ]  # fmt: skip
    asked = [{"time": "2026-03-02T00:00:00+00:00", **row} for row in sample]
    return Labels(build_table(rows, RECORD_COLUMNS), build_table(asked, SAMPLE_COLUMNS), frames)


def test_a_label_holds_for_every_prediction_of_its_image() -> None:
    labels = build_labels(
        {"prediction_id": "a", "label": "dog"},
        {"prediction_id": "c", "label": "cat", "is_blind": False, "source": "system:crm"},
        {"image_hmac": "E", "label": "dog"},
    )
    joined = join_labels(build_window(), labels)
    assert joined.labels.tolist() == [1, -1, 0, 0, 1]
    assert joined.rows["is_blind"].tolist() == [True, False, False, False, True]
    sources = joined.rows["label_source"]
    assert sources.fillna("").tolist() == ["person:ann", "", *["system:crm"] * 2, "person:ann"]
    assert joined.rows["label_time"][2] == pd.Timestamp("2026-03-02T00:00:01Z")
    assert joined.rows["label_time"].isna().tolist() == [False, True, False, False, False]
    assert {name: str(joined.rows[name].dtype) for name in LABEL_COLUMNS} == {
        name: str(build_window().rows[name].dtype) for name in LABEL_COLUMNS
    }


def test_the_last_label_counts_whether_it_names_the_prediction_or_the_image() -> None:
    labels = build_labels(
        {"prediction_id": "c", "label": "cat"},
        {"image_hmac": "C", "label": "dog"},
        {"image_hmac": "B", "label": "dog"},
        {"prediction_id": "b", "label": "cat"},
        {"prediction_id": "b", "label": "dog", "source": "model:pets/2"},
    )
    assert join_labels(build_window(), labels).labels.tolist() == [-1, 0, 1, 1, -1]


def test_a_label_may_name_a_prediction_that_the_window_leaves_out() -> None:
    window = build_window()
    version_2 = window.select((window.rows["version"] == "2").to_numpy(bool))
    labels = build_labels(
        {"prediction_id": "c", "label": "dog"}, {"image_hmac": "B", "label": "cat"}
    )
    assert join_labels(version_2, labels).labels.tolist() == [-1]
    completed = labels.complete({"c": "C", "x": None})
    assert join_labels(version_2, completed).labels.tolist() == [1]
    assert completed.records["image_hmac"].tolist() == ["C", "B"]
    assert build_labels().complete({}).records.empty


def test_a_class_that_the_model_does_not_know_is_a_label_and_an_error() -> None:
    joined = join_labels(build_window(), build_labels({"prediction_id": "a", "label": "bird"}))
    assert joined.labels[0] == UNKNOWN_CLASS
    assert joined.has_label.tolist() == [True, False, False, False, False]
    assert len(joined.labeled()) == 0
    assert joined.predicted[0] != joined.labels[0]


def test_what_was_asked_for_more_often_has_the_largest_probability() -> None:
    sample = (
        {"prediction_id": "a", "stratum": "uncertain", "inclusion_probability": 0.3},
        {"prediction_id": "a", "stratum": "uniform", "inclusion_probability": 0.2},
        {"image_hmac": "C", "stratum": "disagreement", "inclusion_probability": 0.9},
        {"image_hmac": "elsewhere", "stratum": "uniform", "inclusion_probability": 1.0},
    )
    joined = join_labels(build_window(), build_labels(sample=sample))
    assert joined.rows["inclusion_probability"].fillna(0).tolist() == [0.3, 0, 0.9, 0.9, 0]
    strata = joined.rows["stratum"].fillna("").tolist()
    assert strata == ["uniform", "", "disagreement", "disagreement", ""]


def test_the_report_counts_what_belongs_to_no_prediction_and_covers_days_and_versions() -> None:
    labels = build_labels(
        {"prediction_id": "a", "label": "dog"},
        {"prediction_id": "a", "label": "bird", "source": "system:crm", "is_blind": False},
        {"prediction_id": "c", "label": "dog"},
        {"prediction_id": "unknown", "label": "dog"},
        {"image_hmac": "F", "label": "dog"},
    )
    window = join_labels(build_window(), labels)
    report = describe_labels(window, labels)
    assert (report.n_records, report.n_labeled, report.n_not_blind) == (5, 3, 1)
    assert (report.n_unmatched, report.unmatched) == (2, ("unknown", "F"))
    assert report.unknown_classes == {"bird": 1}
    assert report.sources == {"system": 1, "person": 2}
    assert report.coverage == (
        Coverage("2026-03-01", "1", 2, 1),
        Coverage("2026-03-02", "1", 1, 1),
        Coverage("2026-03-02", "2", 1, 1),
        Coverage("2026-03-03", "1", 1, 0),
    )


def test_nothing_joins_nothing() -> None:
    empty = build_window().select(np.zeros(5, bool))
    labels = build_labels({"prediction_id": "a", "label": "dog"})
    assert len(join_labels(empty, labels)) == 0
    assert describe_labels(join_labels(empty, labels), labels).n_unmatched == 1
    unlabeled = join_labels(build_window(), build_labels())
    assert not unlabeled.has_label.any()
    assert describe_labels(unlabeled, build_labels()).n_labeled == 0


def test_a_frame_holds_its_span_and_version() -> None:
    frame = Frame(DAY, DAY + timedelta(days=2), "1", 0.5)
    assert frame.contains(build_window().rows).tolist() == [True, True, True, False, False]
