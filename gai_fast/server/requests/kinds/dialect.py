"""Requests in a client's dialect: read once, sent on as they are, or translated."""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gai_fast.core.requests.reading import parse_object
from gai_fast.core.requests.stored_ids import StoredId
from gai_fast.core.requests.texts import Path, Text, with_texts
from gai_fast.formats import ClientRequest, Format
from gai_fast.formats.responses.turn import body_of_turn, prepared_frames
from gai_fast.guards.active import ActiveGuard, Guards
from gai_fast.guards.outcomes import TOKENS, closed
from gai_fast.kernels import Piece, encode_json
from gai_fast.ledger import NO_DEMAND
from gai_fast.model.errors import Error
from gai_fast.model.metrics import AnswerSource, StreamMetrics
from gai_fast.model.request import CheckedBody, Request
from gai_fast.model.settings import ModelSettings, Settings
from gai_fast.net.attempts.spec import Parse, StreamSpec
from gai_fast.net.engine.engine import Engine, when_both_done
from gai_fast.net.logs.writer import ClientCallbacks
from gai_fast.net.stream.new_texts import NewTexts
from gai_fast.providers import get_provider
from gai_fast.runtime.breathing import breathe
from gai_fast.server.admission.negotiation import Negotiated, for_program, negotiate
from gai_fast.server.admission.stored_ids import ids_in_body
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.chains import Found, WholeRequest, whole
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.keeping import AnswerKeeping, LoggedKeeping
from gai_fast.server.requests.passage import Passage
from gai_fast.server.requests.responses import response_of
from gai_fast.server.requests.specs import containers_of, is_large
from gai_fast.server.requests.stream_passage import PassageHome, StreamPassage, accept_of, has_no_tools, key_in
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import StreamLog

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunTools, RunWish

_PARENT: Final = "previous_response_id"
_NO_INPUT: Final = "."
"""The input of a request without any, to check its other members."""
_OK: Final = 200


