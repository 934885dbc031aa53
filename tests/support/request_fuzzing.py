"""Damaged requests from a seed: mutated images in every wrapping, forms, JSON and headers."""

import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.fuzzing import mutated

_TYPES = (
    "image/png", "application/octet-stream", "application/json", "multipart/form-data; boundary=b",
    "multipart/form-data", "text/plain", "", "multipart/form-data; boundary=\"b", "image/",
    "application/json; charset=utf-7", ";;;=", "multipart/form-data; boundary=" + "b" * 300,
)  # fmt: skip
_PATHS = ("/predict", "/predict/batch", "/invocations")
_JSON = (
    '{"images": "%s"}', '{"images": ["%s"]}', '{"image": "%s"}', '["%s"]', '"%s"',
    '{"images": [["%s"]]}', '{"images": {"a": "%s"}}', '{"images": ["%s", null, 1e999, NaN]}',
    '{"images": ["%s"], "images": []}', '{"url": "%s"}',
)  # fmt: skip


@dataclass(frozen=True)
class FuzzedRequest:
    """One POST."""

    path: str
    content_type: str
    body: bytes


def fuzzed_requests(seed: int, n: int) -> Iterator[FuzzedRequest]:
    """Yield ``n`` requests, most of them damaged somewhere."""
    rng = random.Random(seed)
    for content in mutated(seed, n):
        wrap = rng.choice((_bare, _form, _json))
        content_type, body = wrap(content, rng)
        if rng.random() < 0.15:
            content_type = rng.choice(_TYPES)
        if rng.random() < 0.2 and body:
            body = damage(body, rng)
        yield FuzzedRequest(rng.choice(_PATHS), content_type, body)


def _bare(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    return rng.choice(("image/png", "application/octet-stream")), content


def _form(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    name = rng.choice(("images", "image", "file", "", "i\u00e9"))
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
    parts = [head.encode() + content + b"\r\n"] * rng.randrange(0, 4)
    return "multipart/form-data; boundary=b", b"".join(parts) + b"--b--\r\n"


def _json(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    text = base64.b64encode(content).decode()
    if rng.random() < 0.3:
        text = json.dumps(content.decode("latin-1"))[1:-1]
    return "application/json", (rng.choice(_JSON) % text).encode()


def damage(body: bytes, rng: random.Random) -> bytes:
    """Return a body with a changed bit, or with some bytes less or more."""
    damaged = bytearray(body)
    at = rng.randrange(len(damaged))
    kind = rng.randrange(3)
    if kind == 0:
        damaged[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del damaged[at : at + rng.randrange(1, 40)]
    else:
        damaged[at:at] = rng.randbytes(rng.randrange(1, 40))
    return bytes(damaged)
