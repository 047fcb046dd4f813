"""The model of the soak: it answers by the plan of the run, and notes what it was asked."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any, Final

from tests.soak.kill_runs.plans import STEPS, Place, RunPlan, arguments_of, place_of

_WORDS: Final = 3


@dataclass
class Asked:
    """One request for a turn. Times are monotonic seconds.

    Attributes:
        step: The turn, from 1.
        came: When it came.
        ended: When the turn's end was about to be sent. None if it never was.
        results: The texts of the results that it had for each call.
    """

    step: int
    came: float
    ended: float | None = None
    results: dict[Place, list[str]] = field(default_factory=dict)


class PlannedModel:
    """An upstream of Chat Completions.

    Args:
        pause: Seconds between two deltas.

    Attributes:
        plans: The runs, by their tags.
        asked: The requests for each, in order.
        port: Where it listens.
    """

    def __init__(self, pause: float) -> None:
        self.plans: dict[str, RunPlan] = {}
        self.asked: dict[str, list[Asked]] = {}
        self.port = 0
        self._pause = pause
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            body = json.loads(await reader.readexactly(int(fields["content-length"])))
            await self._answer(writer, body["messages"])
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, messages: list[dict[str, Any]]) -> None:
        plan = self.plans[_text_of(messages[0])]
        step = 1 + sum(message["role"] == "assistant" for message in messages)
        asked = Asked(step, time.monotonic(), None, _results_in(messages))
        self.asked.setdefault(plan.tag, []).append(asked)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for word in range(_WORDS):
            await self._say(writer, {"content": _word(step, word)})
        for place in plan.of_step(step):
            function = {"name": plan.calls[place], "arguments": json.dumps(arguments_of(place))}
            call = {"index": place.at, "id": f"call_{step}_{place.at}", "type": "function", "function": function}
            await self._say(writer, {"tool_calls": [call]})
        asked.ended = time.monotonic()
        await self._say(writer, {}, "stop" if step >= STEPS else "tool_calls")
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    async def _say(self, writer: asyncio.StreamWriter, delta: dict[str, Any], reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        sent = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        writer.write(b"data: %b\n\n" % json.dumps(sent).encode())
        await writer.drain()
        if reason is None:
            await asyncio.sleep(self._pause)


def text_of_step(step: int) -> str:
    """Returns what the model says in a step."""
    return "".join(_word(step, word) for word in range(_WORDS))


def _word(step: int, word: int) -> str:
    return f"{step}.{word} "


def _text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return str(content if isinstance(content, str) else "".join(part["text"] for part in content))


def _results_in(messages: list[dict[str, Any]]) -> dict[Place, list[str]]:
    """Returns the texts of the results of each call."""
    places: dict[str, Place] = {}
    found: dict[Place, list[str]] = {}
    for message in messages:
        for call in message.get("tool_calls") or ():
            places[call["id"]] = place_of(json.loads(call["function"]["arguments"]))
        if message["role"] == "tool":
            found.setdefault(places[message["tool_call_id"]], []).append(_text_of(message))
    return found
