"""Choice of a predictor's golden samples: validation images of all classes, easy and hard ones.

They must show every exchange of two classes. An image that is predicted as a class by a margin
answers differently once this class is exchanged with any other, so every class that the predictor
ever predicts gets such an image.
"""

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from cv_factory.data.dataset import ImageDataset
from cv_factory.export.run_graph import run_graph
from cv_factory.features.image_features import ImageFeatures
from cv_factory.inference.predictor import GOLDEN_TOLERANCE, GoldenSamples, Predictor

_log = logging.getLogger(__name__)

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
#: Samples of a class, and of all classes; more than these only where there are more classes.
_MIN_PER_CLASS = 2
_MIN_SAMPLES, _MAX_SAMPLES = 16, 64
#: Probability by which the predicted class leads. Images below it are left out, since rounding on
#: another CPU could change their label.
_MIN_MARGIN = 100 * GOLDEN_TOLERANCE


def select_golden_samples(
    predictor: Predictor,
    dataset: ImageDataset,
    validation: Integers,
    features: ImageFeatures | None = None,
) -> GoldenSamples:
    """Choose golden samples among the validation images, and predict them.

    Args:
        predictor: The final graph; its own golden samples are not used.
        dataset: Images and labels.
        validation: Indices of the validation images.
        features: Of the predictor's backbone, which then runs on the chosen images alone.
    """
    graph = onnx.load_model_from_string(predictor.graph)
    (probabilities,) = run_graph(graph, ["probabilities"], dataset, validation, features)
    chosen = choose_easy_and_hard(probabilities, dataset.labels[validation])
    images = dataset.images[validation[chosen]]
    outputs = predictor.predict(images)
    _warn_of_equal_classes(outputs.probabilities, predictor.contract.class_names)
    return GoldenSamples.from_outputs(images, outputs)


def choose_easy_and_hard(probabilities: Floats, labels: Integers) -> Integers:
    """Return which images to take: of each class the easiest, the hardest, the next easiest.

    At least two a class, where it has as many, and between 16 and 64; one a class above 64 classes.

    Args:
        probabilities: Of the validation images, float ``(N, K)``.
        labels: Their classes, int64 ``(N,)``.

    Returns:
        Positions, int64 ``(n,)``: first one image of each class, then the second, and so on.
    """
    n_classes = probabilities.shape[1]
    candidates = _clear_answers(probabilities)
    scores, classes = probabilities[candidates], labels[candidates]
    per_class = max(_MIN_PER_CLASS, math.ceil(_MIN_SAMPLES / n_classes))
    rankings = [_easy_and_hard(scores, classes, label) for label in range(n_classes)]
    chosen: dict[int, None] = {}
    for ranking in rankings * per_class:
        position = next((place for place in ranking if place not in chosen), None)
        if position is not None and len(chosen) < max(_MAX_SAMPLES, n_classes):
            chosen[position] = None
    return candidates[np.fromiter(chosen, np.int64)]


def find_equal_classes(probabilities: Floats) -> list[tuple[int, int]]:
    """Return the pairs of classes whose exchange no sample shows.

    Args:
        probabilities: Of the golden samples, float ``(n, K)``.
    """
    best_two = np.sort(probabilities, axis=1)[:, -2:]
    leads = best_two[:, 1] - best_two[:, 0] > 2 * GOLDEN_TOLERANCE
    predicted = probabilities.argmax(axis=1)[leads]
    others = np.setdiff1d(np.arange(probabilities.shape[1]), predicted)
    return [
        (int(first), int(second))
        for place, first in enumerate(others)
        for second in others[place + 1 :]
        if np.abs(probabilities[:, first] - probabilities[:, second]).max() <= 2 * GOLDEN_TOLERANCE
    ]


def _clear_answers(probabilities: Floats) -> Integers:
    """Return the positions whose predicted class leads by a margin; all where none does."""
    best_two = np.sort(probabilities, axis=1)[:, -2:]
    clear = np.flatnonzero(best_two[:, 1] - best_two[:, 0] >= _MIN_MARGIN)
    return clear if len(clear) else np.arange(len(probabilities))


def _easy_and_hard(scores: Floats, classes: Integers, label: int) -> Iterator[int]:
    """Yield images of a class: the easiest, the hardest, the second easiest and so on.

    The first one is predicted as the class, whatever its label, where any image is; it is the one
    with the class's highest probability where none is.
    """
    score, is_member = scores[:, label], classes == label
    is_predicted = scores.argmax(axis=1) == label
    first = int(np.lexsort((-score, ~is_member, ~is_predicted))[0])
    yield first
    members = np.flatnonzero(is_member)
    easiest = members[np.argsort(-score[members], kind="stable")]
    others = [int(position) for position in easiest if position != first]
    while others:
        yield others.pop()
        if others:
            yield others.pop(0)


def _warn_of_equal_classes(probabilities: Floats, class_names: tuple[str, ...]) -> None:
    if pairs := find_equal_classes(probabilities):
        first, second = (class_names[label] for label in pairs[0])
        more = f" (and {len(pairs) - 1} more pairs of classes)" if len(pairs) > 1 else ""
        _log.warning(
            f"The golden samples cannot tell {first!r} from {second!r}{more}: the model predicts "
            "neither and gives them equal probabilities on every validation image. Train longer, "
            "or give more images of these classes."
        )
