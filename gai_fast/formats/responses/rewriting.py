"""Rewrites what an upstream's `response` objects say of their being kept; every other byte stays.

Owns where `store` and `previous_response_id` stand in such an object, and what is read of the last one. The members are
found by the structure of the JSON: a tool's schema may have members of the same names.

1. A member that is there gets the gateway's value. One that is missing is added at the end only if the client would
   else believe something wrong: the id of a parent, and `store: false`.
2. An object that cannot be read, such as one with a name twice, passes as it came, and is not kept.
3. Nearly all frames are one line of data, in which a kernel finds the members (`frame_members`); nothing is parsed but
   the id, the status and the items of the last object. What the kernel leaves is read line by line. The object of
   `response.in_progress` equals that of `response.created`, and is compared with it. Of a frame of OpenAI's own form
   that begins an answer not even that is needed, if a search finds no other value than the gateway's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from mypy_extensions import mypyc_attr

from gai_fast.formats._base import KeptAnswer
from gai_fast.formats._passthrough import well_formed
from gai_fast.kernels import encode_json, frame_members

_MEMBER: Final = re.compile(rb'[\s,]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*+:\s*+', re.S)
"""Matches a member's name and the colon, up to its value."""
_END: Final = re.compile(rb"\s*+\}")
_DATA: Final = re.compile(rb"(?:\xef\xbb\xbf)?data: ?")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_HARMLESS: Final = rb"\\u00"
_NO_ASCII: Final = bytes(range(128)) + b"?" * 128
_RESPONSE: Final = b'"response"'
# Tuples of any length: mypyc makes one of a fixed length for each call of a kernel.
_OUTER: Final[tuple[bytes, ...]] = (b"type", b"response")
_OUTER_PLACES: Final = 2 * len(_OUTER)
_INNER: Final[tuple[bytes, ...]] = (b"id", b"status", b"output", b"store", b"previous_response_id")
"""The members that `rewrite_frame` reads, whose places it has in this order."""
_BEGINNINGS: Final[tuple[bytes, ...]] = (
    b'event: response.created\ndata: {"type":"response.created",',
    b'event: response.in_progress\ndata: {"type":"response.in_progress",',
    b'event: response.queued\ndata: {"type":"response.queued",',
)
"""Of frames that do not end an answer, whatever their object says."""
_AS_KEPT: Final[tuple[bytes, ...]] = (b'"store":true', b'"previous_response_id":null')
_OTHERWISE: Final[tuple[bytes, ...]] = ()
_ENDS: Final = frozenset({b'"response.completed"', b'"response.incomplete"', b'"response.failed"'})
_END_TYPE: Final = re.compile(rb'"type"\s*:\s*"response\.(?:completed|incomplete|failed)"')
_STORE: Final = b'"store"'
_PARENT: Final = b'"previous_response_id"'
_NOTHING: Final = msgspec.Raw(b"")
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@mypyc_attr(native_class=False)
class _Item(msgspec.Struct, gc=False):
    """The members of an item that are read."""

    id: str = ""


@mypyc_attr(native_class=False)
class _Object(msgspec.Struct, gc=False):
    """The members of a `response` object that are read."""

    id: msgspec.Raw = _NOTHING
    status: msgspec.Raw = _NOTHING
    output: msgspec.Raw = _NOTHING


_OBJECT: Final = msgspec.json.Decoder(_Object)
_ITEMS: Final = msgspec.json.Decoder(list[_Item])
_TEXT: Final = msgspec.json.Decoder(str)
_FINAL: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
_STATES: Final = {b'"%b"' % each.encode(): each for each in ("queued", "in_progress", *sorted(_FINAL))}
"""By their JSON text, the states that nearly all objects have."""


class LastObject:
    """The members of the last `response` object of an answer that are used.

    Args:
        identifier: The id of the response.
        status: Its status.
        items: The ids of its items.
    """

    def __init__(self, identifier: str, status: str, items: list[str]) -> None:
        self.identifier = identifier
        self.status = status
        self.items = items


