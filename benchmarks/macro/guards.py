"""`python -m benchmarks.macro.guards [--rounds N] [KEY]…`: what guards cost, beside the same streams without.

* `bursts`: answers of 100 deltas that come at once, with 1,000 patterns and 10,000 words, with all kinds of personal
  data, and with own words that come back; beside them `[[processor]] use = "transform"` with one word. CPU time of the
  gateway by answer; gateways take turns, a ratio is one within a turn.
* `first`: the time to the first text of an answer whose deltas are 10 ms apart, with those lists and without; the
  median of the differences of pairs.
* `judge`: the delay of each token, 40 of 4 characters a second, with a judge that needs 300 ms and may be 200
  characters late, beside the same stream without, at the same time.
* `search`: in this process: text that no state has seen beside the same text again, and the time to build those lists
  beside `re.compile` of each entry.
* `stalls`: the longest time in which a loop with those lists does nothing else, while requests of 256 KiB come, and
  while it takes another configuration (SIGHUP).
* `memory`: what the stage of a stream keeps that holds nothing.

Figures are medians of rounds. Exit code 1: an answer was wrong, or a figure is beyond its bound.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

from benchmarks.contenders import EVENTS, Route
from benchmarks.macro.environments import tool
from benchmarks.macro.measuring import assigned, request_bytes
from benchmarks.macro.running import Fault, Process, cores, free_port
from benchmarks.macro.scene import Row, argument_parser, measure, reported
from benchmarks.macro.scene import Scene as Processes

ROUNDS: Final = 5
BURST: Final = 100
CONNECTIONS: Final = 16
SECONDS: Final = 2.0
"""The length of one turn."""
PAIRS: Final = 100
PATTERNS: Final = 1_000
WORDS: Final = 10_000
KINDS: Final = ("email", "phone", "iban", "card", "ip", "ssn", "jwt", "api_key", "url_credentials")
QUERY: Final = "Write to anna@example.com about the lighthouse."
ASKED: Final = Route(EVENTS.path, {"model": "bench", "query": QUERY}, EVENTS.key, EVENTS.end)
TOKEN_SECONDS: Final = 0.025
TOKENS: Final = 200
VERDICT_SECONDS: Final = 0.3
EXPOSURE: Final = 200
LARGE: Final = 256 * 1024
STREAMS: Final = 500

MOST: Final = {
    "lists": 1.5,
    "pii": 1.5,
    "restore": 1.2,
    "first": 0.3,
    "judge": 5.0,
    "unseen": 40.0,
    "build": 2.0,
    "stall": 100.0,
    "memory": 8.0,
}
"""The bound of each figure: ratios, but for `first`, `judge` and `stall` in milliseconds, and `memory` in KiB."""

CONFIG: Final = """\
[server]
demo = false

[limits]
streams_per_caller = 10000

[[upstream]]
name = "bench"
provider = "openai"
base_url = "http://127.0.0.1:{provider}/v1"
max_connections = 10000

[[model]]
name = "bench"
upstream = "bench"
"""
TRANSFORM: Final = '[[processor]]\nuse = "transform"\nreplace = {harbour = "haven"}\n'
LISTS: Final = """\
[[guard]]
name = "patterns"
use = "patterns"
patterns_file = "patterns.txt"

[[guard]]
name = "words"
use = "words"
words_file = "words.txt"
"""
PII: Final = f'[[guard]]\nname = "people"\nuse = "pii"\nkinds = {json.dumps(KINDS)}\n'
RESTORE: Final = f'{PII}on = ["input"]\nrestore = true\n'
JUDGED: Final = """\
[[guard]]
name = "policy"
use = "http"
on = ["output"]
url = "http://127.0.0.1:{judge}/check"
max_exposure = {exposure}
"""


def patterns(random: Random) -> list[str]:
    """Returns patterns as lists of secrets have them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [f"{''.join(random.choices(letters, k=5))}{at:03}-[A-Za-z0-9]{{16,40}}" for at in range(PATTERNS)]


def words(random: Random) -> list[str]:
    """Returns words that no answer has."""
    return sorted({"".join(random.choices("bcdfghjklmnpqrstvwxz", k=random.randint(5, 9))) for _ in range(WORDS)})


def beginnings(random: Random, size: int, share: float = 1.0) -> str:
    """Returns a text of the beginnings of words and patterns, which needs many states.

    Args:
        random: Chooses them.
        size: The least length of the text.
        share: How much of the lists is used.
    """
    entries: list[str] = []
    for each in (words(Random(2)), [each.partition("[")[0] for each in patterns(Random(1))]):
        entries += each[: int(len(each) * share)]
    found: list[str] = []
    while size > 0:
        entry = random.choice(entries)
        found.append(entry[: random.randint(1, len(entry) - 1)] + " ")
        size -= len(found[-1])
    return "".join(found)


