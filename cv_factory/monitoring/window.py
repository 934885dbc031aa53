"""Window: the predictions of a model in a span of time, in a batch or a dataset, and their labels.

Whatever they were read from: the prediction log, SageMaker's captured data, or batch results.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cv_factory.data.image_manifest import STRING
from cv_factory.inference.reference import STATISTICS

#: Columns of each prediction; a missing text is NA, a missing number NaN.
PREDICTION_COLUMNS: dict[str, Any] = {
    "id": STRING,
    "time": "datetime64[ms, UTC]",
    "version": STRING,
    "arm": STRING,  # stable, canary, shadow; NA outside rollouts
    "request_id": STRING,  # a shadow's prediction has that of the answer it is compared with
    "key": STRING,
    "predicted": "int64",  # argmax, also where the answer abstains
    "is_abstained": "bool",
    "unfamiliarity": "float32",
    **dict.fromkeys(STATISTICS, "float32"),
    "is_cached": "bool",
    "image_hmac": STRING,
    "sampling_probability": "float64",  # of the line being logged
}
#: Label of an image whose class is none of the model's: whatever was predicted is wrong.
UNKNOWN_CLASS = -2
#: Columns of the label of each prediction, as the join gives them.
LABEL_COLUMNS: dict[str, Any] = {
    "label": "int64",  # -1 where there is none, UNKNOWN_CLASS where the model does not know it
    "label_source": STRING,  # such as a person's name, or model:NAME/VERSION
    "label_time": "datetime64[ms, UTC]",
    "is_blind": "bool",  # whoever labelled did not see the prediction
    "inclusion_probability": "float64",  # of being asked for; NaN where it was not sampled
    "uniform_probability": "float64",  # of being asked for whatever is predicted; NaN: no sample
    "stratum": STRING,  # uniform, uncertain, disagreement; NA where it was not sampled
}


@dataclass(frozen=True, eq=False)
class Window:
    """Predictions, in order of time.

    Attributes:
        rows: N rows with ``PREDICTION_COLUMNS`` and ``LABEL_COLUMNS``.
        probabilities: float32 ``(N, K)``.
        features: float32 ``(N, k)``.
        class_names: K names.
        n_refused: Number of images in the same span that could not be predicted; None if unknown.
        n_lost: Number of predictions that were lost in the same span before they were stored.
    """

    rows: pd.DataFrame
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    class_names: tuple[str, ...]
    n_refused: int | None = None
    n_lost: int = 0

    def __post_init__(self) -> None:
        """Check that all describe the same predictions.

        Raises:
            ValueError: They do not.
        """
        lengths = len(self.rows), len(self.probabilities), len(self.features)
        if len(set(lengths)) != 1:
            raise ValueError(f"{lengths} rows, probabilities and features are not equally many")

    def __len__(self) -> int:
        """Return the number of predictions, N."""
        return len(self.rows)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Predicted classes, int64 ``(N,)``."""
        return self.rows["predicted"].to_numpy()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """True classes, int64 ``(N,)``; below 0 where there is none that the model knows."""
        return self.rows["label"].to_numpy()

    @property
    def has_label(self) -> npt.NDArray[np.bool_]:
        """Whether there is a label, bool ``(N,)``; also of a class that the model does not know."""
        has_label: npt.NDArray[np.bool_] = self.labels != -1
        return has_label

    @property
    def statistics(self) -> npt.NDArray[np.float32]:
        """Columns ``STATISTICS``, float32 ``(N, 5)``; NaN where they were not measured."""
        return self.rows[list(STATISTICS)].to_numpy(np.float32)

    def select(self, mask: npt.NDArray[np.bool_] | slice) -> Self:
        """Return the predictions where ``mask``, bool ``(N,)``, holds; a slice copies nothing."""
        return replace(
            self,
            rows=self.rows.iloc[mask],
            probabilities=self.probabilities[mask],
            features=self.features[mask],
        )

    def labeled(self) -> Self:
        """Return the predictions that have a label of a class that the model knows."""
        return self.select(self.labels >= 0)

    def distinct(self) -> Self:
        """Return the first prediction of each image and version: repeats are no new evidence."""
        return self if self._without_repeats is None else self._without_repeats

    @cached_property
    def _without_repeats(self) -> Self | None:
        """None if nothing repeats: a window that refers to itself would outlive its use."""
        hmac = self.rows["image_hmac"]
        is_repeat = hmac.notna() & self.rows.duplicated(["image_hmac", "version"])
        is_new = ~(is_repeat | self.rows["is_cached"]).to_numpy(bool)
        return None if is_new.all() else self.select(is_new)


def build_rows(
    class_names: Sequence[str], probabilities: npt.NDArray[np.float32], **columns: Any
) -> pd.DataFrame:
    """Return the rows of a window from the columns at hand; others hold what is missing.

    Args:
        class_names: K names.
        probabilities: float32 ``(N, K)``; give ``predicted`` the argmax.
        columns: N values each, of ``PREDICTION_COLUMNS`` or ``LABEL_COLUMNS``.
    """
    n = len(probabilities)
    missing: dict[str, Any] = {
        "predicted": probabilities.argmax(axis=1) if n else np.zeros(0, np.int64),
        "is_abstained": False,
        "is_cached": False,
        "sampling_probability": 1.0,
        "label": -1,
        "is_blind": False,
    }
    types = PREDICTION_COLUMNS | LABEL_COLUMNS
    unknown = columns.keys() - types.keys()
    if unknown:
        raise ValueError(f"a window has no columns {sorted(unknown)}")
    values = {name: columns.get(name, missing.get(name)) for name in types}
    rows = {
        name: pd.Series(value, index=pd.RangeIndex(n), dtype=types[name])
        for name, value in values.items()
    }
    return pd.DataFrame(rows)
