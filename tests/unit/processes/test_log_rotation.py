"""Rotated logs: several processes write one, none loses a line, and readers see each line once."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cv_factory.processes import daemon, log_tail
from cv_factory.processes.log_rotation import (
    LOG_VARIABLE,
    ROTATION_INTERVAL_S,
    list_rotated_files,
)
from cv_factory.processes.log_tail import LogReader

_LINES = 4000
_WRITE = """
import os, sys
from pathlib import Path
from cv_factory.processes.log_rotation import LOG_VARIABLE, RotatedOutput

name, lines, n_files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
log = RotatedOutput(Path(os.environ[LOG_VARIABLE]), 2**16, n_files)
for number in range(lines):
    os.write(2, f"{name} {number} {80 * name}\\n".encode())
    if number % 100 == 0:
        log.rotate_if_needed()
"""
_CRASH = """
from cv_factory.processes.log_rotation import rotate_output

rotate_output(2**26, 4)
raise SystemExit("last words")
"""


def write(path: Path, *names: str, n_files: int) -> None:
    """Let processes write lines to one log at the same time."""
    with path.open("ab") as log:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITE, name, str(_LINES), str(n_files)],
                env={**os.environ, LOG_VARIABLE: str(path)},
                stderr=log,
            )
            for name in names
        ]
    assert [writer.wait() for writer in writers] == [0 for _ in names]


def test_several_processes_share_one_log_and_no_line_is_lost_or_cut(tmp_path: Path) -> None:
    path = tmp_path / "process.log"
    write(path, "a", "b", n_files=1000)
    files = [*list_rotated_files(path), path]
    assert len(files) > 8
    assert all(file.stat().st_size < 2 * 2**16 for file in files)
    lines = [line for file in files for line in file.read_text().splitlines()]
    for name in "ab":
        rows = [line.split(" ") for line in lines if line.startswith(name)]
        assert sorted(int(number) for _, number, _ in rows) == list(range(_LINES))
        assert {text for _, _, text in rows} == {80 * name}
    assert len(lines) == 2 * _LINES


def test_the_latest_files_are_kept_as_many_as_configured(tmp_path: Path) -> None:
    path = tmp_path / "process.log"
    write(path, "a", n_files=3)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "process.log",
        "process.log.1",
        "process.log.2",
    ]
    with LogReader(path) as log:
        numbers = [int(line.split(" ")[1]) for line in log.lines()]
    assert numbers == list(range(numbers[0], _LINES))


def test_a_reader_sees_each_line_once_while_files_rotate(tmp_path: Path) -> None:
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


def test_a_reader_closes_a_renamed_file_after_its_writers_have_switched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, renamed = tmp_path / "process.log", tmp_path / "process.log.1"
    now = 0.0
    monkeypatch.setattr(log_tail, "time", SimpleNamespace(monotonic=lambda: now))

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
        now = ROTATION_INTERVAL_S
        assert holds_renamed()
        now = 3 * ROTATION_INTERVAL_S
        assert not holds_renamed()
        with path.open("a") as new:
            new.write("newer\n")
        assert list(log.lines()) == ["newer"]


def test_a_reader_finds_a_log_that_starts_later_and_all_its_files(
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


def test_a_process_that_ends_at_once_logs_to_the_present_file(
    tmp_path: Path,
) -> None:
    path, renamed = tmp_path / "process.log", tmp_path / "process.log.1"
    renamed.write_text("".join(f"{number}\n" for number in range(30)))
    with renamed.open("ab") as log:
        environment = {**os.environ, LOG_VARIABLE: str(path)}
        assert (
            subprocess.run([sys.executable, "-c", _CRASH], env=environment, stderr=log).returncode
            == 1
        )
    assert path.read_text() == "last words\n"
    tail = [line.strip() for line in daemon.log_tail(tmp_path).splitlines()]
    assert tail == [*map(str, range(11, 30)), "last words"]
