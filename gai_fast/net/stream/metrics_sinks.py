"""Gives the figures of streams to metrics sinks, so that none of them can harm a stream."""

from __future__ import annotations

import logging
from typing import Final

from gai_fast.model.metrics import MetricsSink, StreamMetrics

_log: Final = logging.getLogger("gai_fast.core.callbacks")


def tell_sinks(sinks: list[MetricsSink], metrics: StreamMetrics) -> None:
    """Gives the figures of a stream to every sink; one that raises is logged and harms nothing."""
    for sink in sinks:
        try:
            sink.stream_ended(metrics)
        except Exception as problem:  # noqa: BLE001  # a user's sink must not harm the stream
            _log.warning("%s raised %s", type(sink).__name__, type(problem).__name__, exc_info=problem)
