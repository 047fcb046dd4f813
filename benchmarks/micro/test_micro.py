"""Every step of an event's way, alone; then a whole answer of 100 events, and a round trip."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import orjson
import pytest
from openai._models import construct_type
from openai.types.chat import ChatCompletionChunk

import gai_fast
from gai_fast.core.relay import Relay
from gai_fast.core.session import beginning, session_digest
from gai_fast.formats import get_format
from gai_fast.formats._base import StreamContext
from gai_fast.providers import get_provider
from gai_fast.runtime.ids import new_request_id
from tests.corpus.test_from_sdk import SDKS, through_sdk

Measure = Callable[..., None]

TEXT = "Hello, world! "
NOW = 1_700_000_000_000
USAGE = {"input_tokens": 7, "output_tokens": 100, "total_tokens": 107}
EVENTS: dict[str, dict[str, Any]] = {
    "start": {"type": "start", "provider": "openai", "model": "gpt-5-mini", "stream_id": "s" * 22},
    "text.delta": {"type": "text.delta", "text": TEXT},
    "reasoning.delta": {"type": "reasoning.delta", "text": TEXT},
    "tool.call.delta": {"type": "tool.call.delta", "call_id": "call_1", "index": 0, "arguments": '{"city": "Os'},
    "tool.call": {
        "type": "tool.call",
        "call_id": "call_1",
        "tool_call": {"name": "weather", "input": {"city": "Oslo"}},
    },
    "citations": {
        "type": "citations",
        "citations": [{"uri": "https://a.example/b", "title": "A", "start": 0, "end": 9}],
    },
    "usage": {"type": "usage", "usage": USAGE},
    "finish": {"type": "finish", "provider": "openai", "model": "gpt-5-mini", "usage": USAGE, "finish_reason": "stop"},
    "error": {"type": "error", "error": {"code": "network", "message": "The upstream broke off", "temporary": True}},
    "done": {"type": "done", "finished": True},
}
RECERA = {"sse": "79 ns, 2 allocations", "ndjson": "234 ns, 5 allocations"}
BATCH = 50


def emptied(encoder: Any, method: str, event: Any) -> Callable[[], None]:
    """Events into a buffer that is emptied without a copy, as a transport's is."""
    encoder.text_delta("the first event carries the envelope")
    encoder.take()
    write, view, times = getattr(encoder, method), encoder.view, range(BATCH)

    def batch() -> None:
        for _ in times:
            write(event)
        with view():
            pass

    return batch


def encoder_of(kernels: ModuleType, framing: str) -> Any:
    return (
        kernels.SSEEncoder(capacity=65_536) if framing == "sse" else kernels.NDJSONEncoder("compact", capacity=65_536)
    )


# ---- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
def test_write_text_delta(kernels: ModuleType, measure: Measure, framing: str) -> None:
    encoder = encoder_of(kernels, framing)
    measure(emptied(encoder, "text_delta", TEXT), events=BATCH, recera=RECERA[framing])


def test_write_text_delta_with_orjson_and_concatenation(measure: Measure) -> None:
    def batch() -> None:
        for _ in range(BATCH):
            event = {"type": "text.delta", "seq": 5, "text": TEXT}
            b"event: text.delta\ndata: " + orjson.dumps(event) + b"\n\n"

    measure(batch, events=BATCH)


@pytest.mark.parametrize("framing", ["sse", "ndjson"])
@pytest.mark.parametrize("kind", EVENTS)
def test_write_event(kernels: ModuleType, measure: Measure, kind: str, framing: str) -> None:
    encoder, event = encoder_of(kernels, framing), EVENTS[kind]
    measure(emptied(encoder, "event", event), events=BATCH)


