"""``run.py history``: print the audit log of a model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from cli.options import JSON_OPTION, MODEL_OPTION, STACK_OPTION
from cli.session import open_registry

if TYPE_CHECKING:
    from registry.audit.log import AuditEntry


@click.command("history")
@MODEL_OPTION
@STACK_OPTION
@JSON_OPTION
def command(model_name: str | None, stack: str | None, as_json: bool) -> int:
    """Print the audit log of a model.

    It says who moved which version, when and why. Its chain of hashes is checked first.
    """
    registry = open_registry(model_name, stack)
    entries = registry.check_log()
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
        return 0
    click.echo(describe_log(entries))
    return 0


def describe_log(entries: Sequence["AuditEntry"]) -> str:
    """Return two lines per entry, oldest first, and their number."""
    lines = []
    for entry in entries:
        when = entry.when.replace("T", " ").removesuffix("+00:00")
        lines.append(f"{entry.number:>4}  {when}  {_describe_entry(entry)}")
        lines.append(f"      {_escape(entry.who)}: {_escape(entry.why)}")
    return "\n".join(
        [*lines, f"{len(entries)} entries (times in UTC); the chain of hashes is intact."]
    )


def _describe_entry(entry: "AuditEntry") -> str:
    detail = entry.detail
    if entry.kind == "intent":
        moves = [f"{c['version']} {c['from_stage']} → {c['to_stage']}" for c in detail["changes"]]
        return f"{detail['action']}: {', '.join(moves)}{_describe_verdicts(detail.get('verdicts'))}"
    if entry.kind in ("done", "undone"):
        return f"{detail['action']} {entry.kind} (entry {detail['intent']})"
    predictor = detail["predictor"][:12]
    verdicts = _describe_verdicts(detail.get("verdicts"))
    return f"{entry.kind} version {detail['version']} ({predictor}){verdicts}"


def _escape(text: str) -> str:
    """Escape characters that could imitate another entry, such as a line break."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _describe_verdicts(verdicts: list[dict[str, str]] | None) -> str:
    if not verdicts:
        return ""
    failed = [verdict["gate"] for verdict in verdicts if verdict["status"] == "failed"]
    return f"; failed: {', '.join(failed)}" if failed else f"; {len(verdicts)} gates, none failed"
