"""MLflow: a predictor's model is self-contained and no pickle; settings and pictures have names."""

import subprocess
import sys
from pathlib import Path

import pytest

from cv_factory.reporting.page import Picture
from registry.mlflow.candidate_tracking import name_pictures
from registry.mlflow.logged_model import save_mlflow_model
from registry.mlflow.tracking import flatten
from tests.support.predictors import digits_predictor

_LOAD = """
import sys
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
import cv_factory
example = model.input_example
print(cv_factory.__file__, model.metadata.signature.inputs.input_names(), len(example))
print(model.predict(example)[0]["label"])
forbidden = {"torch", "zenml", "sklearn"} & set(sys.modules)
assert not forbidden, forbidden
"""


@pytest.mark.slow
def test_it_loads_far_from_the_project_with_its_own_code(tmp_path: Path) -> None:
    predictor, _, _ = digits_predictor("logistic_regression")
    model = tmp_path / "model"
    save_mlflow_model(predictor, model, "m-1")
    assert (model / "data" / "predictor" / "predictor.onnx").read_bytes() == predictor.graph
    assert not [p for p in model.rglob("*") if p.suffix in (".pkl", ".pickle", ".joblib")]
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(model)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    code, label = done.stdout.splitlines()
    assert code == f"{model / 'code' / 'cv_factory' / '__init__.py'} ['image'] 1"
    names = predictor.contract.class_names
    assert label == names[int(predictor.golden.probabilities[0].argmax())]


def test_settings_are_flattened_to_one_text_each() -> None:
    settings = {"data": {"source": "folder", "folder": {"pattern": None}, "fetch": {}}}
    assert flatten(settings | {"gates": [{"min": 0.5}]}) == {
        "data.source": "folder",
        "data.folder.pattern": "None",
        "data.fetch": "{}",
        "gates": "[{'min': 0.5}]",
    }


def test_each_picture_has_a_file_whatever_the_classes_are_called() -> None:
    captions = ["ROC curves", "猫 taken for 犬", "犬 taken for 猫", "猫", "../../etc <b>"]
    pictures = [Picture(caption, caption.encode) for caption in captions]
    assert name_pictures(pictures) == {
        "plots/roc_curves.png": b"ROC curves",
        "plots/taken_for.png": "猫 taken for 犬".encode(),
        "plots/taken_for_2.png": "犬 taken for 猫".encode(),
        "plots/picture.png": "猫".encode(),
        "plots/etc_b.png": b"../../etc <b>",
    }
