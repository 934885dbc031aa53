"""Options that several commands and pipelines share."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner
from zenml.logger import ZenMLConsoleHandler

from cli import main
from cli.commands.predict import _format_prediction, _predict_by_service
from cli.dispatch import read_config
from cli.options import JSON_OPTION, RunOptions
from cli.pipeline_config import ZenMLConfig
from cli.pipeline_options import pipeline_options
from cli.preparation import Checks
from cv_factory.errors import ConfigError, CVFactoryError, SourceError
from cv_factory_client import ImagePrediction, PredictionClient, ServiceError


def read(pipeline: str, model_name: str) -> Any:
    options = RunOptions(pipeline, None, (), (), None, None, False, False, False, model_name)
    config, _ = read_config(options)
    return config


def test_model_names_the_registered_model_of_every_pipeline_that_has_one() -> None:
    # As text, though YAML would read a number.
    assert read("training", "12").registration.model_name == "12"
    assert read("deployment", "pets").model.name == "pets"
    assert read("batch_inference", "pets").model.name == "pets"
    with pytest.raises(ConfigError, match="validation has no model: remove --model"):
        read("validation", "pets")


def test_model_and_stack_may_stand_before_the_subcommand(monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[dict[str, Any]] = []

    @click.command("models")
    @click.option("--model", "model_name")
    @click.option("--stack")
    def command(**options: Any) -> None:
        values.append(options)

    monkeypatch.setattr(main._CommandGroup, "get_command", lambda *_: command)
    for words in ("--model pets --stack aws models", "models --model pets --stack aws"):
        CliRunner().invoke(main.command, words.split(), catch_exceptions=False)
    group = click.Group("rollout", commands={"models": command})
    monkeypatch.setattr(main._CommandGroup, "get_command", lambda *_: group)
    words = "--model pets --stack aws rollout models"
    CliRunner().invoke(main.command, words.split(), catch_exceptions=False)
    assert values == [{"model_name": "pets", "stack": "aws"}] * 3


@pytest.mark.parametrize("words", ["--dry-run", "--set register.model_name=pets", "--no-cache"])
def test_options_of_a_run_before_a_subcommand_are_refused_and_not_ignored(words: str) -> None:
    result = CliRunner().invoke(main.command, [*words.split(), "promote", "2"])
    assert result.exit_code == 2
    assert f"{words.split()[0]} goes with --pipeline" in result.output


def test_options_of_a_run_without_a_pipeline_are_refused() -> None:
    result = CliRunner().invoke(main.command, ["--set", "train.epochs=3"])
    assert result.exit_code == 2
    assert "--set needs a pipeline: add --pipeline NAME, one of: batch_inference" in result.output


def test_steps_that_are_never_cached_are_not_planned_as_cached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orchestrator = SimpleNamespace(supported_execution_modes=[])
    stack = SimpleNamespace(container_registry=None, orchestrator=orchestrator)
    monkeypatch.setattr("cli.pipeline_options.Client", lambda: SimpleNamespace(active_stack=stack))
    # ZenML applies a run's True over each step's own False.
    assert "enable_cache" not in pipeline_options(ZenMLConfig())
    assert pipeline_options(ZenMLConfig(enable_cache=False)) == {"enable_cache": False}


def test_predict_names_the_image_that_the_service_rejects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def reject(*_: Any) -> None:
        raise ServiceError("rejected the request (422): not an image", 422)

    monkeypatch.setattr(PredictionClient, "predict", reject)
    (tmp_path / "broken.png").write_bytes(b"hello")
    with pytest.raises(CVFactoryError, match=r"broken\.png: rejected the request"):
        _predict_by_service("http://127.0.0.1:9", None, None, [tmp_path / "broken.png"])


@pytest.mark.parametrize(
    ("probability", "text"), [(1.0, "100.0%"), (0.99996, "> 99.9%"), (0.9994, "99.9%")]
)
def test_no_probability_below_one_is_printed_as_certain(probability: float, text: str) -> None:
    prediction = ImagePrediction("1f", "cat", {"cat": probability}, "pets", "2")
    line = _format_prediction(Path("a.png"), prediction, as_json=False)
    assert line == f"a.png: cat  {text}  pets version 2  prediction 1f"


def test_an_output_directory_is_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    for command in (["export", "1"], ["sample"]):
        for name, reason in (("full", "is not empty"), ("file", "is a file")):
            done = CliRunner().invoke(main.command, [*command, "--to", str(tmp_path / name)])
            assert done.exit_code == 2
            assert reason in done.output


def test_json_is_alone_on_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = ZenMLConsoleHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])

    @click.command()
    @JSON_OPTION
    def command(as_json: bool) -> None:
        handler.emit(logging.LogRecord("zenml", logging.WARNING, "", 0, "a notice", (), None))
        click.echo("{}")

    result = CliRunner().invoke(command, ["--json"])
    assert result.stdout == "{}\n"
    assert "a notice" in result.stderr


def test_decisions_need_a_reason() -> None:
    for name in ("approve", "override", "reject", "withdraw"):
        gate = ["--gate", "accuracy at least 0.9"] if name == "override" else []
        done = CliRunner().invoke(main.command, [name, "1", *gate])
        assert done.exit_code == 2
        assert "Missing option '--reason'" in done.output


def test_a_data_folder_that_does_not_exist_is_refused_also_for_a_dry_run(tmp_path: Path) -> None:
    folder = str(tmp_path / "my data")
    options = RunOptions("training", None, (), (), None, folder, False, True, False)
    with pytest.raises(ConfigError, match=f"mkdir -p '{folder}'"):
        read_config(options)
    (tmp_path / "my data").mkdir()
    config: Any
    config, _ = read_config(options)
    assert config.data.data_dir == folder


def test_all_checks_are_made_before_one_ends_the_run() -> None:
    def refuse(message: str, error: type[CVFactoryError] = ConfigError) -> Any:
        raise error(message)

    checks = Checks()
    assert checks.run(lambda: "found") == "found"
    checks.finish()
    assert checks.run(lambda: refuse("no images", SourceError)) is None
    with pytest.raises(SourceError, match="no images"):
        checks.finish()
    checks.run(lambda: refuse("no GPU"))
    with pytest.raises(ConfigError, match="no images\nno GPU"):
        checks.finish()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--pipeline trainin", "there is no pipeline 'trainin'. Did you mean 'training'?"),
        ("modles", "There is no command 'modles'. Did you mean 'models'?"),
    ],
)
def test_a_wrong_name_gets_the_nearest_one(words: str, message: str) -> None:
    result = CliRunner().invoke(main.command, words.split())
    assert result.exit_code == 2
    assert message in result.output
