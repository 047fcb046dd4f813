"""Reads chunks: JSON, the verbatim text of members, strings and counts.

Must not know providers or events. `text_of` reads what the answer consists of, and refuses any other type. The members
beside it may have any type and never cost the content beside them: `label`, `count`, `number`, `member` and `objects`
return an empty value for other types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import inf
from typing import Any, Final

import orjson

from gai_fast.core.json.limits import LIMITS
from gai_fast.kernels import Frame, encode_json, parse_exact
from gai_fast.model.errors import Malformed

_loads: Final = orjson.loads
_CONTAINERS: Final = LIMITS.chunk_containers
_UNREAD_CHUNKS: Final = LIMITS.unread_chunks

WRONG_SHAPE: Final[tuple[type[Exception], ...]] = (
    AttributeError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    RecursionError,
)
"""Exceptions of code that reads a chunk whose members have other types than the API promises."""


def parse_chunk(data: str) -> Any:
    """Parses a chunk.

    Tries orjson first. orjson refuses lone surrogates, which providers send and the standard library accepts.

    Raises:
        Malformed: The data is not JSON, or has more objects and arrays than `limits.chunk_containers`.
    """
    # Each container needs a bracket, so only long chunks are counted.
    if len(data) > _CONTAINERS and data.count("[") + data.count("{") > _CONTAINERS:
        raise Malformed(f"a chunk of {len(data)} characters has more than {_CONTAINERS} objects and arrays")
    try:
        return _loads(data)
    except orjson.JSONDecodeError as problem:
        try:
            return parse_exact(data)
        except ValueError:
            raise Malformed(f"a chunk of {len(data)} characters is not JSON: {problem.msg}") from None


_COMMENT: Final = re.compile(r'(?::[^{\["]*|[\["]?(?:ping|pong|heartbeat|keep[-_ ]?alive)[\]"]?)?', re.I)


def is_comment(data: str) -> bool:
    """Returns whether data that is no chunk only keeps the connection open, so that it holds no text of the answer.

    Such data is blank, a word as `ping`, or a comment of SSE that a proxy has made data (`data: : keepalive`). A
    comment with a brace, a bracket or a quote may hide a chunk.
    """
    return _COMMENT.fullmatch(data.strip()) is not None


def text_of(value: Any) -> str:
    """Returns a text of a chunk, empty if it is missing.

    Raises:
        Malformed: The value is not text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"a text of a chunk is a JSON {type(value).__name__}")
    return value


def inner_text(value: Any) -> Any:
    """Returns the text in an object that some servers send as a text: `{"text": …}`, `{"value": …}`. Other values are
    returned as they are."""
    if not isinstance(value, dict):
        return value
    return next((value[name] for name in ("text", "content", "value") if value.get(name)), value)


def label(value: Any) -> str:
    """Returns an id, a name or a word of a chunk. A whole number becomes its digits, any other type is as missing."""
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64
    return str(value) if is_number else ""


_NOTHING: Final[dict[str, Any]] = {}
"""The object that is missing; nothing may be added to it. A new one for each would cost 150 instructions."""


def member(raw: Any, name: str) -> dict[str, Any]:
    """Returns an object within an object. It is empty if it is missing or of another type."""
    inner = raw.get(name) if isinstance(raw, dict) else None
    return inner if isinstance(inner, dict) else _NOTHING


def objects(value: Any) -> list[dict[str, Any]]:
    """Returns the objects of a list. Everything else in it is left out; any other type is as empty."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def token_scores(value: Any) -> list[dict[str, Any]]:
    """Returns the probabilities of tokens, the objects of a list. It is empty if they cannot be written as JSON.

    Numbers beyond a float's range are read as infinite, and infinity is not JSON.
    """
    found = objects(value)
    try:
        encode_json(found)
    except ValueError:
        return []
    return found


def count(value: Any) -> int | None:
    """Returns a count. Accepts counts written as text or as a fraction. Returns `None` for anything else."""
    if value is None:
        return None
    if type(value) is int:  # nearly all are
        return value if 0 <= value < 2**53 else None
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 15:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def number(value: Any) -> int | float | None:
    """Returns a finite number. Returns `None` for anything else, including a boolean."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) != inf else None


