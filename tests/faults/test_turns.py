"""No request within the limits holds the loop for more than 50 ms of the processor, nor the interpreter beside it.

The client and the upstream are threads with blocking sockets, so the loop's thread does the gateway's work alone. Each
turn of the loop is measured, and each stretch of work beside the loop between two breaths. What 50 ms are on this
machine says a loop of Python's that takes 0.7 ms where the limits were chosen.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest

from gai_fast.kernels import MODULES
from gai_fast.model.limits import MIB
from gai_fast.model.settings import (
    ANONYMOUS,
    ModelSettings,
    ResponsesSettings,
    Secret,
    ServerSettings,
    Settings,
    StoreSettings,
    StreamSettings,
    UpstreamSettings,
)
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime import breathing
from gai_fast.server.serving import RunningServer, start
from gai_fast.stores.responses import KeptResponse
from tests.replaced import replaced
from tests.requests.gateway import PATHS
from tests.requests.judge import specimens
from tests.requests.recorded import RECORDED

MESSAGES = 10_000
"""Messages of a long conversation, of which each has three objects and arrays at most: `translated_containers`."""
PROVIDERS = ("openai", "openai:responses", "anthropic", "gemini", "cohere", "ollama", "mistral")
REFUSAL = json.dumps({"error": {"message": "Unknown parameter: 'messages[3].name'.", "type": "invalid_request_error"}})
UNIT = 0.0007
"""Seconds of the processor that `work_of_a_unit` takes on the machine on which the limits were chosen."""
MOST = 0.05 * 1.5
"""Half as much again as is promised: other programs take the caches."""
INTERPRETED = 4
"""How many times longer the same work takes in modules that are not compiled."""
TRIES = 4


def work_of_a_unit() -> float:
    """Returns the seconds of the processor that a piece of Python takes, the least of a few times."""
    times = []
    for _ in range(9):
        began = time.thread_time()
        sum(number for number in range(20_000))
        times.append(time.thread_time() - began)
    return min(times)


class Threads:
    """An upstream that refuses each request, and a client; both outside the loop."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.asked = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        answer = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(REFUSAL)}\r\nconnection: close\r\n\r\n{REFUSAL}"
        )
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # closed
            with connection:
                connection.settimeout(60)
                receive(connection)
                self.asked += 1
                connection.sendall(answer.encode())

    @staticmethod
    def ask(url: str, path: str, body: bytes, key: str = "") -> bytes:
        """Sends a request, with an idempotency key if one is given, and returns the response's first line."""
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        head += f"idempotency-key: {key}\r\n" if key else ""
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(head.encode() + body)
            return receive(connection)


