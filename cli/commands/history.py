"""``run.py history``: print the audit log of a model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from cli.options import JSON_OPTION, MODEL_OPTION, STACK_OPTION
from cli.session import open_registry
from cv_factory.config.rollout import describe_step

if TYPE_CHECKING:
    from registry.audit.log import AuditEntry


@click.command("history")
@click.option(
    "--verify",
    is_flag=True,
    help="Also compare ZenML's versions and MLflow's aliases with the log; exit with 1 if they "
    "differ.",
)
@MODEL_OPTION
@STACK_OPTION
@JSON_OPTION
def command(verify: bool, model_name: str | None, stack: str | None, as_json: bool) -> int:
    """Print the audit log of a model.

    It says who moved which version, when and why. Its chain of hashes is checked first.
    """
    registry = open_registry(model_name, stack, beside_transitions=True)
    entries = registry.log.check()
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
    else:
        click.echo(describe_log(entries))
    if not verify:
        return 0
    changes = registry.detect_outside_changes()
    for change in changes:
        click.echo(f"Changed outside: {change}", err=True)
    if changes:
        click.echo(
            "The next command that changes something logs this. What the gates said still decides: "
            f"python run.py status --model {registry.model_name}",
            err=True,
        )
        return 1
    click.echo("ZenML's versions and MLflow's aliases are as the log says.", err=True)
    return 0


def describe_log(entries: Sequence["AuditEntry"]) -> str:
    """Return two lines per entry, oldest first, and their number."""
    lines = []
    for entry in entries:
        lines.append(f"{entry.number:>4}  {entry.time_text}  {_describe_entry(entry)}")
        lines.append(f"      {_escape(_describe_author(entry))}: {_escape(entry.why)}")
    return "\n".join(
        [*lines, f"{len(entries)} entries (times in UTC); the chain of hashes is intact."]
    )


def _describe_entry(entry: "AuditEntry") -> str:
    detail = entry.detail
    match entry.kind:
        case "intent":
            moves = [
                f"{c['version']} {c['from_stage']} → {c['to_stage']}" for c in detail["changes"]
            ]
            verdicts = _describe_verdicts(detail.get("verdicts"))
            return f"{detail['action']}: {', '.join(moves)}{verdicts}"
        case "done" | "undone":
            return f"{detail['action']} {entry.kind} (entry {detail['intent']})"
        case "retraining_finished":
            version = f" version {detail['version']}" if "version" in detail else ""
            outcome = detail["outcome"].replace("_", " ")
            return f"retraining {outcome}{version} (entry {detail['intent']})"
        case "outside":
            from registry.outside_changes import describe_change

            changes = [_escape(describe_change(change)) for change in detail["changes"]]
            return "changed outside: " + "\n      ".join(changes)
        case "policy":
            return f"policy: {_describe_policy(detail)}"
        case "rollout_step":
            return f"rollout_step version {detail['version']} to {describe_step(detail['share'])}"
        case "forgotten":
            return f"forgotten: {detail['n_predictions']} predictions, {detail['n_labels']} labels"
        case "override":
            return f"override version {detail['version']}: {detail['verdict']['gate']}"
    version = f" version {detail['version']}" if "version" in detail else ""
    predictor = f" ({detail['predictor'][:12]})" if "predictor" in detail else ""
    return f"{entry.kind}{version}{predictor}{_describe_verdicts(detail.get('verdicts'))}"


def _describe_author(entry: "AuditEntry") -> str:
    """Return the name in an entry and, where it differs, the authenticated user."""
    identity = entry.detail.get("identity")
    if identity is None:
        return entry.who
    user = f"{identity['source']} user"
    return f"{entry.who} ({user}{'' if entry.who == identity['name'] else ' ' + identity['name']})"


def _describe_policy(detail: Mapping[str, Any]) -> str:
    approvers = ", ".join(detail["approvers"]) or "anybody"
    parts = [f"approvers {approvers}"]
    if detail["manual_approval"]:
        parts.append("production needs an approval")
    if detail["separate_approver"]:
        parts.append("not by the author")
    return "; ".join(parts)


def _escape(text: str) -> str:
    """Escape characters that could imitate another entry, such as a line break."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _describe_verdicts(verdicts: list[dict[str, str]] | None) -> str:
    if not verdicts:
        return ""
    failed = [verdict["gate"] for verdict in verdicts if verdict["status"] == "failed"]
    return f"; failed: {', '.join(failed)}" if failed else f"; {len(verdicts)} gates, none failed"
