"""The resolved configuration of a running gateway: complete, without references to the environment or to defaults.

`gai_fast.config` builds the settings, the asyncio layer reads them. A `Settings` is an immutable snapshot: a request
keeps the snapshot with which it began.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from gai_fast.model.errors import Forbidden, NotFound
from gai_fast.model.limits import SHARED
from gai_fast.model.request import Request

MIB = 1 << 20

ANONYMOUS: Final = "anonymous"
"""The caller's name if no keys are configured."""

DEMO: Final = "demo"
"""The embedded model, a recording."""
_NAMED: Final = 10
"""The most models that a message names."""


class Secret:
    """A value that `repr`, formats and tracebacks hide; only `reveal()` returns it."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Returns the secret itself, for a header."""
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
    """Makes an immutable, compiled dataclass copyable and picklable."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]  # a dataclass


OnUnsupported = Literal["error", "drop"]


@dataclass(frozen=True, slots=True)
class StreamSettings(_Snapshot):
    """`[stream]`: the behaviour of one stream. Times in seconds, sizes in bytes."""

    heartbeat: float = 15.0
    """Silence towards a client after which a keep-alive is written, 0: never; well below the 60 s of nginx and ALB."""
    commit_after: float = 2.0
    """The longest time that the response headers wait for the upstream's first event."""
    flush_interval: float = 0.0
    """The longest time that output is gathered before it is written; 0: one turn of the loop."""
    timestamps: bool = False
    """`ts` on every event of a compact stream."""
    envelope: Literal["compact", "full"] | None = None
    """The envelope if the client names none. None means compact for SSE and full for NDJSON."""
    usage: Literal["asked", "always"] = "asked"
    """Whether clients of the OpenAI dialect get usage without asking for it."""
    on_midstream_failure: Literal["error", "restart", "continue"] = "error"
    """The effect of an upstream's failure after the first content. `error`: the answer ends with the error.
    `restart`: a new answer follows `stream.reset`, in formats that have this event. `continue`: a new answer is
    compared with the delivered text and continues it."""
    on_malformed: Literal["skip", "error"] = "skip"
    """Whether an unreadable chunk is left out with a warning, or ends the stream."""
    retry: int = 3000
    """Milliseconds that a client of a durable stream waits before it reconnects; Chrome's own default."""
    write_timeout: float = 30.0
    """The time without any read by the client after which it is disconnected."""
    client_buffer: int = 262144
    """Unsent bytes above which a client is slow: the upstream of a plain stream is then no longer read."""
    on_disconnect: Literal["auto", "cancel", "detach", "drain"] = "auto"
    """The effect of the last client's disconnect. `cancel`: the stream ends. `detach`: it continues for `detach_ttl`.
    `drain`: it continues to its end. `auto`: `detach` for durable streams, `cancel` for all others. `detach` and
    `drain` make every stream durable."""
    detach_ttl: float = 300.0
    """Seconds for which a detached stream continues without a client."""
    compression: tuple[Literal["zstd", "gzip", "br"], ...] = ()
    """The content codings for streams, the preferred one first. If there are none, streams are not compressed."""
    on_unsupported: Literal["auto"] | OnUnsupported = "auto"
    """Whether a field that the upstream does not support refuses the request, or is left out and logged. `auto`: it is
    left out for coding agents (`formats/agents.py`), and refuses the request of others."""


@dataclass(frozen=True, slots=True)
class BreakerSettings(_Snapshot):
    """`breaker`: when a failing upstream gets no requests. Times in seconds."""

    failures: int = 5
    """Failures in a row within `window` that open the breaker."""
    window: float = 30.0
    """The time within which the failures must happen."""
    open: float = 10.0
    """The time that the breaker stays open before one request is sent as a probe."""


@dataclass(frozen=True, slots=True)
class Peer(_Snapshot):
    """The way to a host: its URL, times, proxy and TLS. It has no fact about the host's answers."""

    url: str
    connect_timeout: float = 5.0
    """Seconds for DNS, TCP and TLS together."""
    idle_timeout: float = SHARED.patience
    """Seconds without a byte of a response while reading is on."""
    total_timeout: float = 86400.0
    """Seconds from a request to the end of its response, including the wait for a connection."""
    proxy: Secret | None = None
    """The URL of an HTTP proxy whose tunnels carry the connections."""
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


Cloud = Literal["aws", "google", "entra"]
CLOUDS: Final = get_args(Cloud)
"""The values of `auth`."""


@dataclass(frozen=True, slots=True)
class IdentitySettings(_Snapshot):
    """`auth` or `auth_command` of an `[[upstream]]`: where its tokens come from. Upstreams with equal settings share
    their tokens."""

    cloud: Cloud | None = None
    """`auth`. None means that `command` prints the tokens."""
    command: tuple[str, ...] = field(default=(), repr=False)
    """`auth_command`: a program and its arguments."""
    token: Secret | None = None
    """A token that does not expire, from the cloud's own environment variable; no other token is fetched then."""
    region: str | None = None
    """AWS: the region that requests are signed for. None means the region of AWS's own configuration."""
    service: str | None = None
    """AWS: the service that each request is signed for (SigV4)."""
    bearer: bool = True
    """AWS: whether a bearer token is made. If not, each request is signed."""
    scope: str | None = None
    """Google and Entra ID: the scope of the tokens."""

    @property
    def key(self) -> str:
        """The key of the configuration that operators should check."""
        return "auth_command" if self.cloud is None else "auth"


