"""Compact JSON of answers and log lines, by orjson: a tenth of the standard library's time."""

import json
from typing import Any

import orjson


def encode_json(value: Any) -> bytes:
    """Return a value as compact JSON in UTF-8."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # orjson refuses lone surrogates, such as those of a class whose folder is no UTF-8.
        return json.dumps(value, separators=(",", ":")).encode()
