"""Writes what an upstream answers to a file, read by read, so that it can be replayed: `serve --record`.

Owns the file's format, which `net/replay.py` reads: a line that says whose answer it is with its status and headers,
then `{"at": seconds, "data": text}` per read (`base64` where a read is no UTF-8), then how it ended. Requests are not
written, nor any header that may hold a secret. A disk that fails ends the recording, never the stream.
"""

from __future__ import annotations

import logging
import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from gai_fast.errors import Error
from gai_fast.net.session import Exchange
from gai_fast.net.upstream import Receiver

FORMAT: Final = 1

_KEPT_HEADERS: Final = frozenset({"content-type", "retry-after", "retry-after-ms", "x-should-retry"})
_log: Final = logging.getLogger("gai_fast.recording")


class RecordedExchange:
    """An exchange that is written down: the receiver of the real one, and what the session holds of it.

    Args:
        path: The file, made with the answer's head.
        about: Whose answer it is: `provider`, `model`, `upstream`, `stream_id`.
        receiver: Who gets the answer.
        clock: Seconds of a clock that only goes forward.
        secret: The upstream's key: it is cut out, also where two reads share it.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        receiver: Receiver,
        clock: Callable[[], float],
        secret: str | None = None,
    ) -> None:
        self._path = path
        self._about = about
        self._receiver = receiver
        self._clock = clock
        self._secret = secret.encode() if secret else b""
        self._held = b""  # what may be the beginning of the secret
        self._began = clock()
        self._file: BinaryIO | None = None
        self._exchange: Exchange | None = None

    def open(self, open_exchange: Callable[[Receiver], Exchange]) -> RecordedExchange:
        """Opens the real exchange, with this as its receiver."""
        self._exchange = open_exchange(self)
        return self

    # -- as a receiver --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """The head: the file begins."""
        try:
            # The file holds what people were told: it is for its owner only.
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except OSError as problem:
            _log.warning("cannot record to %s: %s", self._path, problem.strerror)
        kept = {name: value for name, value in headers.items() if name in _KEPT_HEADERS}
        recorded = datetime.now(UTC).isoformat(timespec="seconds")
        self._write({"format": FORMAT, **self._about, "recorded": recorded, "status": status, "headers": kept})
        self._receiver.head_received(status, headers)

    def body_received(self, data: bytes) -> None:
        """What one read brought."""
        self._write_body(self._without_secret(data))
        self._receiver.body_received(data)

    def exchange_ended(self, error: Error | None) -> None:
        """The end of the answer, and of the file."""
        self._write_rest()
        self._write({"at": self._now(), "end": "complete" if error is None else error.reason or error.code})
        self._finish()
        self._receiver.exchange_ended(error)

    # -- as an exchange --

    @property
    def is_complete(self) -> bool:
        """Whether the response has been read to its end."""
        return self._exchange is None or self._exchange.is_complete

    def pause_reading(self) -> None:
        """Stops reading the response."""
        if self._exchange is not None:
            self._exchange.pause_reading()

    def resume_reading(self) -> None:
        """Goes on reading."""
        if self._exchange is not None:
            self._exchange.resume_reading()

    def close(self) -> None:
        """Aborts; the file ends as the answer was left."""
        self._write_rest()
        self._finish()
        if self._exchange is not None:
            self._exchange.close()

    def _without_secret(self, data: bytes) -> bytes:
        """What may be written of the bytes so far; their end waits where the secret may have begun."""
        secret = self._secret
        if not secret:
            return data
        *before, rest = (self._held + data).split(secret)
        end = max(0, len(rest) - len(secret) + 1)
        while not secret.startswith(rest[end:]):
            end += 1
        self._held = rest[end:]
        return b"***".join([*before, rest[:end]])

    def _write_rest(self) -> None:
        """What was held back: more than half of the secret is as good as all of it."""
        held, self._held = self._held, b""
        self._write_body(b"***" if len(held) * 2 > len(self._secret) else held)

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
            try:
                self._file.write(orjson.dumps(line) + b"\n")
            except OSError as problem:
                _log.warning("cannot record to %s: %s", self._path, problem.strerror)
                self._finish()

    def _finish(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as problem:
                _log.warning("cannot record to %s: %s", self._path, problem.strerror)
