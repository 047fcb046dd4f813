"""What guards have counted, for tests."""

from __future__ import annotations


class Counted:
    """Keeps what it is told; a `GuardCounts`."""

    def __init__(self) -> None:
        self.actions: list[tuple[str, str, str]] = []
        self.failures: list[str] = []
        self.delays: list[tuple[str, float]] = []
        self.stops: list[tuple[str, str, str, str]] = []

    def acted(self, guard: str, on: str, action: str) -> None:
        self.actions.append((guard, on, action))

    def failed(self, guard: str) -> None:
        self.failures.append(guard)

    def delayed(self, guard: str, seconds: float) -> None:
        self.delays.append((guard, seconds))

    def stopped(self, guard: str, on: str, stream_id: str, caller: str) -> None:
        self.stops.append((guard, on, stream_id, caller))
