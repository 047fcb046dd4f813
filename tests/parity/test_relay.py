"""Copied frames are invisible: a relay with the native copier gives what one gives whose every frame is parsed.

Compared is what comes out after each read: the bytes of the format (and with them `Result`, usage and the numbers),
the relay's state and its error.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core import answer as answers
from gai_fast.core.relay import Relay
from gai_fast.formats import get_format
from gai_fast.formats._base import StreamContext
from gai_fast.providers import get_provider
from gai_fast.providers.chat.answers import ChatAdapter
from tests.kernels import cuts, is_set, some_cuts
from tests.limits import LIMITS

Both = tuple[ModuleType, ModuleType]
KERNELS = ("ArrayFramer", "DeltaCopier", "LineFramer", "SSEFramer")
NOW = 1_700_000_000_000
CORPUS = Path(os.environ.get("GAI_FAST_CORPUS") or Path(__file__).parents[2] / "../shared/streams")

# format, framing, passthrough, what the context says
FORMATS: tuple[tuple[str, Any, bool, dict[str, Any]], ...] = (
    ("gai", "sse", False, {}),
    ("gai", "sse", False, {"envelope": "full", "timestamps": True, "trace_id": "t" * 32}),
    ("gai", "sse", False, {"ids": True, "retry_ms": 3000, "timestamps": True}),
    ("gai", "ndjson", False, {}),
    ("openai", "sse", False, {}),
    ("openai", "ndjson", False, {"usage": False}),
    ("openai", "sse", False, {"ids": True}),
    ("openai", "sse", True, {}),
    ("anthropic", "sse", False, {}),
    ("anthropic", "sse", False, {"ids": True}),
    ("anthropic", "sse", True, {}),
    ("simple", "sse", False, {}),
    ("simple", "sse", False, {"ids": True, "retry_ms": 3000}),
    ("responses", "sse", False, {}),
    ("responses", "ndjson", False, {}),
    ("responses", "sse", False, {"ids": True}),
    ("responses", "sse", True, {}),
    ("vercel", "sse", False, {}),
    ("vercel", "sse", False, {"ids": True}),
    ("agui", "sse", False, {}),
    ("raw", "sse", True, {}),
    ("completions", "sse", False, {}),
    ("completions", "sse", True, {}),
)


BLOCKS = frozenset({"agui", "anthropic", "vercel", "responses"})
"""The formats whose deltas stand in blocks."""


def context_of(**said: Any) -> StreamContext:
    usual = {
        "stream_id": "stream-0123456789abcdef",
        "request_id": "request-1",
        "trace_id": None,
        "model": "asked",
        "clock": lambda: NOW,
    }
    return StreamContext(**{**usual, **said})


@contextmanager
def kernels_of_answers(kernels: ModuleType) -> Iterator[None]:
    """Answers are read with these kernels; `patch.multiple` looks for the module each time, which takes longer."""
    usual = {name: getattr(answers, name) for name in KERNELS}
    for name in KERNELS:
        setattr(answers, name, getattr(kernels, name))
    try:
        yield
    finally:
        for name, kernel in usual.items():
            setattr(answers, name, kernel)


def relayed(
    kernels: ModuleType, provider: str, chunks: list[bytes], how: tuple[str, Any, bool, dict[str, Any]]
) -> tuple[list[bytes], Any]:
    """Returns the output after each read and at the end, and the end of the stream."""
    name, framing, passes, said = how
    context = context_of(**said)
    form = get_format(name)
    output: Any = form.passthrough(framing, context, whole=False) if passes else None
    passing = output is not None or form.copies_upstream
    output = output or form.encoder(framing, context)
    api = get_provider(provider)
    outs = []
    with kernels_of_answers(kernels):
        relay = Relay(
            api.adapter("asked"),
            output,
            deltas=output,
            frames=output if passing else None,
            stream_id=context.stream_id,
            upstream="up",
            prompt_characters=99,
        )
        for chunk in chunks:
            relay.receive_data(chunk, NOW)
            outs.append(output.take())
        relay.receive_eof(None, NOW)
        outs.append(output.take())
    return outs, (relay.state, relay.error and relay.error.payload(), relay.delivered, output.seq)


def same(both: Both, provider: str, chunks: list[bytes], how: tuple[str, Any, bool, dict[str, Any]]) -> None:
    ours, theirs = (relayed(kernels, provider, chunks, how) for kernels in both)
    assert ours == theirs, how


# ---- recordings ------------------------------------------------------------------------------------------------------

SPOKEN = {
    "openai.chat": "",
    "openai.completions": ":completions",
    "openai.responses": ":responses",
    "anthropic.messages": "",
    "gemini.streamGenerateContent": "",
    "cohere.v2.chat": "",
    "ollama.chat": "",
    "ollama.generate": ":generate",
}
"""The names of an API in a recording, and in `decode`."""


def provider_of(recording: Path, api: str) -> str:
    name, which = recording.parent.name, SPOKEN[api]
    if name == "ollama" and api.startswith("openai."):
        name = "openai-compatible"
    try:
        get_provider(name + which)
    except ValueError:
        name = "openai-compatible"
    return name + which


def recordings() -> Iterator[tuple[str, str, bytes]]:
    """(name, provider, body) of each recorded stream that an adapter of ours reads."""
    for body in sorted(CORPUS.glob("*/*")):
        if body.suffix not in (".sse", ".ndjson", ".jsonarray"):
            continue
        api = json.loads(body.with_suffix(".json").read_text()).get("api")
        if api in SPOKEN:
            yield f"{body.parent.name}/{body.name}", provider_of(body, api), body.read_bytes()


def test_every_recording_of_anthropics_is_passed_on_byte_for_byte(both: Both, corpus: Path) -> None:
    bodies = [body for _, provider, body in recordings() if provider == "anthropic"]
    assert len(bodies) > 40
    for body in bodies:
        chunks = [body[at : at + 700] for at in range(0, len(body), 700)]
        for kernels in both:
            assert b"".join(relayed(kernels, "anthropic", chunks, ("anthropic", "sse", True, {}))[0]) == body


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: f"{how[0]}-{how[1]}{'-passthrough' * how[2]}-{len(how[3])}")
def test_every_recording_however_cut(both: Both, corpus: Path, how: tuple[str, Any, bool, dict[str, Any]]) -> None:
    """Whole and at random edges; byte by byte the first 3 KiB of a tenth of them, another tenth for each format.

    In an exhaustive run, all of each byte by byte.
    """
    seen = 0
    for name, provider, body in recordings():
        dice = random.Random(name)
        edges = sorted(dice.choices(range(len(body) + 1), k=len(body) // 500))
        pieces = [body[begin:end] for begin, end in zip([0, *edges], [*edges, len(body)], strict=True)]
        ways = [[body], pieces]
        if is_set("GAI_FAST_EXHAUSTIVE"):
            ways.append([body[at : at + 1] for at in range(len(body))])
        elif (seen + FORMATS.index(how)) % 10 == 0:
            ways.append([body[at : at + 1] for at in range(min(3072, len(body)))] + [body[3072:]])
        for chunks in ways:
            same(both, provider, chunks, how)
        seen += 1
    assert seen > 250


def copied_of(native: ModuleType, provider: str, body: bytes, how: tuple[str, Any, bool, dict[str, Any]]) -> int:
    """Returns the number of frames of an answer that are copied."""
    copied = 0

    class Counting:
        def __init__(self, *how: Any) -> None:
            self.copier = native.DeltaCopier(*how)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.copier, name)

        def take_copied(self) -> Any:
            nonlocal copied
            taken = self.copier.take_copied()
            copied += taken[1]
            return taken

    class Kernels:
        ArrayFramer, LineFramer, SSEFramer = native.ArrayFramer, native.LineFramer, native.SSEFramer
        DeltaCopier = Counting

    relayed(Kernels, provider, [body], how)
    return copied


COPIED = {
    "anthropic": 0.32,
    "azure": 0.80,
    "azure:responses": 0.65,
    "cohere": 0.80,
    "deepseek": 0.92,
    "deepseek:responses": 0.53,
    "gemini": 0.29,
    "groq": 0.92,
    "mistral": 0.89,
    "ollama": 0.90,
    "ollama:generate": 0.90,
    "openai": 0.89,
    "openai-compatible": 0.74,
    "openai-compatible:responses": 0.60,
    "openai:completions": 0.71,
    "openai:responses": 0.63,
    "openrouter": 0.61,
    "openrouter:responses": 0.58,
    "perplexity": 0.55,
    "xai": 0.91,
    "xai:responses": 0.89,
}
"""The share of the frames of each provider's recordings that is copied, at least."""
NEVER_COPIED = {"openai-compatible:completions"}
"""Its one recording is Writer's, whose chunks are `{"value": …}` and have none of the members of a completion."""


