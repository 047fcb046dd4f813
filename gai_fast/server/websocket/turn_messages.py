"""The messages of a client of `/v1/responses` over a WebSocket: from bytes to a turn, a cancel, or what is wrong.

Reads the few members that the socket needs. The handler of `POST /v1/responses` reads the rest, and names what is wrong
with it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from msgspec import Raw, Struct
from mypy_extensions import mypyc_attr

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.server.websocket.frame_guard import Violation
from gai_fast.server.websocket.messages import INVALID_PAYLOAD


class Create(NamedTuple):
    """`response.create`: asks for a response.

    Attributes:
        body: The message, which is the body of the request but for a few members.
        continues: The id of the response that it continues; empty if there is none.
    """

    body: bytes
    continues: str


class Cancel(NamedTuple):
    """`response.cancel`: cancels the response that runs.

    Attributes:
        identifier: The id of the response; empty for any.
    """

    identifier: str


class Processed(NamedTuple):
    """`response.processed`: Codex has read a response to its end. Nothing is done."""


@mypyc_attr(native_class=False)
class _Head(Struct):
    type: Raw = Raw(b"")
    response_id: Raw = Raw(b"")
    previous_response_id: Raw = Raw(b"")


_DECODER: Final = msgspec.json.Decoder(_Head)
_TEXT: Final = msgspec.json.Decoder(str)
_LONGEST: Final = 6 * SHARED.identifier
"""Bytes of an id as JSON: each character may be written as an escape of six."""


def read_turn(data: bytes) -> Create | Cancel | Processed | Error | Violation:
    """Reads a message. An error leaves the socket open.

    Its nesting and its number of values are not checked: what is not read is skipped, and the handler checks a request
    in parts.

    Args:
        data: The message.
    """
    try:
        if not data.isascii():
            data.decode()
        head = _DECODER.decode(data)
    except UnicodeDecodeError:
        return Violation(INVALID_PAYLOAD, "a message is not UTF-8")
    except msgspec.ValidationError:
        return Error("invalid_request", "the message must be a JSON object", reason="validation")
    except msgspec.DecodeError:
        return Error("invalid_request", "the message is not valid JSON", reason="json")
    except RecursionError:
        return Error("invalid_request", "the message is nested too deep", reason="depth")
    kind = _text(head.type)
    if kind == "response.create":
        return Create(data, _text(head.previous_response_id) or "")
    if kind == "response.cancel":
        identifier = "" if bytes(head.response_id) in (b"", b"null") else _text(head.response_id)
        if identifier is None:
            return Error("invalid_request", "`response_id` is not the id of a response", reason="validation")
        return Cancel(identifier)
    if kind == "response.processed":
        return Processed()
    text = "`type` must be one of response.create, response.cancel, response.processed"
    return Error("invalid_request", text, reason="validation", param="type")


def _text(raw: Raw) -> str | None:
    """Returns a short JSON text. None if it is anything else."""
    value = bytes(raw)
    if len(value) > _LONGEST or not value.startswith(b'"'):
        return None
    return _TEXT.decode(value)
