"""A fake upstream: answers like a provider, with realistic timing, and fails on demand.

Owns the wire shapes of the dialects it speaks, how it paces them and each fault. Everything it says is determined by
the request and the options, so two runs are equal byte for byte. Knows nothing of the gateway: it is on the other side.

A new dialect is one `Answer` subclass and one entry in `DIALECTS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Final, Self

import click
import httptools

from gai_fast.cli import StartupFailure, option
from gai_fast.limits import LIMITS

WORDS: Final = (
    "Once upon a time a small stream ran down a quiet hill. It carried one word after another, never two at once, "
    "and told each stone it met a part of the story. “Where do you go?” asked the café’s old cat 🐈. To the sea, said "
    "the stream, and I bring it everything I was told, in the order in which I heard it."
).split(" ")
"""What every answer says, over and over: plain words, and a few characters outside ASCII."""

CREATED: Final = 1_700_000_000
READ_SIZE: Final = 65536
STATUSES: Final = {"429": 429, "500": 500, "503": 503}
FAULTS: Final = (
    "refuse",
    *STATUSES,
    "html",
    "json-error",
    "error-event",
    "cut",
    "reset",
    "stall",
    "malformed",
    "silent",
)
_BEFORE_HEAD: Final = frozenset({"html", "json-error", "silent", *STATUSES})
_HTML: Final = b"<!doctype html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and when.

    Args:
        kind: One of `FAULTS`.
        after: Text deltas that are sent first; `None`: the fault stands in place of the answer (for the kinds that can
            only break a running answer: directly after its head).
    """

    kind: str
    after: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `KIND` or `KIND@N`.

        Raises:
            ValueError: No such kind, or N is not a whole number.
        """
        kind, at, after = text.partition("@")
        if kind not in FAULTS:
            raise ValueError(f"no fault {kind!r}; known: {', '.join(FAULTS)}")
        if at and not re.fullmatch(r"[0-9]{1,9}", after):
            raise ValueError(f"after {kind}@ comes how many deltas are sent first, not {after!r}")
        return cls(kind, int(after) if at else None)


class _Broken(Exception):
    """The fault has happened: this connection is over."""


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Answer(ABC):
    """One answer in one dialect.

    Args:
        body: The request, as `asked` returned it.
        number: Counts the requests of a mock from 1; makes ids unique and repeatable.
    """

    suffix: ClassVar[str]
    """How the path of this dialect's requests ends."""
    prompt: ClassVar[str] = "messages"
    """The request's key for what is asked."""
    required: ClassVar[tuple[str, ...]]
    limits: ClassVar[tuple[str, ...]]
    """The request's keys that bound the answer's tokens."""

    def __init__(self, body: Mapping[str, Any], number: int) -> None:
        self.model = str(body.get("model"))
        self.number = number
        self.body = body
        self.input_tokens = len(_json(body.get(self.prompt))) // 4

    @classmethod
    def asked(cls, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The request with what its path says; `None` where the path is another dialect's."""
        return body if path.endswith(cls.suffix) else None

    def texts(self, deltas: int) -> tuple[list[str], bool]:
        """The text deltas, and whether the request's own limit cut them short."""
        asked = [value for key in self.limits if isinstance(value := self.body.get(key), int) and value > 0]
        count = min([deltas, *asked])
        words = [WORDS[index % len(WORDS)] for index in range(count)]
        return [word if index == 0 else f" {word}" for index, word in enumerate(words)], count < deltas

    @abstractmethod
    def opening(self) -> list[bytes]:
        """The frames before the first text."""

    @abstractmethod
    def delta(self, text: str) -> bytes:
        """The frame of one text delta."""

    @abstractmethod
    def closing(self, tokens: int, cut_short: bool) -> list[bytes]:
        """The frames after the last text, end mark included."""

    @abstractmethod
    def whole(self, texts: Sequence[str], cut_short: bool) -> dict[str, Any]:
        """The answer as one object."""

    @classmethod
    @abstractmethod
    def error(cls, status: int, message: str) -> dict[str, Any]:
        """The body of an error."""

    @classmethod
    @abstractmethod
    def error_frame(cls, status: int, message: str) -> bytes:
        """An error inside a running stream."""


class OpenAIAnswer(Answer):
    """Chat completions."""

    suffix = "/chat/completions"
    required = ("model", "messages")
    limits = ("max_completion_tokens", "max_tokens")

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        chunk: dict[str, Any] = {
            "id": f"chatcmpl-mock-{self.number}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.model,
            "choices": choices,
        }
        if self._wants_usage():
            chunk["usage"] = usage
        return b"data: %b\n\n" % _json(chunk)

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    def _wants_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def _usage(self, tokens: int) -> dict[str, int]:
        total = self.input_tokens + tokens
        return {"prompt_tokens": self.input_tokens, "completion_tokens": tokens, "total_tokens": total}

    def opening(self) -> list[bytes]:
        return [self._chunk([self._choice({"role": "assistant", "content": "", "refusal": None})])]

    def delta(self, text: str) -> bytes:
        return self._chunk([self._choice({"content": text})])

    def closing(self, tokens: int, cut_short: bool) -> list[bytes]:
        frames = [self._chunk([self._choice({}, "length" if cut_short else "stop")])]
        if self._wants_usage():
            frames.append(self._chunk([], self._usage(tokens)))
        return [*frames, b"data: [DONE]\n\n"]

    def whole(self, texts: Sequence[str], cut_short: bool) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(texts), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length" if cut_short else "stop"}
        return {
            "id": f"chatcmpl-mock-{self.number}",
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": [choice],
            "usage": self._usage(len(texts)),
        }

    @classmethod
    def error(cls, status: int, message: str) -> dict[str, Any]:
        kinds = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}
        code = {429: "rate_limit_exceeded"}.get(status)
        return {
            "error": {"message": message, "type": kinds.get(status, "server_error"), "param": None, "code": code},
        }

    @classmethod
    def error_frame(cls, status: int, message: str) -> bytes:
        return b"data: %b\n\n" % _json(cls.error(status, message))


