"""From a staged version to a service that answers, and back: through run.py and zenml alone."""

import json
import os
import re
import signal
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.dataset
from tritonclient.grpc import InferenceServerClient, InferInput

from cv_factory.data.encode import encode_png
from cv_factory.deployment.lock import deployment_lock
from cv_factory.inference.predictor import Predictor
from cv_factory.processes.ports import LOOPBACK, find_free_port, listen
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.logging.prediction_log import read_predictions
from tests.support.certificates import CertificateAuthority
from tests.support.commands import Done, assert_codes, run_all, zenml_models
from tests.support.processes import command_line
from tests.support.project import Project
from tests.support.quick_settings import quick_training
from tests.support.store import snapshot
from tests.support.waiting import wait_until


def training(components: int, *, approval: bool = False) -> list[str]:
    return quick_training(
        f"transform.pca.n_components={components}",
        f"register.manual_approval={str(approval).lower()}",
        "gates=[{metric: accuracy, min: 0.3}]",
    )


def deployment(port: int, *settings: str) -> list[str]:
    all_settings = [f"endpoint.port={port}", *settings]
    return ["--pipeline", "deployment", *(word for s in all_settings for word in ("--set", s))]


def parse_json(done: Done) -> Any:
    """Parse what a command printed, without what libraries log after it."""
    content, _ = json.JSONDecoder().raw_decode(done.output)
    return content


def answers(port: int, n: int, trust: ssl.SSLContext | None = None) -> list[dict[str, Any]]:
    """Send one digit n times on one connection, with TLS where something is trusted."""
    from sklearn.datasets import load_digits

    pixels = (load_digits().images[0] * (255 / 16)).round().astype("uint8")[..., None]
    headers = {"Content-Type": "image/png"}
    responses: list[dict[str, Any]] = []
    with httpx.Client(
        base_url=f"{'https' if trust else 'http'}://127.0.0.1:{port}",
        verify=trust or True,
        trust_env=False,
        timeout=30,
    ) as client:
        for _ in range(n):
            answer = client.post("/predict", content=encode_png(pixels), headers=headers)
            assert answer.status_code == 200, answer.text
            responses.append({**answer.json(), "request_id": answer.headers["X-Request-ID"]})
    return responses


def versions_answering(port: int, n: int, trust: ssl.SSLContext | None = None) -> Counter[str]:
    """Send one digit n times on one connection and count which version answers."""
    return Counter(answer["version"] for answer in answers(port, n, trust))


def stages(project: Project) -> dict[int, str]:
    return {v["number"]: v["stage"] for v in snapshot(project)["models"]["digits"]}


def _samples_and_bundle_are_written(
    project: Project, sampled: str, exported: str, graph: str, refused: str, predicted: str
) -> None:
    assert "10 test images of digits version 1 written to samples, such as" in sampled
    assert len(list((project.root / "samples").glob("*/1.png"))) == 10
    assert "Serve:   python -m cv_factory.serving bundle" in exported
    bundle = Bundle.load(project.root / "bundle")
    assert (bundle.model_name, bundle.version) == ("digits", "1")
    assert "written to graph/predictor.onnx" in graph
    assert Predictor.load(project.root / "graph").fingerprint == bundle.predictor.fingerprint
    assert "bundle is not empty" in refused
    assert "samples/3/1.png: " in predicted
    assert project.git("status", "--porcelain", "samples", "bundle").stdout == ""


def _grpc_answers_at_the_models_port(port: int) -> None:
    image = InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([encode_png(np.zeros((8, 8, 1), np.uint8))], object))
    with InferenceServerClient(f"{LOOPBACK}:{port}") as client:
        assert client.is_server_ready()
        answer = client.infer("digits", [image]).get_response()
    assert answer.model_version == "1"


