"""Stages survive a kill at any write; of two promotions at once one wins and one is refused."""

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from cv_factory.errors import ArtifactError
from registry import process_owner
from registry.audit.log import AuditLog, LogConflictError
from registry.audit.log_files import LocalLogFiles, RemoteLogFiles
from registry.audit.state import replay
from registry.permissions import TransitionRefusedError
from registry.stages import StageTransitions, production_history
from tests.support.clock import step_clock


class Killed(BaseException):
    """Stands for the process being killed: nothing may catch it."""


class FakeStores:
    """ZenML, MLflow and log whose writes are counted, and fail from ``kill_before`` on."""

    def __init__(self, folder, stages=None):
        self.truth: dict[int, str] = dict(stages or {1: "production", 2: "staging", 3: "none"})
        self.shown: dict[int, str] = {}
        self.folder = folder
        self.writes = 0
        self.kill_before: int | None = None

    def _write(self):
        if self.kill_before is not None and self.writes >= self.kill_before:
            raise Killed
        self.writes += 1

    def stages(self):
        return dict(self.truth)

    def displaced(self, stage: str):
        return [n for n, held in self.truth.items() if held == stage != "archived"]

    def set_stage(self, version: int, stage: str):
        self._write()
        self.truth[version] = stage

    def update_stages(self, stages: Mapping[int, str]):
        self._write()
        self.shown = dict(stages)

    def log(self):
        stores, files = self, LocalLogFiles(self.folder)

        class Counted(LocalLogFiles):
            def create(self, name, content):
                stores._write()
                files.create(name, content)

        return AuditLog(Counted(self.folder))

    def transitions(self):
        """Return the transitions as a new process creates them."""
        return StageTransitions(self.log(), self, self)

    def kinds(self):
        return [entry.kind for entry in self.log().entries()]


OLD = {1: "production", 2: "staging", 3: "none"}
NEW = {1: "archived", 2: "production", 3: "none"}


def promote(stores, version=2):
    return stores.transitions().move(
        "promote", version, "production", who="ada", why="it is better"
    )


def test_a_promotion_moves_both_versions_and_logs_it(tmp_path):
    stores = FakeStores(tmp_path)
    outcome = promote(stores)
    assert (stores.truth, stores.shown) == (NEW, NEW)
    assert stores.kinds() == ["intent", "done"]
    assert str(outcome) == (
        "Promote: version 1 production → archived, version 2 staging → production."
    )
    assert promote(stores).result == "unchanged"
    assert stores.kinds() == ["intent", "done"]


@pytest.mark.parametrize("write", range(5))
def test_a_kill_before_any_write_leaves_the_old_or_the_new_state(tmp_path, write):
    """The five writes: intent, archive, promote, mirror, done."""
    stores = FakeStores(tmp_path)
    stores.kill_before = write
    with pytest.raises(Killed):
        promote(stores)
    stores.kill_before = None
    outcome = stores.transitions().recover()
    if write == 0:
        assert (outcome, stores.truth, stores.kinds()) == (None, OLD, [])
    elif write == 1:
        assert (outcome.result, stores.truth) == ("undone", OLD)
        assert stores.kinds() == ["intent", "undone"]
        assert "An interrupted promote was undone" in str(outcome)
    else:
        assert (outcome.result, stores.truth, stores.shown) == ("done", NEW, NEW)
        assert stores.kinds() == ["intent", "done"]
        assert "An interrupted promote was finished" in str(outcome)
    assert stores.transitions().recover() is None
    promote(stores)
    assert (stores.truth, stores.shown) == (NEW, NEW)


@pytest.mark.parametrize("first", range(1, 5))
@pytest.mark.parametrize("second", range(4))
def test_a_kill_during_recovery_is_recovered_from_as_well(tmp_path, first, second):
    stores = FakeStores(tmp_path)
    stores.kill_before = first
    with pytest.raises(Killed):
        promote(stores)
    stores.kill_before = first + second
    with contextlib.suppress(Killed):
        stores.transitions().recover()
    stores.kill_before = None
    stores.transitions().recover()
    assert stores.truth in (OLD, NEW)
    assert list(stores.truth.values()).count("production") == 1
    if stores.truth == NEW:
        assert stores.shown == NEW


def test_the_next_move_recovers_first(tmp_path):
    stores = FakeStores(tmp_path)
    stores.kill_before = 2
    with pytest.raises(Killed):
        promote(stores)
    stores.kill_before = None
    promote(stores, version=3)
    assert stores.truth == {1: "archived", 2: "archived", 3: "production"}
    assert stores.kinds() == ["intent", "done", "intent", "done"]
    assert production_history(stores.log().entries()) == [2, 3]


