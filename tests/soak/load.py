"""The clients of the soak: what each does follows from the seed and its stream's number.

A stream is one `POST` or `GET` that starts it and one or more readers. Each reader has a ledger; when it has ended, its
outcome is judged by what happened to the stream (`verdict.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal

import orjson

from tests.soak.answers import Answer, draw_answer
from tests.soak.checker import Form, Framing, Ledger
from tests.soak.client import PATIENCE, Connection, CutError, Reply, SilenceError
from tests.soak.gateway import BRIEF, WRITE_TIMEOUT
from tests.soak.served import REQUEST_ID
from tests.soak.upstream import Upstream
from tests.soak.verdict import Judge, Reading

Manner = Literal["reads", "cuts", "slow", "never", "leaves", "cancels", "abandons"]
"""The behaviour of a reader: `cuts` breaks off again and again and comes back, `never` stops reading for some time,
`leaves` and `abandons` do not come back (from a plain and from a durable stream)."""
Start = Literal["stream", "streams", "get", "chat"]
"""The request: `POST /api/v1/stream`, `POST /api/v1/streams`, `GET /api/v1/stream`, `POST /v1/chat/completions`."""

_JSON: Final = {"accept": "application/json"}
STALLED: Final = WRITE_TIMEOUT * 1.4
"""Seconds for which a reader that never reads does so, unless answers are shorter."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The course of one stream.

    Attributes:
        number: From 1.
        start: The request.
        form: Of the first reader.
        is_durable: Whether it is.
        manner: Of the first reader.
        followers: Further readers, where it is durable.
        answer: The upstream's.
        model: The model that is asked.
    """

    number: int
    start: Start
    form: Form
    is_durable: bool
    manner: Manner
    followers: int
    answer: Answer
    model: str


def draw_plan(seed: int, number: int, longest: float) -> Plan:
    """Returns the plan of a stream.

    Args:
        seed: The soak's.
        number: The stream's.
        longest: Seconds that an answer takes at most.
    """
    random = Random(f"{seed}.{number}")
    is_durable = random.random() < 0.55
    start: Start
    framing: Framing = "sse" if random.random() < 0.7 else "ndjson"
    if is_durable:
        start = random.choice(("stream", "stream", "stream", "streams", "get", "chat"))
        manner: Manner = random.choices(
            ("reads", "cuts", "slow", "never", "cancels", "abandons"), (30, 50, 4, 3, 8, 5)
        )[0]
        form = Form("openai" if start == "chat" else random.choice(("gai", "gai", "gai", "openai", "simple")), framing)
    else:
        start = random.choice(("stream", "chat"))
        manner = random.choices(("reads", "slow", "never", "leaves", "cancels"), (70, 4, 3, 15, 8))[0]
        form = Form("openai" if start == "chat" else random.choice(("gai", "gai", "openai", "simple")), framing)
    answer = draw_answer(random, number, longest=longest, is_large=manner in ("slow", "never"))
    followers = random.choice((0, 0, 0, 1, 2)) if is_durable and start != "chat" else 0
    model = "m"
    if start == "chat" and is_durable:
        model = "kept"
    elif answer.failure == "stall":
        model = "stalling"
    elif manner == "abandons":
        model = BRIEF
    return Plan(number, start, form, is_durable, manner, followers, answer, model)


class Counts:
    """The load, for the table."""

    def __init__(self) -> None:
        self.begun = 0
        self.running = 0
        self.readers = 0
        self.resumed = 0
        self.own_cuts = 0
        self.most_running = 0
        self.bytes = 0
        self.plans: Counter[str] = Counter()


class Load:
    """Keeps a number of streams running.

    Args:
        host: The gateway's address and port.
        upstream: The upstream that the streams end at.
        judge: Gets each reader's outcome.
        seed: Of all plans.
        streams: How many run at a time.
        longest: Seconds that an answer takes at most.
    """

    def __init__(self, host: str, upstream: Upstream, judge: Judge, *, seed: int, streams: int, longest: float) -> None:
        self.counts = Counts()
        self._host = host
        self._upstream = upstream
        self._judge = judge
        self._seed = seed
        self._streams = streams
        self._longest = longest
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Begins streams for some time; a tenth of the wanted number a second, at the most."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            room = self._streams - len(self._tasks)
            for _ in range(min(room, max(5, self._streams // 100))):
                self.begin()
            await asyncio.sleep(0.1)

    async def ended(self, patience: float) -> int:
        """Waits until the streams have ended; returns how many have not."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        left = len(self._tasks)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return left

    @property
    def running(self) -> int:
        """Streams that have begun and not ended."""
        return len(self._tasks)

    def begin(self) -> None:
        """Begins the next stream."""
        self.counts.begun += 1
        plan = draw_plan(self._seed, self.counts.begun, self._longest)
        self.counts.plans[f"{'durable' if plan.is_durable else 'plain'} {plan.manner}"] += 1
        task = asyncio.get_running_loop().create_task(self._run(plan))
        self._tasks.add(task)
        self.counts.most_running = max(self.counts.most_running, len(self._tasks))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._judge.broke(error)

    async def _run(self, plan: Plan) -> None:
        self._upstream.answers[plan.number] = plan.answer
        random = Random(f"client {self._seed}.{plan.number}")
        stall = min(STALLED, self._longest / 2)
        stream = _Stream(plan, self._host, self._judge, self.counts, random, stall)
        try:
            await stream.run()
            self._judge.stream_ended(plan.number)
        finally:
            del self._upstream.answers[plan.number]