def test_deploy_update_rollback_and_restart(project: Project) -> None:
    port = find_free_port()
    done = run_all(
        project,
        deployment(port),
        training(8),
        ["--pipeline", "batch_inference"],
        deployment(port),
        deployment(port),
        ["--pipeline", "batch_inference"],
        ["status"],
        training(24, approval=True),
        deployment(port),
        ["sample", "1"],
        ["export", "1", "--to", "bundle"],
        ["export", "1", "--to", "graph", "--onnx"],
        ["export", "1", "--to", "bundle"],
        ["predict", "samples/3/1.png", "--bundle", "bundle"],
    )
    assert_codes(done, 2, 0, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0)
    none, trained, no_production, deployed, again, scored, status, staged, unsigned = (
        d.output for d in done[:9]
    )
    _samples_and_bundle_are_written(project, *(d.output for d in done[9:]))
    assert "No model is registered yet" in none
    assert "Next: python run.py --pipeline deployment --model digits\n" in trained
    assert "has no version in production. Run: python run.py --pipeline deploy" in no_production
    assert f"version 1, 100% of the requests at http://127.0.0.1:{port}\n" in status
    assert "Next: python run.py approve 2 --reason WHY --model digits\n" in staged
    assert f"Served: digits version 1 (production) at http://127.0.0.1:{port}" in deployed
    assert "Verified: 20 golden samples" in deployed
    assert "Nothing to do: digits version 1 (production) is served" in again
    assert "needs a person's approval" in unsigned
    assert versions_answering(port, 3) == {"1": 3}
    _grpc_answers_at_the_models_port(port)
    _the_service_has_its_card(port)
    _the_predictions_are_there(scored)

    with deployment_lock(project.zenml_config / "local_stores", "digits"):
        done = run_all(project, deployment(find_free_port()), ["rollback"])
    assert_codes(done, 1, 1)
    assert all("digits is being deployed by" in d.output for d in done)

    log = f"serving.log.predictions={project.home / 'predictions'}"
    with listen(LOOPBACK, 0) as other_server:
        taken = other_server.getsockname()[1]
        done = run_all(
            project,
            ["approve", "2", "--by", "Ada", "--reason", "read the card"],
            [*deployment(taken), "--dry-run"],
            deployment(taken),
            deployment(port, "endpoint.shadow_share=1.0", log),
        )
    assert_codes(done, 0, 1, 1, 0)
    for refused in done[1:3]:
        assert f"is used by python (process {os.getpid()})" in refused.output
        assert "build_bundle" not in refused.output
    assert "digits version 2 (staging, copies of 100% of the requests)" in done[3].output
    _both_versions_predict_and_one_answers(port, project.home / "predictions")

    done = run_all(project, deployment(port, "endpoint.canary_share=0.25"), ["status"])
    assert_codes(done, 0, 0)
    assert "digits version 2 (staging, 25% of the requests)" in done[0].output
    assert "version 2, 25% of the requests" in done[1].output
    responses = answers(port, 40)
    # Envoy begins its rounds anew when it has checked a service, which may be among these.
    assert Counter(answer["version"] for answer in responses)["2"] in (9, 10, 11)
    assert stages(project) == {1: "production", 2: "staging"}

    (one,) = next(answer["predictions"] for answer in responses if answer["version"] == "2")
    withdraw = ["withdraw", "2", "--reason", "more errors"]
    done = run_all(project, ["trace", one["id"]], withdraw, withdraw)
    assert_codes(done, 0, 0, 3)
    assert f"Prediction {one['id']}: {one['label']}" in done[0].output
    assert "digits version 2" in done[0].output
    assert "All requests go to version 1" in done[1].output
    assert "Version 2 of digits is no canary or shadow" in done[2].output
    assert versions_answering(port, 3) == {"1": 3}
    assert stages(project) == {1: "production", 2: "staging"}

    done = run_all(project, ["promote", "2"], ["promote", "2"])
    assert_codes(done, 0, 0)
    assert "Served: digits version 2 (production)" in done[0].output
    assert "Nothing to do" in done[1].output
    assert versions_answering(port, 3) == {"2": 3}
    assert stages(project) == {1: "archived", 2: "production"}

    # As after a restart of the machine.
    for process in project.processes():
        process.send_signal(signal.SIGKILL)
    rollback = ["rollback", "--by", "Bob", "--reason", "complaints"]
    authority = CertificateAuthority(project.home)
    certificate, key = authority.issue()
    tls = f"endpoint.tls.certificate={certificate}", f"endpoint.tls.key={key}"
    done = run_all(project, ["status"], deployment(port, *tls), rollback, ["status", "--json"])
    assert_codes(done, 1, 0, 0, 0)
    assert "given 100% of the requests and does not answer" in done[0].output
    assert "Served: digits version 2 (production)" in done[1].output
    assert "Service: zenml model-deployer models describe " in done[1].output
    assert "Served: digits version 1 (production)" in done[2].output
    (status,) = parse_json(done[3])
    assert status["production"]["version"] == 1
    assert [(s["version"], s["weight"], s["who"], s["url"]) for s in status["services"]] == [
        ("1", 1.0, "Bob", f"https://127.0.0.1:{port}")
    ]
    trust = ssl.create_default_context(cafile=authority.file)
    assert versions_answering(port, 3, trust) == {"1": 3}, "a rollback keeps TLS"
    assert stages(project) == {1: "production", 2: "archived"}
    _zenml_knows_the_service(project, port)
    _a_second_model_is_deployed_after_its_training(project)