TEXTS = pytest.mark.parametrize(
    "text",
    [
        pytest.param(("The quick brown fox. " * 60)[:1024], id="ASCII"),
        pytest.param(("Grüße aus Köln, schön. " * 60)[:1024], id="Latin"),
        pytest.param(("Привет мир, как дела? " * 60)[:1024], id="Cyrillic"),
        pytest.param(("这是一个测试文本，用于测量。" * 80)[:1024], id="Chinese"),
        pytest.param(("Hello wörld 你好 😀 test " * 60)[:1024], id="mixed"),
        pytest.param("😀🎉🚀✨" * 256, id="emoji"),
        pytest.param(("Ship it, and tell the others about it 🚀 " * 60)[:1024], id="emoji now and then"),
        pytest.param(("- one point of a list, as models write\n" * 60)[:1024], id="lines"),
        pytest.param(('    if name == "x":\n        return "\\n" + name\n' * 60)[:1024], id="code"),
    ],
)


@TEXTS
def test_write_1024_characters(kernels: ModuleType, measure: Measure, text: str) -> None:
    encoder = encoder_of(kernels, "sse")
    measure(emptied(encoder, "text_delta", text), events=BATCH)


def test_write_into_own_memory(kernels: ModuleType, measure: Measure) -> None:
    encoder, memory = encoder_of(kernels, "sse"), bytearray(4096)
    measure(lambda: encoder.text_delta_into(memory, 16, TEXT))


@pytest.mark.parametrize("data", [TEXT, {"content": TEXT}], ids=["text", "object"])
def test_encode_sse(kernels: ModuleType, measure: Measure, data: Any) -> None:
    measure(lambda: kernels.encode_sse(data, event="message"), recera=RECERA["sse"])


def test_encode_ndjson(kernels: ModuleType, measure: Measure) -> None:
    measure(lambda: kernels.encode_ndjson({"content": TEXT}), recera=RECERA["ndjson"])


# ---- reading -------------------------------------------------------------------------------------------------------

FRAME = b'event: text.delta\ndata: {"type":"text.delta","seq":1234,"text":"Hello, world! "}\n\n'
LINE = b'{"type":"text.delta","seq":1234,"text":"Hello, world! "}\n'


@pytest.mark.parametrize("kind", ["SSEParser", "SSEFramer", "NDJSONParser", "LineFramer"])
def test_read_64_kib(kernels: ModuleType, measure: Measure, kind: str) -> None:
    event = FRAME if kind.startswith("SSE") else LINE
    count = 65_536 // len(event)
    parser, data = getattr(kernels, kind)(), event * count
    assert len(parser.feed(data)) == count
    measure(lambda: parser.feed(data), events=count)


def test_read_events_of_1_kib(kernels: ModuleType, measure: Measure) -> None:
    parser, data = kernels.SSEParser(), (b"data: " + b"x" * 1016 + b"\n\n") * 64
    assert len(parser.feed(data)) == 64
    measure(lambda: parser.feed(data), events=64)


def test_read_one_byte(kernels: ModuleType, measure: Measure) -> None:
    parser, octets = kernels.SSEParser(), [FRAME[at : at + 1] for at in range(len(FRAME))]

    def feed() -> None:
        for octet in octets:
            parser.feed(octet)

    measure(feed, events=len(octets))


def test_chunked_body(kernels: ModuleType, measure: Measure) -> None:
    body, data = kernels.ChunkedBody(), b"%x\r\n%b\r\n" % (len(FRAME), FRAME) * 200
    assert body.feed(data) == FRAME * 200
    measure(lambda: body.feed(data), events=200)


# ---- the relay -----------------------------------------------------------------------------------------------------


def chunk(delta: str, finish: str = "null", varying: str = "") -> bytes:
    choices = f'[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]'
    head = f'"id":"chatcmpl-1{varying}","object":"chat.completion.chunk","created":1700000000,"model":"mock"'
    return f'data: {{{head},"choices":{choices}}}\n\n'.encode()


def answer(texts: int, *, varying: bool = False) -> bytes:
    deltas = [chunk(f'{{"content":" token {n}"}}', varying=str(n) if varying else "") for n in range(texts)]
    ends = [chunk("{}", '"stop"'), b"data: [DONE]\n\n"]
    return b"".join([chunk('{"role":"assistant","content":""}'), *deltas, *ends])


