"""Sections of an ``Evaluation`` that its report and a model card share."""

from functools import partial

from cv_factory.evaluation.evaluation import Evaluation, Interval, Metric
from cv_factory.evaluation.plots.calibration import reliability
from cv_factory.evaluation.plots.class_metrics import per_class_bars
from cv_factory.evaluation.plots.confusion import MAX_MATRIX_CLASSES, confusion_matrix
from cv_factory.evaluation.plots.curves import class_curves
from cv_factory.evaluation.plots.explanations import explanations
from cv_factory.evaluation.plots.fonts import writable_names
from cv_factory.evaluation.plots.robustness import robustness
from cv_factory.evaluation.plots.samples import sample_grid
from cv_factory.evaluation.plots.slice_accuracies import slice_accuracies
from cv_factory.reporting.html_page import render_html
from cv_factory.reporting.page import (
    Block,
    Cell,
    Header,
    Picture,
    Sections,
    Table,
    Text,
    Tile,
    facts_table,
)

METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "macro_f1": "Macro F1",
    "top_k_accuracy": "Top-k accuracy",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "expected_calibration_error": "Calibration error",
}
_N_CONFUSED, _N_SLICES, _N_WEAK = 10, 15, 2


def render_report(evaluation: Evaluation, sections: Sections | None = None) -> str:
    """Return the evaluation as one HTML page: pictures inside, no scripts, no external links.

    Args:
        evaluation: What was measured.
        sections: Its ``quality_sections``, for a caller whose pictures are drawn already.
    """
    text = (
        f"Predictor {evaluation.predictor_fingerprint[:16]} on {evaluation.n_images:,} test images"
    )
    header = Header("Evaluation", text=text)
    if sections is None:
        sections = quality_sections(evaluation)
    return render_html("Evaluation report", header, metric_tiles(evaluation), sections)


def metric_tiles(evaluation: Evaluation) -> list[Tile]:
    """Return each metric with its interval."""
    return [Tile(*row) for row in _metric_rows(evaluation)]


def decisive_tiles(evaluation: Evaluation) -> list[Tile]:
    """Return the few figures that a person decides on."""
    tiles = [
        Tile(METRIC_TITLES[name], _figure(metric.value), _interval(metric))
        for name in ("accuracy", "macro_f1", "expected_calibration_error")
        if (metric := evaluation.metrics.get(name)) is not None
    ]
    if (corrupted := evaluation.behavior.corruption_accuracy) is not None:
        tiles.append(Tile("Under corruption", _figure(corrupted), "mean accuracy"))
    cost = evaluation.behavior.cost
    if cost is not None and "batch_1_p95" in cost.latency_ms:
        latency = f"{cost.latency_ms['batch_1_p95']:.3g} ms"
        tiles.append(Tile("Latency, p95", latency, f"one image, {cost.threads} threads"))
    return tiles


def weak_points(evaluation: Evaluation) -> Table:
    """Return where the predictor is worst: classes, confusions, slices, corruptions."""
    rows: list[tuple[Cell, ...]] = []
    judged = [row for row in evaluation.per_class if row.recall is not None]
    for row in sorted(judged, key=lambda row: row.recall or 0.0)[:_N_WEAK]:
        recall = _with_interval(row.recall, row.recall_interval)
        rows.append(("lowest recall", row.name, recall, row.support))
    for name, taken_for, n in evaluation.most_confused(_N_WEAK):
        rows.append(("most confused", f"{name} taken for {taken_for}", "", n))
    for part in evaluation.ranked_slices[:_N_WEAK]:
        accuracy = _with_interval(part.accuracy, (part.low, part.high))
        rows.append(("worst slice", f"{part.column}: {part.value}", accuracy, part.n_images))
    corruptions = sorted(evaluation.behavior.corruptions, key=lambda result: result.accuracy)
    for result in corruptions[:_N_WEAK]:
        accuracy = _with_interval(result.accuracy, (result.low, result.high))
        name = f"{result.name.replace('_', ' ')}, severity {result.severity}"
        rows.append(("worst corruption", name, accuracy, result.n_images))
    return Table(("", "where", "share of right answers", "images"), tuple(rows))


