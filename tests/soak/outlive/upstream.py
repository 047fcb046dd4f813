"""The upstream of the soak: answers of numbered words, which it repeats or goes on with, and what it was asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

from aiohttp import web

LONGEST: Final = 9
"""The most characters of a delta: words are cut anywhere."""


class Asked:
    """One request for an answer, and what the upstream counts for it.

    Args:
        server: The number of the server that has asked.
        prompt: The characters of what the client wrote.
        prefill: Those of the answer that it goes on with.

    Attributes:
        began: When it came, in monotonic seconds, as all times.
        sent: The characters of the answer that had been sent, and when.
        finished: When the end was sent. None before.
    """

    def __init__(self, server: int, prompt: int, prefill: int) -> None:
        self.server = server
        self.prompt = prompt
        self.prefill = prefill
        self.began = time.monotonic()
        self.sent: list[tuple[float, int]] = []
        self.finished: float | None = None

    @property
    def characters(self) -> int:
        """The characters that were sent."""
        return self.sent[-1][1] if self.sent else 0

    @property
    def usage(self) -> tuple[int, int]:
        """The tokens of its input and its output, as this upstream counts them."""
        return 1000 + self.prompt + self.prefill, 3 * self.characters + 1

    def sent_by(self, at: float) -> int:
        """Returns the characters that had been sent at a time."""
        return next((count for when, count in reversed(self.sent) if when <= at), 0)


class Answer:
    """One stream's answer, and where it is being generated.

    Args:
        tag: Its name, which the prompt has.
        words: Their number.
        kills: Places, in characters of the answer, at which its server is killed; at most as many as a stream survives.
        secret: Of its clients' key. Empty: they have none.

    Attributes:
        asked: Requests for it.
        requests: The same, one by one.
        server: The number of the server that has asked last. 0 before.
        is_running: Whether it is being generated.
        lost: Servers that were killed while they had it.
        is_over: Whether all of its readers have its end.
    """

    def __init__(self, tag: str, words: int, kills: list[int], secret: str = "") -> None:
        self.tag = tag
        self.secret = secret
        self.requests: list[Asked] = []
        self.text = "".join(f"w{number} " for number in range(words))
        self.kills = kills
        self.asked = 0
        self.server = 0
        self.is_running = False
        self.lost = 0
        self.is_over = False


class WordsUpstream:
    """Answers as an upstream of Chat Completions. Each server asks at a path of its own.

    Args:
        random: Cuts the words.
        pause: Seconds between two deltas.
    """

    def __init__(self, random: Random, pause: float) -> None:
        self.answers: dict[str, Answer] = {}
        self.reached: Callable[[Answer], None] = lambda answer: None
        """Called as an answer reaches a place at which its server is killed."""
        self.port = 0
        self._random = random
        self._pause = pause
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens."""
        app = web.Application()
        app.router.add_post("/{server}/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Ends all answers."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        answer = self.answers[_text_of(body["messages"][0])]
        answer.asked += 1
        answer.server, answer.is_running = int(request.match_info["server"]), True
        last = body["messages"][-1]
        at = len(_text_of(last)) if last["role"] == "assistant" else 0  # a prefill: only what follows it is written
        asked = Asked(answer.server, len(answer.tag), at)
        answer.requests.append(asked)
        has_usage = body.get("stream_options", {}).get("include_usage")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        mine = answer.asked
        try:
            await response.prepare(request)
            while at < len(answer.text):
                piece = answer.text[at : at + self._random.randint(1, LONGEST)]
                await response.write(_chunk({"content": piece}))
                at += len(piece)
                asked.sent.append((time.monotonic(), asked.characters + len(piece)))
                await asyncio.sleep(self._pause)
                while answer.kills and at >= answer.kills[0] and mine == answer.asked:
                    self.reached(answer)
                    await asyncio.sleep(self._pause)
            end = _chunk({}, "stop") + (_usage_chunk(*asked.usage) if has_usage else b"") + b"data: [DONE]\n\n"
            await response.write(end)
            asked.finished = time.monotonic()
        except ConnectionError:
            pass
        finally:
            if mine == answer.asked:
                answer.is_running = False
        return response


def _text_of(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return _event([{"index": 0, "delta": delta, "finish_reason": finish_reason}])


def _usage_chunk(into: int, out: int) -> bytes:
    usage = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
    return _event([], usage=usage)


def _event(choices: list[Any], **more: Any) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices, **more}
    return b"data: %b\n\n" % json.dumps(chunk).encode()
