"""The section ``search``: over which model families and settings, and how trials are judged."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

from cv_factory.config.model import MODEL_SECTIONS, ModelConfig
from cv_factory.config.section import Problem, Section, Seed, refuse
from cv_factory.config.suggestion import suggest


class FloatRange(Section):
    """Real numbers from low to high; write 1.0, not 1, in a range of real numbers."""

    low: float
    high: float
    log: bool = Field(False, description="draw on a logarithmic scale")

    @model_validator(mode="after")
    def _check_order(self) -> "FloatRange":
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, which is not below high, {self.high}")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range begins above 0")
        return self

    def ends(self) -> tuple[Any, ...]:
        """Return both ends."""
        return self.low, self.high


class IntRange(FloatRange):
    """Whole numbers from low to high, both included."""

    low: int
    high: int


class Choices(Section):
    """A few values, of which one is taken."""

    choices: list[Any] = Field(min_length=1)

    def ends(self) -> tuple[Any, ...]:
        """Return all choices."""
        return tuple(self.choices)


def _space_kind(value: Any) -> str | None:
    """Return which class of a space settings are for; None where they are none."""
    if isinstance(value, Choices | FloatRange):
        return type(value).__name__
    if not isinstance(value, dict):
        return None
    if "choices" in value:
        return "Choices"
    is_whole = all(type(value.get(end)) is int for end in ("low", "high"))
    return "IntRange" if is_whole else "FloatRange"


Space = Annotated[
    Annotated[IntRange, Tag("IntRange")]
    | Annotated[FloatRange, Tag("FloatRange")]
    | Annotated[Choices, Tag("Choices")],
    Discriminator(
        _space_kind,
        custom_error_type="space",
        custom_error_message="must be a range, {low: 1, high: 9}, or choices, {choices: [1, 3]}",
    ),
]


class SearchConfig(Section):
    """A search for the best model and settings; it sees the training images alone."""

    families: dict[str, dict[str, Space]] = Field(
        min_length=1,
        description="by model name, the settings that vary: dotted keys of the sections model and "
        "train, such as model.C: {low: 0.01, high: 100.0, log: true}",
    )
    trials: int = Field(20, ge=1, le=10_000)
    metric: Literal["accuracy", "log_loss"] = "accuracy"
    validation: Literal["k_fold", "hold_out"] = Field(
        "k_fold", description="hold_out: the first of the folds alone"
    )
    folds: int = Field(3, ge=2, le=20, description="stratified parts of the training images")
    pruning: bool = Field(True, description="stop trials that are worse than the median")
    jobs: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="trials side by side; null: one a CPU"
    )
    seed: Seed = 0

    @model_validator(mode="after")
    def _check_families(self) -> "SearchConfig":
        refuse(
            Problem(("families", name), f"there is no such model. {suggest(name, MODEL_SECTIONS)}")
            for name in self.families
            if name not in MODEL_SECTIONS
        )
        if self.trials < len(self.families):
            message = f"is {self.trials}, too few to try each of the {len(self.families)} families"
            refuse([Problem(("trials",), message)])
        return self


_Train = TypeVar("_Train", bound=Section)


def build_trial_config(
    family: str, values: Mapping[str, Any], model: ModelConfig, train: _Train
) -> tuple[ModelConfig, _Train]:
    """Return the configuration of a trial.

    Args:
        family: The model's name.
        values: Settings by dotted key.
        model: The configured model: what is not varied is taken from it if it is of this family,
            else from the family's defaults.
        train: The configured training, likewise.

    Raises:
        ValidationError: A value is not allowed.
    """
    base = model.model_dump() if model.name == family else {"name": family}
    sections = {"model": base, "train": train.model_dump()}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections[section][name] = value
    adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
    trial_model = adapter.validate_python(sections["model"])
    return trial_model, type(train).model_validate(sections["train"])
