"""Texts of the command line, held in golden files so that wording is changed in one place."""

import io
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import click
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType
from zenml.enums import ExecutionStatus

from cli import main
from cli.commands.alerts import describe_alerts
from cli.commands.history import describe_log
from cli.commands.models import versions_table
from cli.commands.trace import describe_chain, describe_checks
from cli.pipelines.batch_inference import describe_predictions
from cli.pipelines.deployment import describe_deployment, next_command
from cli.pipelines.validation import describe_report
from cli.summary import NextStep, render_summary
from cv_factory.curation.data_issues import DataIssues
from cv_factory.data.validation.image_issues import ImageIssue
from cv_factory.data.validation.report import DataReport, ExpectationResult
from cv_factory.deployment.deployment import Deployment
from cv_factory.deployment.traffic import Arm, Traffic
from cv_factory.deployment.verify import VerificationResult
from cv_factory.evaluation.gate_verdict import GateVerdict
from cv_factory.evaluation.registration import Registration
from cv_factory.export.calibrate import calibrate
from cv_factory.inference.batch_predictions import BatchPredictions
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.alert_message import AlertMessage
from cv_factory.training.stability import describe_instability
from registry.alert_log import LoggedAlert
from registry.audit.log import AuditEntry
from registry.mlflow.tracking import MLFLOW_RUN_KEY
from registry.next_step import DisplacedVersion
from registry.provenance.trace import TraceCheck, TraceLink
from tests.support.paths import ROOT

Golden = Callable[[str, str], None]
PASSED = GateVerdict("accuracy at least 0.9", "accuracy", 0.9, 0.9711, "passed", "0.9711")
SKIPPED = GateVerdict(
    "roc_auc no more than 0.01 worse than production",
    *("roc_auc", 0.01, None, "not_applicable", "there is no production model"),
)
FAILED = GateVerdict("macro_f1 at least 1", "macro_f1", 1.0, 0.9709, "failed", "0.9709 is less")


def render(renderable: RenderableType) -> str:
    """Return what a console of 80 columns without colors prints, without trailing spaces."""
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(renderable, crop=False)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def make_run() -> Any:
    """Return a finished training run with the metadata that the summary shows."""
    metadata: dict[str, dict[str, Any]] = {
        "ingest": {"source": "digits", "n_images": 1797, "image_size": "8x8x1", "n_classes": 10,
                   "n_unreadable": 1},
        "split": {"n_train": 1257, "n_validation": 180, "n_test": 360, "seed": 0},
        "search": {"winner": "small_cnn, accuracy 0.9700"},
        "train": {},
        "export": {},
        "evaluate": {"accuracy": 0.9711, "accuracy_interval": [0.953, 0.984], "confidence": 0.95,
                     "macro_f1": "no such class"},
        "register": {},
    }  # fmt: skip
    steps = {
        name: SimpleNamespace(
            name=name,
            status=ExecutionStatus.CACHED if name == "ingest" else ExecutionStatus.COMPLETED,
            outputs={"output": [SimpleNamespace(run_metadata=facts)]},
        )
        for name, facts in metadata.items()
    }
    return SimpleNamespace(name="training-2026_11_28", steps=steps)


def make_registration(stage: str, *verdicts: GateVerdict, is_new: bool = True) -> Registration:
    lineage = {MLFLOW_RUN_KEY: "5f1c"}
    return Registration("digits", 3, stage, is_new, "f" * 64, verdicts, lineage, {}, "", "")


SOUND = DataReport((), 1797, {}, {})
DEPLOY = NextStep("python run.py --pipeline deployment --model digits")
CARD = NextStep("python run.py card 3 --model digits")
STAGE = NextStep("python run.py stage 3 --model digits")