class Rewritten:
    """A frame, or a whole answer, whose object is rewritten.

    Args:
        written: Its bytes.
        given: The object in it, as the upstream has written it.
        response: The object in it now.
        last: What the object says. None if it is not the last one of its answer, or has no id.
        is_end: The frame ends its answer.
    """

    def __init__(self, written: bytes, given: bytes, response: bytes, last: LastObject | None, is_end: bool) -> None:
        self.written = written
        self.given = given
        self.response = response
        self.last = last
        self.is_end = is_end


def rewrite_frame(raw: bytes, kept: KeptAnswer, *, is_kept: bool, before: Rewritten | None = None) -> Rewritten | None:
    """Rewrites a frame of SSE.

    Args:
        raw: The frame.
        kept: What the object must say of its being kept.
        is_kept: The value of `store`.
        before: A frame of this answer that did not end it. An object that equals the one in it is not read again.

    Returns:
        The frame. None if it passes as it is: it has no `response` object that can be read, or begins the answer and
        says what it must.
    """
    as_kept = _AS_KEPT if is_kept and kept.parent is None else _OTHERWISE
    places = frame_members(raw, _OUTER, _INNER, b"" if before is None else before.given, _BEGINNINGS, as_kept)
    if places is None:
        return _rewrite_lines(raw, kept, is_kept=is_kept)
    if not places:  # nearly all
        return None
    begin, end = places[2], places[3]
    is_end = raw[places[0] : places[1]] in _ENDS
    if before is not None and len(places) == _OUTER_PLACES:
        if is_end:
            return rewrite_frame(raw, kept, is_kept=is_kept)
        said = before.response
        written = raw if said == before.given else b"%b%b%b" % (raw[:begin], said, raw[end:])
        return Rewritten(written, before.given, said, None, is_end)
    changes: list[tuple[int, int, bytes]] = []
    store, parent = places[10], places[12]
    if (store < 0 and not is_kept) or (parent < 0 and kept.parent is not None):
        return _rewrite_lines(raw, kept, is_kept=is_kept)
    said = b"true" if is_kept else b"false"
    if store >= 0 and raw[store : places[11]] != said:
        changes.append((store, places[11], said))
    said = b"null" if kept.parent is None else encode_json(kept.parent)
    if parent >= 0 and raw[parent : places[13]] != said:
        changes.append((parent, places[13], said))
    last = _read_last(raw[places[4] : places[5]], raw[places[6] : places[7]], raw[places[8] : places[9]])
    given = raw[begin:end]
    if not changes:
        return Rewritten(raw, given, given, last, is_end)
    written = raw
    for at, stop, said in sorted(changes, reverse=True):
        written = b"%b%b%b" % (written[:at], said, written[stop:])
    return Rewritten(written, given, written[begin : end + len(written) - len(raw)], last, is_end)


def _rewrite_lines(raw: bytes, kept: KeptAnswer, *, is_kept: bool) -> Rewritten | None:
    """Rewrites a frame of any form; as `rewrite_frame`."""
    if raw.find(_RESPONSE) < 0:
        return None
    given = raw if raw.isascii() else well_formed(raw)
    lines = given.splitlines(keepends=True)  # of bytes: at CR, LF and CRLF alone
    heads = [_DATA.match(line) for line in lines]
    texts = [_text_of(line, head) for line, head in zip(lines, heads, strict=True) if head is not None]
    data = b"\n".join(texts)
    members = members_of(data, data.find(b"{"))
    if members is None or _RESPONSE not in members:
        return None
    begin, end = members[_RESPONSE]
    response = rewrite(data[begin:end], kept, is_kept=is_kept)
    if response is None:
        return None
    changed = iter((data[:begin] + response + data[end:]).split(b"\n"))  # no value that is written has a line end
    written = [
        line if head is None else _with_text(line, head, next(changed)) for line, head in zip(lines, heads, strict=True)
    ]
    is_end = _END_TYPE.search(given) is not None
    return Rewritten(b"".join(written), data[begin:end], response, read_last(response), is_end)


def _text_of(line: bytes, head: re.Match[bytes]) -> bytes:
    return line[head.end() :].rstrip(b"\r\n")


def _with_text(line: bytes, head: re.Match[bytes], text: bytes) -> bytes:
    return head[0] + text + line[len(line.rstrip(b"\r\n")) :]


