"""``run.py verify``: verify the signed statement of a version, or of a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import MODEL_OPTION, STACK_OPTION
from cli.session import open_registry
from cv_factory.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@click.command("verify")
@click.argument("subject", metavar="VERSION|FILE")
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Trust this key, in PEM.  [default for a VERSION: those of run.py signing-key]",
)
@click.option(
    "--predictor",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also compare the predictor in this folder with the statement of a FILE.",
)
@MODEL_OPTION
@STACK_OPTION
def command(
    subject: str,
    public_key: Path | None,
    predictor: Path | None,
    model_name: str | None,
    stack: str | None,
) -> int:
    """Verify the signed provenance of a VERSION.

    What ZenML and the artifact store hold must be what was signed. A FILE, written by trace
    --attestation, is verified with --public-key, without ZenML.
    """
    keys = _read_public_keys(public_key) if public_key is not None else None
    if subject.isdecimal() and int(subject) > 0:
        if predictor is not None:
            raise click.UsageError("--predictor goes with a FILE; a VERSION has its own predictor.")
        click.echo(_verify_version(int(subject), keys, model_name, stack))
        return 0
    if not Path(subject).is_file():
        raise click.BadParameter(f"{subject!r} is neither the number of a version nor a file")
    if keys is None:
        raise click.UsageError(
            "Add --public-key FILE: the key of the installation that signed it. There: "
            "python run.py signing-key > FILE"
        )
    click.echo(_verify_file(Path(subject), keys, predictor))
    return 0


def _verify_version(
    number: int,
    keys: "tuple[Ed25519PublicKey, ...] | None",
    model_name: str | None,
    stack: str | None,
) -> str:
    registry = open_registry(model_name, stack, beside_transitions=True)
    from registry import versions
    from registry.provenance.attestation import verify_version

    version = versions.get_version(registry.model_name, number)
    signed_with = verify_version(version, keys)
    approval = registry.approval(version)
    return (
        f"VERIFIED {registry.model_name} version {number}: signed with the key\n"
        f"    {signed_with}\n"
        "and what ZenML and the artifact store hold is what was signed.\n"
        + (f"Approved by {approval.who}." if approval else "Approved by nobody.")
    )


def _verify_file(path: Path, keys: "tuple[Ed25519PublicKey, ...]", predictor: Path | None) -> str:
    from registry.provenance.dsse import parse_envelope, verify_envelope, verify_subjects

    statement, signed_with = verify_envelope(parse_envelope(path.read_bytes(), path), keys)
    if predictor is not None:
        verify_subjects(statement, predictor)
    compared = f"The predictor in {predictor} is the one." if predictor else "It is about:"
    return (
        f"VERIFIED {path}: signed with the key\n    {signed_with}\n"
        f"{compared}\n{_describe_subjects(statement)}"
    )


def _describe_subjects(statement: dict[str, Any]) -> str:
    return "\n".join(f"{s['digest']['sha256']}  {s['name']}" for s in statement["subject"])


def _read_public_keys(path: Path) -> "tuple[Ed25519PublicKey, ...]":
    from registry.provenance.dsse import parse_public_keys

    keys = parse_public_keys(path.read_text(encoding="utf-8", errors="replace"))
    if not keys:
        raise ConfigError(f"{path} holds no public key in PEM (BEGIN PUBLIC KEY).")
    return keys
