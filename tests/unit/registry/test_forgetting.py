"""What is forgotten is in no file any more, and what is not forgotten stays."""

import io
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from cli.main import command
from cv_factory.errors import ConfigError
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.compaction import compact
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.label_record import Label, build_record
from cv_factory.serving.logging.feedback_log import FeedbackLog
from cv_factory.serving.logging.prediction_log import find_log_files, read_predictions
from registry import deployments, forgetting, label_store
from registry import monitoring_store as monitoring_store_module
from tests.support.digits_service import app_client, digit_png, digits_bundle, post_image
from tests.support.prediction_logs import log_line, write_log


class _Log:
    """Audit log that keeps its entries in memory."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def record(self, *entry: Any) -> None:
        self.entries.append(entry)


class _Monitored:
    """The model ``digits``, whose service has predicted digits 0, 1 and 0."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.images = folder, folder / "log", folder / "images"
        images = {"folder": str(self.images), "share": 1.0}
        self.bundle: Bundle = digits_bundle(log={"predictions": str(self.log), "images": images})
        self.registry: Any = SimpleNamespace(model_name="digits", log=_Log())
        with app_client(log=self.bundle.serving.log.model_dump()) as client:
            for number in (0, 1, 0):
                post_image(client, digit_png(number))
        self.predictions = list(read_predictions(self.log))

    def open(self, path: str) -> OutputFolder:
        return OutputFolder.open(str(self.folder / "store" / path), {})

    def compact(self) -> None:
        """Move the service's log into the store."""
        (file,) = find_log_files(self.log)
        os.utime(file, (0, 0))
        names = self.bundle.predictor.contract.class_names
        folder = self.open("cv_factory_monitoring/digits/predictions")
        assert compact(self.log, folder, "digits", names).n_files == 1

    def label(self) -> None:
        """Give the first two predictions labels: by a service, and in the store."""
        labels = [
            build_record(
                Label(prediction_id=p["id"], label="0"),
                model="digits",
                key="crm",
                time=p["time"],
                origin=p["id"],
            )
            for p in self.predictions[:2]
        ]
        FeedbackLog(self.log, 2**20).append(labels)
        label_store.collect_labels("digits")

    def texts(self) -> str:
        """Return all that the files of the folder say, their names included."""
        return "\n".join(
            f"{file.name}\n{_text(file)}" for file in self.folder.rglob("*") if file.is_file()
        )


def _text(file: Path) -> str:
    if file.suffix == ".parquet":
        return pd.read_parquet(io.BytesIO(file.read_bytes())).to_csv()
    return file.read_bytes().decode("latin-1")


@pytest.fixture
def monitored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Monitored:
    model = _Monitored(tmp_path)
    monkeypatch.setattr(deployments, "load_bundles", lambda name: [model.bundle])
    for module in (monitoring_store_module, label_store):
        monkeypatch.setattr(module, "open_store_folder", model.open)
    return model


@pytest.mark.parametrize("is_compacted", [False, True])
def test_an_image_is_in_no_file_any_more(monitored: _Monitored, is_compacted: bool) -> None:
    monitored.label()
    if is_compacted:
        monitored.compact()
    zero, one, _ = monitored.predictions
    before = monitored.texts()
    for secret in (zero["image_hmac"], zero["id"]):
        assert secret in before
    hmacs = forgetting.hash_image("digits", digit_png(0))
    assert hmacs == {zero["image_hmac"]}
    forgotten = forgetting.forget(monitored.registry, hmacs, None, None, "asked for")
    assert forgotten.n_predictions == 2
    assert forgotten.n_labels == 2, "in the service's file and the store"
    assert forgotten.n_images == 1
    after = monitored.texts()
    for prediction in monitored.predictions[::2]:
        assert prediction["image_hmac"] not in after
        assert prediction["id"] not in after
    assert one["image_hmac"] in after
    assert one["id"] in after
    assert len(label_store.load_labels("digits").records) == 1
    ((kind, who, why, detail),) = monitored.registry.log.entries
    assert (kind, who, why, detail["n_predictions"]) == ("forgotten", None, "asked for", 2)
    assert not any(zero["image_hmac"] in str(value) for value in detail.values())


def test_what_is_old_is_forgotten_with_its_labels_and_images(monitored: _Monitored) -> None:
    monitored.label()
    monitored.compact()
    for file in monitored.images.iterdir():
        os.utime(file, (0, 0))
    recent = write_log(monitored.log, log_line(0, time="2999-01-01T00:00:00.000+00:00"))
    forgotten = forgetting.forget(monitored.registry, (), 0.0, None, "retention")
    assert (forgotten.n_predictions, forgotten.n_images) == (3, 2)
    after = monitored.texts()
    for prediction in monitored.predictions:
        assert prediction["id"] not in after
    assert recent.exists()
    assert len(label_store.load_labels("digits").records) == 0


def test_damaged_lines_and_other_models_are_looked_through(monitored: _Monitored) -> None:
    hmac = f"{7:064x}"
    content = b'{"image_hmac": "' + hmac.encode() + b'", broken\n' + log_line(7)
    of_another = log_line(7, model="pets")
    write_log(monitored.log, content + log_line(8))
    other = write_log(monitored.log, of_another, process=2)
    forgetting.forget(monitored.registry, [hmac], None, None, "asked for")
    other.unlink()
    assert hmac not in monitored.texts()
    assert "id-8" in monitored.texts()


def test_a_line_that_is_written_meanwhile_is_not_lost(monitored: _Monitored) -> None:
    zero = monitored.predictions[0]["image_hmac"]
    with app_client(log=monitored.bundle.serving.log.model_dump()) as client:
        post_image(client, digit_png(2))
        forgetting.forget(monitored.registry, [zero], None, None, "asked for")
        post_image(client, digit_png(3))
    assert len(list(read_predictions(monitored.log))) == 3, "digits 1, 2 and 3"


def test_an_image_is_recognized_by_a_log_alone(monitored: _Monitored) -> None:
    serving = monitored.bundle.serving.model_copy(update={"log": digits_bundle().serving.log})
    monitored.bundle = replace(monitored.bundle, serving=serving)
    with pytest.raises(ConfigError, match="No service of digits on this machine logs predictions"):
        forgetting.hash_image("digits", digit_png(0))


def test_the_command_needs_something_to_forget() -> None:
    for arguments, message in (
        ([], "Name an HMAC, --image FILE or --older-than DAYS."),
        (["abc"], "'abc' is no HMAC"),
    ):
        result = CliRunner().invoke(command, ["forget", *arguments])
        assert result.exit_code == 2
        assert message in result.output
