"""A receiver of OTLP over HTTP, which decodes what it gets with OpenTelemetry's own messages."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def read(given: Any) -> dict[str, Any]:
    """Attributes by name."""

    def value(item: KeyValue) -> Any:
        kind = item.value.WhichOneof("value")
        assert kind is not None
        found = getattr(item.value, kind)
        return [each.string_value for each in found.values] if kind == "array_value" else found

    return {item.key: value(item) for item in given}


Read = TypeVar("Read", bound=Message)

_IDS = frozenset(("traceId", "spanId", "parentSpanId"))


def parsed(kind: type[Read], data: bytes) -> Read:
    """Reads a request in JSON, and refuses members that the message does not have.

    Ids are in hex (OTLP, "JSON Protobuf Encoding"), which protobuf's own JSON has in base64.
    """

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: of_id(each) if name in _IDS else renamed(each) for name, each in value.items()}
        return [renamed(each) for each in value] if isinstance(value, list) else value

    def of_id(digits: str) -> str:
        return base64.b64encode(bytes.fromhex(digits)).decode()

    return ParseDict(renamed(json.loads(data)), kind())


def spans_of(data: bytes) -> list[Span]:
    """Reads spans as they are put into a recorder: JSON objects with commas between them."""
    request = parsed(ExportTraceServiceRequest, b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b]}]}]}' % data)
    return list(request.resource_spans[0].scope_spans[0].spans)


@dataclass
class Receiver:
    """Keeps what it gets; `answer` may answer otherwise than with 200."""

    spans: list[Span] = field(default_factory=list)
    points: dict[str, list[HistogramDataPoint]] = field(default_factory=dict)
    resources: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answer: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
    url: str = ""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Receiver:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/{kind}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        data = await request.read()
        if self.answer is not None:
            answered = await self.answer(request)
            if answered is not None:
                return answered
        if request.path == "/v1/traces":
            traces = parsed(ExportTraceServiceRequest, data)
            for resource in traces.resource_spans:
                self.resources.append(read(resource.resource.attributes))
                for scope in resource.scope_spans:
                    assert scope.scope.name == "gai-fast"
                    self.spans.extend(scope.spans)
        else:
            metrics = parsed(ExportMetricsServiceRequest, data)
            for each in metrics.resource_metrics[0].scope_metrics[0].metrics:
                self.points[each.name] = list(each.histogram.data_points)
        return web.Response(body=b"{}", content_type="application/json")

    def of_kind(self, kind: int) -> list[Span]:
        """Returns the spans of a kind, in their order in time."""
        return sorted((each for each in self.spans if each.kind == kind), key=lambda each: each.start_time_unix_nano)

    @property
    def servers(self) -> list[Span]:
        return self.of_kind(Span.SPAN_KIND_SERVER)

    @property
    def clients(self) -> list[Span]:
        return self.of_kind(Span.SPAN_KIND_CLIENT)