def nested_count(raw: dict[str, Any], outer: str, key: str) -> int | None:
    """Returns a count in an object of details. The object may be missing or of another type."""
    details = raw.get(outer)
    return count(details.get(key)) if isinstance(details, dict) else None


_TEXTS: Final = frozenset(
    "answer completion content delta generated_text output output_text parts reasoning reasoning_content refusal "
    "response text thinking thought transcript value".split()
)
"""Names of members that hold text of an answer, in all dialects."""
_ASIDE: Final = frozenset(
    "citations error format input instructions logprobs metadata prompt provider_metadata reasoning_steps request "
    "search_queries search_results system tool_choice tools usage".split()
)
"""Names of members in which nothing is text of an answer: servers repeat the request or report searches there."""
_ASKING: Final = frozenset(("developer", "system", "tool", "user"))
"""The roles of a request's messages, which servers repeat."""


class UnreadChunks:
    """The chunks of an answer before any content: there may be text in members that the adapter does not know.

    Args:
        room: Characters that are kept.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.chunks: list[str] = []
        """Those that are kept; emptied once there is content: Responses repeat the request's instructions and tools."""

    def keep(self, data: str) -> None:
        """Keeps a chunk if it is an object and there is room."""
        if len(data) <= self._room and data.startswith("{"):
            self.chunks.append(data)
            self._room -= len(data)

    def hold_text(self) -> bool:
        """Returns whether a kept chunk holds text."""
        return any(holds_text(parse_chunk(data)) for data in self.chunks)


def keep_unread(kept: UnreadChunks | None, data: str) -> UnreadChunks:
    """Keeps a chunk that comes before any content. The first one creates the collection, which is returned."""
    if kept is None:
        kept = UnreadChunks(_UNREAD_CHUNKS)
    kept.keep(data)
    return kept


def has_unread_text(kept: UnreadChunks | None) -> bool:
    """Returns whether there is text in a chunk that was kept."""
    return kept is not None and kept.hold_text()


def holds_text(chunk: Any) -> bool:
    """Returns whether a chunk has text, other than blanks, under a name that text of an answer has in some dialect.

    Args:
        chunk: Parsed JSON of any shape.
    """
    rest = [("", chunk)]
    while rest:
        name, value = rest.pop()
        if isinstance(value, str):
            if name in _TEXTS and value.strip():
                return True
        elif isinstance(value, dict) and label(value.get("role")) not in _ASKING:
            rest += [each for each in value.items() if each[0] not in _ASIDE]
        elif isinstance(value, list):
            rest += [(name, each) for each in value]
    return False


def closed(text: str) -> Any:
    """Returns the value of a JSON document that was cut off: the part that has arrived. `None` if it cannot be read.

    A text ends where it is cut. A member or a number that is not complete is left out.

    Args:
        text: The document, which is not read if it is longer than `limits.cut_off_answer`.
    """
    if len(text) > LIMITS.cut_off_answer:
        return None
    brackets: list[str] = []
    whole = 0  # the end of the complete part: after an opening bracket, or before a comma
    half = 0  # the end of a text that is not closed
    for found in _PIECE.finditer(text):
        piece = found[0]
        if piece == "{" or piece == "[":
            brackets.append("}" if piece == "{" else "]")
            whole = found.end()
        elif piece == ",":
            whole = found.start()
        elif piece == "}" or piece == "]":
            if not brackets:
                return None
            brackets.pop()
        elif not found[1]:
            half = found.end()
    ends = "".join(reversed(brackets))
    # A number at the end may lack digits.
    tried = [f'{text[:half]}"'] if half else [text] if text.endswith(('"', "}", "]", "e", "l")) else []
    for each in (*tried, text[:whole]):
        with suppress(Malformed):
            return parse_chunk(each + ends)
    return None


_PIECE: Final = re.compile(r'"[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*("?)|[{}\[\],]', re.S)
"""A text, with its closing quotation mark if it has one; a bracket or a comma. Not possessive: CPython 3.11.2 loses the
last escape then."""
_STRING: Final = r'"(?:[^"\\\r\n]+|\\.?)*+"?'
_NO_NUMBER: Final = re.compile(rf"{_STRING}|-?\b(?:NaN|Infinity)\b")
_NO_NUMBER_BYTES: Final = re.compile(_NO_NUMBER.pattern.encode())


