"""The loop in simulation: how often it retrains in 90 days, steady ones and ones that alternate.

Each of SEEDS (default 200) simulated models with the seeds 0, 1, … has 1,000 held-out test images
and 20 labelled predictions a day, and a tick every 6 hours, with the product's own detector
``error_rise``, its recommendations, decisions (``configs/loop.yaml``) and its log of retrainings;
time, training and rollouts are fakes (``tests.support.fake_loop``). Age retrains nothing, and each
challenger is promoted.

- ``steady``: an error of 3 % in the field as on the test images.
- ``oscillating``: five days of 3 %, five days of 25 %, and so on, whichever version serves.

Run: python -m benchmarks.loop [SEEDS]
"""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.harness import describe_machine, parse_arguments, save_result
from cv_factory.config.loader import load_config
from cv_factory.config.loop import LoopConfig
from cv_factory.config.monitoring import ReportConfig
from cv_factory.inference.reference import LabeledOutputs, Reference
from cv_factory.monitoring.decisions import Evidence
from cv_factory.monitoring.detectors.error_rise import ErrorRiseConfig, detect
from cv_factory.monitoring.report import recommend
from cv_factory.monitoring.window import Window, build_rows
from tests.support.fake_loop import FakeModel
from tests.support.paths import ROOT

_DAYS, _LABELS_A_DAY, _TICKS_A_DAY, _N_TEST = 90, 20, 4, 1000
_CLASS_NAMES = tuple("abcde")
_CONFIG = load_config(
    LoopConfig, ROOT / "configs" / "loop.yaml", overrides=["retrain.after_days=null"]
)
_REPORT = ReportConfig()


class MonitoredModel(FakeModel):
    """Fake model whose reports come from the real detector, on simulated labels."""

    def __init__(self, seed: int) -> None:
        """Draw the test images' outputs."""
        super().__init__(_CONFIG)
        self._rng = np.random.default_rng(seed)
        test = self._draw(_N_TEST, 0.03)
        self._reference = Reference(_CLASS_NAMES, "0" * 64, test, test)
        self._outputs: list[LabeledOutputs] = []
        self._version = 1

    def run_day(self, error: float) -> None:
        """Add a day's labelled predictions, and run its ticks."""
        for _ in range(_TICKS_A_DAY):
            self.now += timedelta(days=1) / _TICKS_A_DAY
            n = _LABELS_A_DAY // _TICKS_A_DAY
            self._outputs.append(self._draw(n, error))
            self.labels += [self.now] * n
            self.tick()

    def monitor(self) -> None:
        """Look at all labelled predictions since the version was promoted."""
        production = self.read_state(self.log.entries()).production
        assert production is not None
        if production != self._version:
            self._version, self._outputs = production, self._outputs[-1:]
        findings = detect(self._reference, self._window(), ErrorRiseConfig())
        recommendation = recommend(
            findings, _REPORT.act_on, _REPORT.act_at_evidence, has_predecessor=False
        )
        self._reports.append((production, Evidence(self.now, recommendation)))

    def _draw(self, n: int, error: float) -> LabeledOutputs:
        """Draw outputs of which so many are wrong."""
        k = len(_CLASS_NAMES)
        labels = self._rng.integers(0, k, n)
        is_wrong = self._rng.random(n) < error
        predicted = (labels + is_wrong * self._rng.integers(1, k, n)) % k
        probabilities = np.full((n, k), 0.02, np.float32)
        probabilities[np.arange(n), predicted] = 0.92
        empty = np.zeros((n, 0), np.float32), np.zeros((n, 5), np.float32)
        return LabeledOutputs(labels, probabilities, *empty)

    def _window(self) -> Window:
        probabilities = np.concatenate([o.probabilities for o in self._outputs])
        labels = np.concatenate([o.labels for o in self._outputs])
        columns: dict[str, Any] = {"label": labels, "label_source": "person:ada", "is_blind": True}
        rows = build_rows(_CLASS_NAMES, probabilities, **columns)
        features = np.zeros((len(rows), 0), np.float32)
        return Window(rows, probabilities, features, _CLASS_NAMES)


def main() -> None:
    """Simulate, print, store the result."""
    (n,) = parse_arguments(seeds=200)
    results = {
        "steady": simulate(n, lambda _: 0.03),
        "oscillating": simulate(n, lambda day: 0.25 if day // 5 % 2 else 0.03),
    }
    for name, figures in results.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    save_result("loop", {"seeds": n, "results": results, "machine": describe_machine()})


def simulate(n: int, error: Callable[[int], float]) -> dict[str, Any]:
    """Return how often n models are trained again, and how close in time at the least."""
    counts, hours = [], []
    for seed in range(n):
        model = MonitoredModel(seed)
        for day in range(_DAYS):
            model.run_day(error(day))
        state = model.read_state(model.log.entries())
        counts.append(len(model.trainings))
        starts = [retraining.started for retraining in state.started]
        hours += [(b - a) / timedelta(hours=1) for a, b in pairwise(starts)]
    return {
        "models_retrained": sum(count > 0 for count in counts),
        "retrainings": sum(counts),
        "most_of_one_model": max(counts),
        "least_hours_between_two": min(hours, default=None),
        "cooldown_hours": _CONFIG.retrain.cooldown_hours,
    }


if __name__ == "__main__":
    main()
