"""The walk of docs/monitoring.md on real images: drift, labels, decay, retraining, rollout.

Clients send digits; then their camera slips by a pixel. A worse challenger goes before: it is taken
back with no failed request.
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from cv_factory.data.encode import encode_png
from cv_factory.processes.ports import find_free_port
from tests.support.alert_receiver import AlertReceiver, receive_alerts
from tests.support.commands import await_agreement, run_all
from tests.support.documentation import shell_commands
from tests.support.paths import ROOT
from tests.support.project import Completed, Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.engines, pytest.mark.timeout(1200)]

N_TRAINING = 900
TRAINING = """
data: {{source: folder, path: {folder}}}
model: {{name: logistic_regression}}
gates: [{{metric: data_errors, max: 0}}, {{metric: accuracy, min: 0.8}}]
register: {{model_name: digits}}
"""
DEPLOYMENT = """
serving:
  log:
    predictions: {home}/predictions
    images: {{folder: {home}/images, share: 1.0, days: 30}}
endpoint: {{port: {port}}}
rollout:
  steps: [shadow, 0.5, 1.0]
  min_requests: 60
  errors: {{max_increase: 0.05}}
  latency: null
"""


class Camera:
    """Sends digits that no version was trained on to a model, and knows what they show."""

    def __init__(self, port: int) -> None:
        from sklearn.datasets import load_digits

        order = np.random.default_rng(0).permutation(1797)
        digits = load_digits()
        self._pixels = (digits.images[order] * (255 / 16)).round().astype(np.uint8)[..., None]
        self._labels = digits.target[order]
        self._url = f"http://127.0.0.1:{port}"
        self.labels: dict[str, int] = {}

    def write_training_images(self, folder: Path) -> None:
        for index in range(N_TRAINING):
            target = folder / str(self._labels[index])
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{index:04d}.png").write_bytes(encode_png(self._pixels[index]))

    def send(
        self, first: int, last: int, *, slipped: bool = False, feedback: bool = False
    ) -> float:
        """Send digits, all of which must be answered, and return the share that is recognized."""
        n_right = 0
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as client:
            for index in range(N_TRAINING + first, N_TRAINING + last):
                pixels, label = self._pixels[index], int(self._labels[index])
                body = encode_png(np.roll(pixels, 1, axis=1) if slipped else pixels)
                answer = client.post("/predict", content=body)
                assert answer.status_code == 200, answer.text
                (prediction,) = answer.json()["predictions"]
                self.labels[prediction["id"]] = label
                n_right += prediction["label"] == str(label)
                if feedback:
                    row = {"prediction_id": prediction["id"], "label": str(label)}
                    row |= {"source": "person:ann", "is_blind": True}
                    client.post("/feedback", json={"labels": [row]}).raise_for_status()
        return n_right / (last - first)

    def fill_in(self, file: Path) -> int:
        """Fill in the labels of a queue and return their number."""
        rows = pd.read_csv(file, dtype=str)
        rows["label"] = [str(self.labels[id_]) for id_ in rows["prediction_id"]]
        rows["source"] = "person:ann"
        rows.to_csv(file, index=False)
        return len(rows)


#: Commands of the pages that other tests run.
ELSEWHERE = {
    "export CV_FACTORY_WEBHOOK_URL=https://chat.example.org/hooks/ops "
    "CV_FACTORY_WEBHOOK_SECRET=...",
    "export CV_FACTORY_METRICS_FOLDER=/var/lib/cv-factory/metrics",  # tests/e2e/test_alerts.py
    "python run.py schedule --every 15m",  # tests/e2e/test_loop.py
    "python run.py rollout watch",  # started by the deployment
    "python run.py rollout advance --reason 'back again'",  # tests/unit/registry/test_rollouts.py
}


class Walk:
    """Runs the commands of docs/monitoring.md in order, and those of the pages below it."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.rest = shell_commands("docs/monitoring.md")
        pages = sorted((ROOT / "docs" / "monitoring").glob("*.md"))
        commands = {c for page in pages for c in shell_commands(f"docs/monitoring/{page.name}")}
        self.rest_of_pages = commands - set(self.rest) - ELSEWHERE

    def __call__(self, command: str, **replaced: str) -> str:
        """Run a command of a page below, with some words replaced by others."""
        self.rest_of_pages.remove(command)
        for word, other in replaced.items():
            assert word in command, f"{word} is not in: {command}"
            command = command.replace(word, other)
        return self._project.run(*shlex.split(command)[2:]).stdout

    def apply_stack(self, webhook: str) -> Completed:
        return self._project.stacks(
            *shlex.split(self.rest.pop(0))[3:],
            CV_FACTORY_WEBHOOK_URL=webhook,
            CV_FACTORY_WEBHOOK_SECRET="secret",
        )

    def next(self) -> Completed:
        return self._project.run(*shlex.split(self.rest.pop(0))[2:])


def history(project: Project) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(project.run("history", "--json").stdout)
    return entries


