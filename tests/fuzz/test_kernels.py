"""Damaged input to every kernel that reads bytes from outside, and odd values to those that write.

Invariant: whatever comes, native and pure give the same items, bytes and errors; the only errors are those the kernels
name; and under the sanitizers (`ci/sanitize.sh`) no byte is read or written that is not there.

The input is real: recordings where they are at hand, and small samples of each grammar. It is damaged as networks and
broken servers do it, and cut anywhere. `GAI_FAST_EXHAUSTIVE=1` tries fifty times as many.
"""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import outcome
from tests.parity.test_relay import FORMATS, relayed

Both = tuple[ModuleType, ModuleType]
CORPUS = Path(os.environ.get("GAI_FAST_CORPUS") or Path(__file__).parents[2] / "../shared/streams")

CHAT = b"".join(
    b'data: {"id":"x","created":7,"model":"m","choices":[{"index":0,"delta":{"%b":"%b"},"finish_reason":%b}]}\n\n'
    % part
    for part in (
        (b"role", b"assistant", b"null"),
        (b"content", b"Hello", b"null"),
        (b"content", b" w\\u00f6rld", b"null"),
        (b"content", "豆😀é".encode() * 5, b"null"),
        (b"reasoning_content", b'a\\n\\"b\\/', b"null"),
        (b"content", b" long " * 20, b"null"),
        (b"none", b"", b'"stop"'),
    )
) + (b"data: [DONE]\n\n")
MESSAGES = b"".join(
    b"event: %b\ndata: %b\n\n" % (body.split(b'"')[3], body)
    for body in (
        b'{"type":"message_start","message":{"id":"x","model":"m","usage":{"input_tokens":7}}}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}    }',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" \\ud83d\\ude00"} }',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\ud83d"}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\ude00"}}',
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}',
        b'{"type":"message_stop"}',
    )
)
OLLAMA = b'{"a":"x","n":12345678901234567890}\n{"b":[1,2.5e3,null,"\\ud83d"]}\r\n\n[[[]]]\n'
SSE = (
    b"\xef\xbb\xbf: hi\r\nretry: 30\nid: 1\ndata: x\r\rdata\ndata:  y\n\n"
    b"event: e\n\nerror: {}\n\nid: \0\ndata:\xff\xe2\x82\n\n"
)
CHUNKED = b"5\r\nhello\r\n1;x=y\r\n,\r\nA \r\n 0123456\r\n\r\n0\r\nT: x\r\n\r\nrest"
TOKENS = (
    *(octet.encode() for octet in '"\\\n\r{}[],:; -0\0'),
    *(b"\n\n", b"\r\n", b"data: ", b"event: x\n", b": ping\n", b'"content":', b"x" * 17, "é豆😀".encode()),
    *(
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        b"\\u",
        b"\\ud83d",
        b"\\ude00",
        b"\\x",
    ),
    *(b"9" * 20, b"1e999", b"null", b"ffffffff\r\n", b"0\r\n\r\n"),
)


def samples() -> list[bytes]:
    """Returns the beginnings of some recordings."""
    found = sorted(CORPUS.glob("*/*.sse"))
    return [path.read_bytes()[:3000] for path in random.Random(1).sample(found, min(40, len(found)))]


class Damage(NamedTuple):
    """A change of the bytes at one place."""

    kind: str
    at: float
    size: int
    token: bytes


