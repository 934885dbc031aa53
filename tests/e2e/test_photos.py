"""A folder of photos and one command: which configuration it takes, and what comes of it."""

from pathlib import Path

from cv_factory.features.image_features import ImageFeatures
from cv_factory.inference.predictor import Predictor
from tests.support.project import Project
from tests.support.store import snapshot


def test_one_command_makes_a_predictor_of_a_folder_of_photos(photos_project: Project) -> None:
    run = photos_project.history["photos"]
    assert run.stderr.startswith("Configuration: configs/training_photos.yaml, since folder ")
    assert "holds 36 images larger than 24 pixels: a head on features" in run.stderr
    assert "36 images of 128x128x3, 3 classes" in run.stdout
    assert "PASSED photos version 1 is in staging." in run.stdout
    assert "Next: python run.py --pipeline deployment --model photos" in run.stdout

    steps = snapshot(photos_project)["steps"]
    features = ImageFeatures.load(Path(steps["compute_features"]["outputs"]["features"]["uri"]))
    assert features.values.shape == (36, 48)
    predictor = Predictor.load(Path(steps["export"]["outputs"]["predictor"]["uri"]))
    assert predictor.contract.class_names == ("flower", "roof", "sky")


def test_another_head_reuses_the_features_and_validation_all_but_the_head(
    photos_project: Project,
) -> None:
    folder = photos_project.home / "photos"
    source = ("--set", "data.source=folder", "--set", f"data.path={folder}", "--dry-run")
    plan = photos_project.run("--pipeline", "training", *source, "--set", "model.name=mlp").stdout
    states = {row[1]: row[4] for line in plan.splitlines() if len(row := line.split("│")) > 4}
    states = {name.strip(): state.strip() for name, state in states.items()}
    assert {states[n] for n in ("ingest", "compute_features", "find_data_issues")} == {"cached"}
    assert states["train"] == "to be run"
    plan = photos_project.run("--pipeline", "validation", *source).stdout
    assert "to be run" not in plan