class AnthropicAnswer(Answer):
    """Messages."""

    suffix = "/messages"
    required = ("model", "messages", "max_tokens")
    limits = ("max_tokens",)

    @staticmethod
    def _frame(event: dict[str, Any]) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _json(event))

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None, output_tokens: int) -> dict[str, Any]:
        return {
            "id": f"msg_mock_{self.number}",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": self.input_tokens, "output_tokens": output_tokens},
        }

    def opening(self) -> list[bytes]:
        block = {"type": "text", "text": ""}
        return [
            self._frame({"type": "message_start", "message": self._message([], None, 1)}),
            self._frame({"type": "content_block_start", "index": 0, "content_block": block}),
            self._frame({"type": "ping"}),
        ]

    def delta(self, text: str) -> bytes:
        return self._frame(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        )

    def closing(self, tokens: int, cut_short: bool) -> list[bytes]:
        delta = {"stop_reason": "max_tokens" if cut_short else "end_turn", "stop_sequence": None}
        return [
            self._frame({"type": "content_block_stop", "index": 0}),
            self._frame({"type": "message_delta", "delta": delta, "usage": {"output_tokens": tokens}}),
            self._frame({"type": "message_stop"}),
        ]

    def whole(self, texts: Sequence[str], cut_short: bool) -> dict[str, Any]:
        content = [{"type": "text", "text": "".join(texts)}]
        return self._message(content, "max_tokens" if cut_short else "end_turn", len(texts))

    @classmethod
    def error(cls, status: int, message: str) -> dict[str, Any]:
        kinds = {
            400: "invalid_request_error",
            404: "not_found_error",
            429: "rate_limit_error",
            503: "overloaded_error",
        }
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}

    @classmethod
    def error_frame(cls, status: int, message: str) -> bytes:
        return cls._frame(cls.error(status, message))