def context() -> StreamContext:
    return StreamContext("s" * 22, "r" * 36, None, "mock", lambda: NOW)


@pytest.fixture
def relayed() -> Callable[..., bytes]:
    """Relays an answer, OpenAI's if no provider is named, as gai events over SSE.

    All of it is of the implementation that the package has in this run; `GAI_FAST_NO_EXTENSIONS=1` measures the other.
    """
    form = get_format("gai")

    def relay(body: bytes, provider: str = "openai") -> bytes:
        encoder = form.encoder("sse", context())
        run = Relay(get_provider(provider).adapter("mock"), encoder, deltas=encoder, stream_id="s" * 22)
        run.receive_data(body, NOW)
        run.receive_eof(None, NOW)
        return encoder.take()

    assert relay(answer(3)).count(b"event: text.delta") == 3
    return relay


def test_relay_an_answer_of_100_events(relayed: Callable[[bytes], bytes], measure: Measure) -> None:
    body = answer(100)
    measure(lambda: relayed(body), recera="53 µs (100 events from memory)")


def test_relay_events_that_the_template_hits(relayed: Callable[[bytes], bytes], measure: Measure) -> None:
    body = answer(300)
    measure(lambda: relayed(body), events=300)


def test_relay_events_whose_ids_vary(relayed: Callable[[bytes], bytes], measure: Measure) -> None:
    body = answer(300, varying=True)
    measure(lambda: relayed(body), events=300)


def named(kind: str, rest: str) -> str:
    """Returns an event whose type stands twice in its frame."""
    return f'event: {kind}\ndata: {{"type":"{kind}",{rest}}}\n\n'


CHAT = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock"'
LOGPROBS = '{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1.5}]}]}'
GEMINI_USAGE = '"promptTokenCount": 7,"candidatesTokenCount": 9,"totalTokenCount": 16'
ITEM = '"item_id":"msg_1","output_index":0,"content_index":0'
DELTAS: dict[str, tuple[str, str]] = {
    "openai": (
        "",
        f'data: {{{CHAT},"choices":[{{"index":0,"delta":{{"content":"token"}},"finish_reason":null}}]}}\n\n',
    ),
    "openai, logprobs": (
        "",
        f'data: {{{CHAT},"choices":[{{"index":0,"delta":{{"content":"token"}},"logprobs":{LOGPROBS}}}]}}\n\n',
    ),
    "openai:responses": (
        named("response.created", '"response":{"id":"r","model":"mock","status":"in_progress","output":[]}')
        + named(
            "response.output_item.added",
            '"output_index":0,"item":{"id":"msg_1","type":"message","role":"assistant","content":[]}',
        ),
        named("response.output_text.delta", f'{ITEM},"delta":"token","logprobs":[],"sequence_number":9'),
    ),
    "anthropic": (
        named("message_start", '"message":{"id":"m","model":"mock","content":[],"usage":{"input_tokens":7}}')
        + named("content_block_start", '"index":0,"content_block":{"type":"text","text":""}'),
        named("content_block_delta", '"index":0,"delta":{"type":"text_delta","text":"token"}'),
    ),
    "gemini": (
        "",
        'data: {"candidates": [{"content": {"parts": [{"text": "token"}],"role": "model"},"index": 0}],'
        f'"usageMetadata": {{{GEMINI_USAGE}}},"modelVersion": "mock","responseId": "r"}}\r\n\r\n',
    ),
    "cohere": (
        named("message-start", '"id":"m","delta":{"message":{"role":"assistant","content":[]}}')
        + named("content-start", '"index":0,"delta":{"message":{"content":{"type":"text","text":""}}}'),
        named("content-delta", '"index":0,"delta":{"message":{"content":{"text":"token"}}}'),
    ),
    "ollama": ("", '{"model":"mock","created_at":"x","message":{"role":"assistant","content":"token"},"done":false}\n'),
}
"""The beginning of an answer, and a delta of it."""


