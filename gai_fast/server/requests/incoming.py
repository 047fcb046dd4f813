"""`Incoming`: one admitted request, as a handler gets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gai_fast.core.session import NamedSession, named_session
from gai_fast.formats import Format
from gai_fast.guards.input import LetThrough
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.settings import KeySettings
from gai_fast.otel.trace import Parent
from gai_fast.runtime.ids import new_request_id
from gai_fast.server.admission.admit import Admitted, check_json
from gai_fast.server.admission.negotiation import Negotiated, negotiate
from gai_fast.server.http.head_facts import HeadFacts
from gai_fast.server.http.replies import Headers, Reply, error_reply, json_headers
from gai_fast.server.http.request import AnsweredError, HTTPRequest
from gai_fast.server.requests.newest import Newest

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunOffer


class Incoming:
    """One admitted request.

    Args:
        http: The parsed request, with its body and its client's transport.
        admitted: The result of the guards.
        format: The format of the route.
        tail: The rest of the path after the prefix of a prefix route.

    Attributes:
        path: The path of the request, without the prefix that the application is mounted under.
        query: The decoded query parameters; the last one of a name counts.
        form: The form of the response if the client has no choice (on a WebSocket); else None.
        key_headers: The headers that carry the caller's key.
        newest: The newest response of the WebSocket that the request has come over, if it is one of responses.
        limits_of: Returns the headers with the remaining limits of a key; None if responses do not report them.
        let: What guards have let through of its texts. None if they have found nothing, or have not looked.
        run: What it offers of the gateway's tools, once that is known, if it is a run.
        stream_id: The id of the stream that it starts, if that was planned before; else empty.
        named_model: The model that it names, once it is refused; empty if it names none, or has not been read.
    """

    def __init__(self, http: HTTPRequest, admitted: Admitted, format: Format, tail: str = "") -> None:
        self.http = http
        self.path: str = admitted.path
        self.query: Mapping[str, str] = admitted.query
        self.format = format
        self.tail = tail
        self.form: Negotiated | None = None
        self.newest: Newest | None = None
        self.key_headers = http.headers
        self.limits_of: Callable[[KeySettings], Headers] | None = None
        self.let: LetThrough | None = None
        self.run: RunOffer | None = None
        self.stream_id = ""
        self.named_model = ""
        self._admitted = admitted
        self._facts: HeadFacts | None = None
        http.request_id = admitted.request_id
        http.credential = admitted.credential
        if admitted.key is not None or admitted.credential is not None:
            http.set_key(admitted.key)

    @property
    def facts(self) -> HeadFacts:
        """The facts of the headers; on a WebSocket those of its handshake."""
        facts = self._facts
        if facts is None:
            repeated = self.http.repeated
            facts = None if repeated is None else repeated.facts
            if facts is None:
                facts = HeadFacts(self.key_headers)
                if repeated is not None:
                    repeated.facts = facts
            self._facts = facts
        return facts

    def session(self, name: str | None) -> NamedSession | None:
        """Returns the session of the request, or None.

        Args:
            name: The name in its body; one in its headers counts before.
        """
        named = self.facts.session(self.http.caller)
        return named_session(name, self.http.caller) if named is None else named

    @property
    def answer_headers(self) -> Headers:
        """The headers of every response: the CORS headers and the remaining limits of the key."""
        admitted = self._admitted
        return admitted.cors if admitted.key is None else [*admitted.cors, *self.limit_headers]

    @property
    def limit_headers(self) -> Headers:
        """The headers with the remaining limits of the key."""
        key = self._admitted.key
        return () if key is None or self.limits_of is None else self.limits_of(key)

    @property
    def is_foreign(self) -> bool:
        """Whether a web page makes this request from another origin that is not allowed."""
        return self._admitted.is_foreign

    @property
    def trace_id(self) -> str | None:
        """The id of the request's trace; if it is not traced, the trace id in `traceparent`, or None."""
        trace, parent = self.http.trace, self._admitted.trace_parent
        if trace is not None:
            return str(trace.trace_id)
        return None if parent is None else parent.trace_id

    @property
    def trace_parent(self) -> Parent | None:
        """The caller's span."""
        return self._admitted.trace_parent

    @property
    def traceparent(self) -> str:
        """The caller's span as W3C writes it; empty if it has named none."""
        parent = self._admitted.trace_parent
        return "" if parent is None else f"00-{parent.trace_id}-{parent.span_id}-{parent.is_sampled:02x}"

    def negotiate(self, accept: str | None, default_format: str) -> Negotiated:
        """Returns the form of the response.

        Args:
            accept: The `Accept` header; None if there is none or if it does not apply.
            default_format: The route's own format.

        Raises:
            Error: As `negotiation.negotiate`.
        """
        return self.form or negotiate(self.query, accept, default_format=default_format)

    def on_socket(self, http: HTTPRequest, form: Negotiated, tail: str = "") -> Incoming:
        """Creates a request that arrived over the WebSocket which this request has opened.

        Args:
            http: The request.
            form: The form of its response.
            tail: As for `Incoming`.
        """
        incoming = Incoming(http, self._admitted, form.format, tail)
        incoming.form = form
        incoming.key_headers = self.key_headers
        incoming._facts = self.facts
        incoming.limits_of = self.limits_of
        http.request_id = new_request_id()
        return incoming

    def refusal(self, error: Error, headers: Headers = (), *, close: bool = False) -> Reply:
        """Returns the response for an error, in the form that clients of the route expect.

        Args:
            error: The error.
            headers: Additional headers.
            close: Whether to close the connection after the response; it is closed in any case if the rest of the body
                has not been read.
        """
        body = self.format.error_body(error, self.http.request_id)
        self.http.refused = AnsweredError(self.path, error.code, error.reason, self.named_model)
        close = close or self.http.upload is not None
        status = self.format.error_status(error)
        return error_reply(
            error, self.http.request_id, body, [*self.answer_headers, *headers], status=status, close=close
        )

    def json_reply(self, value: Any, *, status: int = 200) -> Reply:
        """Returns a response with one JSON object.

        Args:
            value: A value that JSON can represent.
            status: The HTTP status.
        """
        return Reply(status, encode_json(value), [*json_headers(self.http.request_id), *self.answer_headers])

    def json_body(self) -> bytes:
        """Returns the body of a POST.

        Raises:
            InvalidRequest: The body is not `application/json` in UTF-8, or it is compressed (415).
        """
        check_json(self.http.headers)
        return self.http.body
