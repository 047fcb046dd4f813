"""Requests for a chat: their streams are also found by the chat's id."""

from __future__ import annotations

from gai_fast.core.requests.reading import parse_object
from gai_fast.model.errors import Error
from gai_fast.server.admission.negotiation import negotiate
from gai_fast.server.requests.chats import chat_id_of
from gai_fast.server.requests.kinds.native import NativePassage, read_dialect_request
from gai_fast.server.requests.specs import is_large
from gai_fast.server.requests.stream_passage import accept_of, key_in


class ChatPassage(NativePassage):
    """`POST /api/v1/chat`: a durable stream that is also found by the id of its chat."""

    def read(self) -> None:
        """Works as `Passage.read`."""
        incoming = self.incoming
        self._body = parse_object(incoming.json_body())
        self._chat_id = chat_id_of(self._body)
        if is_large(incoming.http.body):
            self.rest = self._read
            return
        self._read()
        self.name_ids()

    def _read(self) -> None:
        incoming = self.incoming
        self._request, self._left_out, _ = read_dialect_request(incoming, incoming.format, self._body)
        self.given = incoming.format.given_decisions(self._body)
        self._body = {}

    def plan(self) -> None:
        """Works as `Passage.plan`."""
        incoming, request = self.incoming, self._request
        if key_in(incoming, request) is not None:
            raise Error("unsupported", "this route takes no idempotency key: a chat has its id", reason="chat")
        negotiated = negotiate(incoming.query, accept_of(incoming, request.stream), default_format=incoming.format.name)
        if request.stream:
            self.chat = self._chat_id
        spec, context = self._spec(negotiated, is_durable=request.stream)
        self._answers_with_stream(negotiated, spec, context)
