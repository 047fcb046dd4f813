"""The messages of `gai.v1`: their descriptors, their reading and writing.

Owns the fields, which are those of `client/gai.proto`. They stand here once more because a wheel holds no generated
code, and a compiler of protobuf is not installed with the package. Knows no call.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from gai_fast.model.errors import Error
from gai_fast.model.events import Event

SERVICE: Final = "gai.v1.Gateway"

_PACKAGE: Final = SERVICE.rpartition(".")[0]
_MESSAGES: Final = {
    "GenerateRequest": {"json": "bytes"},
    "FollowRequest": {"stream_id": "string", "after": "uint64"},
    "CancelRequest": {"stream_id": "string"},
    "CancelResponse": {"state": "string"},
    "ListModelsRequest": {},
    "ListModelsResponse": {"models": "repeated Model"},
    "Model": {"id": "string", "json": "bytes"},
    "Event": {"type": "string", "seq": "uint64", "text": "string", "json": "bytes"},
}
"""The fields of each message, numbered from 1, by their types."""
_METHODS: Final = {
    "Generate": ("GenerateRequest", "Event"),
    "Follow": ("FollowRequest", "Event"),
    "Cancel": ("CancelRequest", "CancelResponse"),
    "ListModels": ("ListModelsRequest", "ListModelsResponse"),
}
"""The request and the response of each method; a response of type `Event` is a stream."""


def description() -> FileDescriptorProto:
    """Returns `client/gai.proto` as protobuf's compiler writes it into generated code."""
    file = FileDescriptorProto(name="gai.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (member, kind) in enumerate(fields.items(), 1):
            _add_field(message.field.add(name=member, number=number), kind)
    service = file.service.add(name=SERVICE.rpartition(".")[2])
    for name, (asked, answered) in _METHODS.items():
        service.method.add(
            name=name,
            input_type=f".{_PACKAGE}.{asked}",
            output_type=f".{_PACKAGE}.{answered}",
            # Left out if false, as the compiler does.
            **({"server_streaming": True} if answered == "Event" else {}),
        )
    return file


def _add_field(described: FieldDescriptorProto, kind: str) -> None:
    """Gives a field its type."""
    repeated, _, message = kind.rpartition(" ")
    if repeated:
        described.label = FieldDescriptorProto.LABEL_REPEATED
        described.type = FieldDescriptorProto.TYPE_MESSAGE
        described.type_name = f".{_PACKAGE}.{message}"
    else:
        described.label = FieldDescriptorProto.LABEL_OPTIONAL
        described.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


POOL: Final = descriptor_pool.DescriptorPool()
"""The descriptors that reflection shows. A pool of its own: a program may have generated code of the same file."""
for _file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
    POOL.AddSerializedFile(_file.serialized_pb)
POOL.Add(description())

_CLASSES: Final = {
    name: message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
}


def read(name: str, data: bytes) -> Any:
    """Reads a message.

    Args:
        name: Of the message, such as `FollowRequest`.
        data: Its bytes.

    Raises:
        InvalidRequest: They are no such message.
    """
    try:
        return _CLASSES[name].FromString(data)
    except DecodeError:
        text = f"the message is no {_PACKAGE}.{name}: make the client from /gai.proto"
        raise Error("invalid_request", text, reason="message") from None


def written(name: str, **fields: object) -> bytes:
    """Returns the bytes of a message.

    Args:
        name: Of the message, such as `CancelResponse`.
        fields: Its fields; a message in it is a mapping.
    """
    data: bytes = _CLASSES[name](**fields).SerializeToString()
    return data


_Event: Final = _CLASSES["Event"]
_WITH_TEXT: Final = frozenset({"text.delta", "reasoning.delta", "refusal.delta"})


def event_message(event: Event, text: str) -> bytes:
    """Returns an `Event`.

    Args:
        event: The event.
        text: The event as JSON.

    Raises:
        Network: The gateway has sent data that is not an event.
    """
    kind = event["type"]
    words = event.get("text", "") if kind in _WITH_TEXT else ""
    try:
        message: bytes = _Event(type=kind, seq=event.get("seq", 0), text=words, json=text.encode()).SerializeToString()
    except (TypeError, ValueError):  # another type, a number out of range, half a character
        raise Error("network", "the gateway sent data that is not an event", reason="protocol") from None
    return message
