"""The resolved configuration of a running gateway: no environment, no files, no defaults left to look up.

`gai_fast.config` makes the settings, the asyncio layer reads them. One `Settings` is one immutable snapshot: a request
keeps the one it began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any, Final, Literal, get_args

from gai_fast.model.errors import Forbidden, NotFound
from gai_fast.model.limits import SHARED

MIB = 1 << 20

ANONYMOUS: Final = "anonymous"
"""The caller of a request that needs no key."""

_NAMED: Final = 10
"""Models that a message names."""


class Secret:
    """A value that no `repr`, format or traceback shows; only `reveal()` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for a header."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self._value,)


class _Snapshot:
    """Lets an immutable, compiled dataclass be copied and pickled."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]  # a dataclass


@dataclass(frozen=True, slots=True)
class StreamSettings(_Snapshot):
    """`[stream]`: the behaviour of one stream. Times in seconds, sizes in bytes."""

    heartbeat: float = 15.0
    """Silence towards a client after which a keep-alive is written, 0: never; well below the 60 s of nginx and ALB."""
    commit_after: float = 2.0
    """The longest time that the response head is held for the upstream's first event."""
    flush_interval: float = 0.0
    """The longest time that output is gathered before it is written; 0: one turn of the loop."""
    timestamps: bool = False
    """`ts` on every event of a compact stream."""
    envelope: Literal["compact", "full"] | None = None
    """The envelope where the client names none; `None`: compact for SSE, full for NDJSON."""
    usage: Literal["asked", "always"] = "asked"
    """Whether clients of the OpenAI dialect get usage without asking for it."""
    on_midstream_failure: Literal["error", "restart", "continue"] = "error"
    """The end of an answer whose upstream fails after its first content. `error`: it ends with the error. `restart`: a
    fresh answer follows `stream.reset`, in formats that have it. `continue`: a fresh answer is compared with the
    delivered text, and continues it."""
    on_malformed: Literal["skip", "error"] = "skip"
    """Whether a chunk that cannot be read is left out with a warning, or ends the stream."""
    retry: int = 3000
    """Milliseconds that a client of a durable stream waits before it reconnects; Chrome's own default."""
    write_timeout: float = 30.0
    """The longest time in which a client reads nothing; then it is cut off."""
    client_buffer: int = 262144
    """Unsent bytes of one client above which it is slow: a plain stream's upstream is no longer read then."""
    on_disconnect: Literal["auto", "cancel", "detach", "drain"] = "auto"
    """The fate of a stream whose last client has left. `cancel`: it ends. `detach`: it goes on for `detach_ttl`.
    `drain`: it goes on to its end. `auto`: `detach` for durable streams, `cancel` for all others. `detach` and `drain`
    make every stream durable."""
    detach_ttl: float = 300.0
    """Seconds for which a stream goes on that nobody follows."""
    compression: tuple[Literal["zstd", "gzip", "br"], ...] = ()
    """The content codings that a client may have a stream in, the preferred one first; none: streams are sent as they
    are."""
    on_unsupported: Literal["error", "drop"] = "error"
    """Whether a field that the upstream does not support refuses the request, or is left out and logged."""


@dataclass(frozen=True, slots=True)
class BreakerSettings(_Snapshot):
    """`breaker`: the times when a failing upstream gets no requests, in seconds."""

    failures: int = 5
    """Failures in a row that open the breaker, …"""
    window: float = 30.0
    """… where they come within this time."""
    open: float = 10.0
    """The time that the breaker stays open before one request goes through as a probe."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings(_Snapshot):
    """One `[[upstream]]`."""

    name: str
    provider: str
    """An adapter's name, `name` or `name:api`."""
    base_url: str
    api_key: Secret | None = None
    """The key of requests, or the first of several."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_timeout: float = 5.0
    first_event_timeout: float = 60.0
    idle_timeout: float = 60.0
    total_timeout: float = 600.0
    max_connections: int = 1000
    min_idle: int = 0
    """Connections that are made before the first request, and kept idle for those to come."""
    proxy: Secret | None = None
    """The URL of an HTTP proxy."""
    retries: int = 2
    """Retries of a request that failed before its first content."""
    breaker: BreakerSettings | None = BreakerSettings()
    """`None`: a failing upstream still gets its requests."""
    ca_file: str | None = None
    """A file of the authorities that the upstream's certificate may come from, in place of the system's."""
    client_cert: str | None = None
    """The certificate that the gateway shows the upstream (mutual TLS)."""
    client_key: str | None = None
    """Its private key; in the certificate's file where not given."""
    more_api_keys: tuple[Secret, ...] = ()
    """Further keys, beside `api_key`: requests use all of them in turn."""


