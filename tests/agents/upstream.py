"""An upstream that speaks five APIs, models a prompt cache, and lets an agent run one tool after the other.

A cache as the providers describe theirs: of a prompt, what an earlier request began with in the same bytes is cached.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from aiohttp import web

from programs.dialects import DIALECTS
from programs.script import Answer
from tests.agents.prompts import PROMPTS, Prompt, common_beginning

LARGEST_REQUEST: Final = 32 << 20
TOOLS: Final[Mapping[str, str]] = {"Bash": "command", "exec_command": "cmd", "shell_command": "command"}
"""The tools with which agents run a command, and the argument that has it."""
SEARCH: Final = "ToolSearch"
USED: Final = "mcp__notes__read_note"
"""The tool of an MCP server that the agent has to find."""


@dataclass
class Asked:
    """One request of the agent's conversation.

    Args:
        prompt: Its prompt.
        cached: The characters of it that an earlier request began with.
    """

    prompt: Prompt
    cached: int

    @property
    def share(self) -> float:
        """The part of the prompt that was cached."""
        return self.cached / len(self.prompt.text)


@dataclass
class CachingUpstream:
    """A running upstream; to be entered.

    Args:
        rounds: How often the agent runs a tool, for the first prompt of the user.
        later: How often for each later prompt.
        finds: Whether the agent has to find a tool first, in its first round.
    """

    rounds: int
    later: int = 0
    finds: bool = False
    _has_ended: bool = False
    asked: list[Asked] = field(default_factory=list)
    """The requests of the agent's conversation, in order."""
    others: list[Any] = field(default_factory=list)
    """Requests beside it: for titles, and to see whether there is an upstream."""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> CachingUpstream:
        app = web.Application(client_max_size=LARGEST_REQUEST)
        for name, dialect in DIALECTS.items():
            app.router.add_post(dialect.path, partial(self._answer, name, dialect.frames))
        app.router.add_post("/v1beta/models/{model}", partial(self._answer, "gemini", _gemini_frames))
        app.router.add_post("/api/chat", partial(self._answer, "ollama", _ollama_frames))
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *problem: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _answer(
        self, name: str, frames: Callable[[Answer, Any, int], list[bytes]], http: web.Request
    ) -> web.StreamResponse:
        body = await http.json()
        prompt = PROMPTS[name](body)
        number = len(self.asked) + len(self.others)
        if TOOLS.keys().isdisjoint(prompt.names):
            self.others.append(body)
            answer = Answer("A title")
        else:
            cached = max([common_beginning(prompt.text, each.prompt.text) for each in self.asked], default=0)
            self.asked.append(Asked(prompt, cached))
            answer = self._next(prompt)
        body.setdefault("model", "m")
        kind = "application/x-ndjson" if name == "ollama" else "text/event-stream"
        response = web.StreamResponse(headers={"content-type": kind})
        await response.prepare(http)
        with suppress(ConnectionError):  # some clients leave at the end mark
            for frame in frames(answer, body, number):
                await response.write(frame)
            await response.write_eof()
        return response

    def _next(self, prompt: Prompt) -> Answer:
        """The next step of the agent: a tool, until it has run often enough; then a text."""
        rounds = self.later if self._has_ended else self.rounds
        if prompt.results >= rounds:
            self._has_ended = True
            return Answer(f"Done after {rounds} steps.")
        if self.finds and SEARCH in prompt.names and USED not in prompt.names:
            return Answer(tool=SEARCH, arguments={"query": f"select:{USED}", "max_results": 5})
        if self.finds and prompt.results % 2:
            return Answer(tool=USED, arguments={"number": prompt.results})
        tool = next(name for name in TOOLS if name in prompt.names)
        return Answer(tool=tool, arguments={TOOLS[tool]: f"echo step {prompt.results}"})


def _gemini_frames(answer: Answer, body: Any, number: int) -> list[bytes]:
    call = {"functionCall": {"name": answer.tool, "args": answer.arguments}}
    part = call if answer.tool else {"text": answer.text}
    usage = {"promptTokenCount": 21, "candidatesTokenCount": 13, "totalTokenCount": 34}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    chunk = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": f"r{number}"}
    return [f"data: {json.dumps(chunk)}\r\n\r\n".encode()]


def _ollama_frames(answer: Answer, body: Any, number: int) -> list[bytes]:
    head = {"model": "m", "created_at": "2026-11-01T00:00:00Z"}
    call = {"id": f"call_{number}", "function": {"index": 0, "name": answer.tool, "arguments": answer.arguments}}
    message = {"role": "assistant", "content": answer.text, **({"tool_calls": [call]} if answer.tool else {})}
    end = {"role": "assistant", "content": ""}
    counts = {"done_reason": "stop", "prompt_eval_count": 21, "eval_count": 13}
    lines = [{**head, "message": message, "done": False}, {**head, "message": end, "done": True, **counts}]
    return [f"{json.dumps(line)}\n".encode() for line in lines]
