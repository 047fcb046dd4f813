"""The messages of a WebSocket's client: from bytes to one of five messages, or the reason to close the socket.

A request's own members are read where any native request is; what is wrong with them ends its stream, not the socket.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gai_fast.core.requests.reading import decode_json
from gai_fast.kernels import encode_json
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.limits import SHARED
from gai_fast.server.websocket.frame_guard import POLICY_VIOLATION, Violation

INVALID_PAYLOAD: Final = 1007
PONG: Final = b'{"type":"pong"}'
_MOST: Final = 2**53


class Message(Struct, frozen=True):
    """A message of a client.

    Attributes:
        type: `request`, `resume`, `cancel`, `ack` or `ping`.
        stream: The client's id of a stream; empty for a ping.
        request: The native request, as JSON.
        after: The id of an event.
        seq: The number of an event.
    """

    type: str
    stream: str = ""
    request: Raw | UnsetType = UNSET
    after: str | UnsetType = UNSET
    seq: int | UnsetType = UNSET


_NEEDED: Final = {
    "request": ("stream", "request"),
    "resume": ("stream", "after"),
    "cancel": ("stream",),
    "ack": ("stream", "seq"),
    "ping": (),
}
_DECODER: Final = msgspec.json.Decoder(Message)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])


def read_message(data: bytes) -> Message | Violation:
    """Reads a message of a client that speaks `gai.events.v1`.

    Args:
        data: The message.
    """
    try:
        message = decode_json(_DECODER, data, SHARED.json_depth + 1)
    except InvalidRequest as problem:
        return _fault(problem)
    needed = _NEEDED.get(message.type)
    if needed is None:
        return Violation(POLICY_VIOLATION, f"`type` must be one of {', '.join(_NEEDED)}")
    for name in needed:
        if getattr(message, name) in (UNSET, ""):
            return Violation(POLICY_VIOLATION, f"a message of this type needs `{name}`")
    if len(message.stream) > SHARED.identifier:
        return Violation(POLICY_VIOLATION, f"`stream` is longer than {SHARED.identifier} characters")
    if message.seq is not UNSET and not 0 <= message.seq < _MOST:
        return Violation(POLICY_VIOLATION, "`seq` is no number of an event")
    return message


def read_plain(data: bytes) -> Message | Violation:
    """Reads a message of a client without a subprotocol: a native request, or a ping.

    Args:
        data: The message.
    """
    try:
        members = decode_json(_OBJECT, data)
    except InvalidRequest as problem:
        return _fault(problem)
    if bytes(members.get("type", b"")) == b'"ping"':
        return Message("ping")
    return Message("request", request=Raw(data))


def lead_of(stream: str) -> bytes:
    """Returns the first bytes of each message of a stream.

    Args:
        stream: The client's id of it.
    """
    return b'{"stream":%b,' % encode_json(stream)


def _fault(problem: InvalidRequest) -> Violation:
    """Returns the violation: 1007 if a message is not JSON, else 1008 (wrong members, nested too deep)."""
    is_json = problem.reason != "json"
    text = problem.message.replace("The body", "the message").replace("The request", "the message")
    return Violation(POLICY_VIOLATION if is_json else INVALID_PAYLOAD, text)
