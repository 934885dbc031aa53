"""Messages of the Open Inference Protocol over gRPC, built from ``open_inference.proto``.

They live in a descriptor pool of their own: two packages that define ``inference.*`` in the default
pool, such as ours and ``tritonclient``, could not be imported together. It imports nothing of this
project, so that the client package ships the same file.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "inference.GRPCInferenceService"
_FILE = "open_inference.proto"
_SCALARS = ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
_STATEMENT = re.compile(r"([^;{}]*)([;{}])")


@cache
def descriptor_pool() -> DescriptorPool:
    """Return the pool that holds the protocol's messages and its service."""
    pool = DescriptorPool()
    text = Path(__file__).with_name(_FILE).read_text(encoding="utf-8")
    pool.AddSerializedFile(parse_proto(text).SerializeToString())
    return pool


@cache
def message_class(name: str) -> Any:
    """Return the class of a message, such as ``ModelInferRequest``.

    Raises:
        KeyError: The protocol has no such message.
    """
    return GetMessageClass(descriptor_pool().FindMessageTypeByName(f"inference.{name}"))


def methods() -> list[MethodDescriptor]:
    """Return the methods of the protocol's service."""
    service: ServiceDescriptor = descriptor_pool().FindServiceByName(SERVICE)
    return list(service.methods)


def parse_proto(text: str) -> FileDescriptorProto:
    """Parse a file of protocol buffers.

    It reads the part of the language that the file beside this one uses: messages, nested ones,
    ``oneof``, ``repeated`` and ``map`` fields, and services; no enums, imports or options.

    Raises:
        ValueError: A statement is none of these.
    """
    file = FileDescriptorProto(name=_FILE)
    scopes: list[Any] = [file]
    for statement, end in _STATEMENT.findall(re.sub(r"//.*", "", text)):
        scope = scopes[-1]
        match re.sub(r"[=<>(),]", " ", statement).split():
            case [] if end == "}":
                scopes.pop()
            case ["syntax", quoted]:
                file.syntax = quoted.strip('"')
            case ["package", name]:
                file.package = name
            case ["message", name]:
                nested = scope.message_type if scope is file else scope.nested_type
                scopes.append(nested.add(name=name))
            case ["oneof", name]:
                # Its fields are the message's, with the number of the oneof.
                scope.oneof_decl.add(name=name)
                scopes.append(scope)
            case ["service", name]:
                scopes.append(file.service.add(name=name))
            case ["rpc", *words]:
                _add_method(scope, words)
            case words:
                field = _add_field(scope, words)
                if scope is scopes[-2]:
                    field.oneof_index = len(scope.oneof_decl) - 1
    return file


def _add_method(service: Any, words: list[str]) -> None:
    """Add a method such as ``Infer stream Request returns stream Response``."""
    name, *types = words
    middle = types.index("returns")
    request, response = types[:middle], types[middle + 1 :]
    service.method.add(
        name=name,
        input_type=request[-1],
        output_type=response[-1],
        client_streaming=len(request) > 1,
        server_streaming=len(response) > 1,
    )


def _add_field(message: Any, words: list[str]) -> FieldDescriptorProto:
    """Add a field such as ``repeated int64 shape 3``.

    Raises:
        ValueError: It is no field.
    """
    *labels, type_name, name, number = words
    field: FieldDescriptorProto = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if labels else field.LABEL_OPTIONAL
    if labels[:1] == ["map"]:
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, [labels[1], "key", "1"])
        _add_field(entry, [type_name, "value", "2"])
        type_name = entry.name
    if type_name in _SCALARS:
        field.type = getattr(field, f"TYPE_{type_name.upper()}")
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, type_name
    return field
