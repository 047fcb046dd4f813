"""The access log: a line for every response, including refusals, written when the response has ended.

Owns the form of a line: the client's address, method, path, status, seconds and request id, the caller if it has a key,
and a stream's figures as one JSON object; as JSON, a field for each of them. A query string is never logged: it may
hold a prompt.

A durable stream may continue after the response to its request has ended, because its client has disconnected or it was
started without a client. Then the response's line is the line of a request, with the stream's id and without figures.
The stream gets a line of its own when it ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Mapping
from functools import partial
from typing import Any, Final

from gai_fast.kernels import encode_json
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.money import units
from gai_fast.model.settings import ANONYMOUS
from gai_fast.server.admission.forwarding import Forwarding
from gai_fast.server.http.request import AnsweredError, HTTPRequest
from gai_fast.server.observe.log_format import Entry
from gai_fast.server.observe.metrics import log_fields

_log: Final = logging.getLogger("gai_fast.access")


class AccessLog:
    """The lines of one service. A `MetricsSink`.

    Args:
        running: The ids of the running streams.
    """

    def __init__(self, running: Container[str] = ()) -> None:
        self._running = running
        self._continuing: dict[str, _Line] = {}  # by stream id: the lines of ended responses whose streams continue

    def request_ended(self, http: HTTPRequest, status: int, forwarding: Forwarding) -> None:
        """Logs the response to a request whose headers could be read.

        Args:
            http: The request.
            status: The HTTP status of the response, or `transport.CLIENT_CLOSED_REQUEST`.
            forwarding: The trusted proxies, whose headers name the client.
        """
        if not _log.disabled and _log.isEnabledFor(logging.INFO):  # a method of Python code costs 700 instructions
            metrics = http.metrics if http.started is None else http.started()
            line = _Line(http, status, forwarding.client(http.transport.remote, http.headers))
            seconds = time.monotonic() - http.began
            if metrics is not None and metrics.stream_id in self._running:
                self._continuing[metrics.stream_id] = line
                line.write(seconds, None, metrics.stream_id)
            else:
                line.write(seconds, metrics)

    def stream_ended(self, metrics: StreamMetrics) -> None:
        """Logs a stream that continued after its response had ended."""
        line = self._continuing.pop(metrics.stream_id, None) if self._continuing else None
        if line is not None:
            line.write(metrics.duration, metrics)


class _Line:
    """The fields of a request that its line shows. The request itself is not kept: its body may be large.

    Args:
        http: The request.
        status: The HTTP status of the response, or `transport.CLIENT_CLOSED_REQUEST`.
        remote: The client's address.
    """

    def __init__(self, http: HTTPRequest, status: int, remote: str) -> None:
        self._remote = remote
        self._method = http.method
        self._path = http.shown_path
        self._status = status
        self._request_id = http.request_id
        self._caller = http.caller
        self._refused = http.refused

    def write(self, seconds: float, metrics: StreamMetrics | None, stream_id: str = "") -> None:
        """Logs the line.

        Args:
            seconds: The time from the request to the end of the response, or of the stream.
            metrics: The figures of the stream that has ended. `None` if no stream has ended.
            stream_id: The id of the stream that continues; empty if no stream does.
        """
        line = f"{self._remote} {self._method} {self._path!r} {self._status} {seconds:.3f} {self._request_id}"
        if self._caller != ANONYMOUS:
            line += f" {self._caller}"
        fields: dict[str, Any] = {
            "msg": "request" if metrics is None else "stream",
            "method": self._method,
            "path": self._path,
            "status": self._status,
            "request_id": self._request_id,
            "client_ip": self._remote,
            "key": self._caller,
            "dur_ms": round(seconds * 1e3, 3),
            "error_code": None,
        }
        refused: dict[str, Any] = {}
        if self._refused is not None and metrics is None:
            refused = _refusal_fields(self._refused)
            fields.update(refused)
        if stream_id:
            fields["stream_id"] = stream_id
        if metrics is not None:
            fields.update(_stream_fields(metrics))
        Entry(fields, partial(_text, line, metrics, refused)).log(_log)


def _text(line: str, metrics: StreamMetrics | None, refused: Mapping[str, Any]) -> str:
    if metrics is not None:
        return f"{line} {encode_json(log_fields(metrics)).decode()}"
    return f"{line} {encode_json(refused).decode()}" if refused else line


def _refusal_fields(refused: AnsweredError) -> dict[str, Any]:
    """Returns the fields that only the line of a refused request has."""
    fields = {"error_code": refused.code, "reason": refused.reason, "model": refused.model or None}
    return {name: value for name, value in fields.items() if value is not None}


def _stream_fields(metrics: StreamMetrics) -> dict[str, Any]:
    """Returns the fields that only a stream's line has. All fields are always there, `None` if they have no value."""
    usage = metrics.usage or {}
    first = metrics.time_to_first_token
    return {
        "stream_id": metrics.stream_id,
        "trace_id": metrics.trace_id,
        "provider": metrics.provider,
        "upstream": metrics.upstream,
        "upstream_key": metrics.upstream_key or None,
        "session": metrics.session or None,
        "model": metrics.model,
        "answered_by": metrics.answered_by,
        "transport": metrics.transport,
        "outcome": metrics.outcome,
        "finish_reason": metrics.finish_reason,
        "error_code": metrics.code,
        "reason": metrics.reason,
        "ttft_ms": None if first is None else round(first * 1e3, 3),
        "chunks": metrics.deltas,
        "in_tokens": usage.get("input_tokens"),
        "cached_tokens": usage.get("cached_input_tokens"),
        "out_tokens": usage.get("output_tokens"),
        "usage_source": usage.get("source"),
        "cost": None if metrics.cost is None else units(metrics.cost),
        "currency": metrics.currency or None,
        "bytes": metrics.bytes_out,
        "retries": metrics.retries,
        "fallbacks": metrics.fallbacks,
        "dropped": [*metrics.dropped] or None,
    }


def log_unreadable(remote: str, status: int, request_id: str) -> None:
    """Logs the refusal of a request whose headers could not be read. The line has no part of the request.

    Args:
        remote: The client's address.
        status: The HTTP status.
        request_id: The id of the refusal.
    """
    if _log.isEnabledFor(logging.INFO):
        fields = {"msg": "request", "status": status, "request_id": request_id, "client_ip": remote}
        _log.info(Entry(fields, lambda: f"{remote} - '-' {status} 0.000 {request_id}"))
