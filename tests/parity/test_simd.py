"""The vector loops and their scalar twins give the same bytes, and so do the pure functions."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import IMPLEMENTATIONS

pytestmark = pytest.mark.native

Both = tuple[ModuleType, ModuleType]


def simd() -> Any:
    from gai_fast.kernels._native import encoders

    return encoders


def forms() -> list[str]:
    """Returns the forms that this machine has; one name if the kernels are not there, and no test of them is run."""
    return list(simd().forms()) if "native" in IMPLEMENTATIONS else ["scalar"]


@pytest.fixture(params=forms())
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yields each form that this machine has; the former one is in use again afterwards."""
    loops = simd()
    before = loops.form()
    loops.use(request.param)
    yield request.param
    loops.use(before)


def test_no_form_is_taken_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="no 'avx1024' form here"):
        simd().use("avx1024")


# The flags of Linux' /proc/cpuinfo that each form of x86-64 needs.
FLAGS = {
    "scalar": set[str](),
    "sse": {"sse4_1", "popcnt"},
}


def test_the_forms_are_those_of_the_processor() -> None:
    """A form that is not found, although it could run, would be left out of every other test."""
    found, described = simd().forms(), Path("/proc/cpuinfo")
    if platform.machine() in ("aarch64", "arm64"):
        assert found == ("scalar", "neon")
    elif platform.machine() == "x86_64" and described.exists():
        (flags,) = set(re.findall(r"^flags\s*: (.*)$", described.read_text(), re.M))
        assert found == tuple(form for form, needed in FLAGS.items() if needed <= set(flags.split()))
    else:
        assert found[0] == "scalar"


# ---- characters that are escaped and encoded -----------------------------------------------------------------------

BORDERS = '\0\x1f !"#[\\]\x7f\x80\xff\u0100\u07ff\u0800\ud7ff\ud800\udbff\udc00\udfff\ue000\uffff\U00010000\U0010ffff'


def test_every_code_point(both: Both, form: str) -> None:
    native, pure = both
    for begin in range(0, 0x110000, 0x8000):
        # Beside plain characters, so that a run of surrogates does not turn into pairs.
        text = "".join(map(chr, range(begin, begin + 0x8000)))
        assert native.escape(text) == pure.escape(text), hex(begin)
        text = "-".join(text)
        assert native.escape(text) == pure.escape(text), hex(begin)


def test_each_border_at_each_place_of_a_block(both: Both, form: str) -> None:
    native, pure = both
    for around in "aéя豆😀":
        for place in range(36):
            for character in BORDERS:
                text = around * place + character + around * (40 - place)
                assert native.escape(text) == pure.escape(text), (around, place, hex(ord(character)))


def test_text_of_every_length_in_a_buffer_of_every_size(both: Both, form: str) -> None:
    """Nothing is written behind a buffer's end, whatever is left of it when the loops begin."""
    native, pure = both
    for text in ("a", "aé", "я", "豆", "a豆", "😀", "a\n"):
        for length in range(70):
            expected = pure.encode_sse({"t": text * length})
            assert native.encode_sse({"t": text * length}) == expected
            for capacity in (1, 7, 16, 33, 64):
                encoders = [kernels.SSEEncoder(capacity=capacity) for kernels in both]
                for encoder in encoders:
                    encoder.text_delta((text * length)[:3])
                    encoder.text_delta(text * length)
                assert encoders[0].take() == encoders[1].take()


@given(st.data())
def test_any_mixture_of_widths(both: Both, data: st.DataObject) -> None:
    piece = st.tuples(st.sampled_from([*BORDERS, "a", "é", "я", "豆", "😀", "\n"]), st.integers(1, 20))
    text = "".join(character * count for character, count in data.draw(st.lists(piece, max_size=8)))
    native, pure = both
    loops = simd()
    before = loops.form()
    try:
        for name in loops.forms():
            loops.use(name)
            assert native.escape(text) == pure.escape(text), name
    finally:
        loops.use(before)


def test_a_text_whose_utf8_cpython_keeps_already(both: Both, form: str) -> None:
    """It is taken as it is: orjson, for one, leaves it behind."""
    native, pure = both
    for text in ("é", "豆" * 40, "a\n" + "é" * 30 + '"', "😀\x00" * 9, "x" * 33 + "я"):
        fresh = text[:1] + text[1:]
        expected = pure.escape(text)
        assert native.escape(fresh) == expected
        orjson.dumps(fresh)
        assert native.escape(fresh) == expected


# ---- UTF-8 that is copied ------------------------------------------------------------------------------------------


