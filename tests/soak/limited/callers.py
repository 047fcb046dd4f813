"""The callers of the limited load: keys with limits, and what each of them asks for, in which form and how often."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, Final

from tests.soak.client import Connection, CutError, Reply, SilenceError
from tests.soak.limited.clock import request_id
from tests.soak.limited.expected import NAMES, REQUESTS, SPEND, STREAMS, TOKENS, Asked
from tests.soak.limited.upstream import Plan, Upstream

INPUT_PRICE: Final = 1000
OUTPUT_PRICE: Final = 2000
"""Dollars for a million tokens."""
UNIT: Final = 10**12
"""Amounts are in 10^-12 dollars, so that sums are exact."""
_MILLION: Final = 10**6
_EACH: Final = (60 * INPUT_PRICE + 40 * OUTPUT_PRICE) * UNIT // _MILLION
"""The approximate cost of an answer."""
_REASON: Final = re.compile(rf"\(({'|'.join(NAMES)})\b")
_COST: Final = re.compile(rb'"cost": ?\{"amount": ?([\d.e-]+)')
_CUT: Final = re.compile(rb'"reason": ?"spend"|"(?:finish|stop)_reason": ?"(?:length|max_tokens)"|"max_output_tokens"}')
"""Marks an answer that a limit of spend has ended, of those that no `max_tokens` ends."""
_LONG: Final = 60.0
"""Seconds of load from which on it has the keys that need a while until their limit is reached."""


@dataclass(slots=True)
class Caller:
    """A key, and what it has asked.

    Attributes:
        name: The key's name.
        limits: Its limits by their names; spend in 10^-12 dollars.
        asked: Its requests.
    """

    name: str
    limits: dict[str, int] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def secret(self) -> str:
        """The key itself."""
        return f"sk-limited-{self.name}-0123456789"

    def config(self) -> str:
        """Its part of the configuration."""
        lines = [f"{name} = {limit}" for name, limit in self.limits.items() if name != SPEND]
        if SPEND in self.limits:
            whole, part = divmod(self.limits[SPEND], UNIT)
            lines.append(f'spend = {{amount = {whole}.{part:012}, period = "total"}}')
        return "\n".join(["[[key]]", f'name = "{self.name}"', f'secret = "file:{self.name}"', *lines, ""])


Body = Callable[[str, str, int | None], dict[str, Any]]


def _chat(model: str, text: str, most: int | None, **more: Any) -> dict[str, Any]:
    bound = {} if most is None else {"max_tokens": most}
    return {"model": model, "messages": [{"role": "user", "content": text}], **bound, **more}


def _native(model: str, text: str, most: int | None) -> dict[str, Any]:
    return {"model": model, "query": text, **({} if most is None else {"max_tokens": most})}


def _responses(model: str, text: str, most: int | None) -> dict[str, Any]:
    bound = {} if most is None else {"max_output_tokens": most}
    return {"model": model, "input": text, "stream": True, **bound}


FORMS: Final[tuple[tuple[str, str, Body], ...]] = (
    ("gai", "/api/v1/stream", _native),
    ("gai whole", "/api/v1/stream", _native),
    ("openai", "/v1/chat/completions", lambda *asked: _chat(*asked, stream=True)),
    ("openai whole", "/v1/chat/completions", _chat),
    ("responses", "/v1/responses", _responses),
    ("anthropic", "/v1/messages", lambda *asked: _chat(*asked, stream=True)),
    ("anthropic whole", "/v1/messages", _chat),
)
"""Name, route and body of what clients send; Anthropic's need `max_tokens`."""
_ACCEPT: Final = {"gai whole": {"accept": "application/json"}}
MODELS: Final = ("chat", "claude")
"""One for each dialect of the upstream."""


