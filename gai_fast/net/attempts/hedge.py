"""A second request for one answer, made while the first is silent (`hedge_after`).

Owns what becomes of the second answer until one of the two brings its first event: it is read, so that comments and
pings do not count, and kept. `attempts.py` decides when a second target is asked and which; `session.py` joins the
winner to the stream. The rules:

1. The first request goes to the stream's relay as always. Its first event ends the hedge, which is closed at once.
2. The hedge's first event makes it the stream's attempt: the first request is closed, and the session receives all that
   the hedge has kept, then the rest as it comes.
3. Where the first request fails, the hedge is the next attempt, whatever it has brought.
4. Where the hedge fails, it is dropped, and the first request goes on.
5. A closed exchange calls no receiver, so exactly one answer reaches the client.
"""

from __future__ import annotations

from collections.abc import Callable

from gai_fast.core.relay import Relay
from gai_fast.kernels import FastPath
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.net.attempts.attempt import Attempt
from gai_fast.net.attempts.spec import Clock
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import Receiver
from gai_fast.providers import Adapter


class _Nowhere:
    """A sink for the events of an answer that may be dropped."""

    def event(self, event: Event) -> None:
        """Takes no note of an event."""


class Hedge(Receiver):
    """The receiver of the second answer.

    Args:
        adapter: Reads a copy of the answer; the stream has its own adapter.
        started: Called at the first event; returns the fast path for the next reads.
        failed: Called if the hedge fails; nothing is called afterwards.
        clock: The stream's.
    """

    __slots__ = (
        "_clock",
        "_end",
        "_failed",
        "_failure",
        "_has_ended",
        "_head",
        "_heir",
        "_kept",
        "_probe",
        "_size",
        "_started",
        "attempt",
    )

    def __init__(
        self,
        adapter: Adapter,
        started: Callable[[], FastPath | None],
        failed: Callable[[Error], None],
        clock: Clock,
    ) -> None:
        self.attempt: Attempt  # set by `Attempts.ask_second`
        self._started = started
        self._failed = failed
        self._clock = clock
        self._failure: Error | None = None
        self._probe: Relay | None = Relay(adapter, _Nowhere(), failed=self._note_failure)
        self._head: tuple[int, dict[str, str]] | None = None
        self._kept: list[bytes] = []
        self._size = 0
        self._has_ended = False
        self._end: Error | None = None
        self._heir: Receiver | None = None

    # -- the second upstream (`upstream.Receiver`) --

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        """Receives the status and headers."""
        if self._heir is not None:
            self._heir.head_received(status, headers)
            return
        self._head = status, headers
        if self._probe is not None:
            self._probe.receive_head(status, headers)
            self._look()

    def body_received(self, data: bytes) -> FastPath | None:
        """Takes bytes of the body."""
        if self._heir is not None:
            return self._heir.body_received(data)
        self._kept.append(data)
        self._size += len(data)
        if self._probe is None:
            return None
        self._probe.receive_data(data, self._clock.tick())
        return self._look()

    def exchange_ended(self, error: Error | None) -> None:
        """Takes the end of the body, or the error that broke it."""
        if self._heir is not None:
            self._heir.exchange_ended(error)
            return
        self._has_ended, self._end = True, error
        if self._probe is None:
            return
        if error is not None and error.code == "internal":  # a bug of ours: see `Receiver`
            self._note_failure(error)
        else:
            self._probe.receive_eof(error, self._clock.tick())
        self._look()

    # -- the stream --

    def abandon(self, now: float) -> None:
        """Ends the hedge, whose answer is not needed."""
        self.decide()
        self.attempt.abandon(now)

    def decide(self) -> None:
        """Stops reading: from now on the answer is only kept, for `give_to`, or it has been closed."""
        if self._probe is not None:
            self._probe.failed = None  # breaks a reference cycle, as the next line
            del self._started, self._failed
        self._probe = None

    def give_to(self, heir: Receiver) -> FastPath | None:
        """Gives the answer to the stream: what there is of it now, the rest as it comes.

        Returns:
            The fast path for the next reads, or `None`.
        """
        self._heir = heir
        fast_path: FastPath | None = None
        kept, self._kept = self._kept, []
        if self._head is not None:
            heir.head_received(*self._head)
        if kept:
            fast_path = heir.body_received(b"".join(kept))
        if self._has_ended:
            heir.exchange_ended(self._end)
            return None
        return fast_path

    # -- own --

    def _note_failure(self, error: Error) -> bool:
        self._failure = error
        return True

    def _look(self) -> FastPath | None:
        """Reports the first event, or the failure."""
        probe = self._probe
        if probe is None:
            return None
        if self._failure is None and probe.error is not None:  # by a bug of the adapter
            self._failure = probe.error
        if self._failure is None and probe.awaits_first_event and self._size > LIMITS.hedged:
            text = f"the answer has no event in its first {LIMITS.hedged} bytes"
            self._failure = Error("provider_unavailable", text, reason="hedge")
        if self._failure is not None:
            self._failed(self._failure)
            return None
        return None if probe.awaits_first_event else self._started()