def with_null(text: str) -> str:
    """Returns JSON with `null` for each `NaN` and `Infinity`, which are not JSON; Python's `json` writes them."""
    if "NaN" not in text and "Infinity" not in text:
        return text
    return _NO_NUMBER.sub(lambda found: found[0] if found[0][0] == '"' else "null", text)


def with_null_bytes(data: bytes) -> bytes:
    """Returns the lines of a body with `null` for each `NaN` and `Infinity`; as `with_null`."""
    if b"NaN" not in data and b"Infinity" not in data:
        return data
    return _NO_NUMBER_BYTES.sub(lambda found: found[0] if found[0][:1] == b'"' else b"null", data)


def mended(frame: Frame) -> list[Frame]:
    """Returns the frames that clients that are less strict read in place of a frame that is no chunk; empty if none.

    `NaN` and `Infinity` become null. A second `data:` is left out, which programs write that frame a framed text again.
    Lines that are each an object or an end mark are chunks of their own: the blank line between them is missing.
    """
    data = None if frame.data is None else with_null(frame.data)
    stray = None if frame.stray is None else with_null(frame.stray)
    if data != frame.data or stray != frame.stray:
        return [Frame(with_null_bytes(frame.raw), frame.name, data, stray)]
    if data is None:
        return []
    lines = [line.removeprefix(_AGAIN).strip() for line in data.split("\n", LIMITS.joined_chunks)]
    lines = [line for line in lines if line]
    if lines == [data] or not all(map(_WHOLE_LINE.fullmatch, lines)):
        return []
    head = f"event: {frame.name}\n" if frame.name else ""
    return [Frame(f"{head}data: {line}\n\n".encode(errors="surrogatepass"), frame.name, line, None) for line in lines]


_AGAIN: Final = "data:"
_WHOLE_LINE: Final = re.compile(r"\{.*\}|\[DONE\]")


def is_unfinished(text: str) -> bool:
    """Returns whether a JSON text ends before its brackets are closed."""
    bare = _WHOLE_STRING.sub("", text)
    return bare.count("{") + bare.count("[") > bare.count("}") + bare.count("]")


def completed_frames(frames: Iterable[Frame]) -> list[Frame]:
    """Returns the last frames of a body, which lack their blank line, as clients can read them.

    A frame gets its blank line, since another attempt's frames may follow. A frame that is cut off has no bytes.

    Args:
        frames: The frames.
    """
    completed = []
    for frame in frames:
        line = frame.raw.rstrip(b"\r\n")
        if line:
            frame = frame._replace(raw=b"" if _is_cut_off(line, frame.data) else line + b"\n\n")
        completed.append(frame)
    return completed


def _is_cut_off(raw: bytes, data: str | None) -> bool:
    """Returns whether a body's last frame is incomplete, so that clients would fail to parse it.

    If a frame has a field but no data, such as an `event` without `data`, SDKs read its data as an empty text.
    """
    if data is None:
        return _FIELD.search(raw) is not None
    return not data.strip() or is_unfinished(data)


_FIELD: Final = re.compile(rb"(?:^|[\r\n])[^:\r\n]")  # a line that is not a comment
_WHOLE_STRING: Final = re.compile(r'"(?:[^"\\]+|\\.?)*+(?:"|\Z)', re.S)


def members(text: str, *path: str) -> Iterator[str]:
    """Yields the JSON text of a member verbatim: parsing would lose digits of numbers.

    Args:
        text: A valid JSON object.
        path: The keys from the outermost object inwards. In a list, all elements are searched.
    """
    decoder = json.JSONDecoder()
    yield from _members(decoder, text, _skip(text, 0), path)


def _members(decoder: json.JSONDecoder, text: str, at: int, path: tuple[str, ...]) -> Iterator[str]:
    if not path:
        _, end = decoder.raw_decode(text, at)
        yield text[at:end]
    elif text[at] == "[":
        at = _skip(text, at + 1)
        while text[at] != "]":
            yield from _members(decoder, text, at, path)
            _, at = decoder.raw_decode(text, at)
            at = _skip(text, at)
            at = _skip(text, at + 1) if text[at] == "," else at
    elif text[at] == "{":
        at = _skip(text, at + 1)
        while text[at] != "}":
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
            if key == path[0]:
                yield from _members(decoder, text, at, path[1:])
            _, at = decoder.raw_decode(text, at)
            at = _skip(text, at)
            at = _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at