def receive(connection: socket.socket) -> bytes:
    """Reads a message with a length, and returns its first line."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        more = connection.recv(1 << 20)
        if not more:
            return b"closed"
        data += more
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
    left = length - len(body)
    while left > 0:
        left -= len(connection.recv(1 << 20)) or left
    return head.partition(b"\r\n")[0]


class Stretches:
    """The longest turn of the loop, and the longest work beside it without a breath; in seconds of the processor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turn = 0.0
        self.beside = 0.0
        self._breaths: dict[int, float] = {}  # by thread
        monkeypatch.setattr(breathing, "sleep", self._breath)

    def _breath(self, seconds: float) -> None:
        thread, now = threading.get_ident(), time.thread_time()
        if threading.current_thread() is not threading.main_thread():
            self.beside = max(self.beside, now - self._breaths.get(thread, now))
            self._breaths[thread] = now
        time.sleep(seconds)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measures every turn of the loop."""
        loop, last, is_over = asyncio.get_running_loop(), time.thread_time(), False

        def turn() -> None:
            nonlocal last
            now = time.thread_time()
            self.turn, last = max(self.turn, now - last), now
            if not is_over:
                loop.call_soon(turn)

        gc.disable()  # a collection of the whole test run's objects is no turn of the gateway
        loop.call_soon(turn)
        try:
            yield
        finally:
            is_over = True
            gc.enable()


def settings(url: str, *processors: dict[str, Any], store: str = "memory://") -> Settings:
    upstreams = {name: UpstreamSettings(name, name, url, Secret("k"), retries=0, breaker=None) for name in PROVIDERS}
    stream = StreamSettings(on_unsupported="drop", commit_after=3600.0)
    models = {name: ModelSettings(name, each, "m", stream) for name, each in upstreams.items()}
    server = ServerSettings(port=0)
    return Settings(
        server=server, upstreams=upstreams, models=models, processors=processors, store=StoreSettings(store)
    )


# ---- bodies of the largest sizes -------------------------------------------------------------------------------------


def native(**members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], **members}


def turns(number: int = MESSAGES) -> list[dict[str, Any]]:
    """A native conversation with calls of tools."""
    found: list[dict[str, Any]] = []
    for at in range(number // 4):
        call = {"type": "tool_call", "call_id": f"call_{at}", "name": "look", "input": {"at": at}}
        found += [
            {"role": "user", "content": "what is there?"},
            {"role": "assistant", "content": [call]},
            {"role": "tool", "call_id": f"call_{at}", "content": "nothing"},
            {"role": "assistant", "content": "nothing is there"},
        ]
    return [*found, {"role": "user", "content": "thanks"}]


def chat(number: int = MESSAGES) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at in range(number // 4):
        call = {"id": f"call_{at}", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
        found += [
            {"role": "user", "content": "what is there?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{at}", "content": "nothing"},
            {"role": "assistant", "content": "nothing is there"},
        ]
    return [*found, {"role": "user", "content": "thanks"}]


def claude(number: int = MESSAGES) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at in range(number // 4):
        call = {"type": "tool_use", "id": f"toolu_{at}", "name": "look", "input": {"at": at}}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{at}", "content": "nothing"}
        found += [
            {"role": "user", "content": "what is there?"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
            {"role": "assistant", "content": "nothing is there"},
        ]
    return [*found, {"role": "user", "content": "thanks"}]


def items(number: int = MESSAGES) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at in range(number // 4):
        found += [
            {"role": "user", "content": "what is there?"},
            {"type": "function_call", "call_id": f"call_{at}", "name": "look", "arguments": '{"at": 1}'},
            {"type": "function_call_output", "call_id": f"call_{at}", "output": "nothing"},
            {"role": "assistant", "content": "nothing is there"},
        ]
    return [*found, {"role": "user", "content": "thanks"}]


def ui(number: int = MESSAGES // 2) -> list[dict[str, Any]]:
    """The AI SDK's messages."""
    roles = ["user", "assistant"] * (number // 2) + ["user"]
    parts = [{"type": "text", "text": "hi"}]
    return [{"id": f"m{at}", "role": role, "parts": parts} for at, role in enumerate(roles)]


def long_texts(number: int) -> list[dict[str, Any]]:
    """Messages of texts alone, 9.4 MB in sum."""
    text = "word " * (1_880_000 // number)
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at in range(number)]


def wide_schema(properties: int) -> dict[str, Any]:
    members = {f"member_{at}": {"type": "string", "description": "a member"} for at in range(properties)}
    return {"type": "object", "properties": members, "required": [*members]}


SCHEMA = 128_000
"""Bytes of a schema that answers are checked against: nearly `limits.schema`, and above `limits.cached_schema`."""


def full(make: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """Returns the largest schema of a kind that may be checked; its size grows with the number it is made of."""
    least, most = 1, 2
    while size_of(make(most)) <= SCHEMA:
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if size_of(make(middle)) <= SCHEMA else (least, middle)
    return make(least)


def size_of(schema: dict[str, Any]) -> int:
    return len(json.dumps(schema))


def members(number: int, schema: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    return {"type": "object", "properties": {f"m{at}": schema(at) for at in range(number)}}


def nested(levels: int) -> dict[str, Any]:
    return members(1, lambda at: nested(levels - 1)) if levels else {"type": "string"}


def chain(length: int) -> dict[str, Any]:
    """Each definition refers to the next one."""
    definitions = {f"d{at}": members(1, lambda _, at=at: {"$ref": f"#/$defs/d{at + 1}"}) for at in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{length}": {"type": "string"}}}


SCHEMAS: dict[str, Callable[[int], dict[str, Any]]] = {
    "wide": lambda n: members(n, lambda at: {"type": "string"}),
    "empty": lambda n: members(n, lambda at: {}),
    "deep": lambda n: members(n, lambda at: nested(20)),
    "references": lambda n: members(n, lambda at: {"$ref": "#/$defs/d"}) | {"$defs": {"d": {"type": "string"}}},
    "a chain of references": chain,
    "names": lambda n: {
        **members(n, lambda at: {"$ref": f"d{at}"}),
        "$defs": {f"d{at}": {"$id": f"d{at}", "type": "string"} for at in range(n)},
    },
    "patterns": lambda n: members(n, lambda at: {"pattern": "^[a-z]{1,20}$"} if at < 256 else {"minLength": at}),
    "enums": lambda n: members(n, lambda at: {"enum": ["a", "b"]}),
    "one enum": lambda n: members(1, lambda at: {"enum": [f"v{at}" for at in range(n)]}),
    "unions": lambda n: members(n, lambda at: {"anyOf": [{"type": "string"}, {"type": "null"}]}),
    "a text": lambda n: {"type": "object", "description": "a" * n},
}
REFUSED_SCHEMAS: dict[str, Callable[[int], dict[str, Any]]] = {
    "positions": lambda n: {"type": "array", "prefixItems": [{} for _ in range(n)]},
    "names under each other": lambda n: {
        "allOf": [{"patternProperties": {f"a{at}": {}}} for at in range(200)],
        **members(n, lambda at: {}),
    },
    "relative references": lambda n: {
        **members(n, lambda at: {"$ref": f"#/$defs/d{at}"}),
        "$defs": {f"d{at}": {"$id": f"{at}/a"} for at in range(n)},
    },
}
"""Their cost cannot be determined in `limits.schema_steps`, and so they take as long as any."""
NATIVE_BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "a conversation": lambda: {"messages": turns()},
    "short texts": lambda: {"messages": [{"role": "user", "content": "a"}] * 29_000},
    "parts": lambda: {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 29_000}]},
    "tools": lambda: native(tools=[{"name": f"t{at}", "parameters": {"type": "object"}} for at in range(9_000)]),
    "a text": lambda: {"query": "word " * 1_900_000},
    "a schema": lambda: native(response_format={"type": "json_schema", "schema": wide_schema(1_400)}),
    "a tool's schema": lambda: native(tools=[{"name": "t", "parameters": wide_schema(20_000), "strict": True}]),
    "raw members": lambda: native(extra={"members": [{"at": at} for at in range(28_000)]}),
}
DIALECT_BODIES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "chat": ("/v1/chat/completions", lambda: {"messages": chat()}),
    "messages": ("/v1/messages", lambda: {"max_tokens": 10, "messages": claude()}),
    "responses": ("/v1/responses", lambda: {"input": items()}),
    "ui": ("/api/v1/chat", lambda: {"id": "c", "messages": ui()}),
    "count": ("/v1/messages/count_tokens", lambda: {"messages": claude()}),
    "long texts of chat": ("/v1/chat/completions", lambda: {"messages": long_texts(5)}),
    "long texts of messages": ("/v1/messages", lambda: {"max_tokens": 10, "messages": long_texts(5)}),
    "long texts of responses": ("/v1/responses", lambda: {"input": long_texts(5)}),
}


