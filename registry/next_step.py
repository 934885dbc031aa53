"""The command that is usual next for a version or a model: possible, and as it is printed."""

from dataclasses import dataclass

from zenml.models import ModelVersionResponse

from cv_factory.errors import ArtifactError
from registry import versions
from registry.model_registry import ModelRegistry
from registry.standing import gate_standing


@dataclass(frozen=True)
class DisplacedVersion:
    """Version that a newly staged one pushed out of staging.

    Attributes:
        version: Its number.
        accuracy: Its test accuracy; None if not measured.
        new_accuracy: That of the staged version; None if not measured.
        is_fit: Whether it may be staged again.
        has_same_test_images: Whether both were measured on the same images and labels.
    """

    version: int
    accuracy: float | None
    new_accuracy: float | None
    is_fit: bool = True
    has_same_test_images: bool = True

    @property
    def is_better(self) -> bool:
        """Whether it had the higher accuracy on the same test images."""
        if self.accuracy is None or self.new_accuracy is None or not self.has_same_test_images:
            return False
        return self.accuracy > self.new_accuracy


def suggest_command(
    model_name: str, number: int, stage: str, *, is_fit: bool, lacks_approval: bool
) -> str:
    """Return the command that is usual next for a version."""
    model = f"--model {model_name}"
    if stage == "production":
        return f"python run.py status {model}"
    if not is_fit:
        return f"python run.py card {number} {model}"
    if stage != "staging":
        return f"python run.py stage {number} {model}"
    if lacks_approval:
        return f"python run.py approve {number} --reason WHY {model}"
    return f"python run.py --pipeline deployment {model}"


def next_command(registry: ModelRegistry, version: ModelVersionResponse) -> str:
    """Return the command that is usual next for a version."""
    return suggest_command(
        registry.model_name,
        version.number,
        version.stage or "none",
        is_fit=registry.gate_standing(version.number).is_fit,
        lacks_approval=registry.lacks_approval(version),
    )


def command_towards_production(registry: ModelRegistry) -> str:
    """Return the command that brings a model closest to a version in production."""
    listed = versions.list_versions(registry.model_name)
    staged = next((v for v in listed if v.stage == "staging"), None)
    state = registry.log.state()
    fit = (v for v in listed if gate_standing(state, v.number).is_fit)
    # Of versions that all failed a gate, the newest: its card says which.
    candidate = staged or next(fit, None) or next(iter(listed), None)
    if candidate is None:
        return f"python run.py --pipeline training --model {registry.model_name}"
    return next_command(registry, candidate)


def find_production(registry: ModelRegistry, number: int | None) -> ModelVersionResponse:
    """Return the version with this number or, without a number, the one in production.

    Raises:
        RegistryError: There is none.
    """
    name = registry.model_name
    if number is not None:
        return registry.get_version(number)
    version = versions.find_production(name)
    if version is None:
        raise versions.RegistryError(
            f"Model {name} has no version in production. Run: "
            f"{command_towards_production(registry)}"
        )
    return version


def find_displaced_version(
    registry: ModelRegistry, number: int, run_name: str
) -> DisplacedVersion | None:
    """Return the version that a run archived when it staged this one; None if it archived none."""
    for entry in reversed(registry.log.entries()):
        if (entry.kind, entry.who, entry.detail.get("action")) != ("intent", run_name, "stage"):
            continue
        displaced, *staged = [change["version"] for change in entry.detail["changes"]]
        if entry.detail["changes"][-1]["to_stage"] != "staging":
            continue  # it failed, and another version without a stage was archived
        if staged != [number] or displaced not in registry.stages():
            continue
        return DisplacedVersion(
            displaced,
            _accuracy(registry.model_name, displaced),
            _accuracy(registry.model_name, number),
            registry.gate_standing(displaced).is_fit,
            _has_same_test_images(registry.model_name, displaced, number),
        )
    return None


def _accuracy(model_name: str, number: int) -> float | None:
    metadata = versions.get_version(model_name, number).run_metadata
    accuracy = metadata.get(f"{versions.METRIC_PREFIX}accuracy")
    return accuracy if isinstance(accuracy, float) else None


def _has_same_test_images(model_name: str, number: int, other: int) -> bool:
    """Return whether two versions were evaluated on the same images; true where that is lost."""
    from cv_factory.evaluation.evaluation import Evaluation

    try:
        first, second = (
            versions.load_linked_artifact(
                versions.get_version(model_name, n), "evaluation", Evaluation
            ).predictions.label_by_id
            for n in (number, other)
        )
    except ArtifactError:
        return True
    return first == second
