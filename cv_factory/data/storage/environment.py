"""Puts environment variables into settings that must not hold secrets themselves.

Not written ``${NAME}``: ZenML would replace that by the secret and could store it with the run.
"""

import os
import re

from cv_factory.errors import ConfigError

_VARIABLE = re.compile(r"\{env:(\w+)\}")


def expand(text: str, setting: str) -> str:
    """Replace each ``{env:NAME}`` by the environment variable NAME.

    Args:
        text: What stands in the configuration.
        setting: Dotted name of the setting, for the error.

    Raises:
        ConfigError: A variable is not set; the message names it.
    """

    def look_up(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise ConfigError(
                f"{setting} needs the environment variable {match[1]}, which is not set."
            )
        return value

    return _VARIABLE.sub(look_up, text)


def hide_variables(text: str, setting: str) -> str:
    """Replace what the variables of a setting hold by ``{env:NAME}`` again."""
    for name in _VARIABLE.findall(setting):
        if value := os.environ.get(name):
            text = text.replace(value, f"{{env:{name}}}")
    return text
