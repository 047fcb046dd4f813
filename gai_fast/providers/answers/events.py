"""Builds parts of events for several adapters: usage, citations, tools that a provider runs.

Knows no provider.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from gai_fast.core.json.chunks import count
from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.events import Event, JSONText, is_empty
from gai_fast.model.limits import SHARED
from gai_fast.providers.answers.limits import LIMITS

UNREADABLE: Final[Event] = {"type": "warning", "reason": "malformed_chunk"}
"""The event for a part of a chunk that cannot be read and is left out. Callers copy it."""

_LEVELS: Final = 2
"""Levels of nesting that an event has around a tool's arguments."""


def add_ends(end: Event, ends: Iterable[tuple[int, str, str]]) -> None:
    """Adds to the end of an answer the choices that have ended otherwise than the first.

    Args:
        end: The `finish`.
        ends: The number of each choice, its finish reason, and the provider's word for it.
    """
    others = [
        {"choice": number, "finish_reason": reason} | ({"finish_reason_raw": word} if word else {})
        for number, reason, word in ends
        if number and reason != end["finish_reason"]
    ]
    if others:
        end["provider_metadata"] = {**end.get("provider_metadata", {}), "choices": others}


def parse_arguments(text: str) -> Any:
    """Returns the value of a tool's arguments.

    Args:
        text: The arguments.

    Raises:
        ValueError: The arguments are not JSON, or nested so deep that an event with them could not be parsed.
    """
    value = parse_exact(text)
    if text.count("[") + text.count("{") > SHARED.arguments_depth - _LEVELS:
        parse_exact("[" * _LEVELS + text + "]" * _LEVELS)
    return value


def json_input(compact: str) -> JSONText:
    """Returns a tool's arguments as an event has them. Most readers need the text only: its value is not parsed here.

    Args:
        compact: The arguments, as `compact_json` returns them.

    Raises:
        ValueError: As `parse_arguments`.
    """
    if compact.count("[") + compact.count("{") > SHARED.arguments_depth - _LEVELS:
        return JSONText(compact, parse_arguments(compact))
    return JSONText(compact, None, parse_exact)


def counted_usage(
    input_tokens: int | None,
    output_tokens: int | None,
    *,
    cached: int | None = None,
    written: int | None = None,
    written_1h: int | None = None,
    reasoning: int | None = None,
    total: int | None = None,
) -> dict[str, int]:
    """Builds usage as `docs/events.md` defines it: keys in order, without unknown counts.

    If the total shows that the output does not include reasoning, reasoning is added to the output. A count that is
    missing is the total less the other. Values that are unknown then are left out: `core/answer.py` estimates it.

    Args:
        input_tokens: All input tokens, including cached tokens.
        output_tokens: Output tokens.
        cached: Input tokens read from a cache.
        written: Input tokens written to a cache.
        written_1h: Those that the cache keeps for an hour.
        reasoning: Output tokens spent on reasoning.
        total: The provider's sum.
    """
    if total is not None and (input_tokens is None) is not (output_tokens is None):
        rest = total - (input_tokens or 0) - (output_tokens or 0)
        if rest >= 0:
            input_tokens = rest if input_tokens is None else input_tokens
            output_tokens = rest if output_tokens is None else output_tokens
    elif (
        input_tokens is not None
        and output_tokens is not None
        and reasoning
        and total not in (None, input_tokens + output_tokens)
    ):
        output_tokens += reasoning if total == input_tokens + output_tokens + reasoning else 0
    usage: dict[str, int] = {}
    if input_tokens is not None and output_tokens is not None:
        usage = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        }
    elif input_tokens is not None:
        usage["input_tokens"] = input_tokens
    elif output_tokens is not None:
        usage["output_tokens"] = output_tokens
    if cached:
        usage["cached_input_tokens"] = cached
    if written:
        usage["cache_write_input_tokens"] = written
        if written_1h:
            usage["cache_write_1h_input_tokens"] = written_1h
    if reasoning:
        usage["reasoning_tokens"] = reasoning
    return usage


def reasoning(text: Any) -> list[Event]:
    """Returns the delta for reasoning text, nothing if it is empty, and a warning if the value is not text."""
    if not text:
        return []
    return [{"type": "reasoning.delta", "text": text}] if isinstance(text, str) else [{**UNREADABLE}]


def argument_piece(value: Any) -> str:
    """Returns a piece of a call's arguments. A value that is not text becomes its JSON text.

    Raises:
        ValueError: The value is nested too deep to be serialized, or has a number out of a float's range.
    """
    if value is None or isinstance(value, str):
        return value or ""
    return encode_json(value).decode()


def citation(uri: Any, title: Any, start: Any = None, end: Any = None) -> dict[str, Any]:
    """Builds one citation without empty members. A span with the end 0 is left out."""
    cited: dict[str, Any] = {
        key: value for key, value in (("uri", uri), ("title", title)) if isinstance(value, str) and value
    }
    first, last = count(start), count(end)
    if cited and first is not None and last:
        cited |= {"start": first, "end": last}
    return cited


def server_tool(identifier: str, name: str, status: str, arguments: str = "", output: Any = None) -> Event:
    """Builds the event for a server tool, which the provider runs.

    An input or output with more than `_TOOL_LEVELS` levels becomes JSON text.

    Args:
        identifier: The provider's id of the run.
        name: The tool.
        status: `started`, `completed` or `failed`.
        arguments: Its input as JSON text; other text stays text.
        output: Its result, empty if there is none.

    Raises:
        ValueError: The output is nested too deep to be serialized.
    """
    value: Any = arguments
    with suppress(ValueError):  # not JSON: it stays text
        value = parse_arguments(arguments)
    if not _has_at_most(_TOOL_LEVELS, value):
        value = arguments
    if not _has_at_most(_TOOL_LEVELS, output):
        output = encode_json(output).decode()
    # Limited, because an adapter may repeat the name of a run with each of its results.
    name = name[: LIMITS.kept_word]
    members = {"id": identifier, "name": name, "status": status, "input": value, "output": output}
    return {"type": "server_tool", "server_tool": {key: members[key] for key in members if not is_empty(members[key])}}


def provider_block(provider: str, block: dict[str, Any], index: int) -> list[Event]:
    """Returns the event for a block that only its provider understands.

    Returns nothing if the block has more than `_BLOCK_LEVELS` levels: the client could not send it back.

    Args:
        provider: The provider's name.
        block: The whole block, with exact integers.
        index: Its position in the answer.
    """
    if not _has_at_most(_BLOCK_LEVELS, block):
        return []
    return [{"type": "provider.block", "provider": provider, "block": block, "index": index}]


def _has_at_most(levels: int, value: Any) -> bool:
    """Returns whether a JSON value has at most this number of levels."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return True
    return levels > 0 and all(_has_at_most(levels - 1, item) for item in value)


_BLOCK_LEVELS: Final[int] = SHARED.json_depth - 8
"""Levels of a provider's block. In a request there are five levels around it."""
_TOOL_LEVELS: Final[int] = SHARED.arguments_depth - 8
"""Levels of a server tool's input and output. In any format, a whole response has up to five levels around them."""
