"""The monitoring pipeline on results of batch inference; tests/e2e/test_story.py has a service."""

import json
from pathlib import Path

from tests.support.project import Project


def test_a_batch_is_compared_with_the_reference_of_its_version(
    project_with_history: Project, tmp_path: Path
) -> None:
    project, scores, metrics = project_with_history, tmp_path / "scores", tmp_path / "metrics"
    version = ("--set", "model.version=1")
    project.run("--pipeline", "batch_inference", *version, "--set", f"output.path={scores}")
    settings = (
        f"window.batch={scores}",
        "report.evidently=never",
        f"report.metrics_folder={metrics}",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    # Most of the images are those that it was trained on, in the order of who wrote them.
    done = project.run("--pipeline", "monitoring", *version, *words, code=4)
    assert "1,797 predictions, 0 labels" in done.stdout
    assert "The source stores no features" in done.stdout
    assert "not enough evidence, error_rise" in done.stdout
    assert "recommended  alert" in done.stdout
    assert not metrics.exists()  # a batch says nothing of what is served

    verdict = json.loads(project.run("monitoring", "--json").stdout)["digits"]
    assert (verdict["status"], verdict["recommendation"]["action"]) == ("alarm", "alert")
    logged = {file.name for file in project.home.rglob("monitoring_report.*")}
    assert {"monitoring_report.json", "monitoring_report.html"} <= logged
