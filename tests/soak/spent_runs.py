"""`make spent-runs`: each key is charged, over runs of several turns, exactly what the provider has counted.

    python -m tests.soak.spent_runs --runs 300 --seed 1
    python -m tests.soak.spent_runs --runs 50 --stores redis

Random runs of one to five turns, with none to three calls of tools in each: streamed and whole, of two routes, by keys
without limits, with limits of spend and of tokens that are and are not reached. A server with two workers answers them
over each store. The upstream fails now and then before it answers; a second one with other prices then takes the turn.
It counts tokens at random, so that no count is taken for an estimate.

The exit code is 1 unless all of this holds:

* The report of spend has for each key the price of what was counted, to the last digit, and no other key.
* The usage that a client is told of its whole run is the sum of what was counted for its turns.
* What is left of a limit of spend is the limit without what was spent: nothing stays reserved.
* A turn that a limit of spend cuts off before its count has come is charged by length: in the report at most its count.
* The tokens that count for a limit a minute are those that were counted, each from within its run on: `Minute`.
* Each run ends: behind its last turn, or behind a step at a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final, NamedTuple

from aiohttp import web

from tests.integration.forked import ForkedProcess
from tests.integration.stores.servers import RedisServer
from tests.integration.test_cli import environment
from tests.soak.client import Connection

RUNS: Final = 300
AT_ONCE: Final = 6
"""Runs at a time."""
TURNS: Final = 5
PATIENCE: Final = 60.0
REPORTED: Final = 2.0
"""Seconds after which the last charge is in the report."""
SLACK: Final = 0.002
"""Seconds: a header has whole milliseconds, and the clocks of two processes are read apart."""
FAILS: Final = 0.08
"""The share of turns at which the first upstream fails."""
PRICES: Final = {
    "up": {"input": "2.51", "cached_input": "0.253", "output": "10.07", "reasoning": "12.009"},
    "spare": {"input": "3.01", "cached_input": "0.31", "output": "15.1", "reasoning": "15.1"},
}
"""The prices of a million tokens at each upstream, in dollars."""
TOOLS: Final = ("look", "pay", "fail")
_ADMIN: Final = "administrator"
_RESET: Final = re.compile(r"(?:(\d+)m)?(?:([\d.]+)s)?(?:(\d+)ms)?")
_SETTINGS: Final = """\
[server]
port = 0
[store]
url = "{url}"
"""
_UPSTREAM: Final = """\
[[upstream]]
name = "{name}"
provider = "openai-compatible"
base_url = "http://127.0.0.1:{port}/{name}/v1"
retries = 0
breaker = false
[[model]]
name = "{name}"
upstream = "{name}"
price = {{{price}}}
tools = ["*"]
"""
_TOOL: Final = """\
[[tool]]
name = "{name}"
description = "A tool"
parameters = {{type = "object"}}
url = "http://127.0.0.1:{port}/tools/{name}"
idempotent = {idempotent}
"""


class Key(NamedTuple):
    """A key, and its limits. None: it has none."""

    name: str
    spend: str | None = None
    tokens: int | None = None

    @property
    def table(self) -> str:
        """Its table of the configuration."""
        digest = hashlib.sha256(self.secret.encode()).hexdigest()
        lines = [f'[[key]]\nname = "{self.name}"\nsecret = "sha256:{digest}"\ntools = ["*"]']
        lines += [] if self.spend is None else [f'spend = {{amount = {self.spend}, period = "total"}}']
        lines += [] if self.tokens is None else [f"tokens_per_minute = {self.tokens}"]
        return "\n".join([*lines, 'role = "admin"\n' if self.name == _ADMIN else ""])

    @property
    def secret(self) -> str:
        """Its secret."""
        return f"the secret of {self.name}"


KEYS: Final = (
    Key("free"),
    Key("rich", "1000"),
    Key("poor", "0.3"),
    Key("fast", None, 600_000),
    Key("slow", None, 9_000),
    Key("both", "0.9", 60_000),
)


class Turn(NamedTuple):
    """What the model does in a turn.

    Attributes:
        text: What it says.
        calls: The tools that it calls.
        counts: The tokens that are counted: of the prompt, those of them that were cached, of the answer, and those of
            them that were reasoning.
        fails: Whether the first upstream fails.
    """

    text: str
    calls: tuple[str, ...]
    counts: tuple[int, int, int, int]
    fails: bool


@dataclass
class Run:
    """A run.

    Attributes:
        tag: Its name, which its question has.
        key: Its key.
        form: How its client asks for it.
        turns: What the model does.
        counted: The upstream and the counts of each turn that was answered.
        is_cut: Whether a limit of spend has cut the last turn off, whose count nobody has read.
        unfinished: Turns whose connection was closed before their end.
        began: When it was asked for, in monotonic seconds.
        ended: When it had ended.
    """

    tag: str
    key: Key
    form: str
    turns: list[Turn]
    counted: list[tuple[str, tuple[int, int, int, int]]] = field(default_factory=list)
    is_cut: bool = False
    unfinished: int = 0
    began: float = 0.0
    ended: float = 0.0

    @property
    def tokens(self) -> int:
        """The tokens that were counted."""
        return sum(into + out for _, (into, _, out, _) in self.counted)

    @property
    def cost(self) -> Decimal:
        """What they cost."""
        return sum((_cost(*counted) for counted in self.counted), Decimal(0))


def _cost(upstream: str, counts: tuple[int, int, int, int]) -> Decimal:
    price = {name: Decimal(amount) for name, amount in PRICES[upstream].items()}
    into, cached, out, thought = counts
    amount = (into - cached) * price["input"] + cached * price["cached_input"]
    return (amount + (out - thought) * price["output"] + thought * price["reasoning"]) / 10**6


def run_of(random: Random, tag: str) -> Run:
    """Draws a run."""
    turns = []
    for left in reversed(range(random.randint(1, TURNS))):
        calls = tuple(random.choice(TOOLS) for _ in range(random.randint(1, 3))) if left else ()
        into, out = random.randint(1, 4000), random.randint(2, 1500)
        counts = into, random.choice([0, random.randint(0, into)]), out, random.choice([0, random.randint(0, out - 1)])
        turns.append(Turn("word " * random.randint(1, 12), calls, counts, random.random() < FAILS))
    return Run(tag, random.choice(KEYS), random.choice(("stream", "whole", "chat")), turns)


class Minute:
    """The bounds of what counts for a limit of tokens a minute: GCRA, as docs/limits.md has it.

    A run's tokens count from some moment of the run on: the least if all counted as it began, the most if at its end.
    """

    def __init__(self, limit: int, runs: Sequence[Run]) -> None:
        self._rate = limit / 60
        self._early = self._free([(run.began, run.tokens) for run in runs])
        self._late = self._free([(run.ended, run.tokens) for run in runs])

    def _free(self, uses: list[tuple[float, int]]) -> float:
        free = 0.0
        for at, tokens in sorted(uses):
            free = max(free, at) + tokens / self._rate
        return free

    def has(self, reset: float, asked: float, answered: float) -> bool:
        """Returns whether it may be so many seconds, between two times, until the whole limit is free."""
        return max(0.0, self._early - answered) - SLACK <= reset <= max(0.0, self._late - asked) + SLACK

    def told(self, asked: float, answered: float) -> str:
        """Returns the bounds."""
        return f"{self._early - answered:.3f} to {self._late - asked:.3f} s"


class Provider:
    """The upstreams and the tools, on one port.

    Args:
        runs: The runs, by their tags.
    """

    def __init__(self, runs: dict[str, Run]) -> None:
        self.port = 0
        self._runs = runs
        self._random = Random(0)  # of waits alone
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens."""
        app = web.Application()
        app.router.add_post("/{upstream}/v1/chat/completions", self._complete)
        app.router.add_post("/tools/{tool}", self._call)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Listens no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _call(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self._random.uniform(0, 0.02))
        if request.match_info["tool"] == "fail":
            return web.json_response({"error": "no"}, status=500)
        return web.json_response({"ticket": self._random.random()})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        upstream, body = request.match_info["upstream"], await request.json()
        run = self._runs[_text_of(body["messages"][0])]
        step = sum(message["role"] == "assistant" for message in body["messages"])
        turn = run.turns[step]
        if turn.fails and upstream == "up":
            return web.json_response({"error": {"message": "down"}}, status=503)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        run.unfinished += 1
        await response.prepare(request)
        for word in turn.text.split():
            try:
                await response.write(_chunk({"content": f"{word} "}))
            except ConnectionError:  # a limit of spend
                return response
            await asyncio.sleep(self._random.uniform(0, 0.004))
        for at, name in enumerate(turn.calls):
            function = {"name": name, "arguments": json.dumps({"at": at})}
            call = {"index": at, "id": f"call_{step}_{at}", "type": "function", "function": function}
            await response.write(_chunk({"tool_calls": [call]}))
        into, cached, out, thought = turn.counts
        usage = {
            "prompt_tokens": into,
            "completion_tokens": out,
            "total_tokens": into + out,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thought},
        }
        end = _chunk({}, "tool_calls" if turn.calls else "stop")
        run.counted.append((upstream, turn.counts))
        run.unfinished -= 1
        with suppress(ConnectionError):  # as above
            await response.write(end + _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        return response


def _text_of(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return _event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _event(members: dict[str, Any]) -> bytes:
    return (
        b"data: %b\n\n"
        % json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **members}).encode()
    )


