"""The Evaluation: what goes in is checked, what is stored comes back, damage is refused."""

import json
import pickle
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cv_factory.artifacts.files import write_header
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.errors import ArtifactError
from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.behavior import (
    Behavior,
    ConfusedPair,
    Consistency,
    CorruptionResult,
    Cost,
    Explanation,
)
from cv_factory.evaluation.evaluate_probabilities import evaluate
from cv_factory.evaluation.evaluation import Evaluation, Metric
from cv_factory.evaluation.metrics import metric_names
from cv_factory.evaluation.slices import measure_slices

NAMES = ("cat", "dog", "élan")
CONFIG = EvaluateConfig(bootstrap_samples=200, top_k=2)
FILES = ["predictions.parquet", "probabilities.npy", "samples.npz"]


def some_input(n_images=90, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n_images) % 3
    scores = rng.random((n_images, 3)) + 0.5 * np.eye(3)[labels]
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities, labels, [f"image-{i}" for i in range(n_images)]


def some_evaluation(**changes):
    probabilities, labels, ids = some_input(**changes)
    return evaluate(probabilities, labels, ids, NAMES, "f" * 64, CONFIG)


def test_every_number_is_about_the_same_images():
    probabilities, labels, ids = some_input()
    result = evaluate(probabilities, labels, ids, NAMES, "f" * 64, CONFIG)
    predicted = probabilities.argmax(axis=1)
    assert result.n_images == 90
    assert tuple(result.metrics) == metric_names()
    assert result.metrics["accuracy"].value == (predicted == labels).mean()
    assert [row.support for row in result.per_class] == [30, 30, 30]
    assert result.confusion.sum() == 90
    np.testing.assert_array_equal(result.predictions.predicted, predicted)
    np.testing.assert_array_equal(result.predictions.confidence, probabilities.max(axis=1))
    for metric in result.metrics.values():
        assert metric.low <= metric.value <= metric.high
        assert metric.low < metric.high
        assert metric.reason is None


def test_most_confused_pairs_come_first_and_hits_never():
    evaluation = replace(
        some_evaluation(), confusion=np.array([[90, 2, 0], [7, 80, 0], [0, 2, 70]])
    )
    assert evaluation.most_confused(9) == [("dog", "cat", 7), ("cat", "dog", 2), ("élan", "dog", 2)]
    assert evaluation.most_confused(1) == [("dog", "cat", 7)]


def test_a_class_without_images_has_a_reason_instead_of_a_value():
    probabilities, labels, ids = some_input()
    labels = np.where(labels == 2, 0, labels)
    result = evaluate(probabilities, labels, ids, NAMES, "f" * 64, CONFIG)
    for name in ("macro_f1", "roc_auc"):
        assert result.metrics[name] == Metric(None, reason="no test images of 'élan'")
    assert result.metrics["accuracy"].value is not None
    assert result.per_class[2].recall is None
    assert result.per_class[2].precision == 0.0


def test_a_perfect_ranking_has_a_value_without_an_interval():
    _, labels, ids = some_input()
    result = evaluate(np.eye(3)[labels], labels, ids, NAMES, "f" * 64, CONFIG)
    assert result.metrics["roc_auc"].value == 1.0
    assert result.metrics["roc_auc"].low is None
    assert "no interval" in result.metrics["roc_auc"].reason
    assert result.metrics["accuracy"].low < 1.0


def test_one_image_is_enough_to_answer():
    result = evaluate(np.array([[0.2, 0.8]]), np.array([1]), ["a"], ("no", "yes"), "f" * 64, CONFIG)
    assert result.metrics["accuracy"].value == 1.0
    assert result.metrics["roc_auc"].value is None


def _with(probabilities, index, value):
    changed = probabilities.copy()
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y, i, n: (p[:0], y[:0], [], n), "no test images"),
        (lambda p, y, i, n: (p[:-1], y, i, n), "do not fit"),
        (lambda p, y, i, n: (p, y[:-1], i, n), "do not fit"),
        (lambda p, y, i, n: (p, y, i, ("cat", "dog")), "do not fit"),
        (lambda p, y, i, n: (p, y, i, ("cat", "dog", "cat")), "differ"),
        (lambda p, y, i, n: (p, y.astype(np.int32), i, n), "int32"),
        (lambda p, y, i, n: (p.astype(np.float16), y, i, n), "float16"),
        (lambda p, y, i, n: (p, y, [*i[:-1], i[0]], n), "twice"),
        (lambda p, y, i, n: (p, _with(y, 4, 3), i, n), "between 0 and 2"),
        (lambda p, y, i, n: (p, _with(y, 4, -1), i, n), "between 0 and 2"),
        (lambda p, y, i, n: (_with(p, (3, 1), np.nan), y, i, n), "NaN"),
        (lambda p, y, i, n: (_with(p, 3, [1.5, -0.5, 0.0]), y, i, n), "negative"),
        (lambda p, y, i, n: (2 * p, y, i, n), "sum to 1"),
    ],
)
def test_input_that_does_not_fit_is_refused(change, message):
    probabilities, labels, ids, names = change(*some_input(), NAMES)
    with pytest.raises(m.EvaluationError, match=message):
        evaluate(probabilities, labels, ids, names, "f" * 64, CONFIG)


