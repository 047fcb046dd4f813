"""The bodies of the admin API, each once.

The handlers write them, `/openapi.json` describes them by these types and sentences, and the commands read them. The
order of the members is that of the answers. A request about a key has no type: its members are those of a `[[key]]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gai_fast.model.metrics import Outcome
from gai_fast.server.limits import LIMITS

Side = Literal["client", "upstream", "gateway"]
"""Whose fault an error is."""
Condition = Literal["unused", "ready", "slow_start", "full", "failing", "cooling", "open", "drained", "draining"]
"""The conditions of a target. If workers differ, the later condition in this list counts: a target is drained once no
worker has a stream at it."""
Period = Literal["day", "month", "total"]

_Count = Annotated[int, Meta(ge=0)]
_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_Kind = TypeVar("_Kind", bound=Struct)


class RunningStream(Struct, frozen=True):
    """A stream that runs. No text of the conversation."""

    id: str
    key: str
    model: str
    upstream: str
    endpoint: str
    transport: str
    request_id: str
    started_at: _Time
    duration_ms: float
    ttft_ms: float | None
    deltas: _Count
    state: Literal["waiting", "streaming"]


class RunningStreams(Struct, frozen=True):
    """The streams that run."""

    total: _Count
    data: list[RunningStream]


class RecentRequest(Struct, frozen=True):
    """A request that has ended. No text of the conversation."""

    ended_at: _Time
    key: str
    model: str
    upstream: str
    endpoint: str
    transport: str
    request_id: str
    stream_id: str
    session: str | None
    outcome: Outcome
    status: _Count | None
    code: str | None
    reason: str | None
    finish_reason: str | None
    duration_ms: float
    ttft_ms: float | None
    input_tokens: _Count | None
    cached_input_tokens: _Count | None
    output_tokens: _Count | None
    cost: float | None
    currency: str | None


class RecentRequests(Struct, frozen=True):
    """The newest requests that have ended."""

    data: list[RecentRequest]


class ErrorKind(Struct, frozen=True):
    """The number of errors of one kind."""

    code: str
    provider: str
    upstream: str
    side: Side
    count: _Count


class HistorySlot(Struct, frozen=True):
    """Those of half a minute."""

    at: _Time
    active: _Count
    requests: _Count
    errors: _Count
    client_errors: _Count
    deltas: _Count
    input_tokens: _Count
    output_tokens: _Count
    bytes: _Count
    first_token_seconds: list[_Count]
    gap_seconds: list[_Count]
    limited: dict[str, float]
    kinds: list[ErrorKind]


class History(Struct, frozen=True):
    """The figures of the last hour."""

    seconds: float
    data: list[HistorySlot]


class Spent(Struct, frozen=True, kw_only=True):
    """What was spent by a key, for a model, at an upstream or on a day."""

    key: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    upstream: str | UnsetType = UNSET
    day: str | UnsetType = UNSET
    amount: float
    currency: str
    requests: _Count


class Spend(Struct, frozen=True):
    """What was spent."""

    data: list[Spent]
    prices_date: str | None


class SpendToday(Struct, frozen=True):
    """What was spent on this UTC day, the largest amounts first."""

    day: str
    keys: list[Spent]
    models: list[Spent]


class Change(Struct, frozen=True):
    """One change of the configuration."""

    section: str
    name: str | None
    change: Literal["added", "removed", "changed"]

    @property
    def what(self) -> str:
        """What has changed, as a configuration file names it."""
        return f"[{self.section}]" if self.name is None else f"[[{self.section}]] {self.name}"


class LastChange(Struct, frozen=True):
    """The last reload that was taken."""

    at: str
    changes: list[Change]


class Reloaded(Struct, frozen=True):
    """What a new configuration has changed, and what needs a restart."""

    changes: list[Change]
    needs_restart: list[str]


class Bucket(Struct, frozen=True):
    """The number of values above the former bucket's bound, up to `le` seconds; the last bucket has no bound."""

    le: float | None
    count: _Count


class Sample(Struct, frozen=True):
    """The figures of the server at one moment."""

    at: _Time
    active: _Count
    streams: list[RunningStream]
    rates: dict[str, float] | None
    first_token_seconds: list[Bucket]
    gap_seconds: list[Bucket]
    errors: list[ErrorKind]
    breakers: dict[str, float]
    limited: dict[str, float]
    memory_bytes: float | None
    spend: SpendToday | None
    configuration: LastChange | None


class Target(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a model's requests may go: the model, the upstream and its id there."""

    model: str
    upstream: str
    id: str


class TargetState(Target, frozen=True, forbid_unknown_fields=False):
    """A target, and whether it takes requests."""

    state: Condition
    streams: _Count


class Approval(Struct, frozen=True):
    """A call that waits for an approval."""

    id: str
    stream_id: str
    key: str
    call_id: str
    tool: str
    server: str
    input: Any
    digest: str
    expires: _Count


class Approvals(Struct, frozen=True):
    """The calls that wait for an approval, those that expire first; `total` counts all."""

    total: _Count
    data: list[Approval]


class KeySpendLimit(Struct, frozen=True):
    """What a key may spend in a period."""

    amount: float
    period: Period


class Key(Struct, frozen=True, kw_only=True):
    """A key and what it has spent, without its secret."""

    name: str
    role: Literal["user", "admin", "metrics"]
    models: list[str]
    expires: Annotated[datetime, Meta(tz=True)] | None
    limits: dict[str, _Count | KeySpendLimit | None]
    """By their names in the configuration."""
    spent: float | None
    spent_period: Period
    lane: list[str]
    tools: list[str]
    source: Literal["file", "store"]
    created: _Time | None
    grace_until: _Time | None


class Keys(Struct, frozen=True):
    """The keys of callers, without their secrets."""

    data: list[Key]


class MadeKey(Key, frozen=True, kw_only=True):
    """A key with its secret, which is shown this once."""

    secret: str
    warning: str | UnsetType = UNSET


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds the former secret stays valid."""

    grace: Annotated[float, Meta(ge=0, le=LIMITS.key_grace)] = 3600.0


class RevokedKey(Struct, frozen=True):
    """A key that is revoked."""

    name: str
    revoked: Annotated[bool, Meta(extra_json_schema={"const": True})]


def plain(body: Any) -> Any:
    """Returns a body as JSON values.

    Args:
        body: One of these types, or a list of them.
    """
    return msgspec.to_builtins(body, builtin_types=(datetime,), enc_hook=_exact)


def _exact(value: object) -> object:
    """Returns the text or the number that a value of a derived type is: processors may set any."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a body of the admin API has no {type(value).__name__}")


def rows_of(parts: Iterable[Iterable[_Kind | Mapping[str, Any]]], kind: type[_Kind]) -> list[_Kind]:
    """Returns the rows of several processes.

    Args:
        parts: The rows of each process; those of another one as MessagePack has them.
        kind: The type of a row.
    """
    return [kind(**row) if isinstance(row, Mapping) else row for part in parts for row in part]
