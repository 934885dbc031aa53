"""Dataset validation: each expectation fails on what it is for, names it, and on nothing else."""

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from cv_factory.config.validation import ValidationConfig
from cv_factory.data.validation.great_expectations import validate_dataset
from cv_factory.data.validation.report import DataReport, ExpectationResult
from cv_factory.errors import ConfigError

_CLASSES = ("ant", "bee", "cat")
_CONFLICTS_OFF: dict[str, Any] = {"severity": {"label_conflicts": "off"}}


def _manifest(n: int = 60) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"id{k}" for k in range(n)],
            "label": np.arange(n, dtype=np.int64) % len(_CLASSES),
            "source": [f"/data/{k}.png" for k in range(n)],
            "pixels_sha256": [f"{k:064x}" for k in range(n)],
            "width": np.int32(8),
            "height": np.int32(8),
            "mode": "L",
            "brightness": np.linspace(0.2, 0.8, n, dtype=np.float32),
            "contrast": np.float32(0.3),
            "sharpness": np.float32(0.3),
            "official_split": "",
        }
    )


def _split(n: int = 60) -> dict[str, np.ndarray]:
    order = np.arange(n)
    parts = {"train": order % 5 < 3, "validation": order % 5 == 3, "test": order % 5 == 4}
    return {name: np.flatnonzero(chosen) for name, chosen in parts.items()}


def _validate(
    manifest: pd.DataFrame, classes: Sequence[str] = _CLASSES, **limits: Any
) -> DataReport:
    return validate_dataset(
        manifest,
        class_names=classes,
        split=_split(len(manifest)),
        config=ValidationConfig(**limits),
    )


def _failed(report: DataReport) -> dict[str, ExpectationResult]:
    return {result.name: result for result in report.failures}


def test_a_sound_dataset_meets_every_expectation() -> None:
    report = _validate(_manifest())
    assert _failed(report) == {}
    assert len(report.expectations) == 21
    assert report.n_images == 60
    assert report.class_counts == {"ant": 20, "bee": 20, "cat": 20}
    assert report.split_counts["validation"] == {"ant": 4, "bee": 4, "cat": 4}


@pytest.mark.parametrize(("column", "name"), [("id", "ids_present"), ("source", "sources_present")])
def test_a_missing_value(column: str, name: str) -> None:
    manifest = _manifest()
    manifest.loc[7, column] = None
    failed = _failed(_validate(manifest))
    assert failed.keys() == {name}
    assert failed[name].severity == "error"
    assert failed[name].observed == "1 of 60"
    # Without an id, an image is known by its source.
    assert failed[name].offending_ids == ("/data/7.png" if column == "id" else "id7",)


def test_a_repeated_id() -> None:
    manifest = _manifest()
    manifest.loc[9, "id"] = "id4"
    failed = _failed(_validate(manifest))
    assert failed.keys() == {"ids_unique"}
    assert failed["ids_unique"].offending_ids == ("id4", "id4")
    assert "--set data.manifest.columns.id=COLUMN" in failed["ids_unique"].remedy


def test_an_image_without_label_and_one_with_an_unknown_label() -> None:
    manifest = _manifest()
    manifest.loc[3, "label"] = -1
    manifest.loc[4, "label"] = 17
    failed = _failed(_validate(manifest))
    assert failed.keys() == {"labels_present", "labels_known"}
    assert failed["labels_present"].offending_ids == ("id3",)
    assert failed["labels_known"].offending_ids == ("id4",)
    assert not _validate(manifest).ok


def test_class_names_that_look_like_unknown_labels() -> None:
    manifest = _manifest()
    report = _validate(manifest, ["label 1", "label 2", "-1"])
    assert _failed(report) == {}
    assert report.class_counts == {"label 1": 20, "label 2": 20, "-1": 20}


@pytest.mark.parametrize(
    ("names", "expectation", "observed", "offending"),
    [
        (("cat", "cat\u00a0", "x"), "class_names_distinct", r"'cat' and 'cat\xa0'", 2),
        (("caf\u00e9", "cafe\u0301", "x"), "class_names_distinct",
         r"'caf\xe9' and 'cafe\u0301'", 2),
        (("1", "1.0", "2"), "class_names_distinct", "'1' and '1.0'", 2),
        (("a  b", "a b", "a\u200b b"), "class_names_distinct",
         r"'a  b' and 'a b' and 'a\u200b b'", 3),
        (("Cat", "cat", "CAT "), "class_names_case", "'Cat' and 'cat' and 'CAT '", 3),
    ],
)  # fmt: skip
def test_class_names_that_a_reader_cannot_tell_apart(
    names: tuple[str, ...], expectation: str, observed: str, offending: int
) -> None:
    report = _validate(_manifest(), names)
    failed = _failed(report)
    assert failed.keys() == {expectation}
    assert report.ok == (expectation == "class_names_case")
    assert failed[expectation].observed == observed
    assert failed[expectation].offending_ids == names[:offending]


