"""Attribution of predictions to pixels: Shapley values (classical models), occlusion (networks).

A classical model sees the PCA features alone. Their Shapley values (S. M. Lundberg and S.-I. Lee,
A Unified Approach to Interpreting Model Predictions, 2017) against the mean training image are
found by sampling orders of the components, exactly where the log-odds are linear in them, and go
back to pixels through the components. Any other model is occluded (M. D. Zeiler and R. Fergus,
Visualizing and Understanding Convolutional Networks, 2014).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.utils import Extractor

from cv_factory.artifacts.onnx_session import open_session
from cv_factory.evaluation.behavior import Explanation
from cv_factory.evaluation.behavioral_checks import IndexableImages
from cv_factory.evaluation.selection import take_in_turn
from cv_factory.inference.predictor import Predictor

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
_MOST_IMAGES = 24
_ORDERS = 8
#: How often images are chosen anew for those whose explanation is blank.
_EXPLAIN_ROUNDS = 3
# A covering square has this share of each side, and moves by half of itself.
_SQUARE = 1 / 5
_SMALLEST = 1e-12


def choose(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    confidence: NDArray[np.float64],
    per_class: int,
    excluded: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return up to 24 images to explain: of each class the surest errors and the surest hits.

    Where they are too many, each class has one before any has two, and classes without an
    explained error come first among the hits.

    Args:
        labels: True classes, int64 ``(N,)``.
        predicted: Predicted classes, int64 ``(N,)``.
        confidence: Their probabilities, float64 ``(N,)``.
        per_class: How many errors and how many hits of each class.
        excluded: Images that are not to be chosen, bool ``(N,)``.
    """
    surest = np.argsort(-confidence, kind="stable")
    if excluded is not None:
        surest = surest[~excluded[surest]]
    classes, right = np.unique(labels), (predicted == labels)[surest]

    def rank(is_right: bool, of_classes: NDArray[np.int64]) -> list[int]:
        fits = surest[right == is_right]
        return take_in_turn([fits[labels[fits] == k][:per_class].tolist() for k in of_classes])

    errors, n_hits = rank(False, classes), len(rank(True, classes))
    errors = errors[: max(_MOST_IMAGES // 2, _MOST_IMAGES - n_hits)]
    is_shown = np.isin(classes, labels[errors])
    hits = rank(True, np.concatenate([classes[~is_shown], classes[is_shown]]))
    return np.array(errors + hits[: _MOST_IMAGES - len(errors)], dtype=np.int64)


def explain_chosen(
    predictor: Predictor,
    images: IndexableImages,
    ids: Sequence[str],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    confidence: NDArray[np.float64],
    per_class: int,
    excluded: NDArray[np.bool_],
) -> tuple[Explanation, ...]:
    """Explain the images that ``choose`` returns; others replace those of a blank explanation.

    An explanation is blank where no part of the image changes the answer, as where the probability
    is exactly 1.
    """
    excluded = excluded.copy()
    explanations: tuple[Explanation, ...] = ()
    for _ in range(_EXPLAIN_ROUNDS):
        places = choose(labels, predicted, confidence, per_class, excluded)
        explanations = explain(predictor, images[places], [ids[i] for i in places], labels[places])
        is_blank = np.array([not np.abs(e.heat).max() > _SMALLEST for e in explanations], bool)
        if not is_blank.any():
            return explanations
        excluded[places[is_blank]] = True
    return tuple(e for e, blank in zip(explanations, is_blank, strict=True) if not blank)


def explain(
    predictor: Predictor,
    images: Images,
    ids: Sequence[str],
    labels: NDArray[np.int64],
) -> tuple[Explanation, ...]:
    """Explain the predicted class of each image.

    Args:
        predictor: Its graph is looked into.
        images: Uint8 ``(n, H, W, C)``.
        ids: n ids.
        labels: True classes, int64 ``(n,)``.
    """
    if not len(images):
        return ()
    probabilities = predictor.predict(images).probabilities
    predicted = probabilities.argmax(axis=1)
    head = classical_head(predictor.graph)
    if head is None:
        method = "occlusion"
        heat = [occlusion(predictor, i, int(k)) for i, k in zip(images, predicted, strict=True)]
    else:
        method = "Shapley values of PCA components"
        features = predictor.predict(images).features
        heat = [
            head.to_pixels(head.shapley_values(z, int(k)), image, z)
            for image, z, k in zip(images, features, predicted, strict=True)
        ]
    return tuple(
        Explanation(
            id=ids[i],
            label=int(labels[i]),
            predicted=int(predicted[i]),
            confidence=float(probabilities[i, predicted[i]]),
            method=method,
            image=np.asarray(images[i]),
            heat=heat[i].astype(np.float32),
        )
        for i in range(len(images))
    )


def occlusion(predictor: Predictor, image: NDArray[np.uint8], label: int) -> Floats:
    """Cover each part of an image in turn, and see how far the class's log probability falls.

    Args:
        predictor: Scores the covered images.
        image: Uint8 ``(H, W, C)``.
        label: The class that is explained.

    Returns:
        Float32 ``(H, W)``: the mean fall over the squares that cover a pixel.
    """
    height, width = image.shape[:2]
    rows, columns = (max(2, round(side * _SQUARE)) for side in (height, width))
    corners = [(t, c) for t in _starts(height, rows) for c in _starts(width, columns)]
    covered = np.repeat(image[None], len(corners) + 1, axis=0)
    color = image.mean(axis=(0, 1)).round()
    for i, (top, left) in enumerate(corners):
        covered[i, top : top + rows, left : left + columns] = color
    log_probability = np.log(predictor.predict(covered).probabilities[:, label] + _SMALLEST)
    fall, covers = np.zeros((height, width)), np.zeros((height, width))
    for (top, left), value in zip(corners, log_probability[-1] - log_probability[:-1], strict=True):
        fall[top : top + rows, left : left + columns] += value
        covers[top : top + rows, left : left + columns] += 1
    return (fall / covers).astype(np.float32)


def classical_head(graph: bytes) -> "ClassicalHead | None":
    """Return the part of a graph behind the PCA features; None if the model sees the pixels."""
    model = onnx.load_model_from_string(graph)
    made_by = {output: node for node in model.graph.node for output in node.output}
    pending, seen = ["probabilities"], set()
    while pending:
        name = pending.pop()
        if name in seen or name == "features":
            continue
        seen.add(name)
        if name in made_by:
            pending += made_by[name].input
    constants = {t.name: t for t in model.graph.initializer}
    if "images" in seen or not {"pca_mean", "pca_components"} <= constants.keys():
        return None
    head = Extractor(model).extract_model(["features"], ["probabilities"])
    return ClassicalHead(
        graph=head.SerializeToString(),
        mean=np.array(numpy_helper.to_array(constants["pca_mean"])),
        components=np.array(numpy_helper.to_array(constants["pca_components"])).T,
    )


@dataclass(frozen=True, eq=False)
class ClassicalHead:
    """From PCA features to probabilities, and back from components to pixels.

    Attributes:
        graph: ONNX from ``features`` float32 ``(N, k)`` to ``probabilities`` ``(N, K)``.
        mean: Mean of the pooled pixels, float32 ``(D,)``.
        components: Float32 ``(k, D)``.
    """

    graph: bytes
    mean: Floats
    components: Floats

    def evidence(self, features: Floats, label: int) -> NDArray[np.float64]:
        """Return the class's log probability less the mean over all classes, float64 ``(n,)``.

        That is linear in the features where the model is a softmax over linear scores.
        """
        (probabilities,) = self._session.run(["probabilities"], {"features": features})
        log = np.log(probabilities.astype(np.float64) + _SMALLEST)
        return np.asarray(log[:, label] - log.mean(axis=1))

    def shapley_values(self, features: Floats, label: int) -> NDArray[np.float64]:
        """Return each component's Shapley value against the mean image, float64 ``(k,)``.

        They add up to the evidence of the image less that of the mean image.

        Args:
            features: One image's, float32 ``(k,)``.
            label: The class that is explained.
        """
        k = len(features)
        rng = np.random.default_rng(0)
        values = np.zeros(k)
        for _ in range(_ORDERS):
            forward = rng.permutation(k)
            # Each order also backwards: what pairs of components share is then split evenly.
            for order in (forward, forward[::-1]):
                steps = np.zeros((k + 1, k), dtype=np.float32)
                for i, component in enumerate(order, start=1):
                    steps[i:, component] = features[component]
                values[order] += np.diff(self.evidence(steps, label))
        return values / (2 * _ORDERS)

    def to_pixels(
        self, values: NDArray[np.float64], image: NDArray[np.uint8], features: Floats
    ) -> Floats:
        """Share out each component's value among the pixels that make up its feature.

        Args:
            values: Float64 ``(k,)``.
            image: Uint8 ``(H, W, C)``.
            features: The image's own, float32 ``(k,)``.

        Returns:
            Float32 ``(H, W)``; it adds up to the sum of ``values`` (but for a pooled margin).
        """
        height, width, channels = image.shape
        pool = 1
        while (height // pool) * (width // pool) * channels > len(self.mean):
            pool += 1
        rows, columns = height // pool, width // pool
        squares = image[: rows * pool, : columns * pool].astype(np.float64) / 255
        pooled = squares.reshape(rows, pool, columns, pool, channels).mean(axis=(1, 3)).ravel()
        # A feature of nearly 0 has a value of nearly 0, and nothing to share out.
        scale = np.where(np.abs(features) > 1e-6, values / np.where(features == 0, 1, features), 0)
        shares = (scale @ self.components) * (pooled - self.mean)
        small = shares.reshape(rows, columns, channels).sum(axis=2) / pool**2
        heat = np.zeros((height, width))
        heat[: rows * pool, : columns * pool] = np.kron(small, np.ones((pool, pool)))
        return heat.astype(np.float32)

    @cached_property
    def _session(self) -> Any:
        return open_session(self.graph)


def _starts(side: int, square: int) -> list[int]:
    """Return where squares begin along a side: half a square apart, the last one at the end."""
    step = max(1, square // 2)
    return sorted({*range(0, side - square, step), side - square})
