"""Redaction of secrets from texts that leave this machine, such as the message of an error."""

import os
import re
from collections.abc import Iterable, Mapping

from cv_factory.config.secrets import is_secret_name, mask_secrets

MASK = "***"
#: Shorter values would mask what is no secret, such as ``1``.
_MIN_LENGTH = 6
_PATTERNS = (
    # The user of a URL, and what stands for one.
    (re.compile(r"(\w[\w+.-]*://)[^/\s@]+@"), rf"\1{MASK}@"),
    (re.compile(r"\b(bearer|basic|token)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    # Keys that say what they are: ours, of AWS, Slack and GitHub, and JSON Web Tokens.
    (re.compile(r"\b(cvf_|(?:AKIA|ASIA)|xox[a-z]-|gh[a-z]_|eyJ)[\w.-]{8,}"), MASK),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|\Z)", re.S), MASK),
)
_ASSIGNMENT = re.compile(
    r"([\w.-]+)([\"']?\s*[=:]\s*[\"']?)((?:(?:bearer|basic|token)\s+)?[^\s\"',;&}{]{3,})",
    re.IGNORECASE,
)


def redact(text: str, secrets: Iterable[str] = (), env: Mapping[str, str] | None = None) -> str:
    """Return a text with ``***`` in place of what is a secret.

    That is: given values, values of environment variables whose names are those of secrets
    (``..._PASSWORD``), passwords in URLs, ``name=value`` of such a name, and known forms of keys.

    Args:
        text: Any text.
        secrets: Values to mask.
        env: Environment; None for that of this process.
    """
    # Names first: the value of a variable may be a word such as ``password``.
    text = _ASSIGNMENT.sub(_mask_value, mask_secrets(text))
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    variables = os.environ if env is None else env
    values = {value for name, value in variables.items() if is_secret_name(name)}
    # The longest first: one may be a part of another.
    for value in sorted(values.union(secrets), key=len, reverse=True):
        if len(value) >= _MIN_LENGTH:
            text = text.replace(value, MASK)
    return text


def _mask_value(match: re.Match[str]) -> str:
    name, sign, _ = match.groups()
    is_secret = is_secret_name(name) and not name.endswith("Error")  # such as a KeyError
    return f"{name}{sign}{MASK}" if is_secret else match[0]
