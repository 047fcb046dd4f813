"""Reads the response of an API that counts the tokens of a request."""

from __future__ import annotations

from typing import Any

from gai_fast.core.chunks import count, parse_chunk
from gai_fast.model.errors import Malformed
from gai_fast.model.events import Event
from gai_fast.providers._adapter import ProviderAdapter


class TokenCount(ProviderAdapter):
    """Reads `{"input_tokens": 12}`, a response without content, which is passed on unchanged.

    The count is not stored as usage: no tokens were used.
    """

    def receive(self, name: str, data: str) -> list[Event]:
        self.checked(parse_chunk(data), name)
        raise Malformed("a count of tokens is one JSON object, no stream")

    def receive_whole(self, answer: Any, text: str = "") -> list[Event]:
        if not isinstance(answer, dict) or count(answer.get("input_tokens")) is None:
            raise Malformed("no count of tokens")
        self.ended = True
        return self.start(None, None)

    def finish(self) -> list[Event]:
        if not self.ended:
            raise self.truncated()
        return [self.end("stop", None)]
