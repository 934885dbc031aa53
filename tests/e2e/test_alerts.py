"""Alerts of a stack with the webhook: a pipeline that fails, and then succeeds."""

import json
from pathlib import Path

from tests.e2e.test_validation import validation
from tests.support.alert_receiver import receive_alerts
from tests.support.images import write_class_folders
from tests.support.project import Project


def test_a_pipeline_that_fails_is_announced_once_until_it_succeeds(
    project: Project, tmp_path: Path
) -> None:
    write_class_folders(tmp_path / "pets")
    good = [*validation(tmp_path / "pets"), "--stack", "local-alerts"]
    bad = [*good, "--set", "validation.min_images=1000", "--set", "split.seed=7"]
    with receive_alerts() as receiver:
        project.stacks(
            "apply",
            "local-alerts",
            CV_FACTORY_WEBHOOK_URL=receiver.url,
            CV_FACTORY_WEBHOOK_SECRET="key-of-both",
        )
        project.run(*bad, code=3)  # by the hook of its step, and by the process that waits
        alerts = project.run("alerts", "--stack", "local-alerts").stdout
        project.run(*good, CV_FACTORY_METRICS_FOLDER=str(tmp_path / "metrics"))
        as_json = project.run("alerts", "--stack", "local-alerts", "--test", "--json").stdout
    assert "Open incidents: 1\n  warning   pipeline/validation, since" in alerts
    assert [post.json["status"] for post in receiver.posts] == ["firing", "resolved", "resolved"]
    first, _, test = receiver.posts
    assert first.json["detail"].startswith("Step validate_data of run validation-")
    assert first.headers["X-CV-Factory-Signature"].startswith("t=")
    assert "alerts of the stack local-alerts arrive here" in test.json["summary"]
    values = json.loads(as_json)
    assert (values["incidents"], values["waiting"]) == ([], 0)
    assert [m["outcome"] for m in values["messages"]] == ["sent"] * 3
    metrics = (tmp_path / "metrics" / "cv_factory_pipeline_validation.prom").read_text()
    assert 'cv_factory_pipeline_last_run_success{model="",pipeline="validation"} 1.0' in metrics
