"""Base of all configuration sections: strict types, finite numbers, no unknown keys, immutable."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
#: Pattern of a registered model's name, which also names folders.
REGISTERED_NAME = r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$"
RegisteredName = Annotated[
    str,
    Field(pattern=REGISTERED_NAME, description="letters, digits, - and _, at most 64 in all"),
]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


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