async def check(
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
    *processors: dict[str, Any],
    is_estimated: bool = False,
    is_refused: bool = False,
    prepare: Callable[[Engine], object] = lambda _: None,
) -> None:
    """Asserts that a request holds the loop for `MOST` at most, at its best of a few times.

    Args:
        monkeypatch: Measures the work beside the loop.
        path: The route.
        body: The body.
        processors: The configured processors.
        is_estimated: Whether the upstream may not be asked.
        is_refused: Whether the request is refused before.
        prepare: Puts into the store what the request names.
    """
    async with measuring(monkeypatch, *processors) as measure:
        prepare(measure.running.engine)
        status, problem = await measure.request(path, body)
        asked = measure.threads.asked
        assert status == (400 if asked or is_refused else 200), status
        assert (asked > 0) is not is_refused or is_estimated, status
        assert not problem


class Measure:
    """Measures requests to a running gateway.

    Args:
        monkeypatch: Measures the work beside the loop.
        running: The gateway.
        threads: Its client and its upstream.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, running: RunningServer, threads: Threads) -> None:
        self._monkeypatch = monkeypatch
        self.running = running
        self.threads = threads
        self._times = 1 if MODULES == "compiled" else INTERPRETED

    async def request(self, path: str, body: dict[str, Any], key: str = "", most: float = MOST) -> tuple[int, str]:
        """Sends a request, up to `TRIES` times until one of them holds the loop for no longer than allowed.

        Args:
            path: The route.
            body: The body.
            key: Begins the idempotency key of each try. Empty: they have none.
            most: The seconds that are allowed.

        Returns:
            The last response's status; and by how much each of them held the loop too long, empty if one did not.
        """
        text, work, seen = json.dumps(body).encode(), self.running.engine.targets.beside, []
        unit, most = work_of_a_unit(), most * self._times
        for number in range(TRIES):
            stretches = Stretches(self._monkeypatch)
            await work.do(breathing.breathe)
            with stretches.measured():
                line = await asyncio.to_thread(self.threads.ask, self.running.url, path, text, key and f"{key}{number}")
                await work.do(breathing.breathe)
            # Beside other programs a core takes up to twice as long: before this try or after it.
            before, unit = unit, work_of_a_unit()
            seen.append(max(stretches.turn, stretches.beside) / max(1.0, before / UNIT, unit / UNIT))
            if seen[-1] <= most:
                return int(line.split()[1]), ""
        return int(line.split()[1]), f"{min(seen) * 1000:.0f} ms, and {most * 1000:.0f} ms are allowed"


@asynccontextmanager
async def measuring(
    monkeypatch: pytest.MonkeyPatch, *processors: dict[str, Any], store: str = "memory://"
) -> AsyncIterator[Measure]:
    """Yields a running gateway."""
    threads = Threads()
    running = await start(settings(threads.url, *processors, store=store))
    try:
        yield Measure(monkeypatch, running, threads)
    finally:
        await running.close()
        threads.close()


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", NATIVE_BODIES)
async def test_a_native_request(monkeypatch: pytest.MonkeyPatch, body: str, provider: str) -> None:
    await check(monkeypatch, "/api/v1/stream", {"model": provider, **NATIVE_BODIES[body]()})


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", DIALECT_BODIES)
async def test_a_request_in_a_dialect(monkeypatch: pytest.MonkeyPatch, body: str, provider: str) -> None:
    path, make = DIALECT_BODIES[body]
    await check(monkeypatch, path, {"model": provider, **make()}, is_estimated=body == "count")


@pytest.mark.parametrize("body", [*NATIVE_BODIES, *(each for each in DIALECT_BODIES if each != "count")])
async def test_a_durable_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Its record stands in the store before the upstream is asked."""
    path, make = ("/api/v1/stream", NATIVE_BODIES[body]) if body in NATIVE_BODIES else DIALECT_BODIES[body]
    async with measuring(monkeypatch, store=f"sqlite:///{tmp_path}/store.db") as measure:
        assert await measure.request(path, {"model": "openai", "stream": True, **make()}, "key") == (400, "")


