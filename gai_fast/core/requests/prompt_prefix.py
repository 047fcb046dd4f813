"""The prefix of a conversation, by which `balance = "affinity"` finds its target.

Every turn of a conversation repeats its prefix: the system texts and the first message of the user. Providers cache
prompts by prefix too. So if all turns go to one target, they hit its cache. `prompt_prefix` reads the members that
client dialects use for these texts, for any route. It checks nothing: `formats/` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gai_fast.core.requests.limits import LIMITS
from gai_fast.core.requests.reading import conversation
from gai_fast.model.request import Request, UserMessage


def prompt_prefix(request: Request | dict[str, Any]) -> str:
    """Returns the texts from the system prompt to the first message of the user, at most `limits.affinity_text`.

    Tools, options and images are not included: they are long or change between turns. The caller is not included:
    callers with one prefix share the target's cache.

    Args:
        request: A native request, or a body in a client's dialect: `system`, `instructions` or neither, then the
            messages of `messages` or `input` up to the first of role `user`, or the text of `prompt` or `input`.

    Returns:
        The texts, with a separator after each; empty if there are none.
    """
    texts = _of_native(request) if isinstance(request, Request) else _of_body(request)
    found: list[str] = []
    room = LIMITS.affinity_text
    for text in texts:
        found.append(text[:room])
        room -= len(text)
        if room <= 0:
            break
    return "".join([text + "\0" for text in found])


def _of_native(request: Request) -> Iterator[str]:
    for message in conversation(request):
        content = message.content
        if isinstance(content, str):
            yield content
        else:
            for part in content:
                text = getattr(part, "text", None)
                if isinstance(text, str):
                    yield text
        if isinstance(message, UserMessage):
            return


def _of_body(body: dict[str, Any]) -> Iterator[str]:
    yield from _texts(body.get("system"))
    yield from _texts(body.get("instructions"))
    for name in ("messages", "input"):
        messages = body.get(name)
        if not isinstance(messages, list):
            yield from _texts(messages)
            continue
        for message in messages:
            if isinstance(message, dict):
                yield from _texts(message.get("content"))
                if message.get("role") == "user":
                    return
    yield from _texts(body.get("prompt"))


def _texts(content: Any) -> Iterator[str]:
    """Yields the texts of a content: a string, or parts with a `text`."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
