"""Lines and files of prediction logs, as services write them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

#: Time of line 0; each line is a second later.
START = datetime(2026, 11, 29, 6, tzinfo=UTC)
CLASSES = ("a", "b", "c")


def old_line(number: int, **fields: Any) -> bytes:
    """Return a line of schema version 1."""
    line = {
        "id": f"id-{number}",
        "time": (START + timedelta(seconds=number)).isoformat(timespec="milliseconds"),
        "model": "digits",
        "version": "1",
        "arm": None,
        "label": "b",
        "probabilities": {"b": 0.7, "a": 0.2, "c": 0.1},
        "unfamiliar": None,
        "unfamiliarity": None,
        "features": [float(number), 0.5],
        "key": "anyone",
        "request_id": "request",
    }
    return json.dumps(line | fields).encode() + b"\n"


def log_line(number: int, **fields: Any) -> bytes:
    """Return a line of schema version 2."""
    facts = {
        "schema": 2,
        "cached": False,
        "width": 16,
        "height": 8,
        "brightness": 0.5,
        "contrast": 0.25,
        "sharpness": 0.125,
        "image_hmac": f"{number:064x}",
        "sampling_probability": 1.0,
    }
    return old_line(number, **(facts | fields))


def event_line(number: int, event: str, n: int = 1) -> bytes:
    """Return a line that is no prediction."""
    line = {
        "schema": 2,
        "id": f"event-{number}",
        "time": (START + timedelta(seconds=number)).isoformat(timespec="milliseconds"),
        "model": "digits",
        "version": "1",
        "event": event,
        "n": n,
    }
    return json.dumps(line).encode() + b"\n"


def write_log(folder: Path, content: bytes, number: int = 0, process: int = 1) -> Path:
    """Write a file of a process."""
    folder.mkdir(exist_ok=True)
    file = folder / f"predictions-20261129T06{number:04d}.000000Z-{process}.jsonl"
    file.write_bytes(content)
    return file