@pytest.mark.parametrize("door", ["native", "chat"])
async def test_a_durable_request_of_a_megabyte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, door: str) -> None:
    """In messages of a hundred characters."""
    path = "/api/v1/stream" if door == "native" else "/v1/chat/completions"
    messages = [{"role": ("user", "assistant")[at % 2], "content": "word " * 20} for at in range(7_001)]
    async with measuring(monkeypatch, store=f"sqlite:///{tmp_path}/store.db") as measure:
        body = {"model": "openai", "stream": True, "messages": messages}
        durable, sizes = measure.running.engine.durable, []
        record_of = durable.record_of
        assert record_of is not None

        def noted(spec: StreamSpec) -> bytes | None:
            record = record_of(spec)
            sizes.append(len(record or b""))
            return record

        durable.record_of = noted
        assert await measure.request(path, body, "key", 0.4 * MOST) == (400, "")
    assert min(sizes) > 900_000


@pytest.mark.parametrize("schema", [*SCHEMAS, *REFUSED_SCHEMAS])
async def test_a_schema_that_answers_are_checked_against(monkeypatch: pytest.MonkeyPatch, schema: str) -> None:
    pytest.importorskip("jsonschema_rs")
    is_refused = schema in REFUSED_SCHEMAS
    form = {"type": "json_schema", "schema": full((SCHEMAS | REFUSED_SCHEMAS)[schema])}
    body = native(model="openai", response_format=form)
    await check(monkeypatch, "/api/v1/stream", body, {"use": "json_stream"}, is_refused=is_refused)


