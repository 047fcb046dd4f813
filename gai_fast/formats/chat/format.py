"""OpenAI's Chat Completions: the format.

`members.py` and `request.py` read requests. `stream.py` and `whole.py` write answers; `stream.py` lists the place of
each event. `passthrough.py` completes the answers of upstreams that speak the dialect. Knows no route and no provider's
quirks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gai_fast.core.requests.dialects import CHAT
from gai_fast.formats._base import ClientRequest, Encoder, Framing, StreamContext, StreamEncoder
from gai_fast.formats._members import with_items
from gai_fast.formats._openai import error_object
from gai_fast.formats._passthrough import DialectEncoder, DialectFormat
from gai_fast.formats.chat.members import has_choices, read_chat_members, with_usage
from gai_fast.formats.chat.passthrough import OwnChunks
from gai_fast.formats.chat.request import WITHOUT_EFFECT, read_chat_request
from gai_fast.formats.chat.stream import Chunks
from gai_fast.formats.chat.whole import WholeCompletion
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.request import Request


class OpenAIFormat(DialectFormat):
    """OpenAI's Chat Completions."""

    name: ClassVar[str] = "openai"
    text_members: ClassVar[tuple[str, ...]] = tuple(CHAT.texts.split())
    without_effect: ClassVar[frozenset[str]] = WITHOUT_EFFECT

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder of `chat.completion.chunk` objects."""
        return Chunks(framing, context)

    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder of one `chat.completion`."""
        return WholeCompletion(context)

    def dialect_encoder(self, framing: Framing, context: StreamContext) -> DialectEncoder:
        """Creates an encoder of the frames that the gateway adds to an upstream's."""
        return OwnChunks(framing, context)

    def read_request(self, body: dict[str, Any]) -> ClientRequest:
        """Reads the members of a chat request that all routes and upstreams need.

        Raises:
            InvalidRequest: `model` is not a string, or `stream` is not a boolean.
        """
        return read_chat_members(body)

    def streamed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns a copy of the body that asks for a stream."""
        return {**body, "stream": True}

    def is_continued(self, body: dict[str, Any]) -> bool:
        """Returns whether the answer has one choice."""
        return not has_choices(body)

    def with_messages(self, body: dict[str, Any], messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Returns a copy of the body with more `messages`."""
        return with_items(body, "messages", messages)

    def with_usage(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns a copy of the request with `stream_options.include_usage`."""
        return with_usage(body)

    def parse_request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates a chat request into a native one; `stream` is false by default.

        Raises:
            InvalidRequest: The text names the field by its path.
        """
        return read_chat_request(body)

    def error_body(self, error: Error, request_id: str) -> bytes:
        """Returns `{"error": {message, type, param, code}}`, with the upstream's own members from `error.details`."""
        return encode_json({"error": error_object(error)})


FORMAT = OpenAIFormat()
