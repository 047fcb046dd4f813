"""A transport over another one passes every call on."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from gai_fast.server.edge.transport_layer import TransportLayer


class Below(asyncio.Transport):
    """Notes its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "get_extra_info": ("peername", 7),
    "set_protocol": ("protocol",),
    "write": (b"abc",),
    "set_write_buffer_limits": (5, 2),
}
NAMES = sorted(
    name
    for kind in (asyncio.BaseTransport, asyncio.ReadTransport, asyncio.WriteTransport)
    for name, value in vars(kind).items()
    if inspect.isfunction(value) and not name.startswith("_") and name != "writelines"
)


@pytest.mark.parametrize("name", NAMES)
def test_every_call_goes_to_the_transport_below(name: str) -> None:
    below, given = Below(), ARGUMENTS.get(name, ())

    def note(*arguments: Any) -> str:
        below.calls.append((name, arguments))
        return "answer"

    setattr(below, name, note)
    answer = getattr(TransportLayer(below), name)(*given)
    assert below.calls == [(name, given)]
    assert answer == (None if name in VOID else "answer")


VOID = {
    *("set_protocol", "close", "abort", "pause_reading", "resume_reading"),
    *("write", "write_eof", "set_write_buffer_limits"),
}


def test_lines_are_one_write() -> None:
    class Written(Below):
        data: tuple[bytes, ...] = ()

        def write(self, data: Any) -> None:
            self.data += (data,)

    below = Written()
    TransportLayer(below).writelines([b"ab", b"c"])
    assert below.data == (b"abc",)