@pytest.mark.parametrize("dialect", DELTAS)
def test_relay_events_that_no_template_copies(relayed: Callable[..., bytes], measure: Measure, dialect: str) -> None:
    """Each has a member that no other has."""
    opening, delta = DELTAS[dialect]
    provider = dialect.partition(",")[0]
    body = "".join([opening, *(delta.replace("{", f'{{"x{n}":1,', 1) for n in range(300))]).encode()
    assert relayed(body, provider).count(b"event: text.delta") == 300
    measure(lambda: relayed(body, provider), events=300)


@TEXTS
def test_relay_1024_characters(relayed: Callable[[bytes], bytes], measure: Measure, text: str) -> None:
    delta = json.dumps({"content": text}, ensure_ascii=False)
    body = b"".join([chunk('{"role":"assistant","content":""}'), *[chunk(delta)] * BATCH, chunk("{}", '"stop"')])
    measure(lambda: relayed(body), events=BATCH)


def test_normalize_one_chunk(measure: Measure) -> None:
    adapter = get_provider("openai").adapter("mock")
    data = chunk('{"content":" token"}')[6:-2].decode()
    assert adapter.receive("", data)[-1]["text"] == " token"
    measure(lambda: adapter.receive("", data))


WIRE = json.loads(chunk(f'{{"content":"{TEXT}"}}')[6:-2])
"""A chunk of the chat dialect."""


def sdk_stream(kind: str) -> list[Any]:
    """Returns the items of a program: objects as an SDK makes them of a body, texts, or events."""
    if kind in SDKS:
        opening, delta = DELTAS.get(kind) or DELTAS["openai"]
        return list(through_sdk(kind, (opening + delta * BATCH).encode()))
    return ["token" if kind == "texts" else {"type": "text.delta", "text": "token"}] * BATCH


@pytest.mark.parametrize("kind", [*SDKS, "texts", "events"])
def test_from_sdk(measure: Measure, kind: str) -> None:
    items = sdk_stream(kind)
    events = [event for event in gai_fast.from_sdk(iter(items)) if event["type"] == "text.delta"]
    assert [event["text"] for event in events] == ["token"] * BATCH
    measure(lambda: list(gai_fast.from_sdk(iter(items))), events=BATCH)


def test_from_sdk_its_own_cost(measure: Measure) -> None:
    """The SDK's own work for each chunk, before `from_sdk` has it."""
    measure(lambda: construct_type(type_=ChatCompletionChunk, value=json.loads(json.dumps(WIRE))))


def test_there_and_back_again_100_events(kernels: ModuleType, measure: Measure) -> None:
    """Events written, parsed and read as objects again."""

    def trip() -> list[Any]:
        encoder, parser = kernels.SSEEncoder(), kernels.SSEParser()
        encoder.event(EVENTS["start"])
        for _ in range(98):
            encoder.text_delta(TEXT)
        encoder.event(EVENTS["finish"])
        return [orjson.loads(event.data) for event in parser.feed(encoder.take())]

    assert len(trip()) == 100
    measure(trip, recera="300 µs")


# ---- around it -----------------------------------------------------------------------------------------------------


def test_classify_an_error(measure: Measure) -> None:
    api = get_provider("openai")
    body = json.dumps({"error": {"message": "Slow down", "type": "requests", "code": "rate_limit_exceeded"}}).encode()
    assert api.decode_error(429, {}, body, NOW).code == "rate_limited"
    measure(lambda: api.decode_error(429, {}, body, NOW), recera="30 ns (of a status alone)")


def test_the_beginning_of_a_prompt_as_its_session(measure: Measure) -> None:
    """At most 60 us for what a session without a name is known by."""
    body = {"system": "You are an agent. " * 2000, "messages": [{"role": "user", "content": "Hi"}]}
    assert len(beginning(body, 4096)) == 32_768
    measure(lambda: session_digest(beginning(body, 4096), "anna"))


def test_request_id(measure: Measure) -> None:
    measure(new_request_id, recera="200 ns")
