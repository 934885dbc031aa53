"""Which configuration a run without --config takes: that for photos, or the pipeline's own."""

from pathlib import Path
from typing import Any

import pytest

from cli import config_choice
from cli.dispatch import read_config
from cli.options import RunOptions
from cv_factory.errors import ConfigError
from tests.support.images import write_class_folders
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_class_folders(root / "photos", per_class=4, size=32)
    write_class_folders(root / "icons", per_class=4, size=24)
    rows = [f"photos/{p.parent.name}/{p.name},{p.parent.name}" for p in root.rglob("*/*/*.png")]
    (root / "labels.csv").write_text("\n".join(["image_path,label", *rows]))
    return root


def read(path: Path, *settings: str, pipeline: str = "training", **options: Any) -> Any:
    source = "manifest" if path.suffix else "folder"
    overrides = (f"data.source={source}", f"data.path={path}", *settings)
    return choose(pipeline, overrides=overrides, **options)


def choose(pipeline: str, **options: Any) -> Any:
    return read_config(RunOptions(pipeline, **options))[0]


@pytest.mark.parametrize("name", ["photos", "labels.csv"])
def test_photos_get_a_head_on_features_and_the_run_says_why(
    folders: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read(folders / name)
    assert config.model.name == "logistic_regression"
    assert (config.features.backbone, config.data.side) == ("efficientnet_lite0", 128)
    line = capsys.readouterr().err
    assert line.startswith("Configuration: configs/training_photos.yaml, since ")
    assert "images larger than 24 pixels: a head on features" in line
    assert line.count("\n") == 1
    validated = read(folders / name, pipeline="validation")
    assert (validated.data, validated.split) == (config.data, config.split), "steps are shared"
    assert validated.features == config.features
    assert "configs/validation_photos.yaml, since " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "head"),
    [
        ("model.name=mlp", "mlp"),
        ("train.seed=3", "logistic_regression"),
        ("model.C=0.1", "logistic_regression"),
        ("search={families: {random_forest: {}}}", "logistic_regression"),
    ],
)
def test_settings_of_heads_and_of_the_backbone_stay_with_it(
    folders: Path, setting: str, head: str
) -> None:
    config = read(folders / "photos", setting)
    assert config.model.name == head
    assert config.features is not None


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("model.name=small_cnn", "model.name=small_cnn"),
        ("model.channels=[8,8]", "model.channels"),
        ("train.epochs=3", "train.epochs"),
        ("search={families: {small_cnn: {}}}", "search.families.small_cnn"),
        ("export.precision=int8", "export.precision"),
        ("features=null", "features=null"),
    ],
)
def test_settings_of_networks_keep_the_configuration_of_networks(
    folders: Path, setting: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read(folders / "photos", setting)
    assert config.model.name == "small_cnn"
    assert config.features is None
    assert f"configs/training.yaml, since {name} is not for a head" in capsys.readouterr().err


def test_a_preset_tries_what_runs_without_it(folders: Path) -> None:
    config = read(folders / "photos", presets=("smoke",))
    assert (config.model.name, config.data.limit) == ("logistic_regression", 400)
    assert config.features is not None


def test_small_images_many_images_and_other_sources_keep_it(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(folders / "icons").features is None
    assert "images of at most 24 pixels." in capsys.readouterr().err
    assert read(folders / "photos", "data.height=16", "data.width=16").features is None
    capsys.readouterr()
    assert choose("training").features is None
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(config_choice, "_MOST_IMAGES", 7)
    assert read(folders / "photos").features is None
    assert "holds more than 7 images" in capsys.readouterr().err
    limit = ("data.limit=6", "validation.min_images=6")
    assert read(folders / "photos", *limit).features is not None


def test_what_is_wrong_is_left_to_the_checks_of_the_run(folders: Path) -> None:
    assert read(folders / "nowhere").model.name == "small_cnn"
    with pytest.raises(ConfigError, match=r"unknown key 'data\.foldr'"):
        read(folders / "photos", "data.foldr=1")
    assert read(folders / "photos", "gates.1.min=0.6").gates[1].min == 0.6
    with pytest.raises(ConfigError, match="model: "):
        read(folders / "photos", "model=3")


def test_a_named_configuration_is_taken_as_it_is(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ROOT / "configs" / "training.yaml"
    assert read(folders / "photos", config=file).features is None
    assert capsys.readouterr().err == ""
