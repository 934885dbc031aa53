"""Choice of the images to label: a part uniformly, the rest where the model is probably wrong.

Poisson sampling with permanent random numbers (Brewer, Early and Joyce 1972; Ohlsson 1995): each
image has one random number, that of its name, and is chosen where its inclusion probability is
larger. So what several samples choose together has a known probability, too: the largest one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.monitoring.labels import SAMPLE_COLUMNS, Frame, encode_images
from cv_factory.monitoring.window import Window

#: At least this part of the images is chosen whatever was predicted.
MIN_UNIFORM_SHARE = 0.2
_Doubles = npt.NDArray[np.float64]
_HASH_KEY = "cv_factory_label"  # 16 bytes, as pandas requires


@dataclass(frozen=True, eq=False)
class LabelQueue:
    """Images to label.

    Attributes:
        sample: All images that were chosen, also those that an earlier sample had; rows with
            ``SAMPLE_COLUMNS``.
        positions: Positions in the window of one prediction of each image that is new, int64
            ``(n,)``.
        frame: What they were chosen from.
    """

    sample: pd.DataFrame
    positions: npt.NDArray[np.int64]
    frame: Frame


def draw_queue(
    window: Window,
    n: int,
    frame: tuple[datetime, datetime, str | None],
    now: datetime,
    *,
    uniform_share: float = 0.5,
    disagreement_share: float = 0.5,
    earlier: Sequence[Frame] = (),
) -> LabelQueue:
    """Choose about ``n`` images of a window to be labelled.

    The number is random, so that inclusion probabilities are known.

    Args:
        window: Predictions and the labels that were given or asked for already.
        n: Expected number of images that were not chosen before.
        frame: Span and version that the window was selected by.
        now: Time of the sample.
        uniform_share: Part that is chosen uniformly, ``MIN_UNIFORM_SHARE`` to 1.
        disagreement_share: Part of the others that versions disagree about, if there are so many.
        earlier: What earlier samples were drawn from.
    """
    if uniform_share < MIN_UNIFORM_SHARE:
        raise ValueError(f"uniform_share is {uniform_share}, below {MIN_UNIFORM_SHARE}")
    images, names = encode_images(window.rows)
    units = pd.Series(np.arange(len(images))).groupby(images).first().to_numpy()
    rows = window.rows.iloc[units]
    scores = _max_by_image(score_uncertainty(window), images)
    disputed = _max_by_image(find_disagreements(window, images), images)
    floor, uniform_floor = np.zeros(len(rows)), np.zeros(len(rows))
    for old in earlier:
        inside = old.contains(rows)
        floor = np.maximum(floor, inside * _include(old, scores, disputed))
        uniform_floor = np.maximum(uniform_floor, inside * old.uniform_probability)
    goals = n * uniform_share, n * (1.0 - uniform_share) * disagreement_share, n
    new = _design(Frame(*frame, 0.0), floor, scores, disputed, goals)
    probability = np.maximum(floor, _include(new, scores, disputed))
    random = draw_numbers(names.to_numpy(zero_copy_only=False))
    is_chosen = random < probability
    is_uniform = random < np.maximum(uniform_floor, new.uniform_probability)
    strata = np.where(is_uniform, "uniform", np.where(disputed > 0, "disagreement", "uncertain"))
    sample = rows[["id", "image_hmac"]][is_chosen].reset_index(drop=True)
    sample = sample.rename(columns={"id": "prediction_id"}).assign(
        time=now, stratum=strata[is_chosen], inclusion_probability=probability[is_chosen]
    )
    is_new = is_chosen & rows["inclusion_probability"].isna().to_numpy()
    columns = list(SAMPLE_COLUMNS)
    return LabelQueue(sample[columns].astype(SAMPLE_COLUMNS), np.sort(units[is_new]), new)


def _design(
    frame: Frame,
    floor: _Doubles,
    scores: _Doubles,
    disputed: _Doubles,
    goals: tuple[float, float, float],
) -> Frame:
    """Return a frame with the probabilities that choose more images than ``floor`` does.

    As many as the goals say: uniformly, of those that versions disagree about, and in all.
    """
    n_uniform, n_disputed, n = goals

    def gain(design: Frame) -> float:
        return float(np.maximum(_include(design, scores, disputed) - floor, 0.0).sum())

    frame = _solve(frame, "uniform_probability", 1.0, gain, n_uniform)
    if disputed.any():
        goal = gain(frame) + n_disputed
        frame = _solve(frame, "disagreement_probability", 1.0, gain, goal)
    if scores.any():
        most = 1.0 / float(scores[scores > 0].min())  # chooses every image with a score
        frame = _solve(frame, "uncertainty_factor", most, gain, n)
    return frame


def _include(frame: Frame, scores: _Doubles, disputed: _Doubles) -> _Doubles:
    """Return with which probability a frame chooses each image, float64 ``(N,)``."""
    by_score = np.minimum(frame.uncertainty_factor * scores, 1.0)
    by_dispute = frame.disagreement_probability * disputed
    return np.maximum(np.maximum(by_score, by_dispute), frame.uniform_probability)


def draw_numbers(names: npt.NDArray[np.object_]) -> _Doubles:
    """Return the permanent random number of each image, in [0, 1), float64 ``(N,)``."""
    hashes = pd.util.hash_array(names, hash_key=_HASH_KEY, categorize=False)
    return np.asarray(hashes >> np.uint64(11), np.float64) / 2.0**53


def score_uncertainty(window: Window) -> _Doubles:
    """Return how probable an error is, in [0, 1], float64 ``(N,)``.

    One less the margin of the two most probable classes (Scheffer et al. 2001); 1 for an image that
    is unlike the training images.
    """
    if not len(window) or window.probabilities.shape[1] < 2:
        return np.ones(len(window))
    second, first = np.partition(window.probabilities, -2, axis=1)[:, -2:].T.astype(np.float64)
    is_unfamiliar = window.rows["unfamiliarity"].to_numpy() > 1.0
    scores = np.where(is_unfamiliar, 1.0, np.clip(1.0 - (first - second), 0.0, 1.0))
    return np.asarray(scores, np.float64)


def find_disagreements(window: Window, images: npt.NDArray[np.int64]) -> _Doubles:
    """Return 1 for predictions of images for which versions predict different classes, else 0."""
    predicted = pd.Series(window.predicted)
    groups = predicted.groupby(images)
    lowest, highest = groups.transform("min").to_numpy(), groups.transform("max").to_numpy()
    return np.asarray(lowest != highest, np.float64)


def _max_by_image(values: _Doubles, images: npt.NDArray[np.int64]) -> _Doubles:
    return np.asarray(pd.Series(values).groupby(images).max(), np.float64)


def _solve(
    frame: Frame, field: str, most: float, gain: Callable[[Frame], float], n: float
) -> Frame:
    """Return a frame with the smallest value of a field, 0 to ``most``, that gains ``n`` images."""

    def design(value: float) -> Frame:
        return replace(frame, **{field: value})  # type: ignore[arg-type]

    low, high = 0.0, most
    if gain(design(low)) >= n:
        return design(low)
    if gain(design(high)) > n:
        for _ in range(50):
            middle = (low + high) / 2.0
            low, high = (middle, high) if gain(design(middle)) < n else (low, middle)
    return design(high)
