"""Writes an upstream's response to a file, read by read, so that it can be replayed: `serve --record`.

Owns the file's format, which `net/attempts/recording_player.py` reads: a line with the response's origin, status and
headers, then `{"at": seconds, "data": text}` per read (`base64` if a read is not UTF-8), then a line about its end.
Requests, headers that may hold a secret, and texts of the upstream's key and `headers` that a response repeats are
never written. A disk that fails, or a recording that grows beyond `limits.recorded`, ends the recording, never the
stream.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import OpenExchange, Receiver

FORMAT: Final = 1

_KEPT_HEADERS: Final = frozenset({"content-type", "retry-after", "retry-after-ms", "x-should-retry"})
_CREDENTIALS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})
_PARTS: Final = re.compile(r"[\s,;=\"]+")
_CUT: Final = b"***"
_log: Final = logging.getLogger("gai_fast.recording")


def secrets_of(key: str | None, headers: Mapping[str, str]) -> frozenset[bytes]:
    """Returns the texts that a response may repeat and no recording may hold.

    Args:
        key: The upstream's key.
        headers: Its configured headers. Their values count, and the parts of credentials (`Bearer …`, `session=…`),
            without those shorter than `limits.secret`.

    Returns:
        The texts, each also as it is written in a JSON string.
    """
    values = set(headers.values())
    for name, value in headers.items():
        if name.lower() in _CREDENTIALS:
            values.update(_PARTS.split(value))
    texts = [*([key] if key else []), *(value for value in values if len(value) >= SHARED.secret)]
    return frozenset(written for text in texts for written in (text.encode(), orjson.dumps(text)[1:-1]))


class Censor:
    """Cuts secrets out of bytes, wherever these are cut.

    Args:
        secrets: The secrets. If several begin at one place, the longest is cut out.
    """

    def __init__(self, secrets: Collection[bytes]) -> None:
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets))) if secrets else None
        self._held = b""  # bytes that may be the beginning of a secret

    def feed(self, data: bytes) -> bytes:
        """Returns the bytes that may be written; the end is held back if a secret may begin in it."""
        if self._pattern is None:
            return data
        data = self._held + data
        out: list[bytes] = []
        at, end = 0, self._begun(data, 0)
        # A secret that begins no earlier than the waiting bytes is part of them.
        while (found := self._pattern.search(data, at)) is not None and found.start() < end:
            out += (data[at : found.start()], _CUT)
            at = found.end()
            if end < at:
                end = self._begun(data, at)
        self._held = data[end:]
        return b"".join((*out, data[at:end]))

    def rest(self) -> bytes:
        """Returns the bytes that were held back; a part of more than half of a secret is cut out too."""
        held, self._held = self._held, b""
        if self._pattern is not None:
            held = self._pattern.sub(_CUT, held)
        for secret in self._secrets:
            for size in range(min(len(secret) - 1, len(held)), len(secret) // 2, -1):
                if held.endswith(secret[:size]):
                    return held[:-size] + _CUT
        return held

    def _begun(self, data: bytes, at: int) -> int:
        """Returns where the longest prefix of a secret begins that reaches the end of the data."""
        longest = 0
        for secret in self._secrets:
            for size in range(min(len(secret) - 1, len(data) - at), longest, -1):
                if data.endswith(secret[:size]):
                    longest = size
                    break
        return len(data) - longest


class RecordedExchange(Receiver):
    """An exchange that is recorded: the receiver of the real one, and the exchange that the session holds.

    Args:
        path: The file, made when the response's head comes.
        about: The response's origin: `provider`, `model`, `upstream`, `stream_id`.
        receiver: Gets the response.
        clock: Seconds of a clock that only goes forward.
        secrets: From `secrets_of`; cut out, even if split over two reads.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        receiver: Receiver,
        clock: Callable[[], float],
        secrets: Collection[bytes] = (),
    ) -> None:
        self._path = path
        self._about = about
        self._receiver = receiver
        self._clock = clock
        self._censor = Censor(secrets)
        self._began = clock()
        self._file: BinaryIO | None = None
        self._left = LIMITS.recorded  # bytes that may still be written
        self._exchange: OpenExchange  # set by `open`, before which this is no exchange

    def open(self, open_exchange: Callable[[Receiver], OpenExchange]) -> RecordedExchange:
        """Opens the real exchange, with this as its receiver."""
        self._exchange = open_exchange(self)
        return self

    # -- as a receiver --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """Begins the file."""
        try:
            # The file holds answers to people: it is for its owner only.
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except OSError as problem:
            self._warn(problem)
        kept = {name: value for name, value in headers.items() if name in _KEPT_HEADERS}
        recorded = datetime.now(UTC).isoformat(timespec="seconds")
        self._write({"format": FORMAT, **self._about, "recorded": recorded, "status": status, "headers": kept})
        self._receiver.head_received(status, headers)

    def body_received(self, data: bytes) -> None:
        """Writes the bytes of one read."""
        self._write_body(self._censor.feed(data))
        self._receiver.body_received(data)

    def exchange_ended(self, error: Error | None) -> None:
        """Ends the file."""
        try:
            self._write_body(self._censor.rest())
            self._write({"at": self._now(), "end": "complete" if error is None else error.reason or error.code})
            self._finish()
        finally:
            self._receiver.exchange_ended(error)

    # -- as an exchange --

    @property
    def is_complete(self) -> bool:
        """Whether the response has been read to its end."""
        return self._exchange.is_complete

    @property
    def is_waiting(self) -> bool:
        """Whether the real exchange still waits for a connection."""
        return self._exchange.is_waiting

    @property
    def sent(self) -> bool:
        """Whether the real request was handed to a connection."""
        return self._exchange.sent

    @property
    def resent(self) -> bool:
        """Whether the real request was written twice."""
        return self._exchange.resent

    def pause_reading(self) -> None:
        """Stops reading the response."""
        self._exchange.pause_reading()

    def resume_reading(self) -> None:
        """Goes on reading."""
        self._exchange.resume_reading()

    def limit_silence(self, seconds: float) -> None:
        """Works as `OpenExchange.limit_silence`."""
        self._exchange.limit_silence(seconds)

    def close(self) -> None:
        """Aborts; the file ends at the last byte that was read."""
        self._write_body(self._censor.rest())
        self._finish()
        self._exchange.close()

    def _write_body(self, data: bytes) -> None:
        if not data:
            return
        try:
            self._write({"at": self._now(), "data": data.decode()})
        except UnicodeDecodeError:  # a character cut in two
            self._write({"at": self._now(), "base64": b64encode(data).decode()})

    def _now(self) -> float:
        return round(self._clock() - self._began, 4)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            data = orjson.dumps(line) + b"\n"
            self._left -= len(data)
            try:
                if self._left < 0:
                    self._file.write(b'{"at":%b,"end":"recording_too_large"}\n' % str(self._now()).encode())
                    _log.warning("%s holds %d bytes: nothing more is recorded", self._path, LIMITS.recorded)
                    self._finish()
                else:
                    self._file.write(data)
            except OSError as problem:
                self._give_up(problem)

    def _finish(self) -> None:
        if self._file is not None:
            try:
                self._file.close()
            except OSError as problem:
                self._give_up(problem)
            self._file = None

    def _give_up(self, problem: OSError) -> None:
        """Ends the recording after a failed write."""
        file, self._file = self._file, None
        self._warn(problem)
        with contextlib.suppress(OSError):  # the rest cannot be written, yet the file is closed
            if file is not None:
                file.close()
        with contextlib.suppress(OSError):  # an empty file does no harm
            if not self._path.stat().st_size:
                self._path.unlink()

    def _warn(self, problem: OSError) -> None:
        _log.warning("cannot record to %s: %s", self._path, problem.strerror)