def test_of_the_answers_of_each_provider_as_many_frames_are_copied_as_ever(both: Both, corpus: Path) -> None:
    """Else all of the above would be true of a copier that never copies."""
    native, _ = both
    copied, frames = Counter[str](), Counter[str]()
    for _, provider, body in recordings():
        framer = native.LineFramer() if body.startswith(b"{") else native.SSEFramer()
        frames[provider] += len(framer.feed(body))
        copied[provider] += copied_of(native, provider, body, FORMATS[0])
    shares = {provider: copied[provider] / frames[provider] for provider in frames}
    assert {provider for provider, share in shares.items() if share == 0} == NEVER_COPIED
    assert shares.keys() - NEVER_COPIED == COPIED.keys()
    assert {provider: shares[provider] for provider, least in COPIED.items() if shares[provider] < least} == {}


# ---- made streams ----------------------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.sampled_from(
        ["", " ", "\n", "a", "Hello", " world", '"q"', "\\", "/", "é", "豆", "😀", "\x7f", "\x00", "[DONE]"]
    ),
    st.sampled_from(["\ud83d", "\ude00", "a\ud83d", "\ude00b", "\ud83d\ude00"]),
    st.text(st.characters(exclude_categories=[]), max_size=12),
)


def string(text: str, escaped: bool) -> str:
    written = json.dumps(text, ensure_ascii=escaped)
    return written if escaped else written.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


Shape = Callable[[str], str]

# What may stand where nobody looks, in JSON and not quite.
VALUES = [
    *(
        "null",
        "true",
        "false",
        "0",
        "-1.5e-05",
        "1E+2",
        '""',
        '"\\"\\u00e9\\ud83d\\ude00 é"',
        "{}",
        "[]",
        "[ 1 , [ ] ]",
    ),
    *('{"content":[{"token":"a","logprob":-0.25,"bytes":[97],"top_logprobs":[]}],"refusal":null}', "[" * 31 + "]" * 31),
    *(
        "",
        "nul",
        "tru",
        "01",
        "1.",
        ".5",
        "-",
        "1e",
        "1" * 40,
        '"',
        '"\\x"',
        '"\\ud83d"',
        "[1,]",
        "[,1]",
        "[1 2]",
        "{1:2}",
    ),
    *('{"a"}', '{"a":}', '{"a":1,}', "{,}", "[}", "]", "[" * 40 + "]" * 40, "NaN", '"\t"', "[\n]", '{"a":1 "b":2}'),
]