@dataclass(frozen=True, slots=True)
class FunctionSettings(_Snapshot):
    """A function of the user's that answers requests in place of a server."""

    reference: str
    """`module:function`."""
    folder: str
    """The folder in which the module is looked up first."""


KeyBy = Literal["session", "turn"]
SessionKind = Literal["caller", "run", "shared"]
"""Who has a session of its own at a server of tools."""
KEYS_BY: Final = get_args(KeyBy)
"""The rules by which one of several keys is chosen."""

Patience = float | Literal["auto"]
"""Seconds of silence after which an upstream is given up, or `"auto"`: the gateway decides."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings(_Snapshot):
    """One `[[upstream]]`."""

    name: str
    provider: str
    """An adapter's name, `name` or `name:api`."""
    base_url: str
    api_key: Secret | None = None
    """The key for requests, or the first of several keys."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_timeout: float = 5.0
    first_event_timeout: Patience = "auto"
    """`"auto"`, as of `idle_timeout`: `SHARED.patience`, or less where another target or model can be asked
    (`net/attempts/attempts.py`, rule 6)."""
    idle_timeout: Patience = "auto"
    total_timeout: float = 86400.0
    """A day: an answer that goes on is not cut."""
    max_connections: int | None = None
    """Connections of the server, divided among its workers. None means as many as `[limits] streams`."""
    pool_wait: float = 1.0
    """The time after which a request that waits for one of `max_connections` goes to the next target, or fails."""
    min_idle: int = 0
    """Idle connections that are opened before the first request and kept open."""
    proxy: Secret | None = None
    """The URL of an HTTP proxy."""
    retries: int = 2
    """Retries of a request that failed before its first content."""
    breaker: BreakerSettings | None = BreakerSettings()
    """The breaker. None means that a failing upstream still gets requests."""
    ca_file: str | None = None
    """A file of certificate authorities for the upstream's certificate, in place of the system's."""
    client_cert: str | None = None
    """The file of the gateway's client certificate (mutual TLS)."""
    client_key: str | None = None
    """The file of the certificate's private key. None means that the certificate's file holds the key."""
    more_api_keys: tuple[Secret, ...] = ()
    """Keys in addition to `api_key`."""
    takes_credentials: bool = False
    """Whether requests carry their callers' own credentials, in place of a key: `api_key = "caller"`."""
    key_by: KeyBy = "session"
    """How one of several keys is chosen: a session has its own, and all else takes them in turn; or `turn` for all."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Raw members that are merged into every body."""
    quirks: Mapping[str, Any] = field(default_factory=dict)
    """Parts of the chat dialect that a server lacks."""
    reasoning_tags: str | None = None
    """The opening tag of reasoning in the text of answers. None if there is no such reasoning."""
    pass_paths: tuple[str, ...] = ()
    """`lane`: the paths of the upstream that the pass-through offers (`pass_paths.py`)."""
    shared_ids: tuple[str, ...] = ()
    """Ids of what the upstream stores that every caller may name in a request, and patterns with `*`."""
    identity: IdentitySettings | None = None
    """The source of the tokens that requests carry in place of a key. None means that there is none."""
    attribution: Literal["auto", "keep", "cut"] = "auto"
    """Whether Claude Code's attribution block is sent. `auto`: in a request that is passed on to Anthropic."""
    function: FunctionSettings | None = None
    """The function that is called in place of a server. None if there is a server."""

    @property
    def keeps_attribution(self) -> bool:
        """Whether requests that are passed on keep Claude Code's attribution block, which only Anthropic reads."""
        if self.attribution != "auto":
            return self.attribution == "keep"
        return f".{urlsplit(self.base_url).hostname or ''}".endswith(".anthropic.com")

    def shares(self, identifier: str) -> bool:
        """Returns whether every caller may name an id in a request.

        Args:
            identifier: The id of something that the upstream stores.
        """
        return any(fnmatchcase(identifier, _only_stars(pattern)) for pattern in self.shared_ids)

    @property
    def other_keys(self) -> int:
        """The most times that a request is sent again with another key. A refused token is replaced once."""
        return len(self.more_api_keys) if self.identity is None else 1

    @property
    def credential(self) -> str:
        """The key of the configuration that has its credentials."""
        return "api_key" if self.identity is None else self.identity.key

    @property
    def peer(self) -> Peer:
        """The way to the upstream."""
        idle = SHARED.patience if isinstance(self.idle_timeout, str) else self.idle_timeout
        times = self.connect_timeout, idle, self.total_timeout
        return Peer(self.base_url, *times, self.proxy, self.ca_file, self.client_cert, self.client_key)


Balance = Literal["auto", "weighted", "least_busy", "fastest", "affinity"]
BALANCES: Final = get_args(Balance)
"""The rules by which a target is chosen."""