def _both_versions_predict_and_one_answers(port: int, log: Path) -> None:
    """A shadow answers nobody; its predictions and metrics can be compared with the others'."""
    answered = [(answer["version"], answer["request_id"]) for answer in answers(port, 5)]
    wait_until(lambda: len(list(read_predictions(log))) == 5)
    logged = [(p["version"], p["arm"], p["request_id"]) for p in read_predictions(log)]
    assert {version for version, _ in answered} == {"1"}
    assert sorted(logged) == sorted(("2", "shadow", request_id) for _, request_id in answered)
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    sent = 'cv_factory_proxy_requests_total{{arm="{}",model="digits",protocol="http",version="{}"}}'
    for arm, version in (("stable", "1"), ("shadow", "2")):
        assert sent.format(arm, version) in metrics
        assert f'cv_factory_service_up{{arm="{arm}",model="digits",version="{version}"}} 1.0' in (
            metrics
        )


def _a_second_model_is_deployed_after_its_training(project: Project) -> None:
    """Every command names the model, and what changed the services of the first is on record."""
    port = find_free_port()
    (project.root / "configs" / "deployment.yaml").write_text(f"endpoint: {{port: {port}}}\n")
    trained, status, models, promote, history = run_all(
        project,
        [*training(8), "--model", "pets", "--set", "register.deploy_after=staging"],
        ["status"],
        ["models", "--json"],
        ["promote", "1"],
        ["history", "--model", "digits", "--json"],
    )
    assert_codes([trained, status, models, promote, history], 0, 0, 0, 2, 0)
    assert f"Served: pets version 1 (production) at http://127.0.0.1:{port}" in trained.output
    assert "Next:    python run.py status --model pets" in trained.output
    assert versions_answering(port, 1) == {"1": 1}
    assert f"at http://127.0.0.1:{port}" in status.output
    assert "python run.py --pipeline deployment --model digits" in status.output
    names = [model["status"]["model_name"] for model in parse_json(models)]
    assert names == ["digits", "pets"]
    assert "Add --model NAME, one of: digits, pets." in promote.output
    kinds = [entry["kind"] for entry in parse_json(history)]
    by_us = ["deployed", "shadow", "canary", "withdrawn", "deployed", "deployed", "deployed"]
    by_zenml = ["stopped", "started", "deleted"]
    assert [kind for kind in kinds if kind in (*by_us, *by_zenml)] == [*by_us, *by_zenml]


def _the_service_has_its_card(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        card = client.get("/model-card")
        assert (card.status_code, client.get("/model-info").json()["card"]) == (200, "/model-card")
    assert card.headers["content-type"].startswith("text/html")
    assert "accuracy at least 0.3" in card.text


def _the_predictions_are_there(scored: str) -> None:
    (folder,) = re.findall(r"Parquet: (.+)", scored)
    table = pyarrow.dataset.dataset(folder, format="parquet", exclude_invalid_files=True).to_table()
    assert table.num_rows == 1797
    assert set(table.column("model_version").to_pylist()) == {1}


def _zenml_knows_the_service(project: Project, port: int) -> None:
    listed, described, logs, stopped, _ = zenml_models(
        project, "list", "describe UUID", "logs UUID --tail 5", "stop UUID", "list"
    )
    assert "digits" in listed
    assert "deployment" in listed
    assert f"https://127.0.0.1:{port}/predict" in described
    assert "100%" in described
    assert f":{port}//" not in described
    assert '"event"' in logs
    assert "was stopped" in stopped
    command_lines = [" ".join(command_line(process)) for process in project.processes()]
    assert [line for line in command_lines if "cv_factory.serving" in line] == []
    started, deleted = zenml_models(project, "start UUID", "delete UUID")
    assert "was started" in started
    assert "HTTP Request" not in started
    assert "was deleted" in deleted
    assert project.processes() == [], "no process is left of a deleted service, nor its proxy"
