"""What is in production, in staging and served of each model, and whether they agree.

Reads ZenML, the audit log and the endpoints, and changes none of them. What cannot be read is a
problem: nothing is said to agree without evidence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zenml.models import ModelVersionResponse

from cv_factory.config.rollout import Step
from cv_factory.errors import CVFactoryError
from registry import deployments, versions
from registry.audit.log import AuditEntry
from registry.audit.rollouts import replay_rollout
from registry.model_registry import ModelRegistry
from registry.stages import is_in_progress, open_intent

#: Kinds of audit entries that give a service requests, or copies of them.
_SERVING_KINDS = ("deployed", "canary", "shadow", "started")


@dataclass(frozen=True)
class StageHolder:
    """Version that holds a stage, with the audit entry that put it there.

    Attributes:
        version: Its number.
        predictor: Fingerprint of its predictor.
        since: ISO 8601, UTC; None where the log does not say.
        who: Person or run; None where the log does not say.
    """

    version: int
    predictor: str
    since: str | None = None
    who: str | None = None


@dataclass(frozen=True)
class ServiceStatus:
    """Service of a model, as its record in ZenML and its endpoint show it.

    Attributes:
        id: ZenML's id of the record.
        version: Number of the version, as text.
        predictor: Fingerprint of the predictor.
        url: Address of the model.
        weight: Fraction of the requests that it answers.
        is_running: Whether it answers.
        since: ISO 8601, UTC; None where the log does not say.
        who: Who deployed or started it; None where the log does not say.
        mirror_share: Fraction of the requests that it is given copies of.
    """

    id: str
    version: str
    predictor: str
    url: str
    weight: float
    is_running: bool
    since: str | None = None
    who: str | None = None
    mirror_share: float = 0.0

    @property
    def given(self) -> str:
        """What it is given, for people."""
        if self.mirror_share:
            return f"copies of {self.mirror_share:.0%} of the requests"
        return f"{self.weight:.0%} of the requests"


@dataclass(frozen=True)
class RolloutStatus:
    """Active rollout of a model.

    Attributes:
        version: Number of the version.
        step: ``shadow``, or its share of the requests.
        number: Of the step, from 1.
        n_steps: Number of steps.
        since: Beginning of the step, ISO 8601, UTC.
        hold_reason: Why it is held; None unless it is.
    """

    version: int
    step: Step
    number: int
    n_steps: int
    since: str
    hold_reason: str | None


@dataclass(frozen=True)
class TransitionStatus:
    """Transition without an end, whose versions may be half moved.

    Attributes:
        action: Such as ``promote``.
        who: Person or run that began it.
        entry: Number of its entry in the audit log.
        is_running: Whether the process that began it still runs; else it was interrupted.
    """

    action: str
    who: str
    entry: int
    is_running: bool

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.action} by {self.who} (audit log entry {self.entry})"


@dataclass(frozen=True)
class ModelStatus:
    """Status of one model on the active stack.

    Attributes:
        model_name: Name of the registered model.
        production: The version in production.
        staging: The version in staging.
        services: Those of the active stack's model deployer, the newest first.
        unrecorded_weight: Fraction of the requests that goes to services without a record.
        elsewhere: Services of other model deployers.
        findings: What is wrong in the registry, or could not be read.
        is_deployable: Whether the version in production may be deployed.
        rollout: The active rollout.
        transition: The transition without an end; stages and services are not compared beside it.
    """

    model_name: str
    production: StageHolder | None = None
    staging: StageHolder | None = None
    services: tuple[ServiceStatus, ...] = ()
    unrecorded_weight: float = 0.0
    elsewhere: tuple[deployments.ServiceElsewhere, ...] = ()
    findings: tuple[str, ...] = ()
    is_deployable: bool = True
    rollout: RolloutStatus | None = None
    transition: TransitionStatus | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not agree, each with what to do; a transition in progress is none."""
        if self.transition is None:
            return (*self.findings, *_service_problems(self), *_problems_elsewhere(self))
        return (*self.findings, *_interruption(self.model_name, self.transition))

    @property
    def agrees(self) -> bool:
        """Whether what serves is what the registry holds in production; no transition is open."""
        return self.transition is None and not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "problems": list(self.problems), "agrees": self.agrees}