@dataclass(frozen=True, slots=True)
class TargetSettings(_Snapshot):
    """One of a model's `targets`: an upstream and its id of the model."""

    upstream: UpstreamSettings
    id: str
    weight: int = 1
    """The target's share of the requests, relative to the other targets; 0: it gets none."""
    streams: int | None = None
    """The most streams at a time of one worker. None means no limit."""


@dataclass(frozen=True, slots=True)
class Price(_Snapshot):
    """The price of a million tokens of a model, in 10^-12 of the currency (`money.Amount`)."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    currency: str = "USD"
    """Three letters of ISO 4217."""
    cache_write_1h: int | None = None
    """The price of input that is cached for an hour. None means twice the price of input, as Anthropic charges."""
    request: int = 0
    """The price of each request, in addition to the price of its tokens, in 10^-12 of the currency."""
    web_search: int = 0
    """The price of a thousand searches that the provider runs."""
    image: int = 0
    """The price of each image that `/v1/images/…` is asked for, in addition, in 10^-12 of the currency."""


@dataclass(frozen=True, slots=True)
class PriceSettings(_Snapshot):
    """The prices of models: from `[[model]]`, and from the price list that `[prices] file` names."""

    listed: Mapping[tuple[str, str], Price] = field(default_factory=dict)
    """The prices in the list, by provider without `:api`, and the upstream's id of the model."""
    own: Mapping[tuple[str, str], Price] = field(default_factory=dict)
    """The prices in `[[model]]`, by upstream and its id of the model: they also apply to `<upstream>/<id>`."""
    date: str | None = None
    """The list's date, such as `2026-11-20`."""
    currency: str = "USD"
    """The currency of all prices."""


@dataclass(frozen=True, slots=True)
class Tuning(_Snapshot):
    """Changes of a `[[model]]` to its requests (`providers/requests/tuning.py`)."""

    defaults: Request | None = None
    """The values of `default_names`, for the fields that a request does not set."""
    default_names: tuple[str, ...] = ()
    overrides: Request | None = None
    """The values of `override_names`, which replace the fields of every request."""
    override_names: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Raw members that are merged into every body."""
    drop: tuple[str, ...] = ()
    """The paths of members that are never sent."""


@dataclass(frozen=True, slots=True)
class ModelSettings(_Snapshot):
    """One `[[model]]`, or the model that `<upstream>/<id>` names.

    A model with `targets` has the upstream and id of the first target until a target is chosen for a request.
    """

    name: str
    upstream: UpstreamSettings
    id: str
    stream: StreamSettings = StreamSettings()
    fallback: tuple[str, ...] = ()
    """Other models that are tried, in order, if this one fails before its first content."""
    fallback_on: Mapping[str, str] = field(default_factory=dict)
    """The model that is tried if this one fails, by error code."""
    wait_for_limit: float = 5.0
    """Seconds for which a 429 or 503 of the upstream with a short `Retry-After` is waited for, in all retries together,
    if nothing else is ready. 0 if it is not waited for."""
    prefill: bool = False
    """Whether the upstream continues an assistant message at the end of the conversation."""
    price: Price | None = None
    """The model's own price, which has priority over all others."""
    cache: bool = False
    """Whether the model's requests share answers (`[cache]`) if they have no `x-gai-cache` header."""
    targets: tuple[TargetSettings, ...] = ()
    """The targets that requests are spread over. If there are none, all requests go to `upstream`."""
    balance: Balance = "auto"
    """The rule that chooses among the targets: `net/attempts/balance.py`."""
    hedge_after: float | None = None
    """Seconds without a first event after which a second target is asked. None means never."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The configuration's corrections of the model's facts (`providers/requests/facts.py`)."""
    tuning: Tuning | None = None
    """The configuration's changes to the model's requests. None if it changes nothing."""
    tools: tuple[str, ...] = ()
    """Patterns (`tool_rules.py`) of the gateway's tools that the model may use."""
    max_steps: int = SHARED.run_steps
    """Turns of a run."""
    max_tool_calls: int = SHARED.run_tool_calls
    """Calls of a run."""
    parallel_tools: int = SHARED.run_parallel_tools
    """Calls of a run at a time."""
    run_timeout: float = SHARED.run_timeout
    """Seconds of a run."""


