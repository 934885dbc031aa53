"""Logs within bounds: several processes write, none loses a line, and old files go."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.serving import LogConfig, ServingConfig
from cv_factory.processes import daemon
from cv_factory.processes.log_rotation import LOG_VARIABLE, list_rotated_files
from cv_factory.processes.log_tail import LogReader
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.logging.prediction_log import PredictionLog, read_predictions
from cv_factory.serving.postprocessors import PostprocessedPrediction
from tests.support.digits_service import digit, post, served
from tests.support.waiting import wait_until

_SCORES = np.full(40, 0.1, np.float32)
_LINES = 4000
_WRITE = """
import os, sys
from pathlib import Path
from cv_factory.processes.log_rotation import LOG_VARIABLE, RotatedOutput
from cv_factory.serving.logging.request_log import write_to_stderr

name, lines, keep = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
file = RotatedOutput(Path(os.environ[LOG_VARIABLE]), 2**16, keep)
for number in range(lines):
    write_to_stderr(f"{name} {number} " + 80 * name + "\\n")
    if number % 100 == 0:
        file.rotate_if_needed()
"""


_CRASH = """
from cv_factory.processes.log_rotation import rotate_output

rotate_output(2**26, 4)
raise SystemExit("last words")
"""


def put(log: PredictionLog, prediction_id: str) -> None:
    """Log a prediction."""
    answer = PostprocessedPrediction("3", {"3": 0.1})
    log.put(ScoredImage(prediction_id, answer, (_SCORES[:10], _SCORES)), "anyone", "request")


def write(path: Path, *names: str, keep: int) -> None:
    """Let processes write lines into one file, at the same time."""
    with path.open("ab") as log:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITE, name, str(_LINES), str(keep)],
                env={**os.environ, LOG_VARIABLE: str(path)},
                stderr=log,
            )
            for name in names
        ]
    assert [writer.wait(60) for writer in writers] == [0 for _ in names]


def test_several_processes_share_one_output_and_no_line_is_lost_or_cut(tmp_path: Path) -> None:
    path = tmp_path / "process.log"
    write(path, "a", "b", keep=1000)
    files = [*list_rotated_files(path), path]
    assert len(files) > 8
    assert all(file.stat().st_size < 2 * 2**16 for file in files)
    lines = [line for file in files for line in file.read_text().splitlines()]
    for name in "ab":
        own = [line.split(" ") for line in lines if line.startswith(name)]
        assert sorted(int(number) for _, number, _ in own) == list(range(_LINES))
        assert {text for _, _, text in own} == {80 * name}
    assert len(lines) == 2 * _LINES


def test_no_more_files_are_kept_than_configured_and_the_latest_stay(tmp_path: Path) -> None:
    path = tmp_path / "process.log"
    write(path, "a", keep=3)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "process.log",
        "process.log.1",
        "process.log.2",
    ]
    with LogReader(path) as log:
        numbers = [int(line.split(" ")[1]) for line in log.lines()]
    assert numbers == list(range(numbers[0], _LINES))


def test_a_reader_sees_each_line_once_while_files_change(tmp_path: Path) -> None:
    path = tmp_path / "process.log"
    path.write_text("first\n")
    with LogReader(path) as log:
        assert list(log.lines()) == ["first"]
        with path.open("a") as old:
            old.write("second\n")
            old.flush()
            path.rename(tmp_path / "process.log.1")
            path.write_text("third\n")
            assert list(log.lines()) == ["second", "third"]
        assert list(log.lines()) == []


def test_a_reader_goes_on_in_a_renamed_file_while_others_may_write_to_it_and_closes_it_then(
    tmp_path: Path,
) -> None:
    path, renamed = tmp_path / "process.log", tmp_path / "process.log.1"

    def holds_renamed() -> bool:
        list(log.lines())
        opened = Path("/proc/self/fd").iterdir()
        return any(file.is_file() and file.samefile(renamed) for file in opened)

    path.touch()
    with path.open("a") as old, LogReader(path) as log:
        path.rename(renamed)
        path.write_text("new\n")
        assert list(log.lines()) == ["new"]
        old.write("late\n")
        old.close()
        assert list(log.lines()) == ["late"]
        assert holds_renamed()
        wait_until(lambda: not holds_renamed())
        with path.open("a") as new:
            new.write("newer\n")
        assert list(log.lines()) == ["newer"]


def test_a_reader_finds_a_log_that_begins_after_it_and_all_files_that_began_since(
    tmp_path: Path,
) -> None:
    path = tmp_path / "process.log"
    with LogReader(path) as log:
        assert list(log.lines()) == []
        path.write_text("1\n")
        assert list(log.lines()) == ["1"]
        path.rename(tmp_path / "process.log.2")
        (tmp_path / "process.log.1").write_text("2\n")
        path.write_text("3\n")
        assert list(log.lines()) == ["2", "3"]


def test_a_process_that_ends_at_once_has_its_last_words_in_the_present_file(
    tmp_path: Path,
) -> None:
    path, renamed = tmp_path / "process.log", tmp_path / "process.log.1"
    renamed.write_text("".join(f"{number}\n" for number in range(30)))
    with renamed.open("ab") as log:
        told = {**os.environ, LOG_VARIABLE: str(path)}
        assert subprocess.run([sys.executable, "-c", _CRASH], env=told, stderr=log).returncode == 1
    assert path.read_text() == "last words\n"
    words = [line.strip() for line in daemon.log_tail(tmp_path).splitlines()]
    assert words == [*map(str, range(11, 30)), "last words"]


def test_the_prediction_log_keeps_as_many_files_as_it_is_told(tmp_path: Path) -> None:
    log = {"predictions": str(tmp_path), "prediction_files": 2}
    for _ in range(4):
        with served(log=log) as client:
            (told,) = post(client, digit(0)).json()["predictions"]
    assert len(list(tmp_path.iterdir())) == 2
    assert [p["id"] for p in read_predictions(tmp_path)][-1] == told["id"]


def test_two_writers_of_predictions_remove_each_other_s_old_files_and_lose_nothing_new(
    tmp_path: Path,
) -> None:
    config = LogConfig(max_file_bytes=2**16, prediction_files=4)
    logs = [PredictionLog(tmp_path, name, "1", config) for name in "ab"]
    for number in range(2000):
        for log in logs:
            put(log, str(number))
    for log in logs:
        log.close()
        assert log.dropped == 0
    files = list(tmp_path.iterdir())
    assert len(files) <= 5, "one more while both begin one at once"
    kept = list(read_predictions(tmp_path))
    for name in "ab":
        own = [int(p["id"]) for p in kept if p["model"] == name]
        assert own == list(range(own[0], 2000)), "of the latest none is missing"


def test_predictions_not_written_to_for_longest_go_first(tmp_path: Path) -> None:
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


def test_a_file_that_was_begun_again_while_it_was_to_be_removed_stays(tmp_path: Path) -> None:
    names = [tmp_path / f"predictions-{number}-1.jsonl" for number in range(2)]
    for number, name in enumerate(names):
        name.touch()
        os.utime(name, (number, number))

    def is_awaited() -> bool:
        locks = Path("/proc/locks").read_text().splitlines()
        return any("->" in line and f":{inode} " in line for line in locks)

    with names[0].open() as file:
        inode = os.fstat(file.fileno()).st_ino
        fcntl.flock(file, fcntl.LOCK_SH)
        log = PredictionLog(tmp_path, "digits", "1", LogConfig(prediction_files=2))
        put(log, "one")
        wait_until(is_awaited)
        names[0].unlink()
        names[0].write_text("begun again")
    log.close()
    assert names[0].read_text() == "begun again"


def test_as_many_files_of_predictions_as_workers_are_too_few() -> None:
    log = {"prediction_files": 3}
    assert ServingConfig.model_validate({"workers": 2, "log": log}).log.prediction_files == 3
    with pytest.raises(ValueError, match=r"log\.prediction_files is 3 and workers is 3"):
        ServingConfig.model_validate({"workers": 3, "log": log})


def test_a_log_that_cannot_be_written_says_so_once_a_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, begun = tmp_path / "predictions", time.monotonic()
    log = PredictionLog(folder, "digits", "1", LogConfig())
    shutil.rmtree(folder)
    for number in range(10):
        put(log, "lost")
        wait_until(lambda: log.dropped == number + 1)  # noqa: B023 - awaited within the loop
    log.close()
    told = capsys.readouterr().err.count("log-unwritable")
    assert 1 <= told <= 1 + (time.monotonic() - begun)
