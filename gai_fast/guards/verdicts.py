"""What a judge is asked, and what it answers. `net/judges/` asks; `stages/pieces.py` and `joined.py` know the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gai_fast.model.settings import GuardSide

Channel = Literal["text", "reasoning", "refusal", "tool_call", "input"]
"""What a text is: a kind of output, or the input as a whole. The result of a call is of the call."""

Fault = Literal["late", "network", "status", "form", "exception", "breaker", "closed"]
"""Why there is no verdict: none in time; no connection, or no whole answer; another status than 200; an answer that is
no verdict; an exception of the function; an open breaker; the end of the process."""


@dataclass(frozen=True, slots=True)
class Question:
    """A text to be judged.

    Args:
        guard: The guard's name.
        on: Where the text stands.
        channel: What the text is.
        text: The text.
        model: The model that the caller requested.
        caller: The caller's name.
        stream_id: The id of the stream.
    """

    guard: str
    on: GuardSide
    channel: Channel
    text: str
    model: str = ""
    caller: str = ""
    stream_id: str = ""

    def __repr__(self) -> str:
        return f"Question({self.guard}, {self.on}, {self.channel}, {len(self.text)} characters)"

    def members(self) -> dict[str, Any]:
        """Returns the JSON object that a judge gets."""
        return {
            "guard": self.guard,
            "on": self.on,
            "channel": self.channel,
            "text": self.text,
            "model": self.model,
            "caller": self.caller,
            "stream_id": self.stream_id,
        }


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """A judge's answer.

    Args:
        flagged: Whether the text must not pass.
        category: What the judge found. None if the answer names nothing.
        score: How sure the judge is. None if the answer has none.
        spans: The places that must not pass, in code points of the text: pairs of begin and end within the text, in
            order, none of them empty, no two of which overlap. Without spans, the whole text must not pass.
    """

    flagged: bool
    category: str | None = None
    score: float | None = None
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A judge has not answered.

    Args:
        fault: The kind of the failure.
        text: The failure, for the log. Never holds a part of a judged text, of an answer or a secret.
        counts: Whether the failure counts for the judge's breaker.
    """

    fault: Fault
    text: str
    counts: bool = True
