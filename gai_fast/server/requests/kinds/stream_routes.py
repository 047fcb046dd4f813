"""The handlers of routes that start streams; `kinds/` has what each kind of request does on its way.

`durable.py` has the routes of running streams, `chats.py` and `responses.py` those of chats and stored responses.
"""

from __future__ import annotations

from gai_fast.model.errors import Error
from gai_fast.model.settings import Settings
from gai_fast.net.engine.engine import Engine
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.chats import ChatRoutes
from gai_fast.server.requests.durable import DurableRoutes
from gai_fast.server.requests.gates import Gates
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.kinds.chat import ChatPassage
from gai_fast.server.requests.kinds.count import CountPassage
from gai_fast.server.requests.kinds.dialect import DialectPassage
from gai_fast.server.requests.kinds.native import EventSourcePassage, NativePassage, StartPassage
from gai_fast.server.requests.kinds.responses import ResponsesPassage
from gai_fast.server.requests.passage import Passage
from gai_fast.server.requests.quotas import Quotas
from gai_fast.server.requests.responses import ResponseRoutes
from gai_fast.server.requests.stream_passage import PassageHome


class StreamRoutes:
    """Handlers over one engine.

    Attributes:
        durable: The handlers of running streams.
        chats: The handlers of chats.
        responses: The handlers of stored responses.
        gates: What the requests of all these routes pass.
        quotas: Estimates what requests use.
    """

    def __init__(self, engine: Engine) -> None:
        self.durable = DurableRoutes(engine)
        self.chats = ChatRoutes(engine, self.durable)
        self.responses = ResponseRoutes(engine, self.durable)
        self.gates = Gates(engine, self.durable)
        self._home = PassageHome(engine)
        self.quotas: Quotas = self._home.quotas

    def use(self, settings: Settings) -> None:
        """Applies another configuration to new requests."""
        self._home.specs.settings = settings

    def native(self, incoming: Incoming) -> Passage:
        """Handles `POST /api/v1/stream`."""
        return NativePassage(incoming, self._home)

    def start(self, incoming: Incoming) -> Passage:
        """Handles `POST /api/v1/streams`: starts a durable stream that no client follows yet."""
        return StartPassage(incoming, self._home)

    def event_source(self, incoming: Incoming) -> Passage | Reply | None:
        """Handles `GET /api/v1/stream?q=…` from a browser's `EventSource`."""
        if incoming.is_foreign:
            raise Error("forbidden", "a page of another origin may not start a stream", reason="origin")
        if "last-event-id" in incoming.http.headers:
            # An EventSource reconnects after every end; a reconnect must never generate again.
            return self.durable.resume(incoming)
        return EventSourcePassage(incoming, self._home)

    def chat(self, incoming: Incoming) -> Passage:
        """Handles `POST /api/v1/chat`: starts a durable stream that is also found by the id of its chat."""
        return ChatPassage(incoming, self._home)

    def dialect(self, incoming: Incoming) -> Passage:
        """Handles `POST /v1/chat/completions` and similar routes: a request in the dialect of the route's format."""
        return DialectPassage(incoming, self._home)

    def response(self, incoming: Incoming) -> Passage:
        """Handles `POST /v1/responses`."""
        return ResponsesPassage(incoming, self._home)

    def count_tokens(self, incoming: Incoming) -> Passage:
        """Handles `POST /v1/messages/count_tokens` and `POST /v1/responses/input_tokens`."""
        return CountPassage(incoming, self._home)
