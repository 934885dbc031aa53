"""Images to show are spread over all classes."""

import numpy as np

from cv_factory.evaluation.selection import spread_over_classes


def test_images_sorted_by_class_show_every_class() -> None:
    labels = np.repeat(np.arange(7), [900, 5, 40, 300, 2, 60, 60])
    chosen = spread_over_classes(labels, 40)
    counts = np.bincount(labels[chosen])
    assert len(chosen) == len(set(chosen.tolist())) == 37
    assert counts.tolist() == [6, 5, 6, 6, 2, 6, 6]
    assert (np.diff(labels[chosen]) >= 0).all(), "class by class"
    assert {0, 899} <= set(chosen.tolist()), "evenly spaced"


def test_fewer_places_than_classes_and_no_images() -> None:
    chosen = spread_over_classes(np.repeat(np.arange(100), 3), 40)
    assert len(chosen) == len(set((chosen // 3).tolist())) == 40
    assert len(spread_over_classes(np.array([], np.int64), 40)) == 0
    assert spread_over_classes(np.array([-1, -1]), 40).tolist() == [0, 1]
