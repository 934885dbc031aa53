"""Settings are held against the images before anything is decoded."""

from pathlib import Path

import pytest

from cv_factory.config.train import TrainConfig
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.data.sources import open_source
from cv_factory.training.data_limits import find_source_problems


def problems(limit: int | None = None, **sections: object) -> list[str]:
    config = TrainingPipelineConfig.model_validate({"data": {"limit": limit}, **sections})
    with open_source(config.data) as source:
        return find_source_problems(config, source)


def test_everything_that_does_not_fit_is_listed_at_once() -> None:
    found = problems(
        transform={"pca": {"n_components": 65}, "patches": {"size": 8}},
        train={"batch_size": 5000, "crop_padding": 9, "cutout": 8},
    )
    assert [text.split(" is ")[0] for text in found] == [
        "transform.pca.n_components",
        "train.batch_size",
        "train.crop_padding",
        "train.cutout",
    ]
    assert "of 64 values have at most 64 components" in found[0]


def test_defaults_fit_the_smallest_set_and_so_does_what_just_fits() -> None:
    assert problems(limit=20) == []
    assert problems(transform={"pca": {"n_components": 64}}, train={"batch_size": 1000}) == []
    assert problems(limit=40, transform={"pca": {"n_components": 40}})
    assert problems(limit=400, train={"batch_size": 300}, split={"validation": 100})


def test_a_gate_on_a_class_that_does_not_exist_is_named() -> None:
    gates = [{"metric": "accuracy", "min": 0.5, "slice": f"class={name}"} for name in ("1", "11")]
    (message,) = problems(gates=gates)
    assert "on class=11, and there is no such class. Did you mean '1'?" in message


def test_classical_models_have_no_batches_and_a_search_fits_on_fewer_images() -> None:
    assert problems(limit=40, train={"batch_size": 300}, model={"name": "mlp"}) == []
    pca = {"pca": {"n_components": 60}}
    assert problems(limit=120, transform=pca) == []
    assert problems(limit=120, transform=pca, search={"families": {"mlp": {}}, "folds": 2})


def test_parts_and_folds_are_no_larger_than_the_source() -> None:
    (message,) = problems(limit=100, split={"validation": 60, "test": 80})
    assert "leave nothing to train on of 100 images" in message
    (message,) = problems(limit=50, search={"families": {"mlp": {}}, "folds": 9})
    assert message.startswith("search.folds is 9, but class")


def test_images_without_a_label_are_no_class_of_a_fold(tmp_path: Path) -> None:
    rows = "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(60))
    (tmp_path / "t.csv").write_text(f"image_path,label\n{rows}60.png,\n")
    data = {"source": "manifest", "path": str(tmp_path / "t.csv")}
    assert problems(data=data, search={"families": {"mlp": {}}, "folds": 3}) == []


@pytest.mark.parametrize(
    ("n_train", "expected"),
    [(2, 2), (14, 14), (100, 16), (1169, 64), (4096, 256), (10**6, 256)],
)
def test_a_batch_that_is_not_configured_suits_the_images(n_train: int, expected: int) -> None:
    assert TrainConfig().choose_batch_size(n_train) == expected
    assert TrainConfig().resolve(n_train).batch_size == expected
    assert TrainConfig(batch_size=8).choose_batch_size(n_train) == 8


def test_a_batch_is_large_enough_for_its_parts() -> None:
    assert TrainConfig(accumulate=32).choose_batch_size(1000) == 64
    assert TrainConfig(accumulate=16, processes=4).choose_batch_size(1000) == 128
