"""The table of all keys: the purpose and the valid values of each key, the required keys, and the planned ones.

Defaults come from `model/settings.py`. A new key is one entry here and one field there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from gai_fast.config import checks
from gai_fast.config.guard_keys import GUARD, GUARD_DEFAULTS, REQUIRED_OF_GUARD
from gai_fast.config.issuers import audience, claim, issuer_url
from gai_fast.config.limits import LIMITS
from gai_fast.config.problems import SYNONYMS, Problems, meant, nearest, shown
from gai_fast.config.tool_keys import (
    REQUIRED_OF_TOOLS,
    TOOL,
    TOOL_DEFAULTS,
    TOOL_SERVER,
    TOOL_SERVER_DEFAULTS,
    tool_pattern,
)
from gai_fast.config.tuning import FIELDS, QUIRKS, dropped_paths, quirks, raw_members, request_fields
from gai_fast.config.values import (
    Key,
    choice,
    choices,
    fraction,
    moment,
    one_or_more,
    program,
    seconds,
    seconds_or_auto,
    switch,
    text,
    texts,
    whole,
)
from gai_fast.core.compression import CODINGS
from gai_fast.model.errors import CLASSES
from gai_fast.model.limits import MIB, SHARED
from gai_fast.model.settings import (
    BALANCES,
    CLOUDS,
    COUNTED_LIMITS,
    KEYS_BY,
    BreakerSettings,
    CacheSettings,
    IdempotencySettings,
    LimitSettings,
    OTelSettings,
    ResponsesSettings,
    RunSettings,
    ServerSettings,
    StoreSettings,
    StreamSettings,
    UpstreamSettings,
)
from gai_fast.model.version import installing
from gai_fast.processors import PROCESSORS
from gai_fast.providers import provider_names
from gai_fast.providers.requests.facts import FACTS, checked_facts
from gai_fast.stores import Seals

FLAGS: Final[Mapping[str, tuple[str, str]]] = {
    **{
        name: ("server", name)
        for name in ("host", "port", "uds", "fd", "workers", "app", "tls_cert", "tls_key", "log_format")
    },
    "store": ("store", "url"),
}
"""The section and the key that each flag sets. The variable `GAI_FAST_<FLAG>` sets this key, too."""

BREAKER: Final[Mapping[str, Key]] = {
    "failures": whole("Failures in a row that open the breaker.", 1, LIMITS.breaker_failures),
    "window": seconds("Time within which these failures must happen."),
    "open": seconds("How long the breaker stays open."),
}
_BREAKER_DEFAULTS: Final = asdict(BreakerSettings())


def _breaker(value: Any) -> Mapping[str, Any] | Literal[False]:
    if value is False:
        return False
    if not isinstance(value, dict):
        raise ValueError(f"must be false or a table of {', '.join(BREAKER)}")
    return _members(value, BREAKER, _BREAKER_DEFAULTS, lambda given: f", not {shown(given)}")


def _members(
    table: dict[str, Any], known: Mapping[str, Key], defaults: Mapping[str, Any], quote: Callable[[Any], str]
) -> dict[str, Any]:
    """Returns the members of a table within a value.

    Args:
        table: As it is given.
        known: The members that it may have.
        defaults: Their values if they are not given.
        quote: Returns an error's description of a wrong value; empty if the value may be a secret.

    Raises:
        ValueError: A member is unknown, or wrong.
    """
    checks.known_keys(table, known)
    read: dict[str, Any] = dict(defaults)
    for name, given in table.items():
        try:
            read[name] = known[name].read(given)
        except ValueError as problem:
            raise ValueError(f"has a `{name}` that {problem}{quote(given)}") from None
    return read


def _one_or_list(key: Key, most: int) -> Key:
    """Returns a key as `one_or_more` does, but a single value is not read as a tuple: `config show` prints it as
    given."""
    several = one_or_more(key, most)

    def read(value: Any) -> Any:
        found = several.read(value)
        return found if isinstance(value, list) else found[0]

    return replace(several, read=read)


TARGET: Final[Mapping[str, Key]] = {
    "upstream": text("The name of an [[upstream]].", checks.any_text),
    "id": text("The upstream's name for the model; by default the model's name.", checks.any_text),
    "weight": whole("Share of the requests, relative to the other targets; 0: none.", 0, LIMITS.target_weight),
    "streams": whole("Streams at a time, per worker.", 1),
}


def _targets(value: Any) -> tuple[Mapping[str, Any], ...]:
    is_list = isinstance(value, list) and 1 <= len(value) <= LIMITS.targets
    if not is_list or not all(isinstance(each, dict) for each in value):
        raise ValueError(f'must be a list of 1 to {LIMITS.targets} tables such as {{upstream = "openai", weight = 1}}')
    return tuple(_target(each) for each in value)


def _target(given: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in given:
        if name not in TARGET:
            raise ValueError(f"has an unknown key {shown(name)} in a target{nearest(name, TARGET)}")
    if "upstream" not in given:
        raise ValueError("has a target without `upstream`")
    read: dict[str, Any] = {}
    for name, value in given.items():
        try:
            read[name] = TARGET[name].read(value)
        except ValueError as problem:
            raise ValueError(f"has a target whose `{name}` {problem}, not {shown(value)}") from None
    return MappingProxyType(read)


SERVER: Final[Mapping[str, Key]] = {
    "host": text("Address to listen on; an address other than loopback needs a [[key]] or `insecure`.", checks.host),
    "port": whole("Port to listen on; 0 chooses a free one.", 0, 65535),
    "workers": whole("Worker processes.", 1, SHARED.workers),
    "allow_get_start": switch("Whether GET /api/v1/stream?q=… may start a stream; for `demo` it always may."),
    "cors_origins": texts("Origins whose pages may send requests; matched exactly.", checks.origin),
    "allowed_hosts": texts(
        "Host headers that are allowed: on loopback beside its own names; elsewhere, if any are named, only these.",
        checks.host,
    ),
    "default_model": text("The model of a request that names none.", checks.model_name, example="fast"),
    "keep_alive": seconds("How long a client's connection is kept without a request: longer than a proxy keeps it."),
    "header_timeout": seconds("How long a client may take to send a request's head."),
    "body_timeout": seconds("How long a client may pause in a request's body, which must bring 1 KiB a second."),
    "max_body": whole("Bytes of a request's body.", 1),
    "log_level": choice("The least important log lines that are written.", "debug", "info", "warning", "error"),
    "log_format": choice("The form of log lines; auto: text on a terminal, JSON otherwise.", "text", "json", "auto"),
    "access_log": switch("One log line for every request, at its end."),
    "insecure": switch("Allow an address that is not loopback without a key."),
    "fast_lane": choice("Whether streaming POSTs use the compiled path instead of aiohttp.", "auto", "off"),
    "websocket_compression": switch("Has no effect: WebSocket messages are never compressed."),
    "app": text(
        "module:function, called with the aiohttp.web.Application before it starts.",
        checks.function,
        f"^{checks.FUNCTION.pattern}$",
        example="shop.gateway:extend",
    ),
    "demo": switch("Offer the embedded model `demo`."),
    "grace": seconds("How long running answers may continue after SIGTERM.", zero=True),
    "uds": text("Path of a unix socket to listen on instead.", checks.socket_path, example="gai-fast.sock"),
    "fd": whole("Inherited descriptor of a socket to listen on instead.", 0, SHARED.descriptor, example=3),
    "tls_cert": text("File of the certificate chain (PEM), for TLS to clients.", checks.path, example="cert.pem"),
    "tls_key": text("File of the certificate's private key (PEM).", checks.path, example="key.pem"),
    "forwarded_allow_ips": texts(
        "Proxies trusted to name the client: addresses, networks, unix: for unix sockets.", checks.network
    ),
    "proxy_protocol": switch("Whether connections from these proxies begin with a PROXY header, version 1 or 2."),
    "metrics": choice(
        "Who may read /metrics; admin: keys with the role admin or metrics; auto: as admin if there is a [[key]].",
        "auto",
        "open",
        "admin",
    ),
}
STREAM: Final[Mapping[str, Key]] = {
    "heartbeat": seconds("Silence towards a client after which a keep-alive is sent; 0: never.", zero=True),
    "commit_after": seconds("How long the response head waits for the upstream's first event.", zero=True),
    "flush_interval": seconds("How long output may be gathered; 0: once per turn of the loop.", zero=True),
    "timestamps": switch("`ts` on every event of a compact stream."),
    "envelope": choice("The envelope if the client names none.", "compact", "full"),
    "usage": choice("Whether OpenAI clients get usage that they did not ask for.", "asked", "always"),
    "on_unsupported": choice(
        "What happens to a field that the upstream does not support; auto: drop for coding agents, else error.",
        "auto",
        "error",
        "drop",
    ),
    "on_midstream_failure": choice(
        "What happens to an answer whose upstream fails after its first content.", "error", "restart", "continue"
    ),
    "on_malformed": choice("What happens to an upstream chunk that cannot be read.", "skip", "error"),
    "on_disconnect": choice(
        "What happens to a stream after its last client has disconnected.", "auto", "cancel", "detach", "drain"
    ),
    "detach_ttl": seconds("How long a detached stream continues without a client.", zero=True),
    "retry": whole("Milliseconds until a client of a durable stream reconnects.", 0, LIMITS.reconnect_most),
    "write_timeout": seconds("How long a client may read nothing before it is disconnected."),
    "client_buffer": whole("Unsent bytes of a client above which it counts as slow.", 0, LIMITS.client_buffer),
    "compression": choices("Content codings for streams, the preferred one first.", checks.coding, *CODINGS),
}
_NONE: Final = "0: none is admitted."
KEY_DEFAULTS: Final[Mapping[str, Key]] = {
    "models": texts("The models that the caller may use: names, and patterns with *.", checks.model_pattern),
    "role": choice(
        "user; admin: may also operate the server (dashboard, admin API); metrics: may read /metrics alone.",
        "user",
        "admin",
        "metrics",
    ),
    "expires": moment("When the key expires: a date, or date, time and zone.", example="2030-01-31T18:00:00Z"),
    **{
        each.name: whole(f"{each.about}; {_NONE}", 0, LIMITS.key_limit, example=each.example) for each in COUNTED_LIMITS
    },
    "spend": Key(
        f"The money that may be spent in a period; 0: no request is admitted. Periods: {', '.join(checks.PERIODS)}.",
        {
            "type": "object",
            "properties": {
                "amount": {"type": "number", "minimum": 0, "maximum": LIMITS.largest_spend},
                "period": {"enum": list(checks.PERIODS)},
            },
            "required": ["amount", "period"],
            "additionalProperties": False,
        },
        checks.spend,
        example={"amount": 50, "period": "month"},
    ),
    "lane": texts(
        "The upstreams whose own paths (`lane` there) the caller may use: their names.", checks.upstream_name
    ),
    "tools": texts("The gateway's tools that the caller may use: names, and patterns with * ? [].", tool_pattern),
}
"""The keys of a `[[key]]` that are also allowed in `[key_defaults]`."""
OF_MODELS: Final = tuple(name for name in KEY_DEFAULTS if name not in ("role", "expires"))
"""The keys of a `[[key]]` about models and requests: a key of the role `metrics` has none of them."""
KEY: Final[Mapping[str, Key]] = {
    "name": text("The caller's name, in the log and for its streams.", checks.caller_name, f"^{checks.LABEL.pattern}$"),
    "secret": one_or_more(
        text(
            "The caller's secret: env:NAME, file:PATH, or sha256: and its SHA-256 in hexadecimal; a list during a "
            "rotation.",
            checks.caller_secret,
            f"^({checks.REFERENCE.pattern}|{checks.DIGEST.pattern})$",
            secret=True,
        ),
        LIMITS.key_secrets,
    ),
    **KEY_DEFAULTS,
}
ISSUER: Final[Mapping[str, Key]] = {
    "name": text(
        "The issuer's name in figures, and before the colon in the names of its callers.",
        checks.caller_name,
        f"^{checks.LABEL.pattern}$",
    ),
    "url": text(
        "The URL of the OIDC issuer, exactly as tokens have it in `iss`; https, or http on loopback.",
        issuer_url,
        example="https://login.example.com",
    ),
    "audience": text("The value that tokens must have in `aud`.", audience, example="gai-fast"),
    "claim": text("The claim that names the caller.", claim),
    **{
        name: KEY_DEFAULTS[name]
        for name in ("models", "requests_per_minute", "tokens_per_minute", "streams", "spend", "lane", "tools")
    },
}
_EXTRA: Final = "Members that are merged into every request in the provider's own words; tools are added."
UPSTREAM: Final[Mapping[str, Key]] = {
    "name": text("Its name in [[model]] and <upstream>/<id>.", checks.upstream_name, f"^{checks.NAME.pattern}$"),
    "provider": text("An adapter's name.", checks.provider),
    "python": text(
        "provider = python: the function that answers, module:function; the file's folder is searched first.",
        checks.function,
        f"^{checks.FUNCTION.pattern}$",
        example="my_model:answer",
    ),
    "base_url": text(
        "In the form of the provider's official SDK; by default the provider's own.", checks.base_url, secret=True
    ),
    "api_key": _one_or_list(
        text(
            "The upstream's key: env:NAME or file:PATH; several keys as a list; or caller: each caller's own.",
            checks.upstream_key,
            f"^({checks.CALLER}|{checks.REFERENCE.pattern})$",
            secret=True,
        ),
        LIMITS.upstream_keys,
    ),
    "key_by": choice("Which of several keys: each session has its own; or all requests take them in turn.", *KEYS_BY),
    "auth": choice("The cloud whose identity gives tokens, in place of a key; needs the extra of this name.", *CLOUDS),
    "auth_command": program(
        "A program and its arguments, which prints a token and its end, in place of a key.", checks.command
    ),
    "region": text("auth = aws, google: the region, or the location.", checks.region, f"^{checks.REGION.pattern}$"),
    "project": text("auth = google: the project.", checks.project, f"^{checks.PROJECT.pattern}$"),
    "service": text(
        "auth = aws: the service that each request is signed for (SigV4), in place of a bearer token of Bedrock.",
        checks.service,
        f"^{checks.REGION.pattern}$",
    ),
    "scope": text(
        "auth = google, entra: the scope of the tokens, if it is not the usual one.",
        checks.scope,
        f"^{checks.PRINTABLE.pattern}$",
    ),
    "headers": Key(
        "Headers that are sent with every request.",
        {"type": "object", "additionalProperties": {"type": "string"}},
        checks.headers,
        secret=True,
    ),
    "connect_timeout": seconds("Longest time to connect, TLS included."),
    "first_event_timeout": seconds_or_auto(
        "Longest time until the first chunk that the adapter can use; auto: 600, or 60 where another target or model "
        "can be asked and the request asks for no reasoning."
    ),
    "idle_timeout": seconds_or_auto(
        "Longest time between two reads of a stream; auto: as first_event_timeout, but 60 only where another attempt "
        "can go on with the answer."
    ),
    "total_timeout": seconds("Longest time for the whole answer."),
    "max_connections": whole(
        "Connections at a time, of the server; by default as many as [limits] streams.", 1, example=1000
    ),
    "pool_wait": seconds(
        "Longest wait for a connection while max_connections are in use; then the next target is asked."
    ),
    "shared_ids": texts(
        "Ids of what the upstream stores (prompts, files, vector stores) that every key may name, and patterns with *.",
        checks.stored_id,
    ),
    "min_idle": whole("Idle connections that are opened before the first request and kept open, per worker.", 0),
    "proxy": text(
        'The HTTP proxy for connections: its URL, env:NAME or file:PATH that holds the URL, or "env": from '
        "HTTPS_PROXY and NO_PROXY.",
        checks.proxy,
        secret=True,
        example="http://proxy.internal:3128",
    ),
    "ca_file": text(
        "File of certificate authorities for the upstream's certificate, in place of the system's (PEM).",
        checks.path,
        example="ca.pem",
    ),
    "client_cert": text("The gateway's client certificate (PEM).", checks.path, example="client.pem"),
    "client_key": text("The private key of client_cert, if that file has none.", checks.path, example="client.key"),
    "extra": Key(_EXTRA, {"type": "object"}, raw_members, example={"provider": {"sort": "price"}}),
    "quirks": Key(
        "What a server lacks of the chat dialect, or has otherwise.",
        {
            "type": "object",
            "properties": {name: {"enum": list(values)} for name, values in QUIRKS.items()},
            "additionalProperties": False,
        },
        quirks,
        example={"max_tokens": "max_tokens", "developer_role": False},
    ),
    "reasoning_tags": text(
        "The opening tag of reasoning that the server writes into the text; the closing one has a slash.",
        checks.tag,
        f"^{checks.TAG.pattern}$",
        example="<think>",
    ),
    "attribution": choice(
        "Whether Claude Code's attribution block is sent; auto: in requests that are passed on to Anthropic.",
        "auto",
        "keep",
        "cut",
    ),
    "retries": whole("Retries of a request that failed before its first content.", 0, LIMITS.retries),
    "breaker": Key(
        "When a failing upstream gets no requests for a while; false: never.",
        {
            "oneOf": [
                {"const": False},
                {
                    "type": "object",
                    "properties": {name: dict(key.schema) for name, key in BREAKER.items()},
                    "additionalProperties": False,
                },
            ]
        },
        _breaker,
    ),
    "lane": texts(
        "The paths that are passed through to it, such as /v1/embeddings; * is one segment, POST and GET unless named.",
        checks.pass_path,
    ),
}
MODEL: Final[Mapping[str, Key]] = {
    "name": text("The model's name in requests.", checks.model_name),
    "upstream": text("The name of an [[upstream]].", checks.any_text),
    "id": text("The upstream's name for the model; by default the name.", checks.any_text),
    "fallback": texts("Other models, tried in order if this one fails before its first content.", checks.model_name),
    "fallback_on": Key(
        "The model that is tried if this one fails with an error of this code.",
        {
            "type": "object",
            "propertyNames": {"enum": list(CLASSES)},
            "additionalProperties": {"type": "string", "minLength": 1},
        },
        checks.fallback_on,
    ),
    "targets": Key(
        "The upstreams that requests are spread over, each with its id of the model; in place of upstream and id.",
        {
            "type": "array",
            "minItems": 1,
            "maxItems": LIMITS.targets,
            "items": {
                "type": "object",
                "properties": {
                    name: {"description": key.about, **key.schema, **({"default": 1} if name == "weight" else {})}
                    for name, key in TARGET.items()
                },
                "required": ["upstream"],
                "additionalProperties": False,
            },
        },
        _targets,
    ),
    "balance": choice("How requests are spread over the targets.", *BALANCES),
    "hedge_after": seconds("Silence of a target after which a second target is asked; the first to answer is used."),
    "wait_for_limit": seconds(
        "How long a limit of the upstream (429 or 503 with Retry-After) is waited for if nothing else is ready.",
        zero=True,
    ),
    "tools": texts(
        "The gateway's tools that the model may use: docs.search, weather, and patterns with * ? [].", tool_pattern
    ),
    "max_steps": whole("Turns of a run, without its last.", 1, LIMITS.run_steps_most),
    "max_tool_calls": whole("Calls of a run; further ones are errors for the model.", 1, LIMITS.run_calls_most),
    "parallel_tools": whole("Calls of a run at a time.", 1, LIMITS.run_parallel_most),
    "run_timeout": seconds("Longest time of a run; then its calls end, and a last turn answers."),
    "prefill": switch("Whether the upstream continues an assistant message at the end."),
    "facts": Key(
        "What the model takes, if gai-fast does not know it or is wrong.",
        {"type": "object", "propertyNames": {"enum": list(FACTS)}},
        checked_facts,
        example={"max_output": 64_000},
    ),
    "defaults": Key(
        "Fields that a request gets if it lacks them.",
        {"type": "object", "propertyNames": {"enum": list(FIELDS)}},
        request_fields,
        example={"max_tokens": 4096},
    ),
    "overrides": Key(
        "Fields of a request that every request gets, whatever it has.",
        {"type": "object", "propertyNames": {"enum": list(FIELDS)}},
        request_fields,
        example={"reasoning": {"effort": "low"}},
    ),
    "extra": Key(_EXTRA, {"type": "object"}, raw_members, example={"top_k": 40}),
    "drop": Key(
        "The paths of members of the provider's request that are never sent.",
        {"type": "array", "items": {"type": "string"}},
        dropped_paths,
        example=["temperature", "tools[].strict"],
    ),
    "price": Key(
        "What a million tokens cost; unless given, cached_input and cache_write cost input, cache_write_1h twice as "
        "much, reasoning output. request: what each request costs, beside its tokens or alone. web_search: what a "
        "thousand searches of the provider cost. image: what each image costs, as request does.",
        {
            "type": "object",
            "properties": {name: {"type": "number", "minimum": 0, "maximum": LIMITS.price} for name in checks.PRICES},
            "anyOf": [
                {"required": ["input", "output"]},
                {"minProperties": 1, "propertyNames": {"enum": ["request", "image"]}},
            ],
            "additionalProperties": False,
        },
        checks.price,
        example={"input": 0.25, "output": 2},
    ),
    "cache": switch("Whether the model's requests share answers ([cache]); the header x-gai-cache: off prevents it."),
    **STREAM,
}
_SYNC: Final = ("batched", "before_send")
_FAILURE: Final = ("fail_open", "fail_closed")
ENCRYPTION: Final[Mapping[str, Key]] = {
    "keys": texts(
        "Keys of 32 bytes in base64, each env:NAME or file:PATH. The first seals, all open.", checks.reference
    ),
    "command": Key(
        "A program and its arguments, which prints the keys, one a line, in place of `keys`.",
        {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": LIMITS.command_arguments},
        lambda value: () if value == [] else checks.command(value),
        secret=True,
    ),
    "required": switch("Whether the server starts with keys only, and nothing is read that is not sealed."),
}
_ENCRYPTION_DEFAULTS: Final[Mapping[str, Any]] = {"keys": (), "command": (), "required": False}


def _encryption(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a table of {', '.join(ENCRYPTION)}")
    read = _members(value, ENCRYPTION, _ENCRYPTION_DEFAULTS, lambda given: "")
    if len(read["keys"]) > LIMITS.store_keys:
        raise ValueError(f"has more than {LIMITS.store_keys} `keys`: leave out the oldest")
    if read["keys"] and read["command"]:
        raise ValueError("has `keys` beside `command`: leave one of them out")
    if read["required"] and not read["keys"] and not read["command"]:
        raise ValueError("is `required`, and has neither `keys` nor `command`")
    if (read["keys"] or read["command"]) and not Seals.is_available():
        raise ValueError(f"needs the package cryptography: {installing('seal')}")
    return read


STORE: Final[Mapping[str, Key]] = {
    "url": text("The store of durable streams.", checks.store_url, secret=True),
    "ttl": seconds("How long a stream is kept after its end.", zero=True),
    "max_bytes": whole("Bytes kept of all streams, per worker; those that ended first are dropped first.", 65536),
    "max_stream_bytes": whole("Bytes kept of one stream; its oldest frames are dropped first.", 4096),
    "sync": choice("Whether a stream's bytes are stored in batches after they are sent, or before.", *_SYNC),
    "takeover": switch("Whether streams go on when their worker is gone; keeps requests until the end."),
    "limits_on_failure": choice("Whether keys with limits are admitted or refused while the store fails.", *_FAILURE),
    "encryption": Key(
        "The keys that seal the store; needs the extra seal.",
        {
            "type": "object",
            "properties": {name: dict(key.schema) for name, key in ENCRYPTION.items()},
            "additionalProperties": False,
        },
        _encryption,
        secret=True,
    ),
}
IDEMPOTENCY: Final[Mapping[str, Key]] = {
    "ttl": seconds("How long an idempotency key belongs to the first request that used it."),
}
CACHE: Final[Mapping[str, Key]] = {
    "ttl": seconds("How long an answer is kept for identical requests; 0: none is kept or shared.", zero=True),
    "max_bytes": whole("Bytes kept of all answers, per worker; those that ended first are dropped first.", 65536),
    "scope": choice("Whether an answer is for its own caller, or for every caller of the server.", "caller", "all"),
    "pace": choice("Whether a kept answer comes at once, or as fast as it was generated.", "instant", "recorded"),
}
RESPONSES: Final[Mapping[str, Key]] = {
    "store": switch("Whether responses of /v1/responses are kept, for their ids and for chains of them."),
    "ttl": seconds("How long a response is kept after its end.", least=1),
    "max_bytes": whole(
        "Bytes kept of all responses; the oldest are dropped first.", LIMITS.least_responses, example=256 * MIB
    ),
    "max_bytes_per_caller": whole(
        "Bytes kept of one caller's responses; its oldest are dropped first.", LIMITS.least_responses, example=25 * MIB
    ),
}
RUN: Final[Mapping[str, Key]] = {
    "approval_ttl": seconds("How long a call waits for an approval; then it is denied.", least=1),
    "waiting": whole("Runs that may wait for approvals, on all machines of the store; further calls are denied.", 0),
}
LIMIT: Final[Mapping[str, Key]] = {
    "streams": whole("Streams at a time; more are refused (503).", 1),
    "streams_per_caller": whole("Streams of one caller at a time; more are refused (429).", 1),
    "connections": whole("Clients' connections at a time; more are refused (503).", 1),
    "drains": whole("Streams without a client that may continue to their end (`on_disconnect` = drain).", 0),
    "memory_high_water": whole(
        "Bytes of memory above which new streams are refused (503).", LIMITS.least_memory, example=2048 * MIB
    ),
    "upload_bytes": whole("Bytes of request bodies that are being received; more are refused (503).", 1),
    "lane_body": whole("Bytes of bodies that are passed through unread; more are refused (503).", 1),
}
PRICES: Final[Mapping[str, Key]] = {
    "file": text("The price list: a TOML file, read again at every reload.", checks.path, example="prices.toml"),
}
OTEL: Final[Mapping[str, Key]] = {
    "endpoint": text(
        "Base URL of an OTLP/HTTP receiver for spans and metrics.",
        checks.base_url,
        secret=True,
        example="http://127.0.0.1:4318",
    ),
    "headers": Key(
        "Headers of requests to the endpoint; a value may be env:NAME or file:PATH.",
        {"type": "object", "additionalProperties": {"type": "string"}},
        checks.headers,
        secret=True,
    ),
    "sample": fraction("The sampled fraction of the traces that begin in this gateway."),
    "content": switch("Whether spans hold prompts and answers."),
}
PROCESSOR: Final[Mapping[str, Key]] = {
    "use": choice("The processor's name; the other keys of the table are its parameters.", *PROCESSORS),
}

SECTIONS: Final[Mapping[str, Mapping[str, Key]]] = {
    "server": SERVER,
    "key": KEY,
    "key_defaults": KEY_DEFAULTS,
    "issuer": ISSUER,
    "stream": STREAM,
    "store": STORE,
    "idempotency": IDEMPOTENCY,
    "limits": LIMIT,
    "prices": PRICES,
    "cache": CACHE,
    "responses": RESPONSES,
    "runs": RUN,
    "otel": OTEL,
    "upstream": UPSTREAM,
    "model": MODEL,
    "processor": PROCESSOR,
    "guard": GUARD,
    "tool_server": TOOL_SERVER,
    "tool": TOOL,
}
TABLES: Final = (
    "server",
    "stream",
    "store",
    "idempotency",
    "limits",
    "key_defaults",
    "prices",
    "cache",
    "responses",
    "runs",
    "otel",
)
"""Sections that occur in the file at most once; the environment can set their keys, too."""
LISTS: Final = ("key", "issuer", "upstream", "model", "processor", "guard", "tool_server", "tool")
"""Sections that may occur in the file several times."""
_LEAST_ELSEWHERE: Final = 0.75
"""The least likeness of a misspelt key to a key of another section. Among all sections some are near by chance."""
_TIMEOUTS: Final = ("timeout", "request_timeout", "read_timeout", "stream_timeout")
"""Other gateways' names for settings that are several keys here: no single key is the nearest."""
REQUIRED: Final[Mapping[str, Mapping[str, str]]] = {
    "key": {
        "name": 'a name for the caller, such as name = "website"',
        "secret": "`gai-fast key new NAME` makes a key with one",
    },
    "issuer": {
        "name": 'the first part of its callers\' names, such as name = "staff"',
        "url": "the `issuer` in its discovery document",
        "audience": "the `aud` of its tokens: the id of this API, or of the client",
    },
    "upstream": {
        "name": 'what models call it, such as name = "main"',
        "provider": f"one of {', '.join(provider_names())}",
    },
    "model": {
        "name": 'what clients ask for, such as name = "fast"',
        "upstream": "the name of an [[upstream]]; or several in `targets`",  # see `missing_keys`
    },
    "processor": {"use": f"one of {', '.join(PROCESSORS)}"},
    "guard": REQUIRED_OF_GUARD,
    **REQUIRED_OF_TOOLS,
}
"""The required keys of a table by section, each with a hint for the message if it is missing."""


