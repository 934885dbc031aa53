"""Batch inference predicts every record once, also across interruptions."""

import io
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cv_factory.config.data import DataConfig
from cv_factory.data.sources import open_source
from cv_factory.errors import ArtifactError
from cv_factory.inference.batch import BatchJob, ScoringModel, score
from cv_factory.inference.batch_output import OutputError, OutputFolder
from cv_factory.inference.batch_predictions import BatchPredictions
from cv_factory.inference.predictor import Predictor
from tests.support.images import encode
from tests.support.predictors import digits_predictor, with_wrong_golden_samples

_SCORE = """
import itertools, os, signal, sys
from pathlib import Path
from cv_factory.config.data import DataConfig
from cv_factory.data.sources import open_source
from cv_factory.inference.batch import BatchJob, ScoringModel, score
from cv_factory.inference.batch_output import OutputFolder
from cv_factory.inference.predictor import Predictor

images, predictor, output, killed_write = sys.argv[1:]
writes, replace = itertools.count(1), Path.replace

def replace_or_die(partial, path):
    if next(writes) == int(killed_write):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(partial, path)

Path.replace = replace_or_die
config = DataConfig(source="folder", path=images)
with open_source(config, labelled=False) as source:
    model = ScoringModel("digits", 3, Predictor.load(Path(predictor)))
    score(BatchJob(source, config, model, 50), OutputFolder.open(output, {}))
"""


def write_digits(folder: Path, n: int = 90) -> None:
    """Write digits as PNGs, without subfolders for classes, and two files that are no images."""
    _, dataset, _ = digits_predictor("logistic_regression")
    (folder / "later").mkdir(parents=True)
    for number in range(n):
        name = f"later/{number:05d}.png" if number % 2 else f"{number:05d}.png"
        pixels = dataset.images[number % len(dataset), ..., 0]
        (folder / name).write_bytes(encode(Image.fromarray(pixels)))
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")


def run(
    folder: Path,
    output: Path,
    *,
    version: int = 3,
    rows: int = 25,
    predictor: Predictor | None = None,
) -> BatchPredictions:
    predictor = predictor or digits_predictor("logistic_regression")[0]
    config = DataConfig(source="folder", path=str(folder))
    with open_source(config, labelled=False) as source:
        job = BatchJob(source, config, ScoringModel("digits", version, predictor), rows)
        return score(job, OutputFolder.open(str(output), {}))


