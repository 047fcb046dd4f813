"""Anthropic's Messages: the format.

`members.py` and `request.py` read requests. `stream.py` and `whole.py` write answers; `stream.py` lists the place of
each event. `passthrough.py` completes the answers of upstreams that speak the dialect. Knows no route and no provider's
quirks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gai_fast.core.requests.dialects import MESSAGES
from gai_fast.formats._base import ClientRequest, Encoder, Framing, StreamContext, StreamEncoder
from gai_fast.formats._members import with_items
from gai_fast.formats._passthrough import DialectEncoder, DialectFormat
from gai_fast.formats.messages.attribution import without_attribution
from gai_fast.formats.messages.members import read_messages_members
from gai_fast.formats.messages.parts import DIALECT, error_object, error_status
from gai_fast.formats.messages.passthrough import OwnMessages
from gai_fast.formats.messages.request import is_continued, lost_tool_searches, read_messages_request
from gai_fast.formats.messages.stream import Messages
from gai_fast.formats.messages.whole import WholeMessage
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.request import Request


class AnthropicFormat(DialectFormat):
    """Anthropic's Messages."""

    name: ClassVar[str] = DIALECT
    text_members: ClassVar[tuple[str, ...]] = tuple(MESSAGES.texts.split())
    passed_headers: ClassVar[tuple[str, ...]] = ("anthropic-version", "anthropic-beta")

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder of a message's events."""
        return Messages(framing, context)

    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder of one `message`."""
        return WholeMessage(context)

    def dialect_encoder(self, framing: Framing, context: StreamContext) -> DialectEncoder:
        """Creates an encoder of the frames that the gateway adds to an upstream's."""
        return OwnMessages(framing, context)

    def read_request(self, body: dict[str, Any]) -> ClientRequest:
        """Reads the members of a Messages request that all routes and upstreams need.

        Raises:
            InvalidRequest: `model` is not a string, or `stream` is not a boolean.
        """
        return read_messages_members(body)

    def streamed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns a copy of the body that asks for a stream."""
        return {**body, "stream": True}

    def without_refusal(self, body: dict[str, Any], lost: Sequence[str]) -> list[str]:
        """Returns the paths of Anthropic's own searches for tools: all tools are sent in their place."""
        return lost_tool_searches(body, lost)

    def without_attribution(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the body without Claude Code's attribution block; the body itself if it has none."""
        return without_attribution(body)

    def parse_attributed(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates a request as `parse_request`, and keeps the attribution block."""
        return read_messages_request(body, keeps_attribution=True)

    def is_continued(self, body: dict[str, Any]) -> bool:
        """Returns whether no tools of a container or of MCP servers run within the answer."""
        return is_continued(body)

    def with_messages(self, body: dict[str, Any], messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Returns a copy of the body with more `messages`."""
        return with_items(body, "messages", messages)

    def parse_request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates a Messages request into a native one; `stream` is false by default.

        Raises:
            InvalidRequest: The text names the field, mostly by its path in the client's own request.
        """
        return read_messages_request(body)

    def error_body(self, error: Error, request_id: str) -> bytes:
        """Returns `{"type": "error", "error": {type, message}, "request_id"}`, or with the upstream's error."""
        return encode_json({"type": "error", "error": error_object(error), "request_id": request_id})

    def error_status(self, error: Error) -> int:
        """Returns the status of an error response; 529 if a server is overloaded."""
        return error_status(error)


FORMAT = AnthropicFormat()
