"""Rollouts: the steps by which a version is given the requests of a model, on evidence.

The audit log holds each step, so that any process can go on where another one stopped; what the
services counted since is in a file beside the lock of the deployments.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zenml.config.global_config import GlobalConfiguration

from cv_factory.config.rollout import AccuracyLimits, RolloutConfig, describe_step
from cv_factory.deployment.deployment import Deployment
from cv_factory.deployment.traffic import Share
from cv_factory.errors import CVFactoryError
from cv_factory.monitoring.alert import Alert
from cv_factory.monitoring.rollout import (
    Comparison,
    RolloutDecision,
    RolloutState,
    compare,
    decide,
)
from cv_factory.monitoring.rollout_evidence import RolloutEvidence
from registry import deployments
from registry.alerts import send_alerts
from registry.audit.rollouts import replay_rollout
from registry.model_registry import ModelRegistry
from registry.permissions import TransitionRefusedError

logger = logging.getLogger(__name__)

#: The incident of a rollout that is held or was rolled back; one of a model at a time.
_INCIDENT = "rollout"
#: Labels are looked at again after so many times the seconds that it took; by model and rollout.
_ACCURACY_PAUSE = 10.0
_ACCURACY_DUE: dict[tuple[str, int], float] = {}


def load_rollout(registry: ModelRegistry) -> RolloutState | None:
    """Return the active rollout of a model; None if there is none.

    Raises:
        ArtifactError: The audit log was changed or cut.
    """
    return replay_rollout(registry.log.check())


def require_rollout(registry: ModelRegistry) -> RolloutState:
    """Return the active rollout of a model.

    Raises:
        TransitionRefusedError: There is none.
    """
    state = load_rollout(registry)
    if state is None:
        name = registry.model_name
        raise TransitionRefusedError(
            f"{name} has no rollout. It begins with a deployment: python run.py --pipeline "
            f"deployment --model {name} --set 'rollout={{}}'"
        )
    return state


def require_no_rollout(registry: ModelRegistry) -> None:
    """Refuse a deployment while another version is rolled out.

    Raises:
        TransitionRefusedError: One is.
    """
    state = load_rollout(registry)
    if state is not None:
        name = registry.model_name
        raise TransitionRefusedError(
            f"{name} version {state.version} is being rolled out ({describe_step(state.step)}). "
            f"See python run.py rollout status --model {name}, or end it: python run.py rollout "
            f"abort --reason WHY --model {name}"
        )


def can_compare(model_name: str) -> bool:
    """Return whether a version is served that another one can be compared with.

    Raises:
        StackError: The endpoints of the active stack count nothing by version.
    """
    deployer = deployments.active_deployer()
    services = deployer.services(model_name)
    if not services or not deployer.traffic(model_name).weights:
        return False
    deployer.service_endpoint(services[0]).counters()
    return True


def begin_rollout(
    registry: ModelRegistry,
    deployment: Deployment,
    config: RolloutConfig,
    who: str | None,
    why: str,
) -> RolloutState:
    """Begin a rollout with the version that was just deployed as its first step."""
    detail = {
        "version": int(deployment.version),
        "predictor": deployment.predictor,
        "service": deployment.service_id,
        "rollout": config.model_dump(mode="json"),
    }
    registry.log.record("rollout_started", who, why, detail)
    state = require_rollout(registry)
    _announce(registry.model_name, state, "resolved", "has begun")
    look(registry, state)
    return state


def look(registry: ModelRegistry, state: RolloutState) -> RolloutDecision:
    """Add what was counted since the last look to the evidence, and return what is to be done.

    Raises:
        CVFactoryError: The counters, or the predictions and labels, cannot be read.
    """
    now = datetime.now(UTC)
    file = _evidence_file(registry.model_name)
    evidence = RolloutEvidence.load(file, state.entry).begin_step(state.step_index)
    deployer = deployments.active_deployer()
    services = {str(s.uuid): s for s in deployer.services(registry.model_name)}
    own = services.get(state.service)
    if own is not None:
        endpoint, latency = deployer.service_endpoint(own), state.config.latency
        max_ratio = latency.max_ratio if latency else 1.0
        evidence = evidence.look(endpoint.counters(), own.service_name, max_ratio)
        evidence.save(file)
    comparisons = compare(evidence, state.config)
    decision = decide(state, comparisons, evidence.step_requests, now)
    is_gone = own is None or endpoint.health(own.service_name).state == "missing"
    if is_gone and state.hold_reason is None and decision.action != "roll_back":
        reason = f"version {state.version} does not run: see python run.py status"
        return RolloutDecision("hold", "not_enough_evidence", reason, comparisons)
    # The log is read seldom enough, and before each step; harm of errors does not wait for it.
    key = registry.model_name, state.entry
    is_due = decision.action != "wait" or time.monotonic() >= _ACCURACY_DUE.get(key, 0.0)
    if state.config.accuracy is None or decision.action == "roll_back" or not is_due:
        return decision
    start = time.monotonic()
    accuracy = _compare_accuracy(registry, state, state.config.accuracy)
    _ACCURACY_DUE[key] = time.monotonic() + (time.monotonic() - start) * _ACCURACY_PAUSE
    return decide(state, (*comparisons, *accuracy), evidence.step_requests, now)


def take_step(
    registry: ModelRegistry,
    state: RolloutState,
    decision: RolloutDecision,
    who: str | None,
    why: str,
) -> RolloutState:
    """Take the next step, which is not production, and record it with its evidence first.

    Raises:
        LogConflictError: Another process wrote to the audit log meanwhile; nothing was done.
        CVFactoryError: The traffic cannot be changed; the next look does it.
    """
    entries = registry.log.check()
    if replay_rollout(entries) != state:
        raise TransitionRefusedError(
            "The rollout has changed meanwhile: see python run.py rollout status"
        )
    index = state.step_index + 1
    detail = {**_detail(state, decision), "step": index, "share": state.config.steps[index]}
    registry.log.append(entries, "rollout_step", who, why, detail)
    taken = require_rollout(registry)
    apply_step(registry, taken)
    _announce(registry.model_name, taken, "resolved", "goes on")
    return taken


def apply_step(registry: ModelRegistry, state: RolloutState) -> None:
    """Give the version what its present step says, unless it has it."""
    deployer, name = deployments.active_deployer(), registry.model_name
    traffic = deployer.traffic(name)
    share = Share(1.0, "shadow") if state.step == "shadow" else Share(state.step, "canary")
    present = traffic.shares.get(state.service)
    if present is not None and present.arm == share.arm:
        given = traffic.weights.get(state.service, present.fraction)
        if abs(given - share.fraction) < 1e-6:
            return
    deployer.set_traffic(name, traffic.beside_others(state.service, share))


def hold_rollout(
    registry: ModelRegistry,
    state: RolloutState,
    who: str | None,
    why: str,
    decision: RolloutDecision | None = None,
) -> None:
    """Hold a rollout until a person advances it; it is still rolled back on harm."""
    registry.log.record("rollout_held", who, why, _detail(state, decision))
    _announce(registry.model_name, state, "firing", f"is held: {why}")


def abort_rollout(
    registry: ModelRegistry,
    state: RolloutState,
    who: str | None,
    why: str,
    decision: RolloutDecision | None = None,
) -> tuple[str, ...]:
    """Give all requests to the version in production again, and prove it with golden samples.

    The requests come first: where the process ends then, the next look goes on. A version that is
    worse, as a decision says, leaves staging.

    Returns:
        The versions that are given the requests now.
    """
    deployer, name, number = deployments.active_deployer(), registry.model_name, state.version
    withdrawn: Sequence[Any] = ()
    serving: Sequence[Any] = ()
    services = deployer.services(name)
    for service in services:
        if str(service.uuid) != state.service and not service.is_running:
            # Such as after a restart of the machine.
            deployer.service_endpoint(service).start(service.service_name)
    if any(str(service.uuid) == state.service for service in services):
        withdrawn, serving = deployments.redirect_requests(registry, number)
    checks = [_verify(deployer, service) for service in serving]
    proof = [text for text, _ in checks]
    detail = {**_detail(state, decision), "verification": proof}
    registry.log.record("rollout_aborted", who, why, detail)
    if decision is not None or not all(is_verified for _, is_verified in checks):
        text = f"was rolled back: {_end_sentence(why)} {' '.join(proof)}"
        _announce(name, state, "firing", text, "critical")
    else:  # whoever aborts it knows
        text = f"was aborted: {_end_sentence(why)} {' '.join(proof)}"
        _announce(name, state, "resolved", text)
    text = f"version {number} was rolled back at {describe_step(state.step)}: {why}"
    for service in serving:
        deployer.service_endpoint(service).set_rollout(service.service_name, text)
    for service in withdrawn:
        deployer.remove(service)
    if decision is not None and registry.stages().get(number) == "staging":
        registry.reject(number, who, f"rolled back: {why}")
    return tuple(service.config.model_version for service in serving)


def finish_rollout(
    registry: ModelRegistry,
    state: RolloutState,
    decision: RolloutDecision,
    who: str | None,
    why: str,
) -> None:
    """Record that the version is in production by a rollout, and on which evidence."""
    registry.log.record("rollout_finished", who, why, _detail(state, decision))
    _announce(registry.model_name, state, "resolved", "is in production")


def _compare_accuracy(
    registry: ModelRegistry, state: RolloutState, limits: AccuracyLimits
) -> tuple[Comparison, ...]:
    """Return what labels say; nothing where no predictions are logged and none are required."""
    if not deployments.log_folders(registry.model_name):
        reason = "accuracy: no predictions are logged, so none can be labelled."
        missing = Comparison("accuracy", "not_enough_evidence", reason, 0.0, 1.0)
        return (missing,) if limits.is_required else ()
    # pandas: half a second that a rollout without labels does not need.
    from cv_factory.monitoring.rollout_accuracy import compare_accuracy, count_accuracy
    from registry.monitoring_store import load_window

    production = [n for n, stage in registry.stages().items() if stage == "production"]
    window = load_window(registry.model_name, start=state.begun)
    counts = count_accuracy(window, str(state.version), str(next(iter(production), "")))
    return (compare_accuracy(counts, limits),)


def _verify(deployer: deployments.ModelDeployer, service: deployments.Service) -> tuple[str, bool]:
    """Return what golden samples say of a service at the model's address, and whether it passed."""
    endpoint = deployer.service_endpoint(service)
    version = service.config.model_version
    try:
        result = endpoint.verify(service.service_name, endpoint.load_bundle(service.service_name))
    except CVFactoryError as error:
        logger.error("Version %s, which has the requests again: %s", version, error)
        return f"Version {version} does not answer as it should: {error}", False
    return f"Version {version} answered {result.n_samples} golden samples.", True


def _end_sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _detail(state: RolloutState, decision: RolloutDecision | None) -> dict[str, Any]:
    """Return what the audit log is to hold beside the reason."""
    detail: dict[str, Any] = {"version": state.version, "rollout_entry": state.entry}
    if decision is not None:
        detail["verdict"] = decision.verdict
        detail["evidence"] = [asdict(comparison) for comparison in decision.comparisons]
    return detail


def _announce(
    model_name: str, state: RolloutState, status: Any, text: str, severity: Any = "warning"
) -> None:
    alert = Alert(
        _INCIDENT,
        status,
        severity,
        f"Rollout of {model_name} version {state.version} {text}"[:500],
        f"See: python run.py rollout status --model {model_name}",
        {"version": str(state.version)},
    )
    with suppress(CVFactoryError):  # it is logged; a rollback must not depend on it
        send_alerts([alert], model_name)


def _evidence_file(model_name: str) -> Path:
    stores = Path(GlobalConfiguration().local_stores_path)
    return stores / "deployments" / f"{model_name}.rollout.json"
