"""Finds fields in a form that passes through: the ids of what an upstream stores, of which a caller may name only its
own; or the models that it names, of which a caller may use only some.

Owns how a form is read. `core/requests/stored_ids.py` has the names of ids, `admission/further_models.py` those of
models, `admission/stored_ids.py` the refusals.

1. A form is read as the most lenient server would: a part begins wherever a disposition does, whatever the boundary is,
   and a field has every name that its head can be read to give it.
2. The head of a part with ids is refused if servers read it differently: other ends of lines than CRLF, which say
   where the id begins; a name that is encoded or in pieces, which no client of these routes sends. A file that has such
   a head in it is refused at worst.
3. The form is not kept: only the head of a part and the value of a field with ids are, within limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_plus

from gai_fast.core.requests.stored_ids import FIELDS, StoredId
from gai_fast.model.errors import Error
from gai_fast.server.limits import LIMITS

_BEGIN: Final = b"content-disposition"
_HEAD_END: Final = b"\r\n\r\n"
_BARE_END: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_NAME: Final = re.compile(
    rb"""(?<![\w-])name(\s*\*[0-9*]*)?\s*=\s*"""
    rb"""(?:(?="((?:[^"\\]|\\.)*)"))?(?=['"]?([^'";,\s]*))""",
    re.IGNORECASE | re.DOTALL,
)
"""A name, with the mark of an encoded one; it is quoted or not. It takes no value: another name may be in it."""
_ENCODED: Final = b"=?"
"""Begins an encoded word (RFC 2047), which Java's servers read in names, and which may hold a name in pieces."""
_MOST_NAMES: Final = 4
"""Names in the head of a part: it has one, and a file's name may look like others."""
_VALUE_END: Final = re.compile(rb"[\r\n]--")
_PIECES: Final = re.compile(r"[\[\].\x00-\x20\x7f]+")
_MEMBERS: Final = {name.lower(): name for name in FIELDS}
"""By lower-case name: to ASP.NET, names of fields have no case."""


Wanted = Callable[[str], str | None]
"""Returns the member for a name of a field, or for a piece of one, in lower case. None if it is not looked for."""


class FormIds:
    """Reads one form, in pieces.

    Args:
        content_type: The header of its body.
        wanted: As `Wanted`; by default the members with ids.
    """

    __slots__ = ("_held", "_is_multipart", "_wanted")

    def __init__(self, content_type: str, wanted: Wanted = _MEMBERS.get) -> None:
        self._is_multipart = content_type.lower().lstrip().startswith("multipart/")
        self._wanted = wanted
        self._held = b""

    def feed(self, data: bytes, *, is_last: bool = False) -> list[StoredId]:
        """Reads the next bytes. Returns the ids in them; those of a field that has not ended come later.

        Args:
            data: The bytes.
            is_last: Whether the form ends with them.

        Raises:
            Error: The head of a part, or an id, is longer than `limits.form_head`; or rule 2.
        """
        data = self._held + data
        found: list[StoredId] = []
        read = _read_parts if self._is_multipart else _read_pairs
        self._held = read(data, found, is_last, self._wanted)
        if len(self._held) > LIMITS.form_head + len(_BEGIN):
            raise _too_long()
        return found


def _read_parts(data: bytes, found: list[StoredId], is_last: bool, wanted: Wanted) -> bytes:
    """Reads the fields of a form of several parts. Returns the bytes of an incomplete field."""
    lowered, at, most = data.lower(), 0, LIMITS.form_head
    while (begin := lowered.find(_BEGIN, at)) >= 0:
        head_end = data.find(_HEAD_END, begin, begin + most)
        if head_end < 0 and not is_last:
            return data[begin:]
        at = len(data) if head_end < 0 else head_end
        if at - begin > most:
            raise _too_long()
        head = data[begin:at]
        names = _names_in(head, wanted)
        if not names:
            continue
        if head_end < 0 or _BARE_END.search(head):
            raise _unclear()
        start = head_end + len(_HEAD_END)
        value = _VALUE_END.search(data, start, start + most)
        if value is None and not is_last:
            return data[begin:]
        at = len(data) if value is None else value.start()
        if at - start > most:
            raise _too_long()
        identifier = data[start:at].decode("utf-8", "replace").strip()
        if identifier:
            found += [StoredId(name, identifier) for name in names]
    return data[max(at, len(data) - len(_BEGIN)) :]


def _names_in(head: bytes, wanted: Wanted) -> list[str]:
    """Returns the members that the head of a part can be read to name.

    Raises:
        Error: Rule 2.
    """
    named = list(islice(_NAME.finditer(head), _MOST_NAMES + 1))
    if len(named) > _MOST_NAMES or any(each[1] is not None for each in named):
        raise _unclear()
    values = [value for each in named for value in each.group(2, 3) if value]
    if any(_ENCODED in value for value in values):
        raise _unclear()
    texts = [unquote(re.sub(rb"\\(.)", rb"\1", value).decode("utf-8", "replace")) for value in values]
    return list(dict.fromkeys([member for text in texts for member in _members(text, wanted)]))


def _read_pairs(data: bytes, found: list[StoredId], is_last: bool, wanted: Wanted) -> bytes:
    """Reads the fields of a form in the form of a query; as `_read_parts`."""
    data = data.replace(b";", b"&")  # to some servers it separates fields as well
    end = len(data) if is_last else data.rfind(b"&") + 1
    for name, value in parse_qsl(data[:end].decode("utf-8", "replace")):
        found += [StoredId(member, value.strip()) for member in _members(name, wanted)]
    rest = data[end:]
    name, equals, _ = rest.decode("utf-8", "replace").partition("=")
    return b"=" if equals and not _members(unquote_plus(name), wanted) else rest  # nothing is kept of another value


def _members(name: str, wanted: Wanted) -> list[str]:
    """Returns the members in the name of a field: `images[0][file_id]` has one."""
    return [member for piece in _PIECES.split(name.lower()) if (member := wanted(piece)) is not None]


def _too_long() -> Error:
    text = f"the head of a part, or an id, of the form is longer than {LIMITS.form_head} bytes"
    return Error("invalid_request", text, reason="form")


def _unclear() -> Error:
    text = "the head of a part of the form is not clear: send one plain `name`, and lines that end with CRLF"
    return Error("invalid_request", text, reason="form")