def load_status(model_name: str) -> ModelStatus:
    """Read the status of a model; what cannot be read is among its ``findings``."""
    registry = ModelRegistry(model_name)
    while True:
        entries, damage = _read_log(registry)
        status = _read_status(registry, entries, damage)
        # A longer log means that a transition began, or ended with its process, meanwhile.
        if damage or _read_log(registry) == (entries, damage):
            return status


def _read_status(
    registry: ModelRegistry, entries: tuple[AuditEntry, ...], damage: tuple[str, ...]
) -> ModelStatus:
    """Return the status beside a log that was read; ``damage`` is why it could not be."""
    model_name = registry.model_name
    changes, is_moved_outside = ((), False) if damage else _read_outside_changes(registry)
    findings = (*damage, *changes)
    transition = _transition_status(entries)
    is_deployable = False
    staged = {v.stage: v for v in versions.list_versions(model_name)}
    holders = {
        stage: _stage_holder(staged[stage], entries)
        for stage in ("production", "staging")
        if stage in staged
    }
    if entries and transition is None and "production" in staged:
        problems = _deployment_problems(registry, staged["production"])
        findings += problems
        is_deployable = not (problems or is_moved_outside)
    services: tuple[ServiceStatus, ...] = ()
    unrecorded_weight = 0.0
    try:
        services, unrecorded_weight = _read_services(model_name, entries)
    except CVFactoryError as error:
        findings += (f"What is served could not be read: {error}",)
    return ModelStatus(
        model_name,
        holders.get("production"),
        holders.get("staging"),
        services,
        unrecorded_weight,
        deployments.services_elsewhere(model_name),
        findings,
        is_deployable,
        _rollout_status(entries),
        transition,
    )


def _rollout_status(entries: Sequence[AuditEntry]) -> RolloutStatus | None:
    state = replay_rollout(entries)
    if state is None:
        return None
    number, n_steps = state.step_index + 1, len(state.config.steps)
    since = state.since.isoformat(timespec="seconds")
    return RolloutStatus(state.version, state.step, number, n_steps, since, state.hold_reason)


def _transition_status(entries: Sequence[AuditEntry]) -> TransitionStatus | None:
    intent = open_intent(entries)
    if intent is None:
        return None
    action, is_running = intent.detail["action"], is_in_progress(intent)
    return TransitionStatus(action, intent.who, intent.number, is_running)


def _read_log(registry: ModelRegistry) -> tuple[tuple[AuditEntry, ...], tuple[str, ...]]:
    """Return the audit log; or, where it cannot be read or is damaged, none and why."""
    try:
        return registry.log.check(), ()
    except CVFactoryError as error:
        return (), (str(error),)


def _read_outside_changes(registry: ModelRegistry) -> tuple[tuple[str, ...], bool]:
    """Return what was changed beside the registry, and whether a stage is among it."""
    try:
        changes = registry.detect_outside_changes()
    except CVFactoryError as error:
        return (str(error),), False
    findings = (
        f"Changed outside: {change}. See: python run.py history --verify --model "
        f"{registry.model_name}"
        for change in changes
    )
    return tuple(findings), any(change.what == "stage" for change in changes)


def _deployment_problems(
    registry: ModelRegistry, production: ModelVersionResponse
) -> tuple[str, ...]:
    """Return why the version in production may not serve; nothing if it may."""
    try:
        registry.require_deployable(production)
    except CVFactoryError as error:
        return (str(error),)
    return ()


def _stage_holder(version: ModelVersionResponse, entries: Sequence[AuditEntry]) -> StageHolder:
    number, stage = version.number, version.stage
    predictor = versions.predictor_fingerprint(version)
    completed = {entry.detail["intent"] for entry in entries if entry.kind == "done"}
    for entry in reversed(entries):
        if entry.number not in completed and entry.kind != "outside":
            continue
        for move in entry.detail["changes"]:
            if move["version"] == number and move.get("to_stage") == stage:
                return StageHolder(number, predictor, entry.when, entry.who)
            if move["version"] == number and move.get("what", "stage") == "stage":
                return StageHolder(number, predictor)  # moved beside the registry
    return StageHolder(number, predictor)


