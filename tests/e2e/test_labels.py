"""Labels of a deployed model, by file and over HTTP, reach its predictions."""

import csv
import json
from pathlib import Path

import httpx
import pytest

from cv_factory.data.encode import encode_png
from cv_factory.processes.ports import find_free_port
from cv_factory_client import Label, PredictionClient
from tests.support.commands import assert_codes, run_all
from tests.support.project import Project

pytestmark = [pytest.mark.slow, pytest.mark.engines]

N_IMAGES = 60


def test_labels_by_queue_by_image_and_over_http(trained_project: Project) -> None:
    project, port = trained_project, find_free_port()
    log = f"serving.log.predictions={project.home / 'log'}"
    port_setting = f"endpoint.port={port}"
    project.run("--pipeline", "deployment", "--set", port_setting, "--set", log)
    true_classes = _predict_digits(project.root / "images", port)
    queue = ["labels", "queue", "--n", "30", "--to", "queue.csv"]
    [drawn] = run_all(project, queue)
    assert drawn.code == 0, drawn.output
    n_drawn = _fill_in(project.root / "queue.csv", true_classes)
    (project.root / "images.csv").write_text("image,label\nimages/0.png,0\nimages/1.png,horse\n")
    done = run_all(
        project,
        ["feedback", "queue.csv", "--source", "person:ann"],
        ["feedback", "images.csv"],
        ["feedback", "queue.csv", "--source", "person:ann"],
        ["labels", "status"],
        ["labels", "status", "--json"],
    )
    assert_codes(done, *[0] * 5)
    by_queue, by_image, again, status, as_json = (d.output for d in done)
    assert f"Labels of digits: {n_drawn} new." in by_queue
    assert f"{n_drawn} belong to logged predictions." in by_queue
    assert "2 belong to logged predictions." in by_image
    assert "no class of digits, and count as its errors: horse" in by_image
    assert "0 new" in again
    assert f"images asked for, of {N_IMAGES}" in status
    report = json.loads(as_json[as_json.index("{") :])
    assert report["unknown_classes"] == {"horse": 1}, as_json
    accuracy = report["accuracy"]["1"]
    # What was labelled over HTTP may have been chosen, too; the queue does not name it again.
    assert accuracy["n_asked"] == accuracy["n_labeled"]
    assert accuracy["n_labeled"] - n_drawn in (0, 1)
    assert accuracy["accuracy"] > 0.8
    # The one that was given over HTTP.
    assert report["n_records"] == n_drawn + 3


def _predict_digits(folder: Path, port: int) -> dict[str, str]:
    """Predict images, label one of them over HTTP, and return the true classes by prediction id."""
    from sklearn.datasets import load_digits

    digits, true_classes = load_digits(), {}
    folder.mkdir()
    with PredictionClient(f"http://127.0.0.1:{port}") as client:
        for index in range(N_IMAGES):
            pixels = (digits.images[index] * (255 / 16)).round().astype("uint8")[..., None]
            (folder / f"{index}.png").write_bytes(encode_png(pixels))
            answer = client.predict((folder / f"{index}.png").read_bytes())
            true_classes[answer.id] = str(digits.target[index])
        assert client.feedback([Label("7", prediction_id=answer.id, source="person:bob")]) == 1
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert "cv_factory_labels_total" in metrics
    return true_classes


def _fill_in(file: Path, true_classes: dict[str, str]) -> int:
    """Fill in the labels of a queue, and return how many rows it has."""
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    for row in rows:
        row["label"] = true_classes[row["prediction_id"]]
        assert len(row["image_hmac"]) == 64, json.dumps(row)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)