def _defaults(kind: type[Any]) -> dict[str, Any]:
    return {item.name: item.default for item in fields(kind) if item.default is not MISSING}


DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "server": {**_defaults(ServerSettings), "default_model": None, "demo": True},
    "key": {},
    "key_defaults": dict.fromkeys(KEY_DEFAULTS) | {"models": ("*",), "role": "user", "lane": (), "tools": ()},
    "issuer": {"claim": "sub", "models": ("*",), "lane": (), "tools": ()},
    "stream": _defaults(StreamSettings),
    "store": {**_defaults(StoreSettings), "encryption": _ENCRYPTION_DEFAULTS},
    "idempotency": _defaults(IdempotencySettings),
    "limits": _defaults(LimitSettings),
    "otel": {
        "endpoint": None,
        "headers": {},
        **{name: value for name, value in _defaults(OTelSettings).items() if name in OTEL},
    },
    "prices": {"file": None},
    "cache": _defaults(CacheSettings),
    "responses": _defaults(ResponsesSettings),
    "runs": _defaults(RunSettings),
    "upstream": _defaults(UpstreamSettings)
    | {"headers": {}, "extra": {}, "quirks": {}, "breaker": _BREAKER_DEFAULTS, "lane": ()},
    "model": {
        "fallback": (),
        "fallback_on": {},
        "prefill": False,
        "facts": {},
        "defaults": {},
        "overrides": {},
        "extra": {},
        "drop": (),
        "price": None,
        "wait_for_limit": 5.0,
        "cache": False,
        "balance": "auto",
        "tools": (),
        "max_steps": SHARED.run_steps,
        "max_tool_calls": SHARED.run_tool_calls,
        "parallel_tools": SHARED.run_parallel_tools,
        "run_timeout": SHARED.run_timeout,
    },
    "processor": {},
    "guard": GUARD_DEFAULTS,
    "tool_server": TOOL_SERVER_DEFAULTS,
    "tool": TOOL_DEFAULTS,
}