@dataclass(frozen=True, slots=True)
class ServerSettings(_Snapshot):
    """`[server]`. Times in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    allow_get_start: bool = False
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    keep_alive: float = 75.0
    """How long a client's connection is kept without a request: longer than the 60 s of nginx and ALB, so that they
    never send one into a connection that is being closed."""
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    max_body: int = 10 * MIB
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json", "auto"] = "auto"
    """The form of log lines; `auto`: text on a terminal, JSON otherwise."""
    access_log: bool = False
    insecure: bool = False
    fast_lane: Literal["auto", "off"] = "auto"
    """Whether streaming POSTs bypass aiohttp if the only difference is speed."""
    websocket_compression: bool = False
    """Has no effect: WebSocket messages are never compressed. A file that has it is still read."""
    app: str | None = None
    """`module:function`: called with the application before it starts."""
    grace: float = 30.0
    """The longest time that running answers continue after the server was asked to shut down."""
    uds: str | None = None
    """The path of a unix socket to listen on, in place of `host` and `port`."""
    fd: int | None = None
    """The number of an inherited descriptor to listen on, in place of `host` and `port`."""
    tls_cert: str | None = None
    """The file of the certificate chain. If it is set, the server speaks TLS."""
    tls_key: str | None = None
    """The file of the certificate's private key."""
    forwarded_allow_ips: tuple[str, ...] = ()
    """The proxies trusted to name the client: addresses, networks, `unix:`."""
    proxy_protocol: bool = False
    """Whether connections from these proxies begin with a PROXY header."""
    metrics: Literal["auto", "open", "admin"] = "auto"
    """Whether `/metrics` needs an admin's key; `auto`: it does if there is a `[[key]]`."""

    @property
    def scheme(self) -> str:
        """The scheme of the server's URL."""
        return "http" if self.tls_cert is None else "https"


@dataclass(frozen=True, slots=True)
class SpendLimit(_Snapshot):
    """`spend` of a `[[key]]`."""

    amount: int
    """The spend, in 10^-12 of the currency, at which no further request is admitted; 0: no request is admitted."""
    period: Literal["day", "month", "total"]
    """The period over which spend is added up, in UTC; `total`: without end."""


class KeyLimit(NamedTuple):
    """A limit of a key that is a whole number.

    Attributes:
        about: What it limits, for the configuration and the command line.
        refusal: What the error of a refused request says.
        example: A value for a first configuration.
        counts: What a limit over a time counts; empty: it is no such limit.
        window: That time, in seconds: all of the limit may be used at once, and comes back evenly in it.
        header: Its name in the headers of answers; only of a limit over a time.
        name: The attribute of `KeyLimits`, which is the configuration's key.
    """

    about: str
    refusal: str
    example: int
    counts: Literal["requests", "tokens", ""] = ""
    window: float = 0.0
    header: str = ""
    name: str = ""


def _limit(limit: KeyLimit) -> Any:
    return field(default=None, metadata={"limit": limit})


@dataclass(frozen=True, slots=True)
class KeyLimits(_Snapshot):
    """The limits of a `[[key]]`, completed by `[key_defaults]`. None means no limit; 0: no request is admitted.

    The table of these limits: an attribute with a `KeyLimit` is all that a limit of this kind needs. Configuration,
    command line, admin API, headers and ledger read it here. Stores keep what was used by place: a new limit over a
    time stands after the others.
    """

    requests_per_minute: int | None = _limit(
        KeyLimit(
            "Requests a minute",
            "this key has made as many requests as it may in a minute",
            example=600,
            counts="requests",
            window=60.0,
            header="requests",
        )
    )
    tokens_per_minute: int | None = _limit(
        KeyLimit(
            "Tokens a minute, of input and output",
            "this key has used as many tokens as it may in a minute",
            example=100_000,
            counts="tokens",
            window=60.0,
            header="tokens",
        )
    )
    streams: int | None = _limit(
        KeyLimit("Streams at a time", "this key has as many streams under way as it may", example=50)
    )
    spend: SpendLimit | None = None

    @property
    def of_tokens(self) -> str:
        """The name of the first limit that counts tokens. Empty if there is none."""
        for name in _TOKEN_LIMITS:
            if getattr(self, name) is not None:
                return name
        return ""


LIMITS_OF_KEY: Final[tuple[str, ...]] = tuple(each.name for each in fields(KeyLimits))
"""The names of all limits of a key."""
COUNTED_LIMITS: Final[tuple[KeyLimit, ...]] = tuple(
    each.metadata["limit"]._replace(name=each.name) for each in fields(KeyLimits) if "limit" in each.metadata
)
"""The limits that are whole numbers."""
RATE_LIMITS: Final[tuple[KeyLimit, ...]] = tuple(each for each in COUNTED_LIMITS if each.window)
"""The limits over a time."""
_TOKEN_LIMITS: Final[tuple[str, ...]] = tuple(each.name for each in RATE_LIMITS if each.counts == "tokens")


@dataclass(frozen=True, slots=True)
class KeySettings(_Snapshot):
    """One `[[key]]`: a caller, identified by its secrets."""

    name: str
    digests: tuple[bytes, ...] = field(repr=False)
    """`key_digest` of each secret. The secrets themselves are not kept."""
    models: tuple[str, ...] = ("*",)
    """The models that the key may use: names and patterns, in which `*` matches any text."""
    role: Literal["user", "admin", "metrics"] = "user"
    """`metrics` may read `/metrics`, and nothing else that needs a key."""
    expires: datetime | None = None
    """The moment at which the key expires, with a time zone."""
    limits: KeyLimits = KeyLimits()
    pass_upstreams: tuple[str, ...] = ()
    """`lane`: the names of the upstreams whose paths the key may use (`/p/<upstream>/…`)."""
    tools: tuple[str, ...] = ()
    """Patterns (`tool_rules.py`) of the gateway's tools that the key may use."""

    @property
    def may_use_all(self) -> bool:
        """Whether the key may use every model."""
        return "*" in self.models

    def may_use(self, model: str) -> bool:
        """Returns whether the key may use a model.

        Args:
            model: The model's name in the request, or the default model's name.
        """
        return self.may_use_all or any(fnmatchcase(model, _only_stars(pattern)) for pattern in self.models)


