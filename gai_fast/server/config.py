"""The configuration: file, environment and flags in, one `Settings` out.

The only place that reads the environment. Owns every key's name, what its value may be, where it may come from
(flag > environment > file > default) and how a mistake is told: what, where, and the nearest name that is known.
Opens no socket and knows no provider by name but the embedded `demo`.

A key is one entry in a table below; its default stands in `settings.py`. Keys of CONTRACT §3 whose time has not come
stand in `LATER` and are refused with "not supported yet".
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from gai_fast.errors import CLASSES, GaiFastError
from gai_fast.limits import LIMITS
from gai_fast.net.pool import is_forbidden_address
from gai_fast.processors import PROCESSORS, BadParameter, read_processor
from gai_fast.providers import API, get_provider, provider_names
from gai_fast.settings import (
    BreakerSettings,
    ModelSettings,
    Secret,
    ServerSettings,
    Settings,
    StoreSettings,
    StreamSettings,
    UpstreamSettings,
)
from gai_fast.stores import STORES

DEFAULT_FILE: Final = Path("gai-fast.toml")
"""Read where no file is named and this one is in the working directory; the command line says so."""
DEMO: Final = "demo"
PREFIX: Final = "GAI_FAST_"
FLAGS: Final = ("host", "port", "workers")
"""Keys of `[server]` that have a flag, and so a variable of only the key's name."""


class ConfigError(GaiFastError):
    """The configuration cannot be used.

    Args:
        problems: One line each: where (file and line, variable or flag), what, and what to write instead. No secrets.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


# ---- what a value may be -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Args:
        about: What it is for, in one sentence.
        schema: What its value may be, as JSON Schema.
        read: The value for a TOML value; its `ValueError` says what the value must be, and never holds it.
        secret: A mistaken value is not shown.
    """

    about: str
    schema: Mapping[str, Any]
    read: Callable[[Any], Any]
    secret: bool = False


def _switch(about: str) -> Key:
    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value

    return Key(about, {"type": "boolean"}, read)


_LARGEST: Final = 2**53 - 1
"""Above it JSON readers disagree."""
_LONGEST_TEXT: Final = 600
"""Characters of a problem that is told in words of others."""
_LONGEST: Final = 10_000_000.0
"""Seconds, 115 days: the loops' timers overflow far above it, and nothing useful is longer."""


def _whole(about: str, least: int, most: int = _LARGEST) -> Key:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            bounds = f"at least {least}" if most == _LARGEST else f"{least} to {most}"
            raise ValueError(f"must be a whole number, {bounds}")
        return value

    return Key(about, {"type": "integer", "minimum": least, "maximum": most}, read)


def _seconds(about: str, *, zero: bool = False) -> Key:
    def read(value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (0 < value <= _LONGEST or (zero and value == 0)):
            raise ValueError(f"must be seconds, {'0 or more' if zero else 'more than 0'}, at most {_LONGEST:.0f}")
        return float(value)

    least = {"minimum": 0} if zero else {"exclusiveMinimum": 0}
    return Key(about, {"type": "number", **least, "maximum": _LONGEST}, read)


def _choice(about: str, *names: str) -> Key:
    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"must be {' or '.join(names)}")
        return str(value)

    return Key(about, {"enum": list(names)}, read)


def _text(about: str, check: Callable[[str], str], pattern: str | None = None, *, secret: bool = False) -> Key:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("must be a string that is not empty")
        if _CONTROL.search(value):
            raise ValueError("must not contain control characters")
        return check(value)

    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    return Key(about, {**schema, "pattern": pattern} if pattern else schema, read, secret)


def _texts(about: str, check: Callable[[str], str]) -> Key:
    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError("must be a list of strings")
        return tuple(check(item) for item in value)

    return Key(about, {"type": "array", "items": {"type": "string"}}, read)


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


def _any(value: str) -> str:
    return value


def _host(value: str) -> str:
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if _address(bare) is None and not _HOST_NAME.fullmatch(bare):
        raise ValueError("must be an address or a host name, without scheme or port")
    return bare


