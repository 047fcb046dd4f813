"""Finds the ids of what an upstream stores in a form that passes through: a caller may name only its own.

Owns which fields of a form are looked at. `core/stored_ids.py` has their names, `admission/stored_ids.py` the refusals.

1. A form is read as the most lenient server would: every line with a part's disposition begins a part, whatever the
   boundary is. A file with such a line is refused at worst.
2. The form is not kept: only the head of a part and the value of a field with ids are, within limits.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote_plus, unquote_to_bytes

from gai_fast.core.stored_ids import FIELDS, StoredId
from gai_fast.model.errors import Error
from gai_fast.server.limits import LIMITS

_BEGIN: Final = b"content-disposition"
_LINE_END: Final = re.compile(rb"\r?\n(?![ \t])|\r(?![ \t\n])")
_NAME: Final = re.compile(rb""";\s*name(\*[0-9]*\*?)?\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s]*)""", re.IGNORECASE)
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n|\r\r(?!\n)")
_VALUE_END: Final = re.compile(rb"[\r\n]+--")


class FormIds:
    """Reads one form, in pieces.

    Args:
        content_type: The header of its body.
    """

    __slots__ = ("_held", "_is_multipart")

    def __init__(self, content_type: str) -> None:
        self._is_multipart = content_type.lower().lstrip().startswith("multipart/")
        self._held = b""

    def feed(self, data: bytes, *, is_last: bool = False) -> list[StoredId]:
        """Reads the next bytes. Returns the ids in them; those of a field that has not ended come later.

        Args:
            data: The bytes.
            is_last: Whether the form ends with them.

        Raises:
            Error: The head of a part, or an id, is longer than `limits.form_head`.
        """
        data = self._held + data
        found: list[StoredId] = []
        read = _read_parts if self._is_multipart else _read_pairs
        self._held = read(data, found, is_last)
        if len(self._held) > LIMITS.form_head + len(_BEGIN):
            text = f"the head of a part, or an id, of the form is longer than {LIMITS.form_head} bytes"
            raise Error("invalid_request", text, reason="form")
        return found


def _read_parts(data: bytes, found: list[StoredId], is_last: bool) -> bytes:
    """Reads the fields of a form of several parts. Returns the bytes of one that has not ended."""
    lowered, at = data.lower(), 0
    while (at := lowered.find(_BEGIN, at)) >= 0:
        line = _LINE_END.search(data, at)
        if line is None or (line.end() == len(data) and not is_last):
            return b"" if is_last else data[at:]
        name = _name_in(data[at : line.start()])
        if name in FIELDS:
            head = _HEAD_END.search(data, line.start())
            value = None if head is None else _VALUE_END.search(data, head.end())
            if value is None and not is_last:
                return data[at:]
            if head is not None:
                text = data[head.end() : None if value is None else value.start()]
                found.append(StoredId(name, text.decode("utf-8", "replace").strip()))
        at = line.start()
    return data[-len(_BEGIN) :]


def _name_in(disposition: bytes) -> str:
    """Returns the name of a part's field. The pieces of a name in several (RFC 2231) are joined."""
    name = b""
    for extended, value in _NAME.findall(disposition):
        if value.startswith(b'"'):
            value = re.sub(rb"\\(.)", rb"\1", value[1:-1])
        name += unquote_to_bytes(value.rpartition(b"'")[2]) if extended else value
    return _field(name.decode("utf-8", "replace"))


def _read_pairs(data: bytes, found: list[StoredId], is_last: bool) -> bytes:
    """Reads the fields of a form in the form of a query; as `_read_parts`."""
    end = len(data) if is_last else data.rfind(b"&") + 1
    for name, value in parse_qsl(data[:end].decode("utf-8", "replace")):
        if _field(name) in FIELDS:
            found.append(StoredId(_field(name), value.strip()))
    name, equals, value = data[end:].decode("utf-8", "replace").partition("=")
    if not equals:
        return data[end:]
    name = _field(unquote_plus(name))
    if name in FIELDS:
        found.append(StoredId(name, unquote_plus(value)))  # the form may end here, and be sent before that is known
        return data[end:]
    return b"="  # nothing is kept of another value


def _field(name: str) -> str:
    return name.strip().removesuffix("[]")