def copied(native: ModuleType, texts: Iterable[bytes]) -> list[bytes | None]:
    """Returns the output of each text, `None` if it is left to the full path, and its number of characters."""
    copier = native.DeltaCopier(native.SSEFramer(), False, frozenset({"text"}))
    frame = b'data: {"text":"%b"}\n\n'
    (learned,) = native.SSEFramer().feed(frame % b"x")
    parts = (b"<", "seq", b":", "text", b">\n")
    event = {"type": "text.delta", "text": "x"}
    copier.learn(learned, event, "text", parts)
    texts = list(texts)
    found: list[bytes | None] = [None] * len(texts)
    for number, text in enumerate(texts):
        # A frame that is complete is never waited for, whatever is wrong with it.
        copier.feed(frame % text)
        frames = copier.next(number, 0)
        written, _, kinds = copier.take_copied()
        assert (frames is None) == bool(written), text
        if written:
            found[number] = written.partition(b":")[2][:-2]
            assert [characters for _, characters, _ in kinds] == [len(json.loads(b'"%b"' % text))], text
    return found


def rewritten(pure: ModuleType, text: bytes) -> bytes | None:
    """Returns the expected output of a copied text; `None` if it must not be copied."""
    try:
        result = json.loads(b'"%b"' % text)
        result.encode()
    except ValueError:
        return None
    return pure.escape(result)[1:-1]


def is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_no_sequence_is_copied_that_is_no_utf8(both: Both, form: str) -> None:
    """Every sequence of two bytes, those of three and four at the borders of their ranges; in a block and across."""
    borders = bytes((0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0))
    leads = bytes(range(0xC0, 0x100))
    sequences = [bytes(pair) for pair in product(range(0x80, 0x100), range(0x20, 0x100))]
    sequences += [bytes(one) for one in product(leads, borders, borders)]
    sequences += [bytes(one) for one in product(leads[0x20:], borders, borders[::2], borders[::3])]
    sequences = [one for one in sequences if b'"' not in one and b"\\" not in one]
    for before, after in ((0, 20), (15, 20), (13, 3), (63, 20), (61, 3)):
        texts = [b"a" * before + one + b"b" * after for one in sequences]
        for text, found in zip(texts, copied(both[0], texts), strict=True):
            assert found == (text if is_utf8(text) else None), text


def test_each_character_at_each_place_is_copied_and_counted(both: Both, form: str) -> None:
    for character in ["a", "é", "я", "豆", "😀", "\x7f", '\\"', "\\n"]:
        texts = [("x" * place + character * count + "y").encode() for place in range(70) for count in (1, 2, 17, 66)]
        assert copied(both[0], texts) == texts


ESCAPES = (
    b'\\"',
    *(b"\\" + letter.encode() for letter in "\\bfnrt/x"),
    b"\\u00e9",
    b"\\ud83d\\ude00",
    b"\\ud83d",
    b"\\",
)


def test_each_escape_at_each_place(both: Both, form: str) -> None:
    """Behind rows of backslashes, too, which a block may end in."""
    for place in range(70):
        for row in range(5):
            texts = [b"x" * place + b"\\" * row + escape + b"y" * after for escape in ESCAPES for after in (0, 1, 70)]
            assert copied(both[0], texts) == [rewritten(both[1], text) for text in texts]


PIECES = st.sampled_from(
    [
        *ESCAPES,
        b"x",
        b"\x01",
        *(character.encode() for character in "éя豆😀"),
        b"\x80",
        b"\xc3",
        b"\xe8\xb1",
        b"\xf0\x9f\x98",
    ]
)


@given(st.lists(st.tuples(PIECES, st.integers(1, 40)), min_size=1, max_size=8))
def test_any_mixture_is_copied_as_it_would_be_written(both: Both, pieces: list[tuple[bytes, int]]) -> None:
    text = b"".join(piece * count for piece, count in pieces)
    native, pure = both
    loops = simd()
    before = loops.form()
    try:
        for name in loops.forms():
            loops.use(name)
            assert copied(native, [text]) == [rewritten(pure, text)], name
    finally:
        loops.use(before)


def test_line_ends_at_each_place(both: Both, form: str) -> None:
    for length in range(50):
        for end in (b"\n", b"\r", b"\r\n"):
            data = b"data: " + b"x" * length + end + b"y" + end + b"data: z" + end + end
            events = [kernels.SSEParser().feed(data) for kernels in both]
            assert events[0] == events[1] == [("message", "x" * length + "\nz", "")]
