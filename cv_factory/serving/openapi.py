"""OpenAPI 3.1 description of a bundle's service, with examples that its model can predict."""

import base64
from typing import Any

from cv_factory.data.encode import encode_png
from cv_factory.inference.predictor import ImageScores
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.feedback import FEEDBACK_PATH
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.postprocessors import PostprocessedPrediction
from cv_factory.serving.protocols import open_inference_openapi

_PROBLEMS = {
    400: "the body is malformed",
    401: "no valid API key or token",
    403: "the key or token lacks the role",
    408: "the body arrived too slowly",
    413: "the body is too large, or has too many images",
    415: "unsupported content type or coding",
    422: "a field is missing or unknown, or an image cannot be used",
    429: "rate limit exceeded; retry after the seconds in Retry-After",
    503: "the queue is full, or the token's issuer cannot be reached; retry after the seconds in "
    "Retry-After",
}
#: Other image types are accepted as well.
_RAW_TYPES = ("image/png", "image/jpeg", "application/octet-stream")
_EXAMPLE_ID = "8c5f9a3e-0d6b-4d0c-9a6e-2f1f6f0f5a11"
_FILE_SCHEMA = {"type": "string", "format": "binary"}
_BASE64_SCHEMA = {"type": "string", "contentEncoding": "base64"}


def build_openapi(bundle: Bundle, *, is_open: bool) -> dict[str, Any]:
    """Return the description.

    Args:
        bundle: The bundle of the service.
        is_open: Whether the service has no access control.
    """
    example = base64.b64encode(encode_png(bundle.predictor.golden.images[0])).decode()
    raw = {media_type: {"schema": _FILE_SCHEMA} for media_type in _RAW_TYPES}
    form = {"multipart/form-data": {"schema": _images_schema(_FILE_SCHEMA)}}
    json = {
        "application/json": {
            "schema": _images_schema(_BASE64_SCHEMA),
            "example": {"images": [example]},
        }
    }
    predict = "Predict one image, or the images of a form"
    batch = "Predict the images of a form or of JSON"
    invocations = "Predict images, as SageMaker calls it"
    paths = {
        "/predict": _prediction_operation(predict, raw | form, bundle),
        "/predict/batch": _prediction_operation(batch, form | json, bundle),
        "/invocations": _prediction_operation(invocations, raw | form | json, bundle),
        FEEDBACK_PATH: _feedback_operation(bundle),
        "/model-info": _get_operation("model", "Describe the served model", "application/json"),
        "/model-card": _get_operation("model", "Model card", "text/html"),
        "/samples": _get_operation("model", "Images to try, as PNG in base64", "application/json"),
        "/metrics": _get_operation("service", "Prometheus metrics", "text/plain"),
        "/healthz": _get_operation("service", "Liveness", "text/plain"),
        "/readyz": _get_operation(
            "service", "Readiness: the golden samples are verified", "text/plain"
        ),
        "/ping": _get_operation("service", "Liveness, as SageMaker polls it", "text/plain"),
        **open_inference_openapi.build_paths(bundle, example, _PROBLEMS),
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
            "schemas": {
                "Problem": _problem_schema(),
                "Predictions": _predictions_schema(bundle),
                "Feedback": _feedback_schema(bundle.serving.limits.max_labels),
                **open_inference_openapi.build_schemas(),
            },
            "securitySchemes": schemes,
        },
        "security": [] if is_open else [{"key": []}, {"bearer": []}],
    }


def _feedback_operation(bundle: Bundle) -> dict[str, Any]:
    label = bundle.predictor.contract.class_names[0]
    example = {"labels": [{"prediction_id": _EXAMPLE_ID, "label": label, "source": "person:ann"}]}
    body = {"schema": {"$ref": "#/components/schemas/Feedback"}, "example": example}
    stored = _object_schema({"accepted": {"type": "integer"}}, ["accepted"])
    success = {"description": "stored", "content": {"application/json": {"schema": stored}}}
    return {
        "post": {
            "tags": ["predictions"],
            "summary": "Give the true classes of images that were predicted before",
            "requestBody": {"required": True, "content": {"application/json": body}},
            "responses": {"200": success, **_problem_responses()},
        }
    }


