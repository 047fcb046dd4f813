"""Requests for a count of tokens: no stream begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.reading import estimated_tokens, parse_object
from gai_fast.core.requests.texts import Text, with_texts
from gai_fast.core.session import name_in_body
from gai_fast.formats import ClientRequest
from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings
from gai_fast.net.stream.new_texts import NewTexts
from gai_fast.providers import get_provider
from gai_fast.server.admission.further_models import check_further_models
from gai_fast.server.http.replies import Headers, Reply
from gai_fast.server.requests.chains import Found
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.kinds.dialect import ids_in_part, joined, named_by
from gai_fast.server.requests.specs import check_translated, containers_of, is_large
from gai_fast.server.requests.stream_passage import PassageHome, StreamPassage
from gai_fast.server.requests.stream_response import StreamResponse, session_headers


class CountPassage(StreamPassage):
    """`POST /v1/messages/count_tokens` and `POST /v1/responses/input_tokens`.

    An upstream of the dialect counts, if it can; else the count is estimated.
    """

    def __init__(self, incoming: Incoming, home: PassageHome) -> None:
        super().__init__(incoming, home)
        self._body: dict[str, Any]  # from `read` on
        self._asked: ClientRequest  # likewise
        self._error: Error | None = None
        self._is_checked = False
        self._estimate: Reply | None = None
        self._model: ModelSettings  # from `plan` on
        self._session_headers: Headers  # likewise

    def read(self) -> None:
        """Works as `Passage.read`."""
        incoming = self.incoming
        self._body = parse_object(incoming.json_body())
        self._asked = incoming.format.read_request(self._body)
        if self._asked.is_linked:
            self.linked = self._body
            return
        if is_large(incoming.http.body) and self._is_estimated(self._chosen()):
            self.rest = self._check
        if incoming.http.key is not None:
            self.named = ids_in_part(self._home.specs.settings, incoming, self._asked.model, self._body)

    def may_go_up(self) -> bool:
        """Works as `Passage.may_go_up`."""
        return not self._is_estimated(self._chosen())

    def join(self, body: dict[str, Any], found: Found) -> None:
        """Works as `Passage.join`."""
        incoming = self.incoming
        conversation = joined(self, body, found)
        self._asked = incoming.format.read_request(conversation.body)
        self._asked.marks = conversation.marks
        is_estimated = self._is_estimated(self._chosen())
        self._body = self._asked.body_for(None if is_estimated else self._provider())
        if is_large(incoming.http.body) and is_estimated:
            self.rest = self._check
        if incoming.http.key is not None:
            self.named = ids_in_part(self._home.specs.settings, incoming, self._asked.model, conversation.unknown)

    def named_model(self) -> str:
        """Works as `Passage.named_model`."""
        return named_by(getattr(self, "_asked", None))

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, body, home = self.incoming, self._body, self._home
        self._keep_body()
        model = self._chosen()
        check_further_models(body, incoming.http.key)
        session = incoming.session(name_in_body(body))
        self._session_headers = session_headers("" if session is None else session.digest)
        place = home.engine.targets.home(model, session, body, incoming.http.caller)
        self._model = model = home.engine.targets.with_target(model, place, incoming.http.caller)
        if self._is_estimated(model):
            if not self._is_checked:
                self._check()
            if self._error is not None:
                raise self._error
            self._estimate = self._estimated()
            return
        if home.uncounted.has(model, incoming.path):
            self._estimate = self._estimated()
            return
        spec, context = home.specs.count(incoming, body, model, session, place)
        self.spec, self._context = spec, context
        self.stream_id = context.stream_id
        self._client = StreamResponse(incoming, context.stream_id, "application/json", model.stream, whole=True)
        self._client.headers = self._session_headers
        self._client.instead = self._count_instead

    def texts(self) -> Sequence[Text]:
        """Works as `Passage.texts`."""
        return self.incoming.format.texts(self._body)

    def use_texts(self, new: NewTexts) -> None:
        """Works as `Passage.use_texts`."""
        self._body = with_texts(self._body, new.sent, new.left_out)
        self._asked = self.incoming.format.read_request(self._body)
        self._is_checked, self._error, self._estimate = False, None, None
        if is_large(self._sent) and self._is_estimated(self._chosen()):
            self.rest = self._check

    def info(self) -> StreamInfo:
        """Works as `Passage.info`."""
        return StreamInfo(self.stream_id, model=self._model.name, caller=self.incoming.http.caller)

    def _chosen(self) -> ModelSettings:
        return self._home.specs.settings.chosen(self._asked.model, self.incoming.http.key)

    def _provider(self) -> str:
        return get_provider(self._chosen().upstream.provider).provider

    def _is_estimated(self, model: ModelSettings) -> bool:
        """Returns whether the upstream of a model counts no tokens of this dialect."""
        api = get_provider(model.upstream.provider)
        return api.dialect != self.incoming.format.name or not api.count_path

    def _check(self) -> None:
        """Checks a request whose tokens are estimated: one that would be refused has no count."""
        self._is_checked = True
        try:
            check_translated(containers_of(self.incoming.http.body))
            self.incoming.format.parse_request(self._body)
        except Error as error:
            self._error = error

    def _count_instead(self, error: Error) -> Reply | None:
        """Returns an estimate in place of an upstream's error that means that it counts none. None for other errors."""
        home, model = self._home, self._model
        is_configured = model.name in home.specs.settings.models
        is_missing = home.uncounted.refused(model, self.incoming.path, error, is_configured=is_configured)
        return self._estimated() if is_missing else None

    def _estimated(self) -> Reply:
        """Returns the response with an estimate."""
        dialect = self.incoming.format
        reply = self.incoming.json_reply(dialect.count_body(estimated_tokens(dialect.counted_characters(self._asked))))
        reply.headers = [*reply.headers, ("x-gai-usage-source", "estimated"), *self._session_headers]
        return reply

    def begin(self) -> Reply | None:
        """Works as `Passage.begin`."""
        return super().begin() if self._estimate is None else self._estimate
