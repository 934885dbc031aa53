"""From trained versions to production and back: on evidence, and with a signature."""

import json
from pathlib import Path

from project import Project
from session import Done, run_all
from store import mlflow_snapshot, snapshot

from cv_factory.artifact_files import canonical_json

GATES = "gates=[{metric: accuracy, min: 0.3}, {metric: accuracy, min_gain_vs_production: 0.0}]"


def training(components: int, c: float = 1.0) -> list[str]:
    """A quick training run; more PCA components make a better model."""
    settings = [
        "model.name=logistic_regression",
        f"model.C={c}",
        f"transform.pca.n_components={components}",
        "evaluate.robustness_images=0",
        "evaluate.latency_runs=0",
        "evaluate.explained_per_class=0",
        "register.manual_approval=true",
        GATES,
    ]
    return ["--pipeline", "training", *(word for s in settings for word in ("--set", s))]


def predictor_files(project: Project, version: int) -> dict[str, bytes]:
    """Return the files of a version's predictor, by name."""
    source = (
        "from registry.versions import get_version\n"
        f"print('URI' + get_version('digits', {version}).get_artifact('predictor').uri)"
    )
    lines = project.python(source).stdout.splitlines()
    (uri,) = (line.removeprefix("URI") for line in lines if line.startswith("URI"))
    return {path.name: path.read_bytes() for path in Path(uri).iterdir()}


def stages(project: Project) -> dict[int, str]:
    return {v["number"]: v["stage"] for v in snapshot(project)["models"]["digits"]}


def audit_files(project: Project) -> list[Path]:
    stores = project.zenml_config / "local_stores"
    return sorted(stores.glob("*/cv_factory_audit/digits/*.json"))


def assert_codes(done: list[Done], *codes: int) -> None:
    assert [d.code for d in done] == list(codes), "\n\n".join(d.output for d in done)


def test_evidence_decides_what_goes_to_production_and_anyone_can_walk_back(
    project: Project,
) -> None:
    done = run_all(
        project,
        training(8),
        ["promote", "1"],
        ["approve", "1", "--by", "Ada", "--reason", "read the card"],
        ["promote", "1", "--by", "Ada", "--reason", "first model"],
        # Worse, equal, better.
        training(3),
        training(8, c=1.05),
        training(32),
    )
    assert_codes(done, 0, 3, 0, 0, 3, 3, 0)
    first, unsigned, _, _, worse, equal, better = (d.output for d in done)
    assert "there is no production model to compare with" in " ".join(first.split())
    assert "needs a person's approval" in unsigned
    assert "REFUSED" in worse
    assert "REFUSED" in equal
    assert "within" in equal
    assert "PASSED digits version 4 is in staging" in better
    assert stages(project) == {1: "production", 2: "none", 3: "none", 4: "staging"}

    before = predictor_files(project, 1)
    done = run_all(
        project,
        ["approve", "4", "--by", "Ada", "--reason", "better beyond chance"],
        ["promote", "4", "--by", "Ada", "--reason", "better"],
        ["rollback", "--by", "Bob", "--reason", "complaints"],
        ["rollback"],
        ["models"],
        ["history"],
        ["trace", "4", "--verify", "--reproduce", "--provenance", "provenance.json"],
    )
    assert_codes(done, 0, 0, 0, 3, 0, 0, 0)
    promoted, rolled_back, models, history, trace = (done[i].output for i in (1, 2, 4, 5, 6))
    assert "version 1 production → archived, version 4 staging → production" in promoted
    assert "version 4 production → archived, version 1 archived → production" in rolled_back
    assert stages(project) == {1: "production", 2: "none", 3: "none", 4: "archived"}
    assert predictor_files(project, 1) == before, "the earlier predictor, byte for byte"
    assert mlflow_snapshot(project)["models"]["digits"]["aliases"] == {"production": "1"}
    for line in ("Ada: read the card", "Bob: complaints", "failed: accuracy better than"):
        assert line in history
    assert "digits: 4 versions" in models
    assert "9 of 9 checks agree" in trace
    statement = json.loads((project.root / "provenance.json").read_text())
    assert statement["subject"][0]["name"] == "predictor.onnx"
    approval = statement["predicate"]["runDetails"]["metadata"]["approval"]
    assert approval["who"] == "Ada"

    _a_cut_or_rewritten_log_shows(project)


def _a_cut_or_rewritten_log_shows(project: Project) -> None:
    last = audit_files(project)[-1]
    content = last.read_bytes()
    entry = json.loads(content)
    # As a careful forger would: the last entry, in the right form.
    last.write_bytes(canonical_json(entry | {"who": "Eve"}).encode())
    (forged,) = run_all(project, ["history"])
    last.unlink()
    (cut,) = run_all(project, ["history"])
    last.write_bytes(content)
    for done in (forged, cut):
        assert done.code == 1
        assert "the log was cut or rewritten" in done.output


_KILLED_BEFORE_THE_MIRROR = """
import os, sys
from registry.mlflow_mirror import MlflowMirror

MlflowMirror.show = lambda *_: os._exit(9)
sys.argv = ["run.py", "promote", "1", "--by", "Ada"]
from cli.main import main

main()
"""


def test_a_kill_in_the_middle_of_a_promotion_is_recovered_by_the_next_command(
    trained_project: Project,
) -> None:
    trained_project.python(_KILLED_BEFORE_THE_MIRROR, code=9)
    # ZenML has moved, MLflow not yet.
    assert stages(trained_project) == {1: "production"}
    assert mlflow_snapshot(trained_project)["models"]["digits"]["aliases"] == {"staging": "1"}
    (models,) = run_all(trained_project, ["models"])
    assert "An interrupted promote was finished: version 1 staging → production" in models.output
    assert mlflow_snapshot(trained_project)["models"]["digits"]["aliases"] == {"production": "1"}
