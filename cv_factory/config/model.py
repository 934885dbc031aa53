"""The section ``model``: which model, and its settings; the sections of all models as one union."""

from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

from pydantic import Field

from cv_factory.config.model_section import ModelSection
from cv_factory.config.plugins import load_plugin, plugin_names

_PACKAGE = "cv_factory.models"


def _load_section(name: str) -> type[ModelSection]:
    """Return the section that a model's module defines.

    Raises:
        ImportError: The module has no section of its name.
    """
    for value in vars(load_plugin(_PACKAGE, name, "model")).values():
        if isinstance(value, type) and issubclass(value, ModelSection):
            field = value.model_fields["name"]
            if field.default == name:
                return value
    raise ImportError(
        f"{_PACKAGE}.{name} needs a subclass of NetworkSection or ClassicalSection with "
        f'name: Literal["{name}"] = "{name}"'
    )


#: The section of each model, by the model's name.
MODEL_SECTIONS: dict[str, type[ModelSection]] = {
    name: _load_section(name) for name in plugin_names(_PACKAGE)
}

if TYPE_CHECKING:
    ModelConfig: TypeAlias = ModelSection
else:
    ModelConfig = Annotated[Union[tuple(MODEL_SECTIONS.values())], Field(discriminator="name")]  # noqa: UP007