class Spent:
    """Runs over one store.

    Args:
        folder: For all files.
        url: The store.
        random: Of the runs.

    Attributes:
        faults: What is wrong, a line each.
        tally: Counts.
    """

    def __init__(self, folder: Path, url: str, random: Random) -> None:
        self.faults: list[str] = []
        self.tally = Counter[str]()
        self._folder, self._url, self._random = folder, url, random
        self._runs: dict[str, Run] = {}
        self._provider = Provider(self._runs)
        self._host = ""

    async def run(self, count: int) -> None:
        """Makes so many runs, and judges them."""
        await self._provider.start()
        log = self._folder / "log"
        (self._folder / "gai-fast.toml").write_text(self._configuration())
        with log.open("wb") as file:
            arguments = ("serve", "--workers", "2")
            process = ForkedProcess(arguments, self._folder, environment(), PATIENCE, file.fileno())
        try:
            async with process:
                async with asyncio.timeout(PATIENCE):
                    shown = (await process.stdout.readuntil(b"\nmodels: ")).decode()
                self._host = shown.splitlines()[0].rpartition(" ")[2].removeprefix("http://")
                numbers = iter(range(count))
                await asyncio.gather(*(self._some(numbers) for _ in range(AT_ONCE)))
                for key in KEYS:
                    await self._judge_limits(key)
                await self._judge_spend()
                process.terminate()
                await process.wait()
        finally:
            await self._provider.stop()
        said = log.read_text(errors="replace")
        if "bug" in said or "Traceback" in said:
            self.faults.append(said[-3000:])

    def _configuration(self) -> str:
        parts = [_SETTINGS.format(url=self._url)]
        for name, prices in PRICES.items():
            price = ", ".join(f"{each} = {amount}" for each, amount in prices.items())
            parts.append(_UPSTREAM.format(name=name, port=self._provider.port, price=price))
            parts.append('fallback = ["spare"]\n' if name == "up" else "")
        port, may = self._provider.port, {name: str(name == "look").lower() for name in TOOLS}
        parts += [_TOOL.format(name=name, port=port, idempotent=may[name]) for name in TOOLS]
        return "".join([*parts, *(key.table for key in (*KEYS, Key(_ADMIN)))])

    async def _some(self, numbers: Any) -> None:
        for number in numbers:
            run = run_of(Random(f"{self._random.random()} {number}"), f"run-{number}")
            connection = await Connection.open(self._host)
            await self._make(run, connection)
            connection.close()

    async def _make(self, run: Run, connection: Connection) -> dict[str, str]:
        """Makes a run. Returns the headers of its answer."""
        self._runs[run.tag] = run
        self.tally["runs"] += 1
        run.began = time.monotonic()
        is_chat, is_stream = run.form == "chat", run.form == "stream"
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": run.tag}]} if is_chat else {"query": run.tag}
        path = "/v1/chat/completions" if is_chat else "/api/v1/stream"
        headers = {"authorization": f"Bearer {run.key.secret}"}
        reply = await connection.ask("POST", path, {"model": "up", "stream": is_stream, **asked}, headers)
        body = await reply.rest()
        run.ended = time.monotonic()
        self.tally["turns"] += len(run.counted)
        self.tally["tokens"] += run.tokens
        self.tally["turns of the second upstream"] += sum(upstream == "spare" for upstream, _ in run.counted)
        self._judge(run, reply.status, body)
        return {**reply.headers}

    def _judge(self, run: Run, status: int, body: bytes) -> None:
        what = f"{run.tag} of {run.key.name} ({run.form}, {len(run.counted)} of {len(run.turns)} turns)"
        if run.unfinished and b'"spend"' in body:
            run.counted.append(("spare", run.turns[len(run.counted)].counts))  # at most
            run.unfinished, run.is_cut = 0, True
            self.tally["cut off"] += 1
            return
        if run.unfinished:
            self.faults.append(f"{what}: {run.unfinished} turns were cut off")
        if status == 429 and not run.counted:
            self.tally[f"refused: {run.key.name}"] += 1
            return
        if status != 200:
            self.faults.append(f"{what}: status {status}: {body[:300]!r}")
            return
        end = _end_of(body) if run.form == "stream" else json.loads(body, parse_float=Decimal)
        usage = end.get("usage") or {}
        reason = end.get("reason", (end.get("x_gai") or {}).get("reason"))
        if reason == "spend" and len(run.counted) == len(run.turns):
            run.is_cut = usage["total_tokens"] < run.tokens
            self.tally["cut off"] += 1
            return
        if usage.get("total_tokens") != run.tokens:
            self.faults.append(f"{what}: it is told {usage}, counted were {run.tokens}: {run.counted}")
        cost = usage.get("cost")
        if cost is not None and Decimal(cost["amount"]) != run.cost:
            self.faults.append(f"{what}: it is told a cost of {cost}, and was {run.cost}")
        self.tally["told costs"] += cost is not None
        if len(run.counted) == len(run.turns):
            self.tally["whole"] += 1
        elif reason in ("spend", "tokens_per_minute"):
            self.tally["ended at a limit"] += 1
        else:
            self.faults.append(f"{what}: it ends early: {str(end)[-600:]}")

    async def _judge_limits(self, key: Key) -> None:
        """Compares what is left of a key's limits with what its runs have used. One more run asks the store anew."""
        if key.spend is None and key.tokens is None:
            return
        run = replace(run_of(self._random, f"last of {key.name}"), key=key)
        connection = await Connection.open(self._host)  # one connection is of one worker
        asked = time.monotonic()
        headers = await self._make(run, connection)
        if run.counted:
            asked = time.monotonic()
            reply = await connection.ask("GET", "/v1/models", None, {"authorization": f"Bearer {key.secret}"})
            await reply.rest()
            headers = {**reply.headers}
        answered = time.monotonic()
        connection.close()
        mine = [each for each in self._runs.values() if each.key == key and each.counted]
        if key.spend is not None and not any(each.is_cut for each in mine):
            left = max(Decimal(0), Decimal(key.spend) - sum((each.cost for each in mine), Decimal(0)))
            if Decimal(headers["x-gai-spend-remaining"]) != left:
                self.faults.append(f"{key.name}: {headers['x-gai-spend-remaining']} of its spend is left, not {left}")
        if key.tokens is not None and not any(each.is_cut for each in mine):
            minute = Minute(key.tokens, mine)
            told = headers["x-ratelimit-reset-tokens"]
            if not minute.has(_seconds(told), asked, answered):
                self.faults.append(f"{key.name}: its tokens count for {told}, not {minute.told(asked, answered)}")

    async def _judge_spend(self) -> None:
        await asyncio.sleep(REPORTED)
        connection = await Connection.open(self._host)
        headers = {"authorization": f"Bearer {Key(_ADMIN).secret}"}
        reply = await connection.ask("GET", "/admin/v1/spend?by=key", None, headers)
        rows = json.loads(await reply.rest(), parse_float=Decimal)["data"]
        connection.close()
        report = {row["key"]: Decimal(row["amount"]) for row in rows}
        least: dict[str, Decimal] = {}
        most: dict[str, Decimal] = {}
        none = Decimal(0)
        for run in self._runs.values():
            if run.counted:
                name, last = run.key.name, _cost(*run.counted[-1]) if run.is_cut else none
                most[name] = most.get(name, none) + run.cost
                least[name] = least.get(name, none) + run.cost - last
        for name in sorted({*report, *most}):
            bounds = least.get(name, none), most.get(name, none)
            if not bounds[0] <= report.get(name, none - 1) <= bounds[1]:
                self.faults.append(f"{name}: the report has {report.get(name)}, counted were {bounds}")
        print(f"  {', '.join(f'{name} {amount}' for name, amount in sorted(report.items()))}")


