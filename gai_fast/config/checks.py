"""Checks of texts and tables in the configuration: host, origin, URL, name, reference to a secret, headers.

Each check returns the value in the form the gateway uses, or raises a `ValueError` that names the rule and never
repeats the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from gai_fast.config.limits import LIMITS
from gai_fast.config.problems import nearest, shown
from gai_fast.core.compression import is_available
from gai_fast.model.addresses import Networks, address_of, is_forbidden_address
from gai_fast.model.errors import CLASSES
from gai_fast.model.limits import SHARED
from gai_fast.model.money import amount_of
from gai_fast.model.pass_paths import ENTRY, METHODS
from gai_fast.model.settings import ANONYMOUS
from gai_fast.model.version import installing
from gai_fast.net.upstream.http_request import Origin
from gai_fast.net.upstream.proxy import Proxy
from gai_fast.providers import get_provider
from gai_fast.stores import check_url

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CALLER: Final = "caller"
"""The `api_key` of an upstream that takes its callers' own credentials."""
REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")
TAG: Final = re.compile(r"<[A-Za-z|_:][A-Za-z0-9|_:-]{0,31}>")
DIGEST: Final = re.compile(r"sha256:[0-9A-Fa-f]{64}")
PRINTABLE: Final = re.compile(r"[!-~]+")
FUNCTION: Final[re.Pattern[str]] = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_.]*"
)

REGION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
PROJECT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:-]{0,126}")

PERIODS: Final = ("day", "month", "total")
"""The values of `period` in `spend`."""
TOKEN_PRICES: Final = ("input", "output", "cached_input", "cache_write", "cache_write_1h", "reasoning")
PRICES: Final = (*TOKEN_PRICES, "request", "web_search", "image")
"""The keys of `price`."""
_ALONE: Final = {"request", "image"}
"""Those that may stand without prices of tokens."""
_PRICED: Final = {
    "request": "each request costs",
    "web_search": "a thousand searches cost",
    "image": "each image costs",
}

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_FIELD_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")  # RFC 9110 §5.5
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")

# The gateway writes these headers itself, or they belong to one hop (RFC 9110 §7.6.1).
_RESERVED: Final = frozenset(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding "
    "upgrade host content-length content-type accept accept-encoding expect".split()
)


def any_text(value: str) -> str:
    """Accepts any text."""
    return value