@st.composite
def chat_shape(draw: st.DrawFn, finish: str) -> Shape:
    """A chunk but for its text; mostly a delta, and now and then each thing that the dialect may say beside it."""
    kinds = ["content"] * 6 + ["fragment"] * 4 + ["reasoning_content", "refusal", "reasoning", "empty", "two", "broken"]
    kind = draw(st.sampled_from([*kinds, "nothing", "call", "call", "call", "usage", "other"]))
    index = draw(st.sampled_from([0, 0, 0, 1]))
    call = draw(st.sampled_from([0, 0, 1]))
    reason = draw(st.sampled_from(["null"] * 4 + ['"stop"', '"length"', finish]))
    usage = draw(st.sampled_from(["", "", "", ',"usage":null', ',"x_other":{"usage":{"prompt_tokens":@@}}']))
    if kind == "empty":
        delta = '"content":""'
    elif kind == "two":
        delta = '"content":@,"reasoning_content":@'
    elif kind == "nothing":
        delta = ""
    elif kind == "broken":
        delta = '"content":@,'
    elif kind == "call":
        at = draw(st.sampled_from([f'"index":{call},', f'"index":{call},', ""]))
        identifier = draw(st.sampled_from([f'"id":"c{call}",', f'"id":"c{call}",', '"id":"c0",', ""]))
        named = draw(st.sampled_from(['"name":"f",', '"name":"f",', '"name":"g",', ""]))
        delta = f'"tool_calls":[{{{at}{identifier}"function":{{{named}"arguments":@}}}}]'
    elif kind == "fragment":
        at = draw(st.sampled_from([f'"index":{call},', f'"index":{call},', ""]))
        delta = f'"tool_calls":[{{{at}"function":{{"arguments":@}}}}]'
    elif kind == "usage":
        usage = draw(
            st.sampled_from(
                [
                    ',"usage":{"prompt_tokens":@@,"completion_tokens":@@}',
                    ',"usage":{"cost":0.@@5}',
                    ',"x_groq":{"usage":{"prompt_tokens":@@}},"usage":{"prompt_tokens":1@@}',
                    ',"usage":{"prompt_tokens":@@,"x":{"usage":{"prompt_tokens":1@@}}}',
                ]
            )
        )
        delta = '"content":@'
    elif kind == "other":
        other = draw(st.sampled_from(['{"error":{"message":"no","code":500}}', "[DONE]", '{"choices":[]}', "{}"]))
        return lambda text: other
    else:
        delta = f'"{kind}":@'
    head = f'"created":{draw(st.sampled_from([7, 7, 8]))},"model":"{draw(st.sampled_from("mmmmn"))}"'
    identifiers = draw(st.sampled_from([['"x"'], ['"x"', '"yz"', '""'], ['"x"', "7", "null", '"é"', '"\\u0061"', '"']]))
    ignored = draw(st.sampled_from([[], [], VALUES[:2], VALUES[:13], VALUES]))
    padding = draw(st.sampled_from(["", ',"obfuscation":"', ',"obfuscation":"']))
    blank = draw(st.sampled_from(["", "", " "]))
    inner = draw(st.sampled_from([""] * 4 + [',"usage":{"prompt_tokens":1@@,"completion_tokens":1}']))
    choice = f'{{"index":{index},"delta":{{{delta}}},"finish_reason":{reason}INNER}}'

    def chunk(text: str) -> str:
        noise = padding and padding + "aZ09-_"[len(text) % 7 :] + draw(st.sampled_from(["", "", "", "é"])) + '"'
        counts = usage.replace("@@", str(draw(st.sampled_from([0, 7, 123, 10**15]))))
        identifier = draw(st.sampled_from(identifiers))
        aside = f',"logprobs":{draw(st.sampled_from(ignored))}' if ignored else ""
        said = choice.replace("@", text).replace("INNER", inner.replace("@@", str(len(text))))
        return f'{{"id":{identifier},{head},"choices":[{said}]{aside}{counts}{noise}{blank}}}'

    return chunk


@st.composite
def message_shape(draw: st.DrawFn) -> Shape:
    index = draw(st.sampled_from([0, 0, 0, 1]))
    deltas = ['"type":"text_delta","text":@'] * 8 + ['"type":"thinking_delta","thinking":@'] * 3
    deltas += [
        '"type":"input_json_delta","partial_json":@',
        '"type":"signature_delta","signature":"s"',
        '"type":"citations_delta","citation":{"url":"https://x.example","title":"t"}',
    ]
    delta = f'{{"type":"content_block_delta","index":{index},"delta":{{{draw(st.sampled_from(deltas))}}}@@}}'
    others = [
        f'{{"type":"content_block_start","index":{index},"content_block":{{"type":"text","text":@}}}}',
        f'{{"type":"content_block_start","index":{index},"content_block":{{"type":"tool_use","id":"t","name":"f"}}}}',
        f'{{"type":"content_block_stop","index":{index}}}',
        '{"type":"ping"}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}',
        '{"type":"message_stop"}',
        '{"type":"error","error":{"type":"overloaded_error","message":"later"}}',
        '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":',
    ]
    shape = draw(st.sampled_from([delta] * 12 + others))
    return lambda text: shape.replace("@@", " " * (len(text) % 4)).replace("@", text)


@st.composite
def stream(draw: st.DrawFn, shape: st.SearchStrategy[Shape], head: list[str]) -> bytes:
    """Chunks of a few shapes, framed in one of the ways that servers frame them; perhaps one byte of all is another."""
    end = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"]))
    escaped = draw(st.booleans())
    shapes = draw(st.lists(shape, min_size=1, max_size=4))
    chunks = draw(st.lists(st.tuples(st.sampled_from(shapes), TEXT), max_size=16))
    frames = []
    for data in [*head, *(shape(string(text, escaped)) for shape, text in chunks)]:
        kind = data.startswith('{"type"') and data.split('"')[3]
        name = f"event: {kind}{end}" if kind else ""
        aside = draw(st.sampled_from([""] * 12 + [f": ping{end}", f": ping{end}{end}", f"id: 1{end}", end]))
        frames.append(f"{aside}{name}data: {data}{end}{end}")
    body = bytearray("".join(frames), "utf-8", "surrogatepass")
    if draw(st.booleans()):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.sampled_from(b'"\\,:{}[] \n\r0.x\x00\xff'))
    return bytes(body)


