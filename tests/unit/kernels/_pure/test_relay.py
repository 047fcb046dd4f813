"""`DeltaCopier`: what it may do to a stream, on both implementations; how much of it is copied, on the native one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest

from gai_fast.kernels._pure.faults import FeedError
from tests.kernels import IS_REPEATED, cuts, load
from tests.limits import LIMITS

PARTS = (b"<", "seq", b"@", "ts", b":", "text", b">")
NOW = 1_700_000_000_000


class Reader:
    """Stands in for the relay: writes `<seq@ts:text>` for each delta and teaches the copier what it read.

    Args:
        kernels: The implementation.
        text: Finds the text of a chunk; `None` or empty: it is no delta.
        lines: NDJSON.
        passes: Frames are passed on as they are.
        limit: Bytes that a frame may have.
        event: Makes the event of a chunk, without its text.
        key: Where in it the text stands.
        members: As for the copier.
        ignored: As for the copier.
        kept: As for the copier.
        labels: As for the copier.
    """

    def __init__(
        self,
        kernels: ModuleType,
        text: Callable[[Any], str | None],
        *,
        lines: bool = False,
        passes: bool = False,
        limit: int = LIMITS.event,
        event: Callable[[Any], dict[str, Any]] = lambda chunk: {"type": "text.delta"},
        key: str = "text",
        members: Iterable[str] = ("text",),
        ignored: Iterable[str] = (),
        kept: Iterable[str] = (),
        labels: Iterable[str] = (),
    ) -> None:
        framer = kernels.LineFramer(limit) if lines else kernels.SSEFramer(limit)
        self.kept_names = frozenset(kept)
        sets = frozenset(members), frozenset(ignored), self.kept_names, frozenset(labels)
        self.copier = kernels.DeltaCopier(framer, passes, *sets)
        self.text, self.passes, self.event, self.key = text, passes, event, key
        self.out = b""
        self.seq = self.copied = self.slow = self.characters = 0
        self.kinds: list[tuple[dict[str, Any], int, str]] = []
        self.arguments: dict[int, str] = {}
        self.kept: dict[str, Any] = {}

    def feed(self, data: Any) -> bytes:
        """Takes bytes; what they become."""
        self.copier.feed(data)
        before = len(self.out)
        while True:
            try:
                frames = self.copier.next(self.seq, NOW)
            except FeedError as problem:
                self.take()
                for frame in problem.before:
                    self.read(frame)
                raise
            self.take()
            if frames is None:
                return self.out[before:]
            for frame in frames:
                self.read(frame)

    def take(self) -> None:
        data, count, kinds = self.copier.take_copied()
        self.out += data
        self.seq += count
        self.copied += count
        self.kinds += kinds
        for event, characters, text in kinds:
            self.characters += characters
            if self.key == "arguments":
                self.arguments[event["index"]] = self.arguments.get(event["index"], "") + text
        self.kept |= {name: json.loads(text) for name, text in self.copier.take_kept().items()}

    def read(self, frame: Any) -> None:
        self.slow += 1
        if self.passes:
            self.out += frame.raw
        if frame.data is None:
            return
        try:
            chunk = json.loads(frame.data)
            text = self.text(chunk)
        except (ValueError, AttributeError, IndexError, KeyError, TypeError):
            self.out += b"?"
            return
        for name in self.kept_names:
            found = find(chunk, name)
            if isinstance(found, dict):
                self.kept[name] = found
        if not text:
            return
        self.seq += 1
        self.characters += len(text)
        event = {**self.event(chunk), self.key: text}
        if self.key == "arguments":
            self.arguments[event["index"]] = self.arguments.get(event["index"], "") + text
        if not self.passes:
            self.out += b"<%d@%d:%b>" % (self.seq, NOW, load("pure").escape(text)[1:-1])
        parts = () if self.passes else PARTS
        self.copier.learn(frame, event, self.key, parts)

    def close(self) -> None:
        for frame in self.copier.close():
            self.read(frame)


def find(value: Any, name: str) -> Any:
    """Returns the member of that name, however deep."""
    if isinstance(value, dict):
        return value[name] if name in value else next(filter(None, (find(item, name) for item in value.values())), None)
    if isinstance(value, list):
        return next(filter(None, (find(item, name) for item in value)), None)
    return None


def sse(data: str, name: str = "", end: str = "\n") -> bytes:
    return (f"event: {name}{end}" * bool(name) + f"data: {data}{end}{end}").encode()


def plain(texts: Iterable[str]) -> bytes:
    return b"".join(sse(json.dumps({"n": 1, "text": text, "end": None})) for text in texts)


WORDS = ["Hello", ",", " world", "!", ' "quoted"\\', "\n\t", "é豆😀", "/", "\x7f\u2028", " "]


def text_of(chunk: Any) -> str | None:
    return chunk["text"]


# ---- what holds for both ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [False, True])
def test_every_frame_becomes_what_it_would_have_become_however_the_bytes_are_cut(
    kernels: ModuleType, passes: bool
) -> None:
    stream = plain(WORDS * 3)
    for chunks in cuts(stream):
        reader = Reader(kernels, text_of, passes=passes)
        for chunk in chunks:
            reader.feed(chunk)
        reader.close()
        written = b"".join(
            b"<%d@%d:%b>" % (n, NOW, load("pure").escape(text)[1:-1]) for n, text in enumerate(WORDS * 3, 1)
        )
        assert reader.out == (stream if passes else written)
        assert reader.seq == len(WORDS * 3)
        assert reader.characters == sum(map(len, WORDS * 3))


def test_any_bytes_like_object_is_taken_and_nothing_else(kernels: ModuleType) -> None:
    stream = plain(WORDS)
    expected = Reader(kernels, text_of).feed(stream)
    changing = bytearray(stream)
    for data in (changing, memoryview(stream), memoryview(changing)):
        assert Reader(kernels, text_of).feed(data) == expected
    copier = kernels.DeltaCopier(kernels.SSEFramer(), False)
    copier.feed(changing)
    changing[:] = b"#" * len(changing)
    frames = [frame.raw for found in iter(lambda: copier.next(0, 0), None) for frame in found]
    assert b"".join(frames) == stream
    for wrong in (None, "data", 5, memoryview(stream)[::2]):
        with pytest.raises(TypeError, match="a contiguous bytes-like object is needed, not "):
            copier.feed(wrong)


@pytest.mark.parametrize("before", [0, 6, 95, 9_993, 99_999_990, 2**40])
def test_frames_are_numbered_on_however_many_digits_that_takes(kernels: ModuleType, before: int) -> None:
    reader = Reader(kernels, text_of)
    reader.seq = before
    reader.feed(plain(["x"] * 25))
    assert reader.out == b"".join(b"<%d@%d:x>" % (number, NOW) for number in range(before + 1, before + 26))


@pytest.mark.parametrize("odd", ["", '"', "\ud83d", "é" * 9, "x" * 40, "x" * (2 * LIMITS.held_frame)])
@pytest.mark.parametrize("passes", [False, True])
def test_a_text_of_another_kind_amid_the_others_changes_nothing_for_them(
    kernels: ModuleType, passes: bool, odd: str
) -> None:
    texts = ["one", "two", odd, "three", "x" * 15, "x" * 16, odd, "four"]
    body = plain(texts)
    whole, pure = Reader(kernels, text_of, passes=passes), Reader(load("pure"), text_of, passes=passes)
    for reader in (whole, pure):
        for _ in range(2):
            reader.feed(body)
    assert (whole.out, whole.seq, whole.characters) == (pure.out, pure.seq, pure.characters)


def test_nothing_copied_is_nothing_to_take(kernels: ModuleType) -> None:
    copier = kernels.DeltaCopier(kernels.SSEFramer(), False)
    assert copier.take_copied() == (b"", 0, [])
    assert copier.take_kept() == {}
    copier.feed(b"")
    assert not copier.next(0, 0)
    assert copier.close() == []


def test_the_end_gives_what_has_begun(kernels: ModuleType) -> None:
    reader = Reader(kernels, text_of)
    reader.feed(plain(WORDS)[:-2])
    assert reader.seq == len(WORDS) - 1
    assert [frame.data for frame in reader.copier.close()] == ['{"n": 1, "text": " ", "end": null}']


def test_a_frame_beyond_the_limit_is_refused_with_what_came_before_it(kernels: ModuleType) -> None:
    long = "x" * 200
    for lines in (False, True):
        stream = plain(["a", "b", long, "c"])
        stream = stream.replace(b"data: ", b"").replace(b"\n\n", b"\n") if lines else stream
        for chunks in cuts(stream):
            reader = Reader(kernels, text_of, lines=lines, limit=100)
            where = r"line 3 is longer" if lines else r"an SSE event or line is longer"
            with pytest.raises(FeedError, match=where):
                for chunk in chunks:
                    reader.feed(chunk)
            assert reader.out == b"<1@%d:a><2@%d:b>" % (NOW, NOW)
            assert reader.copier.next(2, NOW) is None
            with pytest.raises(FeedError, match=where):
                reader.feed(plain(["d"]))
            assert reader.seq == 2


def test_texts_of_calls_come_in_order_whatever_their_frames_look_like(kernels: ModuleType) -> None:
    def frame(index: int, arguments: str, extra: str = "") -> bytes:
        return sse(f'{{"index":{index},"arguments":{json.dumps(arguments)}{extra}}}')

    stream = frame(0, "{") + frame(0, '"', ',"more":null') + frame(1, "[")
    stream += b"".join(frame(0, f"a{n}\n") + frame(1, f"{n},") + frame(0, f"b{n}", ',"more":null') for n in range(9))
    for chunks in cuts(stream):
        reader = Reader(
            kernels,
            lambda chunk: chunk["arguments"],
            event=lambda chunk: {"type": "tool.call.delta", "index": chunk["index"]},
            key="arguments",
            members=("arguments",),
        )
        for chunk in chunks:
            reader.feed(chunk)
        assert reader.arguments == {
            0: '{"' + "".join(f"a{n}\nb{n}" for n in range(9)),
            1: "[" + "".join(f"{n}," for n in range(9)),
        }


def test_a_learned_text_that_is_blank_teaches_nothing(kernels: ModuleType) -> None:
    """Formats note the first fragment that is not blank: it must have taken the full path."""
    reader = Reader(kernels, text_of)
    reader.feed(plain([" ", "\n"]))
    assert reader.copied == 0


@pytest.mark.native
def test_with_a_framer_of_another_kind_nothing_is_copied() -> None:
    reader = Reader(load("native"), text_of)
    reader.copier = load("native").DeltaCopier(load("pure").SSEFramer(), False)
    reader.feed(plain(WORDS))
    assert (reader.seq, reader.copied, reader.copier.learns) == (len(WORDS), 0, False)


# ---- how much is copied ----------------------------------------------------------------------------------------------


def test_the_pure_one_never_copies() -> None:
    reader = Reader(load("pure"), text_of)
    reader.feed(plain(WORDS))
    assert reader.copied == 0
    assert not reader.copier.learns


def test_all_but_the_first_frame_are_copied(native: ModuleType) -> None:
    reader = Reader(native, text_of)
    reader.feed(plain(WORDS))
    assert (reader.slow, reader.copied) == (1, len(WORDS) - 1)
    assert reader.kinds == [({"type": "text.delta", "text": "Hello"}, sum(map(len, WORDS[1:])), "")]


# The frames of services that vary beside the text, in each dialect.


def chat_live(text: str, n: int) -> bytes:
    padding = "aZ0_-" * (n % 4)
    return sse(
        '{"id":"chatcmpl-x","object":"chat.completion.chunk","created":1775237394,"model":"m","service_tier":"default",'
        f'"system_fingerprint":"fp_1","choices":[{{"index":0,"delta":{{"content":{json.dumps(text)}}},"logprobs":null,'
        f'"finish_reason":null}}],"usage":null,"obfuscation":"{padding}"}}'
    )


def chat_scored(text: str, n: int) -> bytes:
    """With logprobs, and an id of its own for each chunk."""
    token = f'{{"token":{json.dumps(text)},"logprob":-{n}.{n}e-0{n % 9},"bytes":[{n},1],"top_logprobs":[]}}'
    scores = ["null", "[]", f'{{"content":[{token}, {token}],"refusal":null}}', "true", '"\\u00e9\\n"', "-0.5"][n % 6]
    return sse(
        f'{{"id":"chatcmpl-{n}","model":"m","choices":[{{"index":0,"delta":{{"content":{json.dumps(text)}}},'
        f'"logprobs":{scores}}}]}}'
    )


def anthropic_live(text: str, n: int) -> bytes:
    delta = f'"delta":{{"type":"text_delta","text":{json.dumps(text)}}}{" " * (n % 7)}'
    return sse(f'{{"type":"content_block_delta","index":0,{delta}}}', "content_block_delta")


def responses(text: str, n: int) -> bytes:
    return sse(
        f'{{"type":"response.output_text.delta","content_index":0,"delta":{json.dumps(text)},"item_id":"msg_0","logprobs":'
        f'[],"obfuscation":"{"x" * (n % 16)}","output_index":0,"sequence_number":{n + 3}}}',
        "response.output_text.delta",
    )


def gemini(text: str, n: int) -> bytes:
    return sse(
        f'{{"candidates": [{{"content": {{"parts": [{{"text": {json.dumps(text)}}}],"role": "model"}},"index": 0}}],'
        f'"usageMetadata": {{"promptTokenCount": 7,"candidatesTokenCount": {n + 1},"totalTokenCount": {n + 8},'
        '"promptTokensDetails": [{"modality": "TEXT","tokenCount": 7}]},"modelVersion": "mock","responseId": "kLew"}',
        end="\r\n",
    )


def ollama(text: str, n: int) -> bytes:
    return (
        f'{{"model":"mock","created_at":"2026-11-20T09:51:{n:02}.{n:09}Z","message":{{"role":"assistant","content":'
        f'{json.dumps(text)}}},"done":false}}\n'
    ).encode()


def perplexity(text: str, n: int) -> bytes:
    """Returns a usage object on every chunk, costs included."""
    cost = f'"cost":{{"total_cost":{n / 1000 + 1e-05!r},"request":0.0}}'
    return sse(
        f'{{"choices":[{{"delta":{{"content":{json.dumps(text)}}}}}],"usage":{{"prompt_tokens":7,"completion_tokens":{n},'
        f'"search_context_size":"low",{cost}}}}}'
    )


LIVE: dict[str, tuple[Callable[[str, int], bytes], Callable[[Any], str | None], dict[str, Any]]] = {
    "chat": (
        chat_live,
        lambda chunk: chunk["choices"][0]["delta"]["content"],
        {"members": ("content",), "ignored": ("obfuscation", "created")},
    ),
    "scored": (
        chat_scored,
        lambda chunk: len(chunk["id"]) and chunk["choices"][0]["delta"]["content"],
        {"members": ("content",), "ignored": ("logprobs",), "labels": ("id",)},
    ),
    "anthropic": (anthropic_live, lambda chunk: chunk["delta"]["text"], {}),
    "responses": (
        responses,
        lambda chunk: chunk["delta"],
        {"members": ("delta",), "ignored": ("sequence_number", "obfuscation")},
    ),
    "gemini": (
        gemini,
        lambda chunk: chunk["candidates"][0]["content"]["parts"][0]["text"],
        {"kept": ("usageMetadata",)},
    ),
    "ollama": (
        ollama,
        lambda chunk: chunk["message"]["content"],
        {"members": ("content",), "ignored": ("created_at",), "lines": True},
    ),
    "perplexity": (
        perplexity,
        lambda chunk: chunk["choices"][0]["delta"]["content"],
        {"members": ("content",), "kept": ("usage",)},
    ),
}


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("name", LIVE)
def test_what_a_service_varies_beside_the_text_parts_no_frame_from_the_others(
    native: ModuleType, name: str, passes: bool
) -> None:
    frame, text, how = LIVE[name]
    frames = [frame(word, n) for n, word in enumerate(WORDS * 3)]
    both = [Reader(kernels, text, passes=passes, **how) for kernels in (native, load("pure"))]
    for reader in both:
        reader.feed(b"".join(frames))
        reader.close()
    ours, theirs = both
    assert ours.out == theirs.out
    assert ours.kept == theirs.kept
    # The first teaches; a first decimal among integers teaches once more.
    assert ours.copied >= len(frames) - 2
    for number, chunks in enumerate(cuts(b"".join(frames))):
        reader = Reader(native, text, passes=passes, **how)
        for chunk in chunks:
            reader.feed(chunk)
        reader.close()
        assert (reader.out, reader.kept) == (theirs.out, theirs.kept), number
        # A frame that is cut within the CRLF that ends it takes the full path, and so does the next frame.
        assert reader.copied >= len(frames) - 2 - 2 * 8, number


@pytest.mark.parametrize("name", LIVE)
def test_one_byte_that_differs_changes_what_it_would_have_changed(native: ModuleType, name: str) -> None:
    """The fourth of six frames, with each of its bytes replaced in turn; each fourth, if another run has all."""
    frame, text, how = LIVE[name]
    frames = [frame(word, n) for n, word in enumerate(["One", " two", "a\\/b", "e\u0301\ud83d\ude00", "x", "y"])]
    for passes in (False, True):
        for at in range(0, len(frames[3]), 4 if IS_REPEATED else 1):
            for octet in b'"\\,:{}[] \n\r0.-ex\x00\x7f\xc3\xff':
                spoilt = [*frames[:3], frames[3][:at] + bytes((octet,)) + frames[3][at + 1 :], *frames[4:]]
                results = []
                for kernels in (native, load("pure")):
                    reader = Reader(kernels, text, passes=passes, **how)
                    reader.feed(b"".join(spoilt))
                    reader.close()
                    results.append((reader.out, reader.seq, reader.characters, reader.kept))
                assert results[0] == results[1], (at, octet)


def test_the_frames_behind_the_last_copied_one_come_together(native: ModuleType) -> None:
    reader = Reader(native, text_of)
    reader.feed(plain(["Hello"]))
    ends = ['{"end": "stop"}', '{"usage": {}}', "[DONE]"]
    reader.copier.feed(plain([" world", "!"]) + b"".join(map(sse, ends)))
    frames = reader.copier.next(reader.seq, NOW)
    assert [frame.data for frame in frames] == ends
    assert reader.copier.take_copied()[1] == 2
    assert reader.copier.next(reader.seq, NOW) is None


def test_the_last_kept_object_is_given_once(native: ModuleType) -> None:
    frame, text, how = LIVE["gemini"]
    reader = Reader(native, text, **how)
    reader.feed(b"".join(frame("x", n) for n in range(5)))
    assert reader.kept["usageMetadata"]["candidatesTokenCount"] == 5
    assert reader.copier.take_kept() == {}
    reader.feed(frame("x", 8))
    assert reader.kept["usageMetadata"] == {
        "promptTokenCount": 7,
        "candidatesTokenCount": 9,
        "totalTokenCount": 16,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}],
    }


@pytest.mark.parametrize("number", [*"1 01 -1 - 1. .5 1.5 1.5e 1e5 1e-05 1e999 0.0 00.1".split(), "9" * 15, "9" * 16])
def test_numbers_that_are_no_json_or_that_readers_differ_on_are_not_copied(native: ModuleType, number: str) -> None:
    def frame(ignored: str, kept: str) -> bytes:
        return sse(f'{{"text":"x","n":{ignored},"usage":{{"count":{kept},"cost":{kept}}}}}')

    for first in ("3", "0.25"):
        stream = frame("1", first) * 2 + frame("1", number) + frame(number, first) + frame("2", first) * 2
        results = []
        for kernels in (native, load("pure")):
            reader = Reader(kernels, text_of, ignored=("n",), kept=("usage",))
            reader.feed(stream)
            results.append((reader.out, reader.kept))
        assert results[0] == results[1]


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (sse('{"text":"Hi","more":{"text":"\\u0048i"}}'), "the text stands there twice, in other words"),
        (sse('{"other":"Hi","text":["Hi"]}'), "the text is no member of that name"),
        (sse('{"t\\u0065xt":"Hi"}'), "a name that is written with escapes"),
        (b'data: {"text":\ndata: "Hi"}\n\n', "two data lines"),
        (b'data: {"text":"Hi"}\ndata\n\n', "two data lines"),
        (b'\xef\xbb\xbfdata: {"text":"Hi"}\n\n', "a byte order mark"),
        (b'\xef\xbb\xbfevent: x\ndata: {"text":"Hi"}\n\n', "a byte order mark"),
        (sse('["text","Hi"]'), "no object"),
        (sse('{"text":"Hi","usage":{"a":1},"usage":{"a":1}}'), "objects of one name"),
        (sse('{"text":"Hi","usage":null,"usage":{"a":1}}'), "a null and an object of one name"),
        (sse('{"text":"Hi","other":"Hi"}'), "the text stands in a string of another name"),
        (sse('{"text":"Hi","other":["\\u0048i"]}'), "the text stands in an array as well"),
        (sse('{"text":"Hi","\\u0074ext":"Hi"}'), "the name, written with an escape"),
        (sse('{"text":"Hi","usage":{' + ",".join(f'"n{n}":1' for n in range(30)) + "}}"), "too many holes"),
        (sse('{"usage":{"text":"Hi"}}'), "the text within a kept object"),
        (sse(f'{{"text":"Hi","long":"{"x" * LIMITS.held_frame}"}}'), "longer than what is held"),
    ],
)
def test_a_frame_whose_text_is_not_clear_is_not_learned(native: ModuleType, frame: bytes, why: str) -> None:
    def text(chunk: Any) -> str:
        found = find(chunk, "text") if isinstance(chunk, dict) else chunk[1]
        return found[0] if isinstance(found, list) else found

    reader = Reader(native, text, kept=("usage",))
    for _ in range(3):
        reader.feed(frame)
    if why == "the text is no member of that name":
        assert reader.out.count(b":Hi>") == 3
    assert reader.copied == 0, why


def test_a_frame_is_held_up_to_the_limit_and_then_read(native: ModuleType) -> None:
    def frame(size: int) -> bytes:
        bare = plain([""])
        return plain(["x" * (size - len(bare))])

    for size, copied in ((LIMITS.held_frame, 1), (LIMITS.held_frame + 2, 0)):
        long = frame(size)
        assert len(long) == size
        reader = Reader(native, text_of)
        reader.feed(plain(["x"]))
        for octet in range(len(long)):
            reader.feed(long[octet : octet + 1])
        assert (reader.seq, reader.copied) == (2, copied)
        # Whole in one read, length does not matter.
        reader.feed(long)
        assert (reader.seq, reader.copied) == (3, copied + 1)


def test_what_was_copied_survives_the_template_that_copied_it(native: ModuleType) -> None:
    """Eviction and `forget` between the copy and `take_copied` lose no count and no text."""

    def frame(index: int, arguments: str) -> bytes:
        return sse(f'{{"index":{index},"arguments":"{arguments}"}}')

    copier = native.DeltaCopier(native.SSEFramer(), False, frozenset({"arguments"}))

    def learn(index: int) -> None:
        (learned,) = native.SSEFramer().feed(frame(index, "a"))
        copier.learn(learned, {"type": "tool.call.delta", "index": index, "arguments": "a"}, "arguments", PARTS)

    for index in range(4):
        learn(index)
    copier.feed(b"".join(frame(index, f"é{index}") for index in (2, 0, 2, 1)))
    assert copier.next(0, NOW) is None
    for index in range(4, 9):
        learn(index)
    copier.forget()
    learn(0)
    copier.feed(frame(0, "z"))
    assert copier.next(0, NOW) is None
    data, count, kinds = copier.take_copied()
    assert (data.count(b"<"), count) == (5, 5)
    assert [(event["index"], characters, text) for event, characters, text in kinds] == [
        (2, 2, "é2"),
        (0, 2, "é0"),
        (2, 2, "é2"),
        (1, 2, "é1"),
        (0, 1, "z"),
    ]


def test_texts_that_are_collected_keep_their_order(native: ModuleType) -> None:
    """Neighbours of one kind are one text; more changes than may wait for the adapter end the copying for one frame."""

    def frame(index: int) -> bytes:
        return sse(f'{{"index":{index},"arguments":"{index}"}}')

    def reader() -> Reader:
        return Reader(
            native,
            lambda chunk: chunk["arguments"],
            event=lambda chunk: {"type": "tool.call.delta", "index": chunk["index"]},
            key="arguments",
            members=("arguments",),
        )

    few = reader()
    few.feed(frame(0) + frame(1))
    few.feed(b"".join(map(frame, (0, 0, 1, 0, 1, 1))))
    assert few.copied == 6
    assert [text for _, _, text in few.kinds] == ["00", "1", "0", "11"]
    many = reader()
    many.feed(frame(0) + frame(1))
    changes = LIMITS.kept_changes + 101
    many.feed(b"".join(frame(number % 2) for number in range(changes)))
    assert many.copied + many.slow == changes + 2
    assert many.slow == 3
    assert [many.arguments[index] for index in (0, 1)] == ["0" * (changes // 2 + 2), "1" * (changes // 2 + 1)]


def test_texts_that_are_not_collected_are_counted_by_their_kind(native: ModuleType) -> None:
    reader = Reader(
        native,
        text_of,
        event=lambda chunk: {"type": "text.delta", "choice": chunk["index"]},
    )
    frames = [sse(f'{{"index":{index},"text":"x"}}') for index in (0, 1)]
    reader.feed(b"".join(frames))
    reader.feed(b"".join(frames * 3))
    assert [(event["choice"], characters) for event, characters, _ in reader.kinds] == [(0, 3), (1, 3)]


def test_a_text_that_is_reported_twice_is_copied_once_while_both_are_the_same(kernels: ModuleType) -> None:
    def twice(one: str, other: str | None = None) -> bytes:
        return sse(f'{{"text":"{one}","more":{{"text":"{one if other is None else other}"}}}}')

    says = [twice("Hi"), twice(" there"), twice("ü"), twice("a", "b"), twice("a", "ab"), twice("ab", "a"), twice("end")]
    expected = "".join(f"<{n}@{NOW}:{text}>" for n, text in enumerate(["Hi", " there", "ü", "a", "a", "ab", "end"], 1))
    for chunks in cuts(b"".join(says)):
        reader = Reader(kernels, text_of)
        for chunk in chunks:
            reader.feed(chunk)
        assert reader.out.decode() == expected
    assert reader.copied <= 3


def test_a_text_reported_twice_is_copied(native: ModuleType) -> None:
    reader = Reader(native, text_of)
    reader.feed(b"".join(sse(json.dumps({"text": word, "more": {"text": word}})) for word in WORDS))
    assert reader.copied == len(WORDS) - 1


def test_what_cannot_be_learned_is_not_tried_for_ever(native: ModuleType) -> None:
    reader = Reader(native, text_of)
    frame = sse('{"t\\u0065xt":"Hi"}')
    for _ in range(12):
        reader.feed(frame)
    assert not reader.copier.learns
    # From then on frames come together, and one in a while is tried.
    reader.copier.feed(frame * 40)
    given = [len(frames) for frames in iter(lambda: reader.copier.next(0, NOW), None)]
    assert max(given) > 1
    assert sum(given) == 40
    assert reader.copier.learns


def test_a_stream_whose_frames_never_repeat_is_hardly_learned(native: ModuleType) -> None:
    reader = Reader(native, text_of)
    learned = 0
    for n in range(400):
        learned += reader.copier.learns
        reader.feed(sse(f'{{"text":"x","id":"{n}"}}'))
    assert reader.copied == 0
    assert learned <= 12 + 400 / 16
    # Once it does repeat, that is found out.
    for _ in range(20):
        reader.feed(sse('{"text":"x","id":"0"}'))
    assert reader.copier.learns
    assert reader.copied


def test_the_lf_of_a_crlf_that_comes_late_belongs_to_the_frame_before(kernels: ModuleType) -> None:
    """An event is there with the CR that ends it, and all bytes are passed on in their order."""
    frames = [gemini(word, n) for n, word in enumerate(WORDS)]
    stream = b"".join(frames)
    text = LIVE["gemini"][1]
    for edge in range(len(stream)):
        reader = Reader(kernels, text, passes=True)
        reader.feed(stream[:edge])
        result = reader.seq
        assert result == sum(stream[:edge].endswith(b"\r\n\r") + stream[:edge].count(b"\r\n\r\n") for _ in (0,)), edge
        reader.feed(stream[edge:])
        reader.close()
        assert reader.out == stream
        assert reader.seq == len(WORDS)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_kind_are_copied_byte_by_byte(native: ModuleType, end: str) -> None:
    frames = [sse(json.dumps({"text": word}), "x", end) for word in WORDS]
    for passes in (False, True):
        results = []
        for kernels in (native, load("pure")):
            reader = Reader(kernels, text_of, passes=passes)
            outs = [reader.feed(bytes((octet,))) for octet in b"".join(frames)]
            reader.close()
            results.append((outs, reader.out))
            if kernels is native:
                assert reader.copied >= len(WORDS) - 2
        assert results[0] == results[1]
