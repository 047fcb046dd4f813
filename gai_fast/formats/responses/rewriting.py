"""Rewrites what an upstream's `response` objects say of their being kept; every other byte stays.

Owns where `store` and `previous_response_id` stand in such an object, and what is read of the last one. The members are
found by the structure of the JSON: a tool's schema may have members of the same names.

1. A member that is there gets the gateway's value. One that is missing is added at the end only if the client would
   else believe something wrong: the id of a parent, and `store: false`.
2. An object that cannot be read, such as one with a name twice, passes as it came, and is not kept.
3. Nearly all frames have OpenAI's own form, one line of data, and are read in a tenth of the time: the object is parsed
   once, and a member that it has is where the name of the member stands, if that stands there once. An object that
   begins an answer is not parsed if its bytes say already what they must.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from mypy_extensions import mypyc_attr

from gai_fast.formats._base import KeptAnswer
from gai_fast.kernels import encode_json

_MEMBER: Final = re.compile(rb'[\s,]*+("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*+:\s*+', re.S)
"""What stands before a member's value."""
_END: Final = re.compile(rb"\s*+\}")
_DATA: Final = re.compile(rb"(?:\xef\xbb\xbf)?data: ?")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_HARMLESS: Final = rb"\\u00"
_NO_ASCII: Final = bytes(range(128)) + b"?" * 128
_PLAIN: Final = re.compile(
    rb'(?:event: .*\n)?data: \{"type": ?"([a-z_.]+)"(?:, ?"sequence_number": ?[0-9]+)?, ?"response": ?'
)
_NUMBER_AT: Final = 48
"""Bytes at the end of a frame that begin before its `sequence_number`."""
_PLAIN_END: Final = re.compile(rb', ?"sequence_number": ?[0-9]+\}\n\n')
_BEGINNINGS: Final = frozenset({b"response.created", b"response.queued", b"response.in_progress"})
_ENDS: Final = frozenset({b"response.completed", b"response.incomplete", b"response.failed"})
_END_TYPE: Final = re.compile(rb'"type"\s*:\s*"response\.(?:completed|incomplete|failed)"')
_STORE: Final = b'"store"'
_PARENT: Final = b'"previous_response_id"'
_NOTHING: Final = msgspec.Raw(b"")
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@mypyc_attr(native_class=False)
class _Item(msgspec.Struct, gc=False):
    """What is read of an item."""

    id: Any = None


@mypyc_attr(native_class=False)
class _Object(msgspec.Struct, gc=False):
    """What is read of an object."""

    id: str = ""
    status: str = ""
    output: msgspec.Raw = msgspec.Raw(b"[]")
    store: msgspec.Raw = _NOTHING
    previous_response_id: msgspec.Raw = _NOTHING


_OBJECT: Final = msgspec.json.Decoder(_Object)
_ITEMS: Final = msgspec.json.Decoder(list[_Item])
_FINAL: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})


class LastObject(NamedTuple):
    """What the last `response` object of an answer says.

    Args:
        identifier: The id of the response.
        status: Its status.
        items: The ids of its items.
    """

    identifier: str
    status: str
    items: list[str]


class Rewritten(NamedTuple):
    """A frame, or a whole answer, whose object is rewritten.

    Args:
        written: Its bytes.
        response: The object in it.
        last: What the object says. None if it is not the last one of its answer, or has no id.
        is_end: The frame ends its answer.
    """

    written: bytes
    response: bytes
    last: LastObject | None
    is_end: bool


