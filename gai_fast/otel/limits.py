"""Limits of traces and their export.

Only this folder uses them; limits that folders share stand in `model/limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    otel_text: int = 16 * KIB
    """Characters of one attribute of a span: only prompts, if they are asked for, are longer, and lose their end."""

    otel_items: int = 16
    """Texts of an attribute that is a list, such as stop sequences: no provider accepts more."""

    otel_state: int = 512
    """Characters of a `tracestate` that is passed on (W3C Trace Context, 3.3.1.5)."""

    otel_waiting: int = 8 * MIB
    """Bytes of spans that wait for their receiver: some 8,000 requests, five seconds of a busy process."""

    otel_batch: int = 512 * KIB
    """Bytes of spans above which they are sent before their time; a request to the receiver has little more."""

    otel_series: int = 1000
    """Series of one metric: a hundred models of ten upstreams. Further ones are counted together."""

    otel_request: float = 10.0
    """Seconds for one request to the receiver, as OpenTelemetry's own exporters have it."""

    otel_answer: int = 64 * KIB
    """Bytes that are read of the receiver's answer: a longer answer costs its connection."""

    otel_attempts: int = 5
    """Attempts to send the same spans. With the waits they take half a minute: time for a receiver to restart."""

    otel_retry: float = 1.0
    """Seconds until spans are sent again that were not taken; doubled each time."""

    otel_retry_most: float = 300.0
    """The most seconds of a receiver's `Retry-After`: it may send any number."""

    otel_check: float = 0.01
    """Seconds between two looks whether they have been sent."""

    otel_end: float = 0.6
    """Seconds in which the last spans must be sent when a server ends: a part of `closing`."""


LIMITS: Final = Limits()
