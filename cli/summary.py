"""The last screen of a training run: data, quality, gates, version, and what to do next."""

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import ArtifactVersionResponse, PipelineRunResponse

from cv_factory.evaluation.registration import Registration
from registry.mlflow.tracking import MLFLOW_RUN_KEY

_MARKS = {"passed": "[green]passed[/]", "failed": "[red]failed[/]"}


def print_summary(run: PipelineRunResponse) -> Registration:
    """Print the summary of a finished run and return its registration."""
    registration = _output(run, "register").load()
    assert isinstance(registration, Registration)
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    for title, text in _facts(run, registration):
        console.print(f"[bold]{title:<15}[/]{escape(text)}")
    console.print()
    console.print(_gates(registration))
    console.print()
    console.print(_verdict(registration))
    return registration


def _facts(run: PipelineRunResponse, registration: Registration) -> Iterator[tuple[str, str]]:
    dataset = _output(run, "ingest").run_metadata
    parts = _output(run, "split").run_metadata
    quality = _output(run, "evaluate").run_metadata
    unreadable = dataset["n_unreadable"]
    yield (
        "Dataset",
        f"{dataset['source']}: {dataset['n_images']:,} images of {dataset['image_size']}, "
        f"{dataset['n_classes']} classes" + (f", {unreadable} unreadable" if unreadable else ""),
    )
    yield (
        "Split",
        f"{parts['n_train']:,} train, {parts['n_validation']:,} validation, "
        f"{parts['n_test']:,} test (seed {parts['seed']})",
    )
    if "search" in run.steps:
        yield "Search", str(_output(run, "search").run_metadata["winner"])
    yield "Test accuracy", _metric(quality, "accuracy")
    yield "Test macro F1", _metric(quality, "macro_f1")
    again = "" if registration.is_new else " (registered before: nothing new)"
    yield (
        "Model",
        f"{registration.model_name} version {registration.version}, "
        f"stage {registration.stage}{again}",
    )
    cached = [s.name for s in run.steps.values() if s.status == ExecutionStatus.CACHED]
    yield "Cached", f"{len(cached)} of {len(run.steps)} steps: {', '.join(cached) or 'none'}"
    yield "Dashboard", f"run {run.name}: zenml login --local"
    if mlflow_run := _output(run, "train").run_metadata.get(MLFLOW_RUN_KEY):
        yield "MLflow", f"run {mlflow_run}: mlflow ui --backend-store-uri '{_mlflow_uri()}'"


def _metric(quality: Mapping[str, object], name: str) -> str:
    value, interval = quality[name], quality.get(f"{name}_interval")
    if not isinstance(value, float) or not isinstance(interval, list):
        return f"not computed: {value}"
    low, high = interval
    return (
        f"{value:.2%}  ({float(str(quality['confidence'])):.0%} interval {low:.2%} to {high:.2%})"
    )


def _gates(registration: Registration) -> Table | Text:
    if not registration.verdicts:
        return Text("No gates are configured: the version is registered, but not staged.")
    table = Table(title="Gates", title_justify="left", title_style="bold")
    table.add_column("Gate")
    table.add_column("Verdict")
    table.add_column("Why")
    for verdict in registration.verdicts:
        mark = _MARKS.get(verdict.status, "not applicable")
        table.add_row(Text(verdict.gate), mark, Text(verdict.reason))
    return table


def _verdict(registration: Registration) -> str:
    version = f"{registration.model_name} version {registration.version}"
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


def _mlflow_uri() -> str:
    tracker = Client().active_stack.experiment_tracker
    return str(tracker.get_tracking_uri()) if tracker is not None else "?"  # type: ignore[attr-defined]


def _output(run: PipelineRunResponse, step: str) -> ArtifactVersionResponse:
    """Return the one output of a step."""
    (versions,) = run.steps[step].outputs.values()
    return versions[0]