_LEAST_ALIKE: Final = 0.65
"""How alike the name of a model must be to be suggested: two letters of three, in their order."""
_MISTYPED: Final = 0.9
"""How alike the name of a model is to the one that is meant: a letter of ten is wrong. `gpt-4o` is none of these."""


def _only_stars(pattern: str) -> str:
    """Returns an `fnmatch` pattern in which only `*` is special."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


def key_digest(key: str) -> bytes:
    """Returns the SHA-256 hash of a caller's key. Keys are long and random, so a slow hash is not needed.

    Args:
        key: ASCII.
    """
    return sha256(key.encode("ascii")).digest()


@dataclass(frozen=True, slots=True)
class SealSettings(_Snapshot):
    """`[store.encryption]`: the keys that seal the store. At most one of `keys` and `command` is set."""

    keys: tuple[Secret, ...] = ()
    """Each 32 bytes in base64. The first seals, all open."""
    command: tuple[str, ...] = ()
    """A program that prints the keys, one a line."""
    required: bool = False
    """Whether the server starts with keys only, and no plain record counts."""

    @property
    def has_keys(self) -> bool:
        """Whether there are keys, or a program that prints some."""
        return bool(self.keys or self.command)


@dataclass(frozen=True, slots=True)
class IssuerSettings(_Snapshot):
    """One `[[issuer]]`: an OIDC issuer whose tokens callers send in place of keys."""

    name: str
    url: str
    """Its URL, exactly as tokens have it in `iss`."""
    audience: str
    """The value that tokens must have in `aud`."""
    rights: KeySettings
    """The limits of each of its callers; it has no secrets."""
    claim: str = "sub"
    """The claim that names a caller."""

    def caller(self, value: str) -> KeySettings:
        """Returns one of its callers. No `[[key]]` has a name with a colon.

        Args:
            value: The value of `claim`.
        """
        return replace(self.rights, name=f"{self.name}:{value}")


CREDENTIAL_NAME: Final = "c-"
"""The beginning of the name of a caller that has a credential of its own, and no key: 16 hex digits follow."""
_CREDENTIAL: Final = re.compile(f"{CREDENTIAL_NAME}[0-9a-f]{{16}}")


def figure_label(caller: str) -> str:
    """Returns the name under which figures count a caller.

    A key has its own. The number of an issuer's callers, and of callers' credentials, has no limit: they have the
    issuer's name, or `c-`.

    Args:
        caller: The caller's name.
    """
    if caller.startswith(CREDENTIAL_NAME) and _CREDENTIAL.fullmatch(caller) is not None:
        return CREDENTIAL_NAME
    return caller.partition(":")[0] if ":" in caller else caller


@dataclass(frozen=True, slots=True)
class StoreSettings(_Snapshot):
    """`[store]`: the logs of durable streams. Times in seconds, sizes in bytes."""

    url: str = field(default="memory://", repr=False)  # it may hold a password
    ttl: float = 600.0
    """The time that a log is kept after the end of its stream."""
    max_bytes: int = 256 * MIB
    """The size of all logs; the logs of streams that ended first are dropped first."""
    max_stream_bytes: int = 4 * MIB
    """The size of one log; its oldest frames are dropped first, and a follower that needs them gets `stream.gap`."""
    sync: Literal["batched", "before_send"] = "batched"
    """Whether a stream's bytes are written in batches after they were sent, or before."""
    takeover: bool = True
    """Whether another worker goes on with a stream whose worker is gone. The store then has its request meanwhile."""
    limits_on_failure: Literal["fail_open", "fail_closed"] = "fail_open"
    """Whether requests of keys with limits are admitted or refused while the store cannot be reached."""
    encryption: SealSettings = SealSettings()


@dataclass(frozen=True, slots=True)
class IdempotencySettings(_Snapshot):
    """`[idempotency]`. Times in seconds."""

    ttl: float = 86400.0
    """Seconds for which an idempotency key belongs to the first request that used it."""


@dataclass(frozen=True, slots=True)
class RunSettings(_Snapshot):
    """`[runs]`: what holds for all runs. Times in seconds."""

    approval_ttl: float = 3600.0
    """Seconds for which a call waits for an approval; then it is denied."""
    waiting: int = 1000
    """Runs that may wait for approvals, on all machines of the store."""


@dataclass(frozen=True, slots=True)
class CacheSettings(_Snapshot):
    """`[cache]`: answers that are kept for identical requests, and shared while they are generated."""

    ttl: float = 0.0
    """Seconds for which an answer is kept after its end; 0: none is kept or shared."""
    max_bytes: int = 64 * MIB
    """The size of all kept answers, some thousand of 16 KiB; answers that ended first are dropped first."""
    scope: Literal["caller", "all"] = "caller"
    """Whether an answer is shared with requests of its own caller only, or of every caller of the server."""
    pace: Literal["instant", "recorded"] = "instant"
    """Whether a kept answer is sent at once, or with the upstream's original gaps."""


