"""Reads stack files: the components of a stack with their flavors and configurations.

Knows no ZenML: a file is validated before a client is built. Secret values never appear in an
error or a ``repr``.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from cv_factory.config.problems import describe
from cv_factory.config.suggestion import suggest
from cv_factory.errors import StackError

STACKS_DIR = Path(__file__).resolve().parent

#: The stack component types that ZenML knows.
COMPONENT_TYPES = (
    "alerter",
    "annotator",
    "artifact_store",
    "container_registry",
    "data_validator",
    "deployer",
    "experiment_tracker",
    "feature_store",
    "image_builder",
    "log_store",
    "model_deployer",
    "model_registry",
    "orchestrator",
    "sandbox",
    "step_operator",
)

#: ``${NAME}``, or ``${NAME:-default}`` with what stands for a variable that is not set or empty.
_ENV_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}")
_SECRET_REFERENCE = re.compile(r"\{\{\s*([^.{}\s]+)\.([^{}\s]+?)\s*\}\}")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]


class _Section(BaseModel):
    """Base of every part of a stack file: no unknown keys, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class ComponentSpec(_Section):
    """One stack component.

    Attributes:
        name: Unique among the components of its type.
        flavor: A flavor of ZenML, of one of its integrations, or one of ours.
        configuration: What the flavor's configuration class takes; ``{{secret.key}}`` for secrets.
        settings: Defaults of what steps may set for this component. ZenML keeps them in the
            configuration; they stand apart here because a step can override them.
        environment: Variables that steps see when they run on a stack with this component.
    """

    name: Name
    flavor: Name
    configuration: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    environment: dict[str, str] = {}

    @model_validator(mode="after")
    def _check_overlap(self) -> "ComponentSpec":
        both = sorted(self.configuration.keys() & self.settings.keys())
        if both:
            raise ValueError(f"{', '.join(both)}: given in both configuration and settings")
        return self

    @property
    def full_configuration(self) -> dict[str, Any]:
        """The configuration with the settings in it, as ZenML stores them."""
        return {**self.configuration, **self.settings}


class StackSpec(_Section):
    """A stack as its file declares it: parents merged in, environment variables filled in."""

    name: Name
    components: dict[str, ComponentSpec] = Field(min_length=1)
    environment: dict[str, str] = {}
    secrets: dict[Name, dict[str, SecretStr]] = {}

    @model_validator(mode="after")
    def _check_components(self) -> "StackSpec":
        for kind in self.components:
            if kind not in COMPONENT_TYPES:
                raise ValueError(
                    f"components.{kind}: unknown component type. {suggest(kind, COMPONENT_TYPES)}"
                )
        for kind in ("orchestrator", "artifact_store"):
            if kind not in self.components:
                raise ValueError(f"components.{kind}: missing; every stack has one")
        for secret, key in sorted(self.secret_references):
            if secret in self.secrets and key not in self.secrets[secret]:
                raise ValueError(
                    f"{{{{{secret}.{key}}}}} is used, but secrets.{secret} has only the keys "
                    f"{', '.join(sorted(self.secrets[secret]))}"
                )
        return self

    @property
    def secret_references(self) -> set[tuple[str, str]]:
        """Name and key of every ``{{secret.key}}`` in the components' configuration."""
        return secret_references([part.full_configuration for part in self.components.values()])


def stack_names() -> list[str]:
    """Return the names of the stack files, sorted."""
    return sorted(path.stem for path in STACKS_DIR.glob("*.yaml"))


def read_spec(
    name: str,
    *,
    directory: Path = STACKS_DIR,
    environment: Mapping[str, str] | None = None,
) -> StackSpec:
    """Read and check ``NAME.yaml`` with all that it extends.

    Args:
        name: Name of the stack and of its file.
        directory: Holds the stack files.
        environment: Fills in ``${VARIABLE}``; None for the environment of this process.

    Raises:
        StackError: A file is missing, is not YAML or does not fit the schema, or variables are not
            set; every problem is named.
    """
    path = directory / f"{name}.yaml"
    values = _read_with_parents(name, directory, ())
    values = _substitute_variables(values, os.environ if environment is None else environment, path)
    try:
        return StackSpec.model_validate({**values, "name": name})
    except ValidationError as error:
        problems = [_describe(detail, path) for detail in error.errors(include_input=False)]
        raise StackError("\n".join(problems)) from None


