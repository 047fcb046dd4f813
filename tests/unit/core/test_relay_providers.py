"""`core/relay.py` with real adapters: any stream, cut and split anywhere, is legal, and copying changes nothing.

Streams are made of all that the dialects allow and of much that they do not.
"""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.core.relay import Relay
from gai_fast.core.sinks import DeltaSink
from gai_fast.formats import Framing, StreamContext, get_format
from gai_fast.library.decoding import decode
from gai_fast.model.events import Event
from gai_fast.providers import get_provider
from tests.legal import check_any_cut, relaying, split, sse

TEXTS = st.text(st.sampled_from('a"\\\n é€😀\ud83d\ude00'), max_size=4)
FRAGMENTS = st.sampled_from(["", "{", '"a": 1', "}", '{"a": 12345678901234567890}', "\ud83d", "not json"])
MALFORMED = """
malformed
{
[]
5
{"choices": 5}
{"choices": [5]}
{"choices": [{"delta": 5}]}
{"choices": [{"delta": {"content": 5}}]}
{"choices": [{"delta": {"tool_calls": 5}}]}
{"type": "content_block_delta"}
{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}
{"type": "content_block_start", "index": "x"}
{"type": "message_start", "message": 5}
{"type": []}
""".split("\n")
NOISE = st.sampled_from([*MALFORMED, b": ping\n\n", b"event: ping\n\n", b"stray\n\n", b"\n"])
CUT = st.integers(0)
EDGES = st.lists(st.integers(0), max_size=6)


# ---- the chat dialect ------------------------------------------------------------------------------------------------


def chunk(delta: dict[str, Any], finish: str | None = None, choice: int = 0, **keys: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": choice, "delta": delta, "finish_reason": finish}], **keys}


def call(arguments: str, **keys: Any) -> dict[str, Any]:
    name = {"name": "f"} if "id" in keys else {}
    return chunk({"tool_calls": [{"function": {**name, "arguments": arguments}, **keys}]})


INDICES = st.sampled_from([{}, {"index": 0}, {"index": 1}, {"index": 7}])
IDS = st.sampled_from([{}, {"id": "a"}, {"id": "b"}, {"id": ""}, {"id": None}])
SAID = st.sampled_from(["content", "content", "content", "reasoning_content", "refusal"])
OPENAI = st.one_of(
    NOISE,
    st.builds(lambda key, text, choice: chunk({key: text}, choice=choice), SAID, TEXTS, st.sampled_from([0, 0, 1])),
    st.builds(lambda arguments, index, name: call(arguments, **index, **name), FRAGMENTS, INDICES, IDS),
    st.sampled_from(
        [
            chunk({}, "stop"),
            chunk({}, "length"),
            chunk({}, "tool_calls"),
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": None}),
            chunk({"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": 5}}]}),
            {"choices": []},
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
        ]
    ),
)
OPENAI_ENDS = st.sampled_from(
    [
        [],
        [chunk({}, "stop")],
        [chunk({}, "stop"), "[DONE]"],
        [chunk({}, "tool_calls"), "[DONE]"],
        [chunk({}, "length"), "[DONE]"],
        ["[DONE]"],
        [{"error": {"message": "Overloaded"}}],
        [b'{"error": "x"}'],
    ]
)


@given(st.lists(OPENAI, max_size=12), OPENAI_ENDS, CUT, EDGES)
def test_any_stream_of_openai_is_legal(chunks: list[Any], end: list[Any], cut: int, edges: list[int]) -> None:
    check_any_cut(relaying(get_provider("openai").adapter), sse(*chunks, *end), cut, edges)


# ---- Anthropic's -----------------------------------------------------------------------------------------------------