def host(value: str) -> str:
    """Checks an address or a host name; removes the brackets around an IPv6 address."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if address_of(bare) is None and not _HOST_NAME.fullmatch(bare):
        raise ValueError("must be an address or a host name, without scheme or port")
    return bare


def socket_path(value: str) -> str:
    """Checks the path of a unix socket."""
    if len(value.encode()) > SHARED.socket_path:
        raise ValueError(f"must be a path of at most {SHARED.socket_path} bytes")
    return value


def network(value: str) -> str:
    """Checks an address, a network or `unix:`."""
    try:
        Networks((value,))
    except ValueError:
        how = 'addresses, networks such as "10.0.0.0/8" (no bits behind the mask) or "unix:"'
        raise ValueError(f"must be a list of {how}") from None
    return value


def origin(value: str) -> str:
    """Checks a web origin (RFC 6454 §7): scheme, host and port, as browsers write it."""
    url = _split(value)
    written = f"{url.scheme}://{url.netloc}".lower()
    usual = {"http": 80, "https": 443}.get(url.scheme, url.port)
    if not url.hostname or "@" in url.netloc or value.lower() != written or url.port == usual:
        raise ValueError('must be whole origins such as "https://app.example.com": no wildcard, path or usual port')
    return written


def upstream_name(value: str) -> str:
    """Checks the name of an `[[upstream]]`."""
    if not NAME.fullmatch(value):
        raise ValueError("must be 1 to 64 characters of A-Z a-z 0-9 . _ : - (a request may say <upstream>/<id>)")
    return value


def model_name(value: str) -> str:
    """Checks the name of a `[[model]]`, or `<upstream>/<id>`."""
    if len(value) > SHARED.model_name:
        raise ValueError(f"must have at most {SHARED.model_name} characters")
    return value


def function(value: str) -> str:
    """Checks the name of a Python function in a module, which the server imports at its start."""
    if not FUNCTION.fullmatch(value):
        raise ValueError('must be "module:function", such as "shop.gateway:extend"')
    return value


def provider(value: str) -> str:
    """Checks a provider's name.

    Raises:
        ValueError: No provider has this name.
    """
    try:
        get_provider(value)
    except ValueError as problem:
        raise ValueError(f"cannot be used: {problem}") from None
    return value


def base_url(value: str, instead: str = "api_key or headers") -> str:
    """Checks the URL of an upstream: HTTP or HTTPS, without credentials, and no link-local or metadata address.

    The address of a host name is checked at every connect, after the name was resolved.

    Args:
        value: The URL.
        instead: The keys for its credentials.
    """
    url = _split(value)
    if url.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    if "@" in url.netloc:
        raise ValueError(f"must not hold a user or a password: use {instead}")
    if url.query or url.fragment or "?" in value or "#" in value:
        raise ValueError("must not hold a query or a fragment")
    if not url.hostname:
        raise ValueError("must name a host")
    address = address_of(url.hostname)
    if address is not None and is_forbidden_address(str(address)):
        raise ValueError("must not be a link-local or metadata address")
    try:
        Origin.parse(value)  # finds every other mistake for which a request would fail
    except ValueError:
        raise ValueError("must have a valid host, port and path") from None
    return url.scheme + value[len(url.scheme) :].rstrip("/")


def url_with_query(value: str) -> str:
    """Checks a URL as `base_url` does, but for a query; leaves it as it is: a slash at its end may count."""
    whole, _, query = value.partition("?")
    base_url(whole, "headers")
    if "#" in query or not PRINTABLE.fullmatch(value):
        raise ValueError("must not hold a fragment, a blank or other than ASCII")
    return value


def proxy(value: str) -> str:
    """Checks the URL of an HTTP proxy, a reference to one, or `env`."""
    if value != "env" and not REFERENCE.fullmatch(value):
        Proxy.parse(value)
    return value


def coding(value: str) -> str:
    """Checks a content coding; its library must be installed."""
    if not is_available(value):
        raise ValueError(f"has {value}, which needs a package: {installing('compression')}")
    return value


def store_url(value: str) -> str:
    """Checks the URL of a store; leaves a relative path in it unchanged."""
    check_url(value, Path())
    return value


def path(value: str) -> str:
    """Accepts the path of a file; the file is checked later, once the folder of a relative path is known."""
    return value


def reference(value: str) -> str:
    """Checks a reference to a secret: `env:NAME` or `file:PATH`."""
    if not REFERENCE.fullmatch(value):
        raise ValueError('must be "env:NAME" or "file:PATH": a key itself does not belong in the file')
    return value


def upstream_key(value: str) -> str:
    """Checks the key of an upstream: a reference, or the word for its callers' own credentials."""
    return value if value == CALLER else reference(value)


def command(value: Any) -> tuple[str, ...]:
    """Checks a program and its arguments. No shell reads them."""
    is_list = isinstance(value, list) and 1 <= len(value) <= LIMITS.command_arguments
    if not is_list or not all(isinstance(each, str) and each and "\0" not in each for each in value):
        most = LIMITS.command_arguments
        raise ValueError(f"must be a list of 1 to {most} strings: a program, and its arguments")
    return tuple(value)


def region(value: str) -> str:
    """Checks the name of a region: it becomes a part of a host's name."""
    if not REGION.fullmatch(value):
        raise ValueError("must be a region's name, such as us-east-1, us-central1 or global")
    return value


def project(value: str) -> str:
    """Checks the id of a project of Google Cloud: it becomes a part of a path."""
    if not PROJECT.fullmatch(value):
        raise ValueError("must be a project's id, such as my-project-123")
    return value


def service(value: str) -> str:
    """Checks the name that a service has in signatures of AWS."""
    if not REGION.fullmatch(value):
        raise ValueError("must be the service's name in signatures, such as bedrock or execute-api")
    return value


def scope(value: str) -> str:
    """Checks the scope of a token."""
    if not PRINTABLE.fullmatch(value):
        raise ValueError("must be one printable ASCII word, such as https://ai.azure.com/.default")
    return value


def tag(value: str) -> str:
    """Checks the opening tag of reasoning."""
    if not TAG.fullmatch(value):
        raise ValueError('must be an opening tag of 1 to 32 letters and signs, such as "<think>"')
    return value


def caller_name(value: str) -> str:
    """Checks the name of a `[[key]]`."""
    if not LABEL.fullmatch(value):
        raise ValueError("must be 1 to 64 characters of A-Z a-z 0-9 . _ - that begin with a letter or a digit")
    if value == ANONYMOUS:
        raise ValueError(f"must not be {ANONYMOUS}: so callers are named if there are no keys")
    return value