def title(section: str) -> str:
    """Returns a section's header as it is written in the file."""
    return f"[[{section}]]" if section in LISTS else f"[{section}]"


def read_value(problems: Problems, section: str, name: str, value: Any, where: str) -> Any:
    """Returns one key's value, or None if it cannot be used, which is reported as a problem.

    Args:
        problems: Collects mistakes.
        section: The section of the key.
        name: The key.
        value: The TOML value.
        where: The value's origin.
    """
    key = SECTIONS[section][name]
    try:
        return key.read(value)
    except ValueError as problem:
        repeated = f", not {shown(value)}" if str(problem).startswith("must") and not key.secret else ""
        problems.add(where, f"`{name}` in {title(section)} {problem}{repeated}")
        return None


def unknown_key(name: str, section: str) -> str:
    """Returns the message about a key that the section does not have."""
    timed = "upstream" if section == "model" else section  # the times of a model are its upstream's
    if name in _TIMEOUTS and (limits := [key for key in SECTIONS[timed] if key.endswith("_timeout")]):
        return f"unknown key {shown(name)} in {title(section)}; {title(timed)} has {', '.join(limits)}"
    field = meant(name, {*FIELDS, *SECTIONS[section]}) if section == "model" else None
    if field in FIELDS and field not in SECTIONS[section]:
        return f"unknown key {shown(name)} in {title(section)}; a request's field is set by defaults = {{{field} = …}}"
    advice = nearest(name, SECTIONS[section])
    home = _home_of(name)
    is_synonym = any(each in SECTIONS[section] for each in SYNONYMS.get(name, ()))
    of_another_list = section in LISTS and home in LISTS and not is_synonym
    if of_another_list or meant(name, SECTIONS[section]) is None:
        if home in TABLES:
            return f"`{name}` belongs under [{home}], not under {title(section)}"
        advice = _advice_elsewhere(name) or advice
    return f"unknown key {shown(name)} in {title(section)}{advice}"


