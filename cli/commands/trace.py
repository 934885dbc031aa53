"""``run.py trace``: print the lineage of a version, and verify it."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import JSON_OPTION, MODEL_OPTION, STACK_OPTION
from cli.session import open_registry, write_file

if TYPE_CHECKING:
    from registry.model_registry import ModelRegistry
    from registry.provenance.trace import Trace, TraceCheck, TraceLink

_LINE_WIDTH = 80


def _parse_subject(context: click.Context, parameter: click.Parameter, value: str) -> int | str:
    """Parse a version's number or a prediction's id, a UUID."""
    if value.isdecimal() and int(value) > 0:
        return int(value)
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither the number of a version nor the id of a prediction"
        ) from None


@click.command("trace")
@click.argument("subject", metavar="VERSION|PREDICTION_ID", callback=_parse_subject)
@click.option("--verify", is_flag=True, help="Compute every hash again from the stored artifacts.")
@click.option(
    "--reproduce", is_flag=True, help="Train again and compare the bytes of the predictor."
)
@JSON_OPTION
@click.option(
    "--provenance",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the provenance, an in-toto statement, to this file.",
)
@click.option(
    "--attestation",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the signed statement, a DSSE envelope, to this file.",
)
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the prediction log.  [default: those of the model's services]",
)
@MODEL_OPTION
@STACK_OPTION
def command(
    subject: int | str,
    verify: bool,
    reproduce: bool,
    as_json: bool,
    provenance: Path | None,
    attestation: Path | None,
    predictions: Path | None,
    model_name: str | None,
    stack: str | None,
) -> int:
    """Print and verify what a VERSION was made of.

    PREDICTION_ID stands for the version that answered that prediction.
    """
    registry = open_registry(model_name, stack, beside_transitions=True)
    from registry.provenance import trace

    version = subject
    if isinstance(version, str):
        version = _find_version(version, registry, predictions)
    version_trace = trace.collect_trace(registry, version)
    if not as_json:
        click.echo(describe_chain(registry.model_name, version, version_trace.links))
    _write_files(version_trace, provenance, attestation)
    checks = [*(trace.verify(version_trace) if verify else ())]
    checks += [trace.reproduce(version_trace)] if reproduce else []
    if as_json:
        click.echo(json.dumps(chain_to_json(version_trace, checks), indent=2, ensure_ascii=False))
    elif checks:
        click.echo(describe_checks(checks))
    return 0 if all(check.ok for check in checks) else 1


def _find_version(prediction_id: str, registry: "ModelRegistry", folder: Path | None) -> int:
    """Return the version that answered a prediction, according to the prediction log."""
    from registry.prediction_lookup import find_logged_prediction

    prediction = find_logged_prediction(registry.model_name, prediction_id, folder)
    unfamiliar = ", an unfamiliar image" if prediction.get("unfamiliar") else ""
    click.echo(
        f"Prediction {prediction_id}: {prediction['label']}{unfamiliar} ({prediction['time']})",
        err=True,
    )
    return int(prediction["version"])


def _write_files(trace: "Trace", provenance: Path | None, attestation: Path | None) -> None:
    """Write the files that options name; say so on stderr, beside what is printed."""
    if provenance is not None:
        write_file(provenance, json.dumps(trace.provenance, indent=2) + "\n")
        click.echo(f"Provenance written to {provenance}.", err=True)
    if attestation is not None:
        from registry.provenance.attestation import load_envelope

        envelope = load_envelope(trace.version.model.name, trace.version.number)
        write_file(attestation, json.dumps(envelope, indent=2) + "\n")
        click.echo(f"Signed statement written to {attestation}.", err=True)


def describe_chain(name: str, version: int, links: Sequence["TraceLink"]) -> str:
    """Return a paragraph per link, each made from the ones below it; nothing is shortened."""
    lines = [click.style(f"{name} version {version}", bold=True)]
    for link in links:
        lines.append(click.style(link.name, bold=True))
        for key, value in link.facts.items():
            lines += _fit(f"  {key}:", [value])
    return "\n".join(lines)


def describe_checks(checks: Sequence["TraceCheck"]) -> str:
    """Return one line per check, more where it does not fit, and how many agree."""
    lines = []
    for check in checks:
        mark = click.style("ok", fg="green") if check.ok else click.style("DIFFERS", fg="red")
        lines += _fit(f"{mark} {check.name}:", check.detail.splitlines())
    n_ok = sum(check.ok for check in checks)
    return "\n".join([*lines, f"{n_ok} of {len(checks)} checks agree."])


def chain_to_json(trace: "Trace", checks: Sequence["TraceCheck"]) -> dict[str, Any]:
    """Return the chain and the checks as JSON-serializable values."""
    return {
        "model": trace.version.model.name,
        "version": trace.version.number,
        "links": [{"name": link.name, "facts": dict(link.facts)} for link in trace.links],
        "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
    }


def _fit(title: str, values: Sequence[str]) -> list[str]:
    """Return a title and values in one line or, where they do not fit, below each other."""
    line = " ".join([title, *values])
    if len(click.unstyle(line)) <= _LINE_WIDTH and len(values) == 1:
        return [line]
    return [title, *(f"    {value}" for value in values)]