@dataclass(frozen=True, slots=True)
class ResponsesSettings(_Snapshot):
    """`[responses]`: responses of the Responses API that are kept for later requests."""

    store: bool = True
    """Whether any are kept."""
    ttl: float = 604_800.0
    """Seconds for which a response is kept after its end."""
    max_bytes: int | None = None
    """The size of all; beyond it the oldest of all are dropped. None means 64 MiB in memory, else 256 MiB."""
    max_bytes_per_caller: int | None = None
    """The size of one caller's, at most `max_bytes`; beyond it the caller's oldest are dropped. None means a tenth of
    `max_bytes`; of callers without a key or token, all of it."""


@dataclass(frozen=True, slots=True)
class LimitSettings(_Snapshot):
    """`[limits]`: totals of the server."""

    streams: int = 20_000
    streams_per_caller: int = 1000
    connections: int = 40_000
    drains: int = 1000
    """Streams without a client that may continue to their end (`on_disconnect = "drain"`)."""
    memory_high_water: int | None = None
    """Bytes. None means 80 % of the machine's memory, or of the container's."""
    upload_bytes: int = 512 * MIB
    """Bytes of request bodies that are being received."""
    lane_body: int = 512 * MIB
    """Bytes of those that are passed on unread, and the most of one of them."""


@dataclass(frozen=True, slots=True)
class OTelSettings(_Snapshot):
    """`[otel]`, and the values of OpenTelemetry's own variables. Times in seconds."""

    endpoint: str
    """The base URL of the receiver; `/v1/traces` and `/v1/metrics` are appended."""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    sample: float = 1.0
    """The sampled fraction of the traces that begin in this gateway; other traces follow their `traceparent`."""
    content: bool = False
    """Whether spans hold prompts and answers."""
    span_delay: float = 5.0
    """`OTEL_BSP_SCHEDULE_DELAY`."""
    metric_interval: float = 5.0
    """`OTEL_METRIC_EXPORT_INTERVAL`."""
    resource: Mapping[str, str] = field(default_factory=dict)
    """`OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`."""


GuardUse = Literal["patterns", "words", "pii", "moderation", "http", "python"]
GuardAction = Literal["mask", "stop", "flag"]
GuardSide = Literal["input", "output", "tool_input", "tool_result"]
STREAM_SIDES: Final[tuple[GuardSide, ...]] = ("input", "output")
"""What guards see by default: what callers send, and what models answer. The others are of the gateway's own tools."""
MATCHERS: Final[tuple[GuardUse, ...]] = ("patterns", "words", "pii")
"""The values of `use` whose guards find matches themselves."""
JUDGES: Final[tuple[GuardUse, ...]] = ("moderation", "http", "python")
"""The values of `use` whose guards ask for a verdict."""
KINDS: Final = ("email", "phone", "iban", "card", "ip", "ssn", "jwt", "api_key", "url_credentials")
"""The kinds of personal data that `use = "pii"` finds."""
CATEGORY: Final = "{category}"
"""What stands for the category of a match in a `replacement`."""


@dataclass(frozen=True, slots=True)
class JudgeSettings(_Snapshot):
    """Who gives a guard's verdicts: the `upstream` of a moderation, a `url` or a `function`. Exactly one is set."""

    upstream: UpstreamSettings | None = None
    model: str | None = None
    """The model that a moderation is asked for. None means that none is sent."""
    threshold: Mapping[str, float] = field(default_factory=dict)
    """The least score, 0 to 1, that counts of a moderation's category. Other categories count by their flags."""
    url: str = ""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    """Headers of requests to `url`."""
    ca_file: str | None = None
    """A file of certificate authorities for the certificate of `url`, in place of the system's."""
    function: FunctionSettings | None = None
    timeout: float = 1.0
    """Seconds from the moment a text is ready to its verdict."""
    max_exposure: int = 0
    """Characters of an answer that may be sent before their verdict."""
    fails_open: bool = False
    """`on_failure`: whether a text passes if the judge fails; otherwise the answer ends."""


@dataclass(frozen=True, slots=True)
class GuardSettings(_Snapshot):
    """One `[[guard]]`: which texts it finds, and what happens to them."""

    name: str
    use: GuardUse
    on: tuple[GuardSide, ...] = STREAM_SIDES
    action: GuardAction = "mask"
    models: tuple[str, ...] = ("*",)
    """Patterns (`fnmatch`) of the models that requests name."""
    keys: tuple[str, ...] = ("*",)
    """Patterns (`fnmatch`) of callers' names."""
    category: str = ""
    """The category of all matches. Empty means what `category_of` says."""
    replacement: str = f"[{CATEGORY}]"
    normalize: bool = False
    """Whether patterns and words are also found in text that is written to look alike."""
    patterns: tuple[str, ...] = field(default=(), repr=False)
    words: tuple[str, ...] = field(default=(), repr=False)
    kinds: tuple[str, ...] = ()
    """The `KINDS` that are found."""
    restore: bool = False
    """Whether upstreams get placeholders in place of personal data, and callers get the data back."""
    judge: JudgeSettings | None = None
    """Who gives the verdicts. None: the guard finds matches itself."""

    def category_of(self, found: str = "") -> str:
        """Returns the category of a match.

        Args:
            found: The kind of personal data, or the category that a verdict names; empty if there is none.
        """
        return self.category or found or self.use

    @property
    def fails_open(self) -> bool:
        """Whether a text passes that the guard cannot look at: `on_failure` of a judge, else its default."""
        return self.action == "flag" if self.judge is None else self.judge.fails_open

    def replacement_of(self, found: str = "") -> str:
        """Returns what replaces a match; `found` as for `category_of`."""
        return self.replacement.replace(CATEGORY, self.category_of(found))