def _metric_rows(evaluation: Evaluation) -> tuple[tuple[str, str, str], ...]:
    titles = METRIC_TITLES | {"top_k_accuracy": f"Top-{evaluation.top_k} accuracy"}
    metrics = evaluation.metrics
    names = [*(n for n in METRIC_TITLES if n in metrics), *(n for n in metrics if n not in titles)]
    return tuple(
        (titles.get(name, name), _figure(metrics[name].value), _interval(metrics[name]))
        for name in names
    )


def quality_sections(evaluation: Evaluation) -> Sections:
    """Return the sections about quality; those about what was not measured are left out."""
    sections: Sections = [
        ("Metrics", _metric_blocks(evaluation)),
        ("Names in pictures", _name_blocks(evaluation)),
        ("Quality by class", _class_blocks(evaluation)),
        ("Confusion", _confusion_blocks(evaluation)),
        ("ROC and precision-recall curves", _curve_blocks(evaluation)),
        ("Slices, worst first", _slice_blocks(evaluation)),
        ("Calibration", _calibration_blocks(evaluation)),
        ("Robustness", _robustness_blocks(evaluation)),
        ("Unfamiliar images", _familiarity_blocks(evaluation)),
        ("Explanations", _explanation_blocks(evaluation)),
        ("Precision", _precision_blocks(evaluation)),
        ("Cost and consistency", _cost_blocks(evaluation)),
    ]
    return [(title, blocks) for title, blocks in sections if blocks]


def _metric_blocks(evaluation: Evaluation) -> list[Block]:
    percent = f"{100 * evaluation.confidence:g} %"
    text = (
        f"The exported predictor on {evaluation.n_images:,} test images; {percent} intervals from "
        "bootstrap resamples of these images."
    )
    return [Text(text), Table(("metric", "value", f"{percent} interval"), _metric_rows(evaluation))]


def _name_blocks(evaluation: Evaluation) -> list[Block]:
    """Return the names of classes that the pictures could not write."""
    names = evaluation.class_names
    pairs = zip(writable_names(names), names, strict=True)
    rows = tuple((written, name) for written, name in pairs if written != name)
    if not rows:
        return []
    text = (
        "No font of the machine that drew the pictures has the characters of these names; where "
        "one is installed, such as Noto Sans CJK, the pictures write them."
    )
    return [Text(text), Table(("in pictures", "class"), rows)]


def _class_blocks(evaluation: Evaluation) -> list[Block]:
    rows, names = evaluation.per_class, evaluation.class_names

    def bars() -> bytes:
        columns = [[getattr(row, name) for row in rows] for name in ("precision", "recall", "f1")]
        return per_class_bars(names, *columns)

    table = Table(
        ("class", "precision", "recall", "F1", "test images"),
        tuple(
            (
                row.name,
                _with_interval(row.precision, row.precision_interval),
                _with_interval(row.recall, row.recall_interval),
                _with_interval(row.f1, row.f1_interval),
                row.support,
            )
            for row in rows
        ),
    )
    return [table, Picture("Precision, recall and F1", bars)]