def _origin(value: str) -> str:
    """RFC 6454 §7: scheme, host and port, as browsers write it."""
    url = _split(value)
    origin = f"{url.scheme}://{url.netloc}".lower()
    usual = {"http": 80, "https": 443}.get(url.scheme, url.port)
    if not url.hostname or "@" in url.netloc or value.lower() != origin or url.port == usual:
        raise ValueError('must be whole origins such as "https://app.example.com": no wildcard, path or usual port')
    return origin


def _upstream_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 64 characters of A-Z a-z 0-9 . _ : - (a request may say <upstream>/<id>)")
    return value


def _model_name(value: str) -> str:
    if len(value) > 256:
        raise ValueError("must have at most 256 characters")
    return value


def check_provider(value: str) -> str:
    """A provider's name, as it is.

    Raises:
        ValueError: There is none of this name.
    """
    try:
        get_provider(value)
    except ValueError as problem:
        raise ValueError(f"cannot be used: {problem}") from None
    return value


def _base_url(value: str) -> str:
    """What may be asked: RELIABILITY (d) 41."""
    url = _split(value)
    if url.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if "@" in url.netloc:
        raise ValueError("must not hold a user or a password: use api_key or headers")
    if url.query or url.fragment or "?" in value or "#" in value:
        raise ValueError("must not hold a query or a fragment")
    if not url.hostname:
        raise ValueError("must name a host")
    address = _address(url.hostname)  # names are looked at when they have been resolved, at every connect
    if address is not None and is_forbidden_address(str(address)):
        raise ValueError("must not be a link-local or metadata address")
    return value.rstrip("/")


def _split(value: str) -> SplitResult:
    # urlsplit drops tabs and line ends in silence, and takes a backslash for what it is not.
    if not _PRINTABLE.fullmatch(value) or "\\" in value:
        raise ValueError("must be a URL of printable ASCII characters")
    try:
        url = urlsplit(value)
        _ = url.port  # raises where it is no number
    except ValueError:
        raise ValueError("must be a URL") from None
    return url


