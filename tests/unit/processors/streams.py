"""Events of a stream, and what a processor makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.processors import Processor

START: Event = {"type": "start", "provider": "p", "model": "m"}
FINISH: Event = {"type": "finish", "finish_reason": "stop"}
DONE: Event = {"type": "done", "finished": True}


def delta(text: str, **more: Any) -> Event:
    return {"type": "text.delta", "text": text, **more}


def stream(*texts: str, finish: Event = FINISH) -> list[Event]:
    return [START, *map(delta, texts), finish, DONE]


def pieces(text: str, edges: Iterable[int] | int) -> list[str]:
    """Returns the text cut at these places, or into pieces of so many characters."""
    if isinstance(edges, int):
        return [text[at : at + edges] for at in range(0, len(text), edges)]
    inner = sorted(edge % (len(text) + 1) for edge in edges)
    return [text[begin:end] for begin, end in zip([0, *inner], [*inner, len(text)], strict=True)]


def through(processor: Processor, events: Sequence[Event], times: Iterable[int] | None = None) -> list[Any]:
    """Returns the output; an error that ends the stream comes last."""
    out: list[Any] = []
    try:
        for event, now in zip(events, [0] * len(events) if times is None else times, strict=True):
            out.extend(processor.process(event, now))
    except Error as error:
        out.append(error)
    return out


def text_of(events: Iterable[Any]) -> str:
    return "".join(event["text"] for event in events if isinstance(event, dict) and event["type"] == "text.delta")


def types_of(events: Iterable[Any]) -> list[str]:
    return [event["type"] if isinstance(event, dict) else f"raised {event.reason}" for event in events]
