"""The rest of a shared call whose first stream has left it while others read on.

Owns who pays then: the caller of that first stream, for all of the call. The others were told that they share an
answer, and pay nothing; and nobody gets an answer for the price of its beginning by leaving it to a second request.

A stream without a client reads the call's log from the beginning, for its figures alone. It keeps no call alive. The
figures of the stream that left are recorded when it ends, with its usage and cost.
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
from gai_fast.net.attempts.spec import LIBRARY, Asked, Role, StreamSpec
from gai_fast.net.sharing.shared_call import SharedCall
from gai_fast.net.upstream.connection import Receiver


class Remainder:
    """A `Sharing` of the stream that reads on.

    Args:
        call: The call.
        left: The figures of the stream that left.
        earlier: What its attempts before this call have cost.
        read: Opens a reader of the call that does not count as one.
    """

    role: Role = "miss"

    def __init__(
        self,
        call: SharedCall,
        left: StreamMetrics,
        earlier: tuple[Charge, ...],
        read: Callable[[Receiver], Asked],
    ) -> None:
        self.upstream = left.upstream
        self._call = call
        self._left = left
        self._earlier = earlier
        self._read = read

    def finds(self, spec: StreamSpec) -> bool:
        """True: nobody is asked."""
        return True

    def open(self, spec: StreamSpec, receiver: Receiver, ask: Callable[[Receiver], Asked]) -> Asked:
        """Reads the call."""
        return self._read(receiver)

    def ended(self, spec: StreamSpec, metrics: StreamMetrics, earlier: tuple[Charge, ...]) -> StreamMetrics | None:
        """Returns the figures of the stream that left, with the usage and the cost of the call as far as it went.

        That cost takes the place of what the stream had of the call, beside its earlier attempts. Where the rest of the
        call could not be read, the stream's own figures stand.
        """
        if metrics.outcome == "finished":
            self._call.approve()
        charges = (*self._earlier, *metrics.charges) if metrics.charges else self._left.charges
        total, usage = total_of(charges), metrics.usage or self._left.usage
        if total is None:
            return replace(self._left, usage=usage)
        amount, currency = total
        told = {**usage, "cost": cost_member(amount, currency)} if usage else usage
        return replace(self._left, usage=told, cost=amount, currency=currency, charges=charges)


def remainder_spec(spec: StreamSpec, sharing: Remainder) -> StreamSpec:
    """Returns the spec of the stream that reads on: it writes nothing, and is never asked again.

    Args:
        spec: That of the stream that left.
        sharing: Has the call.
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


class Nobody:
    """The client of a stream that has none."""

    direct = None

    def commit(self) -> None:
        """Does nothing, as every method."""

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
        """Returns none."""
        return ()
