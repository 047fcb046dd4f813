"""`HTTPRequest`: one request as every route gets it, from either lane.

Owns what a request carries between its head and the line in the access log. Reads no bytes: each lane fills it in.
"""

from __future__ import annotations

from collections.abc import Callable

from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import ANONYMOUS, KeySettings
from gai_fast.otel.trace import Trace
from gai_fast.server.http.transport import ClientTransport


class HTTPRequest:
    """One request, whole.

    Attributes:
        method: As it was sent.
        target: The request target as it was sent; nothing is decoded.
        is_http_1_1: HTTP/1.1, otherwise 1.0.
        headers: By lower-case name; repeated ones joined with ", ". That of the body's length may be missing. Several
            requests may share them: they are not changed.
        body: All of it.
        keep_alive: Another request may follow on the connection.
        transport: The transport of its answer.
        request_id: Set by the router.
        key: The caller's, set by the router; `None` where none is needed.
        began: Monotonic seconds at its last byte.
        metrics: The figures of the stream that answered it, once that has ended.
        started: The figures so far of the stream that it has started and does not follow; `None`: there is none.
        trace: What is exported of it; `None`: nothing is.
        refused: Where an error answered it and no stream did: its path below the mount, and the code of the error.
        action: The action of an admin that it asks for, and what that concerns: for the audit log.
    """

    __slots__ = (
        "action",
        "began",
        "body",
        "headers",
        "is_http_1_1",
        "keep_alive",
        "key",
        "method",
        "metrics",
        "refused",
        "request_id",
        "started",
        "target",
        "trace",
        "transport",
    )

    def __init__(
        self,
        transport: ClientTransport,
        method: str,
        target: str,
        headers: dict[str, str],
        *,
        is_http_1_1: bool,
        keep_alive: bool,
    ) -> None:
        self.transport = transport
        self.method = method
        self.target = target
        self.headers = headers
        self.is_http_1_1 = is_http_1_1
        self.keep_alive = keep_alive
        self.body = b""
        self.request_id = ""
        self.key: KeySettings | None = None
        self.began = 0.0
        self.metrics: StreamMetrics | None = None
        self.started: Callable[[], StreamMetrics | None] | None = None
        self.trace: Trace | None = None
        self.refused: tuple[str, str] | None = None
        self.action: tuple[str, str] | None = None

    @property
    def caller(self) -> str:
        """The name of the caller's key; `ANONYMOUS` where none is needed."""
        return ANONYMOUS if self.key is None else self.key.name


def headers_too_large() -> Error:
    """Returns the error for a request whose head exceeds the limits."""
    return Error("invalid_request", "The request's headers are too large", reason="headers_too_large", status=431)
