"""The native kernels allocate nothing for an event: it goes into an existing buffer."""

from __future__ import annotations

import ctypes
import gc
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

EVENTS = 1_000_000
BATCH = 50


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class _Malloc(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


_mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo is not None:
    _mallinfo.restype = _Malloc


def octets_in_use() -> int:
    """Returns bytes that malloc has given out; 0 if the libc does not tell."""
    if _mallinfo is None:
        return 0
    result = _mallinfo()
    return int(result.uordblks + result.hblkhd)


def batches(encoder: Any, write: Callable[[Any], None], event: Any) -> Callable[[int], None]:
    view, times = encoder.view, range(BATCH)

    def run(events: int) -> None:
        for _ in range(events // BATCH):
            for _ in times:
                write(event)
            with view():
                pass

    return run


@pytest.mark.parametrize("kind", ["SSEEncoder", "NDJSONEncoder"])
@pytest.mark.parametrize("text", ["Hello, world! ", 'é豆😀"\n'])
def test_a_million_deltas_leave_no_block_and_no_byte_behind(native: ModuleType, kind: str, text: str) -> None:
    encoder = getattr(native, kind)(request_id="r" * 36)
    run = batches(encoder, encoder.text_delta, text)
    for events in (BATCH, EVENTS):  # the first run is for what is made once
        blocks, octets = sys.getallocatedblocks(), octets_in_use()
        run(events)
        octets, blocks = octets_in_use() - octets, sys.getallocatedblocks() - blocks
    # The numbers just taken are blocks themselves.
    assert blocks < 10
    assert octets < 1000


@pytest.mark.parametrize("kind", ["SSEEncoder", "NDJSONEncoder"])
def test_no_delta_allocates_even_for_a_moment(native: ModuleType, kind: str) -> None:
    """tracemalloc counts what Python's three allocators give out, and remembers the peak."""
    encoder = getattr(native, kind)(capacity=1 << 20)
    write, times = encoder.text_delta, range(10_000)
    write("the first event carries the envelope")
    write("the second one is like all others")
    tracemalloc.start()
    try:
        for _ in times:  # the loop itself allocates at first
            write("Hello, world! ")
        with encoder.view():
            pass
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in times:
            write("Hello, world! ")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What get_traced_memory itself gives back, and one number of the loop.
    assert peak - before < 400


def test_a_buffer_that_is_filled_alike_every_time_does_not_grow_every_time(native: ModuleType) -> None:
    """Sixteen times its capacity is kept for one who uses it; what hardly anybody uses is given back."""
    encoder = native.SSEEncoder(capacity=4096)
    long = "x" * 1024

    def fill(count: int) -> None:
        for _ in range(count):
            encoder.text_delta(long)
        with encoder.view():
            pass

    fill(40)
    octets_in_use()
    full = octets_in_use()
    for _ in range(50):
        fill(40)
    assert abs(octets_in_use() - full) < 8000
    fill(1)
    assert not full or full - octets_in_use() > 30_000


def test_a_copier_owns_memory_only_while_something_is_not_taken(native: ModuleType) -> None:
    frame = b'data: {"text":"%b"}\n\n'
    (learned,) = native.SSEFramer().feed(frame % b"x")
    event = {"type": "text.delta", "text": "x"}
    copiers = []
    for _ in range(200):
        copier = native.DeltaCopier(native.SSEFramer(), False, frozenset({"text"}))
        copier.learn(learned, event, "text", (b"<", "text", b">"))
        copiers.append(copier)
    data = frame % (b"y" * 2000) * 30
    before = octets_in_use()
    for copier in copiers:
        copier.feed(data)
        assert copier.next(0, 0) is None
        assert copier.take_copied()[1] == 30
    # One buffer serves them all.
    assert octets_in_use() - before < 3 * len(data)