def _store_url(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if separator and scheme in ("sqlite", "redis", "rediss"):
        raise ValueError(f"names a store, {scheme}, that is not supported yet")
    if not separator or scheme not in STORES or rest:
        raise ValueError('must be "memory://"')
    return value


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError('must be "env:NAME" or "file:PATH": a key itself does not belong into the file')
    return value


# What the connection's own code writes, or what belongs to one hop (RFC 9110 §7.6.1).
_RESERVED: Final = frozenset(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding "
    "upgrade host content-length content-type accept accept-encoding expect".split()
)


def _headers(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError('must be a table of strings, such as { "x-team" = "search" }')
    seen: set[str] = set()
    for name, text in value.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError("must have header names of RFC 9110 token characters")
        if name.lower() in _RESERVED:
            raise ValueError(f"must not set {name}: the gateway writes it")
        if name.lower() in seen:
            raise ValueError(f"must not set {name} twice")
        seen.add(name.lower())
        if not isinstance(text, str) or not re.fullmatch(r"[\t -~\x80-\xff]*", text):
            raise ValueError(f"must have a string without control characters for {name}")
    return MappingProxyType(dict(value))


def _breaker(value: Any) -> Mapping[str, Any] | Literal[False]:
    if value is False:
        return False
    if not isinstance(value, dict) or not value.keys() <= BREAKER.keys():
        raise ValueError(f"must be false or a table of {', '.join(BREAKER)}")
    try:
        return {**_BREAKER_DEFAULTS, **{name: BREAKER[name].read(given) for name, given in value.items()}}
    except ValueError as problem:
        raise ValueError(f"must be false or a table of {', '.join(BREAKER)}, each of which {problem}") from None


def _fallback_on(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise ValueError('must be a table of error codes and models, as {context_length_exceeded = "big"}')
    for code in value:
        if code not in CLASSES:
            raise ValueError(f"must have error codes; known: {', '.join(CLASSES)}")
    return MappingProxyType({code: _model_name(name) for code, name in value.items()})


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, in any notation that the resolver takes for one (`2852039166`, `0xa9fe.0xa9fe`)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host)) if host.isascii() and " " not in host else None
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that binds to this host."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


BREAKER: Final[Mapping[str, Key]] = {
    "failures": _whole("Failures in a row that open it.", 1, LIMITS.breaker_failures),
    "window": _seconds("Within how long they must come."),
    "open": _seconds("How long it stays open."),
}
_BREAKER_DEFAULTS: Final = asdict(BreakerSettings())


# ---- the keys ------------------------------------------------------------------------------------------------------

SERVER: Final[Mapping[str, Key]] = {
    "host": _text("Address to listen on; one that is not loopback needs `insecure` until keys have come.", _host),
    "port": _whole("Port to listen on; 0 chooses a free one.", 0, 65535),
    "workers": _whole("Processes; more than 1 is not supported yet.", 1),
    "allow_get_start": _switch("Whether GET /api/v1/stream?q=… may start a stream; for `demo` it always may."),
    "cors_origins": _texts("Origins whose pages may call; matched exactly.", _origin),
    "allowed_hosts": _texts("Host headers that are taken on loopback, beside the loopback names.", _host),
    "default_model": _text("The model of a request that names none.", _model_name),
    "header_timeout": _seconds("How long a client may take to send a request's head."),
    "body_timeout": _seconds("How long a client may take to send a request's body."),
    "max_body": _whole("Bytes of a request's body.", 1),
    "log_level": _choice("The least important log lines that are written.", "debug", "info", "warning", "error"),
    "access_log": _switch("One log line for every request, at its end."),
    "insecure": _switch("Allow an address that is not loopback without a key."),
    "demo": _switch("Offer the embedded model `demo`."),
}
STREAM: Final[Mapping[str, Key]] = {
    "heartbeat": _seconds("Silence towards a client after which a keep-alive is sent; 0: never.", zero=True),
    "commit_after": _seconds("How long the response head waits for the upstream's first event.", zero=True),
    "flush_interval": _seconds("How long output may be gathered; 0: once per turn of the loop.", zero=True),
    "timestamps": _switch("`ts` on every event of a compact stream."),
    "envelope": _choice("The envelope where the client names none.", "compact", "full"),
    "usage": _choice("Whether OpenAI clients get usage that they did not ask for.", "asked", "always"),
    "on_unsupported": _choice("What becomes of a field that the upstream has no place for.", "error", "drop"),
    "on_midstream_failure": _choice(
        "What becomes of an answer whose upstream fails after its first content.", "error", "restart", "continue"
    ),
    "on_malformed": _choice("What becomes of a chunk of the upstream that cannot be read.", "skip", "error"),
}
UPSTREAM: Final[Mapping[str, Key]] = {
    "name": _text("What [[model]] and <upstream>/<id> call it.", _upstream_name, f"^{_NAME.pattern}$"),
    "provider": _text("An adapter's name.", check_provider),
    "base_url": _text(
        "As the provider's official SDK takes it; by default the provider's own.", _base_url, secret=True
    ),
    "api_key": _text("Where the key is: env:NAME or file:PATH.", _reference, f"^({_REFERENCE.pattern})$", secret=True),
    "headers": Key(
        "Headers that are sent with every request.",
        {"type": "object", "additionalProperties": {"type": "string"}},
        _headers,
        secret=True,
    ),
    "connect_timeout": _seconds("To connect, TLS included."),
    "first_event_timeout": _seconds("To the first chunk that the adapter can use."),
    "idle_timeout": _seconds("Between two reads of a stream."),
    "total_timeout": _seconds("For the whole answer."),
    "max_connections": _whole("Connections at a time.", 1),
    "retries": _whole("How often a request that failed before its first content is made again.", 0, LIMITS.retries),
    "breaker": Key(
        "When the upstream is left alone for a while; false: never.",
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
}
MODEL: Final[Mapping[str, Key]] = {
    "name": _text("What clients ask for.", _model_name),
    "upstream": _text("The name of an [[upstream]].", _any),
    "id": _text("What the upstream is asked for; by default the name.", _any),
    "fallback": _texts("Other models, asked in order where this one fails before its first content.", _model_name),
    "fallback_on": Key(
        "The model that is asked where this one fails with an error of this code.",
        {
            "type": "object",
            "propertyNames": {"enum": list(CLASSES)},
            "additionalProperties": {"type": "string", "minLength": 1},
        },
        _fallback_on,
    ),
    "prefill": _switch("Whether the upstream goes on where an assistant message at the end stops."),
    **STREAM,
}
STORE: Final[Mapping[str, Key]] = {
    "url": _text("Where resumable streams are kept.", _store_url, secret=True),
    "ttl": _seconds("How long a stream is kept after its end.", zero=True),
    "max_bytes": _whole("Bytes kept of all streams; those that ended first go first.", 65536),
    "max_stream_bytes": _whole("Bytes kept of one stream; its oldest frames go first.", 4096),
}
PROCESSOR: Final[Mapping[str, Key]] = {
    "use": _choice("Which one; the other keys of the table are its parameters.", *PROCESSORS),
}
SECTIONS: Final[Mapping[str, Mapping[str, Key]]] = {
    "server": SERVER,
    "stream": STREAM,
    "store": STORE,
    "upstream": UPSTREAM,
    "model": MODEL,
    "processor": PROCESSOR,
}
TABLES: Final = ("server", "stream", "store")
LISTS: Final = ("upstream", "model", "processor")
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "upstream": ("name", "provider"),
    "model": ("name", "upstream"),
    "processor": ("use",),
}

_LATER_STREAM: Final = frozenset("retry on_disconnect detach_ttl write_timeout client_buffer".split())
LATER: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset("key idempotency limits".split()),
    "server": frozenset("grace tls_cert tls_key".split()),
    "stream": _LATER_STREAM,
    "store": frozenset({"sync"}),
    "upstream": frozenset(),
    "model": _LATER_STREAM,
    "processor": frozenset(),
}
_LIST_SECTIONS: Final = frozenset({*LISTS, "key"})