Balance = Literal["weighted", "least_busy", "fastest", "affinity"]
BALANCES: Final = get_args(Balance)
"""The rules by which a target is chosen."""


@dataclass(frozen=True, slots=True)
class TargetSettings(_Snapshot):
    """One of a model's `targets`: an upstream and the id that it is asked for."""

    upstream: UpstreamSettings
    id: str
    weight: int = 1
    """Its share of the requests, compared with the other targets; 0: it is never asked."""
    streams: int | None = None
    """The most streams at a time of one worker; `None`: as many as come."""


@dataclass(frozen=True, slots=True)
class Price(_Snapshot):
    """The price of a model's tokens: for a million of them, in 10^-12 of the currency (`money.Amount`)."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    currency: str = "USD"
    """Three letters of ISO 4217."""


@dataclass(frozen=True, slots=True)
class PriceSettings(_Snapshot):
    """The prices of models: those of `[[model]]`, and the price list that `[prices] file` names."""

    listed: Mapping[tuple[str, str], Price] = field(default_factory=dict)
    """The prices of the list, by provider, without `:api`, and the id that the upstream is asked for."""
    own: Mapping[tuple[str, str], Price] = field(default_factory=dict)
    """The prices of `[[model]]`, by upstream and the id that it is asked for: so `<upstream>/<id>` costs the same."""
    date: str | None = None
    """The date in the list, as `2026-11-20`."""
    currency: str = "USD"
    """The currency of both."""


@dataclass(frozen=True, slots=True)
class ModelSettings(_Snapshot):
    """One `[[model]]`, or the one that `<upstream>/<id>` names.

    A model with `targets` has the upstream and id of the first one until a target is chosen for a request.
    """

    name: str
    upstream: UpstreamSettings
    id: str
    stream: StreamSettings = StreamSettings()
    fallback: tuple[str, ...] = ()
    """Other models that are tried, in order, where this one fails before its first content."""
    fallback_on: Mapping[str, str] = field(default_factory=dict)
    """The model that is tried where this one fails, by error code."""
    prefill: bool = False
    """Whether the upstream continues an assistant message at the end of the conversation."""
    price: Price | None = None
    """Its own price, which counts before all others."""
    cache: bool = False
    """Whether its requests ask for kept answers (`[cache]`) where their header says nothing."""
    targets: tuple[TargetSettings, ...] = ()
    """The targets that requests are spread over; none: all requests go to `upstream`."""
    balance: Balance = "weighted"
    """The rule that chooses among the targets: `net/attempts/balance.py`."""
    hedge_after: float | None = None
    """Seconds without a first event after which a second target is asked too; `None`: never."""


@dataclass(frozen=True, slots=True)
class ServerSettings(_Snapshot):
    """`[server]`. Times in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    allow_get_start: bool = False
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    max_body: int = 10 * MIB
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json", "auto"] = "auto"
    """The form of log lines; `auto`: text on a terminal, JSON otherwise."""
    access_log: bool = False
    insecure: bool = False
    fast_lane: Literal["auto", "off"] = "auto"
    """Whether streaming POSTs are answered without aiohttp, where that makes no difference but speed."""
    websocket_compression: bool = False
    """Whether a WebSocket's messages are compressed for clients that offer it."""
    app: str | None = None
    """`module:function`: called with the application before it starts."""
    grace: float = 30.0
    """The longest time that running answers go on once the server has been asked to end."""
    uds: str | None = None
    """The path of a unix socket to listen on, in place of `host` and `port`."""
    fd: int | None = None
    """The number of an inherited descriptor to listen on, in place of `host` and `port`."""
    tls_cert: str | None = None
    """The file of the certificate chain; with one the server speaks TLS."""
    tls_key: str | None = None
    """The file of its private key."""
    forwarded_allow_ips: tuple[str, ...] = ()
    """The proxies that are believed whose connection it is: addresses, networks, `unix:`."""
    proxy_protocol: bool = False
    """Whether connections of these proxies begin with a PROXY header."""

    @property
    def scheme(self) -> str:
        """The scheme of the server's URL."""
        return "http" if self.tls_cert is None else "https"


