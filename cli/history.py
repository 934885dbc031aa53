"""``run.py history``: the audit log of a model."""

from typing import TYPE_CHECKING

import click

from cli.session import MODEL_OPTION, STACK_OPTION, open_registry

if TYPE_CHECKING:
    from registry.audit.log import AuditEntry


@click.command("history")
@MODEL_OPTION
@STACK_OPTION
def command(model_name: str | None, stack: str | None) -> int:
    """Print the audit log: who moved which version, when and why; its chain is checked."""
    registry = open_registry(model_name, stack)
    entries = registry.check_log()
    for entry in entries:
        when = entry.when.replace("T", " ").removesuffix("+00:00")
        click.echo(f"{entry.number:>4}  {when}  {describe(entry)}")
        click.echo(f"      {_printable(entry.who)}: {_printable(entry.why)}")
    click.echo(f"{len(entries)} entries (times in UTC); every one follows from the one before.")
    return 0


def describe(entry: "AuditEntry") -> str:
    """Return what an entry is about, in words."""
    detail = entry.detail
    if entry.kind == "intent":
        moves = [f"{c['version']} {c['from_stage']} → {c['to_stage']}" for c in detail["changes"]]
        return f"{detail['action']}: {', '.join(moves)}{_verdicts(detail.get('verdicts'))}"
    if entry.kind in ("done", "undone"):
        return f"{detail['action']} {entry.kind} (entry {detail['intent']})"
    predictor = detail["predictor"][:12]
    words = f"{entry.kind} version {detail['version']} ({predictor})"
    return words + _verdicts(detail.get("verdicts"))


def _printable(words: str) -> str:
    """Escape what could look like another entry, such as a new line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def _verdicts(verdicts: list[dict[str, str]] | None) -> str:
    if not verdicts:
        return ""
    failed = [verdict["gate"] for verdict in verdicts if verdict["status"] == "failed"]
    return f"; failed: {', '.join(failed)}" if failed else f"; {len(verdicts)} gates, none failed"
