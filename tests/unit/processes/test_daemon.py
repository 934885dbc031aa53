"""A daemon is known by its tag, whatever the clock says, and stopped with what it left behind."""

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from cv_factory.processes import daemon
from cv_factory.processes.daemon import Daemon
from tests.support.clock import step_clock
from tests.support.processes import wait_until_ended
from tests.support.waiting import wait_until

#: A child that says when it gets SIGTERM, and that its parent leaves behind.
_FAMILY = """
import os, signal, sys
if os.fork():
    signal.pause()
signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), os._exit(0)))
print("ready", flush=True)
signal.pause()
"""


#: A wrapper that executes itself so many times, and then sleeps.
_WRAPPER = """
import os, sys
n_execs = int(sys.argv[1])
source = os.environ["SOURCE"]
if n_execs:
    os.execv(sys.executable, [sys.executable, "-S", "-c", source, str(n_execs - 1)])
os.execvp("sleep", ["sleep", "600"])
"""


def start(folder: Path, *command: str) -> Daemon:
    folder.mkdir()
    environment = {"PATH": os.environ["PATH"], "SOURCE": _WRAPPER}
    return daemon.start(command, folder, str(folder), 1, cwd=folder, environment=environment)


def test_a_process_lives_after_a_step_of_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "service"
    process = start(folder, "sleep", "600")
    try:
        step_clock(monkeypatch)
        assert daemon.load_running(folder) == process
        record = json.loads((folder / "process.json").read_text())
        of_earlier_release = record | {"created": psutil.Process(process.pid).create_time() - 3600}
        (folder / "process.json").write_text(json.dumps(of_earlier_release))
        assert daemon.load_running(folder) == process
        of_another = Daemon(os.getpid(), process.tag, 1)
        assert not of_another.is_alive, "the process id was given again"
    finally:
        process.stop(5.0)
    assert daemon.load_running(folder) is None


def test_a_wrapper_that_executes_its_program_is_never_taken_for_ended(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    process = start(folder, sys.executable, "-S", "-c", _WRAPPER, "100")
    seen = []
    while "sleep" not in psutil.Process(process.pid).cmdline():
        seen.append((process.is_alive, len(daemon.find_by_tag(process.tag))))
    process.stop(5.0)
    assert set(seen) == {(True, 1)}, Counter(seen)


def test_a_process_is_known_as_soon_as_it_is_started(tmp_path: Path) -> None:
    processes = [start(tmp_path / str(number), "sleep", "600") for number in range(4)]
    running = [process.is_alive for process in processes]
    for process in processes:
        process.stop(5.0)
    assert running == [True] * 4


def test_what_a_killed_process_left_behind_may_finish(tmp_path: Path) -> None:
    process = start(tmp_path / "service", sys.executable, "-c", _FAMILY)
    log = daemon.log_file(tmp_path / "service")
    wait_until(lambda: "ready" in log.read_text())
    os.kill(process.pid, signal.SIGKILL)
    wait_until_ended(process.pid)
    process.stop(20.0)
    assert "drained" in log.read_text()
    assert daemon.find_by_tag(process.tag) == []
