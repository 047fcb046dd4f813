"""OpenAI's Responses API: the format.

`members.py`, `request.py` and `items.py` read requests. `stream.py` and `whole.py` write answers; `passthrough.py`
completes the answers of upstreams that speak the dialect. Knows no route and no provider's quirks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, cast

from gai_fast.core.requests.dialects import RESPONSES
from gai_fast.core.requests.shapes import responses_tool_characters
from gai_fast.formats._base import (
    ClientRequest,
    Encoder,
    Format,
    Framing,
    PassthroughEncoder,
    StreamContext,
    StreamEncoder,
)
from gai_fast.formats._members import with_items
from gai_fast.formats._openai import error_object
from gai_fast.formats._passthrough import DialectFormat, Passthrough
from gai_fast.formats.agents import CODEX
from gai_fast.formats.responses.members import read_response_members
from gai_fast.formats.responses.parts import DIALECT, ResponseObject
from gai_fast.formats.responses.passthrough import OwnEvents, PassedEvents, PassedWhole
from gai_fast.formats.responses.request import read_response_request
from gai_fast.formats.responses.stream import ResponseEvents
from gai_fast.formats.responses.whole import WholeResponse
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.request import Request


class ResponsesFormat(DialectFormat):
    """OpenAI's Responses API."""

    name: ClassVar[str] = DIALECT
    text_members: ClassVar[tuple[str, ...]] = tuple(RESPONSES.texts.split())
    repeats_answer: ClassVar[bool] = True
    allows_retry_frames: ClassVar[bool] = False
    tells_programs_apart: ClassVar[bool] = True

    def for_program(self, user_agent: str | None) -> Format:
        """Returns the format whose keep-alives are events for Codex, which counts nothing else. Strict clients fail on
        them."""
        return _FOR_CODEX if user_agent is not None and user_agent.startswith(CODEX) else self

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder of `response.…` events."""
        return ResponseEvents(framing, context, keepalives=self.keepalives)

    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder of one `response`."""
        return WholeResponse(context)

    def dialect_encoder(self, framing: Framing, context: StreamContext) -> OwnEvents:
        """Creates an encoder of the frames that the gateway adds to an upstream's."""
        return OwnEvents(framing, context, keepalives=self.keepalives)

    def passthrough(self, framing: Framing, context: StreamContext, *, whole: bool) -> PassthroughEncoder | None:
        """Creates an encoder that passes frames on; their objects say what is kept here (`StreamContext.kept`)."""
        kept = context.kept
        if kept is None:
            return super().passthrough(framing, context, whole=whole)
        if whole:
            return PassedWhole(self.whole(context), kept)
        if framing == "ndjson" or context.ids:
            return None
        return PassedEvents(self.dialect_encoder(framing, context), kept, hides_usage=context.hides_usage)

    def successor(self, before: PassthroughEncoder, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Returns the passthrough's encoder: it continues the numbers and the response id, which the end repeats."""
        if isinstance(before, Passthrough):
            return cast("StreamEncoder", before.encoder)
        return super().successor(before, framing, context)

    def counted_characters(self, asked: ClientRequest) -> int:
        return asked.prompt_characters + responses_tool_characters(asked.body)

    def count_body(self, tokens: int) -> dict[str, Any]:
        return {"object": "response.input_tokens", "input_tokens": tokens}

    def started_response(self, context: StreamContext) -> dict[str, Any]:
        """Returns the `queued` response."""
        return ResponseObject(context).at("queued")

    def read_request(self, body: dict[str, Any]) -> ClientRequest:
        """Reads the members of a request that all routes and upstreams need.

        Raises:
            InvalidRequest: `model` is not a string, or `stream` or `background` is not a boolean.
        """
        return read_response_members(body)

    def streamed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns a copy of the body that asks for a stream in the foreground."""
        sent = {key: value for key, value in body.items() if key not in ("background", "background_options")}
        return {**sent, "stream": True}

    def with_messages(self, body: dict[str, Any], messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Returns a copy of the body with more items of `input`, which may be a text."""
        given = body.get("input")
        if isinstance(given, str):
            body = {**body, "input": [{"role": "user", "content": given}]}
        return with_items(body, "input", messages)

    def parse_request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates a request into a native one; `stream` is false by default.

        Raises:
            InvalidRequest: The text names the member by its path in the client's own request.
        """
        return read_response_request(body)

    def error_body(self, error: Error, request_id: str) -> bytes:
        """Returns `{"error": {message, type, param, code}}`, with the upstream's own members from `error.details`."""
        return encode_json({"error": error_object(error)})


class _CodexFormat(ResponsesFormat):
    keepalives: ClassVar[bool] = True


FORMAT = ResponsesFormat()
_FOR_CODEX: Final = _CodexFormat()
