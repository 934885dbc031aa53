"""``run.py models``: list the models with their status and their versions."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from cli.commands.status import describe_status
from cli.options import JSON_OPTION, LISTED_MODEL_OPTION, STACK_OPTION
from cli.session import list_models

if TYPE_CHECKING:
    from rich.table import Table
    from zenml.models import ModelVersionResponse


@click.command("models")
@LISTED_MODEL_OPTION
@STACK_OPTION
@JSON_OPTION
def command(model_name: str | None, stack: str | None, as_json: bool) -> int:
    """List the models: status, and versions with stage and metrics."""
    names = list_models(model_name, stack)
    from registry.status import load_status
    from registry.versions import list_versions

    models = [(load_status(name), list_versions(name)) for name in names]
    if as_json:
        content = [
            {"status": status.to_dict(), "versions": [version_to_dict(v) for v in versions]}
            for status, versions in models
        ]
        click.echo(json.dumps(content, indent=2))
        return 0
    from rich.console import Console

    for status, versions in models:
        click.echo(f"{describe_status(status)}\n")
        Console(highlight=False).print(versions_table(versions), "")
    return 0


def version_to_dict(version: "ModelVersionResponse") -> dict[str, Any]:
    """Return number, stage, age and metadata of a version as JSON values."""
    return {
        "version": version.number,
        "stage": version.stage or "none",
        "created": _created(version).isoformat(timespec="seconds"),
        "metadata": dict(version.run_metadata),
    }


def versions_table(versions: Sequence["ModelVersionResponse"]) -> "Table":
    """Return a table with one row per version, in the given order."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 0, 0, 2))
    for column in ("Version", "Stage", "Accuracy", "Macro F1", "Age", "Commit", "Data"):
        table.add_column(column, no_wrap=True)
    for version in versions:
        metadata = version.run_metadata
        dirty = "+" if metadata.get("git_dirty") == "true" else ""
        table.add_row(
            str(version.number),
            version.stage or "none",
            _format_metric(metadata.get("test_accuracy")),
            _format_metric(metadata.get("test_macro_f1")),
            _format_age(_created(version)),
            str(metadata.get("git_commit", "?"))[:8] + dirty,
            str(metadata.get("data_fingerprint", "?"))[:8],
        )
    return table


def _created(version: "ModelVersionResponse") -> datetime:
    created = version.created
    return created if created.tzinfo else created.replace(tzinfo=UTC)


def _format_metric(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


def _format_age(created: datetime) -> str:
    seconds = (datetime.now(UTC) - created).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "now"
