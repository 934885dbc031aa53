"""The search inside the pipeline: killed, run again, and its winner is what is trained."""

import json
import re
from pathlib import Path

from tests.support.project import Project
from tests.support.store import mlflow_snapshot, snapshot

SPACE = {
    "logistic_regression": {"model.C": {"low": 0.001, "high": 10.0, "log": True}},
    "random_forest": {"model.n_estimators": {"low": 5, "high": 20}},
}
OPTIONS = (
    "--pipeline",
    "training",
    "--set",
    f"search.families={json.dumps(SPACE)}",
    "--set",
    "search={trials: 8, jobs: 1, folds: 2, pruning: false}",
    "--set",
    "gates=[]",
    "--set",
    "evaluate={robustness_images: 0, latency_runs: 0}",
)


def test_a_killed_search_resumes_and_its_winner_is_trained(project: Project) -> None:
    plan = project.run(*OPTIONS, "--dry-run").stdout
    assert "Search: on, 8 trials among logistic_regression, random_forest" in plan
    project.kill_run(*OPTIONS, after="trial 1/8")
    finished_trials = {path: path.read_bytes() for path in _trials(project)}
    assert 1 <= len(finished_trials) < 8
    output = project.run(*OPTIONS).stdout
    winner = re.search(r"Search +(\w+) \((\S+) (\S+)\), accuracy 0\.\d+ over 2 fold", output)
    assert winner, output
    assert len(_trials(project)) == 8
    for path, content in finished_trials.items():
        assert path.read_bytes() == content, "a trial that had ended was run again"

    steps = snapshot(project)["steps"]
    search_result = steps["search"]["outputs"]["search_result"]
    assert {Path(uri).name for uri in search_result["pictures"]} == {
        "history.png",
        "importances.png",
    }
    predictor = Path(steps["export"]["outputs"]["predictor"]["uri"])
    model = json.loads((predictor / "contract.json").read_text())["body"]["contract"]["model"]
    assert model["name"] == winner[1]
    assert f"{model[winner[2].removeprefix('model.')]}".startswith(winner[3][:6])
    # Not the configured model, which would give another predictor.
    assert "1 of 1 checks agree" in project.run("trace", "1", "--reproduce").stdout
    nested = [run for run in mlflow_snapshot(project)["runs"] if "family" in run["params"]]
    scored = [run for run in nested if "score" in run["metrics"]]
    # The kill may fall between a trial's end and its report.
    assert 8 - len(finished_trials) <= len(scored) <= 8


def _trials(project: Project) -> list[Path]:
    """Return the trials that the stack's artifact store keeps."""
    return sorted((project.zenml_config / "local_stores").glob("*/searches/*/trial-*.json"))
