"""OpenAI's legacy Completions: the format.

`completions_request.py` reads requests. `completions_stream.py` writes answers, and lists the place of each event.
Knows no route and no provider.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gai_fast.core.requests.dialects import COMPLETIONS
from gai_fast.formats._base import ClientRequest, Encoder, Framing, StreamContext, StreamEncoder
from gai_fast.formats._openai import error_object
from gai_fast.formats._passthrough import DialectEncoder, DialectFormat
from gai_fast.formats.chat.completions_request import read_completion_members, read_completion_request
from gai_fast.formats.chat.completions_stream import OwnTextChunks, TextChunks, WholeText
from gai_fast.formats.chat.members import with_usage
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.request import Request


class CompletionsFormat(DialectFormat):
    """OpenAI's legacy Completions."""

    name: ClassVar[str] = "completions"
    text_members: ClassVar[tuple[str, ...]] = tuple(COMPLETIONS.texts.split())

    def has_tokens(self, body: dict[str, Any]) -> bool:
        """Returns whether a prompt is a list of token ids, or of anything but texts."""
        prompts = body.get("prompt")
        is_other = isinstance(prompts, list) and any(not isinstance(each, str) for each in prompts)
        return is_other or super().has_tokens(body)

    def encoder(self, framing: Framing, context: StreamContext) -> StreamEncoder:
        """Creates an encoder of `text_completion` chunks."""
        return TextChunks(framing, context)

    def whole(self, context: StreamContext) -> Encoder:
        """Creates an encoder of one `text_completion`."""
        return WholeText(context)

    def dialect_encoder(self, framing: Framing, context: StreamContext) -> DialectEncoder:
        """Creates an encoder of the frames that the gateway adds to an upstream's."""
        return OwnTextChunks(framing, context)

    def read_request(self, body: dict[str, Any]) -> ClientRequest:
        """Reads the members of a request that all routes and upstreams need.

        Raises:
            InvalidRequest: `model` is not a string, or `stream` is not a boolean.
        """
        return read_completion_members(body)

    def with_usage(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns a copy of the request with `stream_options.include_usage`."""
        return with_usage(body)

    def parse_request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Translates a request into a native one; `stream` is false by default.

        Raises:
            InvalidRequest: The text names the member by its path.
            Unsupported: `n` > 1, several prompts, or a prompt of tokens.
        """
        return read_completion_request(body)

    def error_body(self, error: Error, request_id: str) -> bytes:
        """Returns `{"error": {message, type, param, code}}`, with the upstream's own members from `error.details`."""
        return encode_json({"error": error_object(error)})


FORMAT = CompletionsFormat()
