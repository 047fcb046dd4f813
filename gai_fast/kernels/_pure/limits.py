"""Limits of the kernels, native and pure.

Only this folder uses them; limits that several folders share are in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes and times in seconds, unless the name has another unit."""

    batched_read: int = 64 * KIB
    """A read of so many bytes is handled at once, not at the end of the loop's iteration. uvloop reads a socket up to
    32 times per iteration while each read fills its buffer, and a slow client must pause reading before the second."""

    deferred_reads: int = 4
    """Responses read per iteration of the loop, besides 64 requests, while connections of new clients are set up. If
    200 clients connect at once, the last client's request then waits for few responses: its first token (p99) takes
    1.37 times as long as through nginx, 1.69 times with 64."""

    deferred_by: float = 0.002
    """Seconds for which a new client defers responses: longer than an iteration that accepts as many clients as
    allowed."""

    deferred_for: float = 0.02
    """The longest time, in seconds, for which responses are deferred. Without it, a steady overload would start streams
    and not serve them."""

    coalesced_sockets: int = 16
    """Number of different sockets of an upstream over TLS from which on their reads are coalesced. With fewer sockets,
    one iteration of the loop reads most of them anyway. Sockets are distinguished by their descriptors modulo 64, so
    coalescing usually begins with 16 to 22 sockets."""

    coalesced_reads: float = 2500.0
    """Reads per second from which on coalescing begins: a quarter of a core's capacity. It ends below a quarter of
    this rate."""

    coalescing_calls: int = 64
    """Iterations of the loop after which coalescing is decided again: some milliseconds under load, 64 ms once the load
    has ended."""

    coalescing_interval: float = 0.001
    """Seconds, below 1, between coalesced reads. An iteration of the loop then reads more sockets and more of each
    response: responses of 100 deltas in a burst take 14 % less CPU. If the core is fully used, they come no later;
    otherwise each read comes up to 1 ms later. 0.4 ms saves a third of that. 1.6 ms saves a little more, but responses
    come later."""

    unflushed_transports: int = 8
    """Connections whose writes may wait for the end of the loop's iteration. Once so many wait, they are sent, so that
    peers can work during a long iteration. With 64, the first token of 200 clients at once (p99) took a tenth
    longer."""

    bulk_read: int = 2 * KIB
    """A read of so many bytes, about ten deltas, suggests that more bytes follow: the socket rests. If the tokens of a
    stream come one by one, its reads are a tenth of this size."""

    bulk_rest: float = 0.0004
    """The longest rest of a socket in seconds; then all bytes that came are one read. Bursts of 1,000 deltas from an
    upstream over TLS, which sends records of 4 KiB, take a quarter less CPU; longer rests save no more. A read has at
    most 64 KiB, so such a stream is limited to 160 MB per second."""

    collected_text: int = 64 * KIB
    """Bytes of copied text that may wait for an adapter. Beyond this limit a frame is parsed, which hands over the
    text."""

    kept_changes: int = 4096
    """Notes on copied text that may wait for an adapter because texts of several kinds alternate: about 1 MB. Beyond
    this limit a frame is parsed, which hands over the notes."""

    event_name: int = 128
    """Characters of an SSE event name that we write."""

    retry_digits: int = 32
    """Digits of an SSE `retry:`: a decimal of any length costs quadratic time, and no interval needs more."""

    closing_counts: int = 512
    """Bytes at the end of an answer in which its counts are read without a parser: most have 60, few have 300."""

    encoder_capacity: int = 4 * KIB
    """First size of an encoder's buffer: twenty text deltas."""

    held_frame: int = 4 * KIB
    """Bytes of an incomplete frame that may wait for its rest and then be copied. Longer frames are parsed, so that
    bytes that come one by one are not compared again and again."""


LIMITS: Final = Limits()