def _confusion_blocks(evaluation: Evaluation) -> list[Block]:
    matrix, names = evaluation.confusion, evaluation.class_names
    confused = evaluation.most_confused(_N_CONFUSED)
    blocks: list[Block] = []
    if len(names) > MAX_MATRIX_CLASSES:
        if confused:
            blocks.append(Picture("Most confused", lambda: confusion_matrix(matrix, names)))
    else:
        blocks += [
            Picture("Confusion matrix", lambda: confusion_matrix(matrix, names)),
            Picture(
                "Normalised confusion matrix",
                lambda: confusion_matrix(matrix, names, normalized=True),
            ),
        ]
    if not confused:
        return [*blocks, Text("No test image was taken for another class.")]
    written = writable_names(names)
    blocks.append(Table(("true class", "taken for", "images"), tuple(confused)))
    for pair in evaluation.behavior.confused:
        heading = f"{written[pair.label]} taken for {written[pair.predicted]}"
        titles = [_last(id_) for id_ in pair.ids]
        draw = partial(sample_grid, pair.images, titles, heading=heading)
        caption = f"{names[pair.label]} taken for {names[pair.predicted]}"
        blocks.append(Picture(caption, draw))
    return blocks


def _curve_blocks(evaluation: Evaluation) -> list[Block]:
    p = evaluation.predictions
    data = (p.labels, p.probabilities, evaluation.class_names)
    return [
        Picture("ROC curves", lambda: class_curves("ROC", *data)),
        Picture("Precision-recall curves", lambda: class_curves("precision-recall", *data)),
    ]


def _slice_blocks(evaluation: Evaluation) -> list[Block]:
    ranked = evaluation.ranked_slices
    if not ranked:
        return []
    shown, percent = ranked[:_N_SLICES], f"{100 * evaluation.confidence:g} %"
    rows: list[tuple[Cell, ...]] = [
        (
            s.column,
            s.value,
            _figure(s.accuracy),
            _range((s.low, s.high)),
            _figure(s.log_loss),
            s.n_images,
        )
        for s in shown
    ]
    text = (
        f"The {len(shown)} worst of {len(ranked)} slices with {evaluation.min_slice_images} images "
        "or more. The worst of many is partly bad luck: mind the interval."
    )
    overall = evaluation.metrics["accuracy"].value
    names = [f"{s.column}: {s.value}" for s in shown]

    def draw() -> bytes:
        return slice_accuracies(
            names, [s.accuracy for s in shown], [(s.low, s.high) for s in shown], overall
        )

    header = ("column", "slice", "accuracy", f"{percent} interval", "log loss", "images")
    return [Text(text), Picture("Accuracy by slice", draw), Table(header, tuple(rows))]


def _calibration_blocks(evaluation: Evaluation) -> list[Block]:
    bins = evaluation.calibration()
    error = evaluation.metrics["expected_calibration_error"]
    text = (
        f"Expected calibration error {_figure(error.value)} ({_interval(error)}): how far, on "
        "average, the confidence lies from the share of right answers."
    )

    def draw() -> bytes:
        return reliability(
            [(row.low, row.high) for row in bins],
            [row.confidence for row in bins],
            [row.accuracy for row in bins],
            [row.accuracy_interval for row in bins],
            [row.n_images for row in bins],
        )

    return [Text(text), Picture("Reliability", draw)]


def _robustness_blocks(evaluation: Evaluation) -> list[Block]:
    results = evaluation.behavior.corruptions
    if not results:
        return []
    by_name: dict[str, list[float]] = {}
    for result in results:
        by_name.setdefault(result.name.replace("_", " "), []).append(result.accuracy)
    mean = evaluation.behavior.corruption_accuracy
    text = (
        f"Accuracy on {results[0].n_images:,} test images under each corruption, at three "
        f"severities; {_figure(mean)} on average."
    )
    order = sorted(by_name, key=lambda name: by_name[name][-1])
    header = ("corruption", "severity 1", "severity 2", "severity 3")
    rows = tuple((name, *map(_figure, by_name[name])) for name in order)
    overall = evaluation.metrics["accuracy"].value
    return [
        Text(text),
        Picture("Robustness", lambda: robustness(by_name, overall)),
        Table(header, rows),
    ]


