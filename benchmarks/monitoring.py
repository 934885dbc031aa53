"""Detectors of drift and harm on real predictors: false alarms, and what they find how soon.

REPLAYS (default 1000) null streams of 10,000 predictions each, SEEDS (default 200) streams of each
shift (40 and 20 are a quick look). Predictors are trained on Fashion-MNIST (Debian's package
dataset-fashion-mnist or FASHION_MNIST); CACHE is a folder that keeps their outputs. All draws are
seeded by their number. Beside the martingale: Evidently's default distances and Kolmogorov-Smirnov
tests on the same statistics, which look as often (every 100 predictions, at all since the first)
and whose thresholds are set on the null streams so that 1 % of them are ever an alarm: the rate
that the martingale guarantees. What they find if they look once stands beside it.

    python -m benchmarks.monitoring [REPLAYS [SEEDS [CACHE]]]
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from benchmarks.harness import describe_machine, parse_arguments, save_result
from benchmarks.monitoring_outputs import HALVES, SHIFTS, make_outputs
from cv_factory.artifacts.arrays import load_npz
from cv_factory.inference.reference import STATISTICS, EstimatorError, LabeledOutputs
from cv_factory.monitoring.estimator_errors import expected_error

Outputs = LabeledOutputs
Bins = npt.NDArray[np.int8]
Rows = npt.NDArray[np.int64]
N_NULL, LOOK, SIZES = 10_000, 100, (200, 500, 1000)
#: Sizes of the reference: as of Fashion-MNIST's test split, and a small one.
REFERENCES = (10_000, 1000)
#: Shares of corrupted images among clean ones.
_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
_BATCH = 20
_FINE = 256
#: Null streams that the competitors' thresholds are set on.
_N_CALIBRATION = 300


def load(folder: Path, name: str) -> Outputs:
    names = ("labels", "probabilities", "features", "statistics")
    return LabeledOutputs(**load_npz(folder / f"{name}.npz", names))


class Statistics:
    """Bins of the drift statistics of all images of one predictor, and of the competitors' ones."""

    def __init__(self, fitting: Outputs) -> None:
        from cv_factory.monitoring.conformal import build_bets
        from cv_factory.monitoring.drift_statistics import DriftStatistics

        self.drift = DriftStatistics(fitting, [str(i) for i in range(10)], 32)
        self.bets = build_bets(self.drift.shares)
        columns = self._columns(fitting)
        steps = np.linspace(0, 1, _FINE + 1)[1:-1]
        self._edges = np.quantile(columns, steps, axis=0)
        self._widths = np.diff(self._edges, axis=0).T / columns.std(axis=0)[:, None]
        self.n_classes = fitting.probabilities.shape[1]

    def _columns(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        looks = outputs.statistics[:, 2:]
        return np.concatenate([outputs.probabilities, looks, outputs.features], axis=1)

    def bin(self, outputs: Outputs) -> Bins:
        return self.drift.bin(outputs)

    def bin_finely(self, outputs: Outputs) -> Bins:
        """Return bins of probabilities, looks and features, and last the predicted class."""
        columns = self._columns(outputs)
        bins = [
            np.searchsorted(edges, column, side="right")
            for edges, column in zip(self._edges.T, columns.T, strict=True)
        ]
        return np.stack([*bins, outputs.predicted], axis=1).astype(np.int8)

    def evidence(self, references: Sequence[Bins], streams: Sequence[Bins], seed: int) -> Any:
        """Return the logarithm of the evidence, ``(streams, blocks)``, of streams at once."""
        from dataclasses import replace

        from cv_factory.monitoring.conformal import log_capitals

        n = len(streams)
        bets = replace(
            self.bets,
            coefficients=np.tile(self.bets.coefficients, (n, 1, 1)),
            steps=np.tile(self.bets.steps, n),
        )
        looks = log_capitals(
            np.concatenate(references, axis=1),
            np.concatenate(streams, axis=1),
            bets,
            np.random.default_rng(seed),
        )
        weighted = looks.reshape(len(looks), n, -1) + np.log(self.drift.weights)
        return np.logaddexp.reduce(weighted, axis=2).T

    def distances(self, reference: Bins, stream: Bins) -> dict[str, npt.NDArray[np.float64]]:
        """Return each competitor's distance at each look times sqrt(nm / (n + m))."""
        n_looks = len(stream) // LOOK
        size = _FINE * stream.shape[1]
        offsets = np.arange(stream.shape[1]) * _FINE

        def count(bins: Bins) -> Any:
            return np.bincount((bins + offsets).ravel(), minlength=size).reshape(-1, _FINE)

        base = count(reference) / len(reference)
        parts = [count(stream[i * LOOK : (i + 1) * LOOK]) for i in range(n_looks)]
        n = LOOK * np.arange(1, n_looks + 1)
        shares = np.cumsum(parts, axis=0) / n[:, None, None]
        gaps = np.abs(np.cumsum(shares - base, axis=2))[:, :-1]
        scale = np.sqrt(n * len(reference) / (n + len(reference)))
        kolmogorov = gaps.max(axis=2) * scale[:, None]
        wasserstein = (gaps[:, :, :-2] * self._widths).sum(axis=2)
        jensen_shannon = _jensen_shannon(base[-1, :10], shares[:, -1, :10])
        columns = np.concatenate([wasserstein, jensen_shannon[:, None]], axis=1) * scale[:, None]
        return {
            "KS, all statistics": kolmogorov.max(axis=1),
            "KS, probabilities (BBSD)": kolmogorov[:, : self.n_classes].max(axis=1),
            "Evidently, any column": columns.max(axis=1),
            "Evidently, half of the columns": np.median(columns, axis=1),
        }


def _jensen_shannon(p: Any, q: Any) -> Any:
    """Return the distance of shares ``(K,)`` from each row of ``(looks, K)``."""
    from scipy.special import rel_entr

    middle = (p + q) / 2
    return np.sqrt((rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / 2)


def check_evidently(statistics: Statistics, outputs: Outputs) -> float:
    """Return the largest difference between Evidently's own distances and ours on bins."""
    os.environ["DO_NOT_TRACK"] = "1"
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    halves = []
    for rows in (slice(0, 5000), slice(5000, 6000)):
        columns = statistics._columns(outputs)[rows]
        frame = pd.DataFrame(columns, columns=[f"x{i}" for i in range(columns.shape[1])])
        halves.append(frame.assign(predicted=outputs.predicted[rows].astype(str)))
    run = Report([DataDriftPreset()]).run(halves[1], halves[0])
    theirs = [float(metric["value"]) for metric in run.dict()["metrics"][1:]]
    fine = statistics.bin_finely(outputs)
    ours = statistics.distances(fine[:5000], fine[5000:6000])["Evidently, any column"][-1]
    return abs(float(ours / np.sqrt(5000 * 1000 / 6000)) - max(theirs))


def measure_null(
    statistics: Statistics, pool: Outputs, replays: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return false alarms of the martingale, and all distances of the competitors by replay."""
    bins, fine = statistics.bin(pool), statistics.bin_finely(pool)
    shares: dict[str, Any] = {}
    kept: dict[str, list[Any]] = {}
    for n_reference in REFERENCES:
        highest = []
        begin = time.perf_counter()
        for start in range(0, replays, _BATCH):
            draws = [
                np.random.default_rng([n_reference, seed]).permutation(len(pool))
                for seed in range(start, min(start + _BATCH, replays))
            ]
            parts = [
                (rows[:n_reference], rows[n_reference : n_reference + N_NULL]) for rows in draws
            ]
            looks = statistics.evidence(
                [bins[a] for a, _ in parts], [bins[b] for _, b in parts], start
            )
            highest += looks.max(axis=1).tolist()
            if n_reference == REFERENCES[0] and start < _N_CALIBRATION:
                for a, b in parts:
                    for name, values in statistics.distances(fine[a], fine[b]).items():
                        kept.setdefault(name, []).append(values)
        peaks = np.exp(highest)
        shares[f"reference of {n_reference:,}"] = {
            "replays": replays,
            "false alarms at 100": float((peaks >= 100).mean()),
            "at 20": float((peaks >= 20).mean()),
            "highest evidence": float(peaks.max()),
            "seconds": round(time.perf_counter() - begin, 1),
        }
        print(n_reference, shares[f"reference of {n_reference:,}"], flush=True)
    return shares, {name: np.array(values) for name, values in kept.items()}


def detect_shift(
    statistics: Statistics,
    thresholds: Mapping[str, Mapping[str, Any]],
    draw: Any,
    seeds: int,
) -> dict[str, Any]:
    """Return detection rates at ``SIZES`` of each method.

    Args:
        statistics: Of the predictor.
        thresholds: By competitor, of repeated looks and of one look at each size.
        draw: Function of a seed that returns reference and stream, coarse and fine bins of both.
        seeds: Number of streams.
    """
    found: dict[str, list[list[bool]]] = {}
    for start in range(0, seeds, _BATCH):
        draws = [draw(seed) for seed in range(start, min(start + _BATCH, seeds))]
        looks = statistics.evidence([d[0] for d in draws], [d[1] for d in draws], start)
        for row in looks:
            rates = [bool((row[: n // 25] >= np.log(100)).any()) for n in SIZES]
            found.setdefault("martingale", []).append(rates)
        for _, _, reference, stream in draws:
            for name, values in statistics.distances(reference, stream).items():
                limits = thresholds[name]
                often = [bool((values[: n // LOOK] >= limits["often"]).any()) for n in SIZES]
                once = [bool(values[n // LOOK - 1] >= limits["once"][n]) for n in SIZES]
                found.setdefault(name, []).append(often)
                found.setdefault(f"{name}, one look", []).append(once)
    return {
        name: dict(zip(map(str, SIZES), np.mean(rows, axis=0).round(3).tolist(), strict=True))
        for name, rows in found.items()
    }


def set_thresholds(distances: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return for each competitor the 99 % quantile over null replays, and what one look costs."""
    result = {}
    for name, values in distances.items():
        once = {n: float(np.quantile(values[:, n // LOOK - 1], 0.99)) for n in SIZES}
        result[name] = {"often": float(np.quantile(values.max(axis=1), 0.99)), "once": once}
        repeated = (values >= np.quantile(values, 0.99, axis=0)).any(axis=1).mean()
        result[name]["false alarms if one look's threshold is used at every look"] = float(repeated)
    return result


def measure_shifts(
    folder: Path, statistics: Statistics, pool: Outputs, thresholds: Any, seeds: int
) -> dict[str, Any]:
    """Return detection rates by shift and method."""
    bins, fine = statistics.bin(pool), statistics.bin_finely(pool)
    n_reference, n = REFERENCES[0], max(SIZES)

    def reference(rng: np.random.Generator, foreign: int) -> Rows:
        # The first ones' shifted versions are streamed, so they are no reference.
        return foreign + rng.choice(len(pool) - foreign, n_reference, replace=False)

    def draw_class(seed: int) -> Any:
        rng, label = np.random.default_rng([1, seed]), seed % 10
        odds = np.where(pool.labels == label, 0.3 / 0.1, 0.7 / 0.9)
        rows = rng.permutation(len(pool))
        rest = rows[n_reference:]
        chosen = rng.choice(rest, n, replace=False, p=odds[rest] / odds[rest].sum())
        first = rows[:n_reference]
        return bins[first], bins[chosen], fine[first], fine[chosen]

    result = {"class 10 % to 30 %": detect_shift(statistics, thresholds, draw_class, seeds)}
    for name in SHIFTS:
        shifted = load(folder, name)
        changed, changed_fine = statistics.bin(shifted), statistics.bin_finely(shifted)

        def draw_changed(
            seed: int, changed: Bins = changed, changed_fine: Bins = changed_fine
        ) -> Any:
            rng = np.random.default_rng([2, seed])
            first = reference(rng, len(changed))
            chosen = rng.choice(len(changed), n, replace=False)
            return bins[first], changed[chosen], fine[first], changed_fine[chosen]

        result[name] = detect_shift(statistics, thresholds, draw_changed, seeds)
        print(name, result[name], flush=True)
    return result


def measure_new_class(folder: Path, replays: int, seeds: int) -> dict[str, Any]:
    """Return detection rates of a class that the predictor has never seen, 10 % of the images."""
    statistics, pool = Statistics(load(folder, "validation of nine")), load(folder, "pool of nine")
    new = load(folder, "new class")
    bins, fine = statistics.bin(pool), statistics.bin_finely(pool)
    new_bins, new_fine = statistics.bin(new), statistics.bin_finely(new)
    n_reference, n = REFERENCES[0], max(SIZES)
    distances: dict[str, list[Any]] = {}
    for seed in range(min(replays, _N_CALIBRATION)):
        rows = np.random.default_rng([4, seed]).permutation(len(pool))
        a, b = rows[:n_reference], rows[n_reference : n_reference + N_NULL]
        for name, values in statistics.distances(fine[a], fine[b]).items():
            distances.setdefault(name, []).append(values)
    thresholds = set_thresholds({name: np.array(rows) for name, rows in distances.items()})

    def draw(seed: int) -> Any:
        rng = np.random.default_rng([3, seed])
        rows = rng.permutation(len(pool))
        first, chosen = rows[:n_reference], rows[n_reference : n_reference + n]
        is_new = rng.random(n) < 0.1
        others = rng.choice(len(new), n)
        stream = np.where(is_new[:, None], new_bins[others], bins[chosen])
        stream_fine = np.where(is_new[:, None], new_fine[others], fine[chosen])
        return bins[first], stream, fine[first], stream_fine

    return detect_shift(statistics, thresholds, draw, seeds)


def measure_late_shift(statistics: Statistics, pool: Outputs, folder: Path) -> dict[str, Any]:
    """Return after how many predictions a shift is found that begins after 5,000 others."""
    bins, changed = statistics.bin(pool), statistics.bin(load(folder, "rotation 15°"))
    delays = []
    for seed in range(20):
        rng = np.random.default_rng([5, seed])
        rows = len(changed) + rng.permutation(len(pool) - len(changed))
        first, before = rows[:10_000], rows[10_000:15_000]
        stream = np.concatenate([bins[before], changed[rng.choice(len(changed), 3000)]])
        looks = statistics.evidence([bins[first]], [stream], seed)[0]
        hits = np.flatnonzero(looks >= np.log(100))
        delays.append((int(hits[0]) + 1) * 25 - 5000 if len(hits) else 10**9)
    return {"shift": "rotation 15° after 5,000", "median": float(np.median(delays)), "all": delays}


def measure_error_rise(pool: Outputs, seeds: int, replays: int) -> dict[str, Any]:
    """Return after how many labels a rise of the error from 3 % to 10 % is found."""
    from cv_factory.monitoring.window import Window, build_rows

    names = tuple(str(i) for i in range(10))
    is_wrong = pool.predicted != pool.labels
    right, wrong = np.flatnonzero(~is_wrong), np.flatnonzero(is_wrong)

    def draw(rng: np.random.Generator, n: int, error: float) -> Rows:
        errors = rng.random(n) < error
        return np.where(errors, rng.choice(wrong, n), rng.choice(right, n))

    def peak(seed: int, n: int, error: float, confidence: float, n_reference: int) -> float:
        from cv_factory.monitoring import error_evidence

        rng = np.random.default_rng([6, seed])
        first, chosen = draw(rng, n_reference, 0.03), draw(rng, n, error)
        rows = build_rows(
            names,
            pool.probabilities[chosen],
            label=pool.labels[chosen],
            predicted=pool.predicted[chosen],
        )
        window = Window(rows, pool.probabilities[chosen], pool.features[chosen], names)
        test = LabeledOutputs(*(getattr(pool, name)[first] for name in vars(pool)))
        return error_evidence.measure_error_rise(test, window, confidence, 0.0).evidence

    result: dict[str, Any] = {"guarantee": "evidence 20, reference at 95 %"}
    for n_reference in REFERENCES:
        for n in (100, 150, 300):
            peaks = np.array([peak(s, n, 0.10, 0.95, n_reference) for s in range(seeds)])
            result[f"reference of {n_reference:,}: found within {n} labels"] = {
                "at 20": float((peaks >= 20).mean()),
                "at 100": float((peaks >= 100).mean()),
            }
        peaks = np.array([peak(s, 3000, 0.03, 0.95, n_reference) for s in range(replays)])
        result[f"reference of {n_reference:,}: false alarms in 3,000 labels"] = {
            "replays": replays,
            "at 20": float((peaks >= 20).mean()),
            "at 100": float((peaks >= 100).mean()),
        }
    return result


def measure_estimates(folder: Path, test: Outputs) -> dict[str, Any]:
    """Return how often an estimate of the accuracy is within 3 points, or within its band.

    Of corrupted images, and of mixtures with clean ones. The band is measured on other images, with
    all corruptions, and without the one that is estimated.
    """
    first, second = (
        [EstimatorError(**row) for row in json.loads((folder / f"{name}.json").read_text())]
        for name in HALVES
    )
    result: dict[str, Any] = {}
    for name in sorted({row.estimator for row in second}):
        rows = [row for row in second if row.estimator == name]
        worst = max(rows, key=lambda row: abs(row.error))
        result[name] = {
            "kinds of images": len(rows),
            "mean error": float(np.mean([abs(row.error) for row in rows])),
            "largest error": [worst.corruption, worst.severity, round(worst.error, 4)],
            "by share of corrupted images": {
                f"{share:.0%}": _measure_bands(first, rows, share, test) for share in _SHARES
            },
        }
    return result


def _measure_bands(
    measured: Sequence[EstimatorError], rows: Sequence[EstimatorError], share: float, test: Outputs
) -> dict[str, Any]:
    """Return how often bands from one half hold for a share of the other half's corrupted images.

    The rest is clean; where the share is 0, all are.
    """
    clean = next(row for row in rows if row.severity == 0)
    bands: dict[str, list[float]] = {"corruption known": [], "corruption unknown": []}
    errors = []
    for row in [row for row in rows if row.severity] if share else [clean]:
        mixture = share * np.array([row.estimate, row.accuracy, *row.statistics])
        mixture += (1 - share) * np.array([clean.estimate, clean.accuracy, *clean.statistics])
        statistics = np.tile(np.array([28, 28, *mixture[2:]], np.float32), (row.n_images, 1))
        errors.append(abs(mixture[0] - mixture[1]))
        others = [r for r in measured if r.severity == 0 or r.corruption != row.corruption]
        for kind, known in zip(bands, (measured, others), strict=True):
            reference = cast(Any, SimpleNamespace(estimator_errors=known, test=test))
            band = expected_error(reference, row.estimator, mixture[0], statistics)
            bands[kind].append(cast(float, band))
    is_close = np.array(errors) <= 0.03
    return {"within 3 points": float(is_close.mean())} | {
        kind: {
            "within 3 points or the stated band": float(
                np.mean(is_close | (errors <= np.array(b)))
            ),
            "median band": float(np.median(b)),
        }
        for kind, b in bands.items()
    }


def measure_million(fitting: Outputs, pool: Outputs) -> dict[str, Any]:
    """Return seconds and memory of all detectors on 1,000,000 rows."""
    import resource

    from cv_factory.config.detectors import DetectorsConfig
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.detectors import run_detectors
    from cv_factory.monitoring.window import Window, build_rows

    names = tuple(str(i) for i in range(10))
    chosen = np.random.default_rng(7).choice(len(pool), 1_000_000)
    probabilities, features = pool.probabilities[chosen], pool.features[chosen]
    looks = dict(zip(STATISTICS, pool.statistics[chosen].T, strict=True))
    labels = np.where(np.arange(1_000_000) % 100 == 0, pool.labels[chosen], -1)
    rows = build_rows(names, probabilities, label=labels, time=np.datetime64("2026-11-01"), **looks)
    window = Window(rows, probabilities, features, names)
    first = LabeledOutputs(*(part[:10_000] for part in vars(pool).values()))
    reference = Reference(names, "0" * 64, first, fitting)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    findings = run_detectors(reference, window, DetectorsConfig())
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "MB beside the window": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10,
        "MB of the process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "status": {finding.detector: finding.status for finding in findings},
    }


def main() -> int:
    """Measure, print and store the result."""
    replays, seeds, cache = parse_arguments(replays=1000, seeds=200, cache="")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(cache or scratch)
        if not (folder / "new class.npz").exists():
            make_outputs(folder)
        pool, statistics = load(folder, "pool"), Statistics(load(folder, "validation"))
        result: dict[str, Any] = {
            "machine": describe_machine(),
            "accuracy of the predictor": pool.accuracy,
            "seeds": f"0 to {seeds - 1} of each shift, 0 to {replays - 1} of null streams",
            "difference from Evidently's own largest distance": check_evidently(statistics, pool),
        }
        result["1,000,000 rows"] = measure_million(load(folder, "validation"), pool)
        result["estimated accuracy, severity 1 to 3"] = measure_estimates(folder, pool)
        print(result, flush=True)
        result["null"], distances = measure_null(statistics, pool, replays)
        save_result("monitoring", result)
        thresholds = set_thresholds(distances)
        result["one look's threshold at every look"] = {
            name: row["false alarms if one look's threshold is used at every look"]
            for name, row in thresholds.items()
        }
        result["detection"] = measure_shifts(folder, statistics, pool, thresholds, seeds)
        result["detection"]["new class at 10 %"] = measure_new_class(folder, replays, seeds)
        save_result("monitoring", result)
        result["late"] = measure_late_shift(statistics, pool, folder)
        result["error 3 % to 10 %"] = measure_error_rise(pool, seeds, min(replays, 200))
        save_result("monitoring", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
