"""The prediction log stays within its bounds, and several writers lose nothing."""

import fcntl
import io
import json
import math
import os
import shutil
import stat
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cv_factory.artifacts.files import write_atomic
from cv_factory.config.serving import ImageLogConfig, LogConfig, ServingConfig
from cv_factory.data.image_statistics import image_statistics
from cv_factory.errors import ConfigError
from cv_factory.inference.predictor import ImageScores
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.logging import json_lines, prediction_lines
from cv_factory.serving.logging.image_facts import (
    KEY_FILE,
    LoggedImage,
    compute_statistics,
    image_hmac,
    load_key,
)
from cv_factory.serving.logging.image_folder import (
    ImageFolder,
    find_images,
    remove_images,
    remove_old_images,
)
from cv_factory.serving.logging.prediction_lines import LineEncoder, LogRecord
from cv_factory.serving.logging.prediction_log import (
    PredictionLog,
    find_log_files,
    read_predictions,
)
from cv_factory.serving.postprocessors import PostprocessedPrediction
from tests.support.digits_service import app_client, digit_png, post_image
from tests.support.images import encode
from tests.support.predictors import digits_predictor
from tests.support.waiting import has_lock_waiter, wait_until

_FEATURES = np.full(40, 0.1, np.float32)


def open_log(
    folder: Path, config: LogConfig | None = None, model: str = "digits", **options: Any
) -> PredictionLog:
    """Open the log of a version with ten classes."""
    names = [str(number) for number in range(10)]
    return PredictionLog(folder, model, "1", config or LogConfig(), class_names=names, **options)


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
    assert len(find_log_files(tmp_path)) == 2
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
    logs = [open_log(tmp_path, config, model=name) for name in "ab"]
    for number in range(2000):
        for log in logs:
            put(log, str(number))
    for log in logs:
        log.close()
        assert log.dropped == 0
    assert len(find_log_files(tmp_path)) <= 5, "one more while both start one at once"
    predictions = list(read_predictions(tmp_path))
    for name in "ab":
        numbers = [int(p["id"]) for p in predictions if p["model"] == name]
        assert numbers == list(range(numbers[0], 2000)), "none of the latest is missing"


