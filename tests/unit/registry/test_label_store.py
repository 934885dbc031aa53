"""The store of labels loses none, keeps their order, and counts what comes twice once."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import registry.monitoring_store
import registry.versions
from cli.commands import feedback as feedback_command
from cli.commands import labels as labels_command
from cli.main import command
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.label_sampling import draw_queue
from cv_factory.monitoring.labels import RECORD_COLUMNS, Frame, build_table, join_labels
from cv_factory.serving.label_record import Label, build_record
from cv_factory.serving.logging.feedback_log import FeedbackLog
from registry import deployments, label_store
from tests.unit.monitoring.test_label_sampling import END, SPAN, build_window


def record(prediction_id: str, label: str, second: int = 0) -> dict[str, Any]:
    return build_record(
        Label(prediction_id=prediction_id, label=label),
        model="pets",
        key="crm",
        time=f"2026-03-02T00:00:{second:02d}.000+00:00",
        origin=f"{prediction_id}/{second}",
    )


def table(*records: dict[str, Any]) -> pd.DataFrame:
    return build_table(records, RECORD_COLUMNS)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> label_store.LabelStore:
    """The store of the model ``pets``, whose one service logs to the folder ``log``."""
    opened = label_store.LabelStore(OutputFolder.open(str(tmp_path / "store"), {}))
    monkeypatch.setattr(label_store, "open_label_store", lambda name: opened)
    monkeypatch.setattr(deployments, "log_folders", lambda name: [tmp_path / "log"])
    return opened


def test_labels_and_samples_come_back_as_they_were_given(store: label_store.LabelStore) -> None:
    assert len(store.load().records) == len(store.load().sample) == 0
    window, _ = build_window(50, 0)
    queue = draw_queue(window, 10, SPAN, END)
    given = table(record("a", "cat"), record("b", "dog"))
    assert store.add(given) == 2
    store.add_sample(queue)
    stored = store.load()
    pd.testing.assert_frame_equal(stored.records, given)
    pd.testing.assert_frame_equal(stored.sample, queue.sample)
    assert stored.frames == (queue.frame,)


def test_what_is_stored_already_is_not_stored_again(
    store: label_store.LabelStore, tmp_path: Path
) -> None:
    given = table(record("a", "cat"), record("b", "dog"))
    store.add(given)
    files = {path: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    assert store.add(given) == 0
    assert store.add(table(record("b", "dog"), record("c", "cat"))) == 1
    assert len(list((tmp_path / "store").iterdir())) == 2
    assert all(path.read_bytes() == content for path, content in files.items())
    assert store.load().records["prediction_id"].tolist() == ["a", "b", "c"]


def test_many_files_become_one_and_a_killed_merge_loses_and_doubles_nothing(
    store: label_store.LabelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_store, "_MAX_FILES", 2)
    for second in range(4):
        store.add(table(record("a", "cat", second)))
    before = store.load().records

    def kill(folder: OutputFolder, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "remove", kill)
        with pytest.raises(KeyboardInterrupt):
            store.merge()
    pd.testing.assert_frame_equal(store.load().records, before)
    store.merge()
    assert len(list((tmp_path / "store").iterdir())) == 1
    pd.testing.assert_frame_equal(store.load().records, before)


def test_a_merge_brings_back_nothing_that_is_forgotten_meanwhile(
    store: label_store.LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_store, "_MAX_FILES", 0)
    store.add(table(record("a", "cat"), record("b", "dog")))
    forgetting = threading.Thread(target=label_store.forget_labels, args=("pets", ["a"], []))
    write = OutputFolder.write

    def write_later(folder: OutputFolder, name: str, content: bytes) -> None:
        if not forgetting.ident:
            forgetting.start()
            forgetting.join(0.2)  # it waits for the merge
        write(folder, name, content)

    monkeypatch.setattr(OutputFolder, "write", write_later)
    label_store.collect_labels("pets")
    forgetting.join()
    assert store.load().records["prediction_id"].tolist() == ["b"]


def test_labels_of_services_count_before_and_after_they_are_collected(
    store: label_store.LabelStore, tmp_path: Path
) -> None:
    log = FeedbackLog(tmp_path / "log", 10)
    store.add(table(record("a", "cat", 5)))
    log.append([record("a", "dog", 3), record("b", "dog", 3)])
    log.append([record("a", "cow", 7), {**record("z", "dog"), "model": "other"}])
    copy = record("a", "cow", 7)
    log.append([{**copy, "time": "2026-03-02T00:00:07.004+00:00"}])  # a shadow's
    before = label_store.load_labels("pets").records
    assert before["prediction_id"].tolist() == ["a", "b", "a", "a"]
    assert before["label"].tolist() == ["dog", "dog", "cat", "cow"]
    assert label_store.collect_labels("pets") == 4
    assert label_store.collect_labels("pets") == 0
    pd.testing.assert_frame_equal(label_store.load_labels("pets").records, before)


def test_what_is_forgotten_is_in_no_file(store: label_store.LabelStore, tmp_path: Path) -> None:
    window, _ = build_window(20, 0)
    store.add_sample(draw_queue(window, 20, SPAN, END))
    forgotten = window.rows["id"][3]
    log = FeedbackLog(tmp_path / "log", 2**20)
    for name in (forgotten, "other"):
        store.add(table(record(name, "cat")))
        log.append([record(name, "dog", 1)])
    hmac = "ab" * 32
    by_image = Label(image_hmac=hmac, label="cat")
    time = "2026-03-02T00:00:00.000+00:00"
    store.add(table(build_record(by_image, model="pets", key=None, time=time, origin="1")))
    assert label_store.forget_labels("pets", [forgotten], [hmac]) == 4
    log.append([record("later", "cat")])
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert forgotten.encode() not in content
    assert hmac.encode() not in content
    left = label_store.load_labels("pets")
    assert left.records["prediction_id"].tolist() == ["other", "later", "other"]
    assert (len(left.sample), len(left.frames)) == (19, 1)
    assert label_store.forget_labels("pets", [forgotten], [hmac]) == 0


@pytest.fixture
def project(
    store: label_store.LabelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """Commands in a folder, of a model with 60 predictions in its log."""
    window, classes = build_window(60, 0, version=["1"] * 60)

    def load_window(name: str, start: Any = None, version: str | None = None) -> Any:
        return join_labels(window, label_store.load_labels(name))

    monkeypatch.chdir(tmp_path)
    for module in (feedback_command, labels_command):
        monkeypatch.setattr(module, "activate_stack", lambda stack: "local")
    monkeypatch.setattr(feedback_command, "current_user", lambda: "ann")
    monkeypatch.setattr(registry.versions, "resolve_model_name", lambda name: "pets")
    monkeypatch.setattr(registry.monitoring_store, "load_window", load_window)
    return SimpleNamespace(window=window, classes=classes)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    assert result.exception is None, (result.output, result.exception)
    return result


def test_a_queue_is_filled_in_and_given_back(project: SimpleNamespace) -> None:
    output = run("labels", "queue", "--n", "30", "--to", "queue.csv").output
    queue = pd.read_csv("queue.csv", dtype=str, keep_default_na=False)
    assert f"queue.csv: {len(queue)} images of pets to label." in output
    assert not {"predicted", "stratum"} & set(queue)
    assert set(queue["is_blind"]) == {"true"}
    names = project.window.class_names
    true = dict(zip(project.window.rows["id"], project.classes, strict=True))
    queue["label"] = [names[true[prediction_id]] for prediction_id in queue["prediction_id"]]
    queue.loc[0, "label"] = ""
    queue.to_csv("queue.csv", index=False)
    output = run("feedback", "queue.csv").output
    assert output.startswith(f"Labels of pets: {len(queue) - 1} new, 1 rows have no label.")
    assert f"{len(queue) - 1} belong to logged predictions." in output
    assert "0 new" in run("feedback", "queue.csv").output
    status = run("labels", "status").output
    n = len(queue) - 1
    assert f"pets: {n} predictions have a label ({n} by a person" in status
    assert f"version 1  {n} of 60" in status
    assert f"by {n} of {n + 1} images asked for, of 60" in status
    run("labels", "queue", "--unanswered", "--to", "rest.csv")
    assert pd.read_csv("rest.csv")["prediction_id"].tolist() == [queue["prediction_id"][0]]
    run("labels", "queue", "--n", "20", "--to", "more.csv", "--show-predictions")
    more = pd.read_csv("more.csv", dtype=str)
    assert not set(more["prediction_id"]) & set(queue["prediction_id"])
    assert set(more["is_blind"]) == {"false"}
    assert set(more["predicted"]) <= set(names)


def test_labels_of_nothing_and_of_no_class_are_stored_and_reported(
    project: SimpleNamespace, tmp_path: Path
) -> None:
    known = project.window.rows["id"][0]
    (tmp_path / "labels.csv").write_text(f"prediction_id,label\n{known},cow\nother,cat\n")
    output = run("feedback", "labels.csv", "--source", "system:crm").output
    assert "Labels of pets: 2 new." in output
    assert "1 belong to none, perhaps not yet: rows 2." in output
    assert "no class of pets, and count as its errors: cow." in output
    assert "system:crm" in set(label_store.load_labels("pets").records["source"])


def test_an_existing_file_is_not_overwritten_and_nothing_is_drawn(
    project: SimpleNamespace, store: label_store.LabelStore, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("mine")
    result = CliRunner().invoke(command, ["labels", "queue"])
    assert "labels.csv exists: name another file" in str(result.exception)
    assert (tmp_path / "labels.csv").read_text() == "mine"
    assert store.load().frames == ()


def test_frames_keep_their_time_zone(store: label_store.LabelStore) -> None:
    window, _ = build_window(20, 0)
    store.add_sample(draw_queue(window, 5, (*SPAN[:2], "3"), datetime.now(UTC)))
    [frame] = store.load().frames
    assert isinstance(frame, Frame)
    assert (frame.start, frame.end, frame.version) == (*SPAN[:2], "3")
