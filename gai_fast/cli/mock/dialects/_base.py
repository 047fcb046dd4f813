"""The base of all dialects of the mock: the words and the length of an answer, and the frames that a dialect defines.

The request and the options determine every byte, so that two runs send equal bytes.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

WORDS: Final = (
    "Once upon a time a small stream ran down a quiet hill. It carried one word after another, never two at once, "
    "and told each stone it met a part of the story. “Where do you go?” asked the café’s old cat 🐈. To the sea, said "
    "the stream, and I bring it everything I was told, in the order in which I heard it."
).split(" ")
"""The text of every answer, repeated: plain words, and a few characters outside ASCII."""

CREATED: Final = 1_700_000_000
"""The time in every answer, in seconds since the epoch."""

ANY_PREFIX: Final = r"/{prefix:(?:.*/)?}"
"""The prefix of every route: base URLs of clients end differently."""


def to_json(value: Any) -> bytes:
    """Returns a value as JSON without blanks. A lone surrogate, which UTF-8 cannot encode, is escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


class MockAnswer(ABC):
    """One answer in one dialect.

    Args:
        body: The request, as `asked` returned it.
        number: The number of the request, from 1; makes ids unique and repeatable.
    """

    route: ClassVar[str]
    """The path of this dialect's requests, as an aiohttp route."""
    prompt: ClassVar[str] = "messages"
    """The request's key for the conversation."""
    required: ClassVar[tuple[str, ...]]
    """The request's keys that must not be empty."""
    limits: ClassVar[tuple[str, ...]]
    """The request's keys that bound the answer's tokens."""

    def __init__(self, body: Mapping[str, Any], number: int) -> None:
        self.model = str(body.get("model"))
        self.number = number
        self.body = body
        self.input_tokens = len(to_json(body.get(self.prompt))) // 4

    @classmethod
    def asked(cls, body: Mapping[str, Any], path: Mapping[str, str]) -> Mapping[str, Any]:
        """Returns the request's JSON, completed by values from its path.

        Args:
            body: The request's JSON.
            path: The parts of the path that the route names.
        """
        return body

    def texts(self, deltas: int) -> tuple[list[str], bool]:
        """Returns the text deltas, and whether the request's own limit cut them short."""
        asked = [value for key in self.limits if isinstance(value := self.body.get(key), int) and value > 0]
        count = min([deltas, *asked])
        words = [WORDS[index % len(WORDS)] for index in range(count)]
        return [word if index == 0 else f" {word}" for index, word in enumerate(words)], count < deltas

    @abstractmethod
    def opening(self) -> list[bytes]:
        """Returns the frames before the first text."""

    @abstractmethod
    def delta(self, text: str) -> bytes:
        """Returns the frame of one text delta."""

    @abstractmethod
    def closing(self, tokens: int, cut_short: bool) -> list[bytes]:
        """Returns the frames after the last text, end mark included."""

    @abstractmethod
    def whole(self, texts: Sequence[str], cut_short: bool) -> dict[str, Any]:
        """Returns the answer as one object."""

    @classmethod
    @abstractmethod
    def error(cls, status: int, message: str) -> dict[str, Any]:
        """Returns the body of an error."""

    @classmethod
    @abstractmethod
    def error_frame(cls, status: int, message: str) -> bytes:
        """Returns the frame of an error inside a running stream."""
