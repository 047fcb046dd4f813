from __future__ import annotations

import pytest

from gai_fast.model.metrics import StreamMetrics
from gai_fast.net.stream.metrics_sinks import notify_sinks


def test_a_sink_that_raises_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        def stream_ended(self, metrics: StreamMetrics) -> None:
            raise RuntimeError

    class Good:
        received: StreamMetrics | None = None

        def stream_ended(self, metrics: StreamMetrics) -> None:
            self.received = metrics

    good, metrics = Good(), StreamMetrics(duration=1.0)
    notify_sinks([Bad(), good], metrics)
    assert good.received is metrics
    assert "Bad raised RuntimeError" in caplog.text
