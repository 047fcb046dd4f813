"""Spend is exact: the ledger's sums are, to the last digit, those of an accountant who has seen the upstreams alone.

Random upstreams of five APIs (usage of any shape, breaks, failures, silence), clients of five dialects, streamed and
whole, translated and passed through, some of whom leave; retries and fallbacks, prices of all kinds; in each store.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gai_fast.model.money import decimal_text
from gai_fast.model.settings import ModelSettings, Price, Secret, Settings, StoreSettings, UpstreamSettings
from gai_fast.server.serving import start
from tests.integration.gateway import KEY, LAST_CHUNK, NEVER, Gateway, Net, Peer, on_uvloop, settings_for
from tests.integration.ledger.accountant import Books, Prices, Sent, some_usage, tokens_of
from tests.waiting import SECONDS, until
from tests.wire import chunk

REQUESTS = 200
AT_ONCE = 8
LEAVE = "leave"
END_OF_TEXT = "~"
"""The last character of each text, and of no other part of an answer."""
DIALECTS = {"m": "chat", "spare": "chat", "claude": "messages", "native": "responses", "local": "ollama"}
"""The dialect of each upstream."""
PROVIDERS = {
    "m": "openai-compatible",
    "spare": "openai-compatible",
    "claude": "anthropic",
    "native": "openai-compatible:responses",
    "local": "ollama",
}
ROUTES = ("native", "chat", "messages", "responses", "embeddings")
"""What clients ask."""


@dataclass
class Case:
    """One request: how its upstreams end, attempt by attempt, and how its client asks."""

    number: int
    chance: random.Random
    prompt: str
    route: str
    model: str
    stream: bool
    ends: list[str]
    """The end of each attempt; later attempts answer."""
    attempts: int = 0
    last: Sent | None = None


def some_case(number: int, chance: random.Random) -> Case:
    route = chance.choice(ROUTES)
    model = "m" if route == "embeddings" else chance.choice(["m", "m", "claude", "native", "local"])
    stream = route != "embeddings" and chance.random() < 0.6
    prompt = f"#{number}# " + "p" * chance.randrange(300)
    first = chance.choice(["answers"] * 4 + ["breaks", "breaks early", "fails", LEAVE])
    ends = [first, chance.choice(["answers", "answers", "breaks", "fails"])]
    return Case(number, chance, prompt, route, model, stream, ends)


# ---- the upstreams ---------------------------------------------------------------------------------------------------


class Upstreams:
    """Upstreams at one address, told apart by the first segment of the path."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.cases: dict[int, Case] = {}

    async def handle(self, peer: Peer) -> None:
        while True:
            body = json.loads(await peer.request())
            _, upstream, *rest = peer.head.split(b" ", 2)[1].decode().split("/")
            dialect = "embeddings" if rest[-1] == "embeddings" else DIALECTS[upstream]
            asked = json.dumps(body)
            case = self.cases[int(asked.partition("#")[2].partition("#")[0])]
            case.attempts += 1
            end = case.ends[case.attempts - 1] if case.attempts <= len(case.ends) else "answers"
            sent = self.books.note(upstream, Sent(dialect, case.prompt))
            case.last = sent
            streams = dialect != "embeddings" and body.get("stream", dialect == "ollama")
            if end == "fails":
                sent.has_failed = True
                await peer.answer("500 Internal Server Error", b'{"error": {"message": "no"}}')
            elif streams:
                await self._stream(peer, case, sent, end)
            else:
                await self._whole(peer, case, sent, end)
            if end not in ("answers", "fails"):
                return

    async def _stream(self, peer: Peer, case: Case, sent: Sent, end: str) -> None:
        begin, piece, last = _WRITERS[sent.dialect]
        usage = some_usage(sent.dialect, case.chance)
        kind = "application/x-ndjson" if sent.dialect == "ollama" else "text/event-stream"
        await peer.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for each in begin():
            await peer.send(chunk(each))
        if end == "breaks early":
            peer.reset()
            return
        if end == LEAVE and not case.stream:  # its client sees nothing of a text
            sent.is_left = True
            await peer.until_gone()
            return
        for text in _some_texts(case.chance):
            sent.text += text
            await peer.send(chunk(piece(text)))
        if end == "answers":
            sent.usage, sent.is_final = usage, True
            for each in last(usage):
                await peer.send(chunk(each))
            await peer.send(LAST_CHUNK)
        elif end == LEAVE:
            sent.is_left = True
            await peer.until_gone()
        else:
            peer.writer.close()  # what was sent arrives, then the body ends early

    async def _whole(self, peer: Peer, case: Case, sent: Sent, end: str) -> None:
        head = "Content-Type: application/json"
        usage = some_usage(sent.dialect, case.chance)
        if end == LEAVE:
            sent.is_left = True
            await peer.until_gone()
            return
        text = "".join(_some_texts(case.chance))
        body = json.dumps(_WHOLE[sent.dialect](text, usage)).encode()
        if end == "answers":
            sent.text, sent.usage, sent.is_final = text, usage, True
            if sent.dialect == "embeddings":
                sent.text = ""
            await peer.answer("200 OK", body, head)
            return
        if end == "breaks early":
            came = b""
            sent.has_failed = True
        elif sent.dialect == "embeddings":
            came = body[: len(body) // 2]
        else:
            characters = case.chance.randrange(1, len(text))
            sent.text = text[:characters]
            came = body[: body.index(text.encode()) + characters]
        await peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{head}\r\n\r\n".encode() + came)
        peer.writer.close()


def _some_texts(chance: random.Random) -> list[str]:
    return ["t" * chance.randrange(1, 40) for _ in range(chance.randrange(1, 6))] + [END_OF_TEXT]


def _sse(value: Any, name: str = "") -> bytes:
    event = f"event: {name}\n" if name else ""
    return f"{event}data: {json.dumps(value)}\n\n".encode()


def _chat(delta: Any, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _sse({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": [choice]})


def _chat_end(usage: Any) -> list[bytes]:
    said = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x", "choices": [], "usage": usage}
    return [_chat({}, "stop"), *([] if usage is None else [_sse(said)]), b"data: [DONE]\n\n"]


def _message(**more: Any) -> dict[str, Any]:
    return {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": [], **more}


def _messages_begin() -> list[bytes]:
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return [
        _sse({"type": "message_start", "message": _message(stop_reason=None, stop_sequence=None)}, "message_start"),
        _sse(block, "content_block_start"),
    ]


def _messages_piece(text: str) -> bytes:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return _sse(delta, "content_block_delta")


def _messages_end(usage: Any) -> list[bytes]:
    counted = {} if usage is None else {"usage": usage}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, **counted}
    return [
        _sse({"type": "content_block_stop", "index": 0}, "content_block_stop"),
        _sse(end, "message_delta"),
        _sse({"type": "message_stop"}, "message_stop"),
    ]


def _response(status: str, output: Any = (), **more: Any) -> dict[str, Any]:
    return {"id": "r", "object": "response", "status": status, "model": "x", "output": [*output], **more}


def _item(text: str, status: str = "completed") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return {"type": "message", "id": "i", "role": "assistant", "status": status, "content": content}


def _responses_begin() -> list[bytes]:
    kind = "response.output_item.added"
    return [
        _sse({"type": "response.created", "response": _response("in_progress")}, "response.created"),
        _sse({"type": kind, "output_index": 0, "item": _item("", "in_progress")}, kind),
    ]


def _responses_piece(text: str) -> bytes:
    kind = "response.output_text.delta"
    return _sse({"type": kind, "item_id": "i", "output_index": 0, "content_index": 0, "delta": text}, kind)


def _responses_end(usage: Any) -> list[bytes]:
    counted = {} if usage is None else {"usage": usage}
    kind = "response.completed"
    return [_sse({"type": kind, "response": _response("completed", **counted)}, kind)]


def _line(value: Any) -> bytes:
    return json.dumps({"model": "x", "created_at": "2026-01-01T00:00:00Z", **value}).encode() + b"\n"


_WRITERS: dict[str, Any] = {
    "chat": (lambda: [_chat({"role": "assistant", "content": ""})], lambda text: _chat({"content": text}), _chat_end),
    "messages": (_messages_begin, _messages_piece, _messages_end),
    "responses": (_responses_begin, _responses_piece, _responses_end),
    "ollama": (
        list,
        lambda text: _line({"message": {"role": "assistant", "content": text}, "done": False}),
        lambda usage: [
            _line(
                {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"} | (usage or {})
            )
        ],
    ),
}
"""The chunks before the text, of a text, and after it, with the counts."""


def _chat_whole(text: str, usage: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    counted = {} if usage is None else {"usage": usage}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice], **counted}


_WHOLE: dict[str, Any] = {
    "chat": _chat_whole,
    "messages": lambda text, usage: _message(
        content=[{"type": "text", "text": text}], stop_reason="end_turn", stop_sequence=None, usage=usage or {}
    ),
    "responses": lambda text, usage: _response("completed", [_item(text)], usage=usage),
    "ollama": lambda text, usage: {
        "model": "x",
        "message": {"role": "assistant", "content": text},
        "done": True,
        "done_reason": "stop",
        **(usage or {}),
    },
    "embeddings": lambda text, usage: {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5] * 50}],
        **({} if usage is None else {"usage": usage}),
    },
}


# ---- the clients -----------------------------------------------------------------------------------------------------


def _body(case: Case) -> tuple[str, dict[str, Any]]:
    said = [{"role": "user", "content": case.prompt}]
    asked: dict[str, Any] = {"model": case.model, "stream": case.stream}
    match case.route:
        case "native":
            return "/api/v1/stream", asked | {"messages": said}
        case "chat":
            usage = {"stream_options": {"include_usage": True}} if case.stream else {}
            return "/v1/chat/completions", asked | {"messages": said} | usage
        case "messages":
            return "/v1/messages", asked | {"messages": said, "max_tokens": 500}
        case "responses":
            return "/v1/responses", asked | {"input": case.prompt, "store": False}
    return "/v1/embeddings", {"model": case.model, "input": case.prompt}


async def _ask(gateway: Gateway, upstreams: Upstreams, case: Case) -> None:
    """Asks as a client, which leaves if the first attempt waits for that, and checks what it is told."""
    upstreams.cases[case.number] = case
    path, body = _body(case)
    client = await gateway.connect()
    client.request("POST", path, body)
    if case.ends[0] == LEAVE:
        if case.stream:
            response = await client.response()
            await response.until(END_OF_TEXT.encode())
        await until(lambda: case.last is not None and case.last.is_left)
        client.reset()
        return
    response = await client.response()
    async with asyncio.timeout(SECONDS):
        await response.rest()
    client.close()
    assert case.last is not None
    _check_told(case, response, case.last)


def _check_told(case: Case, response: Any, last: Sent) -> None:
    """What a client is told of the last attempt is what the accountant has found."""
    tokens = tokens_of(last)
    if not last.is_final or tokens is None or response.status != 200:
        return
    counted = (tokens.into, tokens.out, tokens.into + tokens.out)
    if case.route == "native":
        event = response.events[-2] if case.stream else response.json
        usage = event["usage"]
        assert tuple(usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")) == counted
        assert usage.get("source") == ("estimated" if tokens.is_estimated else None)
    elif case.route == "chat" and case.stream:
        told = [event for event in response.events if event.get("usage")][-1]
        if tokens.is_estimated or DIALECTS[case.model] != "chat":
            usage = told["usage"]
            assert tuple(usage[f"{name}_tokens"] for name in ("prompt", "completion", "total")) == counted
        assert told.get("x_gai", {}).get("usage_source") == ("estimated" if tokens.is_estimated else None)
        assert response.data[-1] == "[DONE]"


# ---- the sums --------------------------------------------------------------------------------------------------------


def some_prices(chance: random.Random) -> Prices:
    def price() -> int:
        return chance.choice([0, 1, 333_333, chance.randrange(10**14), 25 * 10**10])

    return Prices(price(), price(), price(), price(), price(), chance.choice([0, 0, 10**10 + 7]))


def _settings(url: str, prices: dict[str, Prices], store: str) -> Settings:
    waits: Any = dict.fromkeys(("connect_timeout", "first_event_timeout", "idle_timeout", "total_timeout"), NEVER)
    settings = settings_for(url)
    stream = settings.stream
    upstreams, models = {}, {}
    for name, provider in PROVIDERS.items():
        place = f"{url}/{name}" if provider in ("anthropic", "ollama") else f"{url}/{name}/v1"
        lane = ("/v1/embeddings",) if name == "m" else ()
        upstreams[name] = UpstreamSettings(
            name, provider, place, Secret(KEY), retries=1, breaker=None, pass_paths=lane, **waits
        )
        price = Price(**asdict(prices[name]))
        fallback = ("spare",) if name == "m" else ()
        models[name] = ModelSettings(name, upstreams[name], "x", stream, fallback=fallback, price=price)
    return replace(settings, upstreams=upstreams, models=models, store=StoreSettings(store))


@on_uvloop
@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
async def test_the_ledger_has_what_the_accountant_finds(
    net: Net, request: pytest.FixtureRequest, tmp_path: Path, store: str
) -> None:
    chance = random.Random(store)
    books = Books({name: some_prices(chance) for name in PROVIDERS})
    upstreams = Upstreams(books)
    upstream = await net.upstream(upstreams.handle)
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/gai-fast.db"}.get(store)
    if url is None:
        url = f"{request.getfixturevalue('redis_server').url}/0"
    gateway = Gateway(net, await start(_settings(upstream.url, dict(books.prices), url)))
    net.stack.push_async_callback(gateway.running.close)
    cases = iter([some_case(number, random.Random(f"{store} {number}")) for number in range(REQUESTS)])
    for batch in iter(lambda: list(itertools.islice(cases, AT_ONCE)), []):
        await asyncio.gather(*[_ask(gateway, upstreams, case) for case in batch])
    engine = gateway.running.engine
    await until(lambda: not gateway.streams and not engine.transfers)
    rows = {row.value: row.amount for row in await engine.ledger.spend("upstream")}
    expected = {name: sum(books.charges(name)) for name in PROVIDERS}
    assert {name: decimal_text(rows.get(name, 0)) for name in PROVIDERS} == {
        name: decimal_text(amount) for name, amount in expected.items()
    }
    assert sum(row.amount for row in await engine.ledger.spend("key")) == sum(expected.values()) > 0
    attempts = [sent for each in books.sent.values() for sent in each]
    assert {sent.dialect for sent in attempts} == {*DIALECTS.values(), "embeddings"}
    tokens = [tokens_of(sent) for sent in attempts if sent.is_final]
    for kind in (
        [sent for sent in attempts if sent.has_failed],
        [sent for sent in attempts if sent.is_left],
        [sent for sent in attempts if sent.text and not sent.is_final and not sent.is_left],
        [each for each in tokens if each is not None and each.is_estimated],
        [each for each in tokens if each is not None and each.own_cost is not None],
    ):
        assert kind, "each kind of attempt is among them"
    net.logged.clear()
