"""Labelled images from the field become a manifest: copied once, forgotten whole."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.data.encode import encode_png
from cv_factory.data.ingest import ingest
from cv_factory.data.split import split_dataset
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.monitoring.training_data import add_images, select_training_labels
from cv_factory.monitoring.window import Window, build_rows
from registry import deployments, training_data

CLASSES = tuple("0123456789")
N = 40
HMACS = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(N)]


def window() -> Window:
    """Return labels of every kind; images 0 to 9 are of the uniform stratum."""
    sources = ["person:ada"] * 30 + ["system:till"] * 4 + ["model:digits/1"] * 6
    rows = build_rows(
        CLASSES,
        np.full((N, 10), 0.1, np.float32),
        id=[f"p{i}" for i in range(N)],
        time=pd.date_range("2026-01-01", periods=N, freq="h", tz="UTC"),
        image_hmac=HMACS,
        label=np.arange(N) % 10,
        label_source=sources,
        label_time=pd.date_range("2026-02-01", periods=N, freq="h", tz="UTC"),
        is_blind=np.arange(N) % 2 == 0,
        stratum=["uniform"] * 20 + [None] * 20,
    )
    features = np.zeros((N, 2), np.float32)
    return Window(rows, np.full((N, 10), 0.1, np.float32), features, CLASSES)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which a service keeps the images of all but the last label of a person."""
    folder = tmp_path / "kept"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for hmac in [h for i, h in enumerate(HMACS) if i != 29]:
        pixels = rng.integers(0, 256, (8, 8, 1), np.uint8)
        (folder / f"{hmac}.png").write_bytes(encode_png(pixels))
    monkeypatch.setattr(training_data, "load_window", lambda _model: window())
    monkeypatch.setattr(deployments, "image_folders", lambda _model: [folder])
    monkeypatch.setattr(
        training_data,
        "open_folder",
        lambda model, name: OutputFolder.open(str(tmp_path / "store" / model / name), {}),
    )
    return folder


def test_a_label_of_a_model_never_trains() -> None:
    labels = select_training_labels(window(), blind_only=False)
    assert len(labels.rows) == 34
    assert labels.n_untrusted == 6
    assert not labels.rows["label_source"].str.startswith("model:").any()
    blind = select_training_labels(window(), blind_only=True)
    assert len(blind.rows) == 17
    assert set(blind.rows["image_hmac"]) <= {HMACS[i] for i in range(0, N, 2)}


def test_half_of_the_uniform_stratum_tests_or_more_while_it_is_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = select_training_labels(window(), blind_only=False)
    few = labels.rows.set_index("image_hmac")["split"]
    assert (few[HMACS[:20]] == "test").all()
    assert (few[HMACS[20:34]] == "train").all()
    monkeypatch.setattr(f"{select_training_labels.__module__}.MIN_TEST_IMAGES", 5)
    many = select_training_labels(window(), blind_only=False)
    split = many.rows.set_index("image_hmac")["split"]
    assert 4 <= many.n_test <= 16
    fewer = select_training_labels(window().select(np.arange(N) < 10), blind_only=False)
    begun = fewer.rows.set_index("image_hmac")["split"]
    assert ((begun == "test") >= (split[begun.index] == "test")).all(), "none begins to test"
    assert labels.count_since(pd.Timestamp("2026-02-01 09:30", tz="UTC")) == 24


def test_a_manifest_holds_the_images_when_the_service_has_removed_them(kept: Path) -> None:
    labels = training_data.find_training_labels("digits", blind_only=False)
    assert (len(labels.rows), labels.n_without_image, labels.n_untrusted) == (33, 1, 6)
    path = training_data.write_training_data("digits", labels)
    for file in kept.iterdir():
        file.unlink()
    again = training_data.find_training_labels("digits", blind_only=False)
    assert training_data.write_training_data("digits", again) == path, "the same labels"
    config = add_images(TrainingPipelineConfig(data=DataConfig(limit=300)), path)
    dataset = ingest(config.data)
    assert len(dataset) == 333
    added = dataset.manifest["origin"] == "additional"
    test = split_dataset(dataset, config.split).test
    assert added.to_numpy()[test].sum() == labels.n_test
    table = pd.read_parquet(path)
    expected = dict(zip(labels.rows["image_hmac"], labels.rows["label"], strict=True))
    assert {Path(p).stem: n for p, n in zip(table["image_path"], table["label"], strict=True)} == (
        expected
    )


def test_a_forgotten_image_is_in_no_file(kept: Path, tmp_path: Path) -> None:
    labels = training_data.find_training_labels("digits", blind_only=False)
    path = training_data.write_training_data("digits", labels)
    assert training_data.forget_training_images("digits", [HMACS[3], "0" * 64]) == 1
    assert len(pd.read_parquet(path)) == 32
    for file in (tmp_path / "store").rglob("*"):
        assert HMACS[3] not in file.name
        assert file.is_dir() or HMACS[3].encode() not in file.read_bytes()
    assert ingest(DataConfig(limit=300, additional=path))


def test_gates_hold_for_original_and_additional_images() -> None:
    gates = [
        {"metric": "accuracy", "min": 0.95, "source": "digits"},
        {"metric": "roc_auc", "min": 0.7},
        {"metric": "accuracy", "max_drop_vs_production": 0.02},
    ]
    config = TrainingPipelineConfig.model_validate({"gates": gates})
    added = add_images(config, "labels.parquet")
    assert added.data.additional == "labels.parquet"
    assert added.evaluate.slices == [*config.evaluate.slices, "origin"]
    assert [(g.metric, g.slice, g.bound) for g in added.gates] == [
        ("roc_auc", None, ("min", 0.7)),
        ("accuracy", "origin=original", ("min", 0.95)),
        ("accuracy", "origin=original", ("max_drop_vs_production", 0.02)),
        ("accuracy", "origin=additional", ("max_drop_vs_production", 0.02)),
    ]
    assert TrainingPipelineConfig.model_validate(added.model_dump()) == added
    (original, additional) = add_images(TrainingPipelineConfig(), "labels.parquet").gates
    assert original.bound == additional.bound == ("max_drop_vs_production", 0.01)