@dataclass(frozen=True, slots=True)
class ToolServerSettings(_Snapshot):
    """One `[[tool_server]]`: a server of tools at a `url`, or a process by its `command`. Exactly one is set.

    Times in seconds, sizes in bytes.
    """

    name: str
    """Its label, which stands before the names of its tools: `docs.search`."""
    url: Secret | None = None
    """Its path and its query may hold a secret."""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    identity: IdentitySettings | None = None
    """The source of the tokens that requests carry. None means that there is none."""
    ca_file: str | None = None
    """A file of certificate authorities for the certificate of `url`, in place of the system's."""
    command: tuple[str, ...] = field(default=(), repr=False)
    """A program and its arguments."""
    env: Mapping[str, Secret] = field(default_factory=dict)
    """Variables of the process, beside `inherited`."""
    inherited: Mapping[str, str] = field(default_factory=dict)
    """The variables that the process has from the gateway: no secret is among them."""
    tools: tuple[str, ...] = ("*",)
    """Patterns (`fnmatch`) of the names of its tools: those that are offered at all."""
    approve: tuple[str, ...] = ()
    """Patterns of those whose calls wait for a person."""
    idempotent: tuple[str, ...] = ()
    """Patterns of those that may be called again after a fault, beside those that the server calls so."""
    connect_timeout: float = SHARED.tool_connect
    timeout: float = SHARED.tool_timeout
    """The time of a call, from its start or the last notice of progress."""
    max_result: int = SHARED.tool_result
    """What is kept of a result."""
    max_calls: int = SHARED.tool_places
    """Calls of one worker at a time."""
    session: SessionKind | None = None
    """Who has a session, or a process, of its own. None means `caller` at a `url`, and `shared` for a process."""
    plain: frozenset[str] = frozenset()
    """Names of `headers` and `env` whose values are no credentials: results may have them."""


@dataclass(frozen=True, slots=True)
class ToolSettings(_Snapshot):
    """One `[[tool]]`: a tool of the operator's, at a `url` or a `function`. Exactly one is set."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The JSON Schema of its arguments, an object's."""
    url: Secret | None = None
    """Where the arguments are posted. Its path and its query may hold a secret."""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    function: FunctionSettings | None = None
    approve: bool = False
    """Whether its calls wait for a person."""
    idempotent: bool = False
    """Whether it may be called again after a fault."""
    timeout: float = SHARED.tool_timeout
    max_result: int = SHARED.tool_result
    max_calls: int = SHARED.tool_places
    plain: frozenset[str] = frozenset()
    """Names of `headers` whose values are no credentials: results may have them."""


