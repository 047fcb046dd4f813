"""`StreamMetrics`, the figures of a stream, and `SERIES`, their series in `/metrics`.

Owns the table of the figures: a figure is one field of `StreamMetrics`. Its metadata holds the description, from which
the docstring is built, its member of `Result.metrics`, and its series: `server/observe/counts.py` counts them,
`server/workers/totals.py` adds them up, and `server/observe/metrics.py` exposes them. `net/stream/figures.py` and
`core/meter.py` measure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from gai_fast.model.money import Amount, Charge, tokens_of

# The bounds of vLLM's and LiteLLM's histograms, if they have one, so that dashboards are comparable.
FIRST_TOKEN_BOUNDS: Final[tuple[float, ...]] = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
)  # fmt: skip
DURATION_BOUNDS: Final[tuple[float, ...]] = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
)  # fmt: skip
OVERHEAD_BOUNDS: Final[tuple[float, ...]] = (
    0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0,
)  # fmt: skip
# Not annotated as a tuple of 22 floats: mypyc would treat the constant as never set.
GAP_BOUNDS: Final[tuple[float, ...]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
"""Upper bounds of the gaps between tokens, in seconds: vLLM's bounds, and finer ones for bursts."""

NO_GAPS: Final = (0,) * (len(GAP_BOUNDS) + 1)
"""The gap counts of a stream with at most one token."""

Outcome = Literal["finished", "failed", "cancelled", "disconnected", "refused"]
"""The ways a stream ends. `refused`: it never began. A limit refuses it, or nothing can be sent to its upstream."""


class Metric(NamedTuple):
    """A metric in `/metrics`, by provider and model.

    Attributes:
        name: Its name without `gai_fast_`.
        about: Its description.
        label: A further label; each series of the metric has its own value.
        bounds: Upper bounds of a histogram; empty for a counter.
    """

    name: str
    about: str
    label: str = ""
    bounds: tuple[float, ...] = ()


class Series(NamedTuple):
    """The part of a metric that comes from one figure.

    Attributes:
        metric: The metric.
        value: The value of the metric's label.
        source: The attribute of `StreamMetrics`, or the member of its `usage`. Empty means the field. No two series
            have the same. A counter's is an int, a histogram's a float or None, or a tuple of counts.
        total: The attribute with the sum of the values, if the figure is a tuple of counts.
        field: The field's name.
        is_work: Whether the series counts the upstream's work: an answer that several streams share counts once.
    """

    metric: Metric
    value: str = ""
    source: str = ""
    total: str = ""
    field: str = ""
    is_work: bool = False


def _unchanged(value: Any) -> Any:
    return value


class Member(NamedTuple):
    """A member of `Result.metrics`.

    Attributes:
        name: Its name.
        form: Returns its value for the attribute's value, which is not None. Returns None to leave the member out.
        source: The attribute of `StreamMetrics`. Empty means the field.
    """

    name: str
    form: Callable[[Any], Any] = _unchanged
    source: str = ""


def figure(about: str, *series: Series, default: Any, member: Member | None = None, is_work: bool = False) -> Any:
    """Returns the field of a figure of `StreamMetrics`.

    Args:
        about: Its description.
        default: Its value in a stream for which it was not measured.
        series: Its series.
        member: Its member of `Result.metrics`.
        is_work: As in `Series`.
    """
    return field(default=default, metadata={"about": about, "series": series, "member": member, "is_work": is_work})


def _histogram(name: str, about: str, bounds: tuple[float, ...], source: str = "", total: str = "") -> Series:
    return Series(Metric(name, about, bounds=bounds), source=source, total=total)


def _counter(name: str, about: str, *, source: str = "") -> Series:
    return Series(Metric(name, about), source=source)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rounded(rate: float) -> float:
    return round(rate, 2)


def _if_any(count: int) -> int | None:
    return count or None


def _buckets(gaps: tuple[int, ...]) -> list[dict[str, float | None]]:
    """Returns the counts above zero, each with its upper bound in milliseconds."""
    bounds = [*(bound * 1000 for bound in GAP_BOUNDS), None]
    return [{"le": bound, "count": count} for bound, count in zip(bounds, gaps, strict=True) if count]


_TOKENS: Final = Metric("tokens", "Tokens; cached and written input is part of input, reasoning of output.", "type")
_EVENTS: Final = Metric("events", "Events of streams.", "type")
_BYTES: Final = Metric("bytes", "Bytes of upstreams' bodies (in) and for clients (out).", "direction")


