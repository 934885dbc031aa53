"""Slices hold every image once a column, quantiles are of equal size, the worst stand first."""

import numpy as np
import pandas as pd
import pytest

from cv_factory.evaluation.metric_functions import EvaluationError
from cv_factory.evaluation.slices import assign_slices, measure_slices

NAMES = ("cat", "dog")


def rows(n=120):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [str(i) for i in range(n)],
            "width": np.where(np.arange(n) < n // 2, 32, 64),
            "height": 32,
            "brightness": rng.random(n).astype(np.float32),
            "camera": np.where(np.arange(n) % 3 == 0, "old", "new"),
            "mode": "RGB",
        }
    )


def cut(columns, n=120, quantiles=4):
    return assign_slices(rows(n), np.arange(n) % 2, NAMES, columns, quantiles)


def test_each_column_is_cut_in_its_own_way():
    found = cut(["class", "size", "brightness", "camera", "mode"])
    assert set(found["class"]) == {"cat", "dog"}
    assert set(found["size"]) == {"1024", "2048"}
    assert set(found["camera"]) == {"old", "new"}
    counts = pd.Series(found["brightness"]).value_counts()
    assert counts.tolist() == [30, 30, 30, 30]
    # All images agree: nothing to compare.
    assert "mode" not in found


@pytest.mark.parametrize("origin", ["original", "additional"])
def test_the_origin_is_measured_where_all_images_have_the_same(origin):
    cut = assign_slices(
        rows().assign(origin=origin), np.zeros(120, dtype=np.int64), NAMES, ["origin"], 4
    )
    assert cut == {"origin": (origin,) * 120}


def test_numbers_that_mostly_agree_make_fewer_slices():
    frame = rows()
    frame["brightness"] = np.where(np.arange(120) < 115, 0.5, np.arange(120) / 1000)
    found = assign_slices(frame, np.zeros(120, dtype=np.int64), NAMES, ["brightness"], 4)
    assert 1 <= len(set(found.get("brightness", ("one",)))) <= 3


def test_missing_values_are_a_slice():
    frame = rows()
    frame.loc[:9, "brightness"] = np.nan
    found = assign_slices(frame, np.zeros(120, dtype=np.int64), NAMES, ["brightness"], 4)
    assert found["brightness"].count("unknown") == 10


@pytest.mark.parametrize(("column", "reason"), [("lens", "does not have"), ("id", "120 different")])
def test_a_column_that_makes_no_slices_is_refused(column, reason):
    with pytest.raises(EvaluationError, match=reason):
        cut([column])


def test_the_worst_stands_first():
    values = {"camera": ["a"] * 4 + ["b"] * 2 + ["c"] * 4}
    right = np.array([1, 1, 1, 0, 0, 0, 1, 1, 1, 1], dtype=bool)
    measured = measure_slices(values, right, np.arange(10.0), 0.95)
    assert [(s.name, s.accuracy, s.n_images) for s in measured] == [
        ("camera=b", 0.0, 2),
        ("camera=a", 0.75, 4),
        ("camera=c", 1.0, 4),
    ]
    assert measured[1].log_loss == 1.5
    assert all(s.low <= s.accuracy <= s.high for s in measured)