ROLE = '{"id":"x","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
CHAT = st.sampled_from(['"stop"', '"length"', '"tool_calls"']).flatmap(
    lambda finish: stream(chat_shape(finish), [ROLE])
)
MESSAGES = stream(
    message_shape(),
    [
        '{"type":"message_start","message":{"id":"x","model":"m","usage":{"input_tokens":7}}}',
        '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
    ],
)
HOW = st.sampled_from(FORMATS)
EDGES = st.lists(st.floats(0, 1), max_size=5)


def cut(body: bytes, edges: list[float]) -> list[bytes]:
    at = [0, *sorted(int(edge * len(body)) for edge in edges), len(body)]
    return [body[begin:end] for begin, end in pairwise(at)]


@given(CHAT, HOW, EDGES, st.sampled_from(["openai", "groq", "openai-compatible", "xai", "perplexity"]))
def test_chat_streams(both: Both, body: bytes, how: Any, edges: list[float], provider: str) -> None:
    same(both, provider, cut(body, edges), how)


@given(MESSAGES, HOW, EDGES)
def test_message_streams(both: Both, body: bytes, how: Any, edges: list[float]) -> None:
    same(both, "anthropic", cut(body, edges), how)


def chat_frames() -> list[bytes]:
    return [
        b'data: {"id":"%b","created":7,"model":"m","choices":[{"index":0,"delta":{"content":"%b"},"logprobs":'
        b'{"content":[{"token":"%b","logprob":-0.25,"n":null}],"r":[]},"finish_reason":null}],"obfuscation":"%b"}\n\n'
        % (padding, text, text, padding)
        for text, padding in (
            (b"", b""),
            (b"One", b"a"),
            (b" two", b""),
            (b"3\\u00e9\\n", b"bcd"),
            (b"x", b""),
            (b"y", b""),
        )
    ]


@pytest.mark.parametrize("provider", ["openai", "groq", "xai", "perplexity", "openai-compatible"])
@pytest.mark.parametrize(
    "shape",
    [
        '{"choices":[{"index":0,"delta":{"content":"a"},"usage":@}]}',
        '{"choices":[{"index":0,"delta":{"content":"a"},"usage":@}],"usage":{"prompt_tokens":90,"completion_tokens":9}}',
        '{"choices":[{"index":0,"delta":{"content":"a"}}],"x_groq":{"usage":@}}',
        '{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":@,"x_groq":{"usage":{"prompt_tokens":90}}}',
        '{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":@}',
    ],
)
def test_usage_counts_only_where_it_is_looked_for(both: Both, provider: str, shape: str) -> None:
    counts = (f'{{"prompt_tokens":{number},"completion_tokens":{number % 3}}}' for number in range(8))
    body = "".join(f"data: {shape.replace('@', count)}\n\n" for count in counts)
    same(both, provider, [body.encode()], FORMATS[0])


def test_fragments_without_an_index_follow_the_call_before_them(both: Both) -> None:
    shape = '{"choices":[{"index":0,"delta":{"tool_calls":[{@"function":{"arguments":"x"}}]}}]}'
    named = [shape.replace("@", f'"index":{at},"id":"c{at}",').replace("arg", 'name":"f","arg', 1) for at in (0, 1)]
    bare = [shape.replace("@", at) for at in ("", '"index":0,', "", '"index":1,', "") for _ in range(4)]
    empty = shape.replace("@", '"index":0,').replace('"x"', '""')
    body = "".join(f"data: {chunk}\n\n" for chunk in [*named, *bare, empty, *bare])
    same(both, "openai", [body.encode()], FORMATS[0])


@pytest.mark.parametrize("at", ['"index":@,', ""])
@pytest.mark.parametrize("name", ['"name":"f",', ""])
def test_fragments_that_say_their_call_again_are_copied(both: Both, at: str, name: str) -> None:
    shape = '{"choices":[{"index":0,"delta":{"tool_calls":[{%s"id":"c@","function":{%s"arguments":"$"}}]}}]}'
    fragments = [(0, "{"), *((0, "1") for _ in range(5)), (1, "{"), *((which, "2") for which in (1, 1, 0, 0, 1))]
    fragments += [(0, "}"), (0, "{"), (0, "3"), (2, ""), (2, "4"), (1, "5"), (0, "6"), (2, "7")]
    first = shape % (at, '"name":"f",')
    chunks = [first.replace("@", which).replace("$", "") for which in "01"]
    chunks += [(shape % (at, name)).replace("@", str(which)).replace("$", said) for which, said in fragments]
    body = "".join(f"data: {chunk}\n\n" for chunk in chunks).encode()
    for how in FORMATS:
        same(both, "openai", [body], how)


def test_texts_of_any_length_come_whole(both: Both) -> None:
    lengths = [1, *(size + more for size in (2048, 4096, 8192, 16384, 65536) for more in range(-9, 3, 2))]
    texts = [("é\\n\\u00e9x" * length)[:length].rstrip("\\u0e9") + "." for length in lengths]
    body = "".join(f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}\n\n' for text in texts).encode()
    for how in FORMATS:
        same(both, "openai", [body], how)
        same(both, "openai", [body[at : at + 30_000] for at in range(0, len(body), 30_000)], how)


def test_a_call_that_has_no_name_yet_is_the_last_one_all_the_same(both: Both) -> None:
    shape = '{"choices":[{"index":0,"delta":{"tool_calls":[{@"function":{"arguments":"x"}}]}}]}'
    named = shape.replace("@", '"id":"c0",').replace("arg", 'name":"f","arg', 1)
    chunks = [shape.replace("@", at) for at in ["", "", "", '"index":1,', "", "", '"index":1,', "", ""]]
    body = "".join(f"data: {chunk}\n\n" for chunk in [named, *chunks])
    same(both, "openai", [body.encode()], FORMATS[0])


