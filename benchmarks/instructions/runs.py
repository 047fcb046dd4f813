"""Counts what tools of the gateway cost: streams beside a file that has them, and the texts of runs.

1. Streams without tools are counted on a server whose file has a tool server, a tool and a model that may use them,
   and on one whose file has none.
2. An event of the text of a run, and of one that is resumable, is counted beside that of a resumable stream in the same
   format, on one server. What is resumable has a log in the format `gai`, which its client follows.
3. What lies between a tool's result and the request of the next turn is counted beside what lies between a client's
   request and that of its upstream, of the same run and of a stream without tools.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.instructions.bounds import Ratio
from benchmarks.instructions.path import (
    BODY_END,
    CHAT,
    FEW,
    MANY,
    MESSAGES,
    NATIVE,
    RESPONSES,
    UPSTREAMS,
    WARM_UP,
    Case,
    Server,
    Upstream,
    answer_of,
    at_once,
    one_by_one,
)

PROVIDER: Final = "openai-compatible"
TOOLED: Final = "tooled"
"""The model that may use tools."""
UNCHANGED: Final = 1.005
"""What a stream without tools may cost on a server that has tools, divided by what it costs on one that has none."""
MOST: Final = 1.1
"""What an event of a run's text may cost, divided by one of a resumable stream."""
TURN: Final = 1.3
"""What lies before the next turn may cost, divided by what lies before the first one of the same run: between them the
call is logged and counted, its events are sent, and the conversation is written."""
TURN_TO_STREAM: Final = 4.0
"""The same, divided by what lies before the only turn of a stream without tools, whose request is its text alone."""
ANSWERED: Final = 12
"""As in `path.py`."""
FORMATS: Final = ("gai", "openai", "responses", "vercel")
WITHOUT: Final = {
    "request, 100 deltas passed through": Case(PROVIDER, CHAT),
    "event that comes alone": Case(PROVIDER, NATIVE, is_alone=True),
    "request, 100 deltas at once": Case(PROVIDER, NATIVE),
    "request, 100 deltas as Messages": Case(PROVIDER, MESSAGES),
    "request, 100 deltas as Responses": Case(PROVIDER, RESPONSES),
    "request, 100 deltas, durable": Case(PROVIDER, NATIVE, resumable=True),
    "event that comes alone, durable": Case(PROVIDER, NATIVE, resumable=True, is_alone=True),
}
"""Streams without tools."""
FEW_OF: Final = 1
"""Streams and formats that are counted in the tests."""
SETTLING: Final = 0.1
"""Seconds until the server has nothing left to do."""
PARTS: Final = ("without", "texts", "turns")
"""What is counted apart."""
_TOOLS: Final = """\
[[tool_server]]
name = "docs"
url = "http://127.0.0.1:9/mcp"

[[tool]]
name = "weather"
description = "The weather of a city"
parameters = {type = "object", properties = {city = {type = "string"}}, required = ["city"]}
url = "URL/weather"
idempotent = true

[[model]]
name = "tooled"
upstream = "openai-compatible"
tools = ["weather"]
"""
_TOKEN: Final = b" tok"
_STEP: Final = b'"step.start"'
_CALL: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1775237394,"model":"m","choices":[{"index":0,'
    b'"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"weather",'
    b'"arguments":"{\\"city\\":\\"Oslo\\"}"}}]},"finish_reason":null}]}\n\n'
)
_RESULT: Final = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"celsius":4}'


def _calling() -> bytes:
    """Returns a turn that says a word and calls the tool."""
    chat = UPSTREAMS[PROVIDER]
    end = chat.closing("").replace(b'"finish_reason":"stop"', b'"finish_reason":"tool_calls"')
    return answer_of(Upstream(chat.opening, chat.delta, lambda text: _CALL + end), 1)[0]


_CALLING: Final = _calling()


def measure_runs(folder: Path, parts: Sequence[str] = (), *, few: bool = False) -> dict[str, Ratio]:
    """Returns the instructions of each pair.

    Args:
        folder: An empty folder.
        parts: Which of `PARTS` are counted; empty for all.
        few: Whether only the first streams and formats are counted.

    Raises:
        RuntimeError: As `measure_path`.
    """
    some = FEW_OF if few else None
    counts = {
        "without": partial(_measure_without, list(WITHOUT)[:some]),
        "texts": partial(_measure_texts, FORMATS[:some]),
        "turns": _measure_turns,
    }
    found: dict[str, Ratio] = {}
    for part in parts or PARTS:
        (folder / part).mkdir()
        found |= counts[part](folder / part)
    return found


def _measure_without(names: Sequence[str], folder: Path) -> dict[str, Ratio]:
    beside, without = (_costs(names, folder / each, has_tools=each == "tools") for each in ("tools", "none"))
    return {f"{name}, beside tools": Ratio(beside[name], without[name], UNCHANGED) for name in names}


def _costs(names: Sequence[str], folder: Path, *, has_tools: bool) -> dict[str, float]:
    """Returns the instructions of streams without tools."""
    folder.mkdir()
    found: dict[str, float] = {}
    with ExitStack() as stack:
        server = _Server(stack, folder, has_tools=has_tools)
        for name in names:
            case = WITHOUT[name]
            if case.is_alone:
                few, many = (server.cost_of_events(case, one_by_one(PROVIDER, number)) for number in (FEW, MANY))
                found[name] = (many - few) / (MANY - FEW)
            else:
                found[name] = server.cost(case, at_once(PROVIDER))
    return found


