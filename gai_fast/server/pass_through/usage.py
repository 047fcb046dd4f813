"""The tokens of a response that is passed through, if it has a known shape, and the text of a request for an estimate.

Owns the shapes. The body is not parsed: embeddings have megabytes of numbers. The counts stand in its first or last
bytes, in `usage` (OpenAI and those who speak as it does, Anthropic), `billed_units` (Cohere) or `usageMetadata`
(Gemini), of one JSON object or of the last event of a stream.

Some answers repeat what the caller has sent: a reranker its documents, Responses their metadata. So counts are read at
their own place alone: in the outermost object or in members of `_WRAPPERS`, and in no array but the outermost.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from gai_fast.core.json.chunks import count, objects
from gai_fast.core.requests.reading import CHARACTERS_PER_TOKEN
from gai_fast.kernels import closing_counts
from gai_fast.server.limits import LIMITS

_COUNTS: Final = re.compile(rb'.*("(?:usage|billed_units|usageMetadata)"\s*:\s*)(?=\{)', re.DOTALL)
"""All before the last counts. Their name never matches within a string of JSON, where a quotation mark is escaped."""
_ALONE: Final = re.compile(rb"\{[^{}\[\]]*\}\s*\}\s*")
"""Flat counts and the end of the outermost object: the usual place."""
_closing_counts: Final = closing_counts  # a constant: a name look-up costs 30 ns
_NAMES: Final = frozenset(("usage", "billed_units", "usageMetadata"))
_MEMBER: Final = re.compile(rb'"\w+"\s*:\s*\{')
_PIECES: Final = re.compile(rb'"(\w+)"\s*:\s*\{|"(?:[^"\\]|\\.)*"?|([{}\[\]])', re.DOTALL)
"""The beginning of a member's object, with its name; a string; or a bracket."""
_OPENING: Final = (b"{", b"[")
_WRAPPERS: Final = frozenset((b"meta", b"message", b"response", b"delta", b"usage", b"x_groq"))
"""The members in which counts stand: those of Cohere, Anthropic, OpenAI's Responses and Groq."""
_DEEPEST: Final = 3
"""Objects around counts, at most: Cohere's `message-end` has them."""
_READ: Final = json.JSONDecoder().raw_decode
_READ_FLAT: Final = msgspec.json.Decoder(dict[str, Any]).decode
_INPUT: Final = ("input_tokens", "prompt_tokens", "promptTokenCount")
_READ_INPUT: Final = ("cache_read_input_tokens",)
_WRITTEN_INPUT: Final = ("cache_creation_input_tokens",)
"""The counts that Anthropic does not include in its input."""
_CACHED_INPUT: Final = ("cachedContentTokenCount", "cached_tokens")
_DETAILS: Final[tuple[str, ...]] = ("prompt_tokens_details", "input_tokens_details")
_TOOL_INPUT: Final = ("toolUsePromptTokenCount",)
"""The count that Gemini does not include in its input: results of tools that Google runs."""
_BESIDE_INPUT: Final = frozenset((*_READ_INPUT, *_WRITTEN_INPUT, *_CACHED_INPUT, *_TOOL_INPUT, *_DETAILS))
_OUTPUT: Final = ("output_tokens", "completion_tokens", "candidatesTokenCount")
_TOTAL: Final = ("total_tokens", "totalTokenCount")
_TEXTS: Final[tuple[str, ...]] = ("input", "query", "documents", "prompt", "instructions")
"""The members of requests that hold text: of embeddings and moderations, rerankings, images and compactions."""
_PART_TEXTS: Final[tuple[str, ...]] = ("text", "content", "arguments", "input", "output")
"""The members of a part or an item that hold text."""
_JSON: Final = "application/json"
_MEDIA: Final = (_JSON, "text/event-stream", "application/x-ndjson")


