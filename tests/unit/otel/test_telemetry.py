"""Which traces are sampled, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gai_fast.model.settings import OTelSettings
from gai_fast.otel import telemetry
from gai_fast.otel.otlp import Attributes
from gai_fast.otel.telemetry import Telemetry
from gai_fast.otel.trace import Parent, Trace
from tests.unit.otel.test_trace import TARGET

PARENT = Parent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)


class FakeExporter:
    """Sends nothing."""

    def __init__(self, settings: OTelSettings, origin: Attributes, metrics: Any) -> None:
        self.origin = origin
        self.metrics = metrics
        self.spans: list[tuple[bytes, int]] = []

    def put(self, spans: bytes, count: int) -> None:
        self.spans.append((spans, count))

    async def close(self) -> None:
        self.spans.clear()


@pytest.fixture(autouse=True)
def no_exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(telemetry, "Exporter", FakeExporter)
    return iter(())


def of(**more: Any) -> Telemetry:
    return Telemetry(OTelSettings("http://127.0.0.1:1", **more))


def header(trace: Trace) -> str:
    return trace.attempted(TARGET, {})[0][1]


def test_a_callers_trace_goes_on_and_its_sampling_holds() -> None:
    for sample in (0.0, 1.0):
        for is_sampled in (True, False):
            trace = of(sample=sample).begin(PARENT._replace(is_sampled=is_sampled), "a=1", route="/r")
            assert trace.trace_id == PARENT.trace_id
            assert re.fullmatch(rf"00-{PARENT.trace_id}-[0-9a-f]{{16}}-0{int(is_sampled)}", header(trace))


@pytest.mark.parametrize(("sample", "least", "most"), [(0.0, 0, 0), (1.0, 2000, 2000), (0.25, 350, 650)])
def test_of_the_traces_that_begin_here_a_part_is_sampled(sample: float, least: int, most: int) -> None:
    source = of(sample=sample)
    traces = [source.begin(None, None, route="/r") for _ in range(2000)]
    assert least <= sum(header(trace).endswith("-01") for trace in traces) <= most
    assert len({trace.trace_id for trace in traces}) == 2000
    assert all(re.fullmatch("[0-9a-f]{32}", trace.trace_id) for trace in traces)


@pytest.mark.parametrize("state", ["x" * 513, "a=\xe9", "a=1\x00", "a=1\r\nevil: 1"])
def test_a_state_that_cannot_be_passed_on_is_dropped_as_a_whole(state: str) -> None:
    source = of()
    assert len(source.begin(PARENT, state, route="/r").attempted(TARGET, {})) == 1
    assert source.begin(PARENT, "x" * 512, route="/r").attempted(TARGET, {})[1] == ("tracestate", "x" * 512)
    assert len(source.begin(None, "a=1", route="/r").attempted(TARGET, {})) == 1, "it belongs to a caller's trace"


async def test_the_process_has_its_names_and_the_operators_win() -> None:
    source = of(resource={"service.name": "mine", "team": "search"})
    exporter: Any = source._exporter
    assert {"service.instance.id", "process.pid"} < exporter.origin.keys()
    assert (exporter.origin["service.name"], exporter.origin["team"]) == ("mine", "search")
    source.put(b"x", 1)
    assert exporter.spans == [(b"x", 1)]
    assert exporter.metrics() == b""
    await source.close()
    assert exporter.spans == []


def test_a_stream_of_a_worker_that_is_gone_goes_on_in_its_trace() -> None:
    former = of(sample=1.0).begin(PARENT, None, route="/r")
    trace = of(sample=0.0).go_on(former.context)
    assert trace.former is not None
    assert (trace.trace_id, trace.former.trace_id, trace.former.is_sampled) == (PARENT.trace_id, PARENT.trace_id, True)
    assert former.context == f"00-{PARENT.trace_id}-{trace.former.span_id}-01"
    assert of(sample=1.0).go_on("").former is None