def message_frames() -> list[bytes]:
    head = b'event: message_start\ndata: {"type":"message_start","message":{"id":"x","model":"m"}}\n\n'
    return [head] + [
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        b'"text":"%b"}%b}\n\n' % (text, blanks)
        for text, blanks in ((b"One", b" "), (b" two", b""), (b"\\ud83d\\ude00", b"   "), (b"x", b""), (b"y", b""))
    ]


@pytest.mark.parametrize(("provider", "made"), [("openai", chat_frames), ("anthropic", message_frames)])
def test_one_byte_that_differs(both: Both, provider: str, made: Callable[[], list[bytes]]) -> None:
    """Each byte of one frame is replaced in turn; the frames around it are such as are copied."""
    frames = made()
    octets = range(256) if is_set("GAI_FAST_EXHAUSTIVE") else b'"\\ :}1x\n\r\xff'
    for number, how in enumerate((FORMATS[0], FORMATS[7])):
        for at in range(len(frames[3])):
            for octet in octets[number::2] if not is_set("GAI_FAST_EXHAUSTIVE") else octets:
                spoilt = frames[3][:at] + bytes((octet,)) + frames[3][at + 1 :]
                same(both, provider, [b"".join([*frames[:3], spoilt, *frames[4:]])], how)


def test_a_made_stream_in_every_way_of_cutting(both: Both) -> None:
    for provider, frames in (("openai", chat_frames()), ("anthropic", message_frames())):
        for how in FORMATS:
            for chunks in cuts(b"".join(frames)):
                same(both, provider, chunks, how)


def test_frames_that_alternate_and_comments_between_them_keep_their_order(both: Both) -> None:
    shapes = [
        '{"choices":[{"index":0,"delta":{"content":"%d"}}]}',
        '{"choices":[{"delta":{"content":"%d"},"index":0}]}',
    ]
    frames = [f"data: {shapes[number % 2] % number}\n\n".encode() for number in range(12)]
    frames.insert(6, b": ping\n\n")
    frames.insert(11, b"event: x\n\n")
    for chunks in cuts(b"".join(frames)):
        for how in (FORMATS[0], FORMATS[7]):
            same(both, "openai", chunks, how)


# ---- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [how for how in FORMATS if how[0] in BLOCKS], ids=lambda how: f"{how[0]}-{len(how[3])}")
def test_a_block_ends_the_copying_of_the_block_before(both: Both, how: Any) -> None:
    """A text between two stretches of reasoning, each long enough to be learned, stands in a block of its own."""
    chunk = '{{"id":"c","model":"m","choices":[{{"index":0,"delta":{{"{}":"{}"}},"finish_reason":null}}]}}'
    said = [*["reasoning_content"] * 4, *["content"] * 4, "reasoning_content", *["content"] * 3, *["refusal"] * 2]
    frames = [f"data: {chunk.format(key, at)}\n\n".encode() for at, key in enumerate(said, 10)]
    body = b"".join(frames) + answer("c", first="")
    for chunks in cuts(body):
        same(both, "openai", chunks, how)
    ours = b"".join(relayed(both[0], "openai", [body], how)[0])
    # The end of a Responses stream repeats each text.
    key = b'"delta":' if how[0] == "responses" and not how[2] else b""
    assert [ours.count(b'%b"%d"' % (key, at)) for at in range(10, 10 + len(said))] == [1] * len(said)
    assert copied_of(both[0], "openai", body, how) >= 4


# ---- what other answers have taught ----------------------------------------------------------------------------------


def answer(
    identifier: str,
    *texts: str,
    model: str = "m1",
    first: str = '{"role":"assistant","content":""}',
    index: int = 0,
    more: str = "",
) -> bytes:
    """Returns an answer that begins with a role, or with something else."""
    head = f'{{"id":"{identifier}","created":17{len(identifier)},"model":"{model}"{more},"choices":'
    deltas = [first] * bool(first) + [f'{{"content":"{text}"}}' for text in texts]
    chunks = [f'{head}[{{"index":{index},"delta":{delta},"finish_reason":null}}]}}' for delta in deltas]
    chunks.append(f'{head}[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}')
    return "".join(f"data: {chunk}\n\n" for chunk in [*chunks, "[DONE]"]).encode()


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: f"{how[0]}-{how[1]}{'-passthrough' * how[2]}-{len(how[3])}")
def test_an_answer_is_copied_from_its_first_text_on_where_another_one_began_so(both: Both, how: Any) -> None:
    model = f"taught-{FORMATS.index(how)}"
    texts = ["One", " two", " three"]
    assert copied_of(both[0], "openai", answer("first", *texts, model=model), how) == len(texts) - 1
    again = answer("another-id", *texts, model=model)
    # Where the first text is the first thing that is written, or opens a block, it is not written as the others are.
    is_special = (how[0] in BLOCKS and not how[2]) or ("simple" in how and "retry_ms" in how[3])
    assert copied_of(both[0], "openai", again, how) == len(texts) - is_special
    for chunks in cuts(again):
        same(both, "openai", chunks, how)


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: f"{how[0]}-{how[1]}{'-passthrough' * how[2]}-{len(how[3])}")
def test_an_answer_that_begins_with_a_text_is_copied_from_the_next_one_on(both: Both, how: Any) -> None:
    model = f"textual-{FORMATS.index(how)}"
    texts = ["One", " two", " three"]
    relayed(both[0], "openai", [answer("first", *texts, model=model)], how)
    again = answer("another-id", *texts, model=model, first="")
    assert copied_of(both[0], "openai", again, how) == len(texts) - 1
    for chunks in cuts(again):
        same(both, "openai", chunks, how)


