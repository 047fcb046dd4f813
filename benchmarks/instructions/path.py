"""Counts the instructions of whole requests: `gai-fast serve` under callgrind, from socket to socket.

The driver is client and upstream in one thread. It sends the next bytes only when the last ones have arrived, so every
run does the same in the same order. All of the server's process is counted, the interpreter and the modules that mypyc
compiled included; libc is left out, since its ways to copy bytes depend on the machine.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from ctypes import CDLL
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Final

from benchmarks.instructions.cases import ANSWERS, named
from benchmarks.instructions.counting import ROOT, Cost, Counted, build_marks, counted_environment, environment, read
from benchmarks.websocket import handshake, request_message

FIXTURES: Final = ROOT / "tests/corpus/fixtures"
NATIVE: Final = "/api/v1/stream"
CHAT: Final = "/v1/chat/completions"
MESSAGES: Final = "/v1/messages"
RESPONSES: Final = "/v1/responses"
SOCKET: Final = "/ws/stream"
EMBEDDINGS: Final = "/v1/embeddings"
SECONDS: Final = 600
"""Seconds in which the server must answer, or write its counts. It counts no time: under valgrind the server begins to
listen after 14 s of a core, which were more than two minutes on a machine with other work.
"""
TICK: Final = 86_400.0
"""Seconds of a tick of the server's timers. Ticks are numbered since the machine has started. CPython keeps one object
for each number up to 256; a timer with another number costs 240 instructions more."""
WARM_UP: Final = 30
"""Requests before the counted ones: templates are learned, connections opened, strings made."""
REQUESTS: Final = 20
ROUNDS: Final = 5
"""Counts of so many requests, of which the smallest one counts: no collection of garbage is in it."""
ANSWERED: Final = 12
"""Answers whose events alone are counted, of which the smallest count is the cost."""
BURST: Final = 100
"""Deltas of an answer that comes at once."""
FEW: Final = 20
MANY: Final = 60
"""Events that come alone, in two answers whose difference is the cost of one."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request, or of an event that comes alone.

    Args:
        provider: The upstream's provider.
        path: The route that is asked.
        fixture: The upstream's answer, from the tests' fixtures. If it is empty, the answer is a burst of deltas.
        resumable: The stream is durable.
        is_alone: Whether the cost is that of the only event of a read.
    """

    provider: str
    path: str
    fixture: str = ""
    resumable: bool = False
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class Upstream:
    """The frames of a provider's answer.

    Args:
        opening: The frames before the first delta.
        delta: The frame of a delta, from its text and its number.
        closing: The frames after the last delta, from the whole text.
    """

    opening: bytes
    delta: Callable[[str, str], bytes]
    closing: Callable[[str], bytes]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(content_type: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % content_type


def _chat(**about: object) -> bytes:
    """Returns one frame of the chat dialect."""
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1775237394, "model": "m"}
    return b"data: %b\n\n" % json.dumps({**common, **about}, separators=(",", ":")).encode()


def _chat_delta(text: str, number: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return _chat(choices=[choice], usage=None)


def _chat_closing(text: str) -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 19}
    finish = _chat(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return finish + _chat(choices=[], usage=usage) + b"data: [DONE]\n\n"


def _responses_closing(text: str) -> bytes:
    part = f'{{"type":"output_text","annotations":[],"logprobs":[],"text":"{text}"}}'
    item = f'{{"id":"msg_1","type":"message","status":"completed","content":[{part}],"role":"assistant"}}'
    usage = '{"input_tokens":9,"output_tokens":10,"total_tokens":19}'
    whole = f'{{"id":"r","status":"completed","model":"m","output":[{item}],"usage":{usage}}}'
    place = '"item_id":"msg_1","output_index":0,"content_index":0'
    return (
        named("response.output_text.done", f'{place},"text":"{text}","logprobs":[],"sequence_number":201')
        + named("response.content_part.done", f'{place},"part":{part},"sequence_number":202')
        + named("response.output_item.done", f'"output_index":0,"item":{item},"sequence_number":203')
        + named("response.completed", f'"response":{whole},"sequence_number":204')
    )


def _messages_closing(text: str) -> bytes:
    return (
        named("content_block_stop", '"index":0')
        + named("message_delta", '"delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":10}')
        + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def _gemini_closing(text: str) -> bytes:
    return (
        b'data: {"candidates": [{"content": {"parts": [{"text": ""}],"role": "model"},"finishReason": "STOP",'
        b'"index": 0}],"usageMetadata": {"promptTokenCount": 9,"candidatesTokenCount": 10,"totalTokenCount": 19},'
        b'"modelVersion": "mock","responseId": "kLew"}\r\n\r\n'
    )


UPSTREAMS: Final = {
    "openai-compatible": Upstream(b"", _chat_delta, _chat_closing),
    "openai:responses": Upstream(*ANSWERS["openai:responses"], _responses_closing),
    "anthropic": Upstream(*ANSWERS["anthropic"], _messages_closing),
    "gemini": Upstream(*ANSWERS["gemini"], _gemini_closing),
}
"""By provider, the frames of an answer."""
_SSE: Final = _head(b"text/event-stream")
_ENDS: Final = (
    b'"finished":true',
    b"[DONE]",
    b"event: message_stop\n",
    b"event: response.completed\n",
)
"""Marks of a complete answer, in one format or another."""
BODY_END: Final = b"\r\n0\r\n\r\n"
_SOCKET_END: Final = b'"type":"done","finished":true}'
_EMBEDDING_END: Final = b'"usage":{"prompt_tokens":100,"total_tokens":100}}'
_LAST_CHUNK: Final = b"0\r\n\r\n"


def at_once(provider: str) -> list[bytes]:
    """Returns an answer that comes in one piece, each frame in a chunk of its own."""
    return answer_of(UPSTREAMS[provider], BURST)


def answer_of(upstream: Upstream, count: int) -> list[bytes]:
    """Returns an answer that comes in one piece, each frame in a chunk of its own.

    Args:
        upstream: Its frames.
        count: The number of its deltas.
    """
    deltas = b"".join(_chunk(upstream.delta(" tok", str(number))) for number in range(1, count + 1))
    opening = _chunk(upstream.opening) if upstream.opening else b""
    return [_SSE + opening + deltas + _chunk(upstream.closing(" tok" * count)) + _LAST_CHUNK]


def one_by_one(provider: str, count: int) -> list[bytes]:
    """Returns an answer whose deltas are sent one by one, each when the one before it has arrived."""
    upstream = UPSTREAMS[provider]
    first = _SSE + _chunk(upstream.opening + upstream.delta("first", "1"))
    deltas = [_chunk(upstream.delta(" tok", str(number))) for number in range(2, count + 2)]
    return [first, *deltas, _chunk(upstream.closing("first" + " tok" * count)) + _LAST_CHUNK]


def fixture(name: str) -> list[bytes]:
    """Returns a provider's answer in one piece, from the tests' fixtures."""
    (path,) = (path for path in FIXTURES.glob(f"{name}.*") if not path.name.endswith(".events.ndjson"))
    kind = b"text/event-stream" if path.suffix == ".sse" else b"application/x-ndjson"
    return [_head(kind) + _chunk(path.read_bytes()) + _LAST_CHUNK]


def embedding() -> list[bytes]:
    """Returns the answer to an embeddings request with one input: 1,536 numbers in base64."""
    vector = b"A" * (1536 * 4 * 4 // 3)
    data = b'[{"object":"embedding","index":0,"embedding":"%b"}]' % vector
    body = b'{"object":"list","data":%b,"model":"text-embedding-3-small",%b' % (data, _EMBEDDING_END)
    return [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)]


CASES: Final = {
    "request, 100 deltas at once": Case("openai-compatible", NATIVE),
    "request, 100 deltas passed through": Case("openai-compatible", CHAT),
    "request, 100 deltas as Messages": Case("openai-compatible", MESSAGES),
    "request, 100 deltas over a WebSocket": Case("openai-compatible", SOCKET),
    "request, 100 deltas, durable": Case("openai-compatible", NATIVE, resumable=True),
    "request, 100 deltas of Responses": Case("openai:responses", NATIVE),
    "request, 100 deltas of Anthropic": Case("anthropic", NATIVE),
    "request, 100 deltas of Gemini": Case("gemini", NATIVE),
    "request, tool call": Case("openai", NATIVE, "openai/one_tool"),
    "request, Responses": Case("openai:responses", NATIVE, "openai-responses/text"),
    "request, Responses passed through": Case("openai:responses", RESPONSES, "openai-responses/text"),
    "request, Anthropic": Case("anthropic", NATIVE, "anthropic/text"),
    "request, Anthropic as chat": Case("anthropic", CHAT, "anthropic/text"),
    "request, Anthropic passed through": Case("anthropic", MESSAGES, "anthropic/text"),
    "request, Gemini": Case("gemini", NATIVE, "gemini/text"),
    "request, Ollama": Case("ollama", NATIVE, "ollama/text"),
    "request, embedding passed through": Case("openai", EMBEDDINGS),
    "event that comes alone": Case("openai-compatible", NATIVE, is_alone=True),
    "event that comes alone over a WebSocket": Case("openai-compatible", SOCKET, is_alone=True),
    "event that comes alone, durable": Case("openai-compatible", NATIVE, resumable=True, is_alone=True),
    "event that comes alone, Responses": Case("openai:responses", NATIVE, is_alone=True),
    "event that comes alone, Anthropic": Case("anthropic", NATIVE, is_alone=True),
    "event that comes alone, Gemini": Case("gemini", NATIVE, is_alone=True),
}


def path_environment() -> str:
    """Returns the environment that the counts depend on: kernels, interpreter and libraries."""
    found = ", ".join(f"{name} {version(name)}" for name in ("uvloop", "httptools", "msgspec", "orjson"))
    python = ".".join(map(str, sys.version_info[:3]))
    return f"whole path: {environment()}, cpython {python}, {found}"


def measure_path(folder: Path) -> dict[str, Cost]:
    """Returns the cost of each kind of request, and of an event that comes alone.

    Args:
        folder: An empty folder.

    Raises:
        RuntimeError: valgrind or a C compiler is missing, or the server did not answer as it must.
    """
    with ExitStack() as stack:
        server = Server(stack, folder, {case.provider for case in CASES.values()})
        return {name: Cost(_cost(server, case), 0, 2) for name, case in CASES.items()}


def _cost(server: Server, case: Case) -> float:
    """Returns the instructions of one request, or of one event that comes alone."""
    if case.is_alone:
        few, many = (server.cost_of_events(case, one_by_one(case.provider, count)) for count in (FEW, MANY))
        return (many - few) / (MANY - FEW)
    if case.path == EMBEDDINGS:
        return server.cost(case, embedding())
    return server.cost(case, fixture(case.fixture) if case.fixture else at_once(case.provider))


def serve(marks_path: str, configuration: str) -> None:
    """Under valgrind: the server; SIGUSR1 begins to count, SIGUSR2 writes the counts."""
    marks = CDLL(marks_path)

    def begin(number: int, frame: FrameType | None) -> None:
        marks.gai_count_from_here()

    def dump(number: int, frame: FrameType | None) -> None:
        marks.gai_dump(b"requests")

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, dump)
    from gai_fast.cli import main  # only the process that is counted needs it
    from gai_fast.runtime.limits import LIMITS as TIMERS
    from gai_fast.server.limits import LIMITS as SERVER

    # On a slow machine more looks at the timers and at the loop's lateness would be counted with each request: an event
    # alone cost up to 5 % more.
    object.__setattr__(TIMERS, "timer_tick", TICK)
    object.__setattr__(SERVER, "loop_check", float(SECONDS))
    sys.argv = ["gai-fast", "serve", "--config", configuration]
    main()


def request_of(case: Case) -> bytes:
    """Returns the bytes that ask for an answer."""
    asked: dict[str, object] = {"model": case.provider.replace(":", "-"), "stream": True}
    if case.path == EMBEDDINGS:
        asked = {"model": asked["model"], "input": ["x" * 400], "encoding_format": "base64"}
    elif case.path == RESPONSES:
        asked["input"] = "hi"
    else:
        asked["messages"] = [{"role": "user", "content": "hi"}]
    if case.resumable:
        asked["resumable"] = True
    if case.path == SOCKET:
        return request_message(asked)
    body = json.dumps(asked).encode()
    return b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        case.path.encode(),
        len(body),
        body,
    )


class Server:
    """The server under callgrind, its client and its upstream.

    Args:
        stack: Ends the process and closes the sockets.
        folder: Where callgrind writes to.
        providers: The providers of the upstreams.
        more: Further tables of the configuration.
        serve: The command of `benchmarks.instructions` that serves.
        variables: Further variables of the process.
    """

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        providers: set[str],
        more: str = "",
        serve: str = "serve",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._stack = stack
        self._folder = folder
        self._dumps = 0
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._port = 0  # the system gives one, and the server says which
        configuration = folder / "gai-fast.toml"
        configuration.write_text(self._configuration(providers) + more)
        self._log = folder / "log"
        command = [sys.executable, "-m", "benchmarks.instructions", serve]
        counted = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [*counted, *command, str(build_marks(folder)), str(configuration)],
                    cwd=ROOT,
                    env={**os.environ, **counted_environment(), **variables, "PATH_KEY": "k"},
                    stdout=log,
                    stderr=log,
                )
            except FileNotFoundError:
                raise RuntimeError("valgrind is needed to count instructions") from None
        stack.callback(self._stop)
        self.wait("the server listens", self._listens)

    @property
    def upstream_url(self) -> str:
        """Where the server asks its upstreams."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _configuration(self, providers: set[str]) -> str:
        parts = ["[server]\nport = 0\naccess_log = false\n"]
        for provider in sorted(providers):
            name = provider.replace(":", "-")
            parts.append(
                f'[[upstream]]\nname = "{name}"\nprovider = "{provider}"\nbase_url = "{self.upstream_url}"\n'
                f'api_key = "env:PATH_KEY"\nlane = ["{EMBEDDINGS}"]\n[[model]]\nname = "{name}"\nupstream = "{name}"\n'
            )
        return "".join(parts)

    def cost(self, case: Case, pieces: list[bytes]) -> float:
        """Returns the instructions of one request.

        Args:
            case: The kind of request.
            pieces: The bytes that the upstream sends; each after the client has received the result of the one before.
        """
        with self.connected() as client:
            if case.path == SOCKET:
                self._open_socket(client)
            for _ in range(WARM_UP):
                self.ask(client, case, pieces)
            self.begin()
            self.ask(client, case, pieces)
            self.counted()
            counts = []
            for _ in range(ROUNDS):
                for _ in range(REQUESTS):
                    self.ask(client, case, pieces)
                counts.append(self.counted().without_libc)
        return min(counts) / REQUESTS

    def cost_of_events(self, case: Case, pieces: list[bytes]) -> int:
        """Returns the instructions from the first piece of an answer to the last one, without both.

        A request varies by 1 %. With it in the counts, an event would vary by as much.

        Args:
            case: As for `cost`.
            pieces: As for `cost`.
        """
        counts = []
        with self.connected() as client:
            if case.path == SOCKET:
                self._open_socket(client)
            for _ in range(WARM_UP):
                self.ask(client, case, pieces)
            self.begin()
            for _ in range(ANSWERED):
                found: list[int] = []
                self.ask(client, case, pieces, lambda found=found: found.append(self.counted().without_libc))
                counts.append(found[1])
        return min(counts)

    def connected(self) -> socket.socket:
        """Returns a client's connection."""
        client = socket.create_connection(("127.0.0.1", self._port), timeout=SECONDS)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def begin(self) -> None:
        """Begins to count."""
        os.kill(self._process.pid, signal.SIGUSR1)

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the server."""
        os.kill(self._process.pid, number)

    def ask(
        self, client: socket.socket, case: Case, pieces: list[bytes], mark: Callable[[], None] | None = None
    ) -> None:
        """One exchange, checked.

        Args:
            client: The client's connection.
            case: As for `cost`.
            pieces: As for `cost`.
            mark: Called after the first piece and before the last one.
        """
        last = {SOCKET: _SOCKET_END, EMBEDDINGS: _EMBEDDING_END}.get(case.path, BODY_END)
        answer = self.exchange(client, request_of(case), pieces, mark, last=last)
        is_well = case.path == SOCKET or answer.startswith(b"HTTP/1.1 200 ")
        if not is_well or not (last == _EMBEDDING_END or any(end in answer for end in _ENDS)):
            raise RuntimeError(f"the answer is not what it must be:\n{answer[:2000].decode(errors='replace')}")

    def exchange(
        self,
        client: socket.socket,
        request: bytes,
        pieces: Sequence[bytes],
        mark: Callable[[], None] | None = None,
        *,
        delta: bytes = b'"type":"text.delta"',
        before: int = 0,
        last: bytes = BODY_END,
    ) -> bytes:
        """Returns the answer to a request, whose upstream sends each piece once the client has the one before.

        Args:
            client: The client's connection.
            request: The request.
            pieces: What the upstream sends.
            mark: As for `ask`.
            delta: What the answer has for each piece.
            before: The pieces at the beginning for which it has none.
            last: How it ends.
        """
        client.sendall(request)
        upstream, answer = self.asked_upstream(client), b""
        for number, piece in enumerate(pieces, 1):
            if mark is not None and number in (2, len(pieces)):
                mark()
            upstream.sendall(piece)
            while number < len(pieces) and answer.count(delta) < number - before:
                answer += self.receive(client)
        while not answer.endswith(last):
            answer += self.receive(client)
        return answer

    def _open_socket(self, client: socket.socket) -> None:
        """Opens a WebSocket, over which the case is then asked for."""
        client.sendall(handshake(SOCKET, "127.0.0.1"))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.receive(client)
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise RuntimeError(f"the WebSocket was not opened:\n{answer[:2000].decode(errors='replace')}")

    def asked_upstream(self, client: socket.socket) -> socket.socket:
        """Returns the upstream's connection, after the request that came on it was read."""
        while True:
            ready = self._selector.select(SECONDS)
            if not ready:
                raise RuntimeError(f"no request reached the upstream: {client.recv(2000)!r}")
            for key, _ in ready:
                if key.fileobj is self._listener:
                    made, _ = self._listener.accept()
                    self._stack.enter_context(made)
                    made.settimeout(SECONDS)
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._selector.register(made, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket):
                    if self._read_request(key.fileobj):
                        return key.fileobj
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()

    def _read_request(self, connection: socket.socket) -> bool:
        """Reads a whole request; false if the connection has ended."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return False
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        while length is not None and len(body) < int(length[1]):
            body += self.receive(connection)
        return True

    def receive(self, connection: socket.socket) -> bytes:
        """Returns the next bytes of a connection."""
        data = connection.recv(1 << 20)
        if not data:
            raise RuntimeError(f"a connection was closed:\n{self._log.read_text()[-2000:]}")
        return data

    def counted(self) -> Counted:
        """Returns the counts since the last call."""
        self._dumps += 1
        path = self._folder / f"out.{self._dumps}"
        os.kill(self._process.pid, signal.SIGUSR2)
        self.wait("callgrind writes", lambda: path.exists() and b"\ntotals:" in path.read_bytes()[-100:])
        return read(path)

    def _listens(self) -> bool:
        said = re.search(r" on http://127\.0\.0\.1:(\d+)\n", self._log.read_text())
        self._port = 0 if said is None else int(said[1])
        return said is not None

    def wait(self, what: str, is_done: Callable[[], bool]) -> None:
        """Waits until something is done. `what` says it, for an error."""
        deadline = time.monotonic() + SECONDS
        while not is_done():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"waited in vain until {what}:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