# `building/initializers.py` writes its `__init__` and `counted` for mypyc.
@dataclass(kw_only=True, slots=True)
class StreamMetrics:
    """The figures of one stream; `metrics.py` builds the public docstring."""

    duration: float = figure(
        "From the request to the stream's end.",
        _histogram("request_duration_seconds", "From the request to the end of its stream.", DURATION_BOUNDS),
        default=0.0,
        member=Member("duration_ms", _milliseconds),
    )
    time_to_first_token: float | None = figure(
        "From the request until the first delta was handed to the client's connection. A frame without content, such "
        "as a role, is no token; deltas that processors hold back or leave out do not count. A whole answer, one JSON "
        "object, is handed over at its end.",
        _histogram("time_to_first_token_seconds", "From the request to its first token.", FIRST_TOKEN_BOUNDS),
        default=None,
        member=Member("time_to_first_token_ms", _milliseconds),
    )
    upstream_time_to_first_token: float | None = figure(
        "From the request to the upstream until its first delta was read.",
        _histogram(
            "upstream_time_to_first_token_seconds",
            "From the request to the upstream to its first token.",
            FIRST_TOKEN_BOUNDS,
        ),
        default=None,
        member=Member("upstream_time_to_first_token_ms", _milliseconds),
        is_work=True,
    )
    gateway_overhead: float = figure(
        "The gateway's own work: until the upstream was asked, and on every read.",
        _histogram("gateway_overhead_seconds", "The gateway's own work on a stream.", OVERHEAD_BOUNDS),
        default=0.0,
        member=Member("gateway_overhead_ms", _milliseconds),
    )
    backpressure: float = figure(
        "The time in which the upstream was not read because the client was slow.",
        _histogram(
            "backpressure_seconds",
            "How long an upstream was not read because its client was slow.",
            DURATION_BOUNDS,
            source="paused",
        ),
        default=0.0,
        member=Member("backpressure_ms", _milliseconds, source="paused"),
        is_work=True,
    )
    gap_sum: float = figure(
        "All gaps together: from the first token to the last.",
        default=0.0,
        member=Member("tokens_per_second", _rounded, source="tokens_per_second"),
    )
    gaps: tuple[int, ...] = figure(
        "The number of gaps between the upstream's tokens, for each of `GAP_BOUNDS` and for longer ones. Of tokens "
        "that came in one read all but the first have no gap.",
        _histogram("inter_token_latency_seconds", "Between two tokens.", GAP_BOUNDS, total="gap_sum"),
        default=NO_GAPS,
        member=Member("inter_token_ms", _buckets),
        is_work=True,
    )
    usage: Mapping[str, Any] | None = figure(
        "The usage of the stream (docs/events.md).",
        Series(_TOKENS, "input", source="input_tokens"),
        Series(_TOKENS, "output", source="output_tokens"),
        Series(_TOKENS, "cached_input", source="cached_input_tokens"),
        Series(_TOKENS, "cache_write_input", source="cache_write_input_tokens"),
        Series(_TOKENS, "reasoning", source="reasoning_tokens"),
        default=None,
        is_work=True,
    )
    deltas: int = figure("Deltas that the upstream sent.", Series(_EVENTS, "delta"), default=0, member=Member("deltas"))
    events: int = figure(
        "All events.", Series(_EVENTS, "other", source="other_events"), default=0, member=Member("events")
    )
    bytes_in: int = figure(
        "Bytes of the upstream's body.",
        Series(_BYTES, "in"),
        default=0,
        member=Member("bytes_in"),
        is_work=True,
    )
    bytes_out: int = figure("Bytes for the client.", Series(_BYTES, "out"), default=0, member=Member("bytes_out"))
    outcome: Outcome = figure(  # noqa: RUF009  # makes a field
        "The end of the stream.",
        _counter("client_disconnects", "Streams whose client left.", source="is_disconnected"),
        default="finished",
    )
    code: str | None = figure("The error's code, if the stream failed.", default=None)
    reason: str | None = figure("The error's reason, if it has one.", default=None)
    finish_reason: str | None = figure("The finish reason of the stream.", default=None)
    provider: str = figure("The adapter's name.", default="")
    upstream: str = figure("The configured upstream that answered.", default="")
    model: str = figure("The model that the client asked for.", default="")
    answered_by: str = figure("The model as the provider reports it.", default="")
    response_id: str = figure("The provider's own id of the answer.", default="")
    endpoint: str = figure("The route.", default="")
    transport: str = figure("`sse`, `ndjson`, `ws`, `json` or `library`.", default="")
    stream_id: str = figure("The stream's id.", default="")
    request_id: str = figure("The request's id.", default="")
    trace_id: str | None = figure("The trace's id, if there is one.", default=None)
    retries: int = figure(
        "Attempts of the same model that failed before.",
        _counter("retries", "Attempts that failed and were made again."),
        default=0,
        member=Member("retries", _if_any),
    )
    fallbacks: int = figure(
        "Models that failed before.",
        _counter("fallbacks", "Models that failed and were replaced."),
        default=0,
        member=Member("fallbacks", _if_any),
    )
    key: str = figure(
        "The name of the key that the stream belongs to; `anonymous` if no keys are configured, and for a program in "
        "this process.",
        default="",
    )
    session: str = figure("The digest of the session that the client has named; empty if it has not.", default="")
    upstream_key: int = figure(
        "The place of the upstream's key in the list of its keys, from 1. 0 if it was asked without one.", default=0
    )
    cost: Amount | None = figure(  # noqa: RUF009  # makes a field
        "The cost of the stream, failed attempts included. None if it is not known.",
        default=None,
    )
    currency: str = figure("The currency of the cost.", default="")
    charges: tuple[Charge, ...] = figure("The cost by attempt, in all currencies.", default=())
    absurd_tokens: int = figure(
        "The largest count of an upstream that was absurd, and was replaced by an estimate. 0 if there was none.",
        default=0,
    )
    dropped: tuple[str, ...] = figure(
        "The paths of the client's members that the upstream was asked without, at most 20.",
        default=(),
    )
    cache: str | None = figure(
        "The source of the answer, if the stream may share one (`[cache]`): `hit`, `joined` or `miss`. Only with "
        "`miss` was a model asked, which costs money.",
        default=None,
    )

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(StreamMetrics, **{each.name: getattr(self, each.name) for each in fields(self)}), ()

    @property
    def other_events(self) -> int:
        """Events that are not deltas."""
        return max(0, self.events - self.deltas)

    @property
    def is_disconnected(self) -> bool:
        """Whether the client disconnected."""
        return self.outcome == "disconnected"

    @property
    def paused(self) -> float | None:
        """`backpressure`; None if the upstream was always read."""
        return self.backpressure or None

    @property
    def is_shared(self) -> bool:
        """Whether the answer came from another stream, so that it costs nothing."""
        return self.cache in ("hit", "joined")

    @property
    def tokens_per_second(self) -> float | None:
        """Output tokens after the first, per second. None if all tokens came in one read."""
        tokens = tokens_of(self.usage or {}, "output_tokens") - 1
        return float(tokens / self.gap_sum) if tokens > 0 and self.gap_sum else None

    def counted(self) -> tuple[Any, ...]:
        """Returns the values of `COUNTED`. The build names each for mypyc: look-ups cost 2,600 instructions."""
        return tuple([getattr(self, name) for name in COUNTED])

    def as_dict(self) -> dict[str, Any]:
        """Returns the content of `Result.metrics`: times in milliseconds, rates per second, only measured figures."""
        values = ((each, getattr(self, each.source)) for each in MEMBERS)
        members = ((each.name, each.form(value)) for each, value in values if value is not None)
        return {name: value for name, value in members if value is not None}


SERIES: Final[tuple[Series, ...]] = tuple(
    series._replace(source=series.source or each.name, field=each.name, is_work=each.metadata["is_work"])
    for each in fields(StreamMetrics)
    for series in each.metadata["series"]
)
"""The series that a server counts for its streams, by provider and model, in the order of exposition."""

COUNTED: Final[tuple[str, ...]] = tuple(
    sorted({name for each in SERIES if each.field != "usage" for name in (each.source, each.total) if name})
)
"""The attributes of `StreamMetrics` that are counted, without `usage`."""

MEMBERS: Final[tuple[Member, ...]] = tuple(
    member._replace(source=member.source or each.name)
    for each in fields(StreamMetrics)
    if (member := each.metadata["member"]) is not None
)
"""The members of `Result.metrics`, in their order."""
