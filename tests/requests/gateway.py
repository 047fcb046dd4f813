"""A gateway in this process between a client and fakes of all providers, on loopback; one exchange at a time.

The fakes record what they receive. Their answers are in `answers.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, cast

import uvloop

from gai_fast.model.settings import (
    GuardSettings,
    LimitSettings,
    ModelSettings,
    Secret,
    ServerSettings,
    Settings,
    StreamSettings,
    UpstreamSettings,
)
from gai_fast.processors import read_processor
from gai_fast.server.serving import RunningServer, start
from tests.requests.answers import ANSWERS, HISTORIES, WHOLE
from tests.requests.rules import Received
from tests.requests.targets import TARGETS, Target

PATHS = {
    "gai": "/api/v1/stream",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "vercel": "/api/v1/stream?format=vercel",
    "agui": "/api/v1/stream?format=agui",
}
"""The path of each door."""

_SECONDS = 20.0
_NEVER = 3600.0
_SSE = "text/event-stream"
_JSON = "application/json"


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The text of an error, in whatever dialect."""
        try:
            error = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return self.body.decode(errors="replace")
        return str(error.get("message")) if isinstance(error, dict) else str(error)


class _Fake(asyncio.Protocol):
    """One connection to the fakes: the first segment of the path is the mode, the second the provider."""

    def __init__(self, received: list[Received]) -> None:
        self._received = received
        self._input = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._input += data
        while (end := self._input.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._input[:end].decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers.get("content-length", 0))
            if len(self._input) < end + 4 + length:
                return
            raw = bytes(self._input[end + 4 : end + 4 + length])
            del self._input[: end + 4 + length]
            self._answer(first.split(" ")[1], headers, raw)

    def _answer(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        mode, number, rest = path.lstrip("/").split("/", 2)
        body = json.loads(raw)
        status, kind = "200 OK", _SSE
        if mode == "fails":
            status, kind, data = "503 Service Unavailable", _JSON, b'{"error":{"message":"no","type":"server_error"}}'
        elif mode == "history":
            source = list(HISTORIES)[int(number)]
            data, kind = HISTORIES[source], "application/x-ndjson" if source == "ollama" else _SSE
        else:
            target = TARGETS[int(number)]
            self._received.append(Received(f"/{rest}", headers, body, raw, target.model))
            if target.door and body.get("stream") is not True:
                data, kind = WHOLE[target.dialect], _JSON
            else:
                data = ANSWERS["generate" if target.name == "ollama:generate" else target.dialect]
                kind = "application/x-ndjson" if target.dialect == "ollama" else _SSE
        assert self._transport is not None
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n"
        self._transport.write(head.encode() + data)


class _Client(asyncio.Protocol):
    """One connection to a gateway."""

    def __init__(self) -> None:
        self._input = bytearray()
        self._waiter: asyncio.Future[Answer] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(f"the gateway hung up: {bytes(self._input)!r}"))

    def data_received(self, data: bytes) -> None:
        self._input += data
        end = self._input.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self._input[:end].decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if "content-length" in headers:
            body = bytes(self._input[end + 4 :])
            if len(body) < int(headers["content-length"]):
                return
        elif not self._input.endswith(b"0\r\n\r\n"):
            return
        else:
            body = bytes(self._input[end + 4 :])
        self._input.clear()
        assert self._waiter is not None
        self._waiter.set_result(Answer(int(first.split(" ")[1]), headers, body))

    async def ask(self, host: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{lines}"
        assert self.transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return await asyncio.wait_for(self._waiter, _SECONDS)


GUARD = GuardSettings("none", "patterns", patterns=("found nowhere [0-9]{9}",), on=("input",))
"""A guard that finds nothing."""


def _settings(port: int, processors: Iterable[dict[str, Any]], guards: tuple[GuardSettings, ...] = ()) -> Settings:
    # The loop stands still while an SDK is imported.
    server = ServerSettings(port=0, header_timeout=_NEVER, body_timeout=_NEVER)
    upstreams: dict[str, UpstreamSettings] = {}
    models: dict[str, ModelSettings] = {}

    def upstream(name: str, provider: str, mode: str, number: int) -> UpstreamSettings:
        url = f"http://127.0.0.1:{port}/{mode}/{number}"
        found = upstreams[name] = UpstreamSettings(name, provider, url, Secret("sk-judge"), retries=0, breaker=None)
        return found

    drop = StreamSettings(on_unsupported="drop")
    cont = StreamSettings(on_midstream_failure="continue")
    for number, target in enumerate(TARGETS):
        own = upstream(target.name, target.provider, "judged", number)
        fails = upstream(f"{target.name}+fails", target.provider, "fails", number)
        models[target.name] = ModelSettings(target.name, own, target.model)
        for way, stream in (("drop", drop), ("continue", cont)):
            models[f"{target.name}+{way}"] = ModelSettings(f"{target.name}+{way}", own, target.model, stream)
        name = f"{target.name}+fallback"
        models[name] = ModelSettings(name, fails, target.model, fallback=(target.name,))
    for number, source in enumerate(HISTORIES):
        own = upstream(f"history@{source}", source, "history", number)
        models[own.name] = ModelSettings(own.name, own, _model_of(source))
    entries = tuple(map(dict, processors))
    for entry in entries:
        read_processor(entry)
    parts = {"processors": entries, "guards": guards, "limits": LimitSettings()}
    return Settings(server=server, upstreams=upstreams, models=models, **parts)


def _model_of(source: str) -> str:
    return next(target.model for target in TARGETS if target.name == source)


class Bench:
    """The gateway without a processor, the gateway with one, the gateway with a guard, and the fakes."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._loop = self._runner.get_loop()
        self._stack = AsyncExitStack()
        self._received: list[Received] = []
        self._clients: dict[str, tuple[_Client, str]] = {}
        self._keys = 0
        self._runner.run(self._start())

    def close(self) -> None:
        """Stops everything."""
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def ask(self, target: Target, way: str, door: str, body: dict[str, Any]) -> tuple[Answer, Received | None]:
        """Sends a request through the gateway; returns the answer, and what the provider received.

        Args:
            target: The provider.
            way: `plain`, `drop`, `key`, `processor`, `guard`, `fallback` or `continue`.
            door: The dialect of the request.
            body: The request without its model.
        """
        model = f"{target.name}+{way}" if way in ("drop", "fallback", "continue") else target.name
        return self._loop.run_until_complete(
            self._ask(way if way in ("processor", "guard") else "plain", way == "key", door, model, body)
        )

    def history(self, source: str, door: str, body: dict[str, Any]) -> Any:
        """Returns the whole answer of a provider in a door's dialect, with thoughts and calls."""
        answer, _ = self._loop.run_until_complete(self._ask("plain", False, door, f"history@{source}", body))
        assert answer.status == 200, (source, door, answer)
        return json.loads(answer.body)

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        """Sends a body to a path of the gateway; returns the answer."""
        client, host = self._clients["plain"]
        return self._loop.run_until_complete(client.ask(host, path, json.dumps(body).encode(), {}))

    async def _ask(
        self, gateway: str, with_key: bool, door: str, model: str, body: dict[str, Any]
    ) -> tuple[Answer, Received | None]:
        headers = {}
        if with_key:
            self._keys += 1
            headers["idempotency-key"] = f'"judge-{self._keys}"'
        if door == "agui":
            given = body["forwardedProps"]  # a wrong type stays
            body = {**body, "forwardedProps": {**given, "model": model} if isinstance(given, dict) else given}
        else:
            body = {**body, "model": model}
        await asyncio.sleep(0)  # the loop stood still while an SDK was imported: what is due comes first
        client, host = self._clients[gateway]
        if client.transport is None or client.transport.is_closing():
            client = await self._connect(gateway, host)
        self._received.clear()
        answer = await client.ask(host, PATHS[door], json.dumps(body).encode(), headers)
        return answer, self._received[-1] if self._received else None

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Fake(self._received), "127.0.0.1", 0)
        self._stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        settings = {
            "plain": _settings(port, ()),
            "processor": _settings(port, ({"use": "correlation"},)),
            "guard": _settings(port, (), (GUARD,)),
        }
        for name, each in settings.items():
            running: RunningServer = await start(each)
            self._stack.push_async_callback(running.close)
            await self._connect(name, running.url.partition("://")[2])

    async def _connect(self, gateway: str, host: str) -> _Client:
        address, _, port = host.partition(":")
        transport, client = await asyncio.get_running_loop().create_connection(_Client, address, int(port))
        self._stack.callback(transport.close)
        self._clients[gateway] = client, host
        return client
