"""Sends the figures of streams to metrics sinks, and isolates streams from their failures."""

from __future__ import annotations

import logging
from typing import Final

from gai_fast.model.metrics import MetricsSink, StreamMetrics

_log: Final = logging.getLogger("gai_fast.core.callbacks")


def notify_sinks(sinks: list[MetricsSink], metrics: StreamMetrics) -> None:
    """Sends the figures of a stream to every sink. An exception of a sink is logged; the others continue."""
    for sink in sinks:
        try:
            sink.stream_ended(metrics)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as problem:  # noqa: BLE001  # a user's sink must not harm the stream
            _log.warning("%s raised %s", type(sink).__name__, type(problem).__name__, exc_info=problem)
