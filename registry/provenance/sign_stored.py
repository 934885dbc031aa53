"""Signing of a version after its registration: verified first, and recorded in the audit log."""

from registry import versions
from registry.model_registry import ModelRegistry
from registry.provenance.attestation import (
    StatementMismatchError,
    sign_statement,
    verify_version,
)
from registry.provenance.dsse import AttestationError
from registry.provenance.trace import collect_trace, verify


def sign_stored_version(registry: ModelRegistry, number: int, who: str | None, why: str) -> str:
    """Sign what is stored of a version, unless it is signed; return the id of the key.

    Raises:
        StatementMismatchError: A trusted key signed something else.
        AttestationError: A hash differs from the lineage or from what was approved.
    """
    registry.record_outside_changes()
    try:
        return verify_version(registry.get_version(number))
    except StatementMismatchError:
        raise
    except AttestationError:
        trace = collect_trace(registry, number)
    differing = [check.name for check in verify(trace) if not check.ok]
    if differing:
        raise AttestationError(
            f"{registry.model_name} version {number} is not signed, since it differs from its "
            f"lineage: {', '.join(differing)}. See: python run.py trace {number} --verify "
            f"--model {registry.model_name}"
        )
    signed_with = sign_statement(registry.model_name, number, trace.statement)
    predictor = versions.predictor_fingerprint(trace.version)
    detail = {"version": number, "predictor": predictor, "key": signed_with}
    registry.log.record("signed", who, why, detail)
    return signed_with