def test_every_image_is_predicted_and_other_files_are_quarantined(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_digits(tmp_path / "images")
    summary = run(tmp_path / "images", tmp_path / "scores")
    rows = pq.ParquetDataset([tmp_path / "scores" / part for part in summary.parts]).read()
    table = {row["id"]: row for row in rows.to_pylist()}

    assert (summary.n_rows, summary.n_quarantined, len(summary.parts)) == (92, 2, 4)
    assert len(table) == rows.num_rows == 92
    assert table["empty.png"]["quarantined"] == "the file is empty"
    assert "1 quarantined: the file is empty" in caplog.messages
    assert table["notes.txt"]["label"] is None
    assert table["notes.txt"]["probabilities"] is None
    predictor, dataset, _ = digits_predictor("logistic_regression")
    expected = predictor.predict(dataset.images[:90]).probabilities
    names = [f"later/{i:05d}.png" if i % 2 else f"{i:05d}.png" for i in range(90)]
    scored = np.array([table[name]["probabilities"] for name in names], np.float32)
    np.testing.assert_allclose(scored, expected, atol=1e-6)
    classes = predictor.contract.class_names
    assert [table[name]["label"] for name in names] == [classes[i] for i in expected.argmax(1)]
    assert {row["model_version"] for row in table.values()} == {3}
    assert sum(summary.class_counts.values()) == 90


def test_unfamiliar_images_are_marked_and_counted(tmp_path: Path) -> None:
    write_digits(tmp_path / "images", 10)
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    (tmp_path / "images" / "noise.png").write_bytes(encode(Image.fromarray(noise)))
    predictor, dataset, _ = digits_predictor("logistic_regression", has_familiarity=True)
    summary = run(tmp_path / "images", tmp_path / "scores", predictor=predictor)
    rows = pq.ParquetDataset([tmp_path / "scores" / part for part in summary.parts]).read()
    table = {row["id"]: row for row in rows.to_pylist()}
    assert table["noise.png"]["unfamiliar"] is True
    assert table["notes.txt"]["unfamiliar"] is table["notes.txt"]["unfamiliarity"] is None
    expected = predictor.predict(dataset.images[:1]).unfamiliarity
    assert table["00000.png"]["unfamiliarity"] == pytest.approx(expected[0], abs=1e-4)
    assert summary.n_unfamiliar == sum(bool(row["unfamiliar"]) for row in table.values())
    again = run(tmp_path / "images", tmp_path / "scores", predictor=predictor)
    assert again == summary
    plain = run(tmp_path / "images", tmp_path / "plain")
    assert plain.n_unfamiliar is None
    assert "unfamiliar" not in pq.read_schema(tmp_path / "plain" / plain.parts[0]).names


def test_a_complete_job_is_not_repeated_and_other_jobs_need_another_folder(
    tmp_path: Path,
) -> None:
    write_digits(tmp_path / "images", 30)
    first = run(tmp_path / "images", tmp_path / "scores")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "scores").iterdir()}
    assert run(tmp_path / "images", tmp_path / "scores") == first
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "scores").iterdir()} == before
    with pytest.raises(OutputError, match="another model version"):
        run(tmp_path / "images", tmp_path / "scores", version=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        run(tmp_path / "images", tmp_path / "mine")


def test_the_output_folder_is_a_dataset_also_where_an_earlier_release_began_it(
    tmp_path: Path,
) -> None:
    write_digits(tmp_path / "images", 30)
    first, scores = run(tmp_path / "images", tmp_path / "scores"), tmp_path / "scores"
    assert len(pd.read_parquet(scores)) == first.n_rows == 32
    for name in ("job.json", "batch_predictions.json"):
        (scores / f"_{name}").rename(scores / name)
    with pytest.raises(OutputError, match="another model version"):
        run(tmp_path / "images", scores, version=4)
    before = (scores / first.parts[0]).stat().st_mtime_ns
    assert run(tmp_path / "images", scores) == first
    assert (scores / first.parts[0]).stat().st_mtime_ns == before
    assert len(pd.read_parquet(scores)) == 32


def test_a_predictor_with_other_answers_than_at_export_predicts_nothing(tmp_path: Path) -> None:
    write_digits(tmp_path / "images", 3)
    changed = with_wrong_golden_samples(digits_predictor("logistic_regression")[0])
    with pytest.raises(ArtifactError, match="digits version 3 answers its golden samples differ"):
        run(tmp_path / "images", tmp_path / "scores", predictor=changed)
    assert not list((tmp_path / "scores").glob("*"))


@pytest.mark.slow
def test_a_killed_job_resumes_without_loss_or_duplicates(tmp_path: Path) -> None:
    write_digits(tmp_path / "images", 900)
    predictor, _, _ = digits_predictor("logistic_regression")
    stored = tmp_path / "predictor"
    stored.mkdir()
    predictor.save(stored)
    scores = tmp_path / "scores"
    command = [sys.executable, "-c", _SCORE, *map(str, (tmp_path / "images", stored, scores))]
    # The first run also writes _job.json.
    for killed_write, n_parts in (("3", 1), ("9", 9)):
        killed = subprocess.run([*command, killed_write], stderr=subprocess.DEVNULL)
        assert killed.returncode == -signal.SIGKILL
        assert len(list(scores.glob("part-*.parquet"))) == n_parts
        assert list(scores.glob(".*.partial"))
        assert not (scores / "_batch_predictions.json").exists()
    before = {p.name: p.stat().st_mtime_ns for p in scores.glob("part-*.parquet")}
    subprocess.run([*command, "0"], check=True, stderr=subprocess.DEVNULL)
    assert not list(scores.glob(".*.partial"))

    assert all((scores / name).stat().st_mtime_ns == when for name, when in before.items())
    parts = sorted(scores.glob("part-*.parquet"))
    ids = [row for part in parts for row in pq.read_table(part).column("id").to_pylist()]
    assert len(ids) == len(set(ids)) == 902
    assert set(ids) == {
        str(p.relative_to(tmp_path / "images"))
        for p in (tmp_path / "images").rglob("*")
        if p.is_file()
    }


def test_a_bucket_gets_the_same_files(tmp_path: Path) -> None:
    import fsspec

    write_digits(tmp_path / "images", 30)
    predictor, _, _ = digits_predictor("logistic_regression")
    config = DataConfig(source="folder", path=str(tmp_path / "images"))
    with open_source(config, labelled=False) as source:
        job = BatchJob(source, config, ScoringModel("digits", 3, predictor), 25)
        summary = score(job, OutputFolder.open("memory://scores/today", {}))
        memory = fsspec.filesystem("memory")
        memory.mv("/scores/today/_job.json", "/scores/today/job.json")
        assert score(job, OutputFolder.open("memory://scores/today", {})) == summary
        assert memory.exists("/scores/today/_job.json")
    content = memory.cat_file(f"/scores/today/{summary.parts[1]}")
    assert pq.read_table(io.BytesIO(content)).num_rows == 7


def test_the_summary_is_saved_and_a_damaged_one_is_rejected(tmp_path: Path) -> None:
    write_digits(tmp_path / "images", 30)
    summary = run(tmp_path / "images", tmp_path / "scores")
    stored = tmp_path / "stored"
    stored.mkdir()
    summary.save(stored)
    assert BatchPredictions.load(stored) == summary
    header = tmp_path / "scores" / "_batch_predictions.json"
    header.write_bytes(header.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="not JSON"):
        run(tmp_path / "images", tmp_path / "scores")
