"""WebSocket messages: native equals pure, whatever the frames hold."""

from __future__ import annotations

from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st

LINE = st.one_of(
    st.sampled_from([b"", b"data: {", b"data: ", b"id: ", b"id: s.12", b": ping", b"retry: 3", b"event: x", b"\r"]),
    st.binary(max_size=300).map(lambda text: b'data: {"text":"%b"}' % text.replace(b"\n", b"")),
    st.integers(65_400, 65_560).map(lambda size: b"data: {%b" % (b"y" * size)),
    st.binary(max_size=12),
)


@given(lines=st.lists(LINE, max_size=12), lead=st.binary(max_size=140), tail=st.sampled_from([b"", b"\n", b"\n\n"]))
def test_native_equals_pure(both: tuple[ModuleType, ModuleType], lines: list[bytes], lead: bytes, tail: bytes) -> None:
    native, pure = both
    frames = b"\n".join(lines) + tail
    assert native.frame_messages(frames, lead) == pure.frame_messages(frames, lead)
