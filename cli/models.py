"""``run.py models``: the versions of a model, where they stand and what they are worth."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli.session import MODEL_OPTION, STACK_OPTION, open_registry

if TYPE_CHECKING:
    from rich.table import Table
    from zenml.models import ModelVersionResponse


@click.command("models")
@MODEL_OPTION
@STACK_OPTION
def command(model_name: str | None, stack: str | None) -> int:
    """List a model's versions with stage, metrics, age and lineage."""
    registry = open_registry(model_name, stack)
    from rich.console import Console

    from registry.versions import list_versions

    versions = list_versions(registry.model_name)
    Console(highlight=False).print(_table(registry.model_name, versions))
    return 0


def _table(name: str, versions: list["ModelVersionResponse"]) -> "Table":
    from rich.table import Table

    table = Table(title=f"{name}: {len(versions)} versions", title_justify="left")
    for column in ("Version", "Stage", "Accuracy", "Macro F1", "Age", "Commit", "Data", "Run"):
        table.add_column(column, overflow="fold")
    for version in versions:
        facts = version.run_metadata
        dirty = "+" if facts.get("git_dirty") == "true" else ""
        table.add_row(
            str(version.number),
            version.stage or "none",
            _figure(facts.get("test_accuracy")),
            _figure(facts.get("test_macro_f1")),
            _age(version.created),
            str(facts.get("git_commit", "?"))[:8] + dirty,
            str(facts.get("data_fingerprint", "?"))[:8],
            str(facts.get("pipeline_run", "?")),
        )
    return table


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


def _age(created: datetime) -> str:
    moment = created if created.tzinfo else created.replace(tzinfo=UTC)
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "now"