def _feedback_schema(max_labels: int) -> dict[str, Any]:
    text: dict[str, Any] = {
        "label": "name of the class",
        "prediction_id": "of the answer; this or image_hmac",
        "image_hmac": "of the image in the prediction log",
        "source": "person:NAME, system:NAME or model:NAME/VERSION; system:KEY if not given",
        "is_blind": "true if whoever labelled did not see the prediction",
    }
    properties = {
        name: {"type": "boolean" if name == "is_blind" else "string", "description": description}
        for name, description in text.items()
    }
    labels = {
        "type": "array",
        "items": _object_schema(properties, ["label"]),
        "minItems": 1,
        "maxItems": max_labels,
    }
    return _object_schema({"labels": labels}, ["labels"])


def _problem_responses() -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        str(status): {"description": text, "content": problem} for status, text in _PROBLEMS.items()
    }


def _prediction_operation(summary: str, content: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
    predictions = {
        "schema": {"$ref": "#/components/schemas/Predictions"},
        "example": _example_predictions(bundle),
    }
    success = {"description": "predictions", "content": {"application/json": predictions}}
    return {
        "post": {
            "tags": ["predictions"],
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": {"200": success, **_problem_responses()},
        }
    }


def _get_operation(tag: str, summary: str, media_type: str) -> dict[str, Any]:
    responses = {
        "200": {"description": "success", "content": {media_type: {}}},
        "401": {"description": _PROBLEMS[401]},
        "403": {"description": _PROBLEMS[403]},
        "404": {"description": "not available"},
        "503": {"description": "not ready"},
    }
    return {"get": {"tags": [tag], "summary": summary, "responses": responses}}


def _images_schema(item: dict[str, Any]) -> dict[str, Any]:
    images = {"type": "array", "items": item, "minItems": 1}
    return _object_schema({"images": images}, ["images"])


def _problem_schema() -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in ("type", "title", "detail")}
    return _object_schema({**properties, "status": {"type": "integer"}}, [*properties, "status"])


def _predictions_schema(bundle: Bundle) -> dict[str, Any]:
    prediction: dict[str, Any] = {
        "id": {"type": "string", "format": "uuid"},
        "label": {"type": ["string", "null"], "description": "null if the service abstains"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    if bundle.predictor.contract.familiarity is not None:
        unfamiliar = "true if the image is unlike everything the model was trained on"
        prediction["unfamiliar"] = {"type": "boolean", "description": unfamiliar}
        score = "score of that; above 1 it is"
        prediction["unfamiliarity"] = {"type": "number", "minimum": 0, "description": score}
    properties = {
        "predictions": {"type": "array", "items": _object_schema(prediction, list(prediction))},
        "model": {"type": "string"},
        "version": {"type": "string"},
        "milliseconds": {"type": "number"},
    }
    cached = {"type": "boolean", "description": "true if taken from the response cache"}
    return _object_schema({**properties, "cached": cached}, list(properties))


def _object_schema(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _example_predictions(bundle: Bundle) -> dict[str, Any]:
    names = bundle.predictor.contract.class_names
    golden = bundle.predictor.golden
    probabilities = golden.probabilities[0]
    best = int(probabilities.argmax())
    score = None if golden.unfamiliarity is None else float(golden.unfamiliarity[0])
    ranked = {names[best]: round(float(probabilities[best]), 6)}
    prediction = ScoredImage(
        _EXAMPLE_ID,
        PostprocessedPrediction(names[best], ranked),
        ImageScores(probabilities, golden.features[0], score),
    ).to_dict()
    return {
        "predictions": [prediction],
        "model": bundle.model_name,
        "version": bundle.version,
        "milliseconds": 2.5,
    }