@pytest.mark.parametrize(
    ("name", "registration", "next_step"),
    [
        ("passed", make_registration("staging", PASSED, SKIPPED), DEPLOY),
        (
            "displaced",
            make_registration("staging", PASSED),
            replace(DEPLOY, displaced=DisplacedVersion(2, 0.9861, 0.9711)),
        ),
        (
            "displaced_other_test",
            make_registration("staging", PASSED),
            replace(DEPLOY, displaced=DisplacedVersion(2, 0.9861, 0.9711, True, False)),
        ),
        ("archived", make_registration("archived", PASSED, is_new=False), STAGE),
        ("refused", make_registration("none", PASSED, SKIPPED, FAILED), CARD),
        ("refused_production", make_registration("production", FAILED, is_new=False), CARD),
        ("rejected", make_registration("none", PASSED, is_new=False), STAGE),
        ("no_gates", make_registration("none", is_new=False), CARD),
    ],
)
def test_training_summary(
    golden: Golden, name: str, registration: Registration, next_step: NextStep
) -> None:
    text = render(render_summary(make_run(), registration, SOUND, "sqlite:///mlflow.db", next_step))
    golden(f"summary_{name}.txt", text)


def test_training_summary_with_warnings(golden: Golden) -> None:
    run = make_run()
    accuracies = [0.5, 0.95, 0.3, 0.98]
    instability = describe_instability([{"validation_accuracy": a} for a in accuracies])
    _, check = calibrate(np.full((50, 2), (0.9, 0.1), dtype=np.float32), np.zeros(50, np.int64))
    for step, key, text in (
        ("train", "instability", instability),
        ("export", "calibration_warning", check.warning),
    ):
        run.steps[step].outputs["output"][0].run_metadata[key] = text
    run.steps["split"].outputs["output"][0].run_metadata["n_test"] = 40
    evaluated = run.steps["evaluate"].outputs["output"][0].run_metadata
    evaluated["accuracy_interval"] = [0.8, 1.0]
    registration = make_registration("staging", PASSED)
    duplicates = ExpectationResult(
        "duplicate_pixels", "warning", False, "5.04%", "at most 5%", "Few images stand twice."
    )
    report = replace(SOUND, expectations=(duplicates,), notices=("12 of 1,000 are in colour.",))
    doubtful = [
        ImageIssue("label", n, f"cat/{n}.png", "", "train", "cat", 0.01, "dog") for n in range(41)
    ]
    issues = DataIssues((*doubtful, replace(doubtful[0], kind="outlier")), 1797)
    summary = render_summary(run, registration, report, "sqlite:///mlflow.db", DEPLOY, issues)
    golden("summary_warnings.txt", render(summary))


def test_history(golden: Golden) -> None:
    verdicts = [{"gate": FAILED.gate, "status": "failed", "reason": FAILED.reason}]
    change = {"version": 1, "from_stage": "none", "to_stage": "staging"}
    details: list[tuple[str, dict[str, Any]]] = [
        ("registered", {"version": 1, "predictor": "f" * 64, "verdicts": verdicts}),
        ("approved", {"version": 1, "predictor": "f" * 64}),
        ("intent", {"action": "stage", "changes": [change], "verdicts": [verdicts[0] | {
            "status": "passed"}]}),
        ("done", {"action": "stage", "intent": 3}),
    ]  # fmt: skip
    entries = [
        AuditEntry(number, "0" * 64, kind, "Ada", "2026-11-28T12:00:00+00:00", "why\nnot", detail)
        for number, (kind, detail) in enumerate(details, start=1)
    ]
    golden("history.txt", describe_log(entries) + "\n")


def test_models(golden: Golden) -> None:
    metadata = {"test_accuracy": 0.97, "git_commit": "c" * 40, "git_dirty": "true"}
    metadata["data_fingerprint"] = "d" * 64
    version: Any = SimpleNamespace(
        number=2,
        stage="production",
        run_metadata=metadata,
        created=datetime.now(UTC) - timedelta(minutes=20),
    )
    table = versions_table([version])
    golden("models.txt", render(table))
    narrow = io.StringIO()
    Console(file=narrow, width=80).print(table)
    assert "…" not in narrow.getvalue()


def test_trace(golden: Golden) -> None:
    links = [
        TraceLink("predictor", {"artifact": "a" * 36, "predictor_fingerprint": "f" * 64}),
        TraceLink("approver", {"approved by": "nobody"}),
    ]
    checks = [
        TraceCheck("golden samples", True, "differ by 1.0e-07 at most"),
        TraceCheck("dataset", True, "a" * 64),
        TraceCheck("transform", False, f"lineage says\n{'a' * 64}\nstored is\n{'b' * 64}"),
    ]
    text = click.unstyle(f"{describe_chain('digits', 2, links)}\n{describe_checks(checks)}\n")
    assert max(map(len, text.splitlines())) <= 80
    golden("trace.txt", text)