def test_of_many_promotions_at_once_each_wins_or_is_refused(tmp_path):
    stores = FakeStores(tmp_path, {1: "production", **dict.fromkeys(range(2, 10), "none")})
    results, gate = {}, threading.Barrier(8)

    def run(version):
        gate.wait()
        try:
            results[version] = promote(stores, version).result
        except (LogConflictError, TransitionRefusedError) as error:
            results[version] = error

    threads = [threading.Thread(target=run, args=(v,)) for v in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [v for v, result in results.items() if result == "done"]
    assert len(results) == 8
    assert winners
    assert [v for v, stage in stores.truth.items() if stage == "production"] == [
        production_history(stores.log().entries())[-1]
    ]
    for error in (r for r in results.values() if not isinstance(r, str)):
        assert "again" in str(error)


def test_a_transition_of_a_living_process_is_left_alone(tmp_path, monkeypatch):
    stores = FakeStores(tmp_path)
    stores.kill_before = 1
    with pytest.raises(Killed):
        promote(stores)
    stores.kill_before = None
    # As if it were another process of this machine, first alive and then dead.
    monkeypatch.setattr("registry.process_owner.os.getpid", lambda: -1)
    with pytest.raises(TransitionRefusedError, match="ada is moving versions right now"):
        promote(stores, 3)
    step_clock(monkeypatch)
    with pytest.raises(TransitionRefusedError, match="ada is moving versions right now"):
        promote(stores, 3)
    monkeypatch.setattr(process_owner, "_is_process_alive", lambda process, start: False)
    assert stores.transitions().recover().result == "undone"


def test_a_transition_of_another_machine_is_left_alone_for_a_while(tmp_path, monkeypatch):
    stores = FakeStores(tmp_path)
    stores.kill_before = 2
    with pytest.raises(Killed):
        promote(stores)
    stores.kill_before = None
    monkeypatch.setattr("registry.process_owner.socket.gethostname", lambda: "elsewhere")
    with pytest.raises(TransitionRefusedError):
        stores.transitions().recover()
    # That machine's clock was an hour ahead, and was set since.
    monkeypatch.setattr("registry.process_owner.time.time", lambda: time.monotonic() - 3600)
    assert stores.transitions().recover().result == "done"


def test_a_move_that_was_decided_on_a_shorter_log_is_refused(tmp_path):
    stores = FakeStores(tmp_path)
    decided_on = stores.log().entries()
    stores.log().append(decided_on, "judged", "a run", "it failed", {})
    with pytest.raises(LogConflictError):
        stores.transitions().move("stage", 3, "staging", who="ada", why="", after=decided_on)
    assert stores.truth == OLD


def test_a_move_ends_although_another_process_logs_something_meanwhile(tmp_path, monkeypatch):
    stores, append = FakeStores(tmp_path), AuditLog.append

    def log_a_stop_first(log, after, kind, who, why, detail):
        if kind == "done" and len(stores.log().entries()) == 1:
            append(stores.log(), after, "stopped", "eve", "zenml", {"version": 1})
        return append(log, after, kind, who, why, detail)

    monkeypatch.setattr(AuditLog, "append", log_a_stop_first)
    assert promote(stores).result == "done"
    assert stores.kinds() == ["intent", "stopped", "done"]


def test_a_version_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TransitionRefusedError, match="versions: 1, 2, 3"):
        promote(FakeStores(tmp_path), 7)


def test_rollbacks_walk_back(tmp_path):
    stores = FakeStores(tmp_path, {1: "staging", 2: "none", 3: "none"})
    for version in (1, 2, 3):
        promote(stores, version)
    assert production_history(stores.log().entries()) == [1, 2, 3]
    stores.transitions().move("rollback", 2, "production", who="ada", why="3 is bad")
    assert production_history(stores.log().entries()) == [1, 2]
    assert stores.truth == {1: "archived", 2: "production", 3: "archived"}


def write_entries(folder, n=4):
    log = AuditLog(LocalLogFiles(folder))
    for i in range(n):
        log.append(log.entries(), "registered", "ada", "because", {"version": i})
    return log


def test_the_log_is_read_back_in_order(tmp_path):
    entries = write_entries(tmp_path).entries()
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert [entry.detail["version"] for entry in entries] == [0, 1, 2, 3]
    assert entries[2].previous == entries[1].sha256
    assert not list(tmp_path.glob("*.partial"))


def edit(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


@pytest.mark.parametrize(
    "tamper",
    [
        lambda files: edit(files[1], who="eve"),
        lambda files: edit(files[3], why="for fun"),
        lambda files: edit(files[3], previous="0" * 64),
        lambda files: files[1].unlink(),
        lambda files: files[0].unlink(),
        lambda files: files[2].write_text("{"),
        lambda files: files[2].write_bytes(files[1].read_bytes()),
        lambda files: files[3].write_text(files[3].read_text() + " "),
    ],
)
def test_an_edit_of_the_log_shows(tmp_path, tamper):
    log = write_entries(tmp_path)
    tamper(sorted(tmp_path.iterdir()))
    with pytest.raises(ArtifactError, match="Audit log"):
        log.entries()


def test_an_entry_is_fetched_from_a_remote_store_once(tmp_path):
    """A command looks at the log dozens of times."""
    write_entries(tmp_path)
    opened = []

    def open_file(path, mode):
        opened.append(path)
        return (tmp_path / path.rsplit("/", 1)[-1]).open(mode)

    store: Any = SimpleNamespace(
        exists=lambda _: True, listdir=lambda _: sorted(p.name for p in tmp_path.iterdir())
    )
    store.open = open_file
    log = AuditLog(RemoteLogFiles(store, "s3://bucket/log"))
    assert log.entries() == log.entries()
    assert len(opened) == 4


def test_a_number_is_written_once(tmp_path):
    log = write_entries(tmp_path)
    stale = log.entries()[:2]
    before = sorted(path.read_bytes() for path in tmp_path.iterdir())
    with pytest.raises(LogConflictError, match="nothing was changed"):
        log.append(stale, "registered", "eve", "", {})
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == before


def test_a_rejection_names_the_version_that_zenml_archives_for_it(tmp_path):
    """ZenML gives the stage ``none`` to one version at a time, as any stage."""
    stores = FakeStores(tmp_path, {1: "staging"})
    for version in (1, 2):
        stores.truth[version] = "staging"
        stores.transitions().move("reject", version, "none", who="ada", why="bad")
    assert stores.truth == {1: "archived", 2: "none"}
    state = replay(stores.log().entries())
    assert state.stages == stores.truth
    assert [state.versions[n].rejection.detail["action"] for n in (1, 2)] == ["reject"] * 2
