"""Prometheus' rules, Alertmanager's routes and Grafana's dashboards, run by the real programs."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cv_factory.monitoring.finding import Finding, Status
from cv_factory.monitoring.metrics_file import FOLDER_VARIABLE, write_metrics
from cv_factory.monitoring.report import AccuracyEstimate, MonitoringReport, Recommendation
from cv_factory.monitoring.report_metrics import build_metrics
from cv_factory.monitoring.run_metrics import RunOutcome, StepOutcome, write_run_metrics
from registry import alerts
from registry.alert_log import AlertLog
from registry.audit.log_files import LocalLogFiles
from stacks.observability.dashboards import PAGES, list_queries, render_dashboard
from tests.support.observability import FILES, ObservedFactory
from tests.support.waiting import wait_until

RULES = FILES / "rules"


def _rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_dashboards_are_as_described(page: Any) -> None:
    file = FILES / "grafana" / f"{page.name}.json"
    assert file.read_text() == render_dashboard(page), "python -m stacks.observability writes it"
    content = json.loads(file.read_text())
    targets = [t for panel in content["panels"] for t in panel.get("targets", ())]
    assert [target["expr"] for target in targets] == list_queries(page)
    assert all(target["refId"] for target in targets)
    assert content["uid"] == f"cv-factory-{page.name}"


def test_every_alert_says_what_to_do_and_has_a_firing_and_a_silent_test() -> None:
    names = [
        test["name"]
        for path in (RULES / "tests").glob("*.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
    ]
    alerts_ = _rules("alerts.yml")
    expected = [f"{rule['alert']} {kind}" for rule in alerts_ for kind in ("fires", "is silent")]
    assert sorted(names) == sorted(expected)
    assert {rule["labels"]["severity"] for rule in alerts_} == {"critical", "warning"}
    assert all({"summary", "description"} == rule["annotations"].keys() for rule in alerts_)


@pytest.mark.engines
def test_rules_and_configuration_pass_promtool(engine: Callable[..., str]) -> None:
    promtool = engine("promtool")
    tests = sorted((RULES / "tests").glob("*.yml"))
    commands: list[list[str | Path]] = [
        ["check", "config", FILES / "prometheus.yml"],
        ["test", "rules", *tests],
    ]
    for command in commands:
        done = subprocess.run([promtool, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.engines
@pytest.mark.parametrize("rule", _rules("alerts.yml"), ids=lambda rule: rule["alert"])
def test_alerts_reach_their_receiver(engine: Callable[..., str], rule: dict[str, Any]) -> None:
    severity = rule["labels"]["severity"]
    receiver = {"critical": "on_call", "warning": "team"}[severity]
    config = f"--config.file={FILES / 'alertmanager.yml'}"
    words = [f"--verify.receivers={receiver}", f"alertname={rule['alert']}", f"severity={severity}"]
    command = [engine("amtool"), "config", "routes", "test", config, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def factory(
    engine: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObservedFactory]:
    """Two versions, Prometheus, Alertmanager; all is well, and something was predicted."""
    folder = tmp_path_factory.mktemp("observed")
    with ObservedFactory(folder, engine) as factory:
        _report(factory, "silent")
        _end_run(factory, is_successful=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(FOLDER_VARIABLE, str(factory.metrics))
            alerts._write_metrics(AlertLog(LocalLogFiles(folder / "alerts")))
        for _ in range(4):
            factory.predict()
        yield factory


def _report(factory: ObservedFactory, status: Status) -> None:
    """Write the metrics of a monitoring run whose detector of drift has this status."""
    findings = (
        Finding("martingale", "drift", status, "", 100, evidence=3.0, threshold=100.0),
        Finding("error_rise", "harm", "not_enough_evidence", "", 0),
    )
    report = MonitoringReport(
        model_name="digits",
        version=1,
        created=datetime.now(UTC).isoformat(),
        source="the prediction log",
        is_live=True,
        start=None,
        end=None,
        n_predictions=100,
        n_distinct=90,
        n_labels=9,
        n_refused=1,
        class_names=("0", "1"),
        findings=findings,
        estimates=(AccuracyEstimate("cbpe", 0.97, 0.01, 100),),
        recommendation=Recommendation("none"),
    )
    write_metrics(factory.metrics, "cv_factory_monitor_digits", build_metrics(report))


def _end_run(factory: ObservedFactory, *, is_successful: bool) -> None:
    steps = [StepOutcome("train", 3.0, is_successful)]
    start = datetime.now(UTC) - timedelta(seconds=5)
    outcome = RunOutcome("training", "digits", start, datetime.now(UTC), is_successful, steps)
    write_run_metrics(factory.metrics, outcome)


@pytest.mark.engines
def test_every_query_has_an_answer(factory: ObservedFactory) -> None:
    """Each query of a dashboard gives values; no rule names a metric that nothing has."""
    queries = [query.replace("$model", "digits") for page in PAGES for query in list_queries(page)]
    for query in queries:
        wait_until(partial(factory.query, query), 60, query)
    metrics = set(factory.ask("label/__name__/values"))
    rules = [rule["expr"] for name in ("recording.yml", "alerts.yml") for rule in _rules(name)]
    names = {
        name
        for expression in (*queries, *rules, *(page.model_metric for page in PAGES))
        for name in re.findall(r"\b(?:cv_factory|envoy|node)[_:][\w:]+|\bup\b", expression)
    }
    others = {*factory.ask("labels"), *factory.ask("label/job/values")}
    assert len(names - others) > 30
    assert names - others <= metrics
    groups = factory.ask("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


@pytest.mark.engines
def test_alerts_fire_and_resolve(factory: ObservedFactory) -> None:
    # The certificate of the test is valid for a day.
    usual = {"CVFactoryCertificateExpires"}
    wait_until(lambda: factory.active_alerts() == usual, 60, f"{usual} alone")
    factory.receiver.posts.clear()
    factory.kill_service("2")
    _report(factory, "alarm")
    _end_run(factory, is_successful=False)
    wait_until(lambda: "CVFactoryServiceDown" in factory.active_alerts(), 60, "ServiceDown")
    down = factory.wait_for_post("firing", "CVFactoryServiceDown")
    drift = factory.wait_for_post("firing", "CVFactoryInputDrift")
    failed = factory.wait_for_post("firing", "CVFactoryPipelineFailed")
    assert down["labels"]["version"] == "2"
    assert [alert["receiver"] for alert in (down, drift, failed)] == ["on_call", "team", "team"]
    assert drift["annotations"]["summary"] == "digits version 1: martingale is alarmed"

    factory.route(("1", "stable", 1.0))
    _report(factory, "silent")
    _end_run(factory, is_successful=True)
    for name in ("CVFactoryServiceDown", "CVFactoryInputDrift", "CVFactoryPipelineFailed"):
        factory.wait_for_post("resolved", name)
    assert factory.active_alerts() == usual
