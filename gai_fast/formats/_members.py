"""Reads members of a client's JSON object and checks their types, for the request readers of all dialects.

Owns the text of a refusal: it names the member by its path from `$` and quotes no value. Knows no dialect.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.json.structure import Structure
from gai_fast.core.requests.reading import parse_request
from gai_fast.core.requests.shapes import CACHE_MARKS
from gai_fast.formats.limits import LIMITS
from gai_fast.kernels import compact_json, encode_json
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.events import JSONText
from gai_fast.model.limits import SHARED
from gai_fast.model.request import CheckedBody, Request
from gai_fast.runtime.breathing import breathe

_JSON_TYPES: Final = {str: "str", dict: "object", list: "array", bool: "bool", int: "int", float: "float"}


def member(holder: dict[str, Any], key: str, path: str, kind: type, other: type | None = None) -> Any:
    """Returns a member, or None if it is absent or null.

    Args:
        holder: The object.
        key: The member's name.
        path: The object's path.
        kind: The type that the member must have.
        other: A second type that it may have.

    Raises:
        InvalidRequest: The member has none of the types.
    """
    # Two types instead of `*kinds`: a tuple costs 170 instructions, and a request is searched for twenty members.
    value = holder.get(key)
    if value is not None and type(value) is not kind and type(value) is not other:
        raise _unexpected(value, f"{path}.{key}", kind, other)
    return value


def required(holder: dict[str, Any], key: str, path: str, kind: type, other: type | None = None) -> Any:
    """Returns a mandatory member; the arguments are those of `member`.

    Raises:
        InvalidRequest: The member is absent, null, or has none of the types.
    """
    value = holder.get(key)
    if value is None:
        raise invalid(f"Object missing required field `{key}`", path)
    if type(value) is not kind and type(value) is not other:
        raise _unexpected(value, f"{path}.{key}", kind, other)
    return value


def check_types(holder: dict[str, Any], path: str, kinds: Mapping[str, type]) -> None:
    """Checks the types of members that are not read.

    Args:
        holder: The object.
        path: The object's path.
        kinds: The type of each member, which may be absent.

    Raises:
        InvalidRequest: A member has another type.
    """
    for key, kind in kinds.items():
        if key in holder:
            member(holder, key, path, kind)


def require_type(value: Any, path: str, kind: type, other: type | None = None) -> None:
    """Checks the type of a value.

    Raises:
        InvalidRequest: The value has none of the types.
    """
    breathe()  # each message, part, call and tool passes here
    if type(value) is not kind and type(value) is not other:
        raise _unexpected(value, path, kind, other)


def _unexpected(value: Any, path: str, kind: type, other: type | None) -> InvalidRequest:
    """Returns the refusal of a value whose exact type is neither of two: `True` is not an `int` here."""
    expected = _JSON_TYPES[kind] if other is None else f"{_JSON_TYPES[kind]} | {_JSON_TYPES[other]}"
    return invalid(f"Expected `{expected}`, got `{_JSON_TYPES.get(type(value), 'null')}`", path)


def unknown_members(holder: dict[str, Any], path: str, known: Iterable[str]) -> list[str]:
    """Returns the paths, without `$.`, of an object's members that its reader does not know; nulls count as absent.

    Args:
        holder: The object.
        path: The object's path.
        known: The names of the members that the reader knows.
    """
    return [f"{path}.{key}"[2:] for key, value in holder.items() if key not in known and value is not None]


def unserved_members(body: dict[str, Any], known: Iterable[str], neutral: Mapping[str, Sequence[Any]]) -> list[str]:
    """Returns the names of a request's members that its reader does not know and that do not ask for the default.

    Args:
        body: The client's JSON object.
        known: The names of the members that the reader knows.
        neutral: The values of other members that ask for the default.
    """
    return [name for name in unknown_members(body, "$", known) if body[name] not in neutral.get(name, ())]


def with_items(body: dict[str, Any], name: str, items: Iterable[Any]) -> dict[str, Any]:
    """Returns a copy of a client's body with more items at the end of a list.

    Args:
        body: The client's JSON object.
        name: The list's name.
        items: The items.

    Raises:
        InvalidRequest: The member is no list.
    """
    return {**body, name: [*(member(body, name, "$", list) or ()), *items]}


def invalid(what: str, path: str) -> InvalidRequest:
    """Returns the refusal of a request.

    Args:
        what: The fault; must not quote a value of the client's.
        path: The path of the fault.
    """
    return InvalidRequest(message=f"The request is not valid: {what} - at `{path}`", reason="validation")


def read_native(native: dict[str, Any], moved: Mapping[str, str]) -> Request:
    """Parses the native request that a client's request was translated into.

    Args:
        native: The native request's JSON object.
        moved: Maps the paths of native members to the client's paths for them; members inside them move along.

    Raises:
        InvalidRequest: The request breaks a rule of native requests; the text names the client's own member.
    """
    text = encode_json(native)
    if len(text) > LIMITS.long_request:
        read_text(Structure(SHARED.json_depth), text)
        text = CheckedBody(text)
    try:
        return parse_request(text)
    except InvalidRequest as problem:
        place = _PLACE.search(problem.message)
        if place is None:
            raise
        own = _own_path(place[1], moved)
        raise InvalidRequest(message=problem.message[: place.start(1)] + own + "`", reason=problem.reason) from None


def read_text(structure: Structure, text: bytes) -> None:
    """Reads a whole JSON text in pieces; the loop may go on after each.

    Args:
        structure: Reads it.
        text: The text.

    Raises:
        InvalidRequest: As `Structure.feed`.
    """
    for start in range(0, len(text), LIMITS.parsed_bytes):
        breathe()
        structure.feed(text[start : start + LIMITS.parsed_bytes])
    structure.feed_whole(b"")  # the next text is another one


# The text of a native refusal may list the known values. They are dropped: other dialects have other values.
_PLACE: Final = re.compile(r"at `(\$[^`]*)`(?:; known: .*)?\Z")


def _own_path(path: str, moved: Mapping[str, str]) -> str:
    for native, own in moved.items():
        if path == native or path.startswith((f"{native}.", f"{native}[")):
            return own + path.removeprefix(native)
    return path


@mypyc_attr(allow_interpreted_subclasses=True)
class DialectReader(ABC):
    """Reads one request; each dialect has a subclass.

    Nulls count as absent. A reader checks members whose shape it changes; the native request checks the rest.

    Args:
        moved: As for `read_native`, or None for an empty mapping.

    Attributes:
        late_mark: The latest mark of a cached part that a native request has no place for, and the number of messages
            up to it. None if there is none.
        lost: The paths of the client's members that a native request cannot express, in their order.
        moved: The argument; a reader adds paths to it.
        inputs: Reads the arguments of calls.
    """

    def __init__(self, moved: dict[str, str] | None = None) -> None:
        self.late_mark: tuple[int, Mapping[str, Any]] | None = None
        self.lost: list[str] = []
        self.inputs = CallInputs()
        self.moved: dict[str, str] = {} if moved is None else moved

    @abstractmethod
    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the native request's JSON object.

        Args:
            body: The client's JSON object.
        """

    def request(self, body: dict[str, Any]) -> tuple[Request, list[str]]:
        """Returns the native request, and `lost`.

        Args:
            body: The client's JSON object.

        Raises:
            InvalidRequest: The text names the client's member by its path.
        """
        native = self.read(body)
        if self.late_mark is not None:
            self._place_mark(native["messages"], *self.late_mark)
        return read_native(native, self.moved), self.lost

    def _place_mark(self, messages: list[dict[str, Any]], count: int, mark: Mapping[str, Any]) -> None:
        """Marks the last part that may be marked. Without any mark a request would have other bytes than its next turn.

        Args:
            messages: The native messages.
            count: The number of messages that may be marked.
            mark: As `cache_mark` returns it.
        """
        for at in range(min(count, len(messages)) - 1, -1, -1):
            message = messages[at]
            content = message["content"]
            if isinstance(content, str) and content:
                message["content"] = [{"type": "text", "text": content, **mark}]
                return
            if not isinstance(content, str) and mark_last(content, mark):
                return


