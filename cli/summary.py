"""The last screen of a training run: data, quality, gates, version, and what to do next."""

from rich.console import Console
from rich.table import Table
from rich.text import Text
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import ArtifactVersionResponse, PipelineRunResponse

from cv_factory.evaluation.registration import Registration
from registry.tracking import MLFLOW_RUN_KEY

_MARKS = {"passed": "[green]passed[/]", "failed": "[red]failed[/]"}


def print_summary(run: PipelineRunResponse) -> Registration:
    """Print the summary of a finished run and return its registration."""
    registration = _output(run, "register").load()
    assert isinstance(registration, Registration)
    console = Console(highlight=False)
    console.print()
    console.print(_facts(run, registration))
    console.print()
    console.print(_gates(registration))
    console.print()
    console.print(_verdict(registration))
    return registration


def _facts(run: PipelineRunResponse, registration: Registration) -> Table:
    dataset = _output(run, "ingest").run_metadata
    parts = _output(run, "split").run_metadata
    quality = _output(run, "evaluate").run_metadata
    trained = _output(run, "train").run_metadata
    table = Table.grid(padding=(0, 3))
    table.add_column(style="bold")
    table.add_row(
        "Dataset",
        f"{dataset['source']}: {dataset['n_images']:,} images of {dataset['image_size']}, "
        f"{dataset['n_classes']} classes"
        + (f", {dataset['n_unreadable']} unreadable" if dataset["n_unreadable"] else ""),
    )
    table.add_row(
        "Split",
        f"{parts['n_train']:,} train, {parts['n_validation']:,} validation, "
        f"{parts['n_test']:,} test (seed {parts['seed']})",
    )
    for name, title in (("accuracy", "Test accuracy"), ("macro_f1", "Test macro F1")):
        table.add_row(title, _metric(quality, name))
    again = "" if registration.is_new else ", registered before: nothing new"
    table.add_row(
        "Model", f"{registration.model_name} version {registration.version}, "
        f"stage {registration.stage}{again}"
    )
    steps = run.steps.values()
    cached = [step.name for step in steps if step.status == ExecutionStatus.CACHED]
    table.add_row("Cached", f"{len(cached)} of {len(run.steps)} steps: {', '.join(cached) or '-'}")
    mlflow_run = trained.get(MLFLOW_RUN_KEY)
    if mlflow_run:
        table.add_row("MLflow run", f"{mlflow_run}  (mlflow ui --backend-store-uri {_mlflow_uri()})")
    table.add_row("Dashboard", f"run {run.name}  (zenml login --local)")
    return table


def _metric(quality: dict[str, object], name: str) -> str:
    value, interval = quality[name], quality.get(f"{name}_interval")
    if not isinstance(value, float) or not isinstance(interval, list):
        return f"not computed: {value}"
    low, high = interval
    return f"{value:.2%}  ({float(str(quality['confidence'])):.0%} interval {low:.2%} to {high:.2%})"


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
    name, version = registration.model_name, registration.version
    if not registration.gates_passed:
        return (
            f"[red bold]REFUSED[/] A gate failed: {name} version {version} is registered without a "
            "stage.\nNext: look at its model card in the dashboard (zenml login --local), artifact "
            "'registration'."
        )
    if registration.stage == "none":
        return f"[bold]DONE[/] {name} version {version} is registered."
    return (
        f"[green bold]PASSED[/] {name} version {version} is in {registration.stage}.\n"
        f"Next: zenml model version list --model {name}, or look at its card: zenml login --local"
    )


def _mlflow_uri() -> str:
    tracker = Client().active_stack.experiment_tracker
    return str(tracker.get_tracking_uri()) if tracker is not None else "?"  # type: ignore[attr-defined]


def _output(run: PipelineRunResponse, step: str) -> ArtifactVersionResponse:
    """Return the one output of a step."""
    (versions,) = run.steps[step].outputs.values()
    return versions[0]
