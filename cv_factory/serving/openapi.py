"""The OpenAPI description of a bundle's service, with examples that this very model can answer."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cv_factory.serving.bundle import Bundle

_PROBLEMS = {
    400: "the body is not well-formed",
    401: "no valid API key or token came with it",
    403: "the key or token has not the role",
    408: "the body came too slowly",
    413: "the body is too large, or holds too many images",
    415: "of another content type",
    422: "a field is missing or unknown, or an image cannot be used",
    429: "too many requests; Retry-After says when to come back",
    503: "too much waits already; Retry-After says when to come back",
}
#: Other image types are taken as well.
_BARE = ("image/png", "image/jpeg", "application/octet-stream")
_ONE_FILE = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}


def describe(bundle: Bundle, *, is_open: bool) -> dict[str, Any]:
    """Return the description (OpenAPI 3.1).

    Args:
        bundle: Whose service it is.
        is_open: Whether it answers without keys.
    """
    example = base64.b64encode(_png(bundle.predictor.golden.images[0])).decode()
    bare = {media_type: {"schema": _ONE_FILE} for media_type in _BARE}
    form = {"multipart/form-data": {"schema": _form_schema()}}
    json = {"application/json": {"schema": _json_schema(), "example": {"images": [example]}}}
    paths = {
        "/predict": _predicts("Predict an image, or the images of a form", bare | form, bundle),
        "/predict/batch": _predicts("Predict the images of a form or of JSON", form | json, bundle),
        "/invocations": _predicts("The same, as SageMaker calls it", bare | form | json, bundle),
        "/model-info": _page("What is served", "application/json"),
        "/model-card": _page("The model card", "text/html"),
        "/metrics": _page("Figures for Prometheus", "text/plain"),
        "/healthz": _page("Whether the process is alive", "text/plain"),
        "/readyz": _page("Whether the golden samples are answered as they should", "text/plain"),
        "/ping": _page("The same as /healthz, as SageMaker asks it", "text/plain"),
    }
    schemes = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{bundle.model_name} predictor", "version": bundle.version},
        "paths": paths,
        "components": {
            "schemas": {"Problem": _problem_schema(), "Predictions": _predictions_schema()},
            "securitySchemes": schemes,
        },
        "security": [] if is_open else [{"key": []}, {"bearer": []}],
    }


def _predicts(summary: str, content: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    refused = {
        str(status): {"description": text, "content": problem} for status, text in _PROBLEMS.items()
    }
    answer = {
        "schema": {"$ref": "#/components/schemas/Predictions"},
        "example": _example_answer(bundle),
    }
    answered = {"description": "answered", "content": {"application/json": answer}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": {"200": answered, **refused},
        }
    }


def _page(summary: str, media_type: str) -> dict[str, Any]:
    responses = {
        "200": {"description": "it", "content": {media_type: {}}},
        "401": {"description": _PROBLEMS[401]},
        "403": {"description": _PROBLEMS[403]},
        "404": {"description": "there is none"},
        "503": {"description": "not ready"},
    }
    return {"get": {"summary": summary, "responses": responses}}


def _form_schema() -> dict[str, Any]:
    files = {"type": "array", "items": _ONE_FILE, "minItems": 1}
    return _object({"images": files}, ["images"])


def _json_schema() -> dict[str, Any]:
    images = {"type": "array", "items": _BASE64, "minItems": 1}
    return _object({"images": images}, ["images"])


def _problem_schema() -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in ("type", "title", "detail")}
    return _object({**properties, "status": {"type": "integer"}}, [*properties, "status"])


def _predictions_schema() -> dict[str, Any]:
    prediction = {
        "id": {"type": "string", "format": "uuid"},
        "label": {"type": ["string", "null"], "description": "null where the service abstains"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    properties = {
        "predictions": {"type": "array", "items": _object(prediction, list(prediction))},
        "model": {"type": "string"},
        "version": {"type": "string"},
        "milliseconds": {"type": "number"},
    }
    always = list(properties)
    cached = {"type": "boolean", "description": "remembered from an earlier request"}
    return _object({**properties, "cached": cached}, always)


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _example_answer(bundle: Bundle) -> dict[str, Any]:
    names = bundle.predictor.contract.class_names
    scores = bundle.predictor.golden.probabilities[0]
    best = int(scores.argmax())
    prediction = {
        "id": "8c5f9a3e-0d6b-4d0c-9a6e-2f1f6f0f5a11",
        "label": names[best],
        "probabilities": {names[best]: round(float(scores[best]), 6)},
    }
    return {
        "predictions": [prediction],
        "model": bundle.model_name,
        "version": bundle.version,
        "milliseconds": 2.5,
    }


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    grey = pixels.shape[2] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(buffer, "PNG")
    return buffer.getvalue()
