"""Reads the response of an API that counts the tokens of a request; finds out that an upstream has no such route."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from gai_fast.core.json.chunks import count, parse_chunk
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.events import Event
from gai_fast.providers.answers.adapter import ProviderAdapter


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


_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405
_NOT_IMPLEMENTED: Final = 501
_NO_REASON: Final = re.compile(
    r"\S+ answered with status \d+(?:: check base_url)?|(?:(?:the )?(?:requested )?resource (?:was )?not found"
    r"|not implemented|invalid url \([^)]*\)|cannot post \S*|no route (?:matches|for) [^/]*/.*)\.?",
    re.IGNORECASE,
)
"""The texts of servers that do not have the path; `API.decode_error` writes the first."""
_OF_REQUEST: Final = re.compile(
    "model|deployment|with id|previous.?response|conversation|container|prompt|item", re.IGNORECASE
)
"""Things that a request names: a 404 about one of them is not about the path."""


def missing_route(error: Error) -> Literal["no", "perhaps", "surely"]:
    """Returns whether an upstream's refusal means that it does not have a route, beside its API's other ones.

    `surely` if the refusal names nothing of the request, so that any request would be refused.

    Args:
        error: The refusal, as `API.decode_error` returns it.
    """
    status = error.upstream_status
    if status not in (_NOT_FOUND, _NOT_ALLOWED, _NOT_IMPLEMENTED):
        return "no"
    if status == _NOT_ALLOWED or _NO_REASON.fullmatch(error.message):
        return "surely"
    words = " ".join(map(str, (error.message, error.reason, *(error.details or {}).values())))
    # An address says nothing of the request: `/v1/models` is no model.
    is_about_request = _OF_REQUEST.search(" ".join([word for word in words.split() if "/" not in word])) is not None
    return "no" if status == _NOT_FOUND and is_about_request else "perhaps"
