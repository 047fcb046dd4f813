"""A request whose steps a test chooses, for tests of gates."""

from __future__ import annotations

from collections.abc import Callable

from gai_fast.model.settings import KeySettings, StreamSettings
from gai_fast.server.http.replies import Reply
from gai_fast.server.requests.passage import Passage
from gai_fast.server.requests.stream_response import StreamResponse
from gai_fast.stores import StreamLog
from tests.unit.server.incoming_requests import http, incoming
from tests.unit.server.requests.test_stream_response import FakeConnection


class StubPassage(Passage):
    """A request that starts a stream with this id, and notes its steps.

    Args:
        stream_id: The id of the stream.
        target: The path.
        caller: The caller's key; None if the server has no keys.
        start: Starts the stream, and returns its log.
    """

    def __init__(
        self,
        stream_id: str,
        *,
        target: str = "/",
        caller: KeySettings | None = None,
        body: bytes = b"{}",
        start: Callable[[], StreamLog | None] = lambda: None,
    ) -> None:
        self.connection = FakeConnection()
        super().__init__(incoming(http("POST", target, body=body, client=self.connection)))
        self.incoming.http.set_key(caller)
        self.id = stream_id
        self.start = start
        self.steps: list[str] = []
        self.made: StreamResponse | None = None

    def read(self) -> None:
        self.steps.append("read")

    def plan(self) -> None:
        self.steps.append("plan")
        self.stream_id = self.id

    def begin(self) -> Reply | None:
        self.steps.append("begin")
        self.log = self.start()
        return self.answer(self.id, is_first=True)

    def follow(self, log: StreamLog) -> Reply | None:
        return self.answer(log.header.stream_id, is_first=False)

    def answer(self, stream_id: str, *, is_first: bool) -> Reply:
        headers = () if self.made is None else self.made.headers
        return Reply(200, f"{stream_id} {is_first}".encode(), headers)

    def response(self) -> StreamResponse:
        if self.made is None:
            self.made = StreamResponse(self.incoming, self.id, "", StreamSettings(), whole=True)
        return self.made
