"""Problems of a configuration in its reader's words.

No step depends on this module: a word that is changed here makes none stale.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cv_factory.config.secrets import SecretSettingError
from cv_factory.config.section import CONTRADICTION, Problem
from cv_factory.config.suggestion import suggest

_SECTION = "must hold settings of its own, one 'key: value' each"
#: Message by pydantic's type of error; fields in braces are those of its context.
_MESSAGES = {
    "missing": "must be given",
    "union_tag_not_found": "must be given",
    "extra_forbidden": "there is no such setting",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "list_type": "must be a list{example}",
    "dict_type": _SECTION,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have {min_length} items or more, not {actual_length}",
    "too_long": "must have {max_length} items or fewer, not {actual_length}",
    "string_pattern_mismatch": "must match {pattern}",
}
#: Stands for a value that is not to be shown.
_HIDDEN = object()
#: Beginning of every message about the type of a value; several of one key become one.
_TYPE = "must be "


def expand(detail: ErrorDetails) -> list[Problem]:
    """Return the problems that ``refuse`` was called with; empty for any other error."""
    problems: list[Problem] = detail.get("ctx", {}).get("problems", [])
    return problems if detail["type"] == CONTRADICTION else []


def describe_error(error: ValidationError, *, show_values: bool = True) -> str:
    """Return all problems of settings that come from no configuration file, in one line."""
    texts: list[str] = []
    for detail in error.errors(include_input=show_values):
        key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
        texts += [f"{key}.{p}" if key else str(p) for p in expand(detail)] or [
            f"{key}: {describe(detail)}" if key else describe(detail)
        ]
    return "; ".join(dict.fromkeys(texts))


def describe(detail: ErrorDetails) -> str:
    """Return what is wrong with one value, with the nearest valid one where there are a few.

    The value itself is not shown where ``detail`` comes without it.
    """
    kind, context = detail["type"], detail.get("ctx", {})
    value = cast(dict[str, Any], detail).get("input", _HIDDEN)
    if kind == "literal_error":
        return describe_choice(value, re.findall(r"'([^']*)'|(\d+)", context["expected"]))
    if kind == "union_tag_invalid":
        return describe_choice(context["tag"], re.findall(r"'([^']*)'", context["expected_tags"]))
    if value is None and _MESSAGES.get(kind) == _SECTION:
        return "must not be empty: remove the key for the defaults"
    if kind in _MESSAGES:
        example = f", such as [{value}]" if isinstance(value, str) else ""
        return _fill(_MESSAGES[kind], {"example": example, **context}) + _describe_value(value)
    message = detail["msg"].removeprefix("Value error, ")
    if message.startswith("Input should be"):
        message = message.replace("Input should be", "must be", 1)
    message = message[:1].lower() + message[1:]
    # What ends in a period names the value itself.
    is_complete = message.endswith(".") or is_secret(detail)
    return message if is_complete else message + _describe_value(value)


def is_secret(detail: ErrorDetails) -> bool:
    """Whether an error is about a secret, which no message may show."""
    return isinstance(detail.get("ctx", {}).get("error"), SecretSettingError)


def describe_choice(value: Any, choices: Iterable[str | tuple[str, ...]]) -> str:
    """Return that a value is none of a few, and which one was probably meant."""
    names = ["".join(choice) for choice in choices]
    if value is _HIDDEN:
        return f"must be one of {', '.join(names)}"
    return f"{value!r} is not allowed. {suggest(str(value), names, 'values')}"


def join_messages(messages: Iterable[str]) -> str:
    """Join what a union of types says of one value: it needs to be one of them only."""
    first, *others = dict.fromkeys(messages)
    if not all(message.startswith(_TYPE) for message in (first, *others)):
        return "; ".join([first, *others])
    # The value is the same in all, and a whole number is a number.
    value = re.search(r" \(got .*\)$", first)
    suffix = value[0] if value else ""
    types = [message.removeprefix(_TYPE).removesuffix(suffix) for message in (first, *others)]
    if "a number" in types and "a whole number" in types:
        types.remove("a whole number")
    return _TYPE + " or ".join(types) + suffix


def _fill(message: str, context: Mapping[str, Any]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: _format(context[match[1]]), message)


def _format(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe_value(value: Any) -> str:
    return f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
