"""The reader of predictions builds the same window whatever they were logged in."""

import base64
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.data.encode import encode_png
from cv_factory.data.sources import open_source
from cv_factory.errors import ConfigError
from cv_factory.inference.batch import BatchJob, ScoringModel, score
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.batch_results import read_batch_results
from cv_factory.monitoring.captured_data import read_captured_data
from cv_factory.monitoring.prediction_reader import Selection, build_window
from cv_factory.monitoring.prediction_table import encode_parquet, parse_log
from cv_factory.monitoring.window import Window
from tests.support.prediction_logs import CLASSES, START, event_line, log_line, old_line
from tests.support.predictors import digits_predictor


def read(*contents: bytes, **selection: Any) -> Window:
    """Return the window of some log files."""
    tables = [parse_log(content, CLASSES)[0] for content in contents]
    return build_window(tables, Selection("digits", **selection), CLASSES)


def test_lines_of_several_files_are_in_order_of_time_and_taken_once() -> None:
    window = read(old_line(2) + old_line(0), old_line(1) + old_line(2))
    assert list(window.rows["id"]) == ["id-0", "id-1", "id-2"]
    assert window.features.tolist() == [[0.0, 0.5], [1.0, 0.5], [2.0, 0.5]]
    np.testing.assert_allclose(window.probabilities, [[0.2, 0.7, 0.1]] * 3, rtol=1e-6)
    assert window.predicted.tolist() == [1, 1, 1]
    assert window.labels.tolist() == [-1, -1, -1]


def test_both_schema_versions_are_read() -> None:
    window = read(old_line(0) + log_line(1, cached=True, sampling_probability=0.5))
    rows = window.rows
    assert rows["sampling_probability"].tolist() == [1.0, 0.5]
    assert rows["is_cached"].tolist() == [False, True]
    assert rows["image_hmac"].isna().tolist() == [True, False]
    np.testing.assert_array_equal(window.statistics[1], [16, 8, 0.5, 0.25, 0.125])
    assert np.isnan(window.statistics[0]).all()


def test_refused_images_and_lost_lines_are_counted_once_in_their_span() -> None:
    events = event_line(0, "refused") + event_line(1, "refused") + event_line(2, "pruned", 7)
    window = read(events + log_line(3), events)
    assert (len(window), window.n_refused, window.n_lost) == (1, 2, 7)
    later = read(events + log_line(3), start=START + timedelta(seconds=3))
    assert (later.n_refused, later.n_lost) == (0, 0)
    assert read(old_line(0)).n_refused is None, "schema version 1 does not know"


def test_a_window_has_one_span_version_and_model() -> None:
    content = b"".join(
        [*map(log_line, range(4)), log_line(4, version="2"), log_line(5, model="other")]
    )
    assert len(read(content)) == 5
    span = {"start": START + timedelta(seconds=1), "end": START + timedelta(seconds=3)}
    assert list(read(content, **span).rows["id"]) == ["id-1", "id-2"]
    assert list(read(content, version="2").rows["id"]) == ["id-4"]


def test_what_an_answer_left_out_gets_equal_parts_of_the_rest() -> None:
    window = read(old_line(0, probabilities={"c": 0.6}, label=None))
    np.testing.assert_allclose(window.probabilities, [[0.2, 0.2, 0.6]], rtol=1e-6)
    assert window.rows["is_abstained"].tolist() == [True]


def test_damaged_lines_are_named_and_the_last_is_awaited() -> None:
    bad = [b"{broken\n", b'"text"\n', log_line(8, features="none")]
    content = log_line(0) + b"".join(bad) + log_line(1) + b'{"id":'
    table, damaged = parse_log(content, CLASSES)
    assert (table.num_rows, damaged) == (2, bad)


def test_versions_with_other_classes_and_features_share_a_window() -> None:
    other = log_line(1, probabilities={"d": 0.9, "a": 0.1}, features=[1.0, 2.0, 3.0])
    window = read(log_line(0), other)
    assert window.class_names == (*CLASSES, "d")
    np.testing.assert_allclose(window.probabilities[1], [0.1, 0.0, 0.0, 0.9], rtol=1e-6)
    assert np.isnan(window.features).tolist() == [[False, False, True], [False] * 3]


def test_a_log_without_predictions_is_an_empty_window() -> None:
    assert len(read()) == 0
    assert len(read(b"")) == 0
    assert len(read(event_line(0, "refused"))) == 0


def test_equal_tables_give_equal_bytes() -> None:
    encoded = [encode_parquet(parse_log(log_line(0), CLASSES)[0]) for _ in range(2)]
    assert encoded[0] == encoded[1]
    assert pd.read_parquet(io.BytesIO(encoded[0]))["id"].tolist() == ["id-0"]


def captured_record(number: int, *, is_base64: bool, **answer: Any) -> bytes:
    """Return a line of SageMaker's captured data."""
    prediction = {"id": f"id-{number}", "label": "b", "probabilities": {"b": 0.9, "a": 0.1}}
    body = json.dumps({"predictions": [prediction], "model": "digits", "version": "1"} | answer)
    output = {
        "observedContentType": "application/json",
        "mode": "OUTPUT",
        "data": base64.b64encode(body.encode()).decode() if is_base64 else body,
        "encoding": "BASE64" if is_base64 else "JSON",
    }
    image = {
        "observedContentType": "image/png",
        "mode": "INPUT",
        "data": "iVBO",
        "encoding": "BASE64",
    }
    time = (START + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
    record = {
        "captureData": {"endpointInput": image, "endpointOutput": output},
        "eventMetadata": {"eventId": f"event-{number}", "inferenceTime": time},
        "eventVersion": "0",
    }
    return json.dumps(record).encode() + b"\n"


def test_captured_data_of_sagemaker_is_read(tmp_path: Path) -> None:
    hour = tmp_path / "digits" / "AllTraffic" / "2026" / "11" / "29" / "06"
    hour.mkdir(parents=True)
    (hour / "06-11-000-a.jsonl").write_bytes(
        captured_record(1, is_base64=True) + captured_record(0, is_base64=False)
    )
    tables = read_captured_data(str(tmp_path), CLASSES)
    window = build_window(tables, Selection("digits"), CLASSES)
    assert list(window.rows["id"]) == ["id-0", "id-1"]
    assert list(window.rows["request_id"]) == ["event-0", "event-1"]
    assert window.predicted.tolist() == [1, 1]
    assert window.features.shape == (2, 0)
    assert window.n_refused is None


def test_what_is_no_captured_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no captured data"):
        list(read_captured_data(str(tmp_path), CLASSES))
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"other\.jsonl is no captured data"):
        list(read_captured_data(str(tmp_path), CLASSES))


def test_batch_results_are_read(tmp_path: Path) -> None:
    predictor, dataset, _ = digits_predictor("logistic_regression")
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(encode_png(dataset.images[number]))
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    config = DataConfig(source="folder", path=str(tmp_path / "images"))
    output = OutputFolder.open(str(tmp_path / "scores"), {})
    with open_source(config, labelled=False) as source:
        score(BatchJob(source, config, ScoringModel("digits", 1, predictor), 2), output)
    names = predictor.contract.class_names
    window = build_window(read_batch_results(output), Selection("digits"), names)
    assert (len(window), window.n_refused) == (3, 1)
    expected = predictor.predict(dataset.images[:3]).probabilities
    np.testing.assert_allclose(window.probabilities, expected, atol=1e-6)
