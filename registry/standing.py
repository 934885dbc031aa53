"""Standing of a version before its gates: the last verdicts on its predictor, and the overrides.

The audit log decides, by the predictor's fingerprint; stages and metadata in ZenML do not.
"""

import shlex
from dataclasses import asdict, dataclass

from cv_factory.evaluation.gate_verdict import GateVerdict
from registry.audit.log import AuditEntry
from registry.audit.state import LoggedVersion, LogState
from registry.permissions import is_permitted


@dataclass(frozen=True)
class GateStanding:
    """Standing of a version before its gates.

    Attributes:
        version: Its number.
        predictor: Fingerprint of the predictor that was registered; empty if none was.
        verdicts: Last verdicts on this predictor.
        overrides: Entries of the audit log that override a failed verdict.
        failed: Gates that failed and are not overridden, in words.
        problem: Why no verdict counts, such as a version that no run registered; else empty.
    """

    version: int
    predictor: str
    verdicts: tuple[GateVerdict, ...] = ()
    overrides: tuple[AuditEntry, ...] = ()
    failed: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_fit(self) -> bool:
        """Whether gates judged this predictor, and each passed or was overridden."""
        return not self.problem and not self.failed


def gate_standing(state: LogState, number: int) -> GateStanding:
    """Return a version's standing after an audit log's last entry."""
    logged = state.versions.get(number, LoggedVersion())
    verdicts = state.verdicts.get(logged.predictor, ()) if logged.predictor else ()
    if logged.is_deleted:
        problem = "was deleted from ZenML, beside the registry"
    elif not logged.predictor:
        problem = "was not registered on a stack with this artifact store, whose audit log decides"
    elif not verdicts:
        problem = "was judged by no gate: configure gates and train again"
    else:
        problem = ""
    failed = [(v, _find_override(state, logged, v)) for v in verdicts if v.status == "failed"]
    return GateStanding(
        version=number,
        predictor=logged.predictor,
        verdicts=verdicts,
        overrides=tuple(override for _, override in failed if override is not None),
        failed=tuple(verdict.gate for verdict, override in failed if override is None),
        problem=problem,
    )


def find_approval(state: LogState, number: int) -> AuditEntry | None:
    """Return the last approval of a version since its registration; None without one.

    It counts while the policy that holds lets its author approve.
    """
    logged = state.versions.get(number, LoggedVersion())
    for entry in reversed(state.approvals):
        if entry.number < logged.entry:
            return None
        key = entry.detail["version"], entry.detail["predictor"]
        if key == (number, logged.predictor) and is_permitted(state.policy, entry, logged):
            return entry
    return None


def describe_unfit(standing: GateStanding, model_name: str) -> str:
    """Return why a version is not fit, and the commands that help."""
    number, model = standing.version, f"--model {model_name}"
    if standing.problem:
        return (
            f"{model_name} version {number} {standing.problem}. See: python run.py history {model}"
        )
    gates = "; ".join(standing.failed)
    return (
        f"{model_name} version {number} failed {len(standing.failed)} of {len(standing.verdicts)} "
        f"gates: {gates}. It is not approved, promoted or deployed. See: python run.py card "
        f"{number} {model}. A gate is overridden, on the record, by: python run.py override "
        f"{number} {model} --gate {shlex.quote(standing.failed[0])} --reason WHY"
    )


def _find_override(
    state: LogState, logged: LoggedVersion, verdict: GateVerdict
) -> AuditEntry | None:
    """Return the last override of this very verdict: a gate judged anew is overridden anew."""
    key = logged.predictor, asdict(verdict)
    for entry in reversed(state.overrides):
        if (entry.detail["predictor"], entry.detail["verdict"]) == key and is_permitted(
            state.policy, entry, logged
        ):
            return entry
    return None