def _familiarity_blocks(evaluation: Evaluation) -> list[Block]:
    result = evaluation.behavior.familiarity
    if result is None:
        return []
    text = (
        "The predictor scores how unlike its training images an image is, and marks it as "
        f"unfamiliar above a threshold that {result.n_validation:,} validation images set, for a "
        f"false rate of {result.false_rate:.2%}."
    )
    percent = f"{100 * evaluation.confidence:g} %"
    header = ("images", "number", "unfamiliar", f"{percent} interval")
    rows = (
        ("test", result.n_images, f"{result.share:.2%}", f"{result.low:.2%} to {result.high:.2%}"),
        ("random pixels", result.n_noise, f"{result.noise_share:.2%}", ""),
    )
    return [Text(text), Table(header, rows)]


def _explanation_blocks(evaluation: Evaluation) -> list[Block]:
    explained = evaluation.behavior.explanations
    if not explained:
        return []
    names = writable_names(evaluation.class_names)
    text = (
        f"Method: {explained[0].method}. Red speaks for the predicted class, blue against it. "
        "Errors first, then hits; of each class the surest."
    )
    return [
        Text(text),
        Picture(
            "Explanations",
            lambda: explanations(
                [e.image for e in explained],
                [e.heat for e in explained],
                [
                    f"{names[e.label]}"
                    if e.label == e.predicted
                    else f"{names[e.label]} → {names[e.predicted]}"
                    for e in explained
                ],
                [e.label == e.predicted for e in explained],
            ),
        ),
    ]


def _precision_blocks(evaluation: Evaluation) -> list[Block]:
    cost = evaluation.behavior.precision
    if cost is None:
        return []
    text = (
        f"The predictor computes in {cost.precision}. On the same test images as in float32: "
        f"{cost.agreement:.2%} keep their class, probabilities differ by "
        f"{cost.largest_difference:.2g} at most."
    )
    rows = (
        (cost.precision, _figure(cost.accuracy), f"{cost.size_bytes / 1e6:.2f} MB"),
        ("float32", _figure(cost.float_accuracy), f"{cost.float_size_bytes / 1e6:.2f} MB"),
        ("lost", f"{cost.accuracy_lost:+.4f}", ""),
    )
    return [Text(text), Table(("precision", "accuracy", "size"), rows)]


def _cost_blocks(evaluation: Evaluation) -> list[Block]:
    facts: dict[str, str | int | float | bool | None] = {}
    cost, consistency = evaluation.behavior.cost, evaluation.behavior.consistency
    if cost is not None:
        for size in (1, 32):
            p50, p95 = (cost.latency_ms.get(f"batch_{size}_{p}") for p in ("p50", "p95"))
            if p50 is not None and p95 is not None:
                facts[f"latency, batch {size}"] = f"p50 {p50:.3g} ms, p95 {p95:.3g} ms"
        facts["machine"] = f"{cost.processor}, {cost.threads} threads"
        facts["size"] = f"{cost.size_bytes / 1e6:.2f} MB"
        facts["parameters"] = cost.parameters
        facts["operations for one image"] = cost.operations
        facts["operators"] = ", ".join(f"{n} {name}" for name, n in cost.n_operators.items())
    if consistency is not None:
        facts["batch of 1 against batch of n"] = f"differ by {consistency.batch_difference:.2g}"
        facts["same image twice"] = f"differ by {consistency.repeat_difference:.2g}"
        if consistency.flip_agreement is not None:
            facts["mirror images with the same class"] = f"{consistency.flip_agreement:.2%}"
    return [facts_table(facts)] if facts else []


def _interval(metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return metric.reason or ""
    return _range((metric.low, metric.high))


def _range(interval: Interval) -> str:
    return f"{_figure(interval[0])} to {_figure(interval[1])}"


def _with_interval(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return _figure(value)
    return f"{_figure(value)} ({interval[0]:.2f} to {interval[1]:.2f})"


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _last(id_: str) -> str:
    """Return the part of an id that tells images apart in a small picture."""
    name = id_.replace("\\", "/").rsplit("/", 1)[-1]
    return name if len(name) <= 14 else f"…{name[-13:]}"
