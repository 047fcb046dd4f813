"""`Sampler`: the figures of all workers at one moment, for dashboards.

Owns the rates between two samples, and whose fault an error is.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from gai_fast.model.figures import FIRST_TOKEN_BOUNDS, GAP_BOUNDS
from gai_fast.model.limits import SHARED
from gai_fast.server.admin.bodies import Bucket, ErrorKind, Sample, Side
from gai_fast.server.admin.running_streams import timestamp
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.counts import ErrorLabels, StreamCounts
from gai_fast.server.observe.metrics import PrometheusSink

Gather = Callable[[], Awaitable[PrometheusSink]]
Streams = Callable[[], Awaitable[Mapping[str, Any]]]

_OF_REQUEST: Final = frozenset(("invalid_request", "context_length_exceeded", "content_filtered", "unsupported"))
"""Codes of errors in the request, found by the gateway or an upstream."""
_OF_CALLER: Final = frozenset(("unauthorized", "forbidden", "not_found", "rate_limited"))
"""Codes that concern the caller: the client if the gateway says so, the gateway's own key if an upstream does."""


class Sampler:
    """Takes samples.

    Args:
        counts: Returns the counts of all workers.
        streams: Returns the streams of all workers.
        clock: Returns monotonic seconds.
    """

    def __init__(self, counts: Gather, streams: Streams, clock: Callable[[], float] = time.monotonic) -> None:
        self._counts = counts
        self._streams = streams
        self._clock = clock
        self._last: tuple[float, Mapping[str, int]] | None = None

    async def sample(self) -> Sample:
        """Returns a sample without spend and configuration. Its `rates` are those since the previous sample, if any.

        Raises:
            Error: The other workers' figures are unavailable now.
        """
        sink = await self._counts()
        streams = await self._streams()
        gauges = {name: dict(read()) for name, read in sink.gauges.items()}
        return Sample(
            at=timestamp(time.time()),
            active=streams["total"],
            streams=streams["data"][: SHARED.streams_sampled],
            rates=self._rates(totals(sink, streams["deltas"], streams["bytes"])),
            first_token_seconds=_histogram(sink, "time_to_first_token", FIRST_TOKEN_BOUNDS),
            gap_seconds=_histogram(sink, "gaps", GAP_BOUNDS),
            errors=error_kinds(sink.errors),
            breakers=gauges.get("breaker_state", {}),
            limited=gauges.get("limited", {}),
            memory_bytes=sink.process().get("process_resident_memory_bytes"),
            spend=None,
            configuration=None,
        )

    def _rates(self, totals: Mapping[str, int]) -> dict[str, float] | None:
        now, last = self._clock(), self._last
        self._last = now, totals
        if last is None or now <= last[0]:
            return None
        # A sum can fall: the counts of a crashed worker are lost.
        return {name: max(0, total - last[1][name]) / (now - last[0]) for name, total in totals.items()}


def side_of(code: str, upstream: str) -> Side:
    """Returns whose fault an error is.

    Args:
        code: The error's code.
        upstream: The name of the upstream. Empty if the gateway refused the request.
    """
    if code in _OF_REQUEST or (not upstream and code in _OF_CALLER):
        return "client"
    return "upstream" if upstream else "gateway"


def totals(sink: StreamCounts, deltas: int, sent: int) -> dict[str, int]:
    """Returns the sums from which rates are computed.

    Args:
        sink: The counts.
        deltas: The deltas of running streams, which are not in the counts yet.
        sent: Their bytes for clients, in the same order.
    """
    return {
        "requests": sum(sink.requests.values()),
        "errors": sum(sink.errors.values()),
        "client_errors": sum(
            number for (code, _, upstream), number in sink.errors.items() if side_of(code, upstream) == "client"
        ),
        "deltas": deltas + _sum(sink, "deltas"),
        "input_tokens": _sum(sink, "input_tokens"),
        "output_tokens": _sum(sink, "output_tokens"),
        "bytes": sent + _sum(sink, "bytes_out"),
    }


def _sum(sink: StreamCounts, name: str) -> int:
    return sum(each.numbers[name] for each in sink.models.values())


def _histogram(sink: StreamCounts, name: str, bounds: Sequence[float]) -> list[Bucket]:
    """Returns the number of values in each bucket, with the bucket's upper bound. The last bound is `None`."""
    sums = bucket_counts(sink, name, bounds)
    return [Bucket(bound, count) for bound, count in zip([*bounds, None], sums, strict=True)]


def bucket_counts(sink: StreamCounts, name: str, bounds: Sequence[float]) -> list[int]:
    """Returns the number of values in each bucket of a histogram, of all models.

    Args:
        sink: The counts.
        name: The histogram, as in `ModelCounts.histograms`.
        bounds: The upper bounds; there is one bucket more.
    """
    counts = [each.histograms[name].counts for each in sink.models.values()]
    return [sum(each[place] for each in counts) for place in range(len(bounds) + 1)]


def error_kinds(counts: Mapping[ErrorLabels, int]) -> list[ErrorKind]:
    """Returns the numbers of errors, the most frequent first.

    Args:
        counts: The numbers by code, provider and upstream.
    """
    rows = sorted(counts.items(), key=lambda item: -item[1])[: LIMITS.errors_sampled]
    return [
        ErrorKind(code, provider, upstream, side_of(code, upstream), number)
        for (code, provider, upstream), number in rows
    ]
