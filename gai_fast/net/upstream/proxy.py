"""A tunnel through an HTTP proxy: `CONNECT` (RFC 9110, 9.3.6).

Owns the request for the tunnel and the check of the proxy's response. The bytes after that belong to the upstream. The
proxy resolves the upstream's name, so the rule for forbidden addresses is applied to the name instead of the address.
"""

from __future__ import annotations

import asyncio
import re
import socket
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from gai_fast.model.addresses import is_forbidden_host
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.net.upstream.http_request import Origin

_HEAD_END: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: [^\r\n]*)?\r\n")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy.

    Args:
        origin: The proxy's address.
        credentials: The value of `Proxy-Authorization`; empty for none.
    """

    origin: Origin
    credentials: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Parses `http://[user[:password]@]host[:port]`.

        Raises:
            ValueError: The URL has another form. The text never repeats the URL, which may contain a password.
        """
        if not url.isprintable():  # also finds bytes of the environment that are not UTF-8
            raise ValueError("must have characters that are not printable percent-encoded")
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("must have a valid host and port") from None
        user, at, place = parts.netloc.rpartition("@")
        if parts.scheme != "http":
            raise ValueError("must begin with http://: the proxy itself gets no TLS, but TLS to upstreams passes it")
        if parts.path not in ("", "/") or parts.query or parts.fragment or "?" in url or "#" in url:
            raise ValueError("must end after the port")
        try:
            origin = Origin.parse(f"http://{place}")
        except ValueError:
            raise ValueError("must have a valid host and port") from None
        if not at:
            return cls(origin)
        name, _, password = user.partition(":")
        return cls(origin, "Basic " + b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode())


async def open_tunnel(loop: asyncio.AbstractEventLoop, sock: socket.socket, proxy: Proxy, origin: Origin) -> None:
    """Opens a tunnel through a proxy. Afterwards the socket is connected to the upstream.

    Args:
        loop: The loop.
        sock: A socket connected to the proxy.
        proxy: The proxy.
        origin: The upstream.

    Raises:
        Error: `network`, with the reason `forbidden_address`, or `proxy` if the proxy opens no tunnel.
        OSError: The connection broke.
    """
    if is_forbidden_host(origin.host):
        text = f"{origin.peer} is a link-local or metadata address, which no upstream may have: check base_url"
        raise Error("network", text, reason="forbidden_address")
    target = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.credentials:
        request += f"Proxy-Authorization: {proxy.credentials}\r\n"
    await loop.sock_sendall(sock, f"{request}\r\n".encode("ascii"))
    head = b""
    while _HEAD_END not in head:
        data = await loop.sock_recv(sock, SHARED.response_head)
        head += data
        if not data:
            raise _refused(proxy, origin, "closed the connection")
        if len(head) > SHARED.response_head:
            raise _refused(proxy, origin, f"answered with more than {SHARED.response_head} bytes of headers")
    status = _STATUS.match(head)
    if status is None:
        raise _refused(proxy, origin, "did not answer as an HTTP proxy does: check `proxy`")
    if status[1] == b"407":
        raise _refused(proxy, origin, "wants other credentials (407): check the user and password in `proxy`")
    if status[1][:1] != b"2":
        raise _refused(proxy, origin, f"refused the tunnel ({status[1].decode()}): check `proxy` and its rules")
    if head.index(_HEAD_END) + len(_HEAD_END) != len(head):
        raise _refused(proxy, origin, "sent bytes before it was asked for any")


def _refused(proxy: Proxy, origin: Origin, what: str) -> Error:
    return Error("network", f"the proxy {proxy.origin.peer} {what} (for {origin.peer})", reason="proxy")