def test_names_that_differ_otherwise_are_distinct() -> None:
    assert _failed(_validate(_manifest(), ("1.5", "1.50 m", "15"))) == {}


def test_a_share_above_its_limit_reads_as_more_than_it() -> None:
    manifest = _manifest(2010)
    manifest.loc[:100, "pixels_sha256"] = "0" * 64  # 101 of 2,010, all in one part
    split = {"train": np.arange(2010)}
    report = validate_dataset(
        manifest, class_names=_CLASSES, split=split, config=ValidationConfig(**_CONFLICTS_OFF)
    )
    (share,) = report.failures
    assert (share.observed, share.limit) == ("5.02% (101 images)", "at most 5%")
    assert report.verdict == "Passed with 1 warning"


def test_a_share_at_its_limit_is_allowed() -> None:
    manifest = _manifest(100)
    manifest.loc[:82, "pixels_sha256"] = "0" * 64
    report = validate_dataset(
        manifest,
        class_names=_CLASSES,
        split={"train": np.arange(100)},
        config=ValidationConfig(max_duplicate_share=0.83, **_CONFLICTS_OFF),
    )
    assert report.verdict == "Passed"


def test_too_few_images() -> None:
    failed = _failed(_validate(_manifest(), min_images=61))
    assert failed.keys() == {"min_images"}
    assert (failed["min_images"].observed, failed["min_images"].limit) == (
        "60 images",
        "at least 61",
    )
    assert _failed(_validate(_manifest(), min_images=60)) == {}


def test_a_class_with_too_few_images() -> None:
    manifest = _manifest()
    manifest.loc[0, "label"] = 1
    failed = _failed(_validate(manifest, min_images_per_class=20))
    assert failed.keys() == {"min_images_per_class"}
    assert failed["min_images_per_class"].offending_ids == ("ant",)
    assert failed["min_images_per_class"].observed == "ant (19 images)"
    assert _failed(_validate(manifest, min_images_per_class=19)) == {}


def test_a_class_without_any_image() -> None:
    failed = _failed(_validate(_manifest(), [*_CLASSES, "dog"]))
    assert failed.keys() == {"min_images_per_class", "parts_hold_every_class"}
    assert failed["min_images_per_class"].offending_ids == ("dog",)
    assert failed["parts_hold_every_class"].severity == "error"


def test_a_class_that_one_part_lacks() -> None:
    manifest, split = _manifest(), _split()
    bees = manifest.index[manifest["label"] == 1].to_numpy()
    moved = np.intersect1d(split["test"], bees)
    split["test"] = np.setdiff1d(split["test"], moved)
    split["train"] = np.union1d(split["train"], moved)
    report = validate_dataset(
        manifest, class_names=_CLASSES, split=split, config=ValidationConfig()
    )
    failed = _failed(report)
    assert failed.keys() == {"parts_hold_every_class"}
    assert failed["parts_hold_every_class"].offending_ids == ("bee",)


def test_the_same_pixels_in_two_parts_are_leakage() -> None:
    manifest = _manifest()
    manifest.loc[4, "pixels_sha256"] = manifest.loc[1, "pixels_sha256"]  # test and train, ant + bee
    failed = _failed(_validate(manifest))
    assert failed.keys() == {"no_leakage"}
    assert failed["no_leakage"].severity == "error"
    assert failed["no_leakage"].offending_ids == ("id1", "id4")


def test_the_same_pixels_in_one_part_and_in_none_are_no_leakage() -> None:
    manifest, split = _manifest(), _split()
    manifest.loc[3, "pixels_sha256"] = manifest.loc[0, "pixels_sha256"]
    split["validation"] = np.setdiff1d(split["validation"], [3])
    report = validate_dataset(
        manifest, class_names=_CLASSES, split=split, config=ValidationConfig()
    )
    assert _failed(report) == {}