class GeminiAnswer(Answer):
    """Gemini: the path says which model, and whether it streams."""

    suffix = "enerateContent"
    prompt = "contents"
    required = ("contents",)
    limits = ("max_tokens",)

    @classmethod
    def asked(cls, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        found = re.search(r"/([^/:]+):(g|streamG)enerateContent$", path)
        if found is None:
            return None
        generation = body.get("generationConfig")
        limit = generation.get("maxOutputTokens") if isinstance(generation, dict) else None
        return {**body, "model": found[1], "stream": found[2] == "streamG", "max_tokens": limit}

    def _answer(self, text: str, tokens: int, finish_reason: str | None = None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        if finish_reason:
            candidate["finishReason"] = finish_reason
        usage = {"promptTokenCount": self.input_tokens, "candidatesTokenCount": tokens}
        return {
            "candidates": [candidate],
            "usageMetadata": {**usage, "totalTokenCount": self.input_tokens + tokens},
            "modelVersion": self.model,
            "responseId": f"mock-{self.number}",
        }

    def opening(self) -> list[bytes]:
        return []

    def delta(self, text: str) -> bytes:
        return b"data: %b\n\n" % _json(self._answer(text, 1))

    def closing(self, tokens: int, cut_short: bool) -> list[bytes]:
        return [b"data: %b\n\n" % _json(self.whole([""] * tokens, cut_short))]

    def whole(self, texts: Sequence[str], cut_short: bool) -> dict[str, Any]:
        return self._answer("".join(texts), len(texts), "MAX_TOKENS" if cut_short else "STOP")

    @classmethod
    def error(cls, status: int, message: str) -> dict[str, Any]:
        kinds = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
        return {"error": {"code": status, "message": message, "status": kinds.get(status, "INTERNAL")}}

    @classmethod
    def error_frame(cls, status: int, message: str) -> bytes:
        return b"data: %b\n\n" % _json(cls.error(status, message))


DIALECTS: Final[Mapping[str, type[Answer]]] = {
    "openai": OpenAIAnswer,
    "anthropic": AnthropicAnswer,
    "gemini": GeminiAnswer,
}


@dataclass(slots=True)
class MockRequest:
    """One request as it came, and what became of it. Times are `time.monotonic()` seconds."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case; of repeated ones the last."""
    raw: bytes
    body: Any
    """The JSON, or `None` where it is none."""
    keep_alive: bool
    at: float
    deltas: int = 0
    """Text deltas written so far."""
    answered_at: float | None = None
    """When the whole answer had been written."""
    closed_at: float | None = None
    """When the connection was lost or closed."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with `closed_at`: what a test waits for to see that the gateway let go."""


class Mock:
    """A fake upstream in this process.

        async with Mock(rate=0) as mock:
            ...  # ask f"{mock.url}/v1/chat/completions"

    Args:
        dialect: A name of `DIALECTS`; empty: all of them, told apart by the path.
        rate: Text deltas a second; 0: as fast as the client takes them.
        ttft: Seconds from the request to the first frame.
        deltas: Text deltas of an answer.
        fault: What goes wrong, if anything; may be replaced at any time, for the next request.
        host: Address to listen on.
        port: 0 chooses a free one.
    """

    def __init__(
        self,
        *,
        dialect: str = "",
        rate: float = 0.0,
        ttft: float = 0.0,
        deltas: int = 64,
        fault: Fault | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.dialects = {dialect: DIALECTS[dialect]} if dialect else dict(DIALECTS)
        self.rate = rate
        self.ttft = ttft
        self.deltas = deltas
        self.fault = fault
        self.requests: list[MockRequest] = []
        self.connections = 0
        """Connections accepted so far."""
        self._address = (host, port)
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens: scheme, host and port."""
        assert self._socket is not None, "the mock has not been started"
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Begins to listen.

        Raises:
            OSError: The port is taken.
        """
        # With the protocol named asyncio turns Nagle off: otherwise a reused connection waits 40 ms for an ACK.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(self._address)
            # A bound socket that does not listen: the kernel refuses, and nobody else can take the port.
            if self.fault is None or self.fault.kind != "refuse":
                self._server = await asyncio.start_server(self._connected, sock=self._socket, backlog=LIMITS.backlog)
        except OSError:
            self._socket.close()
            raise

    async def stop(self) -> None:
        """Stops listening and closes every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.stop()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            connection = _Connection(self, reader, writer)
            if self.fault is not None and self.fault.kind == "refuse" and self.fault.after is None:
                await connection.reset()  # told to refuse after it began to listen
            else:
                await connection.run()
        except _Broken:
            pass
        except asyncio.CancelledError:
            pass  # only `stop` cancels; asyncio would report it as an error of the callback
        finally:
            self._open.discard(task)
            writer.close()


class _Connection:
    """One connection: reads requests all the time, so that a lost client is seen at once, and answers them in turn."""

    def __init__(self, mock: Mock, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.mock = mock
        self.reader = reader
        self.writer = writer
        self.parser = httptools.HttpRequestParser(self)
        self.waiting: asyncio.Queue[MockRequest] = asyncio.Queue()
        self.seen: list[MockRequest] = []
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        raw = bytes(self.body)
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        request = MockRequest(
            method=self.parser.get_method().decode(),
            path=self.target.decode("latin-1").partition("?")[0],
            headers=self.headers,
            raw=raw,
            body=body,
            keep_alive=self.parser.should_keep_alive(),
            at=time.monotonic(),
        )
        self.mock.requests.append(request)
        self.seen.append(request)
        self.waiting.put_nowait(request)

    async def run(self) -> None:
        answers = asyncio.create_task(self._answer_all())
        reads = asyncio.create_task(self._read_all())
        try:
            await asyncio.wait((answers, reads), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answers, reads):
                task.cancel()
            await asyncio.gather(answers, reads, return_exceptions=True)
            for request in self.seen:
                request.closed_at = time.monotonic()
                request.closed.set()

    async def _read_all(self) -> None:
        with contextlib.suppress(ConnectionError, httptools.HttpParserError, httptools.HttpParserUpgrade):
            while (data := await self.reader.read(READ_SIZE)) and len(self.body) <= LIMITS.whole_answer:
                self.parser.feed_data(data)

    async def _answer_all(self) -> None:
        with contextlib.suppress(ConnectionError, _Broken):
            while True:
                request = await self.waiting.get()
                await self._answer(request)
                request.answered_at = time.monotonic()
                if not request.keep_alive:
                    return

    async def _answer(self, request: MockRequest) -> None:
        if request.method == "GET" and request.path.endswith("/models"):
            models = [{"id": "mock", "object": "model", "created": CREATED, "owned_by": "gai-fast"}]
            await self._whole(HTTPStatus.OK, _json({"object": "list", "data": models}))
            return
        body = request.body if isinstance(request.body, dict) else {}
        found = ((kind, kind.asked(request.path, body)) for kind in self.mock.dialects.values())
        kind, asked = next(((kind, asked) for kind, asked in found if asked is not None), (None, body))
        if kind is None or request.method != "POST":
            first = next(iter(self.mock.dialects.values()))
            message = f"The mock does not answer {request.method} {request.path}"
            await self._whole(HTTPStatus.NOT_FOUND, _json(first.error(404, message)))
            return
        missing = [key for key in kind.required if not asked.get(key)]
        if missing:
            message = f"The request is not valid: {', '.join(missing)} missing"
            await self._whole(HTTPStatus.BAD_REQUEST, _json(kind.error(400, message)))
            return
        answer = kind(asked, len(self.mock.requests))
        texts, cut_short = answer.texts(self.mock.deltas)
        fault = self.mock.fault
        if fault is not None and fault.after is None and fault.kind in _BEFORE_HEAD:
            await self._instead(kind, fault.kind)
        elif asked.get("stream") is True:
            await self._stream(request, answer, texts, cut_short, fault)
        else:
            await self._once(request, answer, texts, cut_short, fault)

    async def _instead(self, kind: type[Answer], fault: str) -> None:
        """A fault that stands in place of the answer."""
        if fault == "silent":
            await asyncio.Event().wait()
        elif fault == "html":
            await self._whole(HTTPStatus.OK, _HTML, "text/html; charset=utf-8")
        elif fault == "json-error":
            await self._whole(HTTPStatus.OK, _json(kind.error(500, "The mock fails as it was told")))
        else:
            status = STATUSES[fault]
            retry = "retry-after: 1\r\n" if status in (429, 503) else ""
            await self._whole(HTTPStatus(status), _json(kind.error(status, _words(status))), extra=retry)

    async def _stream(
        self, request: MockRequest, answer: Answer, texts: Sequence[str], cut_short: bool, fault: Fault | None
    ) -> None:
        await self._sleep_until(request.at + self.mock.ttft)
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        breaks_at = None if fault is None else fault.after or 0
        if breaks_at == 0 and not await self._break(answer, texts[0], fault):
            return
        for frame in answer.opening():
            self._chunk(frame)
        for index, text in enumerate(texts):
            if self.mock.rate and index:
                await self._sleep_until(request.at + self.mock.ttft + index / self.mock.rate)
            self._chunk(answer.delta(text))
            await self.writer.drain()
            request.deltas += 1
            if request.deltas == breaks_at and not await self._break(answer, text, fault):
                return
        for frame in answer.closing(len(texts), cut_short):
            self._chunk(frame)
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def _break(self, answer: Answer, text: str, fault: Fault | None) -> bool:
        """Breaks a running stream, and says whether it goes on.

        Raises:
            _Broken: The connection is over as well.
        """
        match fault and fault.kind:
            case "malformed":
                frame = answer.delta(text)
                self._chunk(frame[: len(frame) // 2] + b"\n\n")
                return True
            case "cut":
                await self.writer.drain()
                raise _Broken
            case "stall" | "silent":
                await asyncio.Event().wait()
            case "reset" | "refuse":
                await self.reset()
            case "html":
                self._chunk(_HTML + b"\n\n")
            case "json-error":
                self._chunk(_json(answer.error(500, _words(500))) + b"\n\n")
            case kind:
                status = STATUSES.get(kind or "", 503)
                self._chunk(answer.error_frame(status, _words(status)))
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        return False

    async def _once(
        self, request: MockRequest, answer: Answer, texts: Sequence[str], cut_short: bool, fault: Fault | None
    ) -> None:
        """An answer that was not asked for as a stream: it comes when the last delta would have come."""
        taken = (len(texts) - 1) / self.mock.rate if self.mock.rate else 0.0
        await self._sleep_until(request.at + self.mock.ttft + taken)
        body = _json(answer.whole(texts, cut_short))
        match fault and fault.kind:
            case None:
                await self._whole(HTTPStatus.OK, body)
                request.deltas = len(texts)
            case "malformed":
                await self._whole(HTTPStatus.OK, body[: len(body) // 2])
            case "cut" | "stall" | "silent":
                self._head(HTTPStatus.OK, len(body))
                self.writer.write(body[: len(body) // 2])
                await self.writer.drain()
                if fault and fault.kind != "cut":
                    await asyncio.Event().wait()
                raise _Broken
            case "reset" | "refuse":
                await self.reset()
            case "error-event":
                await self._instead(type(answer), "503")
            case kind:
                await self._instead(type(answer), kind or "")

    async def reset(self) -> None:
        """A real RST: what was written is given a moment to leave first, as a reset discards what has not."""
        await self.writer.drain()
        await asyncio.sleep(0.01)
        # l_onoff = 1, l_linger = 0: closing sends RST instead of FIN.
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise _Broken

    async def _sleep_until(self, moment: float) -> None:
        # An absolute schedule: what one sleep takes too long, the next one makes good. One of uvloop's, which counts
        # whole milliseconds, may end within the last of them.
        while True:
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            if time.monotonic() >= moment:
                return

    def _chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _head(self, status: HTTPStatus, length: int, kind: str = "application/json", extra: str = "") -> None:
        self.writer.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n"
            f"{extra}\r\n".encode()
        )

    async def _whole(self, status: HTTPStatus, body: bytes, kind: str = "application/json", extra: str = "") -> None:
        self._head(status, len(body), kind, extra)
        self.writer.write(body)
        await self.writer.drain()


def _words(status: int) -> str:
    return {
        429: "Rate limit reached: the mock fails as it was told",
        503: "Overloaded: the mock fails as it was told",
    }.get(status, "The mock fails as it was told")


async def _run(mock: Mock, ready: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with mock:
        ready(mock.url)
        await stopped.wait()


def _fault(context: click.Context, parameter: click.Parameter, value: str | None) -> Fault | None:
    try:
        return None if value is None else Fault.parse(value)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


@click.command()
@option("--port", type=click.IntRange(0, 65535), default=9000, help="Port on 127.0.0.1; 0 chooses a free one.")
@option("--dialect", type=click.Choice(list(DIALECTS)), help="The one dialect to speak; by default all, by path.")
@option("--rate", type=click.FloatRange(0), default=50.0, help="Text deltas a second; 0: no pause between them.")
@option("--ttft", type=click.FloatRange(0), default=0.3, help="Seconds to the first frame.")
@option("--deltas", type=click.IntRange(1), default=64, help="Text deltas of an answer.")
@option(
    "--fail",
    callback=_fault,
    metavar="KIND[@N]",
    help=f"Fail, after N text deltas where N is given. Kinds: {', '.join(FAULTS)}.",
)
def command(port: int, dialect: str | None, rate: float, ttft: float, deltas: int, fail: Fault | None) -> None:
    """A fake upstream with realistic timing and faults.

    Point an upstream's base_url at the URL it prints.
    """
    mock = Mock(dialect=dialect or "", rate=rate, ttft=ttft, deltas=deltas, fault=fail, port=port)
    try:
        asyncio.run(_run(mock, lambda url: click.echo(f"mock upstream on {url}")))
    except OSError as problem:
        raise StartupFailure(f"cannot listen on 127.0.0.1:{port}: {problem.strerror}") from None
