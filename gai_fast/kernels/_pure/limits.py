"""Limits of the kernels, native and pure.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    batched_read: int = 64 * KIB
    """Bytes of a read that is not left for the end of the loop's turn: uvloop reads a socket up to 32 times a turn
    while each read fills its buffer, and a slow client must stop it before the second."""

    deferred_reads: int = 4
    """Answers that a turn of the loop reads beside 64 requests while connections are made for newcomers. Of 200 clients
    that come together the last one's request then waits for few answers: first token (p99) 1.37 of nginx, 1.69 with
    64."""

    deferred_by: float = 0.002
    """Seconds for which a newcomer defers answers: longer than a turn that accepts as many as it may."""

    deferred_for: float = 0.02
    """Seconds for which answers wait so at most: under a steady overload streams would be begun and not served."""

    coalesced_sockets: int = 16
    """Different sockets of an upstream over TLS from which on their reads are coalesced. With fewer, a turn of the loop
    reads most of them anyway. They are told apart by their descriptors modulo 64, so that it usually takes 16 to 22."""

    coalesced_reads: float = 2500.0
    """Reads a second from which on that begins: a quarter of what a core can serve. It ends below a quarter of that."""

    coalescing_calls: int = 64
    """Turns of the loop after which it is decided anew: some milliseconds under load, and 64 ms once there is none."""

    coalescing_interval: float = 0.001
    """Seconds, below 1, between such reads. A turn of the loop then reads more sockets and more of each answer: answers
    of 100 deltas in a burst take 14 % less CPU. They come no later where the core is fully used; otherwise each read
    comes up to 1 ms later. 0.4 ms gives a third of that; with 1.6 ms, which gives a little more, answers come later."""

    unflushed_transports: int = 8
    """Connections whose writes wait for the end of a turn of the loop; then they are sent, so that peers work while a
    long turn goes on. With 64, the first token of 200 clients at once (p99) took a tenth longer."""

    bulk_read: int = 2 * KIB
    """Bytes of a read that is the beginning of more, ten deltas at once: its socket rests. The reads of a stream whose
    tokens come one by one are a tenth of that."""

    bulk_rest: float = 0.0004
    """Seconds until such a socket is read again at the latest, with what has come meanwhile. Bursts of 1,000 deltas of
    an upstream over TLS, which sends records of 4 KiB, take a quarter less CPU so; longer rests bring no more. A read
    has 64 KiB at most, so that such a stream has 160 MB a second."""

    collected_text: int = 64 * KIB
    """Bytes of copied text that wait for an adapter: more are parsed, which hands it over."""

    event_name: int = 128
    """Characters of an SSE event name we write."""

    retry_digits: int = 32
    """Digits of an SSE `retry:`: a decimal of any length costs quadratic time, and no interval needs more."""

    encoder_capacity: int = 4 * KIB
    """First size of an encoder's buffer: twenty text deltas."""

    held_frame: int = 4 * KIB
    """The beginning of a frame that waits for its rest to be copied: longer ones are parsed, so that bytes that come
    one by one are not looked at again and again."""


LIMITS: Final = Limits()
