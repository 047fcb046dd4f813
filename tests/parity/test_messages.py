"""WebSocket messages: native equals pure, whatever the frames hold."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

LINE = st.one_of(
    st.sampled_from([b"", b"data: {", b"data: ", b"id: ", b"id: s.12", b": ping", b"retry: 3", b"event: x", b"\r"]),
    st.binary(max_size=300).map(lambda text: b'data: {"text":"%b"}' % text.replace(b"\n", b"")),
    st.integers(65_400, 65_560).map(lambda size: b"data: {%b" % (b"y" * size)),
    st.binary(max_size=12),
    st.text('"seq:0123{,', max_size=30).map(lambda text: b"data: {" + text.encode()),
    st.lists(st.sampled_from([b"data: {", b'"seq":', b"7", b"12", b'"', b"x"]), max_size=8).map(b"".join),
)


@given(lines=st.lists(LINE, max_size=12), lead=st.binary(max_size=140), tail=st.sampled_from([b"", b"\n", b"\n\n"]))
def test_native_equals_pure(both: tuple[ModuleType, ModuleType], lines: list[bytes], lead: bytes, tail: bytes) -> None:
    native, pure = both
    frames = b"\n".join(lines) + tail
    assert native.frame_messages(frames, lead) == pure.frame_messages(frames, lead)
    assert native.last_seq(frames) == pure.last_seq(frames)


EVENT = st.builds(
    b"event: %b\ndata: {%b}\n\n".__mod__,
    st.tuples(st.sampled_from([b"", b"response.a", b"response.b", b"other"]), st.binary(max_size=140)),
)


@given(
    frames=st.lists(EVENT | LINE, max_size=8),
    begin=st.sampled_from([b"event: ", b"event: response.", b"event", b""]),
    most=st.integers(0, 400),
)
def test_events_are_the_same_messages(
    both: tuple[ModuleType, ModuleType], frames: list[bytes], begin: bytes, most: int
) -> None:
    native, pure = both
    whole = b"".join(frames)
    for each in (whole, whole[:most], b"".join([frame for frame in frames if frame.startswith(b"event: ")])):
        made = native.event_messages(each, begin)
        assert made == pure.event_messages(each, begin)
        assert made is None or made == pure.frame_messages(each, b"{")
        assert native.frame_messages(each, b"{") == pure.frame_messages(each, b"{")


@given(data=st.binary(max_size=300), at=st.integers(-2, 300))
def test_a_payload_is_unmasked_the_same(both: tuple[ModuleType, ModuleType], data: bytes, at: int) -> None:
    native, pure = both
    if not 4 <= at <= len(data):
        for kernels in both:
            with pytest.raises(ValueError, match="there is no mask"):
                kernels.unmasked(data, at)
    else:
        assert native.unmasked(data, at) == pure.unmasked(data, at)
