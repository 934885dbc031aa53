"""An installation that the code of 28 November 2026 made goes on working with the present code."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from cv_factory.processes.ports import find_free_port
from tests.e2e.test_deployment import deployment, versions_answering
from tests.support.commands import assert_codes, python, run_all
from tests.support.paths import ROOT
from tests.support.project import Project
from tests.support.quick_settings import quick_training

pytestmark = [pytest.mark.engines, pytest.mark.slow]

#: The last commit before modules moved, and with them the sources that stores name.
_OLD_COMMIT = "b07a1116"
_GATES = "gates=[{metric: accuracy, min: 0.3}]"
#: The old predictor in production scores the test images of a new run.
_RELATIVE_GATES = "gates=[{metric: accuracy, max_drop_vs_production: 0.9}]"
_TYPES = {
    "dataset": "ImageDataset",
    "split": "Split",
    "data_report": "DataReport",
    "transform": "FittedTransform",
    "trained_model": "TrainedModel",
    "predictor": "Predictor",
    "evaluation": "Evaluation",
    "registration": "Registration",
    "bundle": "Bundle",
}
_LOAD_EVERYTHING = """
from zenml.client import Client

for version in Client().list_artifact_versions(size=1000, hydrate=True).items:
    print("LOADED", version.artifact.name, type(version.load()).__name__)
"""
_LOAD_FROM_MLFLOW = """
import mlflow
from zenml.client import Client

Client().active_stack.experiment_tracker.configure_mlflow()
model = mlflow.pyfunc.load_model("models:/digits@production")
print("MLFLOW", model.predict(model.input_example)[0]["label"])
"""


@pytest.fixture
def old_project(
    tmp_path: Path, missing_engine: Callable[[str], NoReturn]
) -> Iterator[Project]:  # fmt: skip
    """A project with the old code's files."""
    command = ["git", "archive", _OLD_COMMIT]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        missing_engine(f"the repository has no commit {_OLD_COMMIT}: git fetch --unshallow")
    project = Project(tmp_path / "installation")
    _remove_files(project)
    subprocess.run(["tar", "-x"], cwd=project.root, input=archive.stdout, check=True)
    project.commit("The old code")
    yield project
    project.close()


def test_an_old_installation_keeps_working(old_project: Project) -> None:
    project, port = old_project, find_free_port()
    project.stacks("apply", "local", "--set")
    done = run_all(
        project,
        quick_training("transform.pca.n_components=8", _GATES),
        deployment(port),
        ["approve", "1", "--by", "Ada", "--reason", "read the card"],
        quick_training("transform.pca.n_components=24", _GATES),
    )
    assert_codes(done, 0, 0, 0, 0)

    _remove_files(project)
    project.copy_sources()
    project.commit("The present code")
    project.stacks("apply", "local", "--set")
    assert versions_answering(port, 1) == {"1": 1}
    done = run_all(
        project,
        ["models"],
        ["history", "--verify"],
        ["card", "1"],
        ["trace", "1", "--verify"],
        ["trace", "1", "--reproduce"],
        ["verify", "1"],
        ["sign", "1"],
        ["verify", "1"],
        python(_LOAD_EVERYTHING),
        deployment(port),
        deployment(port),
        ["rollback", "--by", "Bob", "--reason", "complaints"],
        python(_LOAD_FROM_MLFLOW),
        quick_training("transform.pca.n_components=16", _RELATIVE_GATES),
    )
    assert_codes(done, 0, 0, 0, 0, 1, 1, *[0] * 8)
    models, history, card, trace, reproduced, unsigned, _, signed, *done = done
    loaded, updated, again, rollback, from_mlflow, trained = done
    assert "production  version 1" in models.output
    assert "DISAGREES" not in models.output
    assert "registered version 2" in history.output
    assert "as the log says" in history.output
    assert "Stage: **production**" in card.output
    assert "checks agree" in trace.output
    assert "ok provenance that was approved" in trace.output
    assert "DIFFERS" not in trace.output
    assert "changed since: code (then: commit" in reproduced.output
    assert "digits version 1 is not signed" in unsigned.output
    assert "Approved by Ada" in signed.output
    types = dict(re.findall(r"LOADED (\S+) (\S+)", loaded.output))
    assert types.items() >= _TYPES.items()
    assert "Served: digits version 2 (production)" in updated.output
    assert "Nothing to do: digits version 2 (production) is served" in again.output
    assert "Served: digits version 1 (production)" in rollback.output
    assert versions_answering(port, 1) == {"1": 1}
    assert re.search(r"MLFLOW \d", from_mlflow.output), "the old code mirrored it without a model"
    assert "PASSED digits version 3 is in staging" in trained.output
    assert "no more than 0.9 worse than production" in " ".join(trained.output.split())


def _remove_files(project: Project) -> None:
    for path in project.root.iterdir():
        if path.name in (".git", ".zen"):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
