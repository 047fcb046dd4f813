"""A stream without a session, for tests of its client's transport."""

from __future__ import annotations


class FakeStream:
    """The stream that answers: its calls, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def connection_lost(self) -> None:
        self.calls.append("lost")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")
