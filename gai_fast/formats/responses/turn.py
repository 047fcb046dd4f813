"""A turn over a WebSocket of responses: the body of its request, and the response that nothing is generated for.

Owns how `response.create` differs from the body of `POST /v1/responses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from gai_fast.formats._base import StreamEncoder
from gai_fast.formats._members import member
from gai_fast.formats.responses.stream import ResponseEvents
from gai_fast.kernels import Piece
from gai_fast.model.errors import Error

_OF_THE_SOCKET: Final = ("type", "generate", "stream_id", "stream_options")


def body_of_turn(message: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Returns the body of the request in a `response.create`, and whether an answer is generated.

    Args:
        message: The message.

    Raises:
        Error: It asks for what a socket does not have, or a member has another type.
    """
    generates = member(message, "generate", "$", bool)
    if member(message, "background", "$", bool):
        raise _not_here("background", "a response in the background is asked for with POST")
    if message.get("stream_id") is not None:
        raise _not_here("stream_id", "a WebSocket has one answer at a time: open another one")
    body = {name: value for name, value in message.items() if name not in _OF_THE_SOCKET}
    body["stream"] = True
    if generates is False and body.get("input") is None:
        body["input"] = []
    return body, generates is not False


def prepared_frames(encoder: StreamEncoder) -> Sequence[Piece]:
    """Returns the frames of a response that nothing is generated for: it prepares what later turns continue.

    Args:
        encoder: An encoder of the dialect.
    """
    events = cast("ResponseEvents", encoder)
    events.prepare()
    return events.take_pieces()


def _not_here(name: str, why: str) -> Error:
    return Error("unsupported", f"`{name}` has no meaning over a WebSocket: {why}", reason="socket", param=name)