@dataclass(frozen=True, slots=True)
class Settings(_Snapshot):
    """One snapshot of the whole configuration."""

    server: ServerSettings = ServerSettings()
    keys: tuple[KeySettings, ...] = ()
    """The callers' keys. Without keys and issuers a request needs no key, unless the store has keys."""
    issuers: tuple[IssuerSettings, ...] = ()
    """The issuers of callers' tokens."""
    key_defaults: KeySettings = KeySettings("", ())
    """The defaults of keys of the store: `[key_defaults]`, which `keys` have already."""
    stream: StreamSettings = StreamSettings()
    store: StoreSettings = StoreSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    limits: LimitSettings = LimitSettings()
    prices: PriceSettings = PriceSettings()
    cache: CacheSettings = CacheSettings()
    responses: ResponsesSettings = ResponsesSettings()
    runs: RunSettings = RunSettings()
    otel: OTelSettings | None = None
    """The export to OpenTelemetry. None means that nothing is exported."""
    processors: tuple[Mapping[str, Any], ...] = ()
    """`[[processor]]` entries in order, validated by `gai_fast.processors.read_processor`."""
    guards: tuple[GuardSettings, ...] = ()
    """`[[guard]]` entries in order."""
    tool_servers: tuple[ToolServerSettings, ...] = ()
    """`[[tool_server]]` entries in order."""
    tools: tuple[ToolSettings, ...] = ()
    """`[[tool]]` entries in order."""
    upstreams: Mapping[str, UpstreamSettings] = field(default_factory=dict)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """By name, in the order of the configuration, `demo` last."""
    default_model: str | None = None
    usual: Mapping[str, str] = field(default_factory=dict)
    """The names of the usual models of upstreams with a key, by the id alone; an id of two upstreams is not in it.
    Without a configuration file they are in `models`, too; with one they are suggested."""

    @property
    def needs_key(self) -> bool:
        """Whether requests need a key or a token."""
        return bool(self.keys or self.issuers)

    def model(self, name: str | None) -> ModelSettings | None:
        """Returns the model for a request, or None if there is no such model (docs/configuration.md).

        Args:
            name: A `[[model]]`'s name, `<upstream>/<id>`, an id of `usual`, or None for the default. No model has a
                name of more than `limits.model_name` characters: logs, figures and the admin API hold it.
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
        return self.models.get(self.usual.get(name, ""))

    def price(self, model: ModelSettings) -> Price | None:
        """Returns the price of a model's tokens, or None if the model has no price.

        The price in a `[[model]]` does not apply to another `[[model]]` with an equal upstream and id.

        Args:
            model: The model, with the upstream and the id of the attempt.
        """
        prices = self.prices
        if model.price is not None:
            return model.price
        if prices.own and model.name not in self.models and (model.upstream.name, model.id) in prices.own:
            return prices.own[model.upstream.name, model.id]
        return prices.listed.get((model.upstream.provider.partition(":")[0], model.id)) if prices.listed else None

    @property
    def takes_credentials(self) -> bool:
        """Whether an upstream takes its callers' own credentials."""
        return any(upstream.takes_credentials for upstream in self.upstreams.values())

    def may_answer(self, model: ModelSettings) -> list[ModelSettings]:
        """Returns all that may be asked for an answer: a model, its fallbacks, and the targets of each.

        These are the model's `fallback`, and the `fallback_on` of each model that is asked (`net/attempts/`).

        Args:
            model: The model of the request.
        """
        found = _at_targets(model)
        names = [*model.fallback, *model.fallback_on.values()]
        seen = {model.name}
        while names:
            name = names.pop()
            other = None if name in seen else self.model(name)
            seen.add(name)
            if other is not None:
                found += _at_targets(other)
                names += other.fallback_on.values()
        return found

    def chosen(self, name: str | None, key: KeySettings | None = None) -> ModelSettings:
        """Returns the model for a request, and checks the caller's permission.

        Args:
            name: As for `model`.
            key: The caller's key, or None if no keys are configured.

        Raises:
            Forbidden: The key may not use a model of this name, whether or not the model exists.
            NotFound: The model does not exist; the text has the nearest known name, and some of the known names.
        """
        model = self.model(name)
        if key is not None:
            _check_permission(key, name, model)
        if model is not None:
            return model
        if name is None:
            raise NotFound(message="no model is configured", reason="model")
        known = [each for each in self.model_names() if key is None or key.may_use(each)][: SHARED.suggested_from]
        usual = [each for each in self.usual.values() if key is None or key.may_use(each)]
        close = _alike(name[: SHARED.identifier], [*known, *usual])
        more = ", … (GET /v1/models and `gai-fast models` list all)" if len(known) > _NAMED else ""
        hint = f"Did you mean {close[0]!r}? " if close else ""
        available = f"Available: {', '.join(known[:_NAMED]) or 'none'}{more}"
        upstream, slash, _ = name.partition("/")
        nor = "No upstream has the name before its `/` (is its key set?). "
        what = nor if slash and upstream not in self.upstreams else ""
        text = f"Unknown model {name[: SHARED.identifier]!r}. {what}{hint}{available}"
        raise NotFound(message=text, reason="model")

    def model_names(self) -> list[str]:
        """Returns the valid values of `model` in a request: the names of the models, and `<upstream>/<id>`."""
        return [*self.models, *[f"{name}/<id>" for name in self.upstreams]]


def _alike(name: str, known: Sequence[str]) -> Sequence[str]:
    """Returns the known model that is most alike, or none. Clients of a provider leave out the upstream."""
    for each in known:
        if each.endswith(f"/{name}"):
            return (each,)
    tails = {each.partition("/")[2] or each: each for each in reversed(known)}
    family = name.partition("-")[0]
    homes = {each.partition("/")[0] for tail, each in tails.items() if tail != each and tail.startswith(f"{family}-")}
    if len(homes) == 1 and not get_close_matches(name, tails, 1, _MISTYPED):
        return (f"{homes.pop()}/{name}",)  # another id of the provider
    close = get_close_matches(name, known, 1, _LEAST_ALIKE)
    return close or [tails[each] for each in get_close_matches(name, tails, 1, _LEAST_ALIKE)]


def _at_targets(model: ModelSettings) -> list[ModelSettings]:
    """Returns a model with each of its targets, or the model itself if it has none."""
    return [replace(model, upstream=each.upstream, id=each.id) for each in model.targets] or [model]


def _check_permission(key: KeySettings, name: str | None, model: ModelSettings | None) -> None:
    asked = name if model is None else model.name
    if asked is not None and not key.may_use(asked):
        which = "the default model: name one" if name is None else "this model"
        allowed = ", ".join(key.models[:_NAMED]) or "none"
        raise Forbidden(message=f"this key may not use {which}; it may use: {allowed}", reason="model")