def _measure_turns(folder: Path) -> dict[str, Ratio]:
    with ExitStack() as stack:
        return _Server(stack, folder).turns()


def _measure_texts(formats: Sequence[str], folder: Path) -> dict[str, Ratio]:
    with ExitStack() as stack:
        server = _Server(stack, folder)
        found: dict[str, Ratio] = {}
        for name in formats:
            stream = server.cost_of_an_event(name, {"model": PROVIDER, "resumable": True})
            for what, asked in (("a run's text", {}), ("a resumable run's text", {"resumable": True})):
                run = server.cost_of_an_event(name, {"model": TOOLED, **asked})
                found[f"an event of {what}, {name}"] = Ratio(run, stream, MOST)
        return found


class _Server(Server):
    """A server that is asked for runs and for resumable streams.

    Args:
        stack: As for `Server`.
        folder: As for `Server`.
        has_tools: Whether its file has tools.
    """

    def __init__(self, stack: ExitStack, folder: Path, *, has_tools: bool = True) -> None:
        self._has_tools = has_tools
        super().__init__(stack, folder, {PROVIDER})

    def _configuration(self, providers: set[str]) -> str:
        tools = _TOOLS.replace("URL", self.upstream_url) if self._has_tools else ""
        return super()._configuration(providers) + tools

    def turns(self) -> dict[str, Ratio]:
        """Returns the instructions before a run's second turn, beside those before a first one."""
        counts: dict[str, list[float]] = {"stream": [], "run": [], "next": []}
        with self.connected() as client:
            for number in range(WARM_UP + ANSWERED):
                if number == WARM_UP:
                    self.begin()
                is_counted = number >= WARM_UP
                counts["stream"] += self._asked(client, PROVIDER, is_counted=is_counted)
                first, second = self._asked(client, TOOLED, is_counted=is_counted) or (0, 0)
                counts["run"].append(first)
                counts["next"].append(second)
        stream, run, following = (min(filter(None, each)) for each in counts.values())
        return {
            "from a tool's result to the next request, to a run's first": Ratio(following, run, TURN),
            "from a tool's result to the next request, to a stream's": Ratio(following, stream, TURN_TO_STREAM),
        }

    def _asked(self, client: socket.socket, model: str, *, is_counted: bool) -> list[float]:
        """Returns the instructions before each turn of a stream; empty if they are not counted."""
        data = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = f"POST {NATIVE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        said = f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
        asking, found = client, []
        for turn in (_CALLING, at_once(PROVIDER)[0]) if model == TOOLED else at_once(PROVIDER):
            if is_counted:
                self._settled()
            asking.sendall(said)
            upstream = self.asked_upstream(client)
            if is_counted:
                found.append(self._settled())
            upstream.sendall(turn)
            if turn is _CALLING:
                asking, said = self.asked_upstream(client), _RESULT
        answer = b""
        while not answer.endswith(BODY_END):
            answer += self.receive(client)
        if (b'"tool.result"' in answer) is not (model == TOOLED) or b'"finish_reason":"stop"' not in answer:
            raise RuntimeError(f"the answer is not what it must be:\n{answer[:2000].decode(errors='replace')}")
        return found

    def _settled(self) -> float:
        """Returns the instructions since the last call, when the server has nothing left to do."""
        time.sleep(SETTLING)
        return self.counted().without_libc

    def cost_of_an_event(self, name: str, asked: dict[str, Any]) -> float:
        """Returns the instructions of an event that is the only one of its read.

        Args:
            name: The format.
            asked: What is asked for.
        """
        few, many = (self._cost_of_events(name, asked, one_by_one(PROVIDER, number)) for number in (FEW, MANY))
        return (many - few) / (MANY - FEW)

    def _cost_of_events(self, name: str, asked: dict[str, Any], pieces: Sequence[bytes]) -> int:
        for _ in range(WARM_UP):
            self._answer(name, asked, pieces)
        self.begin()
        counts = []
        for _ in range(ANSWERED):
            found: list[int] = []
            self._answer(name, asked, pieces, lambda found=found: found.append(self.counted().without_libc))
            counts.append(found[1])
        return min(counts)

    def _answer(
        self, name: str, asked: dict[str, Any], pieces: Sequence[bytes], mark: Callable[[], None] | None = None
    ) -> None:
        """One exchange; `mark` as for `ask`."""
        data = json.dumps({**asked, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = f"POST {NATIVE}?format={name} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        with self.connected() as client:
            answer = self.exchange(client, head.encode() + data, pieces, mark, delta=_TOKEN, before=1)
        is_well = answer.startswith(b"HTTP/1.1 200 ") and answer.count(_TOKEN) >= len(pieces) - 2
        if not is_well or (name == "gai" and (_STEP in answer) is not (asked["model"] == TOOLED)):
            raise RuntimeError(f"the answer is not what it must be:\n{answer[:2000].decode(errors='replace')}")
