"""Labels from the field that may train the next predictor, and the training that uses them.

A label that a model gave never trains. Half of the images of the uniform stratum, which are a fair
sample of what clients send, become test images, or more while they are few; all others train. The
HMAC of an image decides: with more labels a test image may begin to train, never the reverse, so
that no version is tested on what an earlier one was trained on.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.config.gates import GateConfig
from cv_factory.config.loop import MIN_TEST_IMAGES
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.data.additional_images import ADDITIONAL, ORIGIN, ORIGINAL
from cv_factory.monitoring.window import Window

#: Who may give labels that train; ``model:NAME/VERSION`` is not among them.
_TRUSTED_SOURCES = ("person:", "system:")
#: Where the configuration does not bound the loss of accuracy against production.
_MAX_DROP = 0.01


@dataclass(frozen=True, eq=False)
class TrainingLabels:
    """Labels that may train, one an image.

    Attributes:
        rows: Columns ``image_hmac``, ``label`` (name of the class), ``split`` (``train`` or
            ``test``), ``label_source`` and ``label_time``, ordered by ``image_hmac``.
        n_untrusted: Number of labelled predictions whose label is a model's, or was given in view
            of the prediction where that is not allowed.
        n_without_image: Number of labels that would train if their image had been kept.
    """

    rows: pd.DataFrame
    n_untrusted: int
    n_without_image: int = 0

    @property
    def n_train(self) -> int:
        """Number of images to train on."""
        return int((self.rows["split"] == "train").sum())

    @property
    def n_test(self) -> int:
        """Number of images to test on."""
        return int((self.rows["split"] == "test").sum())

    def count_since(self, time: datetime) -> int:
        """Return how many of the labels were given after a time."""
        return int((self.rows["label_time"] > time).sum())


def select_training_labels(window: Window, *, blind_only: bool) -> TrainingLabels:
    """Return the labels of a window that may train, of images that can be found again.

    Args:
        window: With its labels.
        blind_only: Whether labels that were given in view of the prediction are left out.
    """
    rows = window.labeled().rows
    is_trusted = rows["label_source"].str.startswith(_TRUSTED_SOURCES).fillna(False).to_numpy(bool)
    if blind_only:
        is_trusted &= rows["is_blind"].to_numpy(bool)
    trusted = rows[is_trusted & rows["image_hmac"].notna().to_numpy(bool)]
    images = trusted.drop_duplicates("image_hmac", keep="last").sort_values("image_hmac")
    is_uniform = (images["stratum"] == "uniform").fillna(False).to_numpy(bool)
    # Half as many again as are needed, since the draw gives a few more or fewer.
    share = max(0.5, 1.5 * MIN_TEST_IMAGES / max(1, is_uniform.sum()))
    is_test = is_uniform & (_draw(images["image_hmac"]) < share)
    selected = pd.DataFrame(
        {
            "image_hmac": images["image_hmac"].to_numpy(object),
            "label": np.array(window.class_names, dtype=object)[images["label"].to_numpy()],
            "split": np.where(is_test, "test", "train"),
            "label_source": images["label_source"].to_numpy(object),
            "label_time": images["label_time"].reset_index(drop=True),
        }
    )
    return TrainingLabels(selected, n_untrusted=int((~is_trusted).sum()))


def add_images(
    config: TrainingPipelineConfig, manifest: str, min_test_images: int = MIN_TEST_IMAGES
) -> TrainingPipelineConfig:
    """Return the configuration of a training with additional images, and gates for both origins.

    Bounds on the accuracy hold for the original test images, as they did; the accuracy is compared
    with production's on original and on additional test images.

    Args:
        config: Of the training without them.
        manifest: Path or URL of the manifest that lists them.
        min_test_images: Test images from the field with which gates judge.
    """
    data = config.data.model_copy(update={"additional": manifest})
    slices = dict.fromkeys([*config.evaluate.slices, ORIGIN])
    min_images = min(config.evaluate.min_slice_images, min_test_images)
    evaluate = config.evaluate.model_copy(
        update={"slices": list(slices), "min_slice_images": min_images}
    )
    gates = [gate for gate in config.gates if not _is_about_accuracy(gate)]
    relative = [g for g in config.applicable_gates if g.bound[0].endswith("vs_production")]
    if not any(map(_is_about_accuracy, relative)):
        gates += _on_both(GateConfig(metric="accuracy", max_drop_vs_production=_MAX_DROP))
    for gate in filter(_is_about_accuracy, config.gates):
        is_relative = gate.bound[0].endswith("vs_production")
        gates += _on_both(gate) if is_relative else [_on(gate, ORIGINAL)]
    return config.model_copy(update={"data": data, "evaluate": evaluate, "gates": gates})


def _is_about_accuracy(gate: GateConfig) -> bool:
    return gate.metric == "accuracy" and gate.slice is None


def _on(gate: GateConfig, origin: str) -> GateConfig:
    return gate.model_copy(update={"slice": f"{ORIGIN}={origin}"})


def _on_both(gate: GateConfig) -> list[GateConfig]:
    return [_on(gate, ORIGINAL), _on(gate, ADDITIONAL)]


def _draw(hmacs: "pd.Series[str]") -> npt.NDArray[np.float64]:
    """Return a number of each image in [0, 1), from the digits that have chosen nothing before."""
    return np.array([int(hmac[-8:], 16) / 16.0**8 for hmac in hmacs])