def test_the_least_recently_written_files_are_pruned_first(tmp_path: Path) -> None:
    live, old = (tmp_path / f"predictions-{start}-1.jsonl" for start in ("2026", "2027"))
    live.touch()
    old.touch()
    os.utime(old, (0, 0))
    log = open_log(tmp_path, LogConfig(prediction_files=2))
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

    with files[0].open() as opened:
        inode = os.fstat(opened.fileno()).st_ino
        fcntl.flock(opened, fcntl.LOCK_SH)
        log = open_log(tmp_path, LogConfig(prediction_files=2))
        put(log, "one")
        wait_until(lambda: has_lock_waiter(inode))
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
        open_log(folder)
    log = open_log(folder, is_restart=True)
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
    log = open_log(folder)
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


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Return all lines of a log, events as well."""
    lines = (file.read_text().splitlines() for file in find_log_files(folder))
    return [json.loads(line) for line in chain.from_iterable(lines)]


def test_a_line_describes_the_image_and_all_probabilities(tmp_path: Path) -> None:
    encoded, pixels = digit_png(0), digits_predictor("logistic_regression")[1].images[:1]
    large = encode(Image.open(io.BytesIO(encoded)).resize((16, 24)))
    with app_client(
        log={"predictions": str(tmp_path)}, postprocessor={"settings": {"top_k": 1}}
    ) as client:
        post_image(client, encoded)
        post_image(client, large)
    first, second = read_lines(tmp_path)
    assert first["schema"] == 2
    assert list(first["probabilities"]) == [str(digit) for digit in range(10)]
    assert sum(first["probabilities"].values()) == pytest.approx(1.0)
    assert (first["width"], first["height"]) == (8, 8)
    assert (second["width"], second["height"]) == (16, 24)
    statistics = image_statistics(pixels)
    for name in ("brightness", "contrast", "sharpness"):
        assert first[name] == pytest.approx(getattr(statistics, name)[0], abs=1e-6)
    assert first["sampling_probability"] == 1.0
    assert first["image_hmac"] == image_hmac(pixels[0], load_key(tmp_path))


def test_statistics_of_many_images_are_those_of_a_dataset() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 20, 31, 3), dtype=np.uint8)
    images = [LoggedImage(31, 20, image) for image in pixels]
    compute_statistics([*images, *images])
    expected = image_statistics(pixels)
    columns = [expected.brightness, expected.contrast, expected.sharpness]
    assert np.allclose([image.statistics for image in images], np.transpose(columns), atol=1e-6)


def test_equal_pixels_have_one_hmac_in_every_protocol_and_from_the_cache(tmp_path: Path) -> None:
    bmp = io.BytesIO()
    Image.open(io.BytesIO(digit_png(0))).save(bmp, "BMP")
    tensor = digits_predictor("logistic_regression")[1].images[:1]
    infer = {
        "inputs": [
            {
                "name": "pixels",
                "datatype": "UINT8",
                "shape": list(tensor.shape),
                "data": tensor.ravel().tolist(),
            }
        ]
    }
    with app_client(log={"predictions": str(tmp_path)}, cache={"max_entries": 9}) as client:
        for content in (digit_png(0), digit_png(0), bmp.getvalue(), digit_png(1)):
            post_image(client, content)
        assert client.post("/v2/models/digits/infer", json=infer).status_code == 200
    lines = read_lines(tmp_path)
    assert [line["cached"] for line in lines] == [False, True, False, False, False]
    hmacs = [line["image_hmac"] for line in lines]
    assert len({*hmacs[:3], hmacs[4]}) == 1
    assert hmacs[3] != hmacs[0]
    assert lines[1]["brightness"] == lines[0]["brightness"]


def test_the_key_is_for_its_owner_alone_and_of_one_log(tmp_path: Path) -> None:
    keys = [load_key(tmp_path / name) for name in ("a", "b", "a")]
    assert keys[0] == keys[2] != keys[1]
    assert stat.S_IMODE((tmp_path / "a" / KEY_FILE).stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "a").iterdir()] == [KEY_FILE]


def test_a_damaged_key_makes_no_hmacs(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).touch()
    with pytest.raises(OSError, match="damaged"):
        load_key(tmp_path)
    log = open_log(tmp_path)
    put(log, "lost")
    log.close()
    assert log.dropped == 1


def test_refused_images_are_events_and_no_predictions(tmp_path: Path) -> None:
    with app_client(log={"predictions": str(tmp_path)}) as client:
        assert post_image(client, b"no image").status_code == 422
        post_image(client, digit_png(0))
    refused, prediction = read_lines(tmp_path)
    assert (refused["event"], refused["n"]) == ("refused", 1)
    assert [p["id"] for p in read_predictions(tmp_path)] == [prediction["id"]]


def test_a_sample_is_logged_with_its_probability_and_a_shadow_with_its_answer(
    tmp_path: Path,
) -> None:
    numbers = [number for number in range(10) for _ in range(8)]
    for folder in ("stable", "shadow"):
        log = {"predictions": str(tmp_path / folder), "sampling": 0.5}
        if folder == "shadow":
            (tmp_path / folder).mkdir()
            shutil.copy(tmp_path / "stable" / KEY_FILE, tmp_path / folder)
        with app_client(log=log) as client:
            for place, number in enumerate(numbers):
                post_image(client, digit_png(number), headers={"X-Request-ID": f"r{place}"})
    stable, shadow = (read_lines(tmp_path / folder) for folder in ("stable", "shadow"))
    assert [line["request_id"] for line in stable] == [line["request_id"] for line in shadow]
    assert 15 < len(stable) < 65, "improbable beyond 1e-8"
    assert {line["sampling_probability"] for line in stable} == {0.5}


def test_images_are_kept_as_they_were_sent_for_some_days(tmp_path: Path) -> None:
    images = {"folder": str(tmp_path / "images"), "share": 1.0, "days": 2}
    log = {"predictions": str(tmp_path / "log"), "images": images}
    with app_client(log=log) as client:
        for _ in range(2):
            post_image(client, digit_png(0))
    (line,) = {line["image_hmac"]: line for line in read_lines(tmp_path / "log")}.values()
    (kept,) = find_images(tmp_path / "images", line["image_hmac"])
    assert kept.suffix == ".png"
    assert kept.read_bytes() == digit_png(0)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert remove_old_images(tmp_path / "images", 2) == 0
    old = kept.stat().st_mtime - 2.1 * 86_400
    os.utime(kept, (old, old))
    with app_client(log=log) as client:
        post_image(client, digit_png(1))
    assert not kept.exists()
    (other,) = (tmp_path / "images").iterdir()
    other.with_name(f".{other.name}.of-a-killed-process.partial").touch()
    assert remove_images(tmp_path / "images", {other.stem}) == 2
    assert not any((tmp_path / "images").iterdir())


def test_an_image_is_stored_once_without_a_listing_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", None)
    folder = ImageFolder(ImageLogConfig(folder=str(tmp_path), share=1.0))
    monkeypatch.setattr(folder, "_next_expiry", math.inf)
    pixels, content = np.zeros((8, 8, 3), np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(content, "BMP")
    for sent in (content.getvalue(), None):
        folder.keep([LoggedImage(8, 8, pixels, sent, hmac="ab" * 32)])
    assert [file.name for file in tmp_path.iterdir()] == [f"{'ab' * 32}.bmp"]


def test_images_need_a_prediction_log() -> None:
    with pytest.raises(ValueError, match=r"log\.images: needs log\.predictions"):
        ServingConfig.model_validate({"log": {"images": {"folder": "images", "share": 0.1}}})


def test_an_unwritable_image_folder_loses_no_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_lines.configure_event_logging()
    (tmp_path / "images").touch()
    images = {"folder": str(tmp_path / "images"), "share": 1.0}
    with app_client(log={"predictions": str(tmp_path / "log"), "images": images}) as client:
        post_image(client, digit_png(0))
    assert len(read_lines(tmp_path / "log")) == 1
    assert "image-not-kept" in capsys.readouterr().err


def test_pruned_lines_are_an_event_with_their_number(tmp_path: Path) -> None:
    config = LogConfig(max_file_bytes=2**16, prediction_files=2)
    written = 0
    for name in "abc":
        log = open_log(tmp_path, config)
        for number in range(100):
            put(log, f"{name}{number}")
        log.close()
        written += 100
    lines = read_lines(tmp_path)
    events = [line["n"] for line in lines if line.get("event") == "pruned"]
    assert sum(events) + len(list(read_predictions(tmp_path))) == written
    assert events == [100]


def test_images_that_wait_take_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_lines, "_MAX_WAITING_BYTES", 100)
    image = LoggedImage(8, 8, np.zeros((8, 8, 1), np.uint8))
    encoder = LineEncoder(tmp_path, "digits", "1", LogConfig(), [str(n) for n in range(10)])
    output = PostprocessedPrediction("3", {"3": 0.1})
    result = ScoredImage("id", output, ImageScores(_FEATURES[:10], _FEATURES), image=image)
    records = [LogRecord(result, 0.0, "anyone", "request", None) for _ in range(2)]
    assert [encoder.has_memory(record) for record in records] == [True, False]
    encoder.encode(records[:1])
    assert encoder.has_memory(records[1])
    assert image.pixels is None
