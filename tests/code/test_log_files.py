"""Logs within bounds: several processes write, none loses a line, and old files go."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from served import digit, post, served

from cv_factory.config_serving import LogConfig
from cv_factory.deployment.log_reader import LogReader
from cv_factory.serving.log_files import LOG_VARIABLE, kept_files
from cv_factory.serving.postprocessors import Answer
from cv_factory.serving.prediction_log import PredictionLog, read_predictions
from cv_factory.serving.scoring import Scored

_LINES = 4000
_WRITE = """
import os, sys
from cv_factory.config_serving import LogConfig
from cv_factory.serving.log_files import OutputFile
from cv_factory.serving.logs import write_to_stderr

name, lines, keep = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
config = LogConfig(max_file_bytes=2**16, output_files=keep)
file = OutputFile.told(config)
for number in range(lines):
    write_to_stderr(f"{name} {number} " + 80 * name + "\\n")
    if number % 100 == 0:
        file.follow()
"""


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
    files = [*kept_files(path), path]
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
    with LogReader(tmp_path / "none.log") as log:
        assert list(log.lines()) == []


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
    scores = np.full(40, 0.1, np.float32)
    config = LogConfig(max_file_bytes=2**16, prediction_files=4)
    logs = [PredictionLog(tmp_path, name, "1", config) for name in "ab"]
    for number in range(2000):
        for log in logs:
            scored = Scored(str(number), Answer("3", {"3": 0.1}), (scores[:10], scores))
            log.put(scored, "anyone", "request")
    for log in logs:
        log.close()
        assert log.dropped == 0
    files = list(tmp_path.iterdir())
    assert len(files) <= 5, "one more while both begin one at once"
    kept = list(read_predictions(tmp_path))
    for name in "ab":
        own = [int(p["id"]) for p in kept if p["model"] == name]
        assert own == list(range(own[0], 2000)), "of the latest none is missing"