class DialectPassage(StreamPassage):
    """`POST /v1/chat/completions` and similar routes: a request in the dialect of the route's format."""

    def __init__(self, incoming: Incoming, home: PassageHome) -> None:
        super().__init__(incoming, home)
        self._asked: ClientRequest  # from `read` on
        self._generates = True

    def read(self) -> None:
        """Works as `Passage.read`."""
        incoming = self.incoming
        body = parse_object(incoming.json_body())
        if incoming.newest is not None:
            body, self._generates = body_of_turn(body)
        self.key = key_in(incoming)
        self._asked = asked = incoming.format.read_request(body)
        if asked.is_linked:
            self.linked = body
            return
        if is_large(incoming.http.body):
            self.rest = self._translation()
        if incoming.http.key is not None:
            self.named = ids_in_part(self._home.specs.settings, incoming, asked.model, body)

    def may_go_up(self) -> bool:
        """Works as `Passage.may_go_up`."""
        return any(get_provider(each.upstream.provider).dialect == self.incoming.format.name for each in self._models())

    def join(self, body: dict[str, Any], found: Found) -> None:
        """Works as `Passage.join`."""
        incoming = self.incoming
        conversation = joined(self, body, found)
        self._asked = asked = incoming.format.read_request(conversation.body)
        asked.marks = conversation.marks
        key = incoming.http.key
        if key is not None and key.limits.of_tokens:
            self._size = _size_of(conversation.body)
        if found.parent:
            asked.echo = {**(asked.echo or {}), "previous_response_id": found.parent}
        if is_large(incoming.http.body):
            self.rest = self._translation()
        if incoming.http.key is not None:
            self.named = ids_in_part(self._home.specs.settings, incoming, asked.model, conversation.unknown)

    def named_model(self) -> str:
        """Works as `Passage.named_model`."""
        return named_by(getattr(self, "_asked", None))

    def run_wish(self, tools: RunTools) -> RunWish | None:
        """Works as `Passage.run_wish`."""
        key, settings = self.incoming.http.key, self._home.specs.settings
        if has_no_tools(settings, self._asked.model):
            return None
        model = settings.chosen(self._asked.model, key)
        return tools.wish(model, key) if model.tools and self._generates else None

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, asked = self.incoming, self._asked
        is_unfollowed = asked.background and not asked.stream
        # A background response is logged in its route's own format: the query cannot choose another one.
        query = {} if is_unfollowed else incoming.query
        negotiated = incoming.form
        if negotiated is None:
            negotiated = negotiate(query, accept_of(incoming, asked.stream), default_format=incoming.format.name)
            if negotiated.format.tells_programs_apart and asked.stream:
                negotiated = for_program(negotiated, incoming.http.headers.get("user-agent"))
        if not self._generates and asked.native is None and not asked.body.get("input"):
            asked.native = _parsed(incoming.format.parse_request, self._translated_body())
        specs, keeping = self._home.specs, self._keeping(negotiated)
        kept = None if keeping is None else keeping.answer
        spec, context = specs.of_dialect(
            incoming, asked, negotiated, is_durable=self.key is not None, kept=kept, key=self.key
        )
        spec.keeping = keeping
        header = spec.log_header
        if keeping is not None and header is not None and not spec.hold and self._generates:
            spec.keeping = LoggedKeeping(keeping, header)
        if is_unfollowed:
            self._answers_unfollowed(negotiated, spec, context, _OK)
        else:
            self._answers_with_stream(negotiated, spec, context)
        if not self._generates:
            self.demand, self.may_share = NO_DEMAND, False

    def guarded(self, guards: Guards) -> Sequence[ActiveGuard]:
        """Works as `Passage.guarded`."""
        looking = super().guarded(guards)
        if looking and self.incoming.format.has_tokens(self._asked.body):
            raise closed(looking[0].name, TOKENS)
        return looking

    def texts(self) -> Sequence[Text]:
        """Works as `Passage.texts`."""
        return self.incoming.format.texts(self._asked.body)

    def use_texts(self, new: NewTexts) -> None:
        """Works as `Passage.use_texts`. What the answer repeats is what its caller may have, as stores keep it."""
        incoming, before = self.incoming, self._asked
        self._asked = asked = _with_texts(incoming.format, before, new.sent, new.left_out)
        own = asked if new.kept is new.sent else _with_texts(incoming.format, before, new.kept, new.left_out)
        asked.echo = own.echo
        if before.echo is not None and _PARENT in before.echo:
            asked.echo = {**(own.echo or {}), _PARENT: before.echo[_PARENT]}
        self._use_own(own, before.body, new.left_out)
        if is_large(self._sent):
            self.rest = self._translation()

    def _use_own(self, own: ClientRequest, before: dict[str, Any], left_out: Collection[Path]) -> None:
        """Keeps another request than the one that is sent, where answers are kept.

        Args:
            own: The request as stores keep it.
            before: The body before.
            left_out: The places of what is left out of it.
        """

    def begin(self) -> Reply | None:
        """Works as `Passage.begin`."""
        if self._generates:
            return super().begin()
        client, spec = self._client, self.spec
        assert client is not None
        assert spec is not None
        frames = prepared_frames(self._negotiated.format.encoder(self._negotiated.framing, self._context))
        _Prepared(self._home.engine, spec, client, self.stream_id, frames).begin()
        return None

    def _keeping(self, negotiated: Negotiated) -> AnswerKeeping | None:
        """Returns how the answer is kept; None if it is not."""
        return None

    def _models(self) -> Sequence[ModelSettings]:
        """Returns the models that may answer."""
        settings = self._home.specs.settings
        return settings.may_answer(settings.chosen(self._asked.model, self.incoming.http.key))

    def _translation(self) -> Callable[[], None] | None:
        """Returns what translates a large body. None if no upstream that may answer has another dialect."""
        own = self.incoming.format.name
        if containers_of(self.incoming.http.body) > LIMITS.translated_containers:
            return None
        others = [each.upstream for each in self._models() if get_provider(each.upstream.provider).dialect != own]
        if not others:
            return None
        keeps = [each.attribution == "keep" for each in others]
        return partial(self._translate, is_cut=not all(keeps), is_kept=any(keeps))

    def _translate(self, *, is_cut: bool, is_kept: bool) -> None:
        """Translates the body.

        Args:
            is_cut: Whether an upstream gets it without the client's attribution.
            is_kept: Whether an upstream gets it with the attribution.
        """
        asked, dialect = self._asked, self.incoming.format
        body = self._translated_body()
        is_attributed = is_kept and dialect.without_attribution(body) is not body
        if is_cut or not is_attributed:
            asked.native = _parsed(dialect.parse_request, body)
        if is_attributed:
            asked.attributed = _parsed(dialect.parse_attributed, body)

    def _translated_body(self) -> dict[str, Any]:
        """Returns the body that is translated. Where nothing is generated, nothing needs a prompt."""
        body = self._asked.body_for(None)
        return body if self._generates or body.get("input") else {**body, "input": _NO_INPUT}

    def _started_body(self, log: StreamLog) -> dict[str, Any]:
        # With a key, the log may be of an earlier request.
        if log.header.stream_id != self.stream_id:
            return response_of(log)
        return self.incoming.format.started_response(self._context)


