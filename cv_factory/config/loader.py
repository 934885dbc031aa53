"""Reads pipeline configurations: one YAML file, presets over it, ``--set`` over both, all checked.

The only reader of configuration YAML. An error names the key, the file, the line and what to write.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cv_factory.config.problems import describe, expand, is_secret, join_messages
from cv_factory.config.section import Section
from cv_factory.config.suggestion import suggest
from cv_factory.errors import ConfigError

KeyPath = tuple[str | int, ...]
#: Characters of a ``--set`` in front of a message; the key stands in the message anyway.
_LONGEST_SETTING = 60
Schema = TypeVar("Schema", bound=Section)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class _Layer:
    """Settings of one file or option.

    Attributes:
        values: Nested, as YAML gives them.
        origin: By key path, the file and line, or the option, for errors.
    """

    values: dict[str, Any]
    origin: dict[KeyPath, str]


def load_config(
    schema: type[Schema],
    file: Path | None = None,
    *,
    presets: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    defaults: Mapping[str, str] | None = None,
) -> Schema:
    """Read and check the configuration of a pipeline.

    Args:
        schema: The pipeline's section that holds all others.
        file: The YAML file; None for the schema's defaults.
        presets: YAML files laid over ``file``, in this order.
        overrides: ``dotted.key=value`` settings laid over all files; values are YAML.
        defaults: Dotted settings that apply where nothing else gives them (such as from the
            environment): the origin by which an error names them, with the ``=``-form as value.

    Returns:
        The checked configuration, an instance of ``schema``.

    Raises:
        ConfigError: A file is missing or is not YAML, or a key or value is wrong. All problems are
            listed, each with key, origin (file and line) and what is allowed.
    """
    values, origin = _read_layers(file, presets, overrides, defaults or {})
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe_errors(error, schema, values, origin))) from None


def read_settings(
    file: Path | None = None, *, presets: Sequence[Path] = (), overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Read and merge the settings of a pipeline as ``load_config`` does, without checking them.

    Raises:
        ConfigError: A file is missing, or a file or an override is not YAML.
    """
    return _read_layers(file, presets, overrides, {})[0]


def _read_layers(
    file: Path | None,
    presets: Sequence[Path],
    overrides: Sequence[str],
    defaults: Mapping[str, str],
) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """Return the merged settings, and by key path where each comes from."""
    layers = [_parse_setting(text, name) for name, text in defaults.items()]
    layers += [_parse_file(path) for path in ([file] if file else []) + list(presets)]
    layers += [_parse_setting(text, "--set " + _shorten(text)) for text in overrides]
    values: dict[str, Any] = {}
    origin: dict[KeyPath, str] = {}
    for layer in layers:
        values = _merge(values, layer.values)
        origin |= layer.origin
    return values, origin


def _parse_file(path: Path) -> _Layer:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"The configuration file {path} does not exist.") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}") from None
    return _parse(text, str(path), lambda line: f"{path}, line {line}")


def _parse_setting(text: str, name: str) -> _Layer:
    key, separator, value = text.partition("=")
    if not separator or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(f"{name!r} is not of the form dotted.key=value, such as train.epochs=3.")
    path: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    parsed = _parse(value or "null", name, lambda _line: name, wrap=True)
    nested: Any = parsed.values["value"]
    for part in reversed(path):
        nested = {part: nested}
    origin = {path[:n]: name for n in range(1, len(path) + 1)}
    origin |= {(*path, *inner[1:]): where for inner, where in parsed.origin.items()}
    return _Layer(nested, origin)


def _shorten(setting: str) -> str:
    return setting if len(setting) <= _LONGEST_SETTING else f"{setting[: _LONGEST_SETTING - 3]}..."


def _parse(text: str, name: str, describe_line: Callable[[int], str], wrap: bool = False) -> _Layer:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        origin: dict[KeyPath, str] = {}
        if node is not None:
            _record_origins(node, ("value",) if wrap else (), describe_line, origin)
        values = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from None
    if wrap:
        return _Layer({"value": values}, origin)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{name} must hold sections such as 'data:', not a {type(values).__name__}."
        )
    return _Layer(values, origin)


def _record_origins(
    node: yaml.Node, path: KeyPath, describe_line: Callable[[int], str], origin: dict[KeyPath, str]
) -> None:
    """Record the file and line of each key.

    Raises:
        ConfigError: A mapping has a key twice.
    """
    origin.setdefault(path, describe_line(node.start_mark.line + 1))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = describe_line(key.start_mark.line + 1)
                raise ConfigError(f"{line}: the key {key.value!r} stands there twice.")
            seen.add(key.value)
            origin[(*path, key.value)] = describe_line(key.start_mark.line + 1)
            _record_origins(value, (*path, key.value), describe_line, origin)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _record_origins(value, (*path, index), describe_line, origin)