def secret_references(value: Any) -> set[tuple[str, str]]:
    """Return name and key of every ``{{secret.key}}`` in nested mappings, lists and strings."""
    return {match for text in _strings(value) for match in _SECRET_REFERENCE.findall(text)}


def whole_secret_reference(value: Any) -> tuple[str, str] | None:
    """Return name and key if the value is nothing but one ``{{secret.key}}``."""
    match = _SECRET_REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return (match[1], match[2]) if match else None


def _read_with_parents(name: str, directory: Path, children: tuple[str, ...]) -> dict[str, Any]:
    """Return the raw values of a stack file laid over those of the file that it extends."""
    if name in children:
        raise StackError(f"Stack files extend each other: {' -> '.join([*children, name])}.")
    path = directory / f"{name}.yaml"
    values = _read_yaml(path, directory)
    parent_name = values.pop("extends", None)
    for key in ("components", "environment", "secrets"):
        if not isinstance(values.get(key, {}), dict):
            raise StackError(f"{path}: {key} must hold names and values.")
    if parent_name is None:
        return values
    if not isinstance(parent_name, str):
        raise StackError(f"{path}: extends must be the name of another stack file.")
    merged = _read_with_parents(parent_name, directory, (*children, name))
    for key, value in values.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def _read_yaml(path: Path, directory: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = sorted(file.stem for file in directory.glob("*.yaml"))
        raise StackError(f"There is no stack file {path}. {suggest(path.stem, names)}") from None
    except UnicodeDecodeError as error:
        raise StackError(f"{path} is not a UTF-8 text: {error}") from None
    except yaml.MarkedYAMLError as error:
        # The whole error quotes the line, which may contain a secret.
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise StackError(f"{path}{line}: not valid YAML: {error.problem}") from None
    if not isinstance(values, dict):
        raise StackError(f"{path} must hold keys such as 'components:'.")
    return values


def _substitute_variables(
    values: dict[str, Any], environment: Mapping[str, str], path: Path
) -> dict[str, Any]:
    """Replace every ``${VARIABLE}`` in the strings of a stack file."""
    used = [match for text in _strings(values) for match in _ENV_VARIABLE.finditer(text)]
    missing = sorted({m[1] for m in used if m[2] is None and not environment.get(m[1])})
    if missing:
        raise StackError(
            f"{path} needs environment variables that are not set: {', '.join(missing)}. "
            "Nothing was created. Set them and run the command again:\n"
            + "\n".join(f"  export {name}=..." for name in missing)
        )

    def substitute(value: Any) -> Any:
        if isinstance(value, str):
            return _ENV_VARIABLE.sub(lambda match: environment.get(match[1]) or match[2], value)
        if isinstance(value, dict):
            return {key: substitute(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [substitute(inner) for inner in value]
        return value

    filled: dict[str, Any] = substitute(values)
    return filled


def _strings(value: Any) -> Iterator[str]:
    """Yield every string value in nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _describe(detail: ErrorDetails, path: Path) -> str:
    """Turn one pydantic error into a line: which file, which key, what is wrong."""
    key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    if detail["type"] == "extra_forbidden":
        model = ComponentSpec if len(detail["loc"]) > 1 else StackSpec
        valid = [field for field in model.model_fields if model is ComponentSpec or field != "name"]
        if model is StackSpec:
            valid.append("extends")
        return f"{path}: unknown key '{key}'. {suggest(str(detail['loc'][-1]), valid, 'keys')}"
    message = describe(detail)
    return f"{path}: {key}: {message}" if key else f"{path}: {message}"
