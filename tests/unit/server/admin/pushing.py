"""The transport of a client whose answer is pushed to it: samples, or a stream that it follows."""

from __future__ import annotations

from typing import Any

from gai_fast.net.logs.writer import PLAIN, BodyFraming
from gai_fast.server.http.replies import StreamHead
from gai_fast.server.http.transport import ClientTransport


class Client(ClientTransport):
    """Notes what it was sent."""

    remote = "192.0.2.1"
    is_paused = False

    def __init__(self) -> None:
        self.sent = b""
        self.status = 0
        self.stream: Any = None

    def begin_stream(self, stream: Any, high_water: int, write_timeout: float) -> None:
        self.stream = stream

    def commit(self, head: StreamHead) -> tuple[bytes, BodyFraming]:
        return head.to_bytes("", keep_alive=True), PLAIN

    def write(self, data: bytes) -> None:
        self.sent += data

    def answered(self, status: int) -> None:
        self.status = status

    def events(self, name: str) -> int:
        """Returns the number of events of this name."""
        return self.sent.count(f"event: {name}\n".encode())
