"""`Incoming`: one request past the guards, as a handler gets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gai_fast.formats import Format
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeySettings
from gai_fast.otel.trace import Parent
from gai_fast.runtime.ids import new_request_id
from gai_fast.server.admission.admit import Admitted, check_json
from gai_fast.server.admission.negotiation import Negotiated, negotiate
from gai_fast.server.http.replies import Headers, Reply, error_reply, json_headers
from gai_fast.server.http.request import HTTPRequest


class Incoming:
    """One request, past the guards.

    Args:
        http: The request as it was parsed, with its body and its client's transport.
        admitted: The head as the guards have read it.
        format: The format that the route speaks.
        tail: The rest of the path behind the prefix of a prefix route.

    Attributes:
        form: The form of the answer, where the client has no choice: on a WebSocket.
        key_headers: The headers that carry the caller's key.
        limits_of: Returns the headers that tell what is left of a key's limits; `None`: nothing tells it.
    """

    __slots__ = ("_admitted", "form", "format", "http", "key_headers", "limits_of", "tail")

    def __init__(self, http: HTTPRequest, admitted: Admitted, format: Format, tail: str = "") -> None:
        self.http = http
        self.format = format
        self.tail = tail
        self.form: Negotiated | None = None
        self.key_headers = http.headers
        self.limits_of: Callable[[KeySettings], Headers] | None = None
        self._admitted = admitted
        http.request_id = admitted.request_id
        http.key = admitted.key

    @property
    def path(self) -> str:
        """The path as it was sent, without the prefix that the application is mounted under."""
        return self._admitted.path

    @property
    def query(self) -> Mapping[str, str]:
        """The query parameters, decoded; the last of a name counts."""
        return self._admitted.query

    @property
    def answer_headers(self) -> Headers:
        """The headers of every answer: those of CORS, and of what is left of the key's limits."""
        admitted = self._admitted
        return admitted.cors if admitted.key is None else [*admitted.cors, *self.limit_headers]

    @property
    def limit_headers(self) -> Headers:
        """The headers that tell what is left of the key's limits."""
        key = self._admitted.key
        return () if key is None or self.limits_of is None else self.limits_of(key)

    @property
    def is_foreign(self) -> bool:
        """Whether a web page of another origin, which is not allowed, makes this request."""
        return self._admitted.is_foreign

    @property
    def trace_id(self) -> str | None:
        """The id of the request's trace, where it is traced; else that of `traceparent`."""
        trace, parent = self.http.trace, self._admitted.trace_parent
        if trace is not None:
            return str(trace.trace_id)
        return None if parent is None else parent.trace_id

    @property
    def trace_parent(self) -> Parent | None:
        """The caller's span."""
        return self._admitted.trace_parent

    @property
    def key(self) -> KeySettings | None:
        """The caller's key; `None` where none is needed."""
        return self.http.key

    @property
    def caller(self) -> str:
        """The name of the caller's key; `ANONYMOUS` where none is needed."""
        return self.http.caller

    @property
    def request_id(self) -> str:
        """The caller's id of the request, or ours; in every header, body and log line."""
        return self.http.request_id

    @request_id.setter
    def request_id(self, identifier: str) -> None:
        self.http.request_id = identifier

    def negotiate(self, accept: str | None, default_format: str) -> Negotiated:
        """The form of the answer.

        Args:
            accept: The `Accept` header; `None`: none, or it does not matter.
            default_format: The route's own format.

        Raises:
            Error: As `negotiation.negotiate`.
        """
        return self.form or negotiate(self.query, accept, default_format=default_format)

    def on_socket(self, http: HTTPRequest, form: Negotiated, tail: str = "") -> Incoming:
        """A request that came over the WebSocket which this one has opened.

        Args:
            http: The request.
            form: The form of its answer.
            tail: As for `Incoming`.
        """
        incoming = Incoming(http, self._admitted, form.format, tail)
        incoming.form = form
        incoming.key_headers = self.key_headers
        incoming.limits_of = self.limits_of
        http.request_id = new_request_id()
        return incoming

    def refusal(self, error: Error, headers: Headers = (), *, close: bool = False) -> Reply:
        """The response for an error, in the shape that clients of the route expect.

        Args:
            error: The error.
            headers: More headers.
            close: The connection is of no further use.
        """
        body = self.format.error_body(error, self.request_id)
        self.http.refused = self.path, error.code
        status = self.format.error_status(error)
        return error_reply(error, self.request_id, body, [*self.answer_headers, *headers], status=status, close=close)

    def json_reply(self, value: Any, *, status: int = 200) -> Reply:
        """A JSON response that is no stream.

        Args:
            value: Has a JSON form.
            status: The HTTP status.
        """
        return Reply(status, encode_json(value), [*json_headers(self.request_id), *self.answer_headers])

    def json_body(self) -> bytes:
        """The body of a POST.

        Raises:
            InvalidRequest: Not `application/json` in UTF-8, or compressed (415).
        """
        check_json(self.http.headers)
        return self.http.body
