"""Sealed stores for tests: keys, what a store holds as bytes, and who changes it without a key."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from msgspec.structs import replace

from gai_fast.model.settings import SealSettings, Secret
from gai_fast.stores._base import Ending, LogHeader
from gai_fast.stores.backend import Backend, Gap, LogCopy, Record
from tests.integration.stores.changes import changed
from tests.integration.stores.servers import RedisServer

KEYS = [b64encode(bytes([number + 1]) * 32).decode() for number in range(4)]


def sealed_with(*numbers: int, required: bool = False) -> SealSettings:
    """`[store.encryption]` with some of `KEYS`."""
    return SealSettings(tuple(Secret(KEYS[number]) for number in numbers), required=required)


def content_of(url: str, server: RedisServer | None) -> bytes:
    """Returns all that a store holds, as it is on the disk: a file with its write-ahead log, a server's saved data."""
    if server is not None:
        server.command("CONFIG", "SET", "rdbcompression", "no")
        assert server.command("SAVE") == b"+OK\r\n"
        return (server.folder / "dump.rdb").read_bytes()
    path = Path(url.removeprefix("sqlite:///"))
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


def forms_of(word: str) -> Iterator[bytes]:
    """Yields what a word looks like in the usual encodings. Of base64 the ends are left out: they depend on others."""
    octets = word.encode()
    yield octets
    yield word.encode("utf-16-le")
    yield word.encode("utf-16-be")
    yield octets.hex().encode()
    yield octets.hex().upper().encode()
    yield json.dumps(word)[1:-1].encode()
    yield quote(word).encode()
    for before in range(3):
        text = b64encode(bytes(before) + octets)
        yield text[4 if before else 0 : -4]


class Tampered:
    """A sealed log in the hands of somebody who may change the store, and has no key."""

    def __init__(self, copy: LogCopy) -> None:
        assert copy.news.ending is not None
        assert copy.news.ending.error is not None
        self.header: LogHeader = copy.header
        self.worker = copy.worker
        self.records = [*copy.news.records]
        self.gap = None if copy.text in (None, "") else Gap(copy.lost, copy.text, is_whole=True)
        self.ending: Ending | None = copy.news.ending
        self.last_seq = int(copy.news.ending.error["last_seq"])

    async def write(self, inner: Backend) -> None:
        """Puts the log back in place of what was there."""
        stream_id = self.header.stream_id
        await inner.write([changed(stream_id, epoch=0, is_dropped=True)])
        while await inner.sweep():
            pass
        await inner.write([changed(stream_id, self.header, self.worker, keep=60.0)])
        if self.gap is not None:
            await inner.write([changed(stream_id, worker=self.worker, gap=self.gap)])
        await inner.write(
            [changed(stream_id, None, self.worker, self.records, ending=self.ending, last_seq=self.last_seq)]
        )


def flipped(sealed: bytes, at: int) -> bytes:
    """Returns a value with one changed bit."""
    changed = bytearray(sealed)
    changed[at] ^= 1
    return bytes(changed)


def in_text(text: str, change: Callable[[bytes], bytes]) -> str:
    """Returns a text in base64 whose octets are changed."""
    return b64encode(change(b64decode(text))).decode()


def with_piece(record: Record, piece: bytes) -> Record:
    """Returns a record with other bytes."""
    return replace(record, piece=piece)
