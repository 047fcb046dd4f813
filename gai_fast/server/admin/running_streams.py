"""The running streams, as the admin API shows them. Never shows content of the conversation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from gai_fast.net.engine.engine import Engine
from gai_fast.net.stream.session import Session
from gai_fast.server.admin.bodies import RunningStream, rows_of
from gai_fast.server.limits import LIMITS


def running_streams(engine: Engine) -> dict[str, Any]:
    """Returns the streams of one process.

    Args:
        engine: Owns the streams.

    Returns:
        `total`, the `deltas` and `bytes` that they have sent so far, and `data`, the newest `limits.streams_shown`
        streams.
    """
    newest = [_row(each) for each in islice(reversed(engine.streams.values()), LIMITS.streams_shown)]
    sums = running_sums(engine)
    return {"total": sums.streams, "deltas": sums.deltas, "bytes": sums.sent, "data": newest}


class RunningSums(NamedTuple):
    """The sums over the running streams of one process.

    Attributes:
        streams: Their number.
        deltas: The deltas that they have sent so far.
        sent: The bytes that they have sent so far.
    """

    streams: int
    deltas: int
    sent: int


def running_sums(engine: Engine) -> RunningSums:
    """Returns the sums over the streams of one process.

    Args:
        engine: Owns the streams.
    """
    deltas = sent = 0
    for each in engine.streams.values():
        deltas += each.progress()[2]
        sent += each.bytes_sent
    return RunningSums(len(engine.streams), deltas, sent)


def together(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the streams of several processes as if of one.

    Args:
        parts: The result of `running_streams` in each process.
    """
    shown = rows_of((part["data"] for part in parts), RunningStream)
    rows = sorted(shown, key=lambda row: row.started_at, reverse=True)
    sums = {name: sum(part[name] for part in parts) for name in ("total", "deltas", "bytes")}
    return {**sums, "data": rows[: LIMITS.streams_shown]}


def _row(session: Session) -> RunningStream:
    spec = session.spec
    seconds, first_token, deltas = session.progress()
    return RunningStream(
        id=session.stream_id,
        key=session.caller,
        model=session.model,
        upstream=spec.model.upstream.name,
        endpoint=spec.endpoint,
        transport=spec.transport,
        request_id=spec.request_id,
        started_at=timestamp(time.time() - seconds),
        duration_ms=round(seconds * 1000, 1),
        ttft_ms=None if first_token is None else round(first_token * 1000, 1),
        deltas=deltas,
        state="waiting" if first_token is None else "streaming",
    )


def timestamp(seconds: float) -> str:
    """Returns a time in RFC 3339 format, in UTC, with milliseconds.

    Args:
        seconds: Seconds since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