def caller_secret(value: str) -> str:
    """Checks a reference to a caller's secret, or the secret's digest."""
    if not REFERENCE.fullmatch(value) and not DIGEST.fullmatch(value):
        how = '"env:NAME", "file:PATH" or "sha256:" and its SHA-256 in hexadecimal'
        raise ValueError(f"must be {how}: a secret itself does not belong in the file")
    return value


def model_pattern(value: str) -> str:
    """Checks the name of a model, or a pattern of names with `*`."""
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a list of names of models, or of patterns such as fast-* or openai/*")
    return model_name(value)


def stored_id(value: str) -> str:
    """Checks an id of something that an upstream stores, or a pattern of ids with `*`."""
    if not value.isascii() or not value.isprintable() or not value.strip():
        raise ValueError("must be a list of ids, or of patterns such as pmpt_*")
    return value


def known_keys(table: Iterable[str], known: Iterable[str]) -> None:
    """Raises a `ValueError` if a value's table has an unknown key; the text names the nearest known key."""
    for name in table:
        if name not in known:
            raise ValueError(f"has an unknown key {shown(name)}{nearest(name, known)}")


def spend(value: Any) -> Mapping[str, Any]:
    """Checks a spend limit: an amount of the currency, and its period."""
    keys = ("amount", "period")
    if isinstance(value, dict):
        known_keys(value, keys)
    if not isinstance(value, dict) or value.keys() != {*keys}:
        raise ValueError('must be a table of amount and period, such as {amount = 50, period = "month"}')
    if value["period"] not in PERIODS:
        raise ValueError(f"must have a period of {', '.join(PERIODS)}")
    if amount_of(value["amount"], LIMITS.largest_spend) is None:
        raise ValueError(f"must have an amount from 0 to {LIMITS.largest_spend}")
    return MappingProxyType(value)


def price(value: Any) -> Mapping[str, Any]:
    """Checks the price of a model: units of currency for a million tokens, and for each request."""
    if isinstance(value, dict):
        known_keys(value, PRICES)
    if not isinstance(value, dict) or not ({"input", "output"} <= value.keys() or (value and value.keys() <= _ALONE)):
        raise ValueError(
            "must be a table with input and output, the prices of a million tokens, such as {input = 3, output = 15}, "
            "or request alone, the price of each request, or image alone, that of each image; it may also have "
            f"{', '.join(name for name in PRICES if name not in ('input', 'output', *_ALONE))}"
        )
    for name, figure in value.items():
        if amount_of(figure, LIMITS.price) is None:
            what = _PRICED.get(name, "a million tokens cost")
            raise ValueError(f"must have a number for {name}, 0 to {LIMITS.price}: what {what}")
    return MappingProxyType(dict(value))


def pass_path(value: str) -> str:
    """Checks an entry of `lane` in an `[[upstream]]`."""
    if not ENTRY.fullmatch(value):
        raise ValueError(
            'must be paths such as "/v1/embeddings", "/v1/audio/*" or "DELETE /v1/x": decoded, without a query, `.` or '
            f"`..`, and with one method of {', '.join(METHODS)} or none (then GET and POST)"
        )
    return value


def headers(value: Any) -> Mapping[str, str]:
    """Checks additional request headers; headers that the gateway writes itself are refused."""
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
        if not isinstance(text, str) or not _FIELD_VALUE.fullmatch(text):
            raise ValueError(f"must have a string without control characters for {name}")
    return MappingProxyType(dict(value))


def fallback_on(value: Any) -> Mapping[str, str]:
    """Checks a table of error codes and the model for each."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise ValueError('must be a table of error codes and models, as {context_length_exceeded = "big"}')
    for code in value:
        if code not in CLASSES:
            raise ValueError(f"must have error codes; known: {', '.join(CLASSES)}")
    return MappingProxyType({code: model_name(name) for code, name in value.items()})


def _split(value: str) -> SplitResult:
    # urlsplit drops tabs and line ends silently, and it does not treat a backslash as browsers do.
    if not PRINTABLE.fullmatch(value) or "\\" in value:
        raise ValueError("must be a URL of printable ASCII characters")
    try:
        url = urlsplit(value)
        _ = url.port  # raises ValueError if the port is not a number
    except ValueError:
        raise ValueError("must be a URL") from None
    return url
