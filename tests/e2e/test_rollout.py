"""Rollouts on real images: to production on evidence, and back where labels show harm."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from cv_factory.data.encode import encode_png
from cv_factory.processes.ports import find_free_port
from tests.support.commands import assert_codes, await_agreement, run_all
from tests.support.project import Project
from tests.support.quick_settings import quick_training
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.engines]

#: Latency is left out, since other programs use the machine of a test.
LIMITS = "min_requests: 60, errors: {max_increase: 0.2}, latency: null"


class Traffic:
    """Digits sent to a model one after the other, with their labels as feedback, until it ends.

    Two requests a digit: with shares of a half, one version would get all predictions.
    """

    def __init__(self, port: int) -> None:
        from sklearn.datasets import load_digits

        self._digits = load_digits()
        self._url = f"http://127.0.0.1:{port}"
        self._has_ended = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as client:
            for index in range(10_000_000):
                if self._has_ended.wait(0.01):
                    return
                self._send(client, index % len(self._digits.images))

    def _send(self, client: httpx.Client, index: int) -> None:
        pixels = (self._digits.images[index] * (255 / 16)).round().astype("uint8")[..., None]
        headers = {"Content-Type": "image/png"}
        answer = client.post("/predict", content=encode_png(pixels), headers=headers)
        self.statuses[answer.status_code] += 1
        body = answer.json()
        self.versions[body["version"]] += 1
        label = {
            "prediction_id": body["predictions"][0]["id"],
            "label": str(self._digits.target[index]),
            "source": "person:ann",
            "is_blind": True,
        }
        assert client.post("/feedback", json={"labels": [label]}).status_code == 200

    def end(self) -> None:
        self._has_ended.set()


@contextmanager
def sending(port: int) -> Iterator[Traffic]:
    traffic = Traffic(port)
    thread = threading.Thread(target=traffic.run)
    thread.start()
    try:
        yield traffic
    finally:
        traffic.end()
        thread.join()


def deployment(*settings: str) -> list[str]:
    return ["--pipeline", "deployment", *(word for s in settings for word in ("--set", s))]


def training(components: int) -> list[str]:
    gates = "gates=[{metric: accuracy, min: 0.1}]"
    return quick_training(f"transform.pca.n_components={components}", gates)


def kinds(project: Project) -> list[str]:
    history = json.loads(project.run("history", "--json").stdout)
    return [entry["kind"] for entry in history]


def await_entry(project: Project, kind: str) -> None:
    folder = project.zenml_config / "local_stores" / "deployments" / "digits.watcher"
    try:
        wait_until(lambda: kind in kinds(project), 120)
    except TimeoutError:
        pytest.fail((folder / "process.log").read_text())


def last_entry(project: Project, kind: str) -> dict[str, Any]:
    history = json.loads(project.run("history", "--json").stdout)
    return next(entry for entry in reversed(history) if entry["kind"] == kind)


def test_a_version_is_rolled_out_on_evidence_and_a_worse_one_back(project: Project) -> None:
    port = find_free_port()
    log = f"serving.log.predictions={project.home / 'predictions'}"
    done = run_all(
        project,
        training(24),
        deployment(f"endpoint.port={port}", log, f"rollout={{{LIMITS}}}"),
        training(32),
    )
    assert_codes(done, 0, 0, 0)
    assert "No rollout: no other version is served" in done[1].output
    steps = "rollout={steps: [shadow, 0.4, 1.0], " + LIMITS + "}"
    with sending(port) as traffic:
        (begun, refused) = run_all(project, deployment(log, steps), deployment(log))
        assert (begun.code, refused.code) == (0, 3), begun.output + refused.output
        assert "Rollout of digits version 2: shadow, 0.4 of the requests" in begun.output
        assert "digits version 2 is being rolled out" in refused.output
        await_entry(project, "rollout_finished")
    assert traffic.statuses.keys() == {200}
    assert [k for k in kinds(project) if k.startswith("rollout")] == [
        "rollout_started",
        "rollout_step",
        "rollout_finished",
    ]
    (worse,) = run_all(project, training(1))
    assert worse.code == 0, worse.output
    steps = "rollout={steps: [0.4, 1.0], " + LIMITS.replace("60", "100000") + "}"
    with sending(port) as traffic:
        (begun,) = run_all(project, deployment(log, steps))
        assert begun.code == 0, begun.output
        await_entry(project, "rollout_aborted")
        seen = Counter(traffic.versions)
    assert traffic.statuses.keys() == {200}
    assert seen["3"] > 0
    aborted = last_entry(project, "rollout_aborted")
    assert "labelled predictions are wrong" in aborted["why"]
    assert aborted["detail"]["verification"] == ["Version 2 answered 20 golden samples."]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        information = client.get("/model-info").json()
    assert (information["version"], information["arm"]) == ("2", "stable")
    assert "version 3 was rolled back at 0.4 of the requests" in information["rollout"]
    status = await_agreement(project)
    assert (status["production"]["version"], status["staging"]) == (2, None)
