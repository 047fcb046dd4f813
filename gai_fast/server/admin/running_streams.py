"""The running streams, as the admin API shows them.

Owns the fields of a stream there. Never shows content of the conversation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from gai_fast.net.stream.session import Session
from gai_fast.net.stream.streams import Engine
from gai_fast.server.limits import LIMITS


def running_streams(engine: Engine) -> dict[str, Any]:
    """Returns the streams of one process.

    Args:
        engine: Owns the streams.

    Returns:
        `total`, the `deltas` that they have sent so far, and `data`, the newest `limits.streams_shown` streams.
    """
    sessions = engine.streams.values()
    newest = [_row(each) for each in islice(reversed(sessions), LIMITS.streams_shown)]
    older = islice(sessions, max(0, len(sessions) - len(newest)))
    deltas = sum(row["deltas"] for row in newest) + sum(each.progress()[2] for each in older)
    return {"total": len(sessions), "deltas": deltas, "data": newest}


def running_sums(engine: Engine) -> tuple[int, int]:
    """Returns the number of streams of one process, and the deltas that they have sent so far."""
    sessions = engine.streams.values()
    return len(sessions), sum(each.progress()[2] for each in sessions)


def together(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the streams of several processes as if of one.

    Args:
        parts: The result of `running_streams` in each process.
    """
    rows = sorted((row for part in parts for row in part["data"]), key=_started, reverse=True)
    total, deltas = (sum(part[name] for part in parts) for name in ("total", "deltas"))
    return {"total": total, "deltas": deltas, "data": rows[: LIMITS.streams_shown]}


def _started(row: Mapping[str, Any]) -> str:
    started: str = row["started_at"]
    return started


def _row(session: Session) -> dict[str, Any]:
    spec = session.spec
    seconds, first_token, deltas = session.progress()
    return {
        "id": session.stream_id,
        "key": session.caller,
        "model": session.model,
        "upstream": spec.model.upstream.name,
        "endpoint": spec.endpoint,
        "transport": spec.transport,
        "request_id": spec.request_id,
        "started_at": timestamp(time.time() - seconds),
        "duration_ms": round(seconds * 1000, 1),
        "ttft_ms": None if first_token is None else round(first_token * 1000, 1),
        "deltas": deltas,
        "state": "waiting" if first_token is None else "streaming",
    }


def timestamp(seconds: float) -> str:
    """Returns a time in RFC 3339 format, in UTC, with milliseconds.

    Args:
        seconds: Seconds since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