class UsageReader:
    """Keeps the parts of a body in which its counts may stand.

    Args:
        media_type: The `content-type` of the response; only JSON and streams of JSON have counts.
    """

    __slots__ = ("_first", "_is_read", "_last")

    def __init__(self, media_type: str) -> None:
        self._is_read = media_type == _JSON or media_type.partition(";")[0].strip().lower() in _MEDIA
        self._first = b""
        self._last = b""

    def feed(self, data: bytes) -> None:
        """Receives bytes of the body."""
        if not self._is_read:
            return
        most = LIMITS.usage_text
        if len(self._first) < most:
            self._first += data[: most - len(self._first)]
        self._last = data[-most:] if len(data) >= most else (self._last + data)[-most:]

    def usage(self, whole: bytes = b"") -> dict[str, Any] | None:
        """Returns the counts in the form of an event's `usage`: the output alone if the input is missing. None if the
        body has none.

        Args:
            whole: The body, if it was not fed.
        """
        if not self._is_read:
            return None
        closing = _closing_counts(whole or self._last)  # flat, at the end of the outermost object: the usual place
        if closing is not None:
            name, counts = closing
            usage = _usage(counts, _count(counts, _OUTPUT) or 0) if name in _NAMES else None
            if usage is not None:
                return usage
        if whole:
            self.feed(whole)
        output = 0  # Anthropic's streams may end with counts that lack the input
        iterations: list[Any] = []
        for part in (self._last, self._first):
            end = part.rfind(b"{") + 1  # numbers and base64 have none: they are passed over at once
            for _ in range(LIMITS.usage_looks):
                found = _COUNTS.match(part, 0, end)
                if found is None:
                    break
                end, at = found.span(1)
                if not self._is_own(part, end, at):
                    continue
                own: dict[str, Any] = _object(part[at:])
                output = max(output, _count(own, _OUTPUT) or 0)
                listed = own.get("iterations")
                if isinstance(listed, list) and not iterations:
                    iterations = listed
                usage = _usage(own, output)
                if usage is not None:
                    return _with_compactions(usage, iterations)
        return {"output_tokens": output} if output else None

    def _is_own(self, part: bytes, name_at: int, at: int) -> bool:
        """Returns whether counts stand at their own place.

        Args:
            part: The first or the last bytes of the body.
            name_at: Where the name of the counts begins.
            at: Where the counts begin.
        """
        if part == self._last and _ALONE.fullmatch(part, at) is not None:
            return True
        if part == self._first:  # equal, since a body of one part may be one object or two
            around = _left_open(part[:name_at])
            outermost = around[1:2] if around[:1] == [b"["] else around[:1]
            return outermost == [b"{"] and _WRAPPERS.issuperset(around[around.index(b"{") + 1 :])
        closed = _closed(part[at:]).removesuffix(b"]")
        depth = len(closed)
        if not 0 < depth <= _DEEPEST or closed.strip(b"}"):
            return False
        known = _MEMBER.search(part, 0, name_at)  # what stands before it may be a part of a string
        around = [] if known is None else _left_open(part[known.start() : name_at])
        return _WRAPPERS.issuperset(around[-depth:][1:] if len(around) >= depth else around)


def _left_open(text: bytes) -> list[bytes]:
    """Returns the brackets that a text opens and does not close, in order; of a member's object its name."""
    opened: list[bytes] = []
    for name, bracket in _PIECES.findall(text):
        if name or bracket in _OPENING:
            opened.append(name or bracket)
        elif bracket and opened:
            opened.pop()
    return opened


def _closed(text: bytes) -> bytes:
    """Returns the brackets that a text closes and does not open, in order."""
    depth, closed = 0, b""
    for name, bracket in _PIECES.findall(text):
        if name or bracket in _OPENING:
            depth += 1
        elif bracket and depth:
            depth -= 1
        else:
            closed += bracket
    return closed


def _object(text: bytes) -> dict[str, Any]:
    """Returns the JSON object that begins a text. Empty if it is cut off, or nested deeper than any with counts."""
    try:
        return _READ_FLAT(text[: text.find(b"}") + 1])  # 1,500 instructions instead of 6,500
    except (msgspec.DecodeError, UnicodeDecodeError):  # it is nested, or a string has the bracket
        return _nested_object(text)