@pytest.mark.parametrize(
    "again",
    [
        answer("b", "Other", " model", model="m2"),
        answer("b", "\\ud83d", "\\ude00", "half"),
        answer("b", "\\ud83d", "no half"),
        answer("b", "", "empty", " first"),
        answer("b", " ", "blank", " first"),
        answer("b", "no", " role", first=""),
        answer("b", "no", " role,", " another", " choice", index=1, first=""),
        answer("b", "no", "", " role", first=""),
        answer("b", " ", "blank", " first", first=""),
        answer("b", "half\\ud83d", "\\ude00", " a", " character", first=""),
        answer("b", "one", '"},"finish_reason":"length","x":{"y":"', " more", first=""),
        answer(
            "b",
            "text",
            " amid",
            " calls",
            first='{"content":"a","tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{"}}]}',
        ),
        answer("b", "b", "c", "d", first='{"reasoning_content":"a"}'),
        answer("b", "b", "c", "d", first='{"content":"a","reasoning_content":"a"}'),
        answer("b", "a", "reasoning", first='{"role":"assistant","reasoning_content":"hm"}'),
        answer("b", "another", " choice", index=1),
        answer("b", "a", "member", more=',"x":1'),
        answer("b", "", "", "empty"),
        answer("b"),
        answer("b", "Text", first='{"role":"assistant","content":"And more "}'),
        answer("b", "Text", "is", more=',"error":{"message":"no"}'),
        answer("b", "Two").replace(b'"created":171', b'"created":"x"'),
        answer("b", "No", " end")[: -len(b"data: [DONE]\n\n")],
        answer("b", "Cut", " off")[:-90],
    ],
    ids=lambda body: str(len(body)),
)
@pytest.mark.parametrize("provider", ["openai", "perplexity", "xai", "openai-compatible", "openai:completions"])
def test_what_another_answer_has_taught_is_invisible(both: Both, provider: str, again: bytes) -> None:
    for number, how in enumerate(FORMATS):
        relayed(both[0], provider, [answer("a", "One", " two", " three")], how)
        for chunks in some_cuts(again, number):
            same(both, provider, chunks, how)


def message(*texts: str, first: str = '"text","text":""', delta: str = '"text_delta","text"', index: int = 0) -> bytes:
    """Returns a message of Anthropic's with one block."""
    chunks = [
        '{"type":"message_start","message":{"id":"msg","model":"m","usage":{"input_tokens":7}}}',
        f'{{"type":"content_block_start","index":{index},"content_block":{{"type":{first}}}}}',
        *(f'{{"type":"content_block_delta","index":{index},"delta":{{"type":{delta}:"{text}"}}}}' for text in texts),
        f'{{"type":"content_block_stop","index":{index}}}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}',
        '{"type":"message_stop"}',
    ]
    return "".join(f"event: {chunk.split(chr(34))[3]}\ndata: {chunk}\n\n" for chunk in chunks).encode()


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: f"{how[0]}-{how[1]}{'-passthrough' * how[2]}-{len(how[3])}")
def test_a_message_is_copied_from_its_first_text_on_where_another_one_began_so(both: Both, how: Any) -> None:
    texts = ["One", " two", " three"]
    relayed(both[0], "anthropic", [message(*texts)], how)
    is_special = (how[0] in BLOCKS and not how[2]) or ("simple" in how and "retry_ms" in how[3])
    assert copied_of(both[0], "anthropic", message(*texts), how) == len(texts) - is_special
    for chunks in cuts(message(*texts)):
        same(both, "anthropic", chunks, how)


@pytest.mark.parametrize(
    "again",
    [
        message("Other", " block", index=1),
        message("", "", "empty"),
        message(" ", "blank", " first"),
        message("half\\ud83d", "\\ude00", " a", " character"),
        message("And", " more", first='"text","text":"Text, "'),
        message("A", " thought", first='"thinking","thinking":""', delta='"thinking_delta","thinking"'),
        message("A", " text", first='"thinking","thinking":""'),
        message("A", " text", first='"tool_use","id":"c","name":"f","input":{}'),
        message("{", "}", first='"tool_use","id":"c","name":"f","input":{}', delta='"input_json_delta","partial_json"'),
        message("A", " text", first='"server_tool_use","id":"c","name":"f","input":{}'),
        message("Without", " a", " block").replace(b"content_block_start", b"content_block_other"),
        message("Without", " a", " start").replace(b"message_start", b"message_other"),
        message("Cited", " text", first='"text","text":"","citations":[{"url":"https://a.example","title":"A"}]'),
        message("After", " all").replace(b"content_block_start", b"content_block_stop"),
        message("Two", " heads") + message("Two", " heads").replace(b"msg", b"other"),
        message("Cut", " off")[:-300],
    ],
    ids=lambda body: str(len(body)),
)
def test_what_another_message_has_taught_is_invisible(both: Both, again: bytes) -> None:
    for number, how in enumerate(FORMATS):
        relayed(both[0], "anthropic", [message("One", " two", " three")], how)
        for chunks in some_cuts(again, number):
            same(both, "anthropic", chunks, how)


def test_sources_that_come_with_the_first_text_are_reported_though_another_answer_had_reported_the_same(
    both: Both,
) -> None:
    """Perplexity repeats its sources in every chunk: what becomes of one depends on those before it."""
    cited = ',"citations":["https://a.example"]'
    relayed(both[0], "perplexity", [answer("a", "One", " two", more=cited)], FORMATS[0])
    role, _, rest = answer("b", "One", " two").partition(b"\n\n")
    again = role + b"\n\n" + rest.replace(b'"model":"m1"', b'"model":"m1"' + cited.encode())
    ours, _ = relayed(both[0], "perplexity", [again], FORMATS[0])
    assert b'"citations":[{"uri":"https://a.example"}]' in b"".join(ours)
    same(both, "perplexity", [again], FORMATS[0])


