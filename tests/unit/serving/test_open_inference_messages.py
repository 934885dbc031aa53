"""Messages of the Open Inference Protocol: each field as in those of Triton's client."""

from typing import Any

import pytest
from google.protobuf import descriptor_pool as default
from tritonclient.grpc import service_pb2

from cv_factory.serving.protocols.open_inference_messages import (
    SERVICE,
    descriptor_pool,
    message_class,
    methods,
    parse_proto,
)


def describe_fields(message: Any) -> dict[str, Any]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in message.fields
    }


def nested_messages(message: Any) -> list[Any]:
    return [message, *(inner for m in message.nested_types for inner in nested_messages(m))]


def test_every_message_and_method_is_as_tritons() -> None:
    ours = descriptor_pool().FindFileContainingSymbol(SERVICE)
    theirs = service_pb2.DESCRIPTOR.pool
    messages = [m for top in ours.message_types_by_name.values() for m in nested_messages(top)]
    assert len(messages) == 24
    for message in messages:
        expected = theirs.FindMessageTypeByName(message.full_name)
        assert describe_fields(message) == describe_fields(expected), message.full_name
    for method in methods():
        expected = theirs.FindMethodByName(method.full_name)
        for name in ("client_streaming", "server_streaming"):
            assert getattr(method, name) == getattr(expected, name)
        assert method.input_type.full_name == expected.input_type.full_name
        assert method.output_type.full_name == expected.output_type.full_name


def test_messages_are_not_in_the_default_pool() -> None:
    request = message_class("ModelInferRequest")(id="1")
    request.parameters["threshold"].double_param = 0.5
    assert request.DESCRIPTOR.file.pool is not default.Default()
    theirs = service_pb2.ModelInferRequest.FromString(request.SerializeToString())
    assert (theirs.id, theirs.parameters["threshold"].double_param) == ("1", 0.5)


def test_a_statement_outside_the_subset_is_an_error() -> None:
    with pytest.raises(ValueError, match="values to unpack"):
        parse_proto("message A { enum B { C = 0; } }")
