"""The section ``search``: over which model families and settings, and how trials are judged."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from cv_factory.config.model import MODEL_SECTIONS, ModelConfig
from cv_factory.config.section import Section, Seed
from cv_factory.config.suggestion import suggest

#: The sections whose settings a search may vary.
_SECTIONS = ("model", "train")


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


Space = Annotated[IntRange | FloatRange | Choices, Field(union_mode="left_to_right")]


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
        for family in self.families:
            if family not in MODEL_SECTIONS:
                raise ValueError(
                    f"families: there is no model {family!r}. {suggest(family, MODEL_SECTIONS)}"
                )
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


def check_space(search: SearchConfig, model: ModelConfig, train: Section) -> None:
    """Check every key, and the ends of every range against the bounds of its setting.

    Raises:
        ValueError: A key does not exist, or a value is not allowed; the message names it.
    """
    for family, space in search.families.items():
        first = {key: spec.ends()[0] for key, spec in space.items()}
        for key, spec in space.items():
            _check_key(family, key, train)
            for end in spec.ends():
                _check_value(family, key, {**first, key: end}, model, train)
        if not space:
            _check_value(family, "", {}, model, train)


def _check_key(family: str, key: str, train: Section) -> None:
    section, _, name = key.partition(".")
    fields = {
        "model": [f for f in MODEL_SECTIONS[family].model_fields if f != "name"],
        "train": [f for f in type(train).model_fields if f != "seed"],
    }
    if section not in _SECTIONS or name not in fields[section]:
        keys = [f"{s}.{f}" for s in _SECTIONS for f in fields[s]]
        raise ValueError(
            f"search.families.{family}: there is no setting {key!r}. {suggest(key, keys, 'keys')}"
        )


def _check_value(
    family: str, key: str, values: dict[str, Any], model: ModelConfig, train: Section
) -> None:
    try:
        build_trial_config(family, values, model, train)
    except ValidationError as error:
        problem = error.errors()[0]
        message = problem["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in problem["loc"] if part != family)
        shown = f" (got {json.dumps(values[key], default=str)})" if key else ""
        raise ValueError(
            f"search.families.{family}, {key or where}: {message[0].lower()}{message[1:]}{shown}"
        ) from None