@pytest.mark.parametrize(
    "fields",
    [
        (None, None, None, None),
        (0.5, None, None, None),
        (0.5, 0.4, 0.6, "why"),
        (0.7, 0.4, 0.6, None),
        (float("nan"), 0.4, 0.6, None),
        (0.5, 0.4, None, "why"),
        (None, 0.4, 0.6, "why"),
    ],
)
def test_a_metric_that_contradicts_itself_cannot_be_made(fields):
    with pytest.raises(ValueError, match=r"low|reason|interval"):
        Metric(*fields)


def test_round_trip(tmp_path):
    saved = some_evaluation()
    saved.save(tmp_path)
    loaded = Evaluation.load(tmp_path)
    assert loaded.metrics == saved.metrics
    assert loaded.per_class == saved.per_class
    assert loaded.class_names == NAMES
    assert (loaded.confidence, loaded.predictor_fingerprint) == (0.95, "f" * 64)
    assert loaded.predictions.ids == saved.predictions.ids
    for name in ("labels", "predicted", "confidence"):
        ours, theirs = (getattr(e.predictions, name) for e in (loaded, saved))
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(loaded.confusion, saved.confusion)
    np.testing.assert_array_equal(loaded.predictions.probabilities, saved.predictions.probabilities)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", *FILES]


def some_behavior():
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    heat = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)
    return Behavior(
        corruptions=(CorruptionResult("jpeg", 3, 0.5, 0.4, 0.6, 90),),
        consistency=Consistency(64, 1e-7, 0.0, 0.98),
        cost=Cost({"batch_1_p50": 0.1}, 12_345, 10, 20, {"Conv": 3}, 2, "x86_64, Linux"),
        explanations=(Explanation("image-3", 0, 1, 0.9, "occlusion", image, heat),),
        confused=(ConfusedPair(0, 1, ("image-3", "image-6"), np.stack([image, image[::-1]])),),
    )


def test_slices_and_behavior_survive_the_round_trip(tmp_path):
    probabilities, labels, ids = some_input()
    cut = {"camera": ["a", "b", "b"] * 30, "class": [NAMES[k] for k in labels]}
    saved = evaluate(
        probabilities, labels, ids, NAMES, "f" * 64, CONFIG, slices=cut, behavior=some_behavior()
    )
    saved.save(tmp_path)
    loaded = Evaluation.load(tmp_path)
    assert loaded.slices == saved.slices
    assert {s.name for s in loaded.slices} >= {"camera=a", "camera=b", "class=élan"}
    assert loaded.predictions.slices == {k: tuple(v) for k, v in cut.items()}
    ours, theirs = loaded.behavior, saved.behavior
    assert (ours.corruptions, ours.consistency, ours.cost) == (
        theirs.corruptions,
        theirs.consistency,
        theirs.cost,
    )
    (explained,) = ours.explanations
    assert (explained.id, explained.label, explained.predicted) == ("image-3", 0, 1)
    np.testing.assert_array_equal(explained.heat, theirs.explanations[0].heat)
    np.testing.assert_array_equal(explained.image, theirs.explanations[0].image)
    assert ours.confused[0].ids == ("image-3", "image-6")
    np.testing.assert_array_equal(ours.confused[0].images, theirs.confused[0].images)
    assert ours.figures() == theirs.figures()
    assert ours.figures()["size_mb"] == 0.012345


def test_per_class_intervals_hold_their_values():
    for row in some_evaluation().per_class:
        for name in ("precision", "recall", "f1"):
            low, high = getattr(row, f"{name}_interval")
            assert 0 <= low < getattr(row, name) < high <= 1


def test_calibration_bins_hold_every_image_once():
    evaluation = some_evaluation()
    bins = evaluation.calibration()
    assert sum(row.n_images for row in bins) == 90
    gap = sum(row.n_images * abs(row.confidence - row.accuracy) for row in bins) / 90
    assert gap == pytest.approx(evaluation.metrics["expected_calibration_error"].value, abs=1e-6)


def test_equal_evaluations_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        some_evaluation().save(tmp_path / name)
    for file in ("evaluation.json", *FILES):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_missing_interval_survives_the_round_trip(tmp_path):
    _, labels, ids = some_input()
    saved = evaluate(np.eye(3)[labels], labels, ids, NAMES, "f" * 64, CONFIG)
    saved.save(tmp_path)
    assert Evaluation.load(tmp_path).metrics == saved.metrics


def test_an_evaluation_outlives_an_added_metric(tmp_path):
    """An evaluation lists a metric whose module was removed since."""
    saved = some_evaluation()
    saved = replace(saved, metrics={"worst_recall": Metric(0.5, 0.4, 0.6), **saved.metrics})
    saved.save(tmp_path)
    loaded = Evaluation.load(tmp_path)
    assert tuple(loaded.metrics) == (*metric_names(), "worst_recall")
    assert loaded.metrics["worst_recall"] == Metric(0.5, 0.4, 0.6)


