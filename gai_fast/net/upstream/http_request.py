"""The bytes of a request to an upstream, and the rules for a base URL. Sans-IO.

This module refuses everything that would break the framing of a request or send it elsewhere. It must not know
providers or JSON.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from gai_fast.model.limits import SHARED
from gai_fast.model.version import __version__
from gai_fast.net.limits import LIMITS


@dataclass(frozen=True, slots=True)
class Origin:
    """The address of an upstream.

    Args:
        scheme: `http` or `https`.
        host: A name in ASCII or an IP address without brackets; lower case.
        port: The scheme's default if the URL has none.
        prefix: The path put before every request's path; no trailing slash.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, base_url: str) -> Origin:
        """Parses a base URL.

        Raises:
            ValueError: The URL is not an absolute http or https URL, or it contains credentials, a query or a fragment.
                The text never repeats the URL, which may contain a secret.
        """
        if not _VISIBLE.fullmatch(base_url):
            raise ValueError("base_url holds a blank or a control character")
        try:
            parts = urlsplit(base_url)
            host, port = (parts.hostname or "").encode("idna").decode("ascii"), parts.port
        except ValueError:
            raise ValueError("base_url has no valid host and port") from None
        if parts.scheme not in _PORTS:
            raise ValueError("base_url must begin with http:// or https://")
        if "@" in parts.netloc:
            raise ValueError("base_url must not hold credentials: use api_key")
        if "?" in base_url or "#" in base_url:
            raise ValueError("base_url must not hold a query or a fragment")
        if not parts.path.isascii():
            raise ValueError("the path of base_url must be percent-encoded")
        if not (_HOST.fullmatch(host) or is_ip_address(host)) or port == 0:
            raise ValueError("base_url has no valid host and port")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))

    def __hash__(self) -> int:
        return hash(self.host)  # used for every request; the hash that `dataclass` generates runs interpreted

    @property
    def peer(self) -> str:
        """`host:port`, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of `Host`, without the port if it is the scheme's default (RFC 9110 §7.2)."""
        return self.peer if self.port != _PORTS[self.scheme] else self.peer.rpartition(":")[0]


def is_ip_address(host: str) -> bool:
    """Returns whether a host is an IP address, without a zone, rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


_PORTS: Final = {"http": 80, "https": 443}
_VISIBLE: Final = re.compile(r"[^\x00-\x20\x7f-\xa0\ud800-\udfff]+")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")

_METHOD: Final = re.compile(r"[A-Z]+")
_TARGET: Final = re.compile(r"/[!\"$-~]*")  # visible ASCII without '#'
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\t -~\xa0-\ud7ff\ue000-\U0010ffff]*")

# These control the framing and the connection, or request a response that would be refused.
_OURS: Final = frozenset(
    "accept-encoding connection content-length expect host keep-alive proxy-connection te trailer transfer-encoding "
    "upgrade".split()
)


def encode_headers(headers: Sequence[tuple[str, str]]) -> str:
    """Returns the header lines of a request; also checks the headers of a configuration.

    Raises:
        ValueError: A name is not a token, the connection itself sets the header, or a value contains a line break or
            another control character. The text names the header and never shows its value.
    """
    lines = []
    agent = f"User-Agent: gai-fast/{__version__}\r\n"
    names, values = [name for name, _ in headers], [value for _, value in headers]
    # All at once: a search costs 700 instructions, and a request has ten headers.
    is_sound = _NAME.fullmatch("".join(names)) and "" not in names and _VALUE.fullmatch("".join(values))
    for name, value in headers:
        if not is_sound and not _NAME.fullmatch(name):
            raise ValueError(f"{name[: SHARED.identifier]!r} is not a header name")
        lowered = name.lower()
        if lowered in _OURS:
            raise ValueError(f"the header {name!r} is set by the connection itself")
        if not is_sound and not _VALUE.fullmatch(value):
            raise ValueError(f"the value of the header {name!r} holds a line break or another control character")
        if lowered == "user-agent":
            agent = ""
        lines.append(f"{name}: {value}\r\n")
    return agent + "".join(lines)


def encode_request(origin: Origin, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """Returns the bytes of a request, head and body in one piece for one write.

    Args:
        origin: The upstream.
        method: The method, in upper case.
        path: The path after the origin's prefix, with its query.
        headers: All headers except those that the connection sets.
        body: The body; empty for none.

    Raises:
        ValueError: An argument would break the framing. The text shows no value, and no path, whose query may contain a
            key.
    """
    return _with_body(_encode_head(origin, method, path, tuple(headers)), method, body)


def encode_once(
    origin: Origin, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, upload: bool, length: int
) -> bytes:
    """Returns the bytes of a request whose headers no other request has, so that its head is not cached.

    Args:
        origin: The upstream.
        method: The method, in upper case.
        path: As for `encode_request`.
        headers: As for `encode_request`.
        body: The body, or its first bytes, framed.
        upload: Whether more of the body follows.
        length: The length of such a body; negative if it is sent in HTTP chunks.

    Raises:
        ValueError: As `encode_request`.
    """
    head = _head_of(origin, method, path, headers)
    if not upload:
        return _with_body(head, method, body)
    if length < 0:
        return b"%bTransfer-Encoding: chunked\r\n\r\n%b" % (head, body)
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, length, body)


class RequestEncoder:
    """Encodes the requests to one upstream. Caches the last head, because most requests repeat it.

    Args:
        origin: The upstream.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._head = b""
        self._method = ""
        self._path = ""
        self._headers: Sequence[tuple[str, str]] = ()

    def encode(self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
        """Returns the bytes of a request; see `encode_request`."""
        if headers != self._headers or path != self._path or method != self._method:
            self._head = _encode_head(self._origin, method, path, tuple(headers))
            self._method, self._path = method, path
            self._headers = headers if isinstance(headers, tuple) else [*headers]
        return _with_body(self._head, method, body)


def _with_body(head: bytes, method: str, body: bytes) -> bytes:
    if body or method not in ("GET", "HEAD"):
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    return head + b"\r\n"


@lru_cache(LIMITS.upstream_heads)
def _encode_head(origin: Origin, method: str, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Returns the head without `Content-Length`. It is the same for every request of a model."""
    return _head_of(origin, method, path, headers)


def _head_of(origin: Origin, method: str, path: str, headers: Sequence[tuple[str, str]]) -> bytes:
    if not _METHOD.fullmatch(method) or method == "CONNECT":
        raise ValueError(f"{method[: SHARED.identifier]!r} is not a method that is sent upstream")
    if not _TARGET.fullmatch(path):
        raise ValueError("the path of a request begins with '/' and is percent-encoded")
    return (
        f"{method} {origin.prefix}{path} HTTP/1.1\r\nHost: {origin.authority}\r\nAccept-Encoding: identity\r\n"
        f"{encode_headers(headers)}"
    ).encode()