class Load:
    """The load on one gateway.

    Args:
        upstream: The gateway's upstream.
        seed: Of the plans.
        seconds: How long requests are begun.

    Attributes:
        host: The gateway's `address:port`.
        callers: The keys with limits.
        forms: Answers by their form.
        ends: Answers by the way in which they ended.
        problems: A line for each answer that nobody has promised.
    """

    def __init__(self, upstream: Upstream, *, seed: int, seconds: float) -> None:
        self.host = ""
        self.forms: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.problems: list[str] = []
        self._upstream = upstream
        self._chance = Random(seed)
        self._seconds = seconds
        self._step = max(0.1, seconds / 600)
        self._until = math.inf
        self._numbers = 0
        self._plans: dict[int, Plan] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._works: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.callers: list[Caller] = []
        self._make_callers()

    @property
    def asked(self) -> list[Asked]:
        """The requests of all callers."""
        return [each for caller in self.callers for each in caller.asked]

    def lasts(self, asked: Asked) -> float:
        """Returns the seconds that the answer to a request takes."""
        return self._plans[asked.number].seconds

    async def run(self) -> None:
        """Begins requests for the time of the load, and waits until all of them have ended. May be called again."""
        self._until = time.monotonic() + self._seconds
        await asyncio.gather(*(work() for work in self._works))
        await asyncio.gather(*self._tasks, return_exceptions=True)  # `_ended` notes them

    # -- who there is --

    def _make_callers(self) -> None:
        is_long = self._seconds >= _LONG
        self._add({REQUESTS: 20}, self._polite)
        self._add({REQUESTS: 60}, self._crowd(80, 4.0))
        self._add({TOKENS: 3000}, self._crowd(60, 3.0, most=40))
        self._add({TOKENS: 1200}, self._polite)
        if is_long:
            self._add({REQUESTS: 600}, self._crowd(600, 18.0))
            self._add({REQUESTS: 1800}, self._crowd(600, 36.0))
            self._add({TOKENS: 60_000}, self._crowd(300, 20.0, most=60))
        self._add({STREAMS: 4}, self._in_turn)
        self._add({STREAMS: 12}, self._together(20, 0.5))
        asks = self._seconds / self._step
        for share in (0.1, 0.3, 0.5, 0.7, 0.8) if is_long else (0.1, 0.4):
            self._add({SPEND: int(asks * share) * _EACH}, self._spender)
        self._add({SPEND: int(asks * 100) * _EACH}, self._together(4, 0.2))
        mixed = {REQUESTS: 240, TOKENS: 10**6, STREAMS: 8, SPEND: int(asks) * _EACH}
        self._add(mixed, self._together(12, 0.2, may_leave=False))

    def _add(self, limits: dict[str, int], work: Callable[[Caller], Coroutine[Any, Any, None]]) -> None:
        names = "-".join(name.partition("_")[0] for name in limits)
        caller = Caller(f"{len(self.callers) + 1}-{names}", limits)
        self.callers.append(caller)
        self._works.append(lambda: work(caller))

    # -- what they do --

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._until

    async def _polite(self, caller: Caller) -> None:
        """Asks until it is refused, and again after the `retry-after` of the refusal."""
        while self._goes_on:
            asked, wait = await self._ask(caller, self._plan(deltas=self._chance.randrange(20, 200)))
            if asked.reason:
                await asyncio.sleep(min(wait, max(0.0, self._until - time.monotonic())))

    def _crowd(self, rush: int, rate: float, most: int | None = None) -> Callable[[Caller], Coroutine[Any, Any, None]]:
        """Clients that do not wait: some requests at once, then so many a second."""

        async def work(caller: Caller) -> None:
            for number in range(rush):
                self._begin(caller, most)
                if number % 4 == 3:
                    await asyncio.sleep(0.04)
            due = time.monotonic()
            while self._goes_on:
                self._begin(caller, most)
                due += 1 / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))

        return work

    def _begin(self, caller: Caller, most: int | None) -> None:
        fails = self._chance.random() < 0.05
        plan = self._plan(deltas=self._chance.randrange(5, 30), end="status" if fails else "whole")
        task = asyncio.get_running_loop().create_task(self._ask(caller, plan, most=most))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self.problems.append(f"a caller: {problem!r}")

    async def _in_turn(self, caller: Caller) -> None:
        """Holds as many streams as it may, is refused one more, ends one, and is admitted at once."""
        running: list[tuple[Plan, asyncio.Task[Any]]] = []
        while self._goes_on:
            while len(running) < caller.limits[STREAMS]:
                begun = asyncio.Event()
                plan = self._plan(deltas=3, end="held")
                task = asyncio.create_task(self._ask(caller, plan, begun=begun))
                running.append((plan, task))
                await begun.wait()
            for _ in range(2):
                await self._ask(caller, self._plan(deltas=3))
            plan, task = running.pop(self._chance.randrange(len(running)))
            self._upstream.record(plan.number).released.set()
            await task
            await asyncio.sleep(self._step / 2)
        for plan, task in running:
            self._upstream.record(plan.number).released.set()
            await task

    def _together(
        self, count: int, pause: float, *, may_leave: bool = True
    ) -> Callable[[Caller], Coroutine[Any, Any, None]]:
        """Clients that stream, cancel, leave and meet failures, all at the same time."""

        async def one(caller: Caller) -> None:
            while self._goes_on:
                chance = self._chance.random()
                end = "status" if chance < 0.06 else "cut" if chance < 0.12 else "whole"
                plan = self._plan(deltas=self._chance.randrange(3, 40), pace=self._chance.random() * 0.03, end=end)
                after = self._chance.random() * plan.seconds
                cancels = after if 0.12 <= chance < 0.24 else None
                leaves = after if 0.24 <= chance < 0.34 and may_leave else None
                await self._ask(caller, plan, cancels=cancels, leaves=leaves)
                await asyncio.sleep(self._chance.random() * 2 * pause)

        async def work(caller: Caller) -> None:
            await asyncio.gather(*(one(caller) for _ in range(count)))

        return work

    async def _spender(self, caller: Caller) -> None:
        """One request after the other, so that it is known exactly what has been spent before each."""
        while self._goes_on:
            fails = self._chance.random() < 0.05
            plan = self._plan(deltas=self._chance.randrange(10, 71), end="status" if fails else "whole")
            await self._ask(caller, plan)
            await asyncio.sleep(self._step if caller.asked[-1].reason else self._step * self._chance.random())

    # -- one request --

    def _plan(self, *, deltas: int, pace: float = 0.0, end: str = "whole") -> Plan:
        self._numbers += 1
        plan = self._plans[self._numbers] = Plan(
            self._numbers, self._chance.randrange(20, 100), deltas, round(pace, 3), end
        )
        return plan

    async def _ask(
        self,
        caller: Caller,
        plan: Plan,
        *,
        most: int | None = None,
        cancels: float | None = None,
        leaves: float | None = None,
        begun: asyncio.Event | None = None,
    ) -> tuple[Asked, float]:
        """Sends a request on a connection of its own, so that the workers take turns; returns what became of it, and
        the seconds after which it may come again.
        """
        is_broken = plan.end == "cut" or cancels is not None
        name, path, body = self._form(tells_cost=is_broken, is_stream=plan.end == "held" or leaves is not None)
        sent = body(MODELS[plan.number % 2], plan.text, 1000 if most is None and name.startswith("anthropic") else most)
        bound = sent.get("max_tokens", sent.get("max_output_tokens", 0))
        asked = Asked(plan.number, 0.0, estimate=len(json.dumps(sent).encode()) // 4 + bound)
        asked.input_cost = len(plan.text) // 4 * INPUT_PRICE * UNIT // _MILLION
        headers = {"authorization": f"Bearer {caller.secret}", "x-request-id": request_id(plan.number)}
        headers |= _ACCEPT.get(name, {})
        wait, seen = 0.0, []
        connection = await Connection.open(self.host)
        try:
            asked.sent = time.monotonic()
            caller.asked.append(asked)
            reply = await connection.ask("POST", path, sent, headers)
            asked.answered = time.monotonic()
            asked.worker = reply.headers.get("x-gai-stream-id", "")[22:]
            if reply.status == 429:
                asked.reason, wait = self._refusal(await reply.rest(), reply)
                return asked, wait
            self.forms[name] += 1
            self._expect(plan, reply.status)
            if begun is not None:
                begun.set()
            answer = await self._read(connection, reply, asked, caller, cancels, leaves)
            seen = _COST.findall(answer)
            asked.is_cut = SPEND in caller.limits and _CUT.search(answer) is not None
        except (CutError, SilenceError) as problem:
            asked.answered = min(asked.answered, time.monotonic())
            asked.ended = time.monotonic()
            if plan.end != "cut":
                self.problems.append(f"request {plan}: {name}: {problem!r}")
        finally:
            if begun is not None:
                begun.set()
            connection.close()
            self._account(asked, plan, seen)
        return asked, wait

    def _form(self, *, tells_cost: bool, is_stream: bool) -> tuple[str, str, Body]:
        """Any form; that which tells a broken answer's cost; or one whose head comes before the end."""
        if tells_cost:
            return FORMS[0]
        return self._chance.choice([form for form in FORMS if not (is_stream and form[0].endswith("whole"))])

    def _expect(self, plan: Plan, status: int) -> None:
        if status != 200 and plan.end not in ("status", "cut"):
            self.problems.append(f"request {plan}: status {status}")

    def _refusal(self, body: bytes, reply: Reply) -> tuple[str, float]:
        found = _REASON.search(body.decode())
        if found is None:
            self.problems.append(f"a refusal that names no limit: {body!r}")
            return "unknown", 1.0
        return found[1], float(reply.headers.get("retry-after", 1))

    async def _read(
        self,
        connection: Connection,
        reply: Reply,
        asked: Asked,
        caller: Caller,
        cancels: float | None,
        leaves: float | None,
    ) -> bytes:
        """Reads an answer as its client does; returns the body, or nothing if the client leaves."""
        reading = asyncio.ensure_future(reply.rest())
        try:
            after = cancels if leaves is None else leaves
            done = None if after is None else (await asyncio.wait([reading], timeout=after))[0]
            if done is not None and not done:
                asked.left = time.monotonic()
                if leaves is not None:
                    self.ends["left"] += 1
                    return b""
                self.ends["cancelled"] += 1
                await self._cancel(reply.headers["x-gai-stream-id"], caller)
            else:
                self.ends["read to the end"] += 1
            body = await reading
            asked.ended = time.monotonic()
            return body
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            if self._chance.random() < 0.5:
                connection.reset()

    async def _cancel(self, stream_id: str, caller: Caller) -> None:
        connection = await Connection.open(self.host)
        headers = {"authorization": f"Bearer {caller.secret}"}
        await (await connection.ask("DELETE", f"/api/v1/streams/{stream_id}", headers=headers)).rest()
        connection.close()

    def _account(self, asked: Asked, plan: Plan, reported: Sequence[bytes]) -> None:
        """Notes what a request has used, as the upstream counts it, or would have used, had it been admitted.

        An answer that is not whole costs what it says that it does, which is no more than the whole one. If a limit of
        spend has ended it and it does not say its cost, it costs at most as much as the whole one.
        """
        record = self._upstream.record(plan.number)
        asked.reached, asked.finishing, asked.closed = record.reached, record.finishing, record.closed
        if plan.end == "status":
            return
        asked.used = plan.input + plan.deltas
        if asked.reason:
            return
        asked.most_cost = (plan.input * INPUT_PRICE + plan.deltas * OUTPUT_PRICE) * UNIT // _MILLION
        if asked.left == math.inf and plan.end != "cut" and not asked.is_cut:
            asked.least_cost = asked.most_cost
        elif reported:
            cost = int(Decimal(reported[-1].decode()) * UNIT)
            if cost > asked.most_cost:
                self.problems.append(f"request {plan}: it is said to cost {cost} of {asked.most_cost}")
            asked.least_cost = asked.most_cost = cost

    def take_over(self, ends: Mapping[int, float]) -> None:
        """Takes over what the upstream has learned since of those who have left, and what the gateway has reported.

        Args:
            ends: The moments by which answers had ended for the gateway, by the numbers of their requests.
        """
        for asked in self.asked:
            asked.logged = ends.get(asked.number, math.inf)
            record = self._upstream.records.get(asked.number)
            if record is not None:
                asked.finishing, asked.closed = record.finishing, record.closed
