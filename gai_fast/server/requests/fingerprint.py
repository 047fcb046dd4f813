"""Fingerprints of bodies: equal for bodies that are equal as JSON.

Owns the comparison of two requests with one idempotency key. A fingerprint is a digest of the body in its sorted form,
the same in every release, because stores keep it.

1. A body whose bytes were seen lately has its fingerprint at once: of a large body, only the bytes are hashed.
2. The sorted form of a large body is made in parts, and the loop has a turn after each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Raw

from gai_fast.server.limits import LIMITS

_PER_REQUEST: Final = ("request_id", "idempotency_key")
"""Members of a native request that do not affect its response."""
_PERSON: Final = b"gai-fast body"
_SIZE: Final = 32
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_ITEMS: Final = msgspec.json.Decoder(list[Raw])
_VALUE: Final = msgspec.json.Decoder()
_SPACE: Final = b" \t\r\n"
_HEAD: Final = 256
"""Bytes in which the first two characters that are no white space are looked for."""


class Fingerprints:
    """Fingerprints of bodies, and those of the last ones by their bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}

    async def of(self, body: bytes, *, is_native: bool) -> str:
        """Returns the fingerprint of a body; white space and the order of members do not affect it.

        Args:
            body: A JSON object that was parsed without an error.
            is_native: Whether the request is native.
        """
        digest = blake2b(digest_size=_SIZE, person=b"native" if is_native else b"dialect")
        is_large = len(body) > LIMITS.turn_bytes
        for start in range(0, len(body), LIMITS.hashed_bytes):
            if start:
                await asyncio.sleep(0)
            digest.update(body[start : start + LIMITS.hashed_bytes])
        raw = digest.digest()
        found = self._known.pop(raw, None)
        if found is None:
            text = blake2b(digest_size=_SIZE, person=_PERSON)
            for part in sorted_form(body, is_native=is_native):
                text.update(part)
                if is_large:
                    await asyncio.sleep(0)
            found = text.hexdigest()
            if len(self._known) >= LIMITS.known_bodies:
                del self._known[next(iter(self._known))]
        self._known[raw] = found  # again as the newest
        return found


def sorted_form(body: bytes, *, is_native: bool) -> Iterator[bytes]:
    """Yields the text of a body without white space and with its members in order, in parts.

    Args:
        body: A JSON object that was parsed without an error.
        is_native: Whether the request is native.
    """
    members = _MEMBERS.decode(body)
    if is_native:
        for name in _PER_REQUEST:
            members.pop(name, None)
    yield from _members(members)


def _parts(text: bytes) -> Iterator[bytes]:
    """Yields the sorted form of a value that is too large for one turn."""
    head = text[:_HEAD].translate(None, _SPACE)
    if head.startswith(b"{"):
        yield from _members(_MEMBERS.decode(text))
    elif head.startswith((b"[{", b"[[")):  # splitting half a million numbers takes twice as long as reading them
        yield from _items(_ITEMS.decode(text))
    else:
        yield msgspec.json.encode(_VALUE.decode(text), order="sorted")


def _members(members: dict[str, Raw]) -> Iterator[bytes]:
    """Yields the sorted form of an object."""
    comma, size = b"", 0
    group: list[bytes] = []
    yield b"{"
    for name in sorted(members):
        text = bytes(members[name])
        if group and size + len(text) > LIMITS.turn_bytes:
            yield comma + _sorted_group(b"{%b}", group)
            comma, size, group = b",", 0, []
        member = msgspec.json.encode(name) + b":"
        if len(text) > LIMITS.turn_bytes:
            yield comma + member
            yield from _parts(text)
            comma = b","
        else:
            group.append(member + text)
            size += len(text) + LIMITS.turn_value
    if group:
        yield comma + _sorted_group(b"{%b}", group)
    yield b"}"


def _items(items: list[Raw]) -> Iterator[bytes]:
    """Yields the sorted form of an array."""
    comma, size = b"", 0
    group: list[bytes] = []
    yield b"["
    for item in items:
        text = bytes(item)
        if group and size + len(text) > LIMITS.turn_bytes:
            yield comma + _sorted_group(b"[%b]", group)
            comma, size, group = b",", 0, []
        if len(text) > LIMITS.turn_bytes:
            yield comma
            yield from _parts(text)
            comma = b","
        else:
            group.append(text)
            size += len(text) + LIMITS.turn_value
    if group:
        yield comma + _sorted_group(b"[%b]", group)
    yield b"]"


def _sorted_group(brackets: bytes, group: list[bytes]) -> bytes:
    """Returns the sorted form of some members or items, without the brackets around them.

    Args:
        brackets: The brackets, to be filled.
        group: The texts.
    """
    return msgspec.json.encode(_VALUE.decode(brackets % b",".join(group)), order="sorted")[1:-1]