@dataclass(frozen=True, slots=True)
class SpendLimit(_Snapshot):
    """`spend` of a `[[key]]`."""

    amount: int
    """The spend in 10^-12 of the currency from which on no request is admitted; 0: none is."""
    period: Literal["day", "month", "total"]
    """The time for which spend is added up, in UTC; `total`: for ever."""


@dataclass(frozen=True, slots=True)
class KeyLimits(_Snapshot):
    """The limits of a `[[key]]`, with those of `[key_defaults]`. `None`: no limit. 0: no request is admitted."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    streams: int | None = None
    """Streams at a time."""
    spend: SpendLimit | None = None


@dataclass(frozen=True, slots=True)
class KeySettings(_Snapshot):
    """One `[[key]]`: a caller, known by its secret."""

    name: str
    digests: tuple[bytes, ...] = field(repr=False)
    """`key_digest` of each secret. The secrets themselves are not kept."""
    models: tuple[str, ...] = ("*",)
    """The models that it may use: names and patterns, in which `*` stands for any text."""
    role: Literal["user", "admin"] = "user"
    expires: datetime | None = None
    """The moment from which on the key is refused; it has a time zone."""
    limits: KeyLimits = KeyLimits()

    @property
    def may_use_all(self) -> bool:
        """Whether the key may use every model."""
        return "*" in self.models

    def may_use(self, model: str) -> bool:
        """Whether the key may use a model.

        Args:
            model: The name that the request has, or that the default model has.
        """
        return self.may_use_all or any(fnmatchcase(model, _only_stars(pattern)) for pattern in self.models)


def _only_stars(pattern: str) -> str:
    """A pattern of `fnmatch` in which nothing but `*` is special."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def key_digest(key: str) -> bytes:
    """The hash of a caller's key, SHA-256. Keys are long and random, so a slow hash would add nothing.

    Args:
        key: ASCII.
    """
    return sha256(key.encode("ascii")).digest()


@dataclass(frozen=True, slots=True)
class StoreSettings(_Snapshot):
    """`[store]`: the logs of durable streams. Times in seconds, sizes in bytes."""

    url: str = field(default="memory://", repr=False)  # it may hold a password
    ttl: float = 600.0
    """The time that a log is kept after the end of its stream."""
    max_bytes: int = 256 * MIB
    """The size of all logs; those of the streams that ended first are dropped first."""
    max_stream_bytes: int = 4 * MIB
    """The size of one log; its oldest frames are dropped first, and a follower that needs them gets `stream.gap`."""
    sync: Literal["batched", "before_send"] = "batched"
    """Whether a stream's bytes are written some time after they were sent, or before."""
    limits_on_failure: Literal["fail_open", "fail_closed"] = "fail_open"
    """Whether requests of keys with limits are admitted or refused while the store cannot be reached."""


@dataclass(frozen=True, slots=True)
class IdempotencySettings(_Snapshot):
    """`[idempotency]`. Times in seconds."""

    ttl: float = 86400.0
    """Seconds for which an idempotency key belongs to the request that came with it first."""


@dataclass(frozen=True, slots=True)
class CacheSettings(_Snapshot):
    """`[cache]`: answers that are kept for the same request, and shared while they are generated."""

    ttl: float = 0.0
    """Seconds for which an answer is kept after its end; 0: none is kept or shared."""
    max_bytes: int = 64 * MIB
    """The size of all kept answers, some thousand of 16 KiB; those that ended first are dropped first."""
    scope: Literal["caller", "all"] = "caller"
    """Whether an answer is for the caller alone who asked for it, or for every caller of the server."""
    pace: Literal["instant", "recorded"] = "instant"
    """Whether a kept answer comes at once, or with the gaps with which it came from the upstream."""


@dataclass(frozen=True, slots=True)
class LimitSettings(_Snapshot):
    """`[limits]`: totals of the server."""

    streams: int = 20_000
    streams_per_caller: int = 1000
    connections: int = 40_000
    drains: int = 1000
    """Streams that may go on to their end though nobody follows them (`on_disconnect = "drain"`)."""
    memory_high_water: int | None = None
    """Bytes; `None`: 80 % of the machine's memory, or of the container's."""


