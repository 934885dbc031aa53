"""Keeps secrets out of settings, which are stored with every run.

A setting names an environment variable instead: ``{env:NAME}``, which is read where it is needed.
"""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_WORDS = frozenset(
    {
        *("accesskey", "apikey", "auth", "authorization", "cookie", "credential", "credentials"),
        *("key", "pass", "passphrase", "passwd", "password", "pwd", "sas", "secret", "sig"),
        *("signature", "token"),
    }
)
_SECRET_PART = re.compile(r"password|secret|connection_?string", re.IGNORECASE)
_PARAMETER = re.compile(r"([?&])([^=&#]+)=([^&#]*)")
_VARIABLE = re.compile(r"\{env:\w+\}")
# A user's password, or over HTTP the token that stands in a user's place.
_PASSWORD = re.compile(
    r"^https?://[^/@?#]*[^/@?#:]@|^(?!https?:)[\w+.-]+://[^/@:]*:[^@]+@", re.IGNORECASE
)
#: Values of gcsfs's token that are no secrets; files of credentials are none either.
_PUBLIC_VALUES = frozenset({"anon", "browser", "cache", "cloud", "google_default"})


class SecretSettingError(ValueError):
    """A setting holds a secret; neither the message nor what is shown beside it repeats that."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} would be stored with every run: write {{env:NAME}} and set the variable NAME"
        )


def is_secret_name(name: str) -> bool:
    """Whether a header, query parameter or option of this name holds a secret, as a rule."""
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(words & _SECRET_WORDS or _SECRET_PART.search(name))


def mask_secrets(url: str) -> str:
    """Replace the values of a URL's query parameters that hold secrets by ``***``."""
    if "?" not in url:
        return url
    return _PARAMETER.sub(lambda m: f"{m[1]}{m[2]}=***" if is_secret_name(m[2]) else m[0], url)


def check_url(url: str) -> str:
    """Return a URL or path that holds no secret.

    Raises:
        SecretSettingError: It has a password, or a query parameter that is one.
        ValueError: It is no URL.
    """
    if "://" not in url:
        return url
    urlsplit(url)
    if _PASSWORD.match(_VARIABLE.sub("", url)):
        raise SecretSettingError("the password")
    for _, name, value in _PARAMETER.findall(url):
        if value and is_secret_name(name) and "{env:" not in value:
            raise SecretSettingError(f"the value of {name!r}")
    return url


def check_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return HTTP headers that hold no secret.

    Raises:
        SecretSettingError: One does.
    """
    for name, value in headers.items():
        if is_secret_name(name) and "{env:" not in value:
            raise SecretSettingError(name)
    return headers


def check_storage_options(
    options: dict[str, str | int | bool],
) -> dict[str, str | int | bool]:
    """Return options of a file system that hold no secret.

    Raises:
        SecretSettingError: One does.
    """
    for name, value in options.items():
        if not isinstance(value, str):
            continue
        check_url(value)
        public = value in _PUBLIC_VALUES or value.endswith(".json") or "{env:" in value
        if is_secret_name(name) and not public:
            raise SecretSettingError(name)
    return options


#: A path or URL without a secret.
Location = Annotated[str, AfterValidator(check_url)]
#: Options of an fsspec file system without a secret.
StorageOptions = Annotated[dict[str, str | int | bool], AfterValidator(check_storage_options)]