def test_an_attempt_that_begins_as_another_answer_did_does_not_say_its_role_again(both: Both) -> None:
    how = FORMATS[7]
    relayed(both[0], "openai", [answer("a", "One", " two")], how)
    api = get_provider("openai")
    outs = []
    for kernels in both:
        context = StreamContext("stream", "request", None, "asked", lambda: NOW)
        output: Any = get_format("openai").passthrough("sse", context, whole=False)
        with kernels_of_answers(kernels):
            relay = Relay(api.adapter(), output, deltas=output, frames=output, failed=lambda error: True)
            relay.receive_data(answer("b").partition(b"\n\n")[0] + b"\n\n", NOW)
            relay.receive_eof(api.adapter().truncated(), NOW)
            relay.begin(api.adapter(), output, deltas=output, frames=output)
            relay.receive_data(answer("c", "One", " two"), NOW)
        outs.append(output.take())
    ours, theirs = outs
    assert ours == theirs
    assert (ours.count(b'"role"'), ours.count(b"One"), ours.count(b'"stop"')) == (1, 1, 1)


# ---- what looks like a text, a number or usage, and is none ----------------------------------------------------------


def deltas(shape: str, *values: tuple[str, ...], end: str = "\n\n") -> bytes:
    """Returns a role, and a chunk for each row of values, which replace `@0`, `@1`…."""
    body = f"data: {ROLE}{end}" if '"choices"' in shape else ""
    for row in values:
        chunk = shape
        for place, value in enumerate(row):
            chunk = chunk.replace(f"@{place}", value)
        body += f"data: {chunk}{end}"
    return body.encode()


SAID = [("One", "One"), ("two", "One"), ("three", "One"), ("One", "four"), ("One", "five"), ("six", "six"), ("7", "8")]


@pytest.mark.parametrize(
    "delta",
    [
        r'"content":"@0","c\u006fntent":"@1"',
        r'"c\u006fntent":"@1","content":"@0"',
        r'"c\u006fntent":"@1","\u0063ontent":"@0"',
        '"content":"@0","content":"@1"',
    ],
)
def test_a_name_written_with_escapes_is_the_name(both: Both, delta: str) -> None:
    for how in FORMATS:
        same(both, "openai", [deltas(f'{{"choices":[{{"index":0,"delta":{{{delta}}}}}]}}', *SAID)], how)


@pytest.mark.parametrize(
    ("provider", "delta"),
    [
        ("openai", '"audio":{"transcript":"@0"}'),
        ("openai", '"content":[{"type":"text","text":"@0"}]'),
        ("mistral", '"content":["@0"]'),
        ("openai", '"tool_calls":[{"index":0,"id":"c","type":"custom","custom":{"name":"f","input":"@0"}}]'),
        ("openai", '"reasoning_details":[{"type":"reasoning.text","text":"@0"}]'),
    ],
)
@pytest.mark.parametrize("beside", ['"x":{"@2":"@1"}', '"x":["@1"]'])
def test_a_text_that_stands_in_two_places_is_read_where_the_adapter_reads_it(
    both: Both, provider: str, delta: str, beside: str
) -> None:
    for name in ("content", "arguments", "reasoning", "text"):
        shape = f'{{"choices":[{{"index":0,"delta":{{{delta}}}}}],{beside.replace("@2", name)}}}'
        same(both, provider, [deltas(shape, *SAID)], FORMATS[0])


def test_the_lf_of_a_crlf_leaves_in_the_read_that_brings_it_also_where_a_read_ended_at_its_cr_before(
    both: Both,
) -> None:
    body = deltas(
        '{"choices":[{"index":0,"delta":{"content":"@0"}}]}',
        *[(word,) for word in ("One", "two", "three", "four", "five", "six")],
        end="\r\n\r\n",
    )
    ends = [found.end() for found in re.finditer(b"\r\n\r\n", body)]
    for cut in range(1, 5):
        edges = [0, *(end - (number == cut) for number, end in enumerate(ends))]
        chunks = [body[begin:end] for begin, end in pairwise(edges)]
        for how in (("openai", "sse", True, {}), FORMATS[0]):
            same(both, "openai", chunks, how)


@pytest.mark.parametrize("blank", [" ", "\t", "\x00", ""])
def test_blanks_are_no_number_whatever_another_answer_has_taught(both: Both, blank: str) -> None:
    taught = answer("a", "One", " two", " three", model="blank")
    relayed(both[0], "openai", [taught], FORMATS[7])
    role, rest = answer("a", "One", " two", model="blank").split(b"\n\n", 1)
    again = role + b"\n\n" + rest.replace(b'"created":171', b'"created":' + blank.encode() * 3)
    for how in (FORMATS[0], FORMATS[7]):
        same(both, "openai", [again], how)


