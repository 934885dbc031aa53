"""OpenAPI description of the Open Inference Protocol v2 over REST."""

from collections.abc import Mapping
from typing import Any

from cv_factory.serving.bundle import Bundle
from cv_factory.serving.protocols.open_inference import IMAGE, LABEL, OpenInferenceModel
from cv_factory.serving.protocols.open_inference_rest import MODEL, PREFIX, VERSION

_TAG = "Open Inference Protocol"
_ANY_OBJECT: dict[str, Any] = {"type": "object"}
_ERROR = {
    "description": "an error, such as another model or version",
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}},
    },
}


def build_paths(bundle: Bundle, image: str, problems: Mapping[int, str]) -> dict[str, Any]:
    """Return the operations by path.

    Args:
        bundle: The bundle of the service.
        image: Example of an image, in base64.
        problems: Descriptions of the errors of a prediction, by status.
    """
    model = OpenInferenceModel(bundle)
    paths = {
        PREFIX: _get("Describe the server"),
        f"{PREFIX}/health/live": _get("Liveness"),
        f"{PREFIX}/health/ready": _get("Readiness: the golden samples are verified"),
    }
    parameters = [_parameter("model", model.name)]
    for path in (MODEL, VERSION):
        if path == VERSION:
            parameters = [*parameters, _parameter("version", model.version)]
        operations = {
            path: _get("Describe the model, its inputs and its outputs"),
            f"{path}/ready": _get("Readiness of the model"),
            f"{path}/infer": _infer(model, image, problems),
        }
        paths |= {name: {"parameters": parameters, **o} for name, o in operations.items()}
    return paths


def build_schemas() -> dict[str, Any]:
    """Return the schemas that the operations refer to, by name."""
    text, shape = {"type": "string"}, {"type": "array", "items": {"type": "integer"}}
    tensor = {"name": text, "parameters": _ANY_OBJECT}
    data = {**tensor, "datatype": text, "shape": shape, "data": {"type": "array"}}
    tensors = {
        "type": "array",
        "items": {"type": "object", "properties": data, "required": ["name", "datatype", "shape"]},
    }
    outputs = {
        "type": "array",
        "items": {"type": "object", "properties": tensor, "required": ["name"]},
    }
    request = {"id": text, "parameters": _ANY_OBJECT, "inputs": tensors, "outputs": outputs}
    answer = {
        "id": text,
        "model_name": text,
        "model_version": text,
        "parameters": _ANY_OBJECT,
        "outputs": tensors,
    }
    return {
        "InferenceRequest": {"type": "object", "properties": request, "required": ["inputs"]},
        "InferenceResponse": {
            "type": "object",
            "properties": answer,
            "required": ["model_name", "outputs"],
        },
        "InferenceError": {
            "type": "object",
            "properties": {"error": text},
            "required": ["error"],
        },
    }


def _infer(model: OpenInferenceModel, image: str, problems: Mapping[int, str]) -> dict[str, Any]:
    tensor = {"name": IMAGE, "datatype": "BYTES", "shape": [1], "data": [image]}
    content = {
        "application/json": {
            "schema": _reference("InferenceRequest"),
            "example": {"inputs": [tensor]},
        },
        # Binary tensors follow the JSON.
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }
    label = {"name": LABEL, "datatype": "BYTES", "shape": [1], "data": [model.class_names[0]]}
    answer = {"model_name": model.name, "model_version": model.version, "outputs": [label]}
    return {
        "post": {
            "tags": [_TAG],
            "summary": "Predict the images of a tensor",
            "requestBody": {"required": True, "content": content},
            "responses": {
                "200": _response("predictions", _reference("InferenceResponse"), example=answer),
                **{str(status): {**_ERROR, "description": t} for status, t in problems.items()},
                "default": _ERROR,
            },
        }
    }


def _get(summary: str) -> dict[str, Any]:
    responses = {"200": _response("success", _ANY_OBJECT), "default": _ERROR}
    return {"get": {"tags": [_TAG], "summary": summary, "responses": responses}}


def _response(description: str, schema: dict[str, Any], **example: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, **example}}
    return {"description": description, "content": content}


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _parameter(name: str, value: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": [value]},
    }
