"""Sealed values and logs: their form.

Owns the form, which docs/architecture/stores-and-ledger.md describes for others. Knows no store, and not where keys
come from (`seals.py`).

1. A sealed value is: version (1 byte, 1), key id (8), nonce (12), then the text of AES-256-GCM with its tag (16).
2. A key's id is the first 8 bytes of HMAC-SHA-256 with the key over `gai-fast key id`.
3. A nonce is 8 random bytes of a writer, and the number of its seals (4 bytes). A writer draws its bytes with its first
   seal, which is after the fork of a worker, and new ones when the number is full. So no key seals two values with one
   nonce, whichever keys are in use.
4. The associated data name the value's place (`place_of`): a value that is moved, or swapped with another, is damaged.
5. The first key seals, all keys open.
6. What is done for each change of a log is done here, in calls of functions: the module is compiled, and a method of a
   class with interpreted subclasses is looked up by name.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import json
from msgspec.structs import astuple
from mypy_extensions import mypyc_attr

from gai_fast.model.limits import SHARED
from gai_fast.model.version import installing
from gai_fast.stores.backend import CopyChange, Gap, Record, SealError, StoreError, ending_text, gap_text, header_text
from gai_fast.stores.limits import LIMITS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION: Final = 1
KEY_BYTES: Final = 32
SECTION: Final = "[store.encryption]"
OVERHEAD: Final = 1 + 8 + 12 + 16
"""Bytes that sealing adds to a value."""
NOBODY: Final = bytes(32)
"""The digest in place of a caller's, for records without a caller."""

FORMAT: Final = "sealed"
"""The format in the outer header of a sealed log."""
FRAMES: Final = "log.frames"
"""The kind of the records of a log."""

_VERSION: Final = bytes([VERSION])
_ID_ENDS: Final = 9
_NONCE_ENDS: Final = 21
_WRITER_BYTES: Final = 8
_COUNT_BYTES: Final = 4
_FULL: Final = 1 << 32
"""The number of seals of one writer."""
_place: Final = struct.Struct(">B?QQ32sB").pack
_numbers: Final = struct.Struct(">B?QQ").pack
"""The beginning of `_place`, up to the caller."""
_DIGEST_ENDS: Final = 32
_NAME_BEGINS: Final = 32 + 1 + len(FRAMES)
"""The place of the name in the rest of a record's place, which begins with the caller."""
_FRAMES_KIND: Final = b"\x0alog.frames"
_HEADER_KIND: Final = b"\x0alog.header"
_END_KIND: Final = b"\x07log.end"
_HEADER_NUMBERS: Final = _numbers(VERSION, False, 0, 0)
_json: Final = json.Encoder().encode
"""Makes the text of an outer header or end, with bytes in base64, in half the time of `b2a_base64` and orjson."""


class _Key(NamedTuple):
    """A key, ready for use. `opening` are the bytes before the nonce of a value that it has sealed."""

    id: bytes
    opening: bytes
    cipher: AESGCM


def place_of(
    kind: str, name: str, caller: bytes = NOBODY, after: int = 0, number: int = 0, *, is_last: bool = False
) -> bytes:
    """Returns the associated data of a value: rule 4.

    They are: version (1 byte), whether it is the last of its log (1), the number of the last event before it (8), the
    number of its last event (8), the caller's digest (32), the length of the kind (1), the kind, the name.

    Args:
        kind: `log.header`, `log.frames`, `log.text` or `log.end`; `record.` and a record's kind.
        name: The stream's id, or the record's name in the store.
        caller: From `digest_of`.
        after: As above.
        number: As above.
        is_last: As above.

    Raises:
        StoreError: A number is none that an event has. In a store that was changed it may be anything.
    """
    try:
        numbers = _place(VERSION, is_last, after, number, caller, len(kind))
    except struct.error:
        raise StoreError("damaged", "a sealed record of the store has a number that no event has") from None
    return numbers + (kind + name).encode("utf-8", "replace")


@lru_cache(maxsize=SHARED.known_values)
def digest_of(caller: str) -> bytes:
    """Returns the digest of a caller's name: SHA-256."""
    return hashlib.sha256(caller.encode("utf-8", "surrogatepass")).digest()


def is_sealed(value: bytes) -> bool:
    """Returns whether a value has the form of a sealed one: no plain value of a log begins with its version."""
    return value[:1] == _VERSION and len(value) >= OVERHEAD