def _end_of(body: bytes) -> dict[str, Any]:
    """Returns the last `finish` of a stream; empty if it has none."""
    events = [json.loads(line[6:], parse_float=Decimal) for line in body.split(b"\n") if line.startswith(b"data: {")]
    return next((event for event in reversed(events) if event["type"] == "finish"), {})


def _seconds(text: str) -> float:
    found = _RESET.fullmatch(text)
    assert found is not None
    minutes, seconds, milliseconds = found.groups()
    return 60 * int(minutes or 0) + float(seconds or 0) + int(milliseconds or 0) / 1e3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the soak; returns the exit code."""
    parser = argparse.ArgumentParser(prog="spent-runs", description="Runs of several turns, and what they cost.")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how many (default: {RUNS})")
    parser.add_argument("--stores", default="memory,sqlite,redis", help="of which kind (default: all)")
    parser.add_argument("--seed", type=int, help="of everything random (default: a new one)")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes end with it
    return asyncio.run(_soak(options))


async def _soak(options: argparse.Namespace) -> int:
    stores, faults = options.stores.split(","), 0
    for number, store in enumerate(stores):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="gai-fast-spent-") as name:
            redis = RedisServer(Path(name)) if store == "redis" else None
            url = {"memory": "memory://", "sqlite": f"sqlite:///{name}/store.db"}.get(store, redis and redis.url)
            if redis is not None:
                redis.start()
            spent = Spent(Path(name), str(url), Random(f"{options.seed} {store}"))
            try:
                await spent.run(options.runs // len(stores) + (number < options.runs % len(stores)))
            finally:
                if redis is not None:
                    redis.kill()
        faults += len(spent.faults)
        text = f"{store}, seed {options.seed}: {time.monotonic() - began:.0f} s, {dict(sorted(spent.tally.items()))}"
        print(text, *spent.faults, sep="\n  ", flush=True)
    print(f"faults: {faults}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