def rewrite_frame(raw: bytes, kept: KeptAnswer, *, is_kept: bool) -> Rewritten | None:
    """Rewrites a frame of SSE.

    Args:
        raw: The frame.
        kept: What the object must say of its being kept.
        is_kept: The value of `store`.

    Returns:
        The frame. None if it has no `response` object that can be read, or only one that begins the answer and says
        already what it must: it passes as it is.
    """
    plain = _PLAIN.match(raw) if raw.find(b"\r") < 0 else None
    if plain is not None and raw.endswith(b"}\n\n") and raw.find(b"\n", plain.end()) == len(raw) - 2:  # rule 3
        if is_kept and kept.parent is None and plain[1] in _BEGINNINGS and _says_so(raw):
            return None
        rewritten = _rewrite_plain(raw, plain, kept, is_kept=is_kept)
        if rewritten is not None:
            return rewritten
    lines = raw.splitlines(keepends=True)  # of bytes: at CR, LF and CRLF alone
    heads = [_DATA.match(line) for line in lines]
    texts = [_text_of(line, head) for line, head in zip(lines, heads, strict=True) if head is not None]
    data = b"\n".join(texts)
    members = members_of(data, data.find(b"{"))
    if members is None or b'"response"' not in members:
        return None
    begin, end = members[b'"response"']
    response = rewrite(data[begin:end], kept, is_kept=is_kept)
    if response is None:
        return None
    changed = iter((data[:begin] + response + data[end:]).split(b"\n"))  # no value that is written has a line end
    written = [
        line if head is None else _with_text(line, head, next(changed)) for line, head in zip(lines, heads, strict=True)
    ]
    return Rewritten(b"".join(written), response, read_last(response), _END_TYPE.search(raw) is not None)


def _rewrite_plain(raw: bytes, plain: re.Match[bytes], kept: KeptAnswer, *, is_kept: bool) -> Rewritten | None:
    """Rewrites a frame in OpenAI's own form: rule 3. Returns None if its object has another form."""
    begin, end = plain.end(), _end_of_plain(raw)
    response = raw[begin:end]
    try:
        found = _OBJECT.decode(response)
    except _UNREADABLE:
        return None
    members = (
        (_STORE, bytes(found.store), b"true" if is_kept else b"false", not is_kept),
        (_PARENT, bytes(found.previous_response_id), encode_json(kept.parent), kept.parent is not None),
    )
    for name, value, said, is_needed in members:
        if value == said or not (value or is_needed):
            continue
        at = _place(response, name, value) if value else -1
        if at < 0:
            return None
        response = b"%b%b%b" % (response[:at], said, response[at + len(value) :])
    written = b"%b%b%b" % (raw[:begin], response, raw[end:])
    return Rewritten(written, response, _last(found), plain[1] in _ENDS)


def _says_so(raw: bytes) -> bool:
    """Returns whether no object in a frame says that it is not kept, or that it has a parent."""
    if raw.find(b"\\u") >= 0:
        return False  # a name may be escaped
    return (raw.find(_STORE) < 0 or _place(raw, _STORE, b"true") >= 0) and (
        raw.find(_PARENT) < 0 or _place(raw, _PARENT, b"null") >= 0
    )


def _place(response: bytes, name: bytes, value: bytes) -> int:
    """Returns where the value of an object's member stands. -1 if its name is elsewhere too, or may be escaped."""
    at = response.find(name)
    end = at + len(name)
    if at < 0 or response.find(name, end) >= 0 or (response.find(b"\\") >= 0 and response.find(b"\\u") >= 0):
        return -1
    begin = end + (2 if response.startswith(b": ", end) else 1)
    return begin if response.startswith(b":", end) and response.startswith(value, begin) else -1


def _end_of_plain(raw: bytes) -> int:
    """Returns where the object in a frame of OpenAI's own form ends: some servers send the number after it."""
    at = raw.rfind(b",", 0, raw.rfind(b'"sequence_number"', max(0, len(raw) - _NUMBER_AT)))
    return at if at >= 0 and _PLAIN_END.fullmatch(raw, at) is not None else len(raw) - len(b"}\n\n")


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
    last = read_last(response)
    return Rewritten(raw[:begin] + response + raw[begin + len(body) :], response, last, is_end=True)


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
    return _last(found)


def _last(found: _Object) -> LastObject | None:
    if not found.id or found.status not in _FINAL:
        return None
    try:
        items: list[_Item] = _ITEMS.decode(found.output)
    except _UNREADABLE:
        items = []
    return LastObject(found.id, found.status, [each.id for each in items if isinstance(each.id, str)])
