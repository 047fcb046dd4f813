"""What a running gateway is configured to do, resolved: no environment, no files, no defaults left to look up.

`config/` makes these from the configuration; the asyncio layer reads them. One `Settings` is one immutable
snapshot: a request keeps the one it began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Final, Literal

from gai_fast.errors import NotFound
from gai_fast.limits import LIMITS

MIB = 1 << 20

_NAMED: Final = 10
"""How many models a message names."""


class Secret:
    """A value that no `repr`, format or traceback shows; `reveal()` is the one way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for a header that is about to be written."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self._value,)


class _Snapshot:
    """What can be copied and pickled though it is compiled and nothing of it can be set."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]  # one is


@dataclass(frozen=True, slots=True)
class StreamSettings(_Snapshot):
    """How one stream behaves. Times in seconds, sizes in bytes."""

    heartbeat: float = 15.0
    """Silence towards a client after which a keep-alive is written, 0: never; well below the 60 s of nginx and ALB."""
    commit_after: float = 2.0
    """How long the response head is held for the upstream's first event."""
    flush_interval: float = 0.0
    """How long output may be gathered before it is written; 0: once per turn of the loop."""
    timestamps: bool = False
    """`ts` on every event of a compact stream."""
    envelope: Literal["compact", "full"] | None = None
    """The envelope where the client names none; `None`: compact for SSE, full for NDJSON."""
    usage: Literal["asked", "always"] = "asked"
    """Whether clients of the OpenAI dialect get usage that they did not ask for."""
    on_midstream_failure: Literal["error", "restart", "continue"] = "error"
    """What becomes of an answer whose upstream fails after its first content: it ends with the error; a fresh one is
    announced by `stream.reset`, in formats that can; or a fresh one is verified against what was delivered and goes on
    from there."""
    on_malformed: Literal["skip", "error"] = "skip"
    """What becomes of a chunk that cannot be read."""
    write_timeout: float = 30.0
    """How long a client may take no byte before it is cut off."""
    client_buffer: int = 262144
    """Unsent bytes of one client above which the upstream is no longer read."""
    on_unsupported: Literal["error", "drop"] = "error"
    """What becomes of a field of a request that the upstream has no place for: refused, or left out and logged."""


@dataclass(frozen=True, slots=True)
class BreakerSettings(_Snapshot):
    """When an upstream that fails is left alone. Times in seconds."""

    failures: int = 5
    """So many failures, with no success between them, …"""
    window: float = 30.0
    """… within this time open it."""
    open: float = 10.0
    """How long nothing is sent before one request is let through as a probe."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings(_Snapshot):
    """One `[[upstream]]`."""

    name: str
    provider: str
    """An adapter's name, `name` or `name:api`."""
    base_url: str
    api_key: Secret | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_timeout: float = 5.0
    first_event_timeout: float = 60.0
    idle_timeout: float = 60.0
    total_timeout: float = 600.0
    max_connections: int = 1000
    retries: int = 2
    """How often a request that failed before its first content may be made again."""
    breaker: BreakerSettings | None = BreakerSettings()
    """`None`: an upstream that fails is asked all the same."""


@dataclass(frozen=True, slots=True)
class ModelSettings(_Snapshot):
    """One `[[model]]`, or the one that `<upstream>/<id>` names."""

    name: str
    upstream: UpstreamSettings
    id: str
    stream: StreamSettings = StreamSettings()
    fallback: tuple[str, ...] = ()
    """Other models that are asked, in order, where this one fails before its first content."""
    fallback_on: Mapping[str, str] = field(default_factory=dict)
    """The model that is asked where this one fails with an error of this code."""
    prefill: bool = False
    """Whether the upstream goes on where an assistant message at the end of the conversation stops."""


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
    access_log: bool = False
    insecure: bool = False
    fast_lane: Literal["auto", "off"] = "auto"
    """Whether streaming POSTs are answered without aiohttp, where nobody could notice."""
    app: str | None = None
    """`module:function`: called with the application before it starts."""


@dataclass(frozen=True, slots=True)
class StoreSettings(_Snapshot):
    """`[store]`: what is kept of resumable streams. Times in seconds, sizes in bytes."""

    url: str = "memory://"
    ttl: float = 600.0
    """How long a stream is kept after its end."""
    max_bytes: int = 256 * MIB
    """Of all streams; the ones that ended first go first."""
    max_stream_bytes: int = 4 * MIB
    """Of one stream; its oldest frames go first, and a follower that wanted them is told."""


@dataclass(frozen=True, slots=True)
class Settings(_Snapshot):
    """One snapshot of the whole configuration."""

    server: ServerSettings = ServerSettings()
    stream: StreamSettings = StreamSettings()
    store: StoreSettings = StoreSettings()
    processors: tuple[Mapping[str, Any], ...] = ()
    """`[[processor]]` entries in order, as `gai_fast.processors.read_processor` has found them right."""
    upstreams: Mapping[str, UpstreamSettings] = field(default_factory=dict)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """By name, in the order of the configuration, `demo` last."""
    default_model: str | None = None

    def model(self, name: str | None) -> ModelSettings | None:
        """The model a request means (CONTRACT §3, Routing), or `None` where there is no such model.

        Args:
            name: A `[[model]]`'s name, `<upstream>/<id>`, or `None` for the default.
        """
        if name is None:
            name = self.default_model or next(iter(self.models), None)
        if name is None:
            return None
        if name in self.models:
            return self.models[name]
        upstream, slash, identifier = name.partition("/")
        if slash and identifier and upstream in self.upstreams:
            return ModelSettings(name, self.upstreams[upstream], identifier, self.stream)
        return None

    def chosen(self, name: str | None) -> ModelSettings:
        """Returns the model a request means.

        Args:
            name: As for `model`.

        Raises:
            NotFound: There is no such model; the text has the nearest known name, or some of them.
        """
        model = self.model(name)
        if model is not None:
            return model
        if name is None:
            raise NotFound(message="no model is configured", reason="model")
        name = name[: LIMITS.identifier]
        close = get_close_matches(name, self.models, 1)
        known = ", ".join(list(self.models)[:_NAMED]) or "none"
        hint = f"did you mean {close[0]!r}?" if close else f"known: {known}"
        raise NotFound(message=f"there is no model of this name; {hint}", reason="model")
