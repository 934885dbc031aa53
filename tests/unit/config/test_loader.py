"""What a user sees who writes a configuration, right or wrong."""

from pathlib import Path

import pytest

from cli.pipeline_config import file_schema, split_config
from cv_factory.config.loader import load_config
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.errors import ConfigError
from tests.support.paths import ROOT


def load(*overrides: str, file: Path | None = None) -> TrainingPipelineConfig:
    return load_config(TrainingPipelineConfig, file, overrides=overrides)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("training*.yaml")), ids=str)
@pytest.mark.parametrize("preset", [None, *sorted((ROOT / "configs/presets").glob("*.yaml"))])
def test_every_shipped_configuration_is_valid_with_every_preset(
    file: Path, preset: Path | None
) -> None:
    load_config(file_schema("training"), file, presets=[preset] if preset else [])


def test_a_misspelt_key_is_named_with_file_line_and_nearest_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data:\n  source: digits\ntrain:\n  epochs: 3\n  batchsize: 64\n")
    with pytest.raises(ConfigError) as caught:
        load(file=file)
    message = str(caught.value)
    assert f"{file}, line 5" in message
    assert "'train.batchsize'" in message
    assert "Did you mean 'batch_size'?" in message


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("trian: {}\ntrain:\n  epochs: 0\n  learning_rate: fast\n")
    with pytest.raises(ConfigError) as caught:
        load(file=file)
    message = str(caught.value)
    assert "Did you mean 'train'?" in message
    assert "line 3: train.epochs" in message
    assert "allowed: [1, 10000]" in message
    assert "line 4: train.learning_rate" in message
    assert "allowed: (0, 10]" in message


def test_a_wrong_type_is_not_coerced(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text('train:\n  epochs: "3"\n')
    with pytest.raises(ConfigError, match=r"line 2: train\.epochs: .*integer"):
        load(file=file)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train:\n  epochs: 3\n  epochs: 4\n")
    with pytest.raises(ConfigError, match=r"line 3: the key 'epochs' stands there twice"):
        load(file=file)


def test_later_layers_win_and_keep_what_they_do_not_name(tmp_path: Path) -> None:
    base, preset = tmp_path / "base.yaml", tmp_path / "preset.yaml"
    base.write_text("train:\n  epochs: 3\n  batch_size: 16\nsplit:\n  seed: 5\n")
    preset.write_text("train:\n  epochs: 1\n")
    config = load_config(
        TrainingPipelineConfig, base, presets=[preset], overrides=["train.batch_size=8"]
    )
    assert (config.train.epochs, config.train.batch_size, config.split.seed) == (1, 8, 5)


def test_set_reads_numbers_lists_and_items_of_lists() -> None:
    config = load(
        "train.learning_rate=1e-3",
        "model={name: small_cnn, channels: [8, 16]}",
        "gates=[{metric: accuracy, min: 0.5}]",
        "gates.0.min=0.75",
    )
    assert config.train.learning_rate == 1e-3
    assert config.model.model_dump()["channels"] == [8, 16]
    assert config.gates[0].min == 0.75


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs", "dotted.key=value"),
        ("gates.3.min=0.5", "item 3"),
        ("data.source=folder", "--set data.path=FOLDER"),
        ("data.path=/x", "belongs to source 'folder'"),
        ("split.validation=0.9", "nothing is left to train on"),
        ("model.name=resnet9000", "'small_cnn'"),
        ("gates=[{metric: accuracy}]", "exactly one of"),
        ("zenml.resources={trian: {gpu_count: 1}}", "the steps are ingest"),
        ("data.height=32", "both 'height' and 'width'"),
    ],
)
def test_a_wrong_setting_says_what_to_write(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file_schema("training"), overrides=[override])
    assert expected in str(caught.value)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1\n", "just text\n"])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load(file=file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load(file=tmp_path / "nowhere.yaml")


def test_the_fingerprint_follows_results_not_places_or_caching() -> None:
    base = load().fingerprint_fields()
    content = load_config(file_schema("training"), overrides=["zenml.enable_cache=false"])
    config, zenml = split_config("training", content)
    assert not zenml.enable_cache
    assert isinstance(config, TrainingPipelineConfig)
    assert config.fingerprint_fields() == base
    assert load("data.data_dir=/elsewhere").fingerprint_fields() == base
    assert load("train.checkpoint_seconds=0").fingerprint_fields() == base
    assert load("train.epochs=3").fingerprint_fields() != base
    other_name = load("register.model_name=other")
    assert other_name.fingerprint_fields() != base
    assert other_name.predictor_fields() == load().predictor_fields()
