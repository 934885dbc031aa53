"""Doubtful labels, near duplicates and outliers, by features that are made for the test."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cv_factory.config.validation import ValidationConfig
from cv_factory.curation.data_issues import DataIssues
from cv_factory.curation.find_data_issues import find_data_issues
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.data.validation.rules import build_image_rules
from cv_factory.data.validation.tables import build_image_table
from cv_factory.errors import DataError
from cv_factory.features.backbone import Backbone
from cv_factory.features.image_features import ImageFeatures
from tests.support.datasets import dataset_of

_N, _SIDE = 240, 16
#: Rows whose label is wrong, of train, validation and test.
_WRONG = (3, 150, 200)
_OUTLIER = 77
#: Row, and the row in another part that it is the mirror image of.
_PAIR = (10, 210)


class _Made:
    """A dataset of two classes, its split and its features, with what is wrong with it."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (_N, _SIDE, _SIDE, 3), dtype=np.uint8)
        values = (4 + rng.normal(size=(_N, 32))).astype(np.float32)
        values[::2, 0] += 16
        images[_PAIR[1]] = images[_PAIR[0]][:, ::-1]
        values[_PAIR[1]] = values[_PAIR[0]] + 0.01
        values[_OUTLIER, 5] = 80
        self.dataset = dataset_of(images)
        self.dataset.manifest.loc[list(_WRONG), "label"] ^= 1
        train, validation, test = np.split(np.arange(_N, dtype=np.int64), (140, 190))
        self.split = Split(train, validation, test, 0, self.dataset.fingerprint)
        self.features = features_of(self.dataset, values)


def features_of(dataset: ImageDataset, values: npt.NDArray[np.float32]) -> ImageFeatures:
    backbone = Backbone(b"graph", "made", _SIDE, values.shape[1], "", "MIT")
    return ImageFeatures(backbone, dataset.image_shape, dataset.content_hash, values)


@pytest.fixture(scope="module")
def made() -> _Made:
    return _Made()


@pytest.fixture(scope="module")
def issues(made: _Made) -> DataIssues:
    return find_data_issues(made.dataset, made.split, made.features)


def _rows(issues: DataIssues, kind: str) -> list[int]:
    return [issue.index for issue in issues.issues if issue.kind == kind]


def test_wrong_labels_are_listed_first_with_the_likely_one(issues: DataIssues) -> None:
    first = issues.suspicious_labels[: len(_WRONG)]
    assert {issue.index for issue in first} == set(_WRONG)
    assert all({issue.label, issue.likely_label} == {"even", "odd"} for issue in first)
    assert {issue.part for issue in first} == {"train", "validation", "test"}
    assert issues.accuracy == pytest.approx(188 / 190)


def test_the_data_report_names_the_most_doubtful_labels_first(
    made: _Made, issues: DataIssues
) -> None:
    table = build_image_table(
        made.dataset.manifest,
        made.dataset.class_names,
        dict(made.split.items()),
        ValidationConfig(),
        issues.issues,
    )
    rules = build_image_rules(table, made.dataset.class_names, ValidationConfig())
    rows = {rule.name: list(rule.worst_rows) for rule in rules}
    assert rows["suspicious_labels"] == _rows(issues, "label")
    assert set(rows["suspicious_labels"][:3]) == set(_WRONG)
    assert rows["similar_across_parts"] == list(_PAIR)


def test_labels_of_the_test_part_influence_nothing_that_is_said_of_others(made: _Made) -> None:
    changed = made.dataset.manifest.copy()
    changed.loc[made.split.test, "label"] ^= 1
    before, after = (
        find_data_issues(dataset, made.split, made.features)
        for dataset in (made.dataset, replace(made.dataset, manifest=changed))
    )
    assert before.accuracy == after.accuracy
    said = [
        [
            issue
            for issue in issues.issues
            if issue.part != "test" and issue.kind != "near_duplicate"
        ]
        for issues in (before, after)
    ]
    assert said[0] == said[1]


def test_a_mirrored_picture_in_another_part_is_a_near_duplicate(issues: DataIssues) -> None:
    [pair] = [issue for issue in issues.issues if issue.kind == "near_duplicate"]
    assert (pair.index, pair.other_index) == _PAIR
    assert pair.is_across_parts
    assert pair.score == pytest.approx(1, abs=0.01)


def test_of_a_pair_it_is_not_the_test_image_that_is_listed(made: _Made) -> None:
    split = replace(made.split, train=made.split.test, test=made.split.train)
    issues = find_data_issues(made.dataset, split, made.features)
    [pair] = [issue for issue in issues.issues if issue.kind == "near_duplicate"]
    assert (pair.index, pair.other_index) == _PAIR[::-1]
    assert (pair.part, pair.other_part) == ("train", "test")


def test_what_lies_far_from_all_is_an_outlier(issues: DataIssues) -> None:
    # The test's features are random: of such, one or the other may be far, too.
    assert _rows(issues, "outlier")[:1] == [_OUTLIER]


def test_classes_of_few_images_are_named_and_not_judged(made: _Made) -> None:
    labels = np.arange(_N) % 2
    labels[:3] = 2
    manifest = made.dataset.manifest.assign(label=labels)
    dataset = replace(made.dataset, manifest=manifest, class_names=("even", "odd", "rare"))
    issues = find_data_issues(dataset, made.split, made.features)
    assert "class rare were not judged" in issues.notices[0]
    assert not {0, 1, 2} & set(_rows(issues, "label"))


def test_images_without_labels_are_left_in_peace(made: _Made) -> None:
    dataset = replace(made.dataset, manifest=made.dataset.manifest.assign(label=-1))
    issues = find_data_issues(dataset, made.split, made.features)
    assert issues.issues == ()
    assert "train and validation have 0 images with a label" in issues.notices[0]


def test_features_of_other_images_are_refused(made: _Made) -> None:
    fewer = features_of(made.dataset, np.zeros((3, 8), np.float32))
    with pytest.raises(DataError, match="features are of 3 images, and the dataset has 240"):
        find_data_issues(made.dataset, made.split, fewer)


def test_issues_are_read_back_and_shown(issues: DataIssues, tmp_path: Path) -> None:
    issues.save(tmp_path)
    assert DataIssues.load(tmp_path) == issues
    page = issues.to_html()
    assert all(title in page for title in ("Doubtful labels", "Near duplicates", "Outliers"))
    assert "data:image/png;base64" in page


def test_issues_are_written_as_csv(issues: DataIssues) -> None:
    file = io.StringIO()
    issues.write_csv(file)
    header, first, *_ = file.getvalue().splitlines()
    assert header == "id,path,part,kind,given,likely,score,other_id,other_part,other_label"
    assert first.split(",")[3] == "label"
    assert len(file.getvalue().splitlines()) == len(issues.issues) + 1
