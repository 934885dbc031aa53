"""Samples of a dataset are files that the folder source reads back as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cv_factory.data.samples import write_samples
from tests.support.predictors import digits_predictor


def test_the_first_images_of_each_class_are_written_as_they_were_ingested(tmp_path: Path) -> None:
    _, digits, split = digits_predictor("logistic_regression")
    names = ("a/b", "a%2Fb", ".hidden", "..", *digits.class_names[4:])
    dataset = replace(digits, class_names=names)
    files = write_samples(dataset, split.test, tmp_path, per_class=2)
    assert len(files) == len(set(files)) == 20
    assert {file.parent.parent for file in files} == {tmp_path}
    folders = {path.name for path in tmp_path.iterdir()}
    assert folders == {"a%2Fb", "a%252Fb", "%2Ehidden", "%2E.", *names[4:]}
    for label, folder in enumerate(dict.fromkeys(file.parent for file in files)):
        members = split.test[dataset.labels[split.test] == label]
        pixels = np.asarray(Image.open(folder / "2.png"))
        np.testing.assert_array_equal(pixels, dataset.images[members[1], ..., 0])