def unknown_section(name: str, value: Any) -> str:
    """Returns the message about a section that the file cannot have."""
    if not isinstance(value, dict) and not (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
        home = _home_of(name)
        if home in TABLES:
            return f"`{name}` belongs under [{home}]"
        if not isinstance(value, list) and (advice := _advice_elsewhere(name)):
            return f"unknown key {shown(name)}{advice}"
    return f"unknown section {shown(name)}{nearest(f'[{name}]', map(title, SECTIONS))}"


_NO_HOMES: Final = ("guard", "tool_server", "tool")


def _home_of(name: str) -> str | None:
    """Returns the first of `TABLES` that has a key, else the one list that has it, or None.

    A guard is nobody's home, nor is a tool: what they name (`keys`, `model`, `url`) are things of the other lists.
    """
    homes = [section for section in (*TABLES, *LISTS) if section not in _NO_HOMES and name in SECTIONS[section]]
    return homes[0] if homes and (homes[0] in TABLES or len(homes) == 1) else None


def _advice_elsewhere(name: str) -> str:
    """Returns advice for a key that, perhaps misspelt, belongs to one other section; empty if no section has it."""
    alike = {key for section in SECTIONS for key in SECTIONS[section] if key[0] == name[:1].lower()}
    near = meant(name, alike, _LEAST_ELSEWHERE)
    home = _home_of(near) if near else None
    if home is None:
        return ""
    return f"; it belongs under {title(home)}" if near == name else f"; did you mean {near}, under {title(home)}?"


def missing_keys(section: str, given: Iterable[str], required: Iterable[str]) -> list[str]:
    """Returns the required keys that a table lacks, except keys that it has under a misspelt name.

    Args:
        section: The section of the table.
        given: The names in the table.
        required: The required keys.
    """
    known = SECTIONS[section]
    if section == "model" and "targets" in given:
        required = [name for name in required if name != "upstream"]
    misspelt = {meant(name, known) for name in given if name not in known}
    return [name for name in required if name not in given and name not in misspelt]
