"""What is wrong with a folder of photos: doubtful labels as CSV, what to label next, exclusion."""

import csv
from pathlib import Path

from tests.support.project import Project


def test_doubtful_labels_and_what_to_label_next_are_written(photos_project: Project) -> None:
    photos = photos_project.home / "photos"
    suspicious, following = Path("doubtful.csv"), photos.parent / "next.csv"
    words = ("labels", "suspicious", "--out")
    run = photos_project.run(*words, "of_a_model.csv", "--model", "photos")
    assert "among 36 images of photos version 1." in run.stdout
    run = photos_project.run(*words, str(suspicious))
    assert "among 36 images of the dataset looked at last, " in run.stdout
    assert f"--set data.exclude={suspicious}" in run.stdout
    with (photos_project.root / suspicious).open(newline="") as file:
        assert "likely" in (csv.DictReader(file).fieldnames or ())
    run = photos_project.run(
        "labels", "next", "--from", str(photos), "--n", "5", "--out", str(following)
    )
    assert "5 of 36 images to label, by photos version 1." in run.stdout
    with following.open(newline="") as file:
        paths = [row["image_path"] for row in csv.DictReader(file)]
    assert len(paths) == 5
    assert all((following.parent / path).is_file() for path in paths)
