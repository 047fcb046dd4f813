"""Requests as servers parse them, for tests of what comes behind the parser."""

from __future__ import annotations

from typing import Any

from gai_fast.formats import get_format
from gai_fast.model.settings import ServerSettings
from gai_fast.server.admission.admit import Admission
from gai_fast.server.http.request import HTTPRequest
from gai_fast.server.http.transport import ClientTransport
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.routes.table import PATHS

LOOPBACK = {"Host": "127.0.0.1:8080"}


class Remote(ClientTransport):
    """The transport of a client of which the address alone is read."""

    remote = ""

    def __init__(self, remote: str = "192.0.2.1") -> None:
        self.remote = remote


def http(
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    *,
    is_http_1_1: bool = True,
    body: bytes = b"",
    client: ClientTransport | None = None,
) -> HTTPRequest:
    """Returns a request of a client at 192.0.2.1; without headers, one for this machine."""
    names = {name.lower(): value for name, value in (LOOPBACK if headers is None else headers).items()}
    transport = Remote() if client is None else client
    made = HTTPRequest(transport, method, target, names, is_http_1_1=is_http_1_1, keep_alive=is_http_1_1)
    made.body = body
    return made


def post(body: bytes = b"", *headers: str, target: str = "/a", length: int | str | None = None) -> bytes:
    """Returns the bytes of a POST; `length` replaces the true length of the body."""
    size = len(body) if length is None else length
    lines = [f"POST {target} HTTP/1.1", "Host: h", f"Content-Length: {size}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def incoming(request: HTTPRequest, tail: str = "", format: str = "gai", **server: Any) -> Incoming:
    """Admits a request by the guards of a server with these settings; its id is `req-1` if it has none."""
    headers = {"x-request-id": "req-1", "host": "127.0.0.1", **request.headers}
    admission = Admission(ServerSettings(**server), paths=PATHS, only_demo=False)
    admitted = admission.admit(request.method, request.target, headers)
    assert admitted.error is None, admitted.error
    return Incoming(request, admitted, get_format(format), tail)