def test_an_evaluation_with_clipped_log_losses_loads(tmp_path):
    """An evaluation stored before log losses were those of the probabilities as they are."""
    _, labels, ids = some_input()
    confident = np.eye(3, dtype=np.float32)[(labels + 1) % 3]
    slices = {"class": [NAMES[label] for label in labels]}
    saved = evaluate(confident, labels, ids, NAMES, "f" * 64, CONFIG, slices=slices)
    saved.save(tmp_path)

    def clip(body):
        del body["has_clipped_log_loss"]
        losses = m.clipped_image_log_losses(labels, confident)
        measured = measure_slices(slices, labels < 0, losses, CONFIG.confidence)
        body["slices"] = [asdict(row) for row in measured]

    _resign(tmp_path, clip)
    loaded = Evaluation.load(tmp_path)
    assert loaded.has_clipped_log_loss
    assert loaded.slices[0].log_loss < 16 < saved.slices[0].log_loss
    loaded.save(tmp_path)
    assert Evaluation.load(tmp_path).slices == loaded.slices


def test_a_flipped_byte_is_refused(tmp_path):
    some_evaluation().save(tmp_path)
    path = tmp_path / "predictions.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"predictions\.parquet does not match its checksum"):
        Evaluation.load(tmp_path)


def _resign(directory, change=lambda body: None, version=2):
    """Write a header with right checksums over whatever lies there, as a forger would."""
    body = json.loads((directory / "evaluation.json").read_text())["body"]
    change(body)
    write_header(directory, "evaluation", version, body, dict.fromkeys(FILES))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["metrics"]["accuracy"].update(value=0.99, high=0.995),
        lambda body: body["metrics"].pop("roc_auc"),
        lambda body: body["metrics"]["roc_auc"].update(value="0.9"),
        lambda body: body["metrics"]["roc_auc"].update(low=0.99, high=0.1),
        lambda body: body["per_class"][0].update(f1=1.0),
        lambda body: body["per_class"].pop(),
        lambda body: body["slices"].append(
            {
                "column": "class",
                "value": "cat",
                "n_images": 30,
                "accuracy": 1.0,
                "low": 0.9,
                "high": 1.0,
                "log_loss": 0.0,
            }
        ),
        lambda body: body["behaviour"]["explanations"].append(
            {"id": "a", "label": 0, "predicted": 0, "confidence": 1.0, "method": "occlusion"}
        ),
        lambda body: body.update(class_names=["cat", "dog"]),
        lambda body: body.update(unknown=1),
        lambda body: body.pop("predictor_fingerprint"),
    ],
)
def test_a_forged_header_is_refused(tmp_path, change):
    some_evaluation().save(tmp_path)
    _resign(tmp_path, change)
    with pytest.raises(
        ArtifactError,
        match=r"evaluation\.json|predictions\.parquet|probabilities\.npy|samples\.npz",
    ):
        Evaluation.load(tmp_path)


def test_nan_in_the_header_is_refused(tmp_path):
    some_evaluation().save(tmp_path)
    path = tmp_path / "evaluation.json"
    path.write_text(path.read_text().replace('"confidence": 0.95', '"confidence": NaN'))
    with pytest.raises(ArtifactError, match=r"evaluation\.json"):
        Evaluation.load(tmp_path)


def test_a_future_version_is_refused(tmp_path):
    some_evaluation().save(tmp_path)
    _resign(tmp_path, version=3)
    with pytest.raises(ArtifactError, match="format version 3"):
        Evaluation.load(tmp_path)


class _Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_a_pickle_in_place_of_the_predictions_is_refused_and_not_run(tmp_path):
    some_evaluation().save(tmp_path)
    (tmp_path / "predictions.parquet").write_bytes(pickle.dumps(_Bomb()))
    _resign(tmp_path)
    with pytest.raises(ArtifactError, match="not a readable Parquet file"):
        Evaluation.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns("confidence"), "other columns"),
        (lambda t: t.set_column(1, "label", t["label"].cast(pa.int32())), "other columns"),
        (lambda t: t.set_column(0, "id", pa.nulls(len(t), pa.string())), "other columns"),
        (lambda t: t.set_column(2, "predicted", pa.array([7] * len(t))), "impossible"),
        (lambda t: t.set_column(1, "label", pa.array([-1] * len(t))), "impossible"),
        (lambda t: t.set_column(3, "confidence", pa.array([float("nan")] * len(t))), "impossible"),
        (lambda t: t.set_column(0, "id", pa.array(["same"] * len(t))), "impossible"),
        (lambda t: t.slice(0, 0), "impossible"),
        (lambda t: t.slice(1), "does not agree"),
        (lambda t: t.set_column(2, "predicted", t["label"]), "does not agree"),
        (lambda t: t.append_column("extra", t["id"]), "other columns"),
    ],
)
def test_other_predictions_are_refused(tmp_path, change, message):
    some_evaluation().save(tmp_path)
    path = tmp_path / "predictions.parquet"
    pq.write_table(change(pq.ParquetFile(path).read()), path)
    _resign(tmp_path)
    with pytest.raises(ArtifactError, match=message):
        Evaluation.load(tmp_path)