@dataclass(frozen=True, slots=True)
class OTelSettings(_Snapshot):
    """`[otel]`, and what OpenTelemetry's own variables say. Times in seconds."""

    endpoint: str
    """The base URL of the receiver; `/v1/traces` and `/v1/metrics` are appended."""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    sample: float = 1.0
    """The part of the traces that begin here which are sampled; others follow their `traceparent`."""
    content: bool = False
    """Whether spans hold prompts."""
    span_delay: float = 5.0
    """`OTEL_BSP_SCHEDULE_DELAY`."""
    metric_interval: float = 5.0
    """`OTEL_METRIC_EXPORT_INTERVAL`."""
    resource: Mapping[str, str] = field(default_factory=dict)
    """`OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`."""


@dataclass(frozen=True, slots=True)
class Settings(_Snapshot):
    """One snapshot of the whole configuration."""

    server: ServerSettings = ServerSettings()
    keys: tuple[KeySettings, ...] = ()
    """Without any, a request needs no key."""
    stream: StreamSettings = StreamSettings()
    store: StoreSettings = StoreSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    limits: LimitSettings = LimitSettings()
    prices: PriceSettings = PriceSettings()
    cache: CacheSettings = CacheSettings()
    otel: OTelSettings | None = None
    """`None`: nothing is exported."""
    processors: tuple[Mapping[str, Any], ...] = ()
    """`[[processor]]` entries in order, validated by `gai_fast.processors.read_processor`."""
    upstreams: Mapping[str, UpstreamSettings] = field(default_factory=dict)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """By name, in the order of the configuration, `demo` last."""
    default_model: str | None = None

    def model(self, name: str | None) -> ModelSettings | None:
        """The model a request means, or `None` where there is no such model (docs/configuration.md).

        Args:
            name: A `[[model]]`'s name, `<upstream>/<id>`, or `None` for the default. One of more than
                `limits.model_name` characters is none: logs, figures and the admin API hold it.
        """
        if name is None:
            name = self.default_model or next(iter(self.models), None)
        if name is None:
            return None
        try:
            return self.models[name]
        except KeyError:
            pass
        upstream, slash, identifier = name.partition("/")
        if slash and identifier and upstream in self.upstreams and len(name) <= SHARED.model_name:
            return ModelSettings(name, self.upstreams[upstream], identifier, self.stream)
        return None

    def price(self, model: ModelSettings) -> Price | None:
        """The price of a model's tokens; `None`: it has none.

        The price of a `[[model]]` is its own: another one of the same upstream and id does not have it.

        Args:
            model: The model, with the upstream and the id that are asked.
        """
        prices = self.prices
        if model.price is not None:
            return model.price
        if prices.own and model.name not in self.models and (model.upstream.name, model.id) in prices.own:
            return prices.own[model.upstream.name, model.id]
        return prices.listed.get((model.upstream.provider.partition(":")[0], model.id)) if prices.listed else None

    def chosen(self, name: str | None, key: KeySettings | None = None) -> ModelSettings:
        """The model a request means.

        Args:
            name: As for `model`.
            key: The caller's key; `None`: there are no keys.

        Raises:
            Forbidden: The key may not use a model of this name, whether or not there is one.
            NotFound: There is no such model; the text has the nearest known name, or some of them.
        """
        model = self.model(name)
        if key is not None:
            _check_permission(key, name, model)
        if model is not None:
            return model
        if name is None:
            raise NotFound(message="no model is configured", reason="model")
        known = [each for each in self.model_names() if key is None or key.may_use(each)][: SHARED.suggested_from]
        close = get_close_matches(name[: SHARED.identifier], known, 1)
        more = ", … (GET /v1/models and `gai-fast models` list all)" if len(known) > _NAMED else ""
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known[:_NAMED]) or 'none'}{more}"
        upstream, slash, _ = name.partition("/")
        nor = ", nor an upstream of the name before its `/` (is its key set?)"
        what = nor if slash and upstream not in self.upstreams else ""
        raise NotFound(message=f"there is no model of this name{what}; {hint}", reason="model")

    def model_names(self) -> list[str]:
        """The valid values of `model` in a request: the names of the models, and `<upstream>/<id>`."""
        return [*self.models, *[f"{name}/<id>" for name in self.upstreams]]


def _check_permission(key: KeySettings, name: str | None, model: ModelSettings | None) -> None:
    asked = name if model is None else model.name
    if asked is not None and not key.may_use(asked):
        which = "the default model: name one" if name is None else "this model"
        allowed = ", ".join(key.models[:_NAMED]) or "none"
        raise Forbidden(message=f"this key may not use {which}; it may use: {allowed}", reason="model")
