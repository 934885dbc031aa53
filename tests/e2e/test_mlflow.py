"""MLflow after training: whole runs, and models that it loads and serves as our service does."""

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.data.encode import encode_png
from cv_factory.inference.predictor import GOLDEN_TOLERANCE, Predictor
from cv_factory.processes.polling import poll_until
from cv_factory.processes.ports import find_free_ports
from tests.support.project import Project
from tests.support.store import mlflow_snapshot, snapshot

PLOTS = (
    "confusion_matrix",
    "normalised_confusion_matrix",
    "precision_recall_and_f1",
    "precision_recall_curves",
    "reliability",
    "robustness",
    "roc_curves",
    "explanations",
    "training",
)
FILES = (
    *("data_report.html", "data_report.json", "evaluation_report.html", "gates.json"),
    *("model_card.html", "model_card.md", "provenance.json"),
    *(f"plots/{name}.png" for name in PLOTS),
)
#: Answers of the production model, as a user of MLflow asks for them, and how far they are off.
_LOAD = """
import json
import mlflow
import pandas as pd
from zenml.client import Client
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.data.encode import encode_png
from registry.versions import find_production, linked_artifact

tracker = Client().active_stack.experiment_tracker
tracker.configure_mlflow()
folder = linked_artifact(find_production("digits"), "predictor").uri
model = mlflow.pyfunc.load_model("models:/digits@production")
from cv_factory.inference.predictor import Predictor
from pathlib import Path
images = Predictor.load(Path(folder)).golden.images
answers = model.predict(pd.DataFrame({"image": [encode_png(image) for image in images]}))
print(json.dumps({
    "uri": tracker.get_tracking_uri(), "predictor": folder, "answers": answers,
    "metadata": model.metadata.metadata, "has_signature": model.metadata.signature is not None,
    "has_example": model.metadata.saved_input_example_info is not None,
}))
"""
#: As a person does who tidies up MLflow; one version is left as an earlier release mirrored it.
_LOSE_MIRROR = """
from zenml.client import Client
Client().active_stack.experiment_tracker.configure_mlflow()
from mlflow import MlflowClient

client = MlflowClient()
client.delete_registered_model("digits")
client.create_registered_model("digits")
client.create_model_version("digits", source="/no/model", tags={"zenml_version": "4"})
client.set_registered_model_alias("digits", "production", "1")
"""


def test_mlflow_holds_the_whole_run_and_a_card_is_completed_later(
    trained_project: Project,
) -> None:
    """Also the run of a second training, of which only the registration is not cached."""
    first = trained_project.history["training"]
    assert "The model card does not state: owner, intended use" in first.stdout + first.stderr
    assert "not stated" in trained_project.run("card", "1").stdout
    trained_project.run("--pipeline", "training", "--set", "register.card.owner=Team Vision")
    card = trained_project.run("card", "1").stdout
    assert "| owner | Team Vision |" in card
    runs = mlflow_snapshot(trained_project)["runs"]
    assert len(runs) == 2
    for run in runs:
        params, metrics = run["params"], run["metrics"]
        sections = {name.partition(".")[0] for name in params}
        assert sections >= _sections() - {"features", "search"}, (
            "every section of the configuration"
        )
        assert params["data.source"] == "digits"
        assert params["split.test"] == "0.2"
        assert params["transform.pca.n_components"] == "32"
        assert params["train.batch_size"] == "64"
        assert run["logged"]["validation_accuracy"] == 30
        for name in ("accuracy", "macro_f1", "log_loss"):
            assert metrics[f"test_{name}_low"] < metrics[f"test_{name}"]
            assert metrics[f"test_{name}"] < metrics[f"test_{name}_high"]
        assert metrics["data_images"] == 1797
        assert metrics["data_test_images"] == 359
        assert metrics["data_expectations_failed"] == 0
        assert run["tags"]["registered_version"] == "digits 1"
        assert set(FILES) <= set(run["artifacts"]), set(FILES) - set(run["artifacts"])
    (version,) = snapshot(trained_project)["models"]["digits"]
    assert version["metadata"]["mlflow_run_id"] in {run["id"] for run in runs}


def test_mlflow_loads_and_serves_what_our_service_answers(
    project_with_history: Project, tmp_path: Path
) -> None:
    loaded = json.loads(project_with_history.warm("-c", _LOAD).stdout.splitlines()[-1])
    predictor = Predictor.load(Path(loaded["predictor"]))
    _assert_golden(predictor, loaded["answers"])
    assert loaded["metadata"]["predictor"] == predictor.fingerprint
    assert loaded["has_signature"]
    assert loaded["has_example"]
    served = _serve(project_with_history, loaded["uri"], tmp_path, predictor)
    assert served == loaded["answers"], "label by label, digit by digit"


def test_a_lost_mirror_is_rebuilt_with_models_that_load(project_with_history: Project) -> None:
    project_with_history.warm("-c", _LOSE_MIRROR)
    project_with_history.run("promote", "4", "--by", "Ada", "--reason", "better")
    loaded = json.loads(project_with_history.warm("-c", _LOAD).stdout.splitlines()[-1])
    _assert_golden(Predictor.load(Path(loaded["predictor"])), loaded["answers"])


def _sections() -> set[str]:
    fields = TrainingPipelineConfig.model_fields.items()
    return {field.alias or name for name, field in fields}


def _assert_golden(predictor: Predictor, answers: list[dict[str, Any]]) -> None:
    names, golden = predictor.contract.class_names, predictor.golden
    assert len(answers) == len(golden.images)
    for answer, expected in zip(answers, golden.probabilities, strict=True):
        assert answer["label"] == names[int(expected.argmax())]
        for name, probability in zip(names, expected, strict=True):
            assert abs(answer["probabilities"][name] - probability) <= GOLDEN_TOLERANCE


def _serve(project: Project, uri: str, folder: Path, predictor: Predictor) -> list[dict[str, Any]]:
    """Return what ``mlflow models serve`` answers, run away from the project's files."""
    (port,) = find_free_ports(1)
    images = [base64.b64encode(encode_png(image)).decode() for image in predictor.golden.images]
    command = [sys.executable, "-m", "mlflow", "models", "serve"]
    command += ["-m", "models:/digits@production", "--env-manager", "local", "--port", str(port)]
    # MLflow looks for uvicorn in PATH.
    path = f"{Path(sys.executable).parent}:{project.environment['PATH']}"
    environment = {**project.environment, "MLFLOW_TRACKING_URI": uri, "PATH": path}
    environment.pop("PYTHONPATH", None)
    with (
        (folder / "output").open("w") as output,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, process_group=0
        ) as process,
    ):
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                poll_until(lambda: _answers(client), 120)
                body = {"dataframe_records": [{"image": image} for image in images]}
                answer = client.post("/invocations", json=body, timeout=60)
                assert answer.status_code == 200, answer.text
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ping").status_code == 200
    except httpx.TransportError:
        return False