def test_the_same_pixels_with_two_labels_are_a_warning() -> None:
    manifest = _manifest()
    manifest.loc[5, "pixels_sha256"] = manifest.loc[0, "pixels_sha256"]  # both in train
    report = _validate(manifest)
    failed = _failed(report)
    assert failed.keys() == {"label_conflicts"}
    assert failed["label_conflicts"].offending_ids == ("id0", "id5")
    assert report.ok


def test_too_many_duplicates_are_a_warning() -> None:
    manifest = _manifest()
    manifest.loc[[0, 15, 30], "pixels_sha256"] = "same"  # one class, one part
    report = _validate(manifest, max_duplicate_share=0.049)
    failed = _failed(report)
    assert failed.keys() == {"duplicate_pixels"}
    assert failed["duplicate_pixels"].observed == "5.0% (3 images)"
    assert report.ok
    assert _failed(_validate(manifest, max_duplicate_share=0.05)) == {}


def test_imbalance_is_a_warning_that_names_the_small_class() -> None:
    manifest = _manifest()
    manifest.loc[(manifest["label"] == 2) & (manifest.index < 30), "label"] = 0
    failed = _failed(_validate(manifest, max_class_imbalance=2.9))
    assert failed.keys() == {"class_imbalance"}
    assert failed["class_imbalance"].observed == "1 : 3"
    assert failed["class_imbalance"].offending_ids == ("cat",)
    assert _failed(_validate(manifest, max_class_imbalance=3.0)) == {}


def test_brightness_out_of_range_is_a_warning() -> None:
    manifest = _manifest()
    manifest.loc[2, "brightness"], manifest.loc[5, "brightness"] = np.float32(0), np.float32(1)
    report = _validate(manifest)
    failed = _failed(report)
    assert failed.keys() == {"brightness"}
    assert failed["brightness"].offending_ids == ("id2", "id5")
    assert failed["brightness"].observed == "0 to 1"
    assert report.ok


def test_only_the_first_offenders_are_listed() -> None:
    manifest = _manifest()
    manifest["brightness"] = np.float32(0.0)
    result = _failed(_validate(manifest))["brightness"]
    assert result.offending_ids == tuple(f"id{k}" for k in range(20))
    assert result.n_offending == 60


def test_an_empty_dataset_is_refused_not_crashed_on() -> None:
    report = _validate(_manifest(0))
    assert {"min_images", "min_images_per_class", "parts_hold_every_class"} <= _failed(
        report
    ).keys()


def test_the_manifests_index_does_not_matter() -> None:
    manifest = _manifest()
    manifest.loc[7, "brightness"] = np.float32(0.0)
    shuffled = manifest.set_index(np.arange(60)[::-1])
    assert _validate(shuffled) == _validate(manifest)


def test_unreadable_images_are_reported() -> None:
    report = validate_dataset(
        _manifest(), class_names=_CLASSES, split=_split(), config=ValidationConfig(),
        unreadable=[("/data/x.png", "truncated")],
    )  # fmt: skip
    assert report.unreadable == (("/data/x.png", "truncated"),)
    assert report.ok


def test_great_expectations_keeps_quiet(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    # What we say ourselves is another matter, and goes where earlier tests have directed it.
    caplog.set_level(logging.WARNING, "cv_factory")
    _validate(_manifest())
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert caplog.records == []


def test_sixty_thousand_images_are_validated() -> None:
    assert _validate(_manifest(60_000)).ok


def test_the_validator_of_the_stack_checks_what_its_check_list_names() -> None:
    from stacks.flavors.gx import GXDataValidator

    manifest = _manifest()
    dataset = SimpleNamespace(
        manifest=manifest,
        class_names=_CLASSES,
        unreadable=(),
        notices=(),
        images=None,
        stored_values=None,
    )

    def checked(check_list: list[str] | None) -> set[str]:
        report = GXDataValidator.data_validation(
            cast(Any, None),
            cast(Any, dataset),
            check_list=check_list,
            split=_split(),
            config=ValidationConfig(),
        )
        return {expectation.name for expectation in report.expectations}

    chosen = checked(["brightness"])
    assert "brightness" in chosen
    assert not {"contrast", "no_leakage", "min_images"} & chosen
    assert chosen < checked(None)
    with pytest.raises(ConfigError, match=r"no expectation 'brightnes'\. Did you mean"):
        checked(["brightnes"])
