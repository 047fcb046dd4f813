"""The rest of a shared call whose first stream has left while other streams still read it.

Owns the charge for this call: the caller of the first stream pays for all of it. The other callers got a shared answer
and pay nothing. Otherwise a caller could pay for the start of an answer alone, by leaving the rest to a second request.

A stream without a client reads the call's log from the start, for its metrics alone. It does not keep the call alive.
When this stream ends, the metrics of the first stream are recorded with this stream's usage and cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gai_fast.kernels import Piece
from gai_fast.model.errors import Error
from gai_fast.model.events import Event
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import Charge, cost_member, total_of
from gai_fast.model.settings import StreamSettings
from gai_fast.net.attempts.spec import LIBRARY, OpenedAttempt, Sharing, StreamSpec
from gai_fast.net.logs.writer import Client
from gai_fast.net.sharing.shared_call import SharedCall
from gai_fast.net.upstream.connection import Receiver


class Remainder(Sharing):
    """The sharing of the stream that reads the rest.

    Args:
        call: The call.
        disconnected: The metrics of the stream that has left.
        earlier: The charges of that stream's attempts before this call.
        read: Opens a reader of the call that does not keep the call alive.
    """

    def __init__(
        self,
        call: SharedCall,
        disconnected: StreamMetrics,
        earlier: tuple[Charge, ...],
        read: Callable[[Receiver], OpenedAttempt],
    ) -> None:
        self.role = "miss"
        self.upstream = disconnected.upstream
        self._call = call
        self._disconnected = disconnected
        self._earlier = earlier
        self._read = read

    def finds(self, spec: StreamSpec) -> bool:
        """Returns true: no upstream is asked."""
        return True

    def open(self, spec: StreamSpec, receiver: Receiver, ask: Callable[[Receiver], OpenedAttempt]) -> OpenedAttempt:
        """Reads the call."""
        return self._read(receiver)

    def ended(self, spec: StreamSpec, metrics: StreamMetrics, earlier: tuple[Charge, ...]) -> StreamMetrics | None:
        """Returns the metrics of the stream that has left, with the usage and the cost of the whole call.

        The charges are those of the stream's earlier attempts and of the whole call, which replaces the part that the
        stream has read. If the rest of the call could not be read, the stream's own metrics stay.
        """
        if metrics.outcome == "finished":
            self._call.approve()
        charges = (*self._earlier, *metrics.charges) if metrics.charges else self._disconnected.charges
        total, usage = total_of(charges), metrics.usage or self._disconnected.usage
        if total is None:
            return replace(self._disconnected, usage=usage)
        amount, currency = total
        charged = {**usage, "cost": cost_member(amount, currency)} if usage else usage
        return replace(self._disconnected, usage=charged, cost=amount, currency=currency, charges=charges)


def remainder_spec(spec: StreamSpec, sharing: Remainder) -> StreamSpec:
    """Returns the spec of the stream that reads the rest. It writes nothing and has no further attempt.

    Args:
        spec: The spec of the stream that has left.
        sharing: Reads the call.
    """
    model = spec.model
    quiet = StreamSettings(on_malformed=model.stream.on_malformed, heartbeat=0.0)
    upstream = replace(model.upstream, retries=0)
    alone = replace(model, upstream=upstream, stream=quiet, fallback=(), fallback_on={}, targets=())
    return StreamSpec(
        alone,
        {},
        _Nothing(),
        prompt_characters=spec.prompt_characters,
        caller=spec.caller,
        endpoint=spec.endpoint,
        transport=LIBRARY,
        sharing=sharing,
    )


class NullClient(Client):
    """The client of a stream without a client. All methods do nothing."""

    direct = None

    def commit(self) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def write(self, pieces: Sequence[Piece]) -> None:
        """Does nothing."""

    def end(self, pieces: Sequence[Piece]) -> None:
        """Does nothing."""

    def fail(self, error: Error, pieces: Sequence[Piece]) -> None:
        """Does nothing."""

    def abort(self, error: Error) -> None:
        """Does nothing."""


class _Nothing:
    """An output that writes nothing."""

    def event(self, event: Event) -> None:
        """Does nothing."""

    def heartbeat(self) -> None:
        """Does nothing."""

    def take_pieces(self) -> Sequence[Piece]:
        """Returns no pieces."""
        return ()
