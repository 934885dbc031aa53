"""``run.py models``: list the versions of a model with stage, metrics and lineage."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli.options import MODEL_OPTION, STACK_OPTION
from cli.session import open_registry

if TYPE_CHECKING:
    from rich.table import Table
    from zenml.models import ModelVersionResponse


@click.command("models")
@MODEL_OPTION
@STACK_OPTION
def command(model_name: str | None, stack: str | None) -> int:
    """List the versions of a model with stage and metrics."""
    registry = open_registry(model_name, stack)
    from rich.console import Console

    from registry.versions import list_versions

    versions = list_versions(registry.model_name)
    Console(highlight=False).print(versions_table(registry.model_name, versions))
    return 0


def versions_table(name: str, versions: Sequence["ModelVersionResponse"]) -> "Table":
    """Return a table with one row per version, in the given order."""
    from rich.table import Table

    table = Table(title=f"{name}: {len(versions)} versions", title_justify="left")
    for column in ("Version", "Stage", "Accuracy", "Macro F1", "Age", "Commit", "Data", "Run"):
        table.add_column(column, overflow="fold")
    for version in versions:
        metadata = version.run_metadata
        dirty = "+" if metadata.get("git_dirty") == "true" else ""
        table.add_row(
            str(version.number),
            version.stage or "none",
            _format_metric(metadata.get("test_accuracy")),
            _format_metric(metadata.get("test_macro_f1")),
            _format_age(version.created),
            str(metadata.get("git_commit", "?"))[:8] + dirty,
            str(metadata.get("data_fingerprint", "?"))[:8],
            str(metadata.get("pipeline_run", "?")),
        )
    return table


def _format_metric(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


def _format_age(created: datetime) -> str:
    moment = created if created.tzinfo else created.replace(tzinfo=UTC)
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "now"
