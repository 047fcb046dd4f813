"""The dialects of the scripted upstream, as the providers' own servers speak them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from programs.dialects import chat, messages, responses
from programs.script import Answer, Asked

JSON = dict[str, Any]


@dataclass(frozen=True)
class Dialect:
    """One dialect.

    Args:
        path: The path of its requests.
        provider: The provider of the gateway that speaks it.
        prefix: What the `base_url` of such a provider ends with.
        read: Reads a request.
        frames: The frames of a streamed answer, from the answer, the request and its number.
        whole: The answer as one object, from the same.
    """

    path: str
    provider: str
    prefix: str
    read: Callable[[JSON], Asked]
    frames: Callable[[Answer, JSON, int], list[bytes]]
    whole: Callable[[Answer, JSON, int], JSON]


DIALECTS: Final[Mapping[str, Dialect]] = {
    "chat": Dialect("/v1/chat/completions", "openai-compatible", "/v1", chat.read, chat.frames, chat.whole),
    "responses": Dialect(
        "/v1/responses", "openai-compatible:responses", "/v1", responses.read, responses.frames, responses.whole
    ),
    "messages": Dialect("/v1/messages", "anthropic", "", messages.read, messages.frames, messages.whole),
}
