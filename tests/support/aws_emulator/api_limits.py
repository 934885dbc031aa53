"""Checks requests against the limits that AWS publishes with its API: moto accepts nearly anything.

Lengths, ranges, patterns and enumerations come from botocore's service model, where they stand for
documentation: botocore itself checks none but the lower limits.
"""

import re
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

_SESSION = botocore.session.get_session()


def violations(service: str, shape_name: str, value: Any) -> list[str]:
    """Return what AWS would refuse in a request.

    Args:
        service: Such as ``sagemaker``.
        shape_name: The request's shape, such as ``CreateTrainingJobRequest``.
        value: The request. Members that it lacks are not missed, and ``{"Get": ...}``, by which a
            pipeline refers to a value of its execution, is taken for right.
    """
    shape = _SESSION.get_service_model(service).shape_for(shape_name)
    return list(_check(shape, value, shape_name))


def _check(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict) and set(value) in ({"Get"}, {"Std:Join"}):
        return
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for key, inner in value.items():
            if key in shape.members:
                yield from _check(shape.members[key], inner, f"{path}.{key}")
            else:
                yield f"{path}: there is no {key}"
    elif isinstance(shape, MapShape) and isinstance(value, dict):
        yield from _check_size(shape, len(value), path)
        for key, inner in value.items():
            yield from _check(shape.key, key, f"{path} key {key}")
            yield from _check(shape.value, inner, f"{path}.{key}")
    elif isinstance(shape, ListShape) and isinstance(value, list):
        yield from _check_size(shape, len(value), path)
        for index, inner in enumerate(value):
            yield from _check(shape.member, inner, f"{path}[{index}]")
    elif isinstance(shape, StringShape) and isinstance(value, str):
        yield from _check_size(shape, len(value), path)
        pattern = shape.metadata.get("pattern")
        if pattern and not _matches(pattern, value):
            yield f"{path}: {value!r} does not match {pattern}"
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is no {shape.name}"
    elif isinstance(value, int | float):
        yield from _check_size(shape, value, path)


def _check_size(shape: Shape, size: float, path: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if high is not None and size > high:
        yield f"{path}: {size} is more than {high}"
    if low is not None and size < low:
        yield f"{path}: {size} is less than {low}"


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value, re.DOTALL) is not None
    except re.error:  # patterns are Java's, and some are not Python's
        return True
