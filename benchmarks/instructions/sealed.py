"""Counts what a sealed store adds to a durable event: `gai-fast serve` with a store in a file.

All of the server's process is counted, the thread that writes the file and libc included. A turn of the driver is one
batch of the store, with one record of each stream: what the store has shows that no batch was split. A stream of events
that come alone is in many batches; an answer that comes at once is in one, with its header and its end.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sqlite3
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.instructions.path import (
    BODY_END,
    BURST,
    NATIVE,
    SECONDS,
    Case,
    Server,
    at_once,
    one_by_one,
    request_of,
    serve,
)

PROVIDER: Final = "openai-compatible"
CASE: Final = Case(PROVIDER, NATIVE, resumable=True)
STREAMS: Final = 100
"""Streams of a batch."""
TOGETHER: Final = 3
"""Events of a stream in a batch: of an answer whose events come 10 ms apart."""
WARM_UP: Final = 3
TURNS: Final = 8
"""Turns, of which the cheapest one counts: they differ by up to 5 %, since more or fewer reads share a turn of the
loop."""
SETTLING: Final = 0.1
"""Seconds from the commit of a batch to the end of all that it causes."""
ALONE: Final = "that comes alone"
AT_ONCE: Final = f"of {BURST} at once"
MOST: Final = {ALONE: 1.05, AT_ONCE: 1.07}
"""What an event of a sealed store may cost, divided by that of a plain one. Of a burst, header and end are two more
seals: 3 to 6 % in three runs. Its CPU time, with the kernel's part and the AES of this processor, is another figure:
valgrind has no VAES. `benchmarks.macro.doors sealed` measures it, and benchmarks/HISTORY.md has what it found."""
COPIES: Final = {
    "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824"
}
"""Long copies are made by vectors: of one that the processor makes by itself, each byte is counted."""
_DELTA: Final = b'"type":"text.delta"'
_TURN: Final = signal.SIGWINCH
"""The signal that begins a batch."""


class Pair(NamedTuple):
    """The instructions of an event."""

    plain: float
    sealed: float


def measure_sealed(folder: Path) -> dict[str, Pair]:
    """Returns the cost of a durable event, of each kind in `MOST`.

    Args:
        folder: An empty folder.

    Raises:
        RuntimeError: As `measure_path`, or the store split a batch: the machine is too slow.
    """
    plain = _measure(folder / "plain", is_sealed=False)
    sealed = _measure(folder / "sealed", is_sealed=True)
    return {kind: Pair(plain[kind], sealed[kind]) for kind in MOST}


def serve_by_turns(marks: str, configuration: str) -> None:
    """Serves as `serve`. The store writes a batch at each `_TURN`, and nothing is done by time.

    Args:
        marks: As for `serve`.
        configuration: As for `serve`.
    """
    from gai_fast.ledger.limits import LIMITS as LEDGER  # only the process that is counted needs it
    from gai_fast.model.limits import SHARED
    from gai_fast.server.limits import LIMITS as SERVER
    from gai_fast.stores.journal import Journal
    from gai_fast.stores.limits import LIMITS as STORE

    for limits, names in (
        (SERVER, ("keys_poll", "spend_beat")),
        (LEDGER, ("ledger_flush", "ledger_gone")),
        (SHARED, ("lease_renewal",)),
        (STORE, ("message_poll", "store_sync", "store_sweep_interval")),
    ):
        for name in names:
            object.__setattr__(limits, name, float(SECONDS))
    turn = asyncio.Event()

    async def next_turn(journal: Journal, seconds: float) -> None:
        await turn.wait()
        turn.clear()

    Journal._pause = next_turn  # type: ignore[method-assign]  # in place of the time
    signal.signal(_TURN, lambda number, frame: turn.set())
    serve(marks, configuration)


def compare_sealed(costs: Mapping[str, Pair]) -> tuple[list[str], bool]:
    """Returns the table, and whether no event of a sealed store costs more than it may."""
    lines = [f"{'a durable event':34} {'plain':>10} {'sealed':>10}"]
    all_fine = True
    for kind, (plain, sealed) in costs.items():
        is_fine = sealed <= plain * MOST[kind]
        note = "" if is_fine else f"  more than {MOST[kind] - 1:.0%} more"
        lines.append(f"{kind:34} {plain:10.1f} {sealed:10.1f} {sealed / plain - 1:+8.1%}{note}")
        all_fine = all_fine and is_fine
    return lines, all_fine


def _measure(folder: Path, *, is_sealed: bool) -> dict[str, float]:
    folder.mkdir()
    with ExitStack() as stack:
        server = _Durable(stack, folder, is_sealed=is_sealed)
        return {AT_ONCE: server.cost_at_once(), ALONE: server.cost_alone()}


class _Durable(Server):
    """A server whose streams are durable.

    Args:
        stack: As for `Server`.
        folder: As for `Server`. The store is in it, too.
        is_sealed: Whether the store is sealed.
    """

    def __init__(self, stack: ExitStack, folder: Path, *, is_sealed: bool) -> None:
        store = folder / "store.db"
        tables = f'[store]\nurl = "sqlite:///{store}"\n'
        if is_sealed:
            key = folder / "key"
            key.write_bytes(b64encode(secrets.token_bytes(32)))
            key.chmod(0o600)
            tables += f'[store.encryption]\nkeys = ["file:{key}"]\n'
        super().__init__(stack, folder, {PROVIDER}, tables, "serve-by-turns", COPIES)
        self._store = stack.enter_context(closing(sqlite3.connect(store)))
        self._written = 0  # records

    def cost_at_once(self) -> float:
        """Returns the cost of an event of an answer that comes at once."""
        pieces = at_once(PROVIDER)
        with self.connected() as client:

            def turn() -> None:
                for _ in range(STREAMS):
                    self.ask(client, CASE, pieces)

            return self._cheapest(turn) / (STREAMS * BURST)

    def cost_alone(self) -> float:
        """Returns the cost of an event that is the only one of its read."""
        first, *deltas, end = one_by_one(PROVIDER, TOGETHER * (WARM_UP + TURNS))
        left = iter(deltas)
        with ExitStack() as stack:
            streams = [self._begun(stack, first) for _ in range(STREAMS)]
            self._write()

            def turn() -> None:
                for _ in range(TOGETHER):
                    delta = next(left)
                    for client, upstream in streams:
                        upstream.sendall(delta)
                        self._read(client, _DELTA)

            cost = self._cheapest(turn) / (STREAMS * TOGETHER)
            for client, upstream in streams:
                upstream.sendall(end)
                self._read(client, BODY_END)
        return cost

    def _cheapest(self, turn: Callable[[], None]) -> int:
        """Returns the instructions of the cheapest turn, with its batch."""
        counts = []
        for number in range(WARM_UP + TURNS):
            if number == WARM_UP - 1:
                self.begin()
            turn()
            self._write()
            if number >= WARM_UP - 1:
                counts.append(self.counted().everything)
        return min(counts[1:])

    def _begun(self, stack: ExitStack, first: bytes) -> tuple[socket.socket, socket.socket]:
        """Returns the two ends of a new stream."""
        client = stack.enter_context(self.connected())
        client.sendall(request_of(CASE))
        upstream = self.asked_upstream(client)
        upstream.sendall(first)
        self._read(client, _DELTA)
        return client, upstream

    def _read(self, client: socket.socket, mark: bytes) -> None:
        data = b""
        while mark not in data:
            data += self.receive(client)

    def _write(self) -> None:
        """Writes a batch, which adds a record of each stream.

        Raises:
            RuntimeError: It was split.
        """
        self._written += STREAMS
        self.send_signal(_TURN)
        self.wait("the store has the records of a turn", lambda: self._records() >= self._written)
        time.sleep(SETTLING)
        if self._records() != self._written:
            raise RuntimeError("the store split a batch: a turn took too long on this machine")

    def _records(self) -> int:
        count: int
        (count,) = self._store.execute("SELECT count(*) FROM records").fetchone()
        return count