class Scene(Processes):
    """The processes of one scenario. Arguments as for `Processes`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack)
        (folder / "patterns.txt").write_text("\n".join(patterns(Random(1))))
        (folder / "words.txt").write_text("\n".join(words(Random(2))))

    def provider(self, interval_us: int = 0) -> int:
        """Starts a provider; returns its port."""
        port = free_port()
        options = {"port": port, "words": self.words, "interval_us": interval_us, "events": BURST}
        self.start(f"provider {port}", [tool("upstream"), *assigned(options)], port)
        return port

    def serve(self, name: str, provider: int, more: str) -> tuple[Process, int]:
        """Starts a gateway with more configuration; returns it and its port."""
        return self.gateway(name, CONFIG.format(provider=provider) + more)


# ---- clients ---------------------------------------------------------------------------------------------------------


class Client:
    """A connection that asks for one answer after the other."""

    def __init__(self, port: int, route: Route = ASKED) -> None:
        self._port = port
        self._request = request_bytes(route, port)

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)

    async def ask(self, arrivals: list[tuple[str, float]] | None = None) -> str:
        """Returns the text of an answer.

        Args:
            arrivals: Gets each piece of it, and when it came.
        """
        began = time.perf_counter()
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise Fault(f"WRONG: {head!r}")
        found: list[str] = []
        kept = b""
        while size := int(await self._reader.readline(), 16):
            data = kept + (await self._reader.readexactly(size + 2))[:-2]
            *frames, kept = data.split(b"\n\n")
            for frame in frames:
                if b'"type":"text.delta"' in frame:
                    text = json.loads(frame.partition(b"data: ")[2])["text"]
                    found.append(text)
                    if arrivals is not None:
                        arrivals.append((text, time.perf_counter() - began))
        await self._reader.readline()
        return "".join(found)

    def close(self) -> None:
        self._writer.close()


def _unstamped(text: str) -> str:
    """Returns a text without the stamps of the provider."""
    return re.sub("[0-9]+", "", text)


async def _load(port: int, text: str, seconds: float) -> int:
    """Asks on several connections; returns the number of answers.

    Raises:
        Fault: An answer has another text.
    """
    until = time.monotonic() + seconds

    async def go_on() -> int:
        client, count = Client(port), 0
        await client.open()
        while time.monotonic() < until:
            if _unstamped(await client.ask()) != text:
                raise Fault("WRONG: an answer with another text")
            count += 1
        client.close()
        return count

    return sum(await asyncio.gather(*[go_on() for _ in range(CONNECTIONS)]))


async def _one(port: int, arrivals: list[tuple[str, float]] | None = None) -> str:
    client = Client(port)
    await client.open()
    text = await client.ask(arrivals)
    client.close()
    return text


# ---- scenarios -------------------------------------------------------------------------------------------------------


def bursts(scene: Scene, rounds: int) -> list[Row]:
    """Measures the CPU time of an answer."""
    provider = scene.provider()
    more = {"none": "", "transform": TRANSFORM, "lists": LISTS, "pii": PII, "restore": RESTORE}
    gateways = {name: scene.serve(name, provider, text) for name, text in more.items()}
    text = _unstamped(asyncio.run(_one(gateways["none"][1])))

    def turn(name: str, seconds: float = SECONDS) -> float:
        process, port = gateways[name]
        before = process.cpu_seconds
        count = asyncio.run(_load(port, text, seconds))
        return (process.cpu_seconds - before) / count * 1e6

    for name in gateways:
        turn(name, SECONDS / 2)
    turns = [{name: turn(name) for name in gateways} for _ in range(rounds)]
    rows: list[Row] = [("stream", "µs an answer", "ratio to transform", "bound")]
    ratios = {name: median(each[name] / each["transform"] for each in turns) for name in gateways}
    for name, ratio in ratios.items():
        bound = f"<= {MOST[name]}" if name in MOST else ""
        rows.append((name, f"{median(each[name] for each in turns):.0f}", f"{ratio:.2f}", bound))
    return reported(rows, {name: ratio for name, ratio in ratios.items() if name in MOST}, MOST)


def first(scene: Scene, rounds: int) -> list[Row]:
    """Measures the time to the first text."""
    provider = scene.provider(10_000)
    ports = [scene.serve(name, provider, more)[1] for name, more in (("none", ""), ("guarded", LISTS + PII))]

    async def pairs() -> list[list[float]]:
        clients = [Client(port) for port in ports]
        for client in clients:
            await client.open()
        found: list[list[float]] = []
        for number in range(PAIRS // 5 * rounds):
            times = [0.0, 0.0]
            for at in (0, 1) if number % 2 else (1, 0):
                arrivals: list[tuple[str, float]] = []
                await clients[at].ask(arrivals)
                times[at] = arrivals[0][1] * 1e3
            found.append(times)
        return found[2:]

    found = asyncio.run(pairs())
    difference = median(guarded - none for none, guarded in found)
    rows: list[Row] = [("first text", "ms"), ("none", f"{median(each[0] for each in found):.2f}")]
    rows.append(("guarded", f"{median(each[1] for each in found):.2f}"))
    rows.append(("difference", f"{difference:.2f} (<= {MOST['first']})"))
    return reported(rows, {"first": difference}, MOST)


def judge(scene: Scene, rounds: int) -> list[Row]:
    """Measures the delay of tokens."""
    slow = SlowServers()
    slow.start()
    more = JUDGED.format(judge=slow.judge, exposure=EXPOSURE)
    ports = [scene.serve(name, slow.provider, more if name == "judged" else "")[1] for name in ("none", "judged")]

    async def both() -> list[list[float]]:
        arrivals: list[list[tuple[str, float]]] = [[], []]
        await asyncio.gather(*[_one(port, into) for port, into in zip(ports, arrivals, strict=True)])
        return [_times(each) for each in arrivals]

    delays: list[float] = []
    for _ in range(rounds):
        none, judged = asyncio.run(both())
        delays += [(late - early) * 1e3 for early, late in zip(none, judged, strict=True)]
    delays.sort()
    rows: list[Row] = [("tokens", "median ms later", "p99", "bound")]
    middle = median(delays)
    rows.append((len(delays), f"{middle:.2f}", f"{delays[len(delays) * 99 // 100]:.2f}", f"<= {MOST['judge']:g}"))
    if not slow.judged:
        raise Fault("WRONG: the judge was not asked")
    return reported(rows, {"judge": middle}, MOST)


def _times(arrivals: Sequence[tuple[str, float]]) -> list[float]:
    """Returns when each character had come."""
    return [at for text, at in arrivals for _ in text]


def search(scene: Scene, rounds: int) -> list[Row]:
    """Measures the search and the building of its lists, in this process."""
    from gai_fast.guards.automaton import Automaton, compile_rules
    from gai_fast.guards.limits import LIMITS
    from gai_fast.guards.program import Rule, Words
    from gai_fast.guards.waits import read_pattern

    def build() -> list[Automaton]:
        rules = [Rule("p", read_pattern(each)) for each in patterns(Random(1))]
        return [compile_rules(rules), compile_rules([Words("w", words(Random(2)))])]

    def search_all(automata: list[Automaton], text: str) -> float:
        before = time.process_time()
        for each in automata:
            scan = each.scan()
            for at in range(0, len(text), 4):
                scan.feed(text[at : at + 4])
            scan.end()
        return time.process_time() - before

    unseen: list[float] = []
    built: list[float] = []
    states = 0
    for number in range(rounds):
        before = time.process_time()
        automata = build()
        middle = time.process_time()
        for each in [*patterns(Random(1)), *[rf"\b{word}\b" for word in words(Random(2))]]:
            re.compile(each)
            re.purge()
        built.append((middle - before) / (time.process_time() - middle))
        text = beginnings(Random(number), 40_000)
        new = search_all(automata, text)
        unseen.append(new / search_all(automata, text))
        states = max(states, *[each.state_count for each in automata])
    rows: list[Row] = [("search", "ratio", "bound")]
    rows.append(("unseen to known", f"{median(unseen):.1f}", f"<= {MOST['unseen']:g}"))
    rows.append(("build to re.compile", f"{median(built):.2f}", f"<= {MOST['build']:g}"))
    rows.append(("states", states, f"<= {LIMITS.states}"))
    if states > LIMITS.states:
        raise Fault("more states than their bound")
    return reported(rows, {"unseen": median(unseen), "build": median(built)}, MOST)


def stalls(scene: Scene, rounds: int) -> list[Row]:
    """Measures how long a loop does nothing else."""
    provider = scene.provider()
    config, seen, port = scene.folder / "stalls.toml", scene.folder / "turns", free_port()
    config.write_text(CONFIG.format(provider=provider) + LISTS + PII)
    command = [sys.executable, "-m", "benchmarks.macro.probed", str(seen), "serve", "-c", str(config)]
    process = scene.start("probed", [*command, "--port", str(port)], port, relay=True)
    large = Route(EVENTS.path, {"model": "bench", "query": _prose(LARGE)}, EVENTS.key, EVENTS.end)

    async def ask(route: Route) -> None:
        client = Client(port, route)
        await client.open()
        await client.ask()
        client.close()

    def longest() -> float:
        time.sleep(2.2)
        found = max([float(line.split()[0]) for line in seen.read_text().splitlines()], default=0.0)
        seen.write_text("")
        return found

    asyncio.run(ask(ASKED))
    longest()
    inputs: list[float] = []
    reloads: list[float] = []
    for number in range(rounds):
        asyncio.run(ask(large))
        inputs.append(longest())
        (scene.folder / "words.txt").write_text("\n".join(words(Random(number + 10))))
        process.signal(signal.SIGHUP)
        time.sleep(2)
        reloads.append(longest())
    rows: list[Row] = [
        ("stall", "median ms", "most"),
        ("256 KiB of input", f"{median(inputs):.1f}", f"{max(inputs):.1f}"),
    ]
    rows.append(("a reload", f"{median(reloads):.1f}", f"{max(reloads):.1f}"))
    return reported(rows, {"stall": max(median(inputs), median(reloads))}, MOST)


def memory(scene: Scene, rounds: int) -> list[Row]:
    """Measures what a stage keeps."""
    kept = stage_memory(STREAMS) / 1024
    return reported([("KiB a stream", "bound"), (f"{kept:.1f}", f"<= {MOST['memory']:g}")], {"memory": kept}, MOST)


def stage_memory(streams: int) -> float:
    """Returns the bytes that the stage of a stream keeps that holds nothing, with lists and all kinds."""
    from gai_fast.core.processing.chain import Chain
    from gai_fast.core.processing.processor import StreamInfo
    from gai_fast.guards.active import ActiveGuard
    from gai_fast.guards.building import build
    from gai_fast.guards.stages.output import output_stage
    from gai_fast.model.events import Event
    from gai_fast.model.settings import GuardSettings
    from gai_fast.net.stream.guarding import GuardTallies

    settings = [
        GuardSettings("patterns", "patterns", patterns=tuple(patterns(Random(1))[:50])),
        GuardSettings("words", "words", words=tuple(words(Random(2))[:500])),
        GuardSettings("people", "pii", kinds=KINDS),
    ]
    guards = [ActiveGuard(each, build(each)) for each in settings]
    tallies = GuardTallies()
    texts = ["The ", "lighthouse ", "keeper ", "said: ", "“nobody.” "]

    def begin() -> Chain:
        stage = output_stage(guards, StreamInfo("s"), None, tallies)
        assert stage is not None
        chain = Chain([stage])
        for text in texts:
            event: Event = {"type": "text.delta", "text": text}
            for _ in chain.process(event):
                pass
        return chain

    begin()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    held = [begin() for _ in range(streams)]
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert not any(each.holds for each in held)
    return kept / streams


def _prose(size: int) -> str:
    random = Random(3)
    letters = "abcdefghijklmnopqrstuvwxyz"
    found: list[str] = []
    while size > 0:
        found.append("".join(random.choices(letters, k=random.randint(2, 9))))
        size -= len(found[-1]) + 1
    return " ".join(found)


class SlowServers(threading.Thread):
    """A provider whose tokens come evenly, and a judge that needs its time; in a thread of this process.

    Attributes:
        provider: The provider's port.
        judge: The judge's port.
        judged: The number of verdicts.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.provider, self.judge = free_port(), free_port()
        self.judged = 0
        self._is_ready = threading.Event()

    def start(self) -> None:
        """Returns when both listen."""
        super().start()
        self._is_ready.wait()

    def run(self) -> None:
        """Serves until the process ends."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        await asyncio.start_server(self._say, "127.0.0.1", self.provider)
        await asyncio.start_server(self._judge, "127.0.0.1", self.judge)
        self._is_ready.set()
        await asyncio.get_running_loop().create_future()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))

    async def _say(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(TOKENS):
            await asyncio.sleep(began + number * TOKEN_SECONDS - loop.time())
            writer.write(_frame({"content": f"{number % 1000:03} "}))
        writer.write(_frame({}, "stop") + b"data: [DONE]\n\n")
        writer.close()

    async def _judge(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n"
        try:
            while True:
                await self._read(reader)
                await asyncio.sleep(VERDICT_SECONDS)
                self.judged += 1
                writer.write(head + b'{"flagged":false}')
        except asyncio.IncompleteReadError:
            writer.close()


def _frame(delta: Any, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


def main() -> int:
    """Returns the exit code."""
    scenarios = {
        "bursts": bursts,
        "first": first,
        "judge": judge,
        "search": search,
        "stalls": stalls,
        "memory": memory,
    }
    parser = argument_parser("benchmarks.macro.guards", __doc__ or "", scenarios, ROUNDS)
    arguments = parser.parse_args()
    pair = cores()
    if pair is not None:
        os.sched_setaffinity(0, {pair[1]})
    return measure(parser, scenarios, Scene, arguments.keys, arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
