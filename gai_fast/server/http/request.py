"""`HTTPRequest`: one request, as every route gets it from either lane.

Owns the data of a request from its headers to its line in the access log. Reads no bytes: each lane fills it in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from gai_fast.model.credentials import Credential
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import ANONYMOUS, KeySettings, Secret, UpstreamSettings
from gai_fast.otel.trace import Trace
from gai_fast.server.http.head_facts import HeadFacts
from gai_fast.server.http.transport import ClientTransport


class BodySource(Protocol):
    """The part of a request's body that has not been read, within its limits."""

    @property
    def length(self) -> int | None:
        """The length of the whole body. None if the client has not stated it."""

    def read(self) -> Awaitable[bytes]:
        """Returns the next bytes; empty at the end.

        Raises:
            Error: A limit refuses the body, or it cannot be read.
            ConnectionError: The client has disconnected.
        """

    def close(self) -> None:
        """Counts the body no more; idempotent."""


class AnsweredError(NamedTuple):
    """The error that has answered a request.

    Attributes:
        path: The path of the request below the mount.
        code: The error's code.
        reason: The error's reason; None if it has none.
        model: The model that the request names; empty if it names none, or has not been read.
    """

    path: str
    code: str
    reason: str | None = None
    model: str = ""


class RepeatedHead:
    """The values that requests with the same head share; each is looked up or made once.

    Attributes:
        facts: The facts of the headers. None until a request has asked for them.
        upstream: The upstream of `headers`. None if there are none yet.
        key: Its key.
        headers: The headers that it was last sent for such a request.
    """

    def __init__(self) -> None:
        self.facts: HeadFacts | None = None
        self.upstream: UpstreamSettings | None = None
        self.key: Secret | None = None
        self.headers: tuple[tuple[str, str], ...] = ()


class HTTPRequest:
    """One request, complete but for an upload.

    Attributes:
        method: The method as it was sent.
        target: The request target as it was sent, without any decoding.
        is_http_1_1: True for HTTP/1.1, false for HTTP/1.0.
        headers: The headers by lower-case name; repeated ones are joined with ", ". `content-length` may be missing.
            Several requests may share the mapping, so it must not be changed.
        body: The whole body, or its first bytes if there is an upload.
        upload: The rest of the body, if it is passed on while it arrives. None if the body is whole.
        keep_alive: Whether another request may follow on the connection.
        transport: The transport of the response.
        request_id: The request id, set by the router.
        key: The caller's key, noted by `set_key`; None if the server needs no key.
        credential: The caller's own for an upstream, set by the router; None if there is none.
        caller: The name of the key; if the server needs no key, of the credential, or `ANONYMOUS`.
        began: When the last byte of the request arrived, in monotonic seconds.
        metrics: The figures of the stream that answered the request, once the stream has ended.
        started: Returns the figures so far of a stream that the request has started without following it; None if
            there is no such stream.
        trace: The trace of the request; None if it is not traced.
        repeated: Shared by the requests that have the same head. None if it is not known to be repeated.
        refused: The error that answered the request; None if a stream did, or none is answered yet.
        action: The admin's action and its target, for the audit log; None if the request is no such action.
    """

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
        self.upload: BodySource | None = None
        self.request_id = ""
        self.key: KeySettings | None = None
        self.credential: Credential | None = None
        self.caller: str = ANONYMOUS
        self.began = 0.0
        self.metrics: StreamMetrics | None = None
        self.started: Callable[[], StreamMetrics | None] | None = None
        self.trace: Trace | None = None
        self.repeated: RepeatedHead | None = None
        self.refused: AnsweredError | None = None
        self.action: tuple[str, str] | None = None

    def set_key(self, key: KeySettings | None) -> None:
        """Notes whose request it is; `credential` is set before.

        Args:
            key: The caller's key. None if the server needs no key.
        """
        self.key = key
        if key is not None:
            self.caller = key.name
        else:
            self.caller = ANONYMOUS if self.credential is None else self.credential.name

    @property
    def shown_path(self) -> str:
        """The target for logs and traces: without its query, and without credentials before the host of a whole URL."""
        target = self.target
        if not target.startswith("/"):  # rarely; a password may hold a question mark
            scheme, mark, rest = target.partition("://") if "://" in target else ("", "", target)
            authority, slash, behind = rest.partition("/")
            target = f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{behind}"
        return target.partition("?")[0]


def headers_too_large() -> Error:
    """Returns the error for a request whose headers exceed the limits."""
    return Error("invalid_request", "The request's headers are too large", reason="headers_too_large", status=431)