def _title(section: str) -> str:
    return f"[[{section}]]" if section in _LIST_SECTIONS else f"[{section}]"


def _defaults(kind: type[Any]) -> dict[str, Any]:
    return {item.name: item.default for item in fields(kind) if item.default is not MISSING}


DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "server": {**_defaults(ServerSettings), "default_model": None, "demo": True},
    "stream": _defaults(StreamSettings),
    "store": _defaults(StoreSettings),
    "upstream": {**_defaults(UpstreamSettings), "headers": {}, "breaker": _BREAKER_DEFAULTS},
    "model": {"fallback": (), "fallback_on": {}, "prefill": False},
    "processor": {},
}


def wants_color(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the user allows colours: https://no-color.org."""
    return not (os.environ if environ is None else environ).get("NO_COLOR")


# ---- where things stand --------------------------------------------------------------------------------------------

Place = tuple[str | int, ...]

# A string can hold what looks like a key, a comment what looks like a string.
_LEXEME: Final = re.compile(
    r"""(?P<comment>#[^\n]*)|(?P<long>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5})|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""", re.S
)
_KEY_PATH: Final = (
    r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?:[ \t]*\.[ \t]*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'))*"""
)
_LINE: Final = re.compile(
    rf"^[ \t]*(?:\[\[[ \t]*(?P<item>{_KEY_PATH})[ \t]*\]\]"
    rf"|\[[ \t]*(?P<table>{_KEY_PATH})[ \t]*\]"
    rf"|(?P<key>{_KEY_PATH})[ \t]*=)"
)


def line_numbers(source: str) -> dict[Place, int]:
    """The line of every table and key that begins a line of its own, from 1.

    Args:
        source: Valid TOML.
    """
    blanked = _LEXEME.sub(
        lambda found: "\n" * found[0].count("\n") if found.lastgroup in ("long", "comment") else found[0], source
    )
    lines: dict[Place, int] = {}
    counts: dict[str, int] = {}
    here: Place = ()
    for number, text in enumerate(blanked.split("\n"), 1):
        found = _LINE.match(text)
        if found is None:
            continue
        names = [
            name.strip().strip("\"'") for name in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", found[found.lastgroup or 0])
        ]
        if found["item"]:
            counts[names[0]] = counts.get(names[0], -1) + 1
        if found["key"]:
            at: Place = (*here, *names)
        else:
            at = here = (names[0], *([counts[names[0]]] if names[0] in counts else []), *names[1:])
        for length in range(1, len(at) + 1):  # a dotted key is also the first place of the tables it names
            lines.setdefault(at[:length], number)
    return lines


@dataclass(frozen=True, slots=True)
class Value:
    """One key's value and where it comes from."""

    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, read and resolved, and where each part of it comes from."""

    settings: Settings
    path: Path | None
    """The file it was read from."""
    server: dict[str, Value]
    stream: dict[str, Value]
    store: dict[str, Value]
    upstreams: list[dict[str, Value]]
    models: list[dict[str, Value]]
    processors: list[dict[str, Value]]


class _Reader:
    """One reading: gathers values with their origins, and problems, so that all of them are told at once."""

    def __init__(self, path: Path | None, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self.problems: list[str] = []
        self.lines: dict[Place, int] = {}

    def where(self, *at: str | int) -> str:
        """File and line of a key, or of what it stands in."""
        for length in range(len(at), 0, -1):
            if at[:length] in self.lines:
                return f"{self.path}:{self.lines[at[:length]]}"
        return str(self.path)

    def problem(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}")

    def document(self) -> dict[str, Any]:
        """The file's tables.

        Raises:
            ConfigError: It cannot be read, or is not TOML.
        """
        assert self.path is not None
        try:
            with self.path.open("rb") as file:
                content = file.read(LIMITS.config_file + 1)
        except OSError as problem:
            raise ConfigError(f"{self.path}: cannot be read: {problem.strerror}") from None
        if len(content) > LIMITS.config_file:
            raise ConfigError(f"{self.path}: larger than {LIMITS.config_file} bytes: this is not a configuration")
        try:
            source = content.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as problem:
            line = content.count(b"\n", 0, problem.start) + 1
            raise ConfigError(f"{self.path}:{line}: not UTF-8") from None
        try:
            document = tomllib.loads(source)
        except (ValueError, RecursionError) as problem:
            raise ConfigError(_syntax(self.path, problem, source)) from None
        self.lines = line_numbers(source)
        return document

    def table(self, section: str, given: Any, *at: str | int) -> dict[str, Value]:
        """The known keys of one table of the file."""
        keys, values = SECTIONS[section], {}
        for name, value in given.items():
            where = self.where(*at, name)
            if name not in keys:
                self.problem(where, _unknown(name, section))
                continue
            read = self.read(section, name, value, where)
            if read is not None:
                values[name] = Value(read, where)
        # Said already, with the right name.
        misspelt = {_meant(name, {*keys, *LATER[section]}) for name in given if name not in keys}
        for name in REQUIRED.get(section, ()):
            if name not in given and name not in misspelt:
                self.problem(self.where(*at), f"`{name}` is missing in {_title(section)}")
        if "provider" in values and "base_url" not in given:
            api = get_provider(values["provider"].value)
            if not api.base_url and not api.recording:
                self.problem(self.where(*at), f"`base_url` is missing in [[upstream]]: {api.provider} has no default")
        return values

    def processor(self, given: dict[str, Any], index: int) -> dict[str, Value]:
        """One entry of `[[processor]]`."""
        try:
            read_processor(given)
        except BadParameter as problem:
            text = str(problem)
            short = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
            self.problem(self.where("processor", index, problem.key), f"[[processor]]: {short}")
        return {name: Value(value, self.where("processor", index, name)) for name, value in given.items()}

    def read(self, section: str, name: str, value: Any, where: str) -> Any:
        """One value, or `None` where it cannot be used, which has then been told."""
        key = SECTIONS[section][name]
        try:
            read = key.read(value)
        except ValueError as problem:
            shown = f", not {_shown(value)}" if str(problem).startswith("must") and not key.secret else ""
            self.problem(where, f"`{name}` in {_title(section)} {problem}{shown}")
            return None
        if section == "server" and name == "workers" and read > 1:
            self.problem(where, f"`workers` = {read} is not supported yet: only 1")
            return None
        return read

    def variables(self, section: str) -> dict[str, Value]:
        """The keys of a section that the environment sets."""
        values: dict[str, Value] = {}
        for name, key in SECTIONS[section].items():
            names = [f"{PREFIX}{section}__{name}".upper()]
            if section == "server" and name in FLAGS:
                names.insert(0, f"{PREFIX}{name}".upper())
            variable = next((variable for variable in names if self.environ.get(variable)), None)
            if variable is None:
                continue
            read = self.read(section, name, _from_text(self.environ[variable], key), variable)
            if read is not None:
                values[name] = Value(read, variable)
        return values

    def check_variables(self) -> None:
        """Variables that look as if they set a key, and do not."""
        known, later = (
            {f"{PREFIX}{section}__{name}".upper() for section in TABLES for name in table[section]}
            for table in (SECTIONS, LATER)
        )
        for variable in sorted(self.environ):
            section, separator, _ = variable.removeprefix(PREFIX).partition("__")
            if not variable.startswith(PREFIX) or not separator or variable in known:
                continue
            if variable in later or section.lower() in LATER[""]:
                self.problem(variable, "not supported yet")
            elif section.lower() in LISTS:
                self.problem(variable, f"[[{section.lower()}]] is set in the file only")
            else:
                self.problem(variable, f"no such setting{_nearest(variable, known)}")

    def secret(self, reference: Value) -> Secret | None:
        """The key that a reference means."""
        kind, _, name = reference.value.partition(":")
        if kind == "env":
            text = self.environ.get(name, "")
            missing = f"the environment variable {name} is not set"
        else:
            path = Path(name) if self.path is None else self.path.parent / name
            missing = f"the file {path} is empty"
            try:
                with path.open("rb") as file:
                    text = file.read(LIMITS.response_head).decode("ascii", "replace").strip()
            except OSError as problem:
                text, missing = "", f"the file {path} cannot be read: {problem.strerror}"
        if not text:
            self.problem(reference.origin, f"`api_key`: {missing}")
            return None
        if not _PRINTABLE.fullmatch(text):
            self.problem(
                reference.origin, f"`api_key`: what {reference.value} holds is no key: one printable ASCII word"
            )
            return None
        return Secret(text)


def _syntax(path: Path, problem: Exception, source: str) -> str:
    text = "nested too deep" if isinstance(problem, RecursionError) else str(problem)
    at = re.search(r" \((?:at line (\d+), column (\d+)|at end of document)\)$", text)
    if at is None:
        return f"{path}: {text}"
    line = at[1] or str(source.count("\n") + 1)
    return f"{path}:{line}{f':{at[2]}' if at[2] else ''}: {text[: at.start()]}"


def _shown(value: Any) -> str:
    text = ("true" if value else "false") if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


# What other gateways and SDKs call these; no spelling is near enough to tell.
_ELSEWHERE: Final = {"model": "id", "url": "base_url", "key": "api_key", "type": "provider"}


def _meant(name: str, known: Iterable[str]) -> str | None:
    """The known name that an unknown one most likely stands for."""
    candidates = sorted(known)
    if _ELSEWHERE.get(name) in candidates:
        return _ELSEWHERE[name]
    close = get_close_matches(name, candidates, 1)
    return close[0] if close else None


def _nearest(name: str, known: Iterable[str]) -> str:
    candidates = sorted(known)
    meant = _meant(name, candidates)
    if meant:
        return f"; did you mean {meant}?"
    return f"; known: {', '.join(candidates)}" if candidates else ""


def _unknown(name: str, section: str) -> str:
    if name in LATER[section]:
        return f"`{name}` in {_title(section)} is not supported yet"
    return f"unknown key {_shown(name)} in {_title(section)}{_nearest(name, {*SECTIONS[section], *LATER[section]})}"


def _unknown_section(name: str, value: Any) -> str:
    if name in LATER[""]:
        return f"{_title(name)} is not supported yet"
    home = next((section for section in TABLES if name in SECTIONS[section]), None)
    if home and not isinstance(value, dict):
        return f"`{name}` belongs under [{home}]"
    return f"unknown section {_shown(name)}{_nearest(f'[{name}]', map(_title, {*SECTIONS, *LATER['']}))}"


def _from_text(text: str, key: Key) -> Any:
    """A variable's text as the TOML value that it stands for; as it is where it stands for none."""
    match key.schema.get("type"):
        case "boolean":
            words = {"true": True, "1": True, "yes": True, "on": True}
            words |= {"false": False, "0": False, "no": False, "off": False}
            return words.get(text.lower(), text)
        case "integer" if re.fullmatch(r"[0-9]{1,18}", text):
            return int(text)
        case "number" if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text):
            return float(text)
        case "array":
            return [item.strip() for item in text.split(",") if item.strip()]
    return text