def cache_mark(holder: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns the `cache` of a part, a message or a tool, from one of `CACHE_MARKS`.

    Args:
        holder: The part, the message or the tool.
        path: Its path.
    """
    if "cache_control" not in holder and "prompt_cache_breakpoint" not in holder:
        return {}  # most: 900 instructions less
    for name in CACHE_MARKS:
        mark = member(holder, name, path, dict)
        if mark is not None:
            ttl = member(mark, "ttl", f"{path}.{name}", str)
            return {"cache": True if ttl is None else {"ttl": ttl}}
    return {}


_MARKED: Final = frozenset(("text", "image", "file"))
"""The native parts that may end a cached part of the prompt."""


def mark_last(parts: Sequence[dict[str, Any]], mark: Mapping[str, Any]) -> bool:
    """Marks the last part that may end a cached prefix: the meaning of a mark at a message. Returns if there is one.

    Args:
        parts: Native parts.
        mark: As `cache_mark` returns it.
    """
    marked = next((part for part in reversed(parts) if part["type"] in _MARKED), None)
    if marked is not None:
        marked.update(mark)
    return marked is not None


def data_url(url: str, path: str) -> dict[str, str]:
    """Splits a `data:` URL (RFC 2397); only base64 is accepted.

    Args:
        url: The URL.
        path: The URL's path in the request.

    Returns:
        `data` and `media_type`.

    Raises:
        InvalidRequest: The URL has another form.
    """
    head, comma, data = url.partition(",")
    scheme, _, media = head.partition(":")
    media_type, *parameters = media.split(";")
    if scheme != "data" or not comma or "base64" not in parameters or not media_type:
        raise invalid("Expected a URL of the form `data:<media type>;base64,<data>`", path)
    return {"data": data, "media_type": media_type}


class CallInputs:
    """Reads the arguments of the calls of one request: JSON in strings, which the limits of the body do not cover.

    The structure of long arguments is checked before they are parsed, as a body's is.
    """

    def __init__(self) -> None:
        self._characters = 0
        self._structure: Structure | None = None

    def read(self, text: str) -> str | JSONText:
        """Returns the input of a call: compact JSON, or the text unchanged if it is not JSON.

        Args:
            text: The arguments in the dialect's form; blank text means no arguments.

        Raises:
            InvalidRequest: The arguments of the request have too many values.
        """
        self._characters += len(text)
        if self._characters > LIMITS.short_arguments and self._is_deep(text):
            return text
        compact = compact_json(text) if text.strip() else "{}"
        return text if compact is None else JSONText(compact, None)

    def _is_deep(self, text: str) -> bool:
        """Returns whether a text is nested deeper than JSON that is parsed. Raises as `read`."""
        if self._structure is None:
            self._structure = Structure(SHARED.arguments_depth)
        try:
            self._structure.feed_whole(text.encode())
        except InvalidRequest as problem:
            if problem.reason != "depth":
                raise
            return True
        return False