def _read_services(
    model_name: str, entries: Sequence[AuditEntry]
) -> tuple[tuple[ServiceStatus, ...], float]:
    """Return the services on the active stack, and the weight of those without a record."""
    deployer = deployments.find_deployer()
    if deployer is None:
        return (), 0.0
    records = [service for service in deployer.services(model_name) if service.is_deployed]
    if not records:
        return (), 0.0
    traffic = deployer.service_endpoint(records[0]).traffic()
    weights, shadows = traffic.weights, traffic.shadows
    services = []
    for service in records:
        entry = _serving_entry(str(service.uuid), entries)
        services.append(
            ServiceStatus(
                id=str(service.uuid),
                version=service.config.model_version,
                predictor=service.config.predictor,
                url=str(service.client_url),
                weight=weights.pop(service.service_name, 0.0),
                is_running=service.is_running,
                since=entry.when if entry else None,
                who=entry.who if entry else None,
                mirror_share=shadows.get(service.service_name, 0.0),
            )
        )
    return tuple(services), sum(weights.values())


def _serving_entry(service_id: str, entries: Sequence[AuditEntry]) -> AuditEntry | None:
    matches = (
        entry
        for entry in reversed(entries)
        if entry.kind in _SERVING_KINDS and entry.detail.get("service") == service_id
    )
    return next(matches, None)


def _interruption(model_name: str, transition: TransitionStatus) -> Iterator[str]:
    """Yield a problem for a transition that was interrupted; nothing for one in progress."""
    if not transition.is_running:
        yield (
            f"{transition} was interrupted. To finish or undo it, run: python run.py history "
            f"--model {model_name}"
        )


def _service_problems(status: ModelStatus) -> Iterator[str]:
    """Yield what does not agree between the registry and the services of the active stack."""
    name, production = status.model_name, status.production
    serving = [service for service in status.services if service.weight > 0]
    rollout = [service for service in status.services if service.weight or service.mirror_share]
    if not status.services:
        return
    if production is None:
        served = ", ".join(dict.fromkeys(service.version for service in serving)) or "none"
        yield (
            f"No version is in production, but services are deployed (serving: {served}). Put one "
            f"there, see: python run.py models --model {name}. Or delete them: "
            f"zenml model-deployer models delete {status.services[0].id}"
        )
        return
    deploy = (
        f" Run: python run.py --pipeline deployment --model {name} --set "
        f"model.version={production.version}"
        if status.is_deployable
        else ""
    )
    for service in rollout:
        if not service.is_running:
            is_staged = status.staging is not None and _serves(service, status.staging)
            is_startable = is_staged or (status.is_deployable and _serves(service, production))
            start = f" Run: zenml model-deployer models start {service.id}" if is_startable else ""
            yield (
                f"Version {service.version} is given {service.given} and does not answer.{start}"
            )
    if not any(_serves(service, production) for service in serving):
        others = ", ".join(dict.fromkeys(service.version for service in serving)) or "nothing"
        yield (
            f"Version {production.version} is in production, but what serves is {others}.{deploy}"
        )
        return
    for service in rollout:
        is_staged = status.staging is not None and _serves(service, status.staging)
        if not is_staged and not _serves(service, production):
            yield (
                f"Version {service.version}, neither in production nor in staging, is given "
                f"{service.given}. Run: python run.py withdraw {service.version} --reason WHY "
                f"--model {name}"
            )
    if status.unrecorded_weight > 0:
        yield (
            f"A service without a record in ZenML is given {status.unrecorded_weight:.0%} of the "
            f"requests.{deploy}"
        )


def _serves(service: ServiceStatus, holder: StageHolder) -> bool:
    """Whether a service serves the version, with the very predictor that was registered."""
    return (service.version, service.predictor) == (str(holder.version), holder.predictor)


def _problems_elsewhere(status: ModelStatus) -> Iterator[str]:
    """Yield a problem where another model deployer serves, but not the version in production."""
    production = status.production
    keys = {(service.version, service.predictor) for service in status.elsewhere}
    if not keys or (production and (str(production.version), production.predictor) in keys):
        return
    service = status.elsewhere[0]
    held = f"version {production.version}" if production else "no version"
    yield (
        f"{held.capitalize()} is in production, and the model deployer {service.flavor} serves "
        f"version {service.version}. Run: python run.py status --model {status.model_name} "
        f"--stack {service.stack}"
    )
