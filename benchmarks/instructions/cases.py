"""The counted cases: each calls one kernel n times."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from typing import Any, Final

from gai_fast import kernels as native
from gai_fast.core.relay import Relay
from gai_fast.formats import Framing, StreamContext, get_format
from gai_fast.model.metrics import GAP_BOUNDS
from gai_fast.processors.json_stream import JSONStreamProcessor
from gai_fast.providers import get_provider
from gai_fast.providers.chat.answers import ChatAdapter

Run = Callable[[int], None]

TEXT = "Hello, world! "
LONG = ("The quick brown fox jumps over the lazy dog. " * 23)[:1024]
MIXED = ("Grüße aus Köln 你好，世界 ok\n" * 40)[:1024]
EVENT = {"type": "tool.call.delta", "call_id": "call_1", "index": 0, "arguments": '{"city": "Os'}
NOW = 1_700_000_000_000


def encoder(kind: str, method: str, *arguments: Any, **options: Any) -> Run:
    """Returns a method of an encoder whose buffer is emptied now and then, without a copy."""
    made = getattr(native, kind)(capacity=65_536, **options)
    made.text_delta("first")
    call = getattr(made, method)

    def run(n: int) -> None:
        for _ in repeat(None, n // 50):
            for _ in repeat(None, 50):
                call(*arguments)
            with made.view():
                pass

    return run


def calls(function: Callable[..., Any], *arguments: Any) -> Run:
    def run(n: int) -> None:
        for _ in repeat(None, n):
            function(*arguments)

    return run


def feeds(parser: Any, event: bytes, *, at_once: int = 50) -> Run:
    """Events fed so many at once; 0: one byte at a time."""
    pieces = [event[at : at + 1] for at in range(len(event))] if not at_once else [event * at_once]
    feed = parser.feed

    def run(n: int) -> None:
        for _ in repeat(None, n // (at_once or 1)):
            for piece in pieces:
                feed(piece)

    return run


def learned(frame: Callable[[str, str], bytes], path: list[Any], **sets: Any) -> Any:
    """Returns a copier that knows frames of a kind."""
    framer = native.LineFramer if frame("", "").startswith(b"{") else native.SSEFramer
    made = native.DeltaCopier(framer(), False, frozenset({path[-1]}), **sets)
    (first,) = framer().feed(frame("word", "1"))
    text = json.loads(first.data)
    for step in path:
        text = text[step]
    parts = (b'event: text.delta\ndata: {"type":"text.delta","seq":', "seq", b',"text":"', "text", b'"}\n\n')
    made.learn(first, {"type": "text.delta", "text": text}, "text", parts)
    return made


def copier(frame: Callable[[str, str], bytes], path: list[Any], *, at_once: int = 50, **sets: Any) -> Run:
    """Frames of a learned kind; 0 at once: one byte at a time."""
    made = learned(frame, path, **sets)
    event = frame(" more", "234")
    pieces = [event[at : at + 1] for at in range(len(event))] if not at_once else [event * at_once]
    count = at_once or 1

    def run(n: int) -> None:
        for _ in repeat(None, n // count):
            for piece in pieces:
                made.feed(piece)
                if made.next(7, NOW) is not None:
                    raise AssertionError("not copied")
            if made.take_copied()[1] != count:
                raise AssertionError("not copied")

    return run


class Watched:
    """A sink that counts the texts that came to it as events: the others were copied.

    Args:
        sink: The encoder.
    """

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.texts = 0

    def event(self, event: Any) -> None:
        self.texts += event["type"] == "text.delta"
        self._sink.event(event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


class Relayed:
    """An answer of a provider that is relayed to a client's format.

    Args:
        provider: The provider's name.
        form: The format's name.
        framing: What the client asked for.
        passes: The upstream's frames are passed on.
    """

    def __init__(self, provider: str, form: str, framing: Framing = "sse", *, passes: bool = False) -> None:
        api = get_provider(provider)
        context = StreamContext("s" * 22, "r" * 36, None, "m", lambda: NOW)
        wanted = get_format(form)
        made = wanted.passthrough(framing, context, whole=False) if passes else wanted.encoder(framing, context)
        self.sink = Watched(made)
        frames: Any = self.sink if passes or wanted.copies_upstream else None
        self.relay = Relay(api.adapter("m"), self.sink, deltas=self.sink, frames=frames, stream_id="s" * 22)
        self.relay.receive_head(200, {"content-type": "text/event-stream"})
        opening, self.frame = ANSWERS[provider]
        self.relay.receive_data(opening + self.frame("word", "123") + self.frame(" word", "12"), NOW)

    def take(self, data: bytes) -> bytes:
        """Relays one read."""
        self.relay.receive_data(data, NOW)
        taken: bytes = self.sink.take()
        return taken


def relayed(provider: str, form: str, *, passes: bool = False) -> Run:
    """Deltas that a relay copies into a format; those that come as events fail."""
    stream = Relayed(provider, form, passes=passes)
    data = stream.frame(" more", "234") * 50

    def run(n: int) -> None:
        before = stream.relay.deltas, stream.sink.texts
        for _ in repeat(None, n // 50):
            stream.take(data)
        if (stream.relay.deltas, stream.sink.texts) != (before[0] + n, before[1]):
            raise AssertionError("not copied")

    return run


class Peer:
    """An upstream's connection or a client's, which lends the socket that it is given."""

    records = None  # it is plain

    def __init__(self, sock: socket.socket | None = None) -> None:
        self.sock = sock

    def write(self, data: bytes) -> None: ...

    def lend(self, borrower: object) -> int:
        return -1 if self.sock is None else self.sock.fileno()


class Loop:
    """Holds the callbacks of the next turn, and the callback of the watched descriptor."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.call_soon = self.due.append
        self.read: Callable[[], None]

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.read = callback

    def remove_reader(self, fd: int) -> None: ...


