"""A compaction may be killed anywhere, repeated, or raced by services: no line is lost."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cv_factory.inference.batch_output import OutputError, OutputFolder
from cv_factory.monitoring import compaction
from cv_factory.monitoring.compaction import compact, read_logs, read_store
from cv_factory.monitoring.prediction_reader import Selection, build_window
from cv_factory.monitoring.window import Window
from tests.support.prediction_logs import CLASSES, START, event_line, log_line, write_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def store(tmp_path: Path) -> OutputFolder:
    return OutputFolder.open(str(tmp_path / "store"), {})


def read(log: Path, store: OutputFolder, **selection: Any) -> Window:
    """Return the window of a log and a store."""
    chosen = Selection("digits", **selection)
    tables = [table for _, table, _ in read_logs([log], CLASSES)]
    return build_window([*tables, *read_store(store, chosen)], chosen, CLASSES)


def lines(*numbers: int) -> bytes:
    return b"".join(map(log_line, numbers))


def ids(window: Window) -> list[str]:
    return list(window.rows["id"])


def test_closed_files_are_moved_and_open_ones_are_still_read(
    log: Path, store: OutputFolder
) -> None:
    write_log(log, lines(0, 1) + event_line(9, "refused"), number=1)
    still_written = write_log(log, lines(2), number=2)
    of_another_model = write_log(log, log_line(3, model="other"), number=1, process=2)
    write_log(log, log_line(4, model="other"), number=2, process=2)
    before = read(log, store)
    result = compact(log, store, "digits", CLASSES)
    assert (result.n_files, result.n_lines, result.n_lost, result.n_damaged) == (1, 3, 0, 0)
    after = read(log, store)
    assert ids(before) == ids(after) == ["id-0", "id-1", "id-2"]
    assert before.rows.equals(after.rows)
    assert before.features.tolist() == after.features.tolist()
    assert before.n_refused == after.n_refused == 1
    assert still_written.exists()
    assert of_another_model.exists()
    assert compact(log, store, "digits", CLASSES).n_files == 0


def test_a_file_that_nobody_writes_any_more_is_closed(log: Path, store: OutputFolder) -> None:
    file = write_log(log, lines(0))
    old = file.stat().st_mtime - 3601.0
    os.utime(file, (old, old))
    assert compact(log, store, "digits", CLASSES).n_files == 1
    assert ids(read(log, store)) == ["id-0"]


class _KilledError(BaseException):
    """Stands for SIGKILL in this process."""


@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("name", ["store.write", "_remove_if_unchanged"])
def test_a_killed_compaction_is_repeated(
    log: Path, store: OutputFolder, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    write_log(log, lines(0, 1), number=1)
    write_log(log, lines(2), number=2)
    target = OutputFolder if name == "store.write" else compaction
    function = name.removeprefix("store.")
    original: Callable[..., Any] = getattr(target, function)

    def kill(*arguments: Any) -> None:
        if step == "after":
            original(*arguments)
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(target, function, kill)
        with pytest.raises(_KilledError):
            compact(log, store, "digits", CLASSES)
    assert ids(read(log, store)) == ["id-0", "id-1", "id-2"]
    compact(log, store, "digits", CLASSES)
    assert ids(read(log, store)) == ["id-0", "id-1", "id-2"]
    assert len(store.names()) == 1


def test_a_file_that_grows_meanwhile_stays(
    log: Path, store: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_log(log, lines(0), number=1)
    write_log(log, lines(2), number=2)
    original = OutputFolder.write

    def write_and_grow(self: OutputFolder, name: str, content: bytes) -> None:
        original(self, name, content)
        with file.open("ab") as opened:
            opened.write(lines(1))

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write", write_and_grow)
        assert compact(log, store, "digits", CLASSES).n_files == 0
    assert store.names() == set()
    assert compact(log, store, "digits", CLASSES).n_lines == 2
    assert ids(read(log, store)) == ["id-0", "id-1", "id-2"]


def test_lost_and_damaged_lines_are_counted_and_kept(log: Path, store: OutputFolder) -> None:
    events = event_line(5, "pruned", 40) + event_line(6, "dropped", 2)
    write_log(log, lines(0) + b"{broken\n" + events + b'{"id": "cut', number=1)
    write_log(log, lines(2), number=2)
    result = compact(log, store, "digits", CLASSES)
    assert (result.n_lines, result.n_lost, result.n_damaged) == (3, 42, 2)
    (damaged,) = (name for name in store.names() if name.startswith("damaged-"))
    assert store.read(damaged) == b'{broken\n{"id": "cut\n'
    assert read(log, store).n_lost == 42


def test_a_store_that_cannot_be_written_loses_nothing(log: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = write_log(log, lines(0), number=1)
    write_log(log, lines(2), number=2)
    with pytest.raises(OutputError, match="Cannot write"):
        compact(log, OutputFolder.open(str(tmp_path / "file" / "store"), {}), "digits", CLASSES)
    assert file.read_bytes() == lines(0)


def test_tables_outside_the_span_are_not_read(
    log: Path, store: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, content in enumerate([lines(0, 59), lines(60), lines(120)]):
        write_log(log, content, number)
    compact(log, store, "digits", CLASSES)
    reads: list[str] = []
    original = OutputFolder.read

    def record_read(self: OutputFolder, name: str) -> bytes:
        reads.append(name)
        return original(self, name)

    monkeypatch.setattr(OutputFolder, "read", record_read)
    minute = START + timedelta(seconds=60)
    assert ids(read(log, store, start=minute)) == ["id-60", "id-120"]
    assert ids(read(log, store, end=minute)) == ["id-0", "id-59"]
    assert len(reads) == 2