def rewrite_whole(raw: bytes, kept: KeptAnswer, *, is_kept: bool) -> Rewritten | None:
    """Rewrites a whole answer. Returns None if it cannot be read: it passes as it is.

    Args:
        raw: The answer, perhaps with a byte order mark.
        kept: What the object must say of its being kept.
        is_kept: The value of `store`.
    """
    begin = raw.find(b"{")
    body = raw[begin:].rstrip()
    response = rewrite(body, kept, is_kept=is_kept)
    if begin < 0 or response is None:
        return None
    written = raw[:begin] + response + raw[begin + len(body) :]
    return Rewritten(written, body, response, read_last(response), is_end=True)


def rewrite(response: bytes, kept: KeptAnswer, *, is_kept: bool) -> bytes | None:
    """Rewrites an object of any form. Returns None if it cannot be read.

    Args:
        response: The object, as JSON.
        kept: What the object must say of its being kept.
        is_kept: The value of `store`.
    """
    members = members_of(response, 0)
    if members is None:
        return None
    missing = {_STORE: not is_kept, _PARENT: kept.parent is not None}
    values = {_STORE: b"true" if is_kept else b"false", _PARENT: encode_json(kept.parent)}
    found = sorted((members[name], value) for name, value in values.items() if name in members)
    added = [
        b"%b:%b" % (name, values[name]) for name, is_needed in missing.items() if is_needed and name not in members
    ]
    pieces: list[bytes] = []
    at = 0
    for (begin, end), value in found:
        pieces += (response[at:begin], value)
        at = end
    last = max((end for _, end in members.values()), default=1)
    if added:
        pieces += (response[at:last], b"," if members else b"", b",".join(added))
        at = last
    pieces.append(response[at:])
    return b"".join(pieces)


def members_of(text: bytes, at: int) -> Mapping[bytes, tuple[int, int]] | None:
    """Returns where the values of an object stand, by their names with quotes. None if the text has no such object.

    Args:
        text: JSON with an object that ends it.
        at: Where the object begins.
    """
    if at < 0 or not text.startswith(b"{", at):
        return None
    # Both lines keep the length: places in `plain` are places in `text`.
    plain = text if text.isascii() else text.translate(_NO_ASCII)
    plain = _SURROGATE.sub(_HARMLESS, plain) if plain.find(b"\\u") >= 0 else plain
    try:
        values = _RAW.decode(plain[at:])
    except _UNREADABLE:
        return None
    found: dict[bytes, tuple[int, int]] = {}
    at += 1
    for value in values.values():
        name = _MEMBER.match(plain, at)
        if name is None or not plain.startswith(bytes(value), name.end()):
            return None  # a name twice
        at = name.end() + len(bytes(value))
        found[name[1]] = name.end(), at
    return found if _END.match(plain, at) is not None else None


def read_last(response: bytes) -> LastObject | None:
    """Reads an object. Returns None if it is not the last one of its answer, or has no id.

    Args:
        response: The object, as JSON.
    """
    try:
        found = _OBJECT.decode(response)
    except _UNREADABLE:
        return None
    return _read_last(bytes(found.id), bytes(found.status), bytes(found.output))


def _read_last(identifier: bytes, status: bytes, output: bytes) -> LastObject | None:
    """Reads an object; as `read_last`.

    Args:
        identifier: The JSON text of its id; empty if it has none, as the others.
        status: Of its status.
        output: Of its items.
    """
    state = _STATES.get(status) or _text(status)
    if state not in _FINAL:
        return None
    name = _text(identifier)
    return LastObject(name, state, _ids_of(output)) if name else None


def _text(value: bytes) -> str:
    """Returns a JSON text; an empty one for any other value."""
    try:
        return _TEXT.decode(value)
    except _UNREADABLE:
        return ""


def _ids_of(output: bytes) -> list[str]:
    """Returns the ids of items that are texts."""
    try:
        return [each.id for each in _ITEMS.decode(output) if each.id]
    except _UNREADABLE:
        pass
    try:
        items: Any = msgspec.json.decode(output)  # an id may be no text
    except _UNREADABLE:
        return []
    found = [each.get("id") for each in items if isinstance(each, dict)] if isinstance(items, list) else []
    return [each for each in found if isinstance(each, str) and each]
