"""What a user sees who writes a configuration, right or wrong."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from pydantic import TypeAdapter

from cli.pipeline_config import file_schema, library_schema, split_config
from cv_factory.config.loader import load_config
from cv_factory.config.model import MODEL_SECTIONS
from cv_factory.config.pipelines import PIPELINE_CONFIGS
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
    with pytest.raises(ConfigError, match=r"line 2: train\.epochs: must be a whole number"):
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
        ("model.name=resnet9000", "Did you mean 'resnet18'?"),
        ("gates=[{metric: accuracy}]", "exactly one of"),
        ("zenml.resources={trian: {gpu_count: 1}}", "the steps are ingest"),
        ("data.height=32", "both 'height' and 'width'"),
        ("model.name=resnet", "model.name: 'resnet' is not allowed. Did you mean 'resnet18'?"),
        ("model.channels=[8, 16]", "model.name: must be given: one of efficientnet_lite0, "),
        ("model=small_cnn", "must hold settings of its own"),
        ("model.name=torchvision", "model.architecture: must be given: torchvision's name"),
        ("train.device=gpu", "train.device: 'gpu' is not allowed. Did you mean 'cuda'?"),
        ("train.precision=float16", "Did you mean 'fp16'?"),
        ("export.precision=fp16", "Did you mean 'float16'?"),
        ("data.source=csv", "Did you mean 'manifest'?"),
        ("data.channels=4", "4 is not allowed. Valid values: 1, 3."),
        ("gates=[{metric: acc, min: 0.5}]", "Did you mean 'accuracy'?"),
        ("train=null", "train: must not be empty: remove the key for the defaults"),
        ("train.epochs=1.5", "must be a whole number (got 1.5); allowed: [1, 10000]"),
        ("evaluate.slices=class", "must be a list, such as [class]"),
        ("validation.side=[1]", "must have 2 items or more, not 1"),
        ("split.validation=abc", "split.validation: must be a number (got 'abc')"),
        ("data.storage_options={a: [1]}", "a: must be text or a whole number or true or false"),
        ("register.model_name=a b", "letters, digits, - and _"),
        ("zenml.resources={train: {memory: 8G}}", "such as 8GB or 512MiB"),
        ("search.families={mlp: {model.alpha: [1, 2]}}", "must be a range, {low: 1, high: 9}, or"),
    ],
)
def test_a_wrong_setting_says_what_to_write(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file_schema("training"), overrides=[override])
    assert expected in str(caught.value)
    # pydantic's words
    assert not re.search(
        r"[Ii]nput |[Ff]ield |[Ss]tring should|valid dictionary", str(caught.value)
    )


@pytest.mark.parametrize("pipeline", sorted(PIPELINE_CONFIGS))
def test_every_section_may_be_left_out_and_survives_zenml(pipeline: str, tmp_path: Path) -> None:
    schema = library_schema(pipeline)
    shipped = yaml.safe_load((ROOT / "configs" / f"{pipeline}.yaml").read_text())
    for left_out in (None, *shipped):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump({k: v for k, v in shipped.items() if k != left_out}))
        config, _ = split_config(pipeline, load_config(file_schema(pipeline), file))
        # ZenML stores parameters of a pipeline, and of each step, without what was not set.
        assert schema.model_validate(config.model_dump(exclude_unset=True)) == config
        for name, annotation in get_type_hints(schema, include_extras=True).items():
            if name not in schema.model_fields:
                continue
            section, adapter = getattr(config, name), TypeAdapter[object](annotation)
            stored = adapter.dump_python(section, exclude_unset=True)
            assert adapter.validate_python(stored) == section, f"{name} without {left_out}"


@pytest.mark.parametrize("name", sorted(MODEL_SECTIONS))
def test_a_model_of_defaults_keeps_its_name(name: str) -> None:
    needed = {"architecture": "shufflenet_v2_x0_5"} if name == "torchvision" else {}
    assert MODEL_SECTIONS[name](**needed).model_dump(exclude_unset=True)["name"] == name


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
