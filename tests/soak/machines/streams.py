"""The streams of two machines and their readers, and what one round of them has to be.

A stream begins on one machine and is followed, resumed and cancelled on both. Its readers are cut off at any byte, and
come back to the other machine.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import orjson

from tests.soak.answers import Answer
from tests.soak.checker import NOT_LOGGED, Ending, Form, Ledger
from tests.soak.client import Connection, CutError, Reply, SilenceError
from tests.soak.gateway import Gateway
from tests.soak.upstream import Upstream

WAIT: Final = 0.3
"""Seconds before a reader that was refused for now comes back."""
HEARD: Final = 35.0
"""Seconds after the end of a machine in which every follower must have heard: its lease of 30 s, a renewal, a look."""
_GAI: Final = Form("gai", "sse")
_FORMS: Final = (_GAI, _GAI, _GAI, Form("openai", "sse"), Form("gai", "ndjson"))


class Machine:
    """A server, as one life of a machine.

    Args:
        name: The machine's.
        gateway: The server; it may be ended, and another life begins.

    Attributes:
        died_at: Monotonic seconds; infinity while it lives.
        workers: The numbers of workers that were killed, and when.
    """

    def __init__(self, name: str, gateway: Gateway) -> None:
        self.name = name
        self.gateway = gateway
        self.died_at = float("inf")
        self.workers: dict[int, float] = {}

    def ended_at(self, stream_id: str) -> float:
        """Returns when the worker that ran a stream was killed; infinity: it was not."""
        return min(self.died_at, self.workers.get(int(stream_id[26:], 16), float("inf")))


@dataclass(slots=True, eq=False)
class Stream:
    """One stream.

    Attributes:
        answer: The upstream's.
        home: Where it began.
        id: Empty: its start was not answered.
        cancelled: Whether a cancellation was confirmed, or may have come through.
        endings: What ended it, by all of its readers.
    """

    answer: Answer
    home: Machine
    id: str = ""
    cancelled: bool = False
    endings: Counter[Ending] = field(default_factory=Counter)

    @property
    def ended_at(self) -> float:
        """The time at which its worker was killed; infinity: it was not."""
        return self.home.ended_at(self.id) if self.id else self.home.died_at


class Judge:
    """The faults of a round.

    Attributes:
        lost, doubled: Events.
        two_ends: Streams that ended in two ways.
        declared_dead: Readers that heard that a stream is gone, or taken over, whose worker lives.
        others: Everything else, in words.
        waited: The most seconds between the end of a worker and the moment when a follower heard of it.
        refused: Answers for now: 503.
    """

    def __init__(self) -> None:
        self.lost = self.doubled = self.two_ends = self.declared_dead = self.refused = 0
        self.streams = self.readers = self.resumed = self.events = 0
        self.waited = 0.0
        self.others: list[str] = []
        self._gone: list[tuple[Stream, float, str]] = []
        self._taken_over: dict[Stream, str] = {}  # with the text that was stored

    @property
    def has_passed(self) -> bool:
        """Whether nothing was found, and something was looked at."""
        return bool(self.events) and not (
            self.lost or self.doubled or self.two_ends or self.declared_dead or self.others
        )

    def note(self, stream: Stream, fault: str) -> None:
        """Notes what is neither lost nor doubled."""
        self.others.append(f"stream {stream.answer.number} ({stream.id}, of {stream.home.name}): {fault}")

    def gone(self, stream: Stream, what: str) -> None:
        """Notes an answer that says that a stream is gone. `finish` judges it: a reader may hear of a killed worker
        before this process knows which one it was."""
        self._gone.append((stream, time.monotonic(), what))

    def read(self, stream: Stream, ledger: Ledger) -> None:
        """Judges what one reader has, once it has ended."""
        self.events += ledger.pieces
        self.lost += ledger.lost
        self.doubled += ledger.doubled
        if ledger.faults:
            self.note(stream, f"{ledger.form.format} over {ledger.form.framing}: {ledger.faults}")
        if ledger.taken_over is not None:
            self._taken_over[stream] = ledger.taken_over
        if ledger.ending is None:
            return
        is_lost = _is_lost(ledger.ending)
        if is_lost:
            self.gone(stream, str(ledger.ending))
        stream.endings[ledger.ending] += 1
        is_right = ledger.is_whole or (stream.cancelled and ledger.ending.reason == "cancelled")
        if not is_right and not is_lost:
            self.note(stream, f"{ledger.ending} after {ledger.pieces} of {ledger.answer.deltas} deltas")

    def finish(self, streams: Sequence[Stream], upstream: Upstream) -> None:
        """Judges the streams, whose readers have ended."""
        for stream, at, what in self._gone:
            if stream.ended_at > at:
                self.declared_dead += 1
                self.note(stream, f"declared dead while it lives: {what}")
            else:
                self.waited = max(self.waited, at - stream.ended_at)
        for stream in self._taken_over:
            if stream.ended_at == float("inf"):
                self.declared_dead += 1
                self.note(stream, "taken over while its worker lives")
        for stream in streams:
            # A reader that had the end before its worker was killed knows more than the store.
            kinds = {each for each in stream.endings if stream.ended_at == float("inf") or each.type == "finish"}
            if len(kinds) > 1:
                self.two_ends += 1
                self.note(stream, f"ends in several ways: {dict(stream.endings)}")
            calls = len(upstream.calls.pop(stream.answer.number, ()))
            # Of what was not stored its next worker knows nothing: it asks again.
            if stream.id and calls != 1 and not (calls == 2 and self._taken_over.get(stream) == ""):
                self.note(stream, f"{calls} requests to the upstream")


class Round:
    """Streams that run while one fault happens.

    Args:
        machines: Both; one of them may be replaced while the round runs.
        upstream: Answers them.
        judge: Gets what the readers have.
        random: Of all plans.
        numbers: The number of the next stream.
        patience: Seconds for which a stream and its readers may take.
    """

    def __init__(
        self, machines: list[Machine], upstream: Upstream, judge: Judge, random: Random, first: int, patience: float
    ) -> None:
        self._machines = machines
        self._upstream = upstream
        self._judge = judge
        self._random = random
        self._next = first
        self._patience = patience
        self._tasks: dict[asyncio.Task[None], Stream] = {}
        self.streams: list[Stream] = []

    def begin(self, seconds: float) -> None:
        """Begins a stream that takes about so long."""
        random = Random(self._random.random())
        interval = random.choice((0.03, 0.1, 0.3))
        answer = Answer(self._next, max(2, int(seconds / interval)), random.randint(0, 40), interval)
        self._next += 1
        self._judge.streams += 1
        stream = Stream(answer, random.choice(self._machines))
        self.streams.append(stream)
        self._upstream.answers[answer.number] = answer
        self._tasks[asyncio.ensure_future(self._run(stream, random))] = stream

    async def ended(self) -> None:
        """Waits until every reader has ended, and then reads every stream again on both machines."""
        _, late = await asyncio.wait(self._tasks, timeout=self._patience)
        for task in late:
            self._judge.note(self._tasks[task], "a reader has not ended")
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        again = [
            self._read(stream, [machine], Ledger(stream.answer, _GAI), 0, Random(0))
            for stream in self.streams
            if stream.id
            for machine in self._machines
        ]
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.gather(*again)
        except TimeoutError:
            self._judge.others.append("streams that have ended cannot be read to their end")
        self._judge.finish(self.streams, self._upstream)
        for stream in self.streams:
            del self._upstream.answers[stream.answer.number]

    # -- one stream --

    async def _run(self, stream: Stream, random: Random) -> None:
        ledger = Ledger(stream.answer, _GAI)
        self._judge.readers += 1
        try:
            connection = await Connection.open(stream.home.gateway.host)
            body = {"query": str(stream.answer.number), "model": "kept", "resumable": True}
            reply = await connection.ask("POST", "/api/v1/stream", body)
        except (CutError, SilenceError) as cut:  # right where the machine was just killed
            if stream.home.died_at == float("inf"):
                self._judge.note(stream, f"its start was not answered: {cut!r}")
            return
        if reply.status != 200:
            self._judge.note(stream, f"its start was refused: {reply.status} {await reply.rest()!r}")
            connection.close()
            return
        stream.id = reply.headers["x-gai-stream-id"]
        here, there = (stream.home, *(each for each in self._machines if each is not stream.home))[:2]
        readers = [
            self._first(stream, connection, reply, ledger, random),
            self._follow(stream, [there], 0, random),
            self._follow(stream, [there, here], random.randint(1, 4), random),
            self._follow(stream, [here, there], random.randint(1, 4), random),
        ]
        if random.random() < 0.15:
            readers.append(self._cancel(stream, there, random))
        await asyncio.gather(*readers)

    async def _first(
        self, stream: Stream, connection: Connection, reply: Reply, ledger: Ledger, random: Random
    ) -> None:
        """The client that began the stream: it is cut off once, and goes on elsewhere."""
        limit = random.choice((None, random.randint(1, 20_000)))
        with suppress(CutError):
            await _feed(reply, ledger, limit)
        connection.reset() if random.random() < 0.5 else connection.close()
        await self._read(stream, [*self._machines], ledger, 0, random)

    async def _follow(self, stream: Stream, route: list[Machine], cuts: int, random: Random) -> None:
        self._judge.readers += 1
        await asyncio.sleep(random.uniform(0, 2))
        await self._read(stream, route, Ledger(stream.answer, random.choice(_FORMS)), cuts, random)

    async def _read(self, stream: Stream, route: list[Machine], ledger: Ledger, cuts: int, random: Random) -> None:
        """Reads a stream to its end, over as many connections as it takes, each to the next machine of the route."""
        turn = 0
        while ledger.ending is None:
            machine = self._now(route[turn % len(route)])
            turn += 1
            self._judge.resumed += 1
            query = f"&after={stream.id}.{ledger.place}" if ledger.place else ""
            try:
                connection = await Connection.open(machine.gateway.host)
            except CutError:
                await asyncio.sleep(WAIT)  # the machine is down
                continue
            try:
                reply = await connection.ask("GET", f"/api/v1/streams/{stream.id}?{ledger.form.query}{query}")
                if reply.status == 204:
                    if ledger.ending is None:
                        self._judge.note(stream, "nothing is left, and there was no end")
                    return
                if reply.status != 200:
                    if not await self._is_refused_for_now(stream, reply):
                        return
                    await asyncio.sleep(WAIT)
                    continue
                limit = random.randint(1, 3000) if cuts > 0 else None
                cuts -= 1
                await _feed(reply, ledger, limit)
            except CutError:
                await asyncio.sleep(WAIT)
            except SilenceError:
                self._judge.note(stream, f"{machine.name} keeps silent, without a heartbeat")
            finally:
                connection.close()
            if ledger.ending is not None and _is_for_now(ledger.ending):
                ledger.ending, ledger.is_done = None, False
                await asyncio.sleep(WAIT)
        self._judge.read(stream, ledger)

    def _now(self, machine: Machine) -> Machine:
        """Returns the present life of a machine."""
        return next(each for each in self._machines if each.name == machine.name)

    async def _is_refused_for_now(self, stream: Stream, reply: Reply) -> bool:
        """Returns whether a refusal is for now; any other is judged."""
        body = await reply.rest()
        error: dict[str, Any] = orjson.loads(body).get("error", {}) if body else {}
        if reply.status == 503 and error.get("temporary"):
            self._judge.refused += 1
            return True
        if reply.status == 404:
            self._judge.gone(stream, "404")
        else:
            self._judge.note(stream, f"refused: {reply.status} {body!r}")
        return False

    async def _cancel(self, stream: Stream, machine: Machine, random: Random) -> None:
        """Cancels a stream through the other machine, as often as it takes."""
        await asyncio.sleep(random.uniform(0, self._patience / 20))
        while True:
            stream.cancelled = True
            try:
                connection = await Connection.open(self._now(machine).gateway.host)
                reply = await connection.ask("DELETE", f"/api/v1/streams/{stream.id}")
                body = orjson.loads(await reply.rest())
                connection.close()
            except (CutError, SilenceError):
                if stream.ended_at < float("inf"):
                    return
            else:
                if reply.status in (200, 202):
                    return
                if reply.status == 404:
                    self._judge.gone(stream, "404 to its cancellation")
                    return
                if not body.get("error", {}).get("temporary"):
                    if stream.ended_at == float("inf"):
                        self._judge.note(stream, f"not cancelled: {reply.status} {body}")
                    return
                self._judge.refused += 1
            await asyncio.sleep(WAIT)


async def _feed(reply: Reply, ledger: Ledger, limit: int | None) -> None:
    """Reads a response, whole or up to a limit.

    Raises:
        CutError: The server has closed.
        SilenceError: Nothing comes.
    """
    ledger.connected()
    while not reply.ended:
        left = 65536 if limit is None else max(1, limit - reply.received)
        ledger.feed(await reply.read(left))
        if limit is not None and reply.received >= limit and not reply.ended:
            return
    ledger.ended()


def _is_lost(ending: Ending) -> bool:
    """Returns whether an error says that the stream's worker is gone; OpenAI's format has no reason for it."""
    return ending.type == "error" and (ending.reason in NOT_LOGGED or (not ending.reason and ending.code == "network"))


def _is_for_now(ending: Ending) -> bool:
    """Whether an error ends a response and not its stream: the store is out of reach, so the client comes back."""
    return ending.type == "error" and (ending.reason == "store" or ending.code == "overloaded")