@pytest.mark.parametrize("place", ["candidate", "content", "part", "top", "twice"])
def test_usage_metadata_counts_at_the_top_only(both: Both, place: str) -> None:
    usage = dict.fromkeys(("candidate", "content", "part", "top", "before"), "")
    counted = ',"usageMetadata":{"promptTokenCount":@1,"candidatesTokenCount":@2}'
    usage.update({"top": counted, "before": '"usageMetadata":null,'} if place == "twice" else {place: counted})
    shape = (
        f'{{{usage["before"]}"candidates":[{{"content":{{"parts":[{{"text":"@0"{usage["part"]}}}],"role":"model"'
        f'{usage["content"]}}},"index":0{usage["candidate"]}}}],"responseId":"r"{usage["top"]}}}'
    )
    rows = [(f"t{number}", str(number + 1), str(number % 3)) for number in range(8)]
    stop = '{"candidates":[{"content":{"parts":[{"text":"."}]},"index":0,"finishReason":"STOP"}],"responseId":"r"}'
    body = deltas(shape, *rows, end="\r\n\r\n") + deltas(stop, (), end="\r\n\r\n")
    for chunks in ([body], [body[: len(body) // 2], body[len(body) // 2 :]]):
        same(both, "gemini", chunks, FORMATS[0])


@pytest.mark.parametrize("usage", ['"prompt_tokens":@1', '"prompt_tokens":@1,"cost":0.@2', '"reasoning_tokens":@1'])
@pytest.mark.parametrize(
    "counts",
    [
        ["5.0", "6.0", "7.5"],
        ["5.0", "6.99999999999999999999", "7.25"],
        ["1e1", "10e-1", "1.5e-2", "9.9999999999999999e-1", "25e-1"],
        ["3", "4", "0"],
        ["3.0", "2.0", "-2.5"],
    ],
)
def test_of_a_batch_the_last_usage_counts_that_counts_at_all(both: Both, usage: str, counts: list[str]) -> None:
    """5.0 is a count to an adapter and 5.5 is none; a zero may be left out."""
    shape = f'{{"choices":[{{"index":0,"delta":{{"content":"@0"}}}}],"usage":{{{usage}}}}}'
    for first in range(len(counts)):
        row = counts[first:] + counts[:first]
        body = deltas(shape, *((f"t{at}", count, f"0{at + 1}") for at, count in enumerate(row * 2)))
        for provider in ("openai", "perplexity", "openrouter"):
            same(both, provider, [body], FORMATS[0])
            same(both, provider, [body], FORMATS[7])


# ---- what is collected -----------------------------------------------------------------------------------------------


def test_arguments_that_are_copied_are_handed_over_in_bounded_pieces(both: Both) -> None:
    """However much one read brings, and however long a fast path goes on, only so much waits for the adapter."""
    begin = {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}}]}
    fragment = {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "x" * 1000}}]}}]}
    body = b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in [begin, *[fragment] * 1000])
    seen = []

    class Watched(ChatAdapter):
        def copied(self, event: Any, characters: int, text: str) -> None:
            seen.append(len(text))
            super().copied(event, characters, text)

    arguments = []
    for kernels in both:
        adapter = Watched(get_provider("openai"))
        with kernels_of_answers(kernels):
            output: Any = get_format("gai").encoder("sse", context_of())
            relay = Relay(adapter, output, deltas=output)
            relay.receive_data(body, NOW)
        arguments.append(adapter.choices[0].calls.calls[0].arguments)
    assert arguments[0] == arguments[1] == "x" * 1_000_000
    assert len(seen) > 10
    assert max(seen) <= LIMITS.collected_text + 1000


# ---- the end of a text -----------------------------------------------------------------------------------------------


def response_body(deltas: list[str], whole: str, *, escaped: bool = False, parts: int = 1) -> bytes:
    """Returns a response with these deltas, of so many parts in turn, and another whole text of the first part."""
    part = {"type": "output_text", "text": whole}
    item = {"type": "message", "id": "i", "content": [part]}
    place = {"output_index": 0, "item_id": "i"}
    chunks: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "r", "model": "m"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "i"}},
        *(
            {"type": "response.output_text.delta", **place, "content_index": number % parts, "delta": delta}
            for number, delta in enumerate(deltas)
        ),
        {"type": "response.output_text.done", **place, "content_index": 0, "text": whole},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": [item]}},
    ]
    return b"".join(b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=escaped).encode() for chunk in chunks)


def by_frame(body: bytes) -> list[bytes]:
    return [frame + b"\n\n" for frame in body.split(b"\n\n")]


def said_by(kernels: ModuleType, chunks: list[bytes]) -> str:
    """Returns the text of an answer of the Responses API."""
    out = b"".join(relayed(kernels, "openai:responses", chunks, ("gai", "ndjson", False, {}))[0])
    return "".join(event.get("text", "") for event in map(json.loads, out.splitlines()))


pieces_of_text = st.text('ab "\\/\n\x01é漢😀', min_size=1, max_size=9) | st.text("xé😀", min_size=60, max_size=900)


@given(
    st.lists(pieces_of_text, min_size=1, max_size=6),
    st.integers(1, 90),
    st.text(min_size=1, max_size=9),
    EDGES,
    st.booleans(),
)
def test_the_end_of_a_text_that_no_delta_carried_comes_however_its_deltas_were_read(
    both: Both, kinds: list[str], repeated: int, lost: str, edges: list[float], escaped: bool
) -> None:
    """vercel/ai#13836: the whole text has more than its deltas."""
    deltas = ["begin", *(kinds * repeated)[:90]]
    body = response_body(deltas, "".join(deltas) + lost, escaped=escaped)
    for chunks in ([body], cut(body, edges), by_frame(body)):
        for kernels in both:
            assert said_by(kernels, chunks) == "".join(deltas) + lost


@pytest.mark.parametrize("place", [1, 40, 64])
def test_a_text_that_the_provider_has_changed_is_not_continued(both: Both, place: int) -> None:
    """Its end may be anything: the deltas are the answer. The last 64 characters are compared."""
    deltas = [f"{number} tokens, " for number in range(90)]
    sent = "".join(deltas)
    at = len(sent) - place
    body = response_body(deltas, f"{sent[:at]}#{sent[at + 1 :]} and more")
    for chunks in ([body], by_frame(body)):
        for kernels in both:
            assert said_by(kernels, chunks) == sent


def test_only_the_part_that_began_last_is_continued(both: Both) -> None:
    """The copier does not distinguish the deltas of two parts in turn, so the end of the first is not known.

    Both parts begin alike, and this whole text of the first one ends as the text so far.
    """
    deltas = [f"part {number % 2}, " for number in range(90)]
    deltas[0] = deltas[1] = "b" * 64
    sent = "".join(deltas)
    body = response_body(deltas, f"{deltas[0]}{sent[128:-64].swapcase()}{sent[-64:]} and more", parts=2)
    for chunks in ([body], by_frame(body)):
        for kernels in both:
            assert said_by(kernels, chunks) == sent