class _Prepared(ClientCallbacks):
    """A response that nothing is generated for: it counts as a request, and no upstream is asked.

    Args:
        engine: Counts it.
        spec: What its request asks for.
        client: The response.
        stream_id: Its stream's id.
        frames: All frames of it.
    """

    def __init__(
        self, engine: Engine, spec: StreamSpec, client: StreamResponse, stream_id: str, frames: Sequence[Piece]
    ) -> None:
        self.metrics = None
        self._engine = engine
        self._spec = spec
        self._client: StreamResponse | None = client
        self._stream_id = stream_id
        self._frames = frames

    def begin(self) -> None:
        """Counts the request, and then sends the response.

        Raises:
            Error: There are too many streams.
        """
        engine, spec, client = self._engine, self._spec, self._client
        assert client is not None
        engine.begin_transfer(self._stream_id, spec.caller, self._fail)
        client.attach(self)
        self.metrics = self.measured()
        counted = engine.transfer_ended(self.metrics, spec.trace)
        keeping = spec.keeping
        if keeping is not None:
            counted = when_both_done(counted, keeping.ended(spec, is_left=False, is_refused=False))
        if counted is None:
            self._send()
        else:
            counted.add_done_callback(self._counted)

    def _counted(self, _counted: asyncio.Future[None]) -> None:
        self._send()

    def _send(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.commit()
            keeping = self._spec.keeping
            client.end(self._frames if keeping is None else keeping.last(self._frames))

    def _fail(self, error: Error) -> None:
        """Does nothing: it ends in the turn in which it begins."""

    @property
    def upstream_headers(self) -> Headers:
        """Always empty: no upstream is asked."""
        return ()

    @property
    def answered_by(self) -> AnswerSource | None:
        """Always None: no upstream is asked."""
        return None

    def measured(self) -> StreamMetrics:
        """Returns figures without a use of anything."""
        spec = self._spec
        return StreamMetrics(
            duration=0.0,
            model=spec.model.name,
            endpoint=spec.endpoint,
            transport=spec.transport,
            stream_id=self._stream_id,
            request_id=spec.request_id,
            trace_id=spec.trace_id,
            key=spec.caller,
        )

    def client_lost(self) -> None:
        """Sends nothing any more."""
        self._client = None

    def pause(self) -> None:
        """Does nothing: all of it is sent at once."""

    def resume(self) -> None:
        """Does nothing, as `pause`."""


def _with_texts(
    dialect: Format, asked: ClientRequest, texts: Mapping[Path, Any], left_out: Collection[Path]
) -> ClientRequest:
    """Returns a request in a client's dialect with other texts; as `with_texts`."""
    new = dialect.read_request(with_texts(asked.body, texts, left_out))
    if asked.marks:
        gone = sorted([at for path in left_out if (at := item_of(path)) is not None])
        new.marks = [
            mark._replace(place=mark.place - bisect(gone, mark.place)) for mark in asked.marks if mark.place not in gone
        ]
    return new


def item_of(path: Path) -> int | None:
    """Returns the place in `input` that a path leads to. None if it leads elsewhere."""
    at = path[1] if len(path) == 2 and path[0] == "input" else None
    return at if isinstance(at, int) else None


def named_by(asked: ClientRequest | None) -> str:
    """Returns the model that a request in a dialect names; empty if it names none, or has not been read."""
    return "" if asked is None else asked.model or ""


def ids_in_part(settings: Settings, incoming: Incoming, model: str | None, body: dict[str, Any]) -> Sequence[StoredId]:
    """Returns the ids in a request of a dialect, or in a part of it, that its caller must own."""
    return ids_in_body(settings, settings.chosen(model, incoming.http.key), incoming.format.name, body)


def _size_of(body: dict[str, Any]) -> int:
    """Returns the bytes of a body as JSON."""
    size = len(encode_json({name: value for name, value in body.items() if name != "input"}))
    given = body.get("input")
    for item in given if isinstance(given, list) else (given,):
        breathe()
        size += len(encode_json(item)) + 1
    return size


def joined(passage: Passage, body: dict[str, Any], found: Found) -> WholeRequest:
    """Returns a request with its whole conversation, and notes its size."""
    http = passage.incoming.http
    conversation = whole(body, http.body, found)
    checked = CheckedBody(http.body)
    checked.containers = conversation.containers
    http.body = checked
    passage.turn = conversation.turn
    return conversation


def _parsed(parse: Parse, body: dict[str, Any]) -> tuple[Request, list[str]] | Error:
    """Returns a translated body, or its error: of the models that may answer, the first may need no translation."""
    try:
        return parse(body)
    except Error as error:
        return error
