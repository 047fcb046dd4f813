"""`make kill-runs`: servers are killed amid runs, which others go on with, and no call of a tool is made twice.

    python -m tests.soak.kill_runs --runs 400 --seed 1

Runs of three turns call a tool that must not be called twice and one that may be. Their server is killed (SIGKILL) at a
random moment; a second one, which stays, goes on. The tools keep a journal.

The exit code is 1 if a call that is not idempotent was made twice; if its outcome is unknown though its server was not
killed within it; if a run that the store has lacks its end, or a result that its model was told; or if it differs when
it is followed again. With `batched` the store may not have a run whose server is killed at once: it is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, Final

from tests.integration.forked import ForkedProcess
from tests.integration.stores.servers import RedisServer
from tests.integration.stores.test_serve import frames, get
from tests.integration.test_cli import environment

PATIENCE: Final = 90.0
AT_ONCE: Final = 8
"""Runs for each server that is killed."""
SPAN: Final = 1.2
"""Seconds within which it is killed; the runs take about as long."""
TURNS: Final = 3
PAUSE: Final = 0.03
NEAR: Final = 0.3
"""Seconds before a kill in which a result that was sent may not have been stored yet."""
UNKNOWN: Final = "the outcome of this call is unknown"
_TOOL: Final = """\
[[tool]]
name = "{name}"
description = "A tool"
parameters = {{type = "object", properties = {{n = {{type = "integer"}}}}, required = ["n"]}}
url = "http://127.0.0.1:{port}/{name}"
idempotent = {idempotent}
"""
_CONFIGURATION: Final = """\
[server]
port = 0
[store]
url = "{url}"
sync = "{sync}"
[[upstream]]
name = "up"
provider = "openai-compatible"
base_url = "http://127.0.0.1:{port}/v1"
[[model]]
name = "m"
upstream = "up"
tools = ["*"]
"""


class Peers:
    """The model and the tools, on one port.

    Args:
        random: Of how long a call takes.
    """

    def __init__(self, random: Random) -> None:
        self.journal: dict[str, list[tuple[str, float, float]]] = {}
        """The calls of each key: the tool, and when it began and was answered; 0 if it was not."""
        self.port = 0
        self._random = random

    async def start(self) -> asyncio.Server:
        """Listens."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                if "messages" in body:
                    await self._answer(writer, body)
                else:
                    await self._call(writer, lines[0].split(" ")[1].strip("/"), fields["idempotency-key"])
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def _call(self, writer: asyncio.StreamWriter, tool: str, key: str) -> None:
        calls, began = self.journal.setdefault(key, []), time.monotonic()
        calls.append((tool, began, 0.0))
        at = len(calls) - 1
        await asyncio.sleep(self._random.random() * 4 * PAUSE)
        said = json.dumps({"key": key}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(said)
        calls[at] = tool, began, time.monotonic()
        writer.write(head + said)
        await writer.drain()

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for word in range(4):
            await self._say(writer, {"content": f"{turn}.{word} "})
        for at, name in enumerate(("pay", "look") if turn < TURNS else ()):
            function = {"name": name, "arguments": json.dumps({"n": turn})}
            call = {"index": at, "id": f"call_{turn}{at}", "type": "function", "function": function}
            await self._say(writer, {"tool_calls": [call]})
        await self._say(writer, {}, "stop" if turn == TURNS else "tool_calls")
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        writer.close()

    async def _say(self, writer: asyncio.StreamWriter, delta: dict[str, Any], reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        sent = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        writer.write(b"data: %b\n\n" % json.dumps(sent).encode())
        await writer.drain()
        await asyncio.sleep(PAUSE)


class KilledRuns:
    """Runs over one store.

    Args:
        folder: For all files.
        url: The store.
        sync: `[store] sync`.
        random: Of everything.
        tally: Counts.
    """

    def __init__(self, folder: Path, url: str, sync: str, random: Random, tally: Counter[str]) -> None:
        self.faults: list[str] = []
        self._folder, self._url, self._sync, self._random, self._tally = folder, url, sync, random, tally
        self._peers = Peers(random)
        self._judged: set[str] = set()  # the keys of former servers
        self._told: set[str] = set()  # the keys of results that clients have got

    async def run(self, runs: int) -> None:
        """Makes so many runs."""
        server = await self._peers.start()
        tools = [_TOOL.format(name=name, port=self._peers.port, idempotent=may) for name, may in _TOOLS]
        text = _CONFIGURATION.format(url=self._url, sync=self._sync, port=self._peers.port)
        (self._folder / "gai-fast.toml").write_text(text + "".join(tools))
        with (self._folder / "log").open("wb") as log:
            async with self._server(log.fileno()) as stays:
                host = await _address(stays)
                while runs > 0 and not self.faults:
                    await self._round(min(runs, AT_ONCE), host, log.fileno())
                    runs -= AT_ONCE
        said = (self._folder / "log").read_text(errors="replace")
        if "bug" in said or "Traceback" in said:
            self.faults.append(said[-3000:])
        server.close()

    def _server(self, log: int) -> ForkedProcess:
        return ForkedProcess(("serve",), self._folder, environment(), PATIENCE, log)

    async def _round(self, runs: int, host: str, log: int) -> None:
        async with self._server(log) as killed:
            own = await _address(killed)
            body = json.dumps({"model": "m", "query": "q"}).encode()
            answers = await asyncio.gather(*(get(own, "/api/v1/streams", body) for _ in range(runs)))
            await asyncio.sleep(self._random.random() * SPAN)
            killed.kill()
            at = time.monotonic()
            await killed.wait()
        names = [json.loads(answer.partition(b"\r\n\r\n")[2])["id"] for answer in answers]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(self._judge(host, name) for name in names))
        judged, self._judged = self._judged, {*self._peers.journal}
        for key in self._judged - judged:
            tool, _, answered = self._peers.journal[key][0]
            if tool == "pay" and 0 < answered < at - NEAR and key not in self._told:
                self.faults.append(f"{key} was paid {at - answered:.1f} s before the kill, and nobody was told")

    async def _judge(self, host: str, name: str) -> None:
        self._tally["runs"] += 1
        answer = await get(host, f"/api/v1/streams/{name}")
        if b" 404 " in answer[:20]:
            self._tally["never stored"] += 1
            return
        events = [event for _, event in frames(answer)]
        if frames(await get(host, f"/api/v1/streams/{name}")) != frames(answer):
            self.faults.append(f"{name}: it differs when it is followed again")
        kinds = Counter(event["type"] for event in events)
        self._tally["taken over"] += bool(kinds["stream.gap"])
        self._tally["turns that were void"] += kinds["step.reset"]
        if not events or kinds["finish"] != 1 or events[-2]["finish_reason"] != "stop":
            self.faults.append(f"{name}: {[event for event in events if event['type'] in ('error', 'finish')]}")
            return
        for event in events:
            if event["type"] == "tool.result" and event["call_id"].endswith("0"):
                self._judge_call(name, event)

    def _judge_call(self, name: str, event: dict[str, Any]) -> None:
        result = event["tool_result"]
        if event.get("is_error"):
            self._tally["unknown"] += result == UNKNOWN
            if result != UNKNOWN:
                self.faults.append(f"{name}: {result}")
            return
        self._tally["paid"] += 1
        self._told.add(result["key"])
        if len(self._peers.journal[result["key"]]) != 1:
            self.faults.append(f"{name}: {result} was paid {self._peers.journal[result['key']]}")

    def judge_journal(self) -> None:
        """Looks for calls that were made twice."""
        for key, calls in self._peers.journal.items():
            if calls[0][0] == "pay" and len(calls) > 1:
                self.faults.append(f"{key} was paid {len(calls)} times")
            elif len(calls) > 1:
                self._tally["looked again"] += 1


_TOOLS: Final = (("pay", "false"), ("look", "true"))


async def _address(process: ForkedProcess) -> str:
    async with asyncio.timeout(PATIENCE):
        shown = (await process.stdout.readuntil(b"\nmodels: ")).decode()
    return shown.splitlines()[0].rpartition(" ")[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the soak; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kill-runs", description="Servers are killed amid runs.")
    parser.add_argument("--runs", type=int, default=400, help="how many (default: 400)")
    parser.add_argument("--stores", default="sqlite,redis", help="of which kind (default: both)")
    parser.add_argument("--sync", default="before_send,batched", help="`[store] sync` (default: both)")
    parser.add_argument("--seed", type=int, help="of everything random (default: a new one)")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = SystemRandom().randrange(1_000_000)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its servers end with it
    return asyncio.run(_soak(options))


async def _soak(options: argparse.Namespace) -> int:
    cases = [(store, sync) for store in options.stores.split(",") for sync in options.sync.split(",")]
    random, faults = Random(options.seed), 0
    for store, sync in cases:
        began, tally = time.monotonic(), Counter[str]()
        with tempfile.TemporaryDirectory(prefix="gai-fast-runs-") as name:
            redis = RedisServer(Path(name)) if store == "redis" else None
            if redis is not None:
                redis.start()
            url = f"sqlite:///{name}/store.db" if redis is None else redis.url
            runs = KilledRuns(Path(name), url, sync, random, tally)
            try:
                await runs.run(options.runs // len(cases))
            finally:
                if redis is not None:
                    redis.kill()
        runs.judge_journal()
        faults += len(runs.faults)
        text = f"{store}, {sync}, seed {options.seed}: {time.monotonic() - began:.0f} s, {dict(sorted(tally.items()))}"
        print(text, *runs.faults[:10], sep="\n  ", flush=True)
    print(f"faults: {faults}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
