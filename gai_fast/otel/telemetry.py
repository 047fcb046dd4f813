"""`Telemetry`: the traces and metrics of one process, by the `[otel]` of the configuration.

Owns the decision which traces are sampled, and the attributes of the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine
from typing import Any, Final

from gai_fast.model.settings import OTelSettings
from gai_fast.model.version import __version__
from gai_fast.otel.exporter import Exporter
from gai_fast.otel.histograms import Histograms, Instrument, Labels
from gai_fast.otel.limits import LIMITS
from gai_fast.otel.otlp import Value
from gai_fast.otel.trace import Parent, Trace

_DIGITS: Final = 16
"""Hex digits of a span's id. So many of a trace's id, the last ones, decide whether it is sampled."""
_DRAWN: Final = 64
"""Ids that one call of the system's randomness makes: a call costs as much as ten ids."""
_ALL: Final = 1 << 64


class Telemetry:
    """Traces requests, and exports their spans and figures. A `Recorder`.

    Args:
        settings: `[otel]`.
    """

    def __init__(self, settings: OTelSettings) -> None:
        self.settings = settings
        self._ids: list[str] = []
        self._below = settings.sample * _ALL
        self._histograms = Histograms(time.time_ns())
        self._exporter = Exporter(settings, self._resource(), lambda: self._histograms.encode(time.time_ns()))

    def begin(self, parent: Parent | None, state: str | None, *, route: str | None) -> Trace:
        """Begins a trace, or goes on with the one of a caller.

        Args:
            parent: The caller's span; its sampling holds (parent-based).
            state: The caller's `tracestate`; too long or not of printable ASCII, it is dropped as a whole.
            route: As for `Trace`.
        """
        if parent is None:
            trace_id = self.new_span_id() + self.new_span_id()
            is_sampled = int(trace_id[-_DIGITS:], 16) < self._below
            parent_id, state = "", ""
        else:
            trace_id, parent_id, is_sampled = parent
            if state is None or len(state) > LIMITS.otel_state or not (state.isascii() and state.isprintable()):
                state = ""
        return Trace(
            self,
            trace_id,
            parent_id=parent_id,
            state=state,
            is_sampled=is_sampled,
            route=route,
            with_content=self.settings.content,
        )

    def go_on(self, context: str) -> Trace:
        """Begins the trace of a stream whose worker is gone: its spans are in the same trace, with a link to its span.

        Args:
            context: `Trace.context` of that worker. Empty if it traced nothing.
        """
        if not context:
            return self.begin(None, None, route=None)
        _, trace_id, span_id, flags = context.split("-")
        former = Parent(trace_id, span_id, flags == "01")
        trace = self.begin(former, "", route=None)
        trace.former = former
        return trace

    def new_span_id(self) -> str:
        """Works as `Recorder.new_span_id`; never all zero (W3C Trace Context, 3.2.2.4). Two are a trace's id."""
        while not self._ids:
            digits = os.urandom(_DRAWN * _DIGITS // 2).hex()
            drawn = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
            self._ids = [each for each in drawn if each.strip("0")]
        return self._ids.pop()

    def put(self, spans: bytes, count: int) -> None:
        """Works as `Recorder.put`."""
        self._exporter.put(spans, count)

    def observe(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Works as `Recorder.observe`."""
        self._histograms.observe(instrument, labels, value)

    def close(self) -> Coroutine[Any, Any, None]:
        """Sends the waiting spans; awaiting the result takes `limits.otel_end` seconds at most."""
        return self._exporter.close()

    def _resource(self) -> dict[str, Value]:
        return {
            "service.name": "gai-fast",
            "service.version": __version__,
            "service.instance.id": f"{os.getpid()}-{self.new_span_id()}",  # each worker counts for itself
            "process.pid": os.getpid(),
            "telemetry.sdk.name": "gai-fast",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": __version__,
            **self.settings.resource,
        }
