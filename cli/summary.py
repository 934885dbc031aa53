"""Summary of a training run: data, metrics, gates, version, and what to do next."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from cv_factory.curation.data_issues import DataIssues
from cv_factory.data.validation.report import DataReport
from cv_factory.evaluation.registration import Registration
from registry import versions
from registry.artifact_loader import load_artifact, step_output
from registry.mlflow.tracking import MLFLOW_RUN_KEY
from registry.model_registry import ModelRegistry
from registry.next_step import DisplacedVersion, find_displaced_version, next_command

_N_EXAMPLES = 3
#: Of the accuracy, above which the test images are called too few.
_WIDEST_INTERVAL = 0.1
_STATUS_MARKUP = {"passed": "[green]passed[/]", "failed": "[red]failed[/]"}


@dataclass(frozen=True)
class NextStep:
    """What follows from a registration.

    Attributes:
        command: The command that is usual next.
        displaced: The version that this one pushed out of staging, if any.
    """

    command: str
    displaced: DisplacedVersion | None = None


def print_summary(run: PipelineRunResponse) -> Registration:
    """Print the summary of a finished training run and return its registration."""
    steps = run.steps  # a query of the store
    registration = load_artifact(step_output(steps, "register"), Registration)
    report = load_artifact(step_output(steps, "validate_data"), DataReport)
    issues = None
    if "find_data_issues" in steps:
        issues = load_artifact(step_output(steps, "find_data_issues"), DataIssues)
    registry = ModelRegistry(registration.model_name)
    version = versions.get_version(registration.model_name, registration.version)
    displaced = find_displaced_version(registry, version.number, run.name)
    next_step = NextStep(next_command(registry, version), displaced)
    Console(highlight=False).print(
        render_summary(run, registration, report, _mlflow_uri(), next_step, issues), crop=False
    )
    return registration


def render_summary(
    run: PipelineRunResponse,
    registration: Registration,
    report: DataReport,
    mlflow_uri: str,
    next_step: NextStep,
    issues: DataIssues | None = None,
) -> RenderableType:
    """Return the summary of a finished training run for a rich console."""
    rows = [
        _line(f"[bold]{title:<15}[/]{escape(text)}")
        for title, text in _rows(run, registration, report, mlflow_uri, issues)
    ]
    verdict = [_line(line) for line in _verdict(registration, next_step)]
    if issues is not None and issues.suspicious_labels:
        options = f"--model {registration.model_name} --out doubtful.csv"
        verdict.append(_line(f"Doubtful labels: python run.py labels suspicious {options}"))
    return Group("", *rows, "", _gates(registration), "", *verdict)


def _line(markup: str) -> Text:
    """Return a line that is not wrapped, so that a command in it can be copied."""
    line = Text.from_markup(markup, overflow="ignore")
    line.no_wrap = True
    return line


def _rows(
    run: PipelineRunResponse,
    registration: Registration,
    report: DataReport,
    mlflow_uri: str,
    issues: DataIssues | None,
) -> Iterator[tuple[str, str]]:
    steps = run.steps  # a query of the store
    dataset = step_output(steps, "ingest").run_metadata
    split = step_output(steps, "split").run_metadata
    metrics = step_output(steps, "evaluate").run_metadata
    unreadable = dataset["n_unreadable"]
    yield (
        "Dataset",
        f"{dataset['source']}: {dataset['n_images']:,} images of {dataset['image_size']}, "
        f"{dataset['n_classes']} classes" + (f", {unreadable} unreadable" if unreadable else ""),
    )
    yield (
        "Split",
        f"{split['n_train']:,} train, {split['n_validation']:,} validation, "
        f"{split['n_test']:,} test (seed {split['seed']})",
    )
    for remark in report.remarks:
        yield "Data", _wrap(remark)
    if issues is not None and issues.suspicious_labels:
        yield "Labels", _wrap(_describe_doubtful_labels(issues))
    if "search" in steps:
        yield "Search", str(step_output(steps, "search").run_metadata["winner"])
    yield "Test accuracy", _format_metric(metrics, "accuracy")
    yield "Test macro F1", _format_metric(metrics, "macro_f1")
    if few := _describe_few_test_images(split["n_test"], metrics):
        yield "Warning", _wrap(few)
    for step, key in (("train", "instability"), ("export", "calibration_warning")):
        if warning := step_output(steps, step).run_metadata.get(key):
            yield "Warning", _wrap(str(warning))
    repeated = "" if registration.is_new else " (registered before: nothing new)"
    yield "Model", f"{_version(registration)}, stage {registration.stage}{repeated}"
    cached = [s.name for s in steps.values() if s.status == ExecutionStatus.CACHED]
    yield "Cached", f"{len(cached)} of {len(steps)} steps: {', '.join(cached) or 'none'}"
    yield "Dashboard", f"run {run.name}: zenml login --local"
    if mlflow_run := registration.lineage.get(MLFLOW_RUN_KEY):
        yield "MLflow", f"run {mlflow_run}: mlflow ui --backend-store-uri '{mlflow_uri}'"


def _describe_doubtful_labels(issues: DataIssues) -> str:
    labels = issues.suspicious_labels
    examples = [f"{i.id} ({i.label}, likely {i.likely_label})" for i in labels[:_N_EXAMPLES]]
    return f"{len(labels):,} of {issues.n_images:,} doubtful, first {', '.join(examples)}"


def _wrap(text: str) -> str:
    """Wrap a text of a row below itself."""
    return textwrap.fill(text, 64, break_long_words=False).replace("\n", "\n" + 15 * " ")


def _format_metric(metrics: Mapping[str, object], name: str) -> str:
    value, interval = metrics[name], metrics.get(f"{name}_interval")
    if not isinstance(value, float) or not isinstance(interval, list):
        return f"not computed: {value}"
    low, high = interval
    return (
        f"{value:.2%}  ({float(str(metrics['confidence'])):.0%} interval {low:.2%} to {high:.2%})"
    )


def _describe_few_test_images(n_test: object, metrics: Mapping[str, object]) -> str:
    """Return that the test images are too few to tell the accuracy; empty if they are not."""
    interval = metrics.get("accuracy_interval")
    if not isinstance(interval, list) or interval[1] - interval[0] <= _WIDEST_INTERVAL:
        return ""
    return (
        f"{n_test} test images cannot tell the accuracy to better than {interval[0]:.0%} to "
        f"{interval[1]:.0%}, nor two models of similar accuracy apart: add images."
    )


def _gates(registration: Registration) -> RenderableType:
    if not registration.verdicts:
        return Text("No gates are configured: the version is registered, but not staged.")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for verdict in registration.verdicts:
        status = _STATUS_MARKUP.get(verdict.status, "not applicable")
        grid.add_row(status, Text(f"{verdict.gate}: {verdict.reason}"))
    return Group(Text("Gates", style="bold"), grid)


def _verdict(registration: Registration, next_step: NextStep) -> Iterator[str]:
    """Yield the verdict, a version that was pushed out, and the next command, as markup."""
    version, stage = _version(registration), registration.stage
    if not registration.gates_passed and stage == "none":
        yield f"[red bold]REFUSED[/] A gate failed: {version} is registered, but not staged."
    elif not registration.gates_passed:
        yield f"[red bold]REFUSED[/] A gate failed: {version} stays in {stage}."
    elif stage == "none" and registration.verdicts:
        yield f"[yellow bold]REJECTED[/] {version} passed its gates, but was rejected: not staged."
    elif stage == "none":
        yield f"[bold]DONE[/] {version} is registered."
    elif stage == "archived":
        yield f"[yellow bold]ARCHIVED[/] {version} holds this very predictor, and is archived."
    else:
        yield f"[green bold]PASSED[/] {version} is in {stage}."
    if not registration.gates_passed:
        yield "To change a bound: the configuration's section 'gates' (docs/evaluation.md)."
    if next_step.displaced is not None:
        yield from _describe_displaced(registration, next_step.displaced)
    yield f"Next: {next_step.command}"


def _describe_displaced(registration: Registration, displaced: DisplacedVersion) -> Iterator[str]:
    mark = "[yellow bold]WARNING[/] " if displaced.is_better else ""
    yield (
        f"{mark}It pushed version {displaced.version} out of staging, with test accuracy "
        f"{_percent(displaced.new_accuracy)} against {_percent(displaced.accuracy)}"
        + ("." if displaced.has_same_test_images else " on other test images: not comparable.")
    )
    if displaced.is_fit:
        yield f"Back: python run.py stage {displaced.version} --model {registration.model_name}"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2%}"


def _version(registration: Registration) -> str:
    return f"{registration.model_name} version {registration.version}"


def _mlflow_uri() -> str:
    tracker = Client().active_stack.experiment_tracker
    return str(tracker.get_tracking_uri()) if tracker is not None else "?"  # type: ignore[attr-defined]