DAMAGE = st.lists(
    st.builds(
        Damage,
        st.sampled_from(["insert", "replace", "flip", "delete", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 40),
        st.sampled_from(TOKENS),
    ),
    max_size=5,
)
EDGES = st.lists(st.floats(0, 1), max_size=6)


def damaged(data: bytes, damage: list[Damage]) -> bytes:
    spoilt = bytearray(data)
    for kind, place, size, token in damage:
        at = int(place * len(spoilt))
        if kind == "insert":
            spoilt[at:at] = token
        elif kind == "replace":
            spoilt[at : at + len(token)] = token
        elif kind == "flip" and spoilt:
            spoilt[at] ^= 1 << size % 8
        elif kind == "delete":
            del spoilt[at : at + size]
        elif kind == "repeat":
            spoilt[at:at] = spoilt[at : at + size] * (1 + size % 3)
    return bytes(spoilt)


def cut(data: bytes, edges: list[float]) -> list[bytes]:
    at = [0, *sorted(int(edge * len(data)) for edge in edges), len(data)]
    return [data[begin:end] for begin, end in pairwise(at)]


STREAMS = st.sampled_from([CHAT, MESSAGES, SSE, *samples()])
LIMIT = st.sampled_from([64, 500, 1 << 20])


@given(STREAMS, DAMAGE, EDGES, LIMIT, st.booleans())
def test_sse(both: Both, data: bytes, damage: list[Damage], edges: list[float], limit: int, lenient: bool) -> None:
    def read(kernels: ModuleType) -> Any:
        parser, framer = kernels.SSEParser(limit), kernels.SSEFramer(limit)
        steps = [(outcome(lambda: parser.feed(piece)), outcome(lambda: framer.feed(piece))) for piece in pieces]  # noqa: B023  # used at once
        return steps, parser.close(lenient), framer.close(), parser.retry, parser.last_event_id

    pieces = cut(damaged(data, damage), edges)
    native, pure = map(read, both)
    assert native == pure


@given(st.sampled_from([OLLAMA, CHAT, *samples()]), DAMAGE, EDGES, LIMIT)
def test_ndjson(both: Both, data: bytes, damage: list[Damage], edges: list[float], limit: int) -> None:
    def read(kernels: ModuleType) -> Any:
        parser, framer = kernels.NDJSONParser(limit), kernels.LineFramer(limit)
        steps = [(outcome(lambda: parser.feed(piece)), outcome(lambda: framer.feed(piece))) for piece in pieces]  # noqa: B023  # used at once
        return steps, outcome(parser.close), outcome(framer.close)

    pieces = cut(damaged(data, damage), edges)
    native, pure = map(read, both)
    assert native == pure


@given(st.just(CHUNKED), DAMAGE, EDGES)
def test_chunked(both: Both, data: bytes, damage: list[Damage], edges: list[float]) -> None:
    def read(kernels: ModuleType) -> Any:
        body = kernels.ChunkedBody()
        out = []
        for piece in cut(damaged(data, damage), edges):
            out.append(body.feed(piece))
            if body.broken or body.complete:
                break
        return out, body.broken, body.complete, body.complete and body.rest

    native, pure = map(read, both)
    assert native == pure


@given(st.sampled_from([CHAT, MESSAGES, *samples()]), DAMAGE, EDGES, st.sampled_from(FORMATS))
def test_copier(both: Both, data: bytes, damage: list[Damage], edges: list[float], how: Any) -> None:
    pieces = cut(damaged(data, damage), edges)
    for provider in ("openai", "anthropic"):
        native, pure = (relayed(kernels, provider, pieces, how) for kernels in both)
        assert native == pure


@given(st.sampled_from([CHAT, MESSAGES, SSE, OLLAMA]), DAMAGE)
def test_json_text(both: Both, data: bytes, damage: list[Damage]) -> None:
    native, pure = both
    for line in damaged(data, damage).split(b"\n"):
        for text in (line.decode("utf-8", "surrogateescape"), line.partition(b":")[2].decode("utf-8", "replace")):
            compact = outcome(lambda: native.compact_json(text))  # noqa: B023  # used at once
            assert compact == outcome(lambda: pure.compact_json(text))  # noqa: B023  # used at once
            assert native.escape(text) == pure.escape(text)
            if isinstance(compact, str):
                value = native.parse_exact(compact)
                written = outcome(lambda: native.encode_json(value))  # noqa: B023  # used at once
                assert written == outcome(lambda: pure.encode_json(value))  # noqa: B023  # used at once


@given(STREAMS, DAMAGE, EDGES, st.sampled_from(["SSEEncoder", "NDJSONEncoder"]), st.sampled_from([1, 64, 4096]))
def test_encoders(both: Both, data: bytes, damage: list[Damage], edges: list[float], kind: str, capacity: int) -> None:
    def written(kernels: ModuleType) -> Any:
        encoder = getattr(kernels, kind)(capacity=capacity, request_id="r")
        memory = bytearray(300)
        steps = []
        for text in texts:
            encoder.text_delta(text)
            encoder.event({"type": "tool.call.delta", "arguments": text, text: [text]})
            steps.append(outcome(lambda: encoder.text_delta_into(memory, len(text) % 40, text)))  # noqa: B023  # used at once
            encoder.comment(text)
            steps.append(kernels.encode_sse(text, event="e"))
        return steps, bytes(memory), encoder.take(), encoder.seq

    texts = [piece.decode("utf-8", "surrogateescape") for piece in cut(damaged(data, damage), edges)]
    native, pure = map(written, both)
    assert native == pure