def delta(index: int, kind: str, **said: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", **said}}


def begin(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def end_of(reason: str) -> list[dict[str, Any]]:
    return [{"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 2}}]


BLOCKS = st.sampled_from(
    [
        {"type": "text", "text": ""},
        {"type": "text", "text": "Hi"},
        {"type": "thinking", "thinking": ""},
        {"type": "redacted_thinking", "data": "blob"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {"n": 12345678901234567890}},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "unheard_of"},
    ]
)
BLOCK = st.integers(0, 2)
MESSAGE = {"id": "m", "model": "claude", "usage": {"input_tokens": 3}, "content": []}
MESSAGE_START = {"type": "message_start", "message": MESSAGE}
STOP = {"type": "message_stop"}
ANTHROPIC = st.one_of(
    NOISE,
    st.builds(begin, BLOCK, BLOCKS),
    st.builds(lambda index, text: delta(index, "text", text=text), BLOCK, TEXTS),
    st.builds(lambda index, text: delta(index, "thinking", thinking=text), BLOCK, TEXTS),
    st.builds(lambda index, text: delta(index, "input_json", partial_json=text), BLOCK, FRAGMENTS),
    st.builds(lambda index: delta(index, "signature", signature="sig"), BLOCK),
    st.builds(lambda index: {"type": "content_block_stop", "index": index}, BLOCK),
    st.sampled_from([MESSAGE_START, {"type": "ping"}, {"type": "unheard.of"}, *end_of("end_turn")]),
)
ANTHROPIC_ENDS = st.sampled_from(
    [
        [],
        end_of("tool_use"),
        [*end_of("end_turn"), STOP],
        [*end_of("max_tokens"), STOP],
        [STOP],
        [{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}],
    ]
)


@given(st.booleans(), st.lists(ANTHROPIC, max_size=14), ANTHROPIC_ENDS, CUT, EDGES)
def test_any_stream_of_anthropic_is_legal(
    begins: bool, chunks: list[Any], end: list[Any], cut: int, edges: list[int]
) -> None:
    body = sse(*([MESSAGE_START] if begins else []), *chunks, *end)
    check_any_cut(relaying(get_provider("anthropic").adapter), body, cut, edges)


# ---- deltas that are copied ------------------------------------------------------------------------------------------


class Watcher:
    """Keeps the events that it is shown."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        self.events.append(event)


def encoded(
    provider: str,
    format_name: str,
    framing: Framing,
    pieces: list[bytes],
    *,
    copying: bool,
    watched: range = range(0),
    watcher: Watcher | None = None,
) -> bytes:
    """Returns the bytes for a client of this format; a watcher is shown the events of some of the pieces."""
    context = StreamContext("abcdefghijklmnopqrstuv", "r", None, "m", lambda: 1)
    encoder = get_format(format_name).encoder(framing, context)
    deltas = cast(DeltaSink, encoder) if copying else None
    relay = Relay(get_provider(provider).adapter(), encoder, deltas=deltas, prompt_characters=10)
    written = b""
    for number, piece in enumerate(pieces):
        if watched and number in (watched.start, watched.stop):
            relay.watch(watcher if number == watched.start else None)
        relay.receive_data(piece, 1)
        written += encoder.take()
    relay.receive_eof(None, 1)
    return written + encoder.take()


FORMATS = st.sampled_from(
    [
        ("gai", "sse"),
        ("gai", "ndjson"),
        ("openai", "sse"),
        ("openai", "ndjson"),
        ("simple", "sse"),
        ("vercel", "sse"),
        ("agui", "sse"),
        ("completions", "sse"),
    ]
)
RUNS = st.lists(TEXTS, min_size=1, max_size=5)
ALIKE = st.one_of(
    st.builds(
        lambda key, texts, choice: [chunk({key: text}, choice=choice) for text in texts],
        SAID,
        RUNS,
        st.sampled_from([0, 0, 0, 1]),
    ),
    st.builds(
        lambda texts, pads: [chunk({"content": text}, obfuscation=pad) for text, pad in zip(texts, pads, strict=False)],
        RUNS,
        st.lists(st.text(max_size=5), min_size=5),
    ),
    st.just([call("{", index=0, id="a"), call('"x', index=0), call('y"', index=0), call(":1}", index=0)]),
    NOISE.map(lambda noise: [noise]),
)


@given(FORMATS, st.lists(ALIKE, max_size=6), OPENAI_ENDS, EDGES, st.booleans())
def test_copied_deltas_of_openai_are_what_events_would_have_become(
    client: tuple[str, Framing], runs: list[list[Any]], end: list[Any], edges: list[int], crlf: bool
) -> None:
    body = sse(*(chunk for run in runs for chunk in run), *end).replace(b"\n", b"\r\n" if crlf else b"\n")
    pieces = split(body, edges)
    assert encoded("openai", *client, pieces, copying=True) == encoded("openai", *client, [body], copying=False)


@given(FORMATS, st.lists(st.lists(ANTHROPIC, max_size=6), max_size=4), ANTHROPIC_ENDS, EDGES)
def test_copied_deltas_of_anthropic_are_what_events_would_have_become(
    client: tuple[str, Framing], runs: list[list[Any]], end: list[Any], edges: list[int]
) -> None:
    body = sse(MESSAGE_START, *(chunk for run in runs for chunk in run * 2), *end)
    pieces = split(body, edges)
    assert encoded("anthropic", *client, pieces, copying=True) == encoded("anthropic", *client, [body], copying=False)


def test_an_event_without_an_index_has_the_same_block_after_a_copied_delta() -> None:
    """The index of a copied delta is not read: a block that begins after it has the next number of the blocks alone."""
    said, unread = delta(2, "text", text="a"), '{"type": "content_block_start", "index": "x"}'
    for _ in range(2):  # from then on the first text of another answer is copied
        encoded("anthropic", "gai", "sse", [sse(MESSAGE_START, unread, said)], copying=True)
    for block in range(5):
        body = sse(MESSAGE_START, unread, said, unread, delta(block, "input_json", partial_json="{"))
        copied = encoded("anthropic", "gai", "sse", [body], copying=True)
        assert copied == encoded("anthropic", "gai", "sse", [body], copying=False)
        assert (b"a piece of a call that has not begun" in copied) is (block > 1)


@given(FORMATS, st.lists(ALIKE, min_size=1, max_size=6), OPENAI_ENDS, EDGES, st.integers(0, 6), st.integers(1, 6))
def test_somebody_who_watches_changes_nothing_and_sees_each_event_of_that_time(
    client: tuple[str, Framing], runs: list[list[Any]], end: list[Any], edges: list[int], first: int, many: int
) -> None:
    body = sse(*(chunk for run in runs for chunk in run * 2), *end)
    pieces = split(body, edges)
    seen, expected, always = Watcher(), Watcher(), Watcher()
    watched = range(first, first + many)
    written = encoded("openai", *client, pieces, copying=True, watched=watched, watcher=seen)
    assert written == encoded("openai", *client, [body], copying=False)
    encoded("openai", *client, pieces, copying=False, watched=watched, watcher=expected)
    assert seen.events == expected.events
    encoded("openai", *client, [body], copying=True, watched=range(1), watcher=always)
    texts = [event.get("text") for event in seen.events]
    whole = [event.get("text") for event in always.events]
    assert any(whole[at : at + len(texts)] == texts for at in range(len(whole) + 1))


def test_half_a_character_is_joined_amid_deltas_that_are_copied() -> None:
    chunks = [chunk({"content": text}) for text in ("ab", "cd", "x\ud83d", "\ude00", "y\ud83d", "ef", "gh")]
    written = encoded("openai", "simple", "sse", [sse(*chunks, chunk({}, "stop"))], copying=True).decode()
    assert written.replace('data: {"content":"', "").replace('"}\n\n', "") == "abcdx😀y\ufffdefghdata: [DONE]\n\n"


# ---- Cohere's and Ollama's -------------------------------------------------------------------------------------------


def cohere(kind: str, index: int, **message: Any) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": message}}


TEXT_KEYS = st.sampled_from(["text", "text", "thinking"])
CALLED = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}}
CITED = {"start": 0, "end": 2, "sources": [{"id": "d"}], "content_index": 1}
COHERE = st.one_of(
    NOISE,
    st.builds(lambda index, key, text: cohere("content-delta", index, content={key: text}), BLOCK, TEXT_KEYS, TEXTS),
    st.builds(lambda index, key: cohere("content-start", index, content={"type": key, key: ""}), BLOCK, TEXT_KEYS),
    st.builds(lambda text: cohere("tool-plan-delta", 0, tool_plan=text), TEXTS),
    st.builds(lambda index: cohere("tool-call-start", index, tool_calls=CALLED), BLOCK),
    st.builds(
        lambda index, text: cohere("tool-call-delta", index, tool_calls={"function": {"arguments": text}}),
        BLOCK,
        FRAGMENTS,
    ),
    st.builds(lambda index: {"type": "tool-call-end", "index": index}, BLOCK),
    st.sampled_from([cohere("citation-start", 0, citations=CITED), {"type": "citation-end", "index": 0}]),
)
COHERE_ENDS = st.sampled_from(
    [[], ["[DONE]"], [{"message": "gone"}]]
    + [
        [
            {"type": "message-end", "delta": {"finish_reason": reason, "usage": {"tokens": {"output_tokens": 2}}}},
            "[DONE]",
        ]
        for reason in ("COMPLETE", "TOOL_CALL", "MAX_TOKENS", "ERROR", None)
    ]
)


@given(st.lists(COHERE, max_size=14), COHERE_ENDS, CUT, EDGES)
def test_any_stream_of_cohere_is_legal(chunks: list[Any], end: list[Any], cut: int, edges: list[int]) -> None:
    check_any_cut(relaying(get_provider("cohere").adapter), sse(*chunks, *end), cut, edges)


@given(FORMATS, st.lists(st.lists(COHERE, max_size=6), max_size=4), COHERE_ENDS, EDGES)
def test_copied_deltas_of_cohere_are_what_events_would_have_become(
    client: tuple[str, Framing], runs: list[list[Any]], end: list[Any], edges: list[int]
) -> None:
    body = sse(*(chunk for run in runs for chunk in run * 2), *end)
    pieces = split(body, edges)
    assert encoded("cohere", *client, pieces, copying=True) == encoded("cohere", *client, [body], copying=False)


def line(at: int, **said: Any) -> dict[str, Any]:
    return {"model": "m", "created_at": f"2026-11-20T09:51:02.{at}Z", "done": False, **said}


WHOLE_CALLS = [{"function": {"name": "f", "arguments": {"n": 12345678901234567890}}}, {"function": {"name": "g"}}]
OLLAMA = st.one_of(
    NOISE,
    st.builds(lambda at, text: line(at, message={"role": "assistant", "content": text}), BLOCK, TEXTS),
    st.builds(lambda at, text: line(at, message={"content": "", "thinking": text}), BLOCK, TEXTS),
    st.builds(lambda at, text: line(at, response=text), BLOCK, TEXTS),
    st.builds(lambda at: line(at, message={"content": "x", "tool_calls": WHOLE_CALLS}), BLOCK),
)
OLLAMA_ENDS = st.sampled_from(
    [[], [{"error": "gone"}], [line(1, message={"content": "."}, done=True, done_reason="stop", eval_count=2)]]
)


def ndjson(*chunks: Any) -> bytes:
    """Returns a body of these chunks, a line each."""
    return b"".join(chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode() + b"\n" for chunk in chunks)


@given(st.lists(OLLAMA, max_size=14), OLLAMA_ENDS, CUT, EDGES)
def test_any_stream_of_ollama_is_legal(chunks: list[Any], end: list[Any], cut: int, edges: list[int]) -> None:
    check_any_cut(relaying(get_provider("ollama").adapter), ndjson(*chunks, *end), cut, edges)


@given(FORMATS, st.lists(st.lists(OLLAMA, max_size=6), max_size=4), OLLAMA_ENDS, EDGES)
def test_copied_deltas_of_ollama_are_what_events_would_have_become(
    client: tuple[str, Framing], runs: list[list[Any]], end: list[Any], edges: list[int]
) -> None:
    body = ndjson(*(chunk for run in runs for chunk in run * 2), *end)
    pieces = split(body, edges)
    assert encoded("ollama", *client, pieces, copying=True) == encoded("ollama", *client, [body], copying=False)


@pytest.mark.parametrize("choice", [5, {"delta": 5}, {"delta": {"tool_calls": 5}}, {"delta": {"content": [5]}}])
def test_another_shape_is_reported_in_the_same_words_whatever_the_build_raised(choice: Any) -> None:
    context = StreamContext("abcdefghijklmnopqrstuv", "r", None, "m", lambda: 1)
    encoder = get_format("simple").encoder("sse", context)
    relay = Relay(get_provider("openai").adapter(), encoder, on_malformed="error")
    relay.receive_data(sse({"choices": [choice]}))
    assert relay.error is not None
    what = relay.error.message.removeprefix("openai sent what cannot be read: ")
    assert what in ("it has another shape", "a part of it has another shape", "the content of a choice is no object")


def sent(*chunks: dict[str, Any]) -> bytes:
    return b"".join(sse(json.dumps(one)) for one in chunks)


@pytest.mark.parametrize("odd", [5, "x", [1], {"tokens": 5}], ids=str)
def test_usage_of_another_shape_keeps_no_answer_from_its_end(odd: Any) -> None:
    text, stop = {"type": "text_delta", "text": "Hi"}, {"stop_reason": "end_turn"}
    answers = {
        "openai": sent(chunk({"content": "Hi"}), chunk({}, "stop", usage=odd)),
        "anthropic": sent(
            {"type": "message_start", "message": {"id": "m", "usage": odd}},
            {"type": "content_block_delta", "index": 0, "delta": text},
            {"type": "message_delta", "delta": stop, "usage": odd},
        ),
        "cohere": sent(
            cohere("content-delta", 0, content={"text": "Hi"}),
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": odd}},
        ),
    }
    for provider, body in answers.items():
        events = [*decode(provider, [body])]
        assert [event["type"] for event in events] == ["start", "text.delta", "finish", "done"], provider
        assert events[-2]["finish_reason"] == "stop"


UNREADABLE: list[tuple[str, str, dict[str, Any]]] = [
    ("openai", "", {"choices": 5}),
    ("openai", "", {"choices": [{"index": 0, "delta": {"content": 5}}]}),
    ("openai", "", {"choices": [{"index": 0, "delta": "lost"}]}),
    ("openai:completions", "", {"choices": [{"index": 0, "text": 5}]}),
    ("mistral", "", {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": 5}]}}]}),
    ("anthropic", "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": 5}),
    ("gemini", "", {"candidates": [{"content": {"parts": [{"text": 5}]}}]}),
    ("cohere", "", {"type": "content-delta", "delta": {"message": {"content": {"text": 5}}}}),
    ("ollama", "", {"message": {"role": "assistant", "content": 5}, "done": False}),
    ("openai:responses", "", {"type": "response.output_text.delta", "output_index": 0, "delta": 5}),
    (
        "openai:responses",
        "",
        {
            "type": "response.completed",
            "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": {"x": 1}}]}]},
        },
    ),
]


@pytest.mark.parametrize(("provider", "name", "chunk"), UNREADABLE)
def test_text_that_cannot_be_read_is_a_failure_whatever_the_provider(
    provider: str, name: str, chunk: dict[str, Any]
) -> None:
    api = get_provider(provider)
    data = json.dumps(chunk).encode()
    body = data + b"\n" if api.framing == "ndjson" else b"event: %b\ndata: %b\n\n" % (name.encode(), data)
    events = list(decode(provider, [body]))
    assert [event["type"] for event in events][-2:] == ["error", "done"]
    assert events[-2]["error"]["reason"] == "malformed_chunk"
    assert not any(event["type"] == "text.delta" for event in events)