# ---- from values to settings ---------------------------------------------------------------------------------------


def find(path: Path | None) -> Path | None:
    """The file to read: the one that was named, else `gai-fast.toml` in the working directory, else none."""
    return path if path is not None or not DEFAULT_FILE.is_file() else DEFAULT_FILE


def load(
    path: Path | None, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """Reads a configuration.

    Args:
        path: The file; `None`: zero configuration, from the environment alone.
        environ: The environment; by default this process's.
        flags: Keys of `FLAGS` that the command line sets; `None` values count as not given.

    Raises:
        ConfigError: It cannot be used; everything that is wrong with it is told at once where that is possible.
    """
    return read(path, environ=environ, flags=flags).settings


def read(
    path: Path | None, *, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Loaded:
    """As `load`, and says where each value comes from.

    Raises:
        ConfigError: As `load`.
    """
    reader = _Reader(path, os.environ if environ is None else environ)
    document = {} if path is None else reader.document()
    given: dict[str, dict[str, Value]] = {section: {} for section in TABLES}
    upstreams: list[dict[str, Value]] = []
    models: list[dict[str, Value]] = []
    processors: list[dict[str, Value]] = []
    for name, value in document.items():
        if name not in SECTIONS:
            reader.problem(reader.where(name), _unknown_section(name, value))
        elif name in LISTS and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
            reader.problem(reader.where(name), f"[{name}] must be [[{name}]]: there may be several")
        elif name == "processor":
            processors.extend(reader.processor(item, index) for index, item in enumerate(value))
        elif name in LISTS:
            tables = upstreams if name == "upstream" else models
            tables.extend(reader.table(name, item, name, index) for index, item in enumerate(value))
        elif not isinstance(value, dict):
            reader.problem(reader.where(name), f"{_shown(name)} must be one table, [{name}]")
        else:
            given[name] = reader.table(name, value, name)
    reader.check_variables()
    for section, values in given.items():
        values.update(reader.variables(section))
    for name, value in (flags or {}).items():
        if value is not None and (value := reader.read("server", name, value, f"--{name}")) is not None:
            given["server"][name] = Value(value, f"--{name}")

    if path is None:
        upstreams = _from_variables(reader)
    settings = _settings(reader, given, upstreams, models, processors)
    if reader.problems:
        raise ConfigError(*reader.problems)
    return Loaded(settings, path, given["server"], given["stream"], given["store"], upstreams, models, processors)


def _from_variables(reader: _Reader) -> list[dict[str, Value]]:
    """Zero configuration: an upstream for every provider whose usual variable is there."""
    environ = reader.environ
    upstreams = []
    for name in provider_names():
        api = get_provider(name)
        address = _usual_address(reader, api)
        if api.base_url and (environ.get(api.key_variable) or address is not None):
            variable = api.key_variable if address is None else api.host_variable
            values = {"name": Value(name, variable), "provider": Value(name, variable)}
            if environ.get(api.key_variable):
                values["api_key"] = Value(f"env:{api.key_variable}", api.key_variable)
            if address is not None:
                values["base_url"] = address
            upstreams.append(values)
    return upstreams


def _usual_address(reader: _Reader, api: API) -> Value | None:
    """Where the provider's own SDK would look for it, if the environment says so."""
    value = reader.environ.get(api.host_variable)
    address = reader.read("upstream", "base_url", api.address(value), api.host_variable) if value else None
    return None if address is None else Value(address, api.host_variable)


def _settings(
    reader: _Reader,
    given: Mapping[str, dict[str, Value]],
    upstream_tables: Sequence[dict[str, Value]],
    model_tables: Sequence[dict[str, Value]],
    processor_tables: Sequence[dict[str, Value]],
) -> Settings:
    """The whole; what had a problem is left out, and the problem told."""
    server, stream = given["server"], given["stream"]
    named = _by_name(reader, "upstream", upstream_tables)
    upstreams = {name: made for name, table in named.items() if (made := _upstream(reader, table)) is not None}
    base = _stream_settings(stream)
    models: dict[str, ModelSettings] = {}
    for name, table in _by_name(reader, "model", model_tables).items():
        target = table.get("upstream")
        if target is None:
            continue
        if target.value in upstreams:
            own = {**stream, **{key: value for key, value in table.items() if key in STREAM}}
            identifier = table["id"].value if "id" in table else name
            more = {key: table[key].value for key in ("fallback", "fallback_on", "prefill") if key in table}
            models[name] = ModelSettings(name, upstreams[target.value], identifier, _stream_settings(own), **more)
        elif target.value not in named:
            near = _nearest(target.value, named) if named else ": there is no [[upstream]]"
            reader.problem(target.origin, f"no [[upstream]] is named {_shown(target.value)}{near}")
    if "demo" not in server or server["demo"].value:
        models.setdefault(DEMO, ModelSettings(DEMO, UpstreamSettings(DEMO, DEMO, ""), DEMO, base))

    values = {name: value.value for name, value in server.items()}
    values.pop("demo", None)
    default_model = values.pop("default_model", None)
    settings = Settings(
        server=ServerSettings(**values),
        stream=base,
        store=StoreSettings(**{name: value.value for name, value in given["store"].items()}),
        processors=tuple(
            MappingProxyType({name: value.value for name, value in table.items()}) for table in processor_tables
        ),
        upstreams=MappingProxyType(upstreams),
        models=MappingProxyType(models),
        default_model=default_model,
    )
    if not reader.problems:
        _check_fallbacks(reader, settings, model_tables)
    # What follows would blame the default model for a table that has been told already.
    if not reader.problems and default_model is not None and settings.model(default_model) is None:
        what = f"`default_model` in [server]: no model is named {_shown(default_model)}"
        reader.problem(server["default_model"].origin, what + _nearest(default_model, models))
    host = settings.server.host
    if not is_loopback(host) and not settings.server.insecure:
        what = f"{host} is open to other machines, and there are no keys"
        how = "`insecure = true` in [server] (GAI_FAST_SERVER__INSECURE=true) allows that"
        reader.problem(server["host"].origin, f"{what}: {how}")
    return settings


def _check_fallbacks(reader: _Reader, settings: Settings, tables: Sequence[dict[str, Value]]) -> None:
    """Where a failure leads must be a model, and another one."""
    for table in tables:
        for key in ("fallback", "fallback_on"):
            told = table[key].value if key in table else ()
            for name in told.values() if isinstance(told, Mapping) else told:
                if settings.model(name) is None:
                    what = f"`{key}` in [[model]]: no model is named {_shown(name)}"
                    reader.problem(table[key].origin, what + _nearest(name, settings.models))
                elif name == table["name"].value:
                    reader.problem(table[key].origin, f"`{key}` in [[model]] must name another model than itself")


def _by_name(reader: _Reader, section: str, tables: Iterable[dict[str, Value]]) -> dict[str, dict[str, Value]]:
    found: dict[str, dict[str, Value]] = {}
    for table in tables:
        name = table.get("name")
        if name is not None and found.setdefault(name.value, table) is not table:
            first = found[name.value]["name"].origin
            reader.problem(name.origin, f"a second {_title(section)} is named {_shown(name.value)}, as at {first}")
    return found


def _upstream(reader: _Reader, table: dict[str, Value]) -> UpstreamSettings | None:
    if "provider" not in table:
        return None
    values = {name: value.value for name, value in table.items()}
    api = get_provider(values["provider"])
    if "api_key" in table:
        values["api_key"] = reader.secret(table["api_key"])
    elif "base_url" not in values and reader.environ.get(api.key_variable):
        # As the provider's own SDK does; never for another host, which would be told a key it has no right to.
        values["api_key"] = reader.secret(Value(f"env:{api.key_variable}", api.key_variable))
    if "base_url" not in values:
        address = _usual_address(reader, api)
        values["base_url"] = api.base_url if address is None else address.value
    if "breaker" in values:
        values["breaker"] = BreakerSettings(**values["breaker"]) if values["breaker"] else None
    return UpstreamSettings(**values)


def _stream_settings(values: Mapping[str, Value]) -> StreamSettings:
    return StreamSettings(**{name: value.value for name, value in values.items()})
