"""The HTTP side of a stream: its headers, its body, its end, and the events of its client's connection.

Owns the response of a stream on any route. Knows nothing about the content of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from gai_fast.core.compression import compressor
from gai_fast.kernels import Piece
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.money import decimal_text
from gai_fast.model.settings import StreamSettings
from gai_fast.net.logs.writer import ClientCallbacks, ResponseWriter
from gai_fast.server.admission.cross_origin import EXPOSE
from gai_fast.server.admission.negotiation import content_coding
from gai_fast.server.http.replies import NO_COMMON, CommonHeaders, Headers, Reply, StreamHead
from gai_fast.server.requests.incoming import Incoming

_KNOWN: Final[dict[str, tuple[str, bool, CommonHeaders]]] = {}
"""By model, who answered last, and the headers that say so."""
_NONE: Final[Headers] = ()
_PRINTABLE: Final = "!\"#$&'()*+,/:;<=>?@[\\]^`{|} "  # all of ASCII but %, which begins an escape


def session_headers(digest: str) -> Headers:
    """Returns the header that names the session of a request.

    Args:
        digest: The session's digest; empty if the client has named none.
    """
    return (("x-gai-session", digest),) if digest else ()


def answering_headers(model: str, upstream: str, is_fallback: bool) -> tuple[tuple[str, str], ...]:
    """Returns the headers that name who answers."""
    named = (("x-gai-model", quote(model, safe=_PRINTABLE)), ("x-gai-upstream", quote(upstream, safe=_PRINTABLE)))
    return (*named, ("x-gai-fallback", "true")) if is_fallback else named


@lru_cache(maxsize=256)
def _joined(model: str, upstream: str, is_fallback: bool) -> CommonHeaders:
    """Returns `answering_headers`. Cached: the answers of a model with several targets alternate between a few."""
    return CommonHeaders(answering_headers(model, upstream, is_fallback))


def _answering(model: str, upstream: str, is_fallback: bool) -> CommonHeaders:
    """Returns `_joined(…)`. Saves its cache's 700 instructions if the model's last answer had the same arguments."""
    known = _KNOWN.get(model)
    if known is not None and known[0] == upstream and known[1] == is_fallback:
        return known[2]
    if len(_KNOWN) >= SHARED.known_values:
        _KNOWN.clear()
    headers = _joined(model, upstream, is_fallback)
    _KNOWN[model] = upstream, is_fallback, headers
    return headers


class StreamResponse(ResponseWriter):
    """The response of one stream: a `Client` of its session or follower, and the `StreamCallbacks` of its transport.

    Args:
        incoming: The request.
        stream_id: The stream's id, valid in a header.
        media_type: The `content-type`.
        stream: The settings of the response.
        whole: Whether the response is one JSON object.

    Attributes:
        stream_id: The stream's id. It, `media_type` and the headers may be set until the headers are committed.
        media_type: The `content-type`.
        headers: Additional headers.
        format_headers: The headers that the stream's format adds; an error response does not have them.
        whole_media_type: Returns the `content-type` of a whole response from its body; None to use `media_type`.
        instead: Returns the answer that the client gets in place of an error, or None; None to send each error.
    """

    def __init__(
        self, incoming: Incoming, stream_id: str, media_type: str, stream: StreamSettings, *, whole: bool
    ) -> None:
        client = incoming.http.transport
        super().__init__(client)
        self._client = client
        self._incoming = incoming
        self.stream_id = stream_id
        self.media_type = media_type
        self.headers: Headers = ()
        self.format_headers: Headers = ()
        self.whole_media_type: Callable[[Sequence[Piece]], str] | None = None
        self.instead: Callable[[Error], Reply | None] | None = None
        self._codings: tuple[str, ...]
        self._is_whole = whole
        self._has_ended = False
        self._other: Reply | None = None  # in place of an error
        self._session: ClientCallbacks | None = None
        incoming.http.body = b""  # already read; releases the memory while the stream runs
        self.use(stream)

    def use(self, stream: StreamSettings) -> None:
        """Applies the settings of a stream's model; they may change until the headers are committed.

        Args:
            stream: The settings; for a search, the model's are known only once the stream is found.
        """
        self._codings = stream.compression
        self._client.begin_stream(self, stream.client_buffer, stream.write_timeout)

    def attach(self, session: ClientCallbacks) -> None:
        """Connects the session that writes the response from now on; does nothing if the response has ended."""
        if self._has_ended:
            return
        self._session = session
        if self._client.is_paused:
            session.pause()

    def measured(self) -> dict[str, Any]:
        """Returns the figures so far."""
        return {} if self._session is None else self._session.measured().as_dict()

    # -- Client --

    def put(self, data: bytes) -> None:
        """Writes bytes to the client: by the compiled class, which saves 200 instructions."""
        self._client.write(data)

    def commit(self) -> None:
        """Commits the headers of a stream; a whole response is sent at its end."""
        if self._is_whole:
            return
        coding: str | None = None
        if self._codings:
            coding = content_coding(self._incoming.http.headers.get("accept-encoding"), self._codings)
            self.format_headers = [*self.format_headers, ("vary", "accept-encoding")]
            if coding is not None:
                self.format_headers.append(("content-encoding", coding))
        head, framing = self._client.commit(self._response_head())
        self.start(head, framing, compressor(coding) if coding else None)

    def end(self, pieces: Sequence[Piece]) -> None:
        """Writes the last bytes and ends the response."""
        if self._is_whole:
            if self.whole_media_type is not None:
                self.media_type = self.whole_media_type(pieces)
            reply = Reply(200, b"".join(pieces), [*self._response_head().headers, *self._cost_headers()])
            self._detach()
            self._client.send(reply)
        else:
            super().end(pieces)
            self._detach()
            self._client.answered(200)

    def fail(self, error: Error, pieces: Sequence[Piece]) -> None:
        """Answers with an error response instead of a stream."""
        if self._other is not None:
            self.reply(self._other)
            return
        headers = [("x-gai-stream-id", self.stream_id), *self.headers, *self._cost_headers()]
        reply = self._incoming.refusal(error, headers)
        if error.details is not None:  # the upstream's own error object is passed on
            theirs = () if self._session is None else self._session.upstream_headers
            reply.headers = self._with_upstream_headers(reply.headers, theirs)
        self.reply(reply)

    def replaces(self, error: Error) -> bool:
        """Works as `Client.replaces`."""
        self._other = None if self.instead is None else self.instead(error)
        return self._other is not None

    def reply(self, reply: Reply) -> None:
        """Answers with a whole response instead of a stream."""
        self._detach()
        self._client.send(reply)

    def abort(self, error: Error) -> None:
        """Aborts the connection: the response is incomplete and must not look complete."""
        self._detach()
        self._client.abort()

    def _cost_headers(self) -> Headers:
        """Returns the headers with the cost of the response and who counted its tokens: the session has ended."""
        metrics = None if self._session is None else self._session.metrics
        if metrics is None:
            return ()
        usage = metrics.usage
        source = None if usage is None else usage.get("source")
        counted: Headers = () if source is None else (("x-gai-usage-source", source),)
        return counted if metrics.cost is None else [("x-gai-cost", decimal_text(metrics.cost)), *counted]

    def _detach(self) -> None:
        """Detaches the ended session, and hands its figures to the request."""
        self._has_ended = True
        session, self._session = self._session, None
        if session is not None:
            self._incoming.http.metrics = session.metrics

    def _response_head(self) -> StreamHead:
        incoming = self._incoming
        more = incoming.answer_headers
        session = self._session
        answered_by = None if session is None else session.answered_by
        theirs = () if session is None else session.upstream_headers
        who, changed = NO_COMMON, _NONE
        if answered_by is not None:
            model, upstream, is_fallback, changes = answered_by
            if model:
                who = _answering(model, upstream, is_fallback)
            if changes is not None:
                changed = changes.headers()
        if changed or more or self.headers or self.format_headers or theirs:
            more = [*more, *changed, *self.headers, *self.format_headers]
            if theirs:
                more, who = self._with_upstream_headers([*who.headers, *more], theirs), NO_COMMON
        return StreamHead(self.media_type, incoming.http.request_id, self.stream_id, more, who)

    def _with_upstream_headers(self, own: Headers, theirs: Headers) -> Headers:
        """Adds the upstream's headers to the gateway's own headers; for a name in both, the gateway's header is kept.

        A page of an allowed origin may read the added headers too.
        """
        if not theirs:
            return own
        names = {name for name, _ in own}
        added = [item for item in theirs if item[0] not in names]
        if added and EXPOSE in names:
            exposed = [name for name, _ in added]
            own = [(name, _extended(value, exposed) if name == EXPOSE else value) for name, value in own]
        return [*own, *added]

    # -- StreamCallbacks --

    def connection_lost(self) -> None:
        """Reports the lost connection to the session."""
        if self._session is not None:
            self._session.client_lost()
        self._detach()

    def pause_writing(self) -> None:
        """Pauses the session: the client reads slowly."""
        if self._session is not None:
            self._session.pause()

    def resume_writing(self) -> None:
        """Resumes the session: the client has caught up."""
        if self._session is not None:
            self._session.resume()


def _extended(value: str, names: Sequence[str]) -> str:
    """Adds names to a comma-separated list, without duplicates."""
    known = value.split(", ")
    return ", ".join([*known, *[name for name in names if name not in known]])
