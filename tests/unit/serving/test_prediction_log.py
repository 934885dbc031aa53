"""The prediction log stays within its bounds, and several writers lose nothing."""

import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest

from cv_factory.artifacts.files import write_atomic
from cv_factory.config.serving import LogConfig, ServingConfig
from cv_factory.errors import ConfigError
from cv_factory.inference.predictor import ImageScores
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.logging import json_lines
from cv_factory.serving.logging.prediction_log import PredictionLog, read_predictions
from cv_factory.serving.postprocessors import PostprocessedPrediction
from tests.support.digits_service import app_client, digit_png, post_image
from tests.support.waiting import wait_until

_FEATURES = np.full(40, 0.1, np.float32)


def put(log: PredictionLog, prediction_id: str) -> None:
    """Log a prediction."""
    output = PostprocessedPrediction("3", {"3": 0.1})
    scores = ImageScores(_FEATURES[:10], _FEATURES)
    log.put(ScoredImage(prediction_id, output, scores), "anyone", "request")


def test_as_many_files_are_kept_as_configured(tmp_path: Path) -> None:
    log = {"predictions": str(tmp_path), "prediction_files": 2}
    for _ in range(4):
        with app_client(log=log) as client:
            [prediction] = post_image(client, digit_png(0)).json()["predictions"]
    assert len(list(tmp_path.iterdir())) == 2
    assert [p["id"] for p in read_predictions(tmp_path)][-1] == prediction["id"]


def test_each_prediction_names_the_present_arm_of_its_service(tmp_path: Path) -> None:
    state, log = tmp_path / "state.json", tmp_path / "log"
    with app_client(state_file=state, log={"predictions": str(log)}) as client:
        for arm in (None, "shadow", "stable"):
            if arm is not None:
                write_atomic(state, json.dumps({"stage": "staging", "arm": arm}).encode())
            post_image(client, digit_png(0), headers={"X-Request-ID": f"of-{arm}"})
    logged = [(p["arm"], p["request_id"]) for p in read_predictions(log)]
    assert logged == [(None, "of-None"), ("shadow", "of-shadow"), ("stable", "of-stable")]


def test_two_writers_prune_each_others_files_and_lose_nothing_new(tmp_path: Path) -> None:
    config = LogConfig(max_file_bytes=2**16, prediction_files=4)
    logs = [PredictionLog(tmp_path, name, "1", config) for name in "ab"]
    for number in range(2000):
        for log in logs:
            put(log, str(number))
    for log in logs:
        log.close()
        assert log.dropped == 0
    assert len(list(tmp_path.iterdir())) <= 5, "one more while both start one at once"
    predictions = list(read_predictions(tmp_path))
    for name in "ab":
        numbers = [int(p["id"]) for p in predictions if p["model"] == name]
        assert numbers == list(range(numbers[0], 2000)), "none of the latest is missing"


def test_the_least_recently_written_files_are_pruned_first(tmp_path: Path) -> None:
    live, old = (tmp_path / f"predictions-{start}-1.jsonl" for start in ("2026", "2027"))
    live.touch()
    old.touch()
    os.utime(old, (0, 0))
    log = PredictionLog(tmp_path, "digits", "1", LogConfig(prediction_files=2))
    put(log, "one")
    log.close()
    assert live.exists()
    assert not old.exists()
    assert [p["id"] for p in read_predictions(tmp_path)] == ["one"]


def test_a_file_that_was_recreated_while_it_was_to_be_pruned_stays(tmp_path: Path) -> None:
    files = [tmp_path / f"predictions-{number}-1.jsonl" for number in range(2)]
    for number, file in enumerate(files):
        file.touch()
        os.utime(file, (number, number))

    def has_waiter() -> bool:
        locks = Path("/proc/locks").read_text().splitlines()
        return any("->" in line and f":{inode} " in line for line in locks)

    with files[0].open() as opened:
        inode = os.fstat(opened.fileno()).st_ino
        fcntl.flock(opened, fcntl.LOCK_SH)
        log = PredictionLog(tmp_path, "digits", "1", LogConfig(prediction_files=2))
        put(log, "one")
        wait_until(has_waiter)
        files[0].unlink()
        files[0].write_text("recreated")
    log.close()
    assert files[0].read_text() == "recreated"


def test_each_worker_needs_a_file_of_its_own() -> None:
    log = {"prediction_files": 3}
    assert ServingConfig.model_validate({"workers": 2, "log": log}).log.prediction_files == 3
    with pytest.raises(ValueError, match=r"log\.prediction_files: is 3 and workers is 3"):
        ServingConfig.model_validate({"workers": 3, "log": log})


def test_a_missing_folder_stops_the_first_start_but_no_restart(tmp_path: Path) -> None:
    folder = tmp_path / "predictions"
    folder.touch()
    with pytest.raises(ConfigError, match="cannot create the folder"):
        PredictionLog(folder, "digits", "1", LogConfig())
    log = PredictionLog(folder, "digits", "1", LogConfig(), is_restart=True)
    put(log, "lost")
    wait_until(lambda: log.dropped == 1)
    folder.unlink()
    put(log, "written")
    log.close()
    assert [entry["id"] for entry in read_predictions(folder)] == ["written"]


def test_write_errors_are_reported_once_an_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    json_lines.configure_event_logging()
    monkeypatch.setattr(json_lines, "_REPORT_INTERVAL_S", 3600.0)
    folder = tmp_path / "predictions"
    log = PredictionLog(folder, "digits", "1", LogConfig())
    folder.rmdir()
    folder.touch()
    for number in range(10):
        put(log, "lost")
        wait_until(lambda: log.dropped == number + 1)  # noqa: B023 - awaited within the loop
    monkeypatch.setattr(json_lines, "_REPORT_INTERVAL_S", 0.0)
    put(log, "lost")
    log.close()
    assert log.dropped == 11
    assert capsys.readouterr().err.count("log-unwritable") == 2
