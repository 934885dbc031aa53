"""Retrainings that the loop began, as the audit log tells them.

A training and the log share no transaction. So the intent is logged first, with the name of the
run: ZenML refuses a second run of that name, and what became of a training that was killed is found
by it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from cv_factory.monitoring.decisions import Outcome, Retraining
from registry import process_owner
from registry.audit.log import AuditEntry
from registry.audit.state import parse_verdicts

INTENDED, FINISHED = "retraining_intended", "retraining_finished"
STOPPED, RESUMED = "retraining_stopped", "retraining_resumed"

#: Names of the runs that this process waits for.
_ACTIVE_RUNS: set[str] = set()
#: What became of a run that its process does not wait for any more, by its name.
RunOutcome = Callable[[str], Outcome]


def read_retrainings(
    entries: Sequence[AuditEntry], lease_s: float, run_outcome: RunOutcome
) -> tuple[Retraining, ...]:
    """Return the retrainings that a log tells of, the oldest first.

    Args:
        entries: The log.
        lease_s: Seconds that a training of another machine, which did not end, counts as running.
        run_outcome: Asked about a training whose process ended before it logged its end.
    """
    ends = {entry.detail["intent"]: entry for entry in entries if entry.kind == FINISHED}
    retrainings = []
    for intent in entries:
        if intent.kind != INTENDED:
            continue
        outcome, version = _read_end(intent, ends.get(intent.number), entries, lease_s, run_outcome)
        if outcome == "passed" and version is not None:
            outcome = _follow_challenger(version, entries[intent.number :])
        started = datetime.fromisoformat(intent.when)
        retrainings.append(Retraining(intent.number, started, outcome, version))
    return tuple(retrainings)


@contextmanager
def active_run(run_name: str) -> Iterator[None]:
    """Mark a run as one that this process waits for, during the block."""
    _ACTIVE_RUNS.add(run_name)
    try:
        yield
    finally:
        _ACTIVE_RUNS.discard(run_name)


def find_unfinished(entries: Sequence[AuditEntry]) -> AuditEntry | None:
    """Return the intent of a retraining without an end: at most the last one."""
    for entry in reversed(entries):
        if entry.kind == FINISHED:
            return None
        if entry.kind == INTENDED:
            return entry
    return None


def find_result(
    run_name: str, entries: Sequence[AuditEntry]
) -> tuple[Outcome, int] | tuple[None, None]:
    """Return what the gates said of the version that a run registered, and its number.

    None where it judged nothing, or did not come to stage what passed: the next run of the same
    images completes that, from the cache.
    """
    judged = [e for e in entries if e.kind in ("registered", "judged") and e.who == run_name]
    if not judged:
        return None, None
    version = int(judged[-1].detail["version"])
    failed = [v for v in parse_verdicts(judged[-1].detail) if v.status == "failed"]
    if failed:
        # Where nothing was held against a bound, the version has not failed.
        is_judged = any(verdict.observed is not None for verdict in failed)
        return "refused" if is_judged else "inconclusive", version
    completed = {entry.detail["intent"] for entry in entries if entry.kind == "done"}
    is_staged = any(e.number in completed and e.who == run_name for e in entries)
    return ("passed", version) if is_staged else (None, None)


def find_reset(entries: Sequence[AuditEntry]) -> int:
    """Return the number of the entry after which failures count; 0 without one.

    It is that of a person's decision to go on, or of the last promotion.
    """
    promoted = {intent.number: intent for intent in entries if _is_promotion(intent)}
    for entry in reversed(entries):
        if entry.kind == RESUMED or (entry.kind == "done" and entry.detail["intent"] in promoted):
            return entry.number
    return 0


def is_stopped(entries: Sequence[AuditEntry]) -> bool:
    """Return whether the loop logged that it retrains no more, and nothing has reset it since."""
    reset = find_reset(entries)
    return any(entry.kind == STOPPED and entry.number > reset for entry in entries)


def _read_end(
    intent: AuditEntry,
    end: AuditEntry | None,
    entries: Sequence[AuditEntry],
    lease_s: float,
    run_outcome: RunOutcome,
) -> tuple[Outcome, int | None]:
    if end is not None:
        return end.detail["outcome"], end.detail.get("version")
    owner, run_name = intent.detail["owner"], intent.detail["run_name"]
    if process_owner.is_current(owner):
        is_running = run_name in _ACTIVE_RUNS
    else:
        is_running = process_owner.is_running(owner, lease_s)
    if is_running:
        return "running", None
    outcome, version = find_result(run_name, entries)
    return (run_outcome(run_name), None) if outcome is None else (outcome, version)


def _follow_challenger(version: int, later: Sequence[AuditEntry]) -> Outcome:
    """Return what became of a version that passed its gates: the last thing that was decided."""
    intents = {entry.number: entry for entry in later if entry.kind == "intent"}
    outcome: Outcome = "passed"
    for entry in later:
        if entry.kind == "done" and entry.detail["intent"] in intents:
            intent = intents[entry.detail["intent"]]
            if intent.detail["changes"][-1]["version"] == version:
                outcome = _OUTCOMES.get(intent.detail["action"], outcome)
        elif entry.kind in ("rollout_aborted", "withdrawn") and entry.detail["version"] == version:
            outcome = "withdrawn"
    return outcome


#: By the action of a transition that ended.
_OUTCOMES: Mapping[str, Outcome] = {"promote": "promoted", "reject": "withdrawn"}


def _is_promotion(entry: AuditEntry) -> bool:
    return entry.kind == "intent" and entry.detail["action"] == "promote"
