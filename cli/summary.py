"""Summary of a training run: data, metrics, gates, version, and what to do next."""

from collections.abc import Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import PipelineRunResponse

from cv_factory.evaluation.registration import Registration
from registry.artifact_loader import load_output, step_output
from registry.mlflow.tracking import MLFLOW_RUN_KEY

_STATUS_MARKUP = {"passed": "[green]passed[/]", "failed": "[red]failed[/]"}


def print_summary(run: PipelineRunResponse) -> Registration:
    """Print the summary of a finished training run and return its registration."""
    registration = load_output(run, "register", Registration)
    summary = render_summary(run, registration, _mlflow_uri())
    Console(highlight=False, soft_wrap=True).print(summary)
    return registration


def render_summary(
    run: PipelineRunResponse, registration: Registration, mlflow_uri: str
) -> RenderableType:
    """Return the summary of a finished training run for a rich console."""
    rows = [
        Text.from_markup(f"[bold]{title:<15}[/]{escape(text)}")
        for title, text in _rows(run, registration, mlflow_uri)
    ]
    verdict = Text.from_markup(_verdict(registration))
    return Group("", *rows, "", _gates(registration), "", verdict)


def _rows(
    run: PipelineRunResponse, registration: Registration, mlflow_uri: str
) -> Iterator[tuple[str, str]]:
    dataset = step_output(run, "ingest").run_metadata
    split = step_output(run, "split").run_metadata
    metrics = step_output(run, "evaluate").run_metadata
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
    if "search" in run.steps:
        yield "Search", str(step_output(run, "search").run_metadata["winner"])
    yield "Test accuracy", _format_metric(metrics, "accuracy")
    yield "Test macro F1", _format_metric(metrics, "macro_f1")
    for step, key in (("train", "instability"), ("export", "calibration_warning")):
        if warning := step_output(run, step).run_metadata.get(key):
            yield "Warning", str(warning)
    repeated = "" if registration.is_new else " (registered before: nothing new)"
    yield "Model", f"{_version(registration)}, stage {registration.stage}{repeated}"
    cached = [s.name for s in run.steps.values() if s.status == ExecutionStatus.CACHED]
    yield "Cached", f"{len(cached)} of {len(run.steps)} steps: {', '.join(cached) or 'none'}"
    yield "Dashboard", f"run {run.name}: zenml login --local"
    if mlflow_run := registration.lineage.get(MLFLOW_RUN_KEY):
        yield "MLflow", f"run {mlflow_run}: mlflow ui --backend-store-uri '{mlflow_uri}'"


def _format_metric(metrics: Mapping[str, object], name: str) -> str:
    value, interval = metrics[name], metrics.get(f"{name}_interval")
    if not isinstance(value, float) or not isinstance(interval, list):
        return f"not computed: {value}"
    low, high = interval
    return (
        f"{value:.2%}  ({float(str(metrics['confidence'])):.0%} interval {low:.2%} to {high:.2%})"
    )


def _gates(registration: Registration) -> Table | Text:
    if not registration.verdicts:
        return Text("No gates are configured: the version is registered, but not staged.")
    table = Table(title="Gates", title_justify="left", title_style="bold")
    table.add_column("Gate")
    table.add_column("Verdict")
    table.add_column("Reason")
    for verdict in registration.verdicts:
        status = _STATUS_MARKUP.get(verdict.status, "not applicable")
        table.add_row(Text(verdict.gate), status, Text(verdict.reason))
    return table


def _verdict(registration: Registration) -> str:
    version = _version(registration)
    if not registration.gates_passed:
        return (
            f"[red bold]REFUSED[/] A gate failed: {version} is registered, but not staged.\n"
            "Next: read its model card (zenml login --local, artifact 'registration'), then change "
            "the data or the configuration and run again."
        )
    if registration.stage == "none":
        return f"[bold]DONE[/] {version} is registered."
    return (
        f"[green bold]PASSED[/] {version} is in {registration.stage}.\n"
        "Next: read its model card (zenml login --local, artifact 'registration'), or list the "
        f"versions: python run.py models --model {registration.model_name}"
    )


def _version(registration: Registration) -> str:
    return f"{registration.model_name} version {registration.version}"


def _mlflow_uri() -> str:
    tracker = Client().active_stack.experiment_tracker
    return str(tracker.get_tracking_uri()) if tracker is not None else "?"  # type: ignore[attr-defined]