@mypyc_attr(allow_interpreted_subclasses=True)
class Sealer:
    """Seals and opens values with the keys of one process.

    Attributes:
        errors: The number of reads and writes that failed because of a missing key.
    """

    def __init__(self) -> None:
        self.errors = 0
        self._short_until = 0.0  # monotonic seconds
        self._keys: tuple[_Key, ...] = ()
        self._writer = b""
        self._count = _FULL  # so that the first seal begins a writer
        self._opening = b""
        self._encrypt: Callable[[bytes, bytes, bytes], bytes]  # both of the first key
        self._rests: dict[str, bytes] = {}  # the associated data after the numbers, of logs that were sealed lately

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def is_short(self) -> bool:
        """Whether these keys lacked one within the last `limits.seal_short` seconds."""
        return time.monotonic() < self._short_until

    def use_keys(self, keys: Sequence[bytes]) -> None:
        """Uses other keys from now on.

        Args:
            keys: 32 bytes each.

        Raises:
            StoreError: The package of the extra is missing: nothing has changed.
        """
        opened = tuple([_key(each) for each in keys])
        self._keys, self._short_until = opened, 0.0
        if opened:
            self._opening, self._encrypt = opened[0].opening, opened[0].cipher.encrypt

    def seal(self, place: bytes, value: bytes) -> bytes:
        """Returns a value, sealed with the first key for its place.

        Args:
            place: From `place_of`.
            value: The value.

        Raises:
            StoreError: There is no key.
        """
        return _sealed(self, place, value)

    def seal_change(self, change: CopyChange) -> CopyChange:
        """Returns a change of a log whose parts are sealed for their places.

        Args:
            change: The change. `caller` is set, unless it only removes the log.

        Raises:
            StoreError: There is no key.
        """
        stream_id: str
        (stream_id, header, worker, records, gap, ending, last_seq, keep, is_dropped, caller_name, _, epoch, asked) = (
            astuple(change)
        )
        if is_dropped:
            return change
        rest = self._rests.get(stream_id)
        if rest is None:
            rest = digest_of(caller_name) + _FRAMES_KIND + stream_id.encode("utf-8", "replace")
            if ending is None:  # more changes may come
                if len(self._rests) >= LIMITS.seal_callers:
                    self._rests.clear()
                self._rests[stream_id] = rest
        sealed: list[Record] = []
        for record in records:
            begin, end = record.after, record.last_seq
            place = _numbers(VERSION, False, begin, end) + rest
            sealed.append(Record(begin, end, _sealed(self, place, record.piece)))
        if header is None and gap is None and ending is None:  # nearly always
            return CopyChange(
                stream_id, None, worker, sealed, None, None, 0, keep, is_sealed=True, epoch=epoch, request=asked
            )
        caller, name = rest[:_DIGEST_ENDS], rest[_NAME_BEGINS:]
        if header is not None:
            value = _sealed(self, _HEADER_NUMBERS + caller + _HEADER_KIND + name, header_text(header, worker))
            header = _json((worker, stream_id, caller.hex(), header.model, FORMAT, header.framing, None, value, None))
        if asked:
            asked = _sealed(self, place_of("log.request", stream_id, caller), asked)
        if gap is not None:
            value = _sealed(self, place_of("log.text", stream_id, caller, gap.after, gap.lost), gap_text(gap))
            text = f"{gap.after}:{gap.lost}:{b2a_base64(value, newline=False).decode()};"
            gap = Gap(gap.lost, text, is_whole=gap.is_whole or gap.text is None)
        if ending is not None:
            place = _numbers(VERSION, True, 0, last_seq) + caller + _END_KIND + name
            outer = {"sealed": _sealed(self, place, ending_text(ending)), "last_seq": last_seq}
            ending = _json((ending.state, None, None, outer, True))
        return CopyChange(
            stream_id,
            header,
            worker,
            sealed,
            gap,
            ending,
            last_seq,
            keep,
            is_sealed=True,
            epoch=epoch,
            request=asked,
        )

    def _begin_writer(self) -> None:
        """Draws the random bytes of a writer: rule 3. Draws nothing without keys."""
        if not self._keys:
            raise self.refuse()
        self._writer, self._count = os.urandom(_WRITER_BYTES), 0

    def open(self, place: bytes, sealed: bytes) -> bytes:
        """Returns the value that was sealed for a place.

        Args:
            place: As for `seal`.
            sealed: The sealed value.

        Raises:
            StoreError: It is damaged, or sealed with a key that is not here.
        """
        if not is_sealed(sealed):
            raise StoreError("damaged", "a sealed record of the store is damaged")
        identifier = sealed[1:_ID_ENDS]
        for key in self._keys:
            if key.id == identifier:
                value = _opened(key, place, sealed)
                if value is None:
                    raise StoreError("damaged", "a sealed record of the store is damaged, or in another's place")
                return value
        if any(_opened(key, place, sealed) is not None for key in self._keys):  # only the key's id was changed
            raise StoreError("damaged", "a sealed record of the store names another key than its own")
        raise self.refuse()

    def is_current(self, sealed: bytes) -> bool:
        """Returns whether a value is sealed with the first key."""
        return bool(self._keys) and is_sealed(sealed) and sealed[1:_ID_ENDS] == self._keys[0].id

    def refuse(self) -> StoreError:
        """Counts a read or write that has no key; returns its error."""
        self.errors += 1
        self._short_until = time.monotonic() + LIMITS.seal_short
        return SealError("sealed", f"the store is sealed with a key that is not in {SECTION}: add it to `keys`")


def _sealed(sealer: Sealer, place: bytes, value: bytes) -> bytes:
    """Works as `Sealer.seal`."""
    if sealer._count == _FULL:
        sealer._begin_writer()
    nonce = sealer._writer + sealer._count.to_bytes(_COUNT_BYTES, "big")
    sealer._count += 1
    return sealer._opening + nonce + sealer._encrypt(nonce, value, place)


def _key(key: bytes) -> _Key:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise SealError("unsuitable", f"{SECTION}: the package cryptography is missing: {installing('seal')}") from None
    identifier = hmac.digest(key, b"gai-fast key id", "sha256")[:8]
    return _Key(identifier, _VERSION + identifier, AESGCM(key))


def _opened(key: _Key, place: bytes, sealed: bytes) -> bytes | None:
    """Returns the opened value. None if it is not authentic."""
    from cryptography.exceptions import InvalidTag

    try:
        opened: bytes = key.cipher.decrypt(sealed[_ID_ENDS:_NONCE_ENDS], sealed[_NONCE_ENDS:], place)
    except InvalidTag:
        return None
    return opened