@pytest.mark.parametrize("provider", ["openai", "openai:responses", "anthropic"])
@pytest.mark.parametrize("kind", ["many turns", "many items", "long items"])
async def test_a_chain(monkeypatch: pytest.MonkeyPatch, kind: str, provider: str) -> None:
    """Of a thousand turns, or of the most items that a translation takes, or of the most bytes that a chain has."""
    turns, number, size = {"many turns": (1000, 8, 100), "many items": (50, 380, 9), "long items": (20, 4, 1_500_000)}[
        kind
    ]
    own = json.dumps(items(number)).encode()
    part = {"type": "output_text", "text": "x" * size, "annotations": []}
    output = [{"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}]
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object"}}] * 20
    answer = json.dumps({"status": "completed", "output": output, "tools": tools}).encode()

    def keep(engine: Engine) -> None:
        engine.store.responses.use(ResponsesSettings(max_bytes=64 * MIB))
        for at in range(turns):
            kept = KeptResponse(f"resp_{at}", f"resp_{at - 1}" if at else "", "completed", own, answer)
            assert engine.store.responses.keep(ANONYMOUS, kept) is True

    body = {"model": provider, "input": "thanks", "previous_response_id": f"resp_{turns - 1}"}
    await check(monkeypatch, "/v1/responses", body, prepare=keep)


# ---- bodies of the judge of requests, as they are and grown ----------------------------------------------------------

ROUTES = {**{door: (door, path) for door, path in PATHS.items()}, "count": ("messages", "/v1/messages/count_tokens")}
"""By route: the door whose bodies it takes, and its path."""
ITEMS = 4000
"""Items of a grown list and members of a grown object: work for each pair of them takes longer than a turn may."""
GROWN = 300_000
"""Characters of a grown text, and of a grown list at most."""

Place = tuple[str | int, ...]


def places(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yields everything that a body holds, with its path."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key), inner
        yield from places(inner, (*path, key))


def grown(value: Any) -> Any:
    """Returns a list with its items repeated, an object with odd members beside its own, or a text that is long."""
    if isinstance(value, list):
        return value * max(1, min(ITEMS // len(value), GROWN // len(json.dumps(value))))
    if isinstance(value, dict):
        return {**value, **{f"odd_{at}": at for at in range(ITEMS // 4)}}
    return (value + " ") * (GROWN // (len(value) + 1))


def bodies_of(door: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each body of a door: as it is, with a list grown, and with a text grown.

    Beside the text of every second body an object is grown. Which of its places is grown differs between bodies.
    """
    for number, (name, body) in enumerate(specimens()[door].items()):
        yield name, body
        if name.startswith(RECORDED):
            continue  # there may be any number of them
        yield grown_at(name, body, list, number)
        name, body = grown_at(name, body, str, number)
        yield grown_at(name, body, dict, number) if number % 2 else (name, body)


def grown_at(name: str, body: dict[str, Any], kind: type, number: int) -> tuple[str, dict[str, Any]]:
    """Returns a body with one of its places of a type grown, and its name; the whole body if it has no such place."""
    paths = [path for path, value in places(body) if isinstance(value, kind) and value]
    path = paths[number % len(paths)] if paths else ()
    return f"{name}, grown at {path}", replaced(body, path, grown(reduce(getitem, path, body)))


@pytest.mark.parametrize("route", ROUTES)
async def test_each_body_of_the_judge_of_requests_and_what_grows_from_it(
    monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """Each body is sent to one provider; the next one to the next provider."""
    door, path = ROUTES[route]
    async with measuring(monkeypatch) as measure:
        for number, (name, body) in enumerate(bodies_of(door)):
            provider = PROVIDERS[number % len(PROVIDERS)]
            member: dict[str, Any] = {"model": provider}
            if door == "agui":
                member = {"forwardedProps": {**body.get("forwardedProps", {}), **member}}
            status, problem = await measure.request(path, {**body, **member})
            assert (status < 500, problem) == (True, ""), f"{name}, to {provider}"
