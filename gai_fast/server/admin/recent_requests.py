"""`RecentRequests`: the newest requests of one process, as the admin API shows them.

Owns the filters. Never has content of a conversation: a row is made of the figures of a stream, or of the refusal of a
request.

1. A stream is listed when it ends, even if it has no follower.
2. A refused request is listed once its response has ended, but not if its caller is unknown: a stranger's requests are
   only counted (`gai_fast_requests_total`), because they would push out those of callers.
3. The list is in memory, and ends with the process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, get_args

from gai_fast.model.errors import Error
from gai_fast.model.metrics import Outcome, StreamMetrics
from gai_fast.model.money import units
from gai_fast.server.admin.bodies import RecentRequest, rows_of
from gai_fast.server.admin.running_streams import timestamp
from gai_fast.server.http.request import AnsweredError, HTTPRequest
from gai_fast.server.limits import LIMITS

OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)
_PARAMETERS: Final = frozenset(("key", "model", "outcome"))


class RequestFilter(NamedTuple):
    """The rows that are wanted; an empty text wants all.

    Attributes:
        key: The name of the caller's key.
        model: The model that the client asked for.
        outcome: The end of the request, one of `OUTCOMES`.
    """

    key: str = ""
    model: str = ""
    outcome: str = ""


def read_filter(query: Mapping[str, str]) -> RequestFilter:
    """Reads `key`, `model` and `outcome`.

    Args:
        query: The parameters of a URL.

    Raises:
        InvalidRequest: A parameter or the value of `outcome` is unknown.
    """
    if not query.keys() <= _PARAMETERS:  # a misspelled filter would list all requests
        raise Error("invalid_request", "the parameters are `key`, `model` and `outcome`", reason="query")
    outcome = query.get("outcome", "")
    if outcome and outcome not in OUTCOMES:
        raise Error("invalid_request", f"`outcome` must be {', '.join(OUTCOMES)}", reason="outcome")
    return RequestFilter(query.get("key", ""), query.get("model", ""), outcome)


class RecentRequests:
    """The newest requests. A `MetricsSink`.

    Args:
        wall: Returns seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._ended: deque[tuple[float, StreamMetrics, int]] = deque(maxlen=LIMITS.recent_requests)
        self._refused: StreamMetrics | None = None  # of the last stream that could not start

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Lists a stream. Its row is made on demand: keeping the figures takes 0.2 us.

        A stream that could not start is listed by `refused`, with the status of the response.
        """
        if metrics.outcome == "refused":
            self._refused = metrics
            return
        self._ended.append((self._wall(), metrics, 0))

    def refused(self, http: HTTPRequest, endpoint: str, status: int, refusal: AnsweredError) -> None:
        """Lists a refused request: no stream was made for it, or its stream could not start.

        Args:
            http: The request, whose response has ended.
            endpoint: The route.
            status: The HTTP status.
            refusal: The error.
        """
        figures, self._refused = self._refused, None
        if figures is None or figures.request_id != http.request_id:
            figures = StreamMetrics(
                duration=0.0,
                outcome="refused",
                code=refusal.code,
                reason=refusal.reason,
                model=refusal.model,
                key=http.caller,
                endpoint=endpoint,
                request_id=http.request_id,
            )
        self._ended.append((self._wall(), replace(figures, duration=time.monotonic() - http.began), status))

    def rows(self, wanted: RequestFilter) -> list[RecentRequest]:
        """Returns the requests that fit a filter, the newest first."""
        rows = [_row(*each) for each in reversed(self._ended)]
        names = [name for name in RequestFilter._fields if getattr(wanted, name)]
        return [row for row in rows if all(getattr(wanted, name) == getattr(row, name) for name in names)]


def together(parts: Sequence[Sequence[RecentRequest | Mapping[str, Any]]]) -> list[RecentRequest]:
    """Returns the requests of several processes as if of one.

    Args:
        parts: The result of `RecentRequests.rows` in each process.
    """
    return sorted(rows_of(parts, RecentRequest), key=_time, reverse=True)[: LIMITS.recent_requests]


def _time(row: RecentRequest) -> str:
    return row.ended_at


def _row(at: float, stream: StreamMetrics, status: int) -> RecentRequest:
    usage = stream.usage or {}
    first = stream.time_to_first_token
    return RecentRequest(
        ended_at=timestamp(at),
        key=stream.key,
        model=stream.model,
        upstream=stream.upstream,
        endpoint=stream.endpoint,
        transport=stream.transport,
        request_id=stream.request_id,
        stream_id=stream.stream_id,
        session=stream.session or None,
        outcome=stream.outcome,
        status=status or None,
        code=stream.code,
        reason=stream.reason,
        finish_reason=stream.finish_reason,
        duration_ms=round(stream.duration * 1000, 1),
        ttft_ms=None if first is None else round(first * 1000, 1),
        input_tokens=_count(usage.get("input_tokens")),
        cached_input_tokens=_count(usage.get("cached_input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cost=None if stream.cost is None else units(stream.cost),
        currency=stream.currency or None,
    )


def _count(tokens: object) -> int | None:
    """Returns a valid count: an upstream or a processor may have set any value."""
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None
