"""What to label next: uncertain images, unlike each other."""

import io
from pathlib import Path

import numpy as np
import pytest

from cv_factory.curation.label_selection import (
    compute_uncertainty,
    rank_folder,
    select_for_labeling,
)
from cv_factory.errors import DataError
from tests.support.images import write_class_folders
from tests.support.predictors import digits_predictor


def test_uncertain_images_are_selected_from_every_cluster() -> None:
    rng = np.random.default_rng(0)
    certain = np.tile([[0.98, 0.02]], (300, 1))
    uncertain = np.tile([[0.5, 0.5]], (90, 1))
    probabilities = np.concatenate([certain, uncertain]).astype(np.float32)
    centers = np.tile([0, 50, 100], 30)
    features = rng.normal(size=(390, 2)).astype(np.float32)
    features[300:, 0] += centers
    selected = select_for_labeling(probabilities, features, 3)
    assert selected.min() >= 300
    assert set(centers[selected - 300]) == {0, 50, 100}


def test_of_few_images_all_are_selected_the_most_uncertain_first() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]], np.float32)
    assert select_for_labeling(probabilities, probabilities, 5).tolist() == [1, 2, 0]
    assert compute_uncertainty(probabilities) == pytest.approx([0.2, 0.8, 0.6])


def test_a_folder_is_ranked_and_written_as_a_manifest(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "new", per_class=3, size=8)
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    selection = rank_folder(digits_predictor("logistic_regression")[0], tmp_path / "new", 4)
    assert [id_ for id_, _ in selection.unreadable] == ["broken.png"]
    file = io.StringIO()
    selection.write_csv(file, tmp_path)
    header, *rows = file.getvalue().splitlines()
    assert header == "image_path,label,likely,confidence,uncertainty"
    assert len(rows) == 4
    assert all(row.startswith("new/") and row.split(",")[1] == "" for row in rows)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image can be read, such as broken.png: "):
        rank_folder(digits_predictor("logistic_regression")[0], tmp_path, 4)
