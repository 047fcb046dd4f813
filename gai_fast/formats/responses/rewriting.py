"""Rewrites what an upstream's `response` objects say of their being kept; every other byte stays.

Owns where `store` and `previous_response_id` stand in such an object, and what is read of the last one. The members are
found by the structure of the JSON: a tool's schema may have members of the same names.

1. A member that is there gets the gateway's value. One that is missing is added at the end only if the client would
   else believe something wrong: the id of a parent, and `store: false`.
2. An object that cannot be read, such as one with a name twice, passes as it came, and is not kept.
3. OpenAI's own form is found in a tenth of the time: its frames have one line of data. A
   name there is the object's own if what stands before it is a whole object but for its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec

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
    rb'(?:event: [^\r\n]*\n)?data: \{"type": ?"[a-z_.]+"(?:, ?"sequence_number": ?[0-9]+)?, ?"response": ?'
)
_PLAIN_END: Final = re.compile(rb', ?"sequence_number": ?[0-9]+\}\n\n')
_ONCE: Final = {
    b'"store"': re.compile(rb'"store": ?(true|false|null)(?=[,}])'),
    b'"previous_response_id"': re.compile(rb'"previous_response_id": ?(null|"[^"\\]*+")(?=[,}])'),
}
_TRIES: Final = 8
"""How often a name may stand in an object in OpenAI's own form."""
_ANY: Final = msgspec.json.Decoder(msgspec.Raw)
_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Item(msgspec.Struct, gc=False):
    """What is read of an item."""

    id: Any = None


class _Last(msgspec.Struct, gc=False):
    """What is read of the last object."""

    id: str
    status: str = ""
    output: msgspec.Raw = msgspec.Raw(b"[]")


_LAST: Final = msgspec.json.Decoder(_Last)
_ITEMS: Final = msgspec.json.Decoder(list[_Item])
_FINAL: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})


class Rewritten(NamedTuple):
    """A frame, or a whole answer, whose object is rewritten.

    Args:
        written: Its bytes.
        response: The object in it.
    """

    written: bytes
    response: bytes


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


def rewrite_frame(raw: bytes, kept: KeptAnswer, *, is_kept: bool) -> Rewritten | None:
    """Rewrites a frame of SSE.

    Args:
        raw: The frame.
        kept: What the object must say of its being kept.
        is_kept: The value of `store`.

    Returns:
        The frame. None if it has no `response` object that can be read: it passes as it is.
    """
    plain = _PLAIN.match(raw)
    if plain is not None and raw.endswith(b"}\n\n") and raw.find(b"\n", plain.end()) == len(raw) - 2:  # rule 3
        begin, end = plain.end(), _end_of_plain(raw)
        response = rewrite(raw[begin:end], kept, is_kept=is_kept, is_fast=True)
        if response is not None:
            return Rewritten(raw[:begin] + response + raw[end:], response)
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
    return Rewritten(b"".join(written), response)


def _end_of_plain(raw: bytes) -> int:
    """Returns where the object in a frame of OpenAI's own form ends: some servers send the number after it."""
    at = raw.rfind(b",", 0, raw.rfind(b'"sequence_number"'))
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
    return Rewritten(raw[:begin] + response + raw[begin + len(body) :], response)


def rewrite(response: bytes, kept: KeptAnswer, *, is_kept: bool, is_fast: bool = False) -> bytes | None:
    """Rewrites an object. Returns None if it cannot be read.

    Args:
        response: The object, as JSON.
        kept: What the object must say of its being kept.
        is_kept: The value of `store`.
        is_fast: Whether only an object in OpenAI's own form is read: rule 3. Further members may follow it then.
    """
    missing = {b'"store"': not is_kept, b'"previous_response_id"': kept.parent is not None}
    members = _members_once(response)
    if members is None or any(is_needed and name not in members for name, is_needed in missing.items()):
        members = None if is_fast else members_of(response, 0)
    if members is None or (is_fast and not _is_whole(response)):
        return None
    values = {b'"store"': b"true" if is_kept else b"false", b'"previous_response_id"': encode_json(kept.parent)}
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


def _members_once(response: bytes) -> Mapping[bytes, tuple[int, int]] | None:
    """Returns where the two values stand in an object in OpenAI's own form: rule 3. None if it has another form.

    A value whose name is nowhere in the object is left out.
    """
    found: dict[bytes, tuple[int, int]] = {}
    for name, pattern in _ONCE.items():
        at, tries = response.find(name), 0
        if at < 0:
            continue
        while at >= 0:
            tries += 1
            value = pattern.match(response, at)
            if tries > _TRIES or (value is not None and name in found and _is_own(response, at)):
                return None
            if value is not None and name not in found and _is_own(response, at):
                found[name] = value.span(1)
            at = response.find(name, at + 1)
        if name not in found:
            return None
    return found


def _is_own(response: bytes, at: int) -> bool:
    """Returns whether a name in an object is one of its own members': rule 3."""
    return _is_whole(response[:at].rstrip(b", ") + b"}")


def _is_whole(text: bytes) -> bool:
    """Returns whether a text is one JSON value, with nothing after it."""
    try:
        _ANY.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def members_of(text: bytes, at: int) -> Mapping[bytes, tuple[int, int]] | None:
    """Returns where the values of an object stand, by their names with quotes. None if the text has no such object.

    Args:
        text: JSON with an object that ends it.
        at: Where the object begins.
    """
    if at < 0 or not text.startswith(b"{", at):
        return None
    plain = text if text.isascii() else text.translate(_NO_ASCII)  # keeps the length, as does the next line: places in it are places in `text`
    plain = _SURROGATE.sub(_HARMLESS, plain) if plain.find(b"\\u") >= 0 else plain
    try:
        values = _RAW.decode(plain[at:])
    except msgspec.DecodeError:
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
    items: list[_Item] = []
    try:
        last = _LAST.decode(response)
    except msgspec.DecodeError:
        return None
    if not last.id or last.status not in _FINAL:
        return None
    with suppress(msgspec.DecodeError):
        items = _ITEMS.decode(last.output)
    return LastObject(last.id, last.status, [each.id for each in items if isinstance(each.id, str)])