class Alone:
    """A stream whose reads bring one chunk of one frame."""

    def __init__(self, upstream: Peer, client: Peer) -> None:
        self.counters = native.StreamCounters(native.Bounds(GAP_BOUNDS), 0.0)
        self.fast_path = native.FastPath(learned(chat, CHAT, ignored=IGNORED), client, lambda: NOW, self.counters)
        self.fast_path.chunks = native.ChunkedBody()
        self.fast_path.follow(7, 0)
        self.upstream = upstream
        self.loop = Loop()
        self.turn = native.ReadBatch(self.loop, lambda: 1.0)
        frame = chat(" more", "234")
        self.read = b"%x\r\n%b\r\n" % (len(frame), frame)

    def take(self, reads: int) -> None:
        """One turn of the loop."""
        for _ in repeat(None, reads):
            self.turn.add(self.upstream, None, self.fast_path, self.read)
        self.loop.due.pop()()


def alone() -> Run:
    """Ten reads share a turn; from chunk to chunk."""
    stream = Alone(Peer(), Peer())

    def run(n: int) -> None:
        before = stream.counters.deltas
        for _ in repeat(None, n // 10):
            stream.take(10)
        if stream.counters.deltas != before + n:
            raise AssertionError("not copied")

    return run


def borrowed() -> Run:
    """From socket to socket, with what it takes to send to the one and to receive from the other."""
    (upstream, provider), (client, program) = socket.socketpair(), socket.socketpair()
    stream = Alone(Peer(upstream), Peer(client))
    program.settimeout(60)
    stream.take(4)
    provider.send(stream.read)  # writing goes through the connection, which then lends its socket
    stream.loop.read()

    def run(n: int) -> None:
        for _ in repeat(None, n):
            provider.send(stream.read)
            stream.loop.read()
            if not program.recv(1024):
                raise AssertionError("not copied")

    return run


def messages_made() -> Run:
    frames, lead = SSE_EVENT * 50, b'{"stream":"a",'

    def run(n: int) -> None:
        for _ in repeat(None, n // 50):
            native.frame_messages(frames, lead)

    return run


def learning() -> Run:
    adapter = get_provider("openai").adapter("m")
    (frame,) = native.SSEFramer().feed(chat("word", "abc"))
    event, parts = {"type": "text.delta", "text": "word"}, (b"<", "seq", b">", "text", b"\n")

    def run(n: int) -> None:
        for _ in repeat(None, n):
            made = native.DeltaCopier(native.SSEFramer(), False, adapter.text_members, adapter.ignored_members)
            made.learn(frame, event, "text", parts)

    return run


def recalling() -> Run:
    """Returns a stream whose first frame is like those that another one has learned."""
    adapter = get_provider("openai").adapter("m")
    (frame,) = native.SSEFramer().feed(chat("word", "abc"))
    event, parts = {"type": "text.delta", "text": "word"}, (b"<", "seq", b">", "text", b"\n")
    sets = adapter.text_members, adapter.ignored_members, adapter.kept_members, adapter.label_members
    native.DeltaCopier(native.SSEFramer(), False, *sets).learn(frame, event, "text", parts, True)
    again = chat("first", "de")

    def run(n: int) -> None:
        for _ in repeat(None, n):
            made = native.DeltaCopier(native.SSEFramer(), False, *sets)
            made.expect(event, "text", parts)
            made.feed(again)
            if made.next(7, NOW) is not None:
                raise AssertionError("not copied")

    return run


def chunked() -> Run:
    body = native.ChunkedBody()
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [chat(" tok", "abcd")] * 50)

    def run(n: int) -> None:
        for _ in repeat(None, n // 50):
            body.feed(data)

    return run


# Frames as the services send them; the second argument is the part that varies beside the text.


def chat(text: str, varying: str) -> bytes:
    return (
        'data: {"id":"chatcmpl-DQcd8iR3VKnlPcAmoslfFgJtCAXDn","object":"chat.completion.chunk","created":1775237394,'
        '"model":"gpt-5-mini-2026-04-02","service_tier":"default","system_fingerprint":"fp_162d3c480f","choices":[{"index"'
        f':0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null}}],"usage":null,"obfuscation":"{varying}"'
        "}\n\n"
    ).encode()


def json_answer(size: int = 4, **options: Any) -> Run:
    """Returns one JSON answer of n members, followed in deltas of so many characters."""

    def run(n: int) -> None:
        processor = JSONStreamProcessor(**options)
        for now, event in enumerate(json_deltas(n, size)):
            for _ in processor.process(event, now):
                pass

    return run


def json_parsed_anew() -> Run:
    """Returns a quadratic version of the same: all text so far, parsed with every delta."""

    def run(n: int) -> None:
        text = ""
        for event in json_deltas(n, 4):
            text += event["text"]
            with suppress(ValueError):  # not whole yet
                json.loads(text)

    return run


def json_deltas(n: int, size: int) -> list[Any]:
    members = (f'"key {at}":{{"n":[1,-2.5e3,true,null],"s":"text with \\"escapes\\" and more"}}' for at in range(n))
    text = f"{{{','.join(members)}}}"
    return [{"type": "text.delta", "text": text[at : at + size]} for at in range(0, len(text), size)]


def messages(text: str, varying: str) -> bytes:
    return (
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":'
        f'"{text}"}}{" " * len(varying)}}}\n\n'
    ).encode()


def gemini(text: str, varying: str) -> bytes:
    count = varying or 0
    return (
        f'data: {{"candidates": [{{"content": {{"parts": [{{"text": "{text}"}}],"role": "model"}},"index": 0}}],'
        f'"usageMetadata": {{"promptTokenCount": 7,"candidatesTokenCount": {count},"totalTokenCount": {count},'
        '"promptTokensDetails": [{"modality": "TEXT","tokenCount": 7}]},"modelVersion": "mock","responseId": "kLew"}'
        "\r\n\r\n"
    ).encode()


def ollama(text: str, varying: str) -> bytes:
    return (
        f'{{"model":"mock","created_at":"2026-11-20T09:51:36.{varying}Z","message":{{"role":"assistant","content":"{text}"'
        '},"done":false}\n'
    ).encode()


def responses(text: str, varying: str) -> bytes:
    return (
        'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","content_index":0,"delta":'
        f'"{text}","item_id":"msg_1","logprobs":[],"obfuscation":"{varying}","output_index":0,"sequence_number":{varying}}}'
        "\n\n"
    ).encode()


def named(kind: str, members: str) -> bytes:
    return f'event: {kind}\ndata: {{"type":"{kind}",{members}}}\n\n'.encode()


ANSWERS: Final[dict[str, tuple[bytes, Callable[[str, str], bytes]]]] = {
    "openai-compatible": (b"", chat),
    "openai:responses": (
        named(
            "response.created",
            '"response":{"id":"r","status":"in_progress","model":"m","output":[]},"sequence_number":0',
        )
        + named(
            "response.output_item.added",
            '"item":{"id":"msg_1","type":"message","status":"in_progress","content":[],"role":"assistant"},'
            '"output_index":0,"sequence_number":1',
        )
        + named(
            "response.content_part.added",
            '"content_index":0,"item_id":"msg_1","output_index":0,"part":{"type":"output_text","annotations":[],"text":""},'
            '"sequence_number":2',
        ),
        responses,
    ),
    "anthropic": (
        named(
            "message_start",
            '"message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],'
            '"usage":{"input_tokens":9,"output_tokens":1}}',
        )
        + named("content_block_start", '"index":0,"content_block":{"type":"text","text":""}'),
        messages,
    ),
    "gemini": (b"", gemini),
    "ollama": (b"", ollama),
}
"""By provider: the beginning of an answer, and its deltas."""
CHAT = ["choices", 0, "delta", "content"]
MESSAGES = ["delta", "text"]
GEMINI = ["candidates", 0, "content", "parts", 0, "text"]
OLLAMA = ["message", "content"]
IGNORED = frozenset({"obfuscation", "created", "system_fingerprint"})
SSE_EVENT = b'event: text.delta\ndata: {"type":"text.delta","seq":1234,"text":"Hello, world! "}\n\n'
LINE = b'{"type":"text.delta","seq":1234,"text":"Hello, world! "}\n'

CASES: dict[str, Callable[[], Run]] = {
    "text delta, SSE": lambda: encoder("SSEEncoder", "text_delta", TEXT),
    "text delta, NDJSON": lambda: encoder("NDJSONEncoder", "text_delta", TEXT, request_id="r" * 36, clock=lambda: NOW),
    "text delta, SSE with ids": lambda: encoder("SSEEncoder", "text_delta", TEXT, stream_id="s" * 22),
    "text delta, 1 KiB of ASCII": lambda: encoder("SSEEncoder", "text_delta", LONG),
    "text delta, 1024 mixed ones": lambda: encoder("SSEEncoder", "text_delta", MIXED),
    "any event, SSE": lambda: encoder("SSEEncoder", "event", EVENT),
    "any event, NDJSON": lambda: encoder("NDJSONEncoder", "event", EVENT),
    "encode_sse": lambda: calls(native.encode_sse, {"content": TEXT}),
    "escape": lambda: calls(native.escape, TEXT),
    "SSE event parsed": lambda: feeds(native.SSEParser(), SSE_EVENT),
    "SSE event parsed, byte by byte": lambda: feeds(native.SSEParser(), SSE_EVENT, at_once=0),
    "SSE frame cut": lambda: feeds(native.SSEFramer(), SSE_EVENT),
    "NDJSON value parsed": lambda: feeds(native.NDJSONParser(), LINE),
    "chunked body, a chunk": chunked,
    "frame copied, chat": lambda: copier(chat, CHAT, ignored=IGNORED),
    "frame copied, chat, byte by byte": lambda: copier(chat, CHAT, ignored=IGNORED, at_once=0),
    "frame copied, Anthropic": lambda: copier(messages, MESSAGES),
    "frame copied, Gemini": lambda: copier(gemini, GEMINI, kept=frozenset({"usageMetadata"})),
    "frame copied, Ollama": lambda: copier(ollama, OLLAMA, ignored=frozenset({"created_at"})),
    "frame that comes alone, chat": alone,
    "frame that comes alone, from socket to socket": borrowed,
    "delta, chat as gai": lambda: relayed("openai-compatible", "gai"),
    "delta, chat as responses": lambda: relayed("openai-compatible", "responses"),
    "delta, chat as anthropic": lambda: relayed("openai-compatible", "anthropic"),
    "delta, chat as vercel": lambda: relayed("openai-compatible", "vercel"),
    "delta, chat as agui": lambda: relayed("openai-compatible", "agui"),
    "delta, chat as completions": lambda: relayed("openai-compatible", "completions"),
    "delta, chat as simple": lambda: relayed("openai-compatible", "simple"),
    "delta, chat as raw": lambda: relayed("openai-compatible", "raw"),
    "delta, Messages as chat": lambda: relayed("anthropic", "openai"),
    "delta, chat passed through": lambda: relayed("openai-compatible", "openai", passes=True),
    "delta, Responses passed through": lambda: relayed("openai:responses", "responses", passes=True),
    "delta, Messages passed through": lambda: relayed("anthropic", "anthropic", passes=True),
    "message of a WebSocket": messages_made,
    "frame learned": learning,
    "frame recalled": recalling,
    "plain chunk read": lambda: calls(ChatAdapter.plain.read, chat("word", "abc")[6:-2].decode()),
    "encoder made": lambda: calls(native.SSEEncoder),
}
GROWTHS: dict[str, Callable[[], Run]] = {
    "JSON answer followed": json_answer,
    "JSON answer followed, fenced": lambda: json_answer(recover=True),
    "JSON answer followed, snapshots": lambda: json_answer(1, snapshots_ms=0),
    "JSON answer parsed anew": json_parsed_anew,
}
"""Cases in pure Python: only their growth is checked, in all instructions of the process."""
QUADRATIC: Final = "JSON answer parsed anew"
"""A case that is not linear: it proves that the check notices."""
STEPPED: Final = {"JSON answer followed, snapshots": 2.3}
"""Snapshots of a short text come with every delta; they become rarer as it grows."""
GROWTH_COUNT: Final = 20
COUNT: Final = 500
"""Repetitions of a case; it also runs twice as often."""
COUNTS: Final = {"frame copied, chat, byte by byte": 50, "SSE event parsed, byte by byte": 100}
"""Cases with more work in each repetition, and their repetitions."""
