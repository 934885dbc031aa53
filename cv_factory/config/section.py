"""Base of all configuration sections, and the refusal of settings that contradict each other."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
#: Pattern of a registered model's name, which also names folders.
REGISTERED_NAME = r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$"
RegisteredName = Annotated[
    str,
    Field(pattern=REGISTERED_NAME, description="letters, digits, - and _, at most 64 in all"),
]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
#: Pydantic's type of the error that ``refuse`` raises.
CONTRADICTION = "contradiction"


class Section(BaseModel):
    """Base of every section: strict types, finite numbers, no unknown keys, immutable."""

    #: Of a pipeline's configuration: the setting that names the registered model, if it has one.
    MODEL_NAME_KEY: ClassVar[str | None] = None

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class Problem(NamedTuple):
    """A setting that cannot stand beside another one: its path, and what is wrong with it."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        """Return the dotted key and the message."""
        return f"{'.'.join(map(str, self.path))}: {self.message}"


def refuse(problems: Iterable[Problem]) -> None:
    """Refuse settings from within a validator of pydantic, all of them at once.

    Raises:
        PydanticCustomError: There are problems; ``problems.expand`` reads them from its details.
    """
    listed = list(problems)
    if listed:
        text = "\n".join(map(str, listed))
        raise PydanticCustomError(CONTRADICTION, "{text}", {"text": text, "problems": listed})
