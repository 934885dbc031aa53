"""Parses the encoded images of a request: a raw body, a form, or JSON. It fetches no URLs."""

import asyncio
import base64
import gzip
import io
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import ClientDisconnect, HTTPConnection, Request

from cv_factory.config.serving import LimitsConfig
from cv_factory.serving.auth.access import read_credential
from cv_factory.serving.prediction_service import Caller
from cv_factory.serving.problem_details import ProblemError

#: Names of the fields that hold images, in forms and in JSON.
FIELDS = ("image", "images")
RAW_IMAGE, FORM, JSON = "image/*", "multipart/form-data", "application/json"
_DATA_URL = re.compile(r"^data:[^,]*;base64,", re.IGNORECASE)
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def read_caller(request: HTTPConnection) -> Caller:
    """Return the sender of an HTTP request or of a WebSocket handshake."""
    client = request.client
    return Caller(client.host if client else None, read_credential(request.headers))


async def parse_images(
    request: Request, limits: LimitsConfig, content_types: Sequence[str]
) -> list[bytes]:
    """Return the encoded images of a request, at least one.

    Args:
        request: The request; its body is read.
        limits: Bounds of the body, its duration and the number of images.
        content_types: Accepted ones of ``RAW_IMAGE``, ``FORM`` and ``JSON``.

    Raises:
        ProblemError: The request exceeds a limit, is malformed, or has another content type.
    """
    content_type, boundary = _parse_content_type(request.headers.get("content-type", ""))
    if content_type not in content_types:
        raise ProblemError(
            415, "content-type", f"the content type must be {' or '.join(content_types)}"
        )
    body = await read_body(request, limits)
    if content_type == FORM:
        images = _parse_form(body, boundary, limits)
    elif content_type == JSON:
        images = _parse_json(body)
    else:
        images = [body]
    if not images:
        raise ProblemError(
            422, "missing-field", f"no image: send one in the field {' or '.join(FIELDS)}"
        )
    check_image_count(len(images), limits.max_images)
    return images


def check_image_count(n: int, maximum: int) -> None:
    """Refuse more images than a request may have.

    Raises:
        ProblemError: 413.
    """
    if n > maximum:
        detail = f"the request has {n} images; at most {maximum} are allowed"
        raise ProblemError(413, "too-many-images", detail)


async def read_body(request: Request, limits: LimitsConfig) -> bytes:
    """Read the body, and decompress it, within the limits.

    Raises:
        ProblemError: It is too large, too slow, incomplete, or compressed in an unsupported way.
    """
    coding = _parse_coding(request.headers.get("content-encoding", ""))
    body = await _read_raw_body(request, limits)
    return body if coding is None else await asyncio.to_thread(_decompress, body, coding, limits)


