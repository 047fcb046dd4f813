"""Random ids: request ids and stream ids; the secrets of callers' keys.

All randomness comes from the operating system. One call draws it for many ids, because a call costs as much as ten ids.
No id is used twice: `list.pop` is atomic for threads, and the child of a fork begins with empty lists.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode, urlsafe_b64encode
from secrets import token_urlsafe
from typing import Final

from gai_fast.kernels import timed_id
from gai_fast.model.limits import SHARED
from gai_fast.runtime.clock import now_ms
from gai_fast.runtime.processes import process_name

KEY_PREFIX: Final = "sk-gai-"
"""The prefix of each caller's secret, so that people and secret scanners recognize it."""
_KEY_BYTES: Final = 32
_BATCH: Final = 64
_DRAWN: Final = 10
"""The random bytes of a request id."""
_stream_ids: Final[list[str]] = []
_request_ids: Final[list[bytes]] = []  # their random bytes
_timed_id: Final = timed_id  # a constant, because looking a name up in a module costs 30 ns

_RANDOM: Final = 22
"""The random characters of a stream id."""
_NUMBER: Final = re.compile(r"[1-9a-f][0-9a-f]{0,7}")
_worker: Final = [""]  # the suffix of this process's stream ids

_ECHOED: Final = re.compile(rf"[A-Za-z0-9._~-]{{1,{SHARED.identifier}}}")

EVENT_NUMBERS: Final = 10**15
"""Event numbers in ids are smaller than this."""
EVENT_NUMBER: Final = re.compile(rf"0|[1-9][0-9]{{0,{len(str(EVENT_NUMBERS - 1)) - 1}}}")
EVENT_ID: Final = re.compile(rf"([A-Za-z0-9_-]{{22,100}})\.({EVENT_NUMBER.pattern})")
"""The id of an event of a durable stream: the stream's id and the event's number; 0 means before the first event."""

os.register_at_fork(after_in_child=_stream_ids.clear)
os.register_at_fork(after_in_child=_request_ids.clear)


def new_key_secret() -> str:
    """Returns the secret of a new key: `KEY_PREFIX` and 32 random bytes."""
    return KEY_PREFIX + token_urlsafe(_KEY_BYTES)


def new_request_id() -> str:
    """Returns a UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds, then random bits; 36 characters, sorts by time."""
    try:
        drawn = _request_ids.pop()
    except IndexError:
        octets = os.urandom(_DRAWN * _BATCH)
        _request_ids.extend([octets[at : at + _DRAWN] for at in range(_DRAWN, len(octets), _DRAWN)])
        drawn = octets[:_DRAWN]
    return _timed_id(now_ms(), drawn)


def request_id(given: str | None) -> str:
    """Returns the client's own request id if it is safe to echo, else a new id."""
    return given if given is not None and _ECHOED.fullmatch(given) else new_request_id()


def new_stream_id() -> str:
    """Returns at least 128 random bits in 22 characters of `[A-Za-z0-9_-]`, followed by the worker's name if there are
    several workers.
    """
    try:
        return _stream_ids.pop()
    except IndexError:
        # `urlsafe_b64encode` looks at each byte again: 650 instructions an id.
        text = b64encode(os.urandom(18 * _BATCH)).replace(b"+", b"-").replace(b"/", b"_").decode("ascii")
        drawn = [text[at : at + _RANDOM] + _worker[0] for at in range(0, len(text), 24)]
        _stream_ids.extend(drawn[1:])
        return drawn[0]


def new_server_name() -> str:
    """Returns a name of 24 random bits, which distinguishes the stream ids of two runs of a server with workers."""
    return urlsafe_b64encode(os.urandom(3)).decode("ascii")


def name_worker(server: str, number: int) -> None:
    """Sets the worker's name, which ends this process's stream ids.

    Args:
        server: From `new_server_name`.
        number: The number of the worker, from 1.
    """
    _worker[0] = f"{server}{number:x}"
    _stream_ids.clear()


def new_worker_name() -> str:
    """Returns a name of this process as an owner of streams: a new stream id, a dot and `process_name`."""
    return f"{new_stream_id()}.{process_name()}"


def process_of(worker: str) -> str:
    """Returns the name of a worker's process; empty if a worker's name, or the id of a stream, has none.

    Args:
        worker: From `new_worker_name`, or any other text.
    """
    return worker.partition(".")[2]


def worker_of(stream_id: str, server: str) -> int | None:
    """Returns the number of the worker that a stream id names, or None if it names no worker of this server.

    Args:
        stream_id: A stream id or a worker's name, perhaps neither.
        server: The name of the server.
    """
    name = stream_id[_RANDOM:].partition(".")[0]
    digits = name[len(server) :]
    if not name.startswith(server) or not _NUMBER.fullmatch(digits):
        return None
    return int(digits, 16)