@pytest.mark.parametrize(
    ("name", "url", "share", "arm"),
    [
        ("local", "http://127.0.0.1:3000", 1.0, "stable"),
        ("canary_sagemaker", "sagemaker://digits", 0.25, "canary"),
        ("canary_tls", "https://127.0.0.1:3000", 0.25, "canary"),
        ("shadow", "http://127.0.0.1:3000", 1.0, "shadow"),
    ],
)
def test_deployment(golden: Golden, name: str, url: str, share: float, arm: Arm) -> None:
    facts = ("digits", "2", "f" * 64, "id", url, share, Traffic(), True, "staging")
    deployment = Deployment(*facts, arm=arm)
    if arm == "stable":
        deployment = deployment.with_verification(VerificationResult(url, "2", 16, 1.5e-7))
    golden(
        f"deployment_{name}.txt", describe_deployment(deployment, next_command(deployment)) + "\n"
    )


def test_validation(golden: Golden) -> None:
    message = "Images with the same pixels have the same label."
    failure = ExpectationResult("label_conflicts", "warning", False, "2 of 61", "0%", message)
    report = DataReport((failure,), 61, {"disc": 31, "stripe": 30}, {}, (("a.png", "empty"),))
    golden("validation.txt", describe_report(report) + "\n")


def test_batch_inference(golden: Golden) -> None:
    predictions = BatchPredictions(
        "/out", "folder shapes", "f" * 64, "pets", 2, "f" * 64, 3, 1, {"cat": 2, "dog": 0}, ("p",),
        notices=("1 file of the operating system left out: Thumbs.db.",),
    )  # fmt: skip
    golden("batch_inference.txt", describe_predictions(predictions) + "\n")


def test_help_of_every_command(golden: Golden) -> None:
    commands = ["", *main.command_names()]
    for name in commands:
        # Click keeps the help option of a command's first call, which another test may have made
        # without run.py's settings.
        command: Any = main.command
        for word in name.split():
            command = command.get_command(click.Context(main.command), word)
            command._help_option = None
    invoke = CliRunner().invoke
    texts = [
        invoke(main.command, [*name.split(), "--help"], "", prog_name="run.py").output
        for name in commands
    ]
    golden("help.txt", "\n".join(texts))


WRONG_USAGE = (
    ("promote", "0"),
    ("approve", "1", "--by", " ", "--reason", "x"),
    ("approve", "1", "--by", "Eve", "--reason", "x\n  99  approved"),
    ("trace", "half"),
    ("predict", "run.py"),
    ("--pipeline", "training", "--preset", "nowhere"),
    ("--pipeline", "deployment", "--config", "nowhere.yaml"),
    ("--pipeline", "training", "--set", "train.epoch=1"),
)


def test_wrong_usage(
    golden: Golden, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("log_to_stderr", "bypass_proxies_on_loopback", "signal"):
        monkeypatch.setattr(main, name, MagicMock())
    texts = []
    for arguments in WRONG_USAGE:
        monkeypatch.setattr("sys.argv", ["run.py", *arguments])
        assert main.main() == 2
        texts.append(f"$ run.py {shlex.join(arguments)}\n{capsys.readouterr().err}")
    golden("wrong_usage.txt", "\n".join(texts).replace(str(ROOT), "ROOT"))


def test_alerts(golden: Golden) -> None:
    begin = datetime(2026, 11, 28, 12, tzinfo=UTC)
    drift = Alert("drift/digits/confidence", "firing", "warning", "Confidence has shifted")
    failure = Alert(
        "pipeline/training/digits", "resolved", "warning", "Pipeline training succeeded"
    )
    end = begin + timedelta(hours=1)
    last = [
        (LoggedAlert(3, AlertMessage("c", end, begin, drift), {}), "waiting"),
        (LoggedAlert(2, AlertMessage("b", end, begin, failure), {}), "sent"),
    ]
    texts = [describe_alerts([last[0][0]], 1, last), describe_alerts([], 0, [])]
    golden("alerts.txt", "\n\n".join(texts) + "\n")