def _merge(base: Any, over: Any) -> Any:
    """Lay one configuration over another: mappings and items of lists merge, the rest replaces."""
    if isinstance(base, dict) and isinstance(over, dict):
        merged = dict(base)
        for key, value in over.items():
            merged[key] = _merge(base.get(key, [] if _is_item_override(value) else None), value)
        return merged
    if isinstance(base, list) and _is_item_override(over):
        merged_list = list(base)
        for index, value in over.items():
            if index >= len(merged_list):
                raise ConfigError(
                    f"--set names item {index} of a list that has {len(merged_list)} "
                    "(counting from 0)."
                )
            merged_list[index] = _merge(merged_list[index], value)
        return merged_list
    return over


def _is_item_override(value: Any) -> bool:
    """Whether an override names items of a list, as ``gates.0.min`` does."""
    return isinstance(value, dict) and bool(value) and all(isinstance(k, int) for k in value)


def _describe_errors(
    error: ValidationError,
    schema: type[BaseModel],
    values: Any,
    origin: Mapping[KeyPath, str],
) -> list[str]:
    """Return a line for each key that is wrong: where it stands, what is wrong, what is allowed."""
    lines: list[str] = []
    messages: dict[KeyPath, list[str]] = {}
    places: dict[KeyPath, str] = {}
    suffixes: dict[KeyPath, str] = {}
    for detail in error.errors():
        loc = detail["loc"]
        path = _key_path(values, loc, keep_last=detail["type"] == "missing")
        if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
            path = (*path, detail["ctx"]["discriminator"].strip("'"))
        if detail["type"] == "extra_forbidden":
            keys = suggest(str(path[-1]), _valid_keys(schema, loc[:-1]), "keys")
            lines.append(f"{_place(path, origin)}unknown key '{_dotted(path)}'. {keys}")
            continue
        problems = expand(detail)
        for problem in problems:
            messages.setdefault((*path, *problem.path), []).append(problem.message)
        if not problems:
            messages.setdefault(path, []).append(describe(detail))
            suffixes[path] = _describe_field(schema, detail)
        place = _place(path, origin)
        if is_secret(detail) and place.startswith("--set "):
            places[path] = place.partition("=")[0] + ": "
    lines += [
        f"{places.get(path) or _place(path, origin)}{_dotted(path)}: {join_messages(texts)}"
        + suffixes.get(path, "")
        for path, texts in messages.items()
    ]
    return list(dict.fromkeys(lines))


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path)) or "the configuration"


def _place(path: KeyPath, origin: Mapping[KeyPath, str]) -> str:
    """Return the file and line, or the option, that gave a key or what holds it, with a colon."""
    ends = range(len(path), -1, -1)
    return next((f"{origin[path[:n]]}: " for n in ends if path[:n] in origin), "")


def _key_path(values: Any, loc: tuple[str | int, ...], keep_last: bool) -> KeyPath:
    """Drop from pydantic's location what is not a key of the file (the tags of unions)."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        is_key = (
            part in values
            if isinstance(values, dict)
            else isinstance(values, list) and isinstance(part, int)
        )
        if is_key:
            values = values[part]
        elif not (keep_last and last):
            continue
        path.append(part)
    return tuple(path)


def _nested_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _nested_models(argument)]


def _models_at(schema: type[BaseModel], loc: tuple[str | int, ...]) -> list[type[BaseModel]]:
    models = [schema]
    for part in loc:
        inner = [
            nested
            for model in models
            for name, field in model.model_fields.items()
            if part == (field.alias or name)
            for nested in _nested_models(field.annotation)
        ]
        tagged = [m for m in models if _tag(m) == part]
        models = inner or tagged or models
    return models


def _tag(model: type[BaseModel]) -> Any:
    """Return the value of ``name`` by which a union of sections tells this one apart."""
    return model.model_fields["name"].default if "name" in model.model_fields else None


def _valid_keys(schema: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    return sorted(
        {
            f.alias or key
            for model in _models_at(schema, loc)
            for key, f in model.model_fields.items()
        }
    )


def _describe_field(schema: type[BaseModel], detail: ErrorDetails) -> str:
    """Return what the schema says of a value: its bounds or, if it is missing, its description."""
    loc = detail["loc"]
    if detail["type"] == "union_tag_not_found":
        return f": one of {', '.join(str(_tag(model)) for model in _models_at(schema, loc))}"
    for model in _models_at(schema, loc[:-1]) if loc else []:
        field = model.model_json_schema().get("properties", {}).get(str(loc[-1]), {})
        description = field.get("description")
        if detail["type"] in ("missing", "string_pattern_mismatch") and description:
            return f": {description}"
        for choice in (field, *field.get("anyOf", [])):
            if bounds := _describe_bounds(choice):
                return f"; allowed: {bounds}"
    return ""


def _describe_bounds(choice: Mapping[str, Any]) -> str:
    """Return the interval of a JSON schema's numbers, such as ``[1, 10000]``; empty for none."""
    low = choice.get("minimum", choice.get("exclusiveMinimum"))
    high = choice.get("maximum", choice.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    opening = "(" if "minimum" not in choice else "["
    closing = ")" if "maximum" not in choice else "]"
    low_text = "-inf" if low is None else f"{low:.10g}"
    high_text = "inf" if high is None else f"{high:.10g}"
    return f"{opening}{low_text}, {high_text}{closing}"