def _nested_object(text: bytes) -> dict[str, Any]:
    try:
        counts: dict[str, Any] = _READ(text.decode("utf-8", "replace"))[0]
    except (ValueError, RecursionError):
        return {}
    return counts


def _usage(counts: dict[str, Any], output: int) -> dict[str, Any] | None:
    tokens, total = _count(counts, _INPUT), _count(counts, _TOTAL)
    if tokens is None:
        if total is None:
            return None
        return _tokens(max(0, total - output), output)
    cached = written = 0
    known = 1 if total is None else 2
    if len(counts) > known and not _BESIDE_INPUT.isdisjoint(counts):
        tokens += _count(counts, _TOOL_INPUT) or 0
        cached, written = _count(counts, _READ_INPUT) or 0, _count(counts, _WRITTEN_INPUT) or 0
        beside = cached + written
        if total is None or tokens + beside + output <= total:  # LiteLLM has them in `prompt_tokens` as well
            tokens += beside
        for details in (counts, *[counts.get(name) for name in _DETAILS]):
            if isinstance(details, dict):
                cached = cached or _count(details, _CACHED_INPUT) or 0
    if total is not None:
        output = max(output, total - tokens)  # the sum alone has Gemini's thoughts
    return _tokens(tokens, output, cached, written)


def _with_compactions(usage: dict[str, Any], iterations: list[Any]) -> dict[str, Any]:
    """Returns a usage with the tokens of Anthropic's compactions, which only the counts in `iterations` include.

    Args:
        usage: The tokens of the message.
        iterations: The member of this name.
    """
    compactions = [each for each in objects(iterations) if each.get("type") == "compaction"]
    if not compactions:
        return usage
    tokens, output = usage["input_tokens"], usage["output_tokens"]
    cached, written = usage.get("cached_input_tokens", 0), usage.get("cache_write_input_tokens", 0)
    for each in compactions:
        was_cached, was_written = _count(each, _READ_INPUT) or 0, _count(each, _WRITTEN_INPUT) or 0
        cached += was_cached
        written += was_written
        tokens += (_count(each, _INPUT) or 0) + was_cached + was_written
        output += _count(each, _OUTPUT) or 0
    return _tokens(tokens, output, cached, written)


def _tokens(tokens: int, output: int, cached: int = 0, written: int = 0) -> dict[str, Any]:
    usage = {"input_tokens": tokens, "output_tokens": output, "total_tokens": tokens + output}
    if cached:
        usage["cached_input_tokens"] = cached
    if written:
        usage["cache_write_input_tokens"] = written
    return usage


def _count(counts: dict[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        counted = count(counts.get(name))
        if counted is not None:
            return counted
    return None


def text_characters(body: bytes) -> int:
    """Counts the characters of the texts of a request, for an estimate if its response counts no tokens.

    Parses the body: 1 MiB of text takes 1 ms, and 500,000 numbers of tokens 60 ms if this is interpreted. Called only
    for a response without counts.

    Args:
        body: The request's JSON.

    Returns:
        The characters; those of a token if texts are given as tokens. The size of the body if it has no known member
        with text, or cannot be parsed: numbers beyond a float's range are passed on.
    """
    try:
        members = _READ_FLAT(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return len(body)
    waiting: list[Any] = [members[name] for name in _TEXTS if name in members]
    counted = 0 if waiting else len(body)
    while waiting:
        value = waiting.pop()
        if type(value) is str:
            counted += len(value)
        elif type(value) is int:
            counted += CHARACTERS_PER_TOKEN
        elif type(value) is list:
            waiting += value
        elif type(value) is dict:
            # Data of images is not text: of an object with a `type` only the known texts count. A document may have any
            # members.
            texts = [value[name] for name in _PART_TEXTS if name in value]
            waiting += texts if texts or "type" in value else value.values()
    return counted
