"""The sixteen faults of Failover Bench (methodology 0.1), with short waits, and the conduct that it asks for.

An upstream breaks as its catalogue says (github.com/failoverbench/failoverbench, `scenarios/catalogue.yaml`); the
model's name chooses the fault. The gateway has one fallback that answers, and `on_midstream_failure = "continue"`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.gateway import DONE, LAST_CHUNK, SSE_HEAD, Net, Peer, Response
from tests.integration.processes import Server, serving
from tests.wire import chunk

WORDS: Final = [f"word{number}" for number in range(60)]
ANSWER: Final = " ".join(WORDS)
RETRY_AFTER: Final = 1
"""Seconds: whole ones, as the header has them."""
DOWN: Final = 3.0
"""Seconds for which a primary is down."""
QUESTION: Final = {"role": "user", "content": "Why does a gateway earn trust only if its provider misbehaves?"}

OK: Final = "fb-ok"
NO_PREFILL: Final = "fb-ok-noprefill"
SCENARIOS: Final = {
    "S01": "429 with Retry-After, once",
    "S02": "429 without Retry-After",
    "S03": "500, once",
    "S04": "503",
    "S05": "a reset before the head, once",
    "S06": "no response at all",
    "S07": "a slow first token",
    "S08": "a stream that is cut",
    "S09": "a stream that stalls",
    "S10": "a malformed chunk",
    "S11": "no [DONE]",
    "S12": "context_length_exceeded",
    "S13": "content_policy_violation",
    "S14": "a stream that is cut, and a fallback that refuses prefill",
    "S15": "a primary that is down and comes back",
    "S16": "503, and the fallback's name and usage",
}


@dataclass
class Attempt:
    """One request that the wall has seen."""

    at: float
    last_role: str
    status: int = 200


@dataclass
class Wall:
    """The upstream that breaks. Attempts by model."""

    is_cut_always: bool = False
    """A stream that is cut is cut after each word of a continuation, too."""
    began: float = field(default_factory=time.monotonic)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)

    async def __call__(self, peer: Peer) -> None:
        while True:
            asked = json.loads(await peer.request())
            model = asked["model"]
            attempt = Attempt(time.monotonic() - self.began, asked["messages"][-1]["role"])
            before = self.attempts.setdefault(model, [])
            before.append(attempt)
            fault = model.removeprefix("fb-")
            if await self._fails(peer, fault, len(before), attempt):
                continue
            words, is_continued = WORDS, False
            if attempt.last_role == "assistant":
                partial = asked["messages"][-1]["content"].strip()
                if ANSWER.startswith(partial):
                    words, is_continued = ANSWER[len(partial) :].split(), True
            await self._stream(peer, asked, fault, words, is_continued)

    async def _fails(self, peer: Peer, fault: str, number: int, attempt: Attempt) -> bool:
        async def refuse(status: str, code: str | None, *headers: str) -> bool:
            attempt.status = int(status[:3])
            error = {"message": f"refused: {code}", "type": "server_error", "param": None, "code": code}
            body = json.dumps({"error": error}).encode()
            await peer.answer(status, body, "Content-Type: application/json", *headers)
            return True

        if fault == "s01" and number == 1:
            return await refuse("429 Too Many Requests", "rate_limit_exceeded", f"Retry-After: {RETRY_AFTER}")
        if fault == "s02":
            return await refuse("429 Too Many Requests", "rate_limit_exceeded")
        if fault == "s03" and number == 1:
            return await refuse("500 Internal Server Error", None)
        is_down = fault == "s15" and attempt.at < DOWN
        if fault in ("s04", "s16") or is_down:
            return await refuse("503 Service Unavailable", "overloaded")
        if fault == "s12":
            return await refuse("400 Bad Request", "context_length_exceeded")
        if fault == "s13":
            return await refuse("400 Bad Request", "content_policy_violation")
        if fault == "ok-noprefill" and attempt.last_role == "assistant":
            return await refuse("400 Bad Request", "invalid_prefill")
        if fault == "s05" and number == 1:
            peer.reset()
            raise EOFError
        if fault == "s06":
            await peer.until_gone()
            raise EOFError
        return False

    async def _stream(
        self, peer: Peer, asked: dict[str, Any], fault: str, words: list[str], is_continued: bool
    ) -> None:
        about = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}

        async def send(delta: dict[str, str] | None, finish: str | None = None, **more: object) -> None:
            choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
            await peer.send(chunk(b"data: %b\n\n" % json.dumps({**about, "choices": choices, **more}).encode()))

        await peer.send(SSE_HEAD)
        if fault == "s07":
            await peer.until_gone()
            raise EOFError
        await send({"role": "assistant", "content": ""})
        for number, word in enumerate(words):
            is_cut = number == 40 or (self.is_cut_always and is_continued)
            if is_cut and fault in ("s08", "s14"):
                raise EOFError
            if (number, fault) == (20, "s09"):
                await peer.until_gone()
                raise EOFError
            if (number, fault) == (10, "s10"):
                await peer.send(chunk(b'data: {"id": "c", "choices": [{"delta": {"content": \n\n'))
            await send({"content": f" {word}" if number or is_continued else word})
        await send({}, "stop")
        if (asked.get("stream_options") or {}).get("include_usage"):
            count = len(words)
            await send(None, usage={"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9 + count})
        if fault != "s11":
            await peer.send(chunk(DONE))
        await peer.send(LAST_CHUNK)


@dataclass
class Call:
    """What a client of the OpenAI format saw."""

    response: Response

    @property
    def error(self) -> dict[str, Any] | None:
        if self.response.status != 200:
            return self.response.error
        return next((event["error"] for event in self.response.events if "error" in event), None)

    @property
    def text(self) -> str:
        choices = [choice for event in self.response.events for choice in event.get("choices", ())]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    @property
    def is_rescued(self) -> bool:
        return self.error is None and self.text == ANSWER and self.response.data[-1] == "[DONE]"

    @property
    def model(self) -> str:
        return str(self.response.events[-1]["model"])

    @property
    def usage(self) -> dict[str, Any] | None:
        return next((event["usage"] for event in reversed(self.response.events) if event.get("usage")), None)


def configuration(url: str) -> str:
    """Each model has an upstream of its own, so that a breaker opens for one scenario alone."""

    def model(name: str, more: str) -> str:
        return (
            f'[[upstream]]\nname = "{name}"\nprovider = "openai-compatible"\nbase_url = "{url}/v1"\n'
            "retries = 2\nfirst_event_timeout = 1\nidle_timeout = 1\n"
            "breaker = {failures = 3, window = 30, open = 1}\n"
            f'[[model]]\nname = "{name}"\nupstream = "{name}"\nid = "{name}"\n{more}\n'
        )

    parts = ['[server]\nport = 0\n[stream]\non_midstream_failure = "continue"\n']
    parts += [model(OK, "prefill = true"), model(NO_PREFILL, "")]
    for name in SCENARIOS:
        fallback = NO_PREFILL if name == "S14" else OK
        more = f'prefill = true\nfallback = ["{fallback}"]'
        if name == "S12":
            more += f'\nfallback_on = {{"context_length_exceeded" = "{OK}"}}'
        parts.append(model(f"fb-{name.lower()}", more))
    return "".join(parts)


class Bench:
    """The wall behind a gateway."""

    def __init__(self, server: Server, wall: Wall) -> None:
        self.server = server
        self.wall = wall

    async def ask(self, model: str) -> Call:
        body = {"model": model, "messages": [QUESTION], "stream": True, "stream_options": {"include_usage": True}}
        return Call(await self.server.ask("POST", "/v1/chat/completions", body))

    def attempts(self, model: str) -> list[Attempt]:
        return self.wall.attempts.get(model, [])


@pytest.fixture
async def bench(net: Net, tmp_path: Path) -> AsyncIterator[Bench]:
    wall = Wall()
    upstream = await net.upstream(wall)
    (tmp_path / "gai-fast.toml").write_text(configuration(upstream.url))
    async with serving(net, tmp_path) as server:
        yield Bench(server, wall)


def checks(bench: Bench, name: str, call: Call) -> dict[str, bool]:
    """What the catalogue asks of a scenario beside the rescue, required and advisory; waits are shorter here."""
    attempts = bench.attempts(f"fb-{name.lower()}")
    gap = attempts[1].at - attempts[0].at if len(attempts) > 1 else 0.0
    at_once = [each for each in attempts if each.at - attempts[0].at < RETRY_AFTER]
    match name:
        case "S01":
            return {"retry_after_honoured": gap >= 0.9 * RETRY_AFTER, "no_hammer": len(at_once) == 1}
        case "S02" | "S04":
            return {"bounded_attempts": len(attempts) <= 6, "no_hammer": len(at_once) <= 4}
        case "S03" | "S05":
            return {"same_provider_retry": len(attempts) == 2}
        case "S06":
            return {"silent_route_not_retried": len(attempts) == 1}
        case "S07":
            return {"ttft_limit": call.model == OK}
        case "S11":
            return {"usage_reported": call.usage is not None, "prompt_finalise": len(attempts) == 1}
        case "S12" | "S13":
            return {"no_same_model_retry": len(attempts) == 1}
        case "S16":
            return {
                "reports_fallback_model": call.model == OK,
                "usage_present": call.usage is not None,
                "bounded_attempts": len(attempts) <= 6,
            }
        case _:
            return {"bounded_attempts": len(attempts) <= 3}


async def test_fifteen_faults_are_rescued_or_refused_with_the_reason(bench: Bench) -> None:
    names = [name for name in SCENARIOS if name != "S15"]
    calls = await asyncio.gather(*(bench.ask(f"fb-{name.lower()}") for name in names))
    for name, call in zip(names, calls, strict=True):
        if name == "S13":
            assert call.error is not None
            assert (call.response.status, call.error["code"]) == (400, "content_policy_violation"), SCENARIOS[name]
        else:
            assert call.is_rescued, f"{SCENARIOS[name]}: {call.error}"
        assert all(checks(bench, name, call).values()), (SCENARIOS[name], checks(bench, name, call))
    assert (await bench.ask(OK)).is_rescued


async def test_a_primary_that_flaps_is_replaced_while_it_is_down_and_used_again(bench: Bench) -> None:
    primary = "fb-s15"
    bench.wall.began = time.monotonic()
    while True:
        call = await bench.ask(primary)
        assert call.is_rescued
        if call.model == primary:
            break
        assert call.model == OK
        await asyncio.sleep(0.1)
    attempts = bench.attempts(primary)
    assert [attempt.status for attempt in attempts] == [503] * (len(attempts) - 1) + [200]
    assert len(attempts) <= 3 + DOWN + 2, "three failures open the breaker, then one request a second is a probe"


async def test_a_fallback_that_refuses_prefill_is_asked_for_the_whole_answer(net: Net, tmp_path: Path) -> None:
    """Its `prefill = true` is wrong, and the client does not get its 400."""
    wall = Wall(is_cut_always=True)
    upstream = await net.upstream(wall)
    result = configuration(upstream.url).replace(f'id = "{NO_PREFILL}"\n', f'id = "{NO_PREFILL}"\nprefill = true\n')
    (tmp_path / "gai-fast.toml").write_text(result)
    async with serving(net, tmp_path) as server:
        call = await Bench(server, wall).ask("fb-s14")
        assert call.is_rescued
        roles = [(each.status, each.last_role) for each in wall.attempts[NO_PREFILL]]
        assert roles == [(400, "assistant"), (200, "user")]