def await_entry(project: Project, kind: str) -> dict[str, Any]:
    """Wait for what the watcher of a rollout logs, and return it."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [e for e in history(project) if e["kind"] == kind]
        return bool(found)

    wait_until(is_there, 120, f"an entry {kind}")
    return found[-1]


@contextmanager
def monitored(project: Project) -> Iterator[tuple[Walk, Camera, AlertReceiver]]:
    """A deployed model whose predictions and images are kept, and whose alerts are received."""
    camera, configs = Camera(port := find_free_port()), project.root / "configs"
    camera.write_training_images(folder := project.home / "digits")
    (configs / "training.yaml").write_text(TRAINING.format(folder=folder))
    (configs / "deployment.yaml").write_text(DEPLOYMENT.format(home=project.home, port=port))
    walk = Walk(project)
    with receive_alerts() as receiver:
        walk.apply_stack(receiver.url)
        walk.next()
        assert "No rollout: no other version is served" in walk.next().stdout
        yield walk, camera, receiver


def test_the_loop_from_drift_to_the_next_version(project: Project) -> None:
    with monitored(project) as (walk, camera, receiver):
        assert camera.send(0, 300) > 0.85
        silent = walk.next().stdout
        assert "digits version 1  silent" in silent
        assert receiver.posts == []
        _a_worse_challenger_is_rolled_back(project, camera, receiver)
        n_alerts = len(receiver.posts)
        assert camera.send(300, 600, slipped=True) < 0.5
        drifted = project.run("--pipeline", "monitoring", code=4).stdout
        assert "alarm, martingale: Predictions drifted" in drifted
        assert "recommended  alert" in drifted
        assert "drift" in receiver.posts[n_alerts].json["incident"]
        _labels_prove_the_decay(project, camera, walk)
        explained = walk.next().stdout
        assert "digits: retrain" in explained
        assert "retraining: passed" in walk.next().stdout
        started = project.run("tick").stdout
        assert "digits: start rollout. version 3 passed its gates" in started
        assert "step      shadow (step 1 of 3)" in walk.next().stdout
        _the_challenger_goes_to_production(project, camera)
        told = walk.next().stdout
        for kind in ("retraining_intended", "rollout_started", "rollout_step", "rollout_finished"):
            assert kind in told
        assert camera.send(700, 890, slipped=True) > 0.65
        _the_other_pages_hold(walk, project)
    assert walk.rest == []
    assert walk.rest_of_pages == set()


def _a_worse_challenger_is_rolled_back(
    project: Project, camera: Camera, receiver: AlertReceiver
) -> None:
    worse = ["transform.pca.n_components=1", "gates=[{metric: accuracy, min: 0.1}]"]
    canary = "rollout={steps: [0.4, 1.0], min_requests: 100000, latency: null}"
    trained, begun = run_all(
        project,
        ["--pipeline", "training", *(word for s in worse for word in ("--set", s))],
        ["--pipeline", "deployment", "--set", canary],
    )
    assert (trained.code, begun.code) == (0, 0), trained.output + begun.output
    # Requests go on until the watcher has seen enough; each must be answered.
    for first in range(0, 300, 100):
        camera.send(first, first + 100, feedback=True)
    aborted = await_entry(project, "rollout_aborted")
    assert "labelled predictions are wrong" in aborted["why"]
    assert aborted["detail"]["verification"] == ["Version 1 answered 20 golden samples."]
    wait_until(lambda: receiver.posts, 60, "the alert")
    (alert,) = receiver.posts
    assert alert.json["severity"] == "critical"
    assert "labelled predictions are wrong" in alert.json["summary"] + alert.json["detail"]
    # The watcher takes the stage away last.
    wait_until(lambda: await_agreement(project)["staging"] is None, 60, "rejection of version 2")
    assert await_agreement(project)["production"]["version"] == 1


def _labels_prove_the_decay(project: Project, camera: Camera, walk: Walk) -> None:
    walk.next()
    assert camera.fill_in(project.root / "labels.csv") > 100
    assert " new.\n" in walk.next().stdout
    decayed = project.run("--pipeline", "monitoring", code=4).stdout
    assert "alarm, error_rise: The error has risen" in decayed
    assert "recommended  retrain" in decayed


def _the_challenger_goes_to_production(project: Project, camera: Camera) -> None:
    camera.send(600, 700, slipped=True, feedback=True)
    await_entry(project, "rollout_step")
    camera.send(300, 600, slipped=True)
    finished = await_entry(project, "rollout_finished")
    assert "the version alone is right in" in finished["why"]
    status = await_agreement(project)
    assert status["production"]["version"] == 3


def _the_other_pages_hold(walk: Walk, project: Project) -> None:
    """Run what the pages below docs/monitoring.md name, in the state that the walk left."""
    assert "arrive" in walk("python run.py alerts --test")
    walk("python run.py alerts")
    walk("python run.py alerts --deliver")
    queue = {"queue.csv": "more.csv"}
    walk("python run.py labels queue --n 100 --to queue.csv", **queue)
    assert "rows have no label" in walk("python run.py feedback queue.csv", **queue)
    assert "predictions have a label" in walk("python run.py labels status")
    walk("python run.py tick --resume --reason 'labels corrected'")
    walk("python run.py monitoring --html monitoring.html")
    assert "Monitoring of digits" in (project.root / "monitoring.html").read_text()
    project.run("stage", "1")
    steps = {"--set 'rollout={}'": "", "--set serving.log.predictions=/var/log/digits": ""}
    walk(
        "python run.py --pipeline deployment --set 'rollout={}' "
        "--set serving.log.predictions=/var/log/digits",
        **steps,
    )
    assert json.loads(walk("python run.py rollout status --json"))
    walk("python run.py rollout hold --reason 'a holiday'")
    walk("python run.py rollout abort --reason 'complaints'")
    image, other = sorted((project.home / "images").glob("*.png"))[:2]
    walk("python run.py forget --image cat.png", **{"cat.png": str(image)})
    walk("python run.py forget 3f0c…", **{"3f0c…": other.stem})
    assert not image.exists()
    assert not other.exists()
    walk("python run.py forget --older-than 90")