class _Stream:
    """One stream and its readers."""

    def __init__(self, plan: Plan, host: str, judge: Judge, counts: Counts, random: Random, stall: float) -> None:
        self._plan = plan
        self._host = host
        self._judge = judge
        self._counts = counts
        self._random = random
        self._stall_for = stall
        self._id = ""
        self._began = time.monotonic()

    async def run(self) -> None:
        """Returns when the last reader has ended."""
        plan = self._plan
        ledger = Ledger(plan.answer, plan.form)
        reading = self._reading(ledger, plan.manner)
        reading.connected(self._began)
        try:
            connection = await Connection.open(self._host, is_narrow=plan.manner == "never")
        except CutError as cut:
            self._judge.cut_before_head(reading, str(cut))
            return
        try:
            reply = await self._start(connection)
            if reply.status not in (200, 202):
                self._judge.refused(reading, reply.status, await reply.rest())
                connection.close()
                return
            if plan.start == "streams":
                self._id = orjson.loads(await reply.rest())["id"]
                connection.close()
                await asyncio.sleep(self._random.uniform(0, 0.3))
        except (CutError, SilenceError) as cut:
            connection.close()
            self._judge.cut_before_head(reading, repr(cut))
            return
        if plan.start != "streams":
            self._id = reply.headers["x-gai-stream-id"]
        reading.stream_id = self._id
        others = [asyncio.create_task(self._follow()) for _ in range(plan.followers)]
        if plan.manner == "cancels":
            others.append(asyncio.create_task(self._cancel()))
        try:
            if plan.start == "streams":
                await self._read_all(reading, None, None)
            else:
                await self._read_all(reading, connection, reply)
            await asyncio.gather(*others)
            if plan.is_durable and reading.outcome == "worker_lost":
                await self._replay(reading)
            if reading.outcome == "left" and plan.is_durable:
                self._judge.abandoned(reading, await self._last_state())
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _start(self, connection: Connection) -> Reply:
        plan = self._plan
        query = f"?{plan.form.query}"
        said = str(plan.number)
        headers = {"x-request-id": f"{REQUEST_ID}{said}"}
        if plan.start == "get":
            path = f"/api/v1/stream{query}&q={said}&model={plan.model}"
            return await connection.ask("GET", path, headers=headers)
        if plan.start == "chat":
            body: dict[str, Any] = {
                "messages": [{"role": "user", "content": said}],
                "model": plan.model,
                "stream": True,
            }
            return await connection.ask("POST", f"/v1/chat/completions{query}", body, headers)
        body = {"query": said, "model": plan.model}
        if plan.start == "streams":
            return await connection.ask("POST", "/api/v1/streams", body, headers)
        return await connection.ask("POST", f"/api/v1/stream{query}", {**body, "resumable": plan.is_durable}, headers)

    def _reading(self, ledger: Ledger, manner: Manner) -> Reading:
        self._counts.readers += 1
        return Reading(self._plan.number, ledger, manner, self._plan.is_durable, self._plan.model, self._id)

    # -- further clients --

    async def _follow(self) -> None:
        """A further reader, from any place on."""
        await asyncio.sleep(self._random.uniform(0, 3))
        form = Form(self._random.choice(("gai", "openai", "simple")), self._random.choice(("sse", "ndjson")))
        manner: Manner = "reads" if self._random.random() < 0.5 else "cuts"
        await self._read_all(self._reading(Ledger(self._plan.answer, form), manner), None, None)

    async def _cancel(self) -> None:
        """Cancels the stream from a connection of its own."""
        await asyncio.sleep(self._random.uniform(0, 2))
        self._judge.cancelled(self._plan.number)
        with suppress(CutError, SilenceError):  # of a worker that was killed; what the readers get is judged
            connection = await Connection.open(self._host)
            reply = await connection.ask("DELETE", f"/api/v1/streams/{self._id}")
            await reply.rest()
            connection.close()

    async def _replay(self, former: Reading) -> None:
        """Reads what is left of a stream whose worker was killed: a client that was there must have all of it."""
        form = self._plan.form if self._plan.start == "chat" else Form("gai", "sse")
        reading = self._reading(Ledger(self._plan.answer, form), "reads")
        await self._read_all(reading, None, None)
        self._judge.compare(former, reading)

    async def _last_state(self) -> str:
        """Returns the state of a stream that nobody follows, as soon as it has ended."""
        end = time.monotonic() + PATIENCE
        state = "unknown"
        while time.monotonic() < end:
            await asyncio.sleep(self._random.uniform(2, 3))
            with suppress(CutError):  # of a worker that was killed: the next one answers
                connection = await Connection.open(self._host)
                reply = await connection.ask("GET", f"/api/v1/streams/{self._id}", headers=_JSON)
                result = orjson.loads(await reply.rest())
                connection.close()
                state = result.get("state", str(result))
                if state != "running":
                    break
        return state

    # -- reading --

    async def _read_all(self, reading: Reading, connection: Connection | None, reply: Reply | None) -> None:
        """Reads a stream to its end, over as many connections as it takes; the outcome is judged."""
        cuts = self._random.randint(1, 4) if reading.manner == "cuts" else 0
        ledger = reading.ledger
        stalls = reading.manner == "never"
        losses = 0
        try:
            while True:
                if connection is None:
                    reading.connected(time.monotonic())
                    try:
                        connection, reply = await self._resume(reading)
                    except CutError as cut:
                        connection = None
                        if not self._may_return(reading, str(cut)) or losses > 50:
                            return
                        losses += 1
                        await asyncio.sleep(self._random.uniform(0.05, 0.3))
                        continue
                assert reply is not None
                if reply.status != 200:
                    body = await reply.rest()
                    connection.close()
                    if reply.status == 204:
                        self._judge.nothing_left(reading)
                    else:
                        self._judge.refused(reading, reply.status, body)
                    return
                limit = self._limit(reading, cuts)
                try:
                    if stalls:
                        stalls = False
                        await self._stall(connection)
                        reading.has_stalled = True
                    if await self._read(reply, ledger, limit, is_slow=reading.manner == "slow"):
                        connection.close()
                        self._judge.ended(reading)
                        return
                except CutError as cut:
                    connection.close()
                    if not self._may_return(reading, str(cut)) or losses > 50:
                        return
                    losses += 1
                else:
                    cuts -= 1
                    self._counts.own_cuts += 1
                    connection.reset() if self._random.random() < 0.5 else connection.close()
                    if reading.manner in ("leaves", "abandons"):
                        self._judge.left(reading)
                        return
                connection = None
                self._counts.resumed += 1
                await asyncio.sleep(self._random.choice((0, 0, self._random.uniform(0, 2))))
        except SilenceError as silence:
            self._judge.silent(reading, str(silence))
        finally:
            if connection is not None:
                connection.close()

    def _limit(self, reading: Reading, cuts: int) -> int | None:
        """Returns the number of bytes that the reader takes before it breaks off. None for all."""
        if cuts > 0 or reading.manner in ("leaves", "abandons"):
            return self._random.choice((self._random.randint(1, 400), self._random.randint(1, 5000)))
        return None

    def _may_return(self, reading: Reading, why: str) -> bool:
        """Judges a cut of the server's; whether the reader comes back."""
        return self._judge.cut(reading, why) and self._plan.is_durable and bool(self._id)

    async def _resume(self, reading: Reading) -> tuple[Connection, Reply]:
        ledger = reading.ledger
        path = f"/api/v1/streams/{self._id}?{ledger.form.query}"
        headers = {}
        if ledger.form.format != "gai" and ledger.form.framing == "ndjson":
            ledger.restart()  # this form has neither ids nor numbers
        elif ledger.place and self._random.random() < 0.5:
            headers["last-event-id"] = f"{self._id}.{ledger.place}"
        elif ledger.place:
            path += f"&after={self._id}.{ledger.place}"
        connection = await Connection.open(self._host)
        try:
            return connection, await connection.ask("GET", path, headers=headers)
        except (CutError, SilenceError):
            connection.close()
            raise

    async def _read(self, reply: Reply, ledger: Ledger, limit: int | None, *, is_slow: bool) -> bool:
        """Reads a response; false if the reader broke off."""
        ledger.connected()
        left = limit
        while not reply.ended:
            size = 2048 if is_slow else 65536
            data = await reply.read(size if left is None else max(1, min(size, left)))
            self._counts.bytes += len(data)
            ledger.feed(data)
            if left is not None and limit is not None:
                left = limit - reply.received
                if left <= 0 and not reply.ended and not ledger.is_done:
                    return False
            if is_slow:
                await asyncio.sleep(0.02)
        return True

    async def _stall(self, connection: Connection) -> None:
        connection.pause()
        await asyncio.sleep(self._stall_for)
        connection.resume()