async def _read_raw_body(request: Request, limits: LimitsConfig) -> bytes:
    """Read the body as it was sent.

    Raises:
        ProblemError: It is too large, too slow, or incomplete.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.max_body_bytes:
        raise _body_too_large(limits)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_body_bytes:
                    raise _body_too_large(limits)
                chunks.append(chunk)
    except TimeoutError:
        raise ProblemError(
            408, "too-slow", f"the body did not arrive within {limits.body_seconds:g} s",
            {"Connection": "close"},
        ) from None  # fmt: skip
    except ClientDisconnect:
        raise ProblemError(400, "incomplete", "the connection ended within the body") from None
    return b"".join(chunks)


def _parse_coding(content_encoding: str) -> str | None:
    """Return the coding of a compressed body, None for one that is not compressed.

    Raises:
        ProblemError: 415: it is none of ``_DECOMPRESSORS``.
    """
    coding = content_encoding.strip().lower().removeprefix("x-")
    if coding in ("", "identity"):
        return None
    if coding in _DECOMPRESSORS:
        return coding
    raise ProblemError(
        415, "content-encoding",
        f"Content-Encoding {content_encoding[:80]!r} is not supported: send the body with gzip or "
        "deflate, or uncompressed without this header",
        {"Accept-Encoding": "gzip, deflate, identity"},
    )  # fmt: skip


def _read_gzip(body: bytes, size: int) -> bytes:
    """Return up to ``size`` bytes of the content of a gzip file."""
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        return file.read(size)


def _read_deflate(body: bytes, size: int) -> bytes:
    """Return up to ``size`` bytes of the content of a zlib stream (RFC 9110, 8.4.1.2)."""
    decompressor = zlib.decompressobj()
    content = decompressor.decompress(body, size)
    if not decompressor.eof and len(content) < size:
        raise EOFError("it is cut off")
    return content


_DECOMPRESSORS = {"gzip": _read_gzip, "deflate": _read_deflate}


def _decompress(body: bytes, coding: str, limits: LimitsConfig) -> bytes:
    try:
        content = _DECOMPRESSORS[coding](body, limits.max_body_bytes + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ProblemError(400, "content-encoding", f"the body is not {coding}: {error}") from None
    if len(content) > limits.max_body_bytes:
        raise _body_too_large(limits)
    return content


def _body_too_large(limits: LimitsConfig) -> ProblemError:
    return ProblemError(
        413, "body-too-large", f"the body is larger than {limits.max_body_bytes} bytes",
        {"Connection": "close"},
    )  # fmt: skip


def _parse_content_type(header: str) -> tuple[str, bytes]:
    """Return the content type, ``RAW_IMAGE`` for any image, and the boundary of a form."""
    if not header or header.startswith("image/") or header == "application/octet-stream":
        return RAW_IMAGE, b""
    name, parameters = parse_options_header(header)
    if name.startswith(b"image/") or name == b"application/octet-stream":
        return RAW_IMAGE, b""
    return name.decode("latin-1").lower(), parameters.get(b"boundary", b"")


def _parse_form(body: bytes, boundary: bytes, limits: LimitsConfig) -> list[bytes]:
    if not boundary:
        raise ProblemError(400, "form", "the content type has no boundary")
    if not body.rstrip(b"\r\n").endswith(b"--" + boundary + b"--"):
        raise ProblemError(400, "form", "the form is cut off: it does not end with its boundary")
    images: list[bytes] = []

    def on_file(file: File) -> None:
        _check_field(file.field_name)
        file.file_object.seek(0)
        images.append(file.file_object.read())

    # Kept in memory: a container may have no writable disk.
    in_memory = {"MAX_MEMORY_FILE_SIZE": limits.max_body_bytes + 1}
    try:
        parser = FormParser(FORM, _reject_text_field, on_file, boundary=boundary, config=in_memory)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ProblemError(400, "form", f"the form is malformed: {error}") from None
    return images


def _check_field(name: bytes | None) -> None:
    text = (name or b"").decode(errors="replace")
    if text not in FIELDS:
        raise _unknown_field(text)


def _reject_text_field(field: Field) -> None:
    _check_field(field.field_name)
    raise ProblemError(422, "not-a-file", "an image must be a file of the form, not text")


def _unknown_field(name: str) -> ProblemError:
    return ProblemError(
        422, "unknown-field", f"unknown field {name[:80]!r}: send images in {' or '.join(FIELDS)}"
    )


def _parse_json(body: bytes) -> list[bytes]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, "json", f"the body is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ProblemError(422, "json", 'the body must be an object such as {"images": [...]}')
    if unknown := [name for name in content if name not in FIELDS]:
        raise _unknown_field(unknown[0])
    encoded: list[Any] = []
    for value in content.values():
        encoded += value if isinstance(value, list) else [value]
    return [decode_base64(value, position) for position, value in enumerate(encoded)]


def decode_base64(value: Any, position: int) -> bytes:
    """Decode the base64 text of an image.

    Raises:
        ProblemError: 422: it is none; the detail names the image's position.
    """
    if not isinstance(value, str):
        raise ProblemError(422, "json", f"image {position} must be base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return _decode_base64_variant(value, position)


def _decode_base64_variant(value: str, position: int) -> bytes:
    """Decode a data URL, base64 in lines, without padding, or of the URL-safe alphabet.

    Raises:
        ProblemError: 422: it is none of these.
    """
    text = _DATA_URL.sub("", "".join(value.split()), count=1)
    text = text.translate(_STANDARD_ALPHABET).rstrip("=")
    reason = None
    if value.startswith(("http://", "https://")):
        reason = "it is a URL, and the service fetches none; send the bytes of the image"
    elif character := _NOT_BASE64.search(text):
        reason = f"it has the character {character.group()!r}"
    elif len(text) % 4 == 1:
        reason = f"it is cut off after {len(text)} characters"
    if reason is not None:
        raise ProblemError(422, "base64", f"image {position} is not base64: {reason}")
    return base64.b64decode(text + "=" * (-len(text) % 4))
