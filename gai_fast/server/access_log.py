"""The access log: a line for every answer, refusals included, written when the answer has ended.

Owns the form of a line: the client's address, method, path, status, seconds and request id, the caller where it has a
key, and of a stream its figures as one JSON object; as JSON, a field for each. A query string is never logged: it
may hold a prompt.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from gai_fast._impl import encode_json
from gai_fast.metrics import StreamMetrics
from gai_fast.money import UNIT
from gai_fast.server.forwarding import Forwarding
from gai_fast.server.log_format import Entry
from gai_fast.server.metrics import log_fields
from gai_fast.server.request_reader import HTTPRequest
from gai_fast.settings import ANONYMOUS

_log: Final = logging.getLogger("gai_fast.access")

LEFT: Final = 499
"""The status of a client that left before its answer was complete, as in nginx's log."""


def log_request(http: HTTPRequest, status: int, forwarding: Forwarding) -> None:
    """Logs the answer to a request whose head could be read.

    Args:
        http: The request.
        status: The HTTP status of the answer, or `LEFT`.
        forwarding: The proxies that are believed whose request it is.
    """
    if _log.isEnabledFor(logging.INFO):
        seconds = time.monotonic() - http.began
        path = http.target.partition("?")[0]
        remote = forwarding.client(http.transport.remote, http.headers)
        metrics = http.metrics
        line = f"{remote} {http.method} {path!r} {status} {seconds:.3f} {http.request_id}"
        if http.caller != ANONYMOUS:
            line += f" {http.caller}"

        def text() -> str:
            return line if metrics is None else f"{line} {encode_json(log_fields(metrics)).decode()}"

        fields: dict[str, Any] = {
            "msg": "request" if metrics is None else "stream",
            "method": http.method,
            "path": path,
            "status": status,
            "request_id": http.request_id,
            "client_ip": remote,
            "key": http.caller,
            "dur_ms": round(seconds * 1e3, 3),
            "error_code": None if http.refused is None else http.refused[1],
        }
        if metrics is not None:
            fields.update(_stream_fields(metrics))
        _log.info(Entry(fields, text))


def _stream_fields(metrics: StreamMetrics) -> dict[str, Any]:
    """The fields that only the line of a stream has, each of them always; `None` where there is nothing to tell."""
    usage = metrics.usage or {}
    first = metrics.time_to_first_token
    return {
        "stream_id": metrics.stream_id,
        "trace_id": metrics.trace_id,
        "provider": metrics.provider,
        "upstream": metrics.upstream,
        "model": metrics.model,
        "answered_by": metrics.answered_by,
        "transport": metrics.transport,
        "outcome": metrics.outcome,
        "finish_reason": metrics.finish_reason,
        "error_code": metrics.code,
        "ttft_ms": None if first is None else round(first * 1e3, 3),
        "chunks": metrics.deltas,
        "in_tokens": usage.get("input_tokens"),
        "out_tokens": usage.get("output_tokens"),
        "usage_source": usage.get("source"),
        "cost": None if metrics.cost is None else metrics.cost / UNIT,
        "currency": metrics.currency or None,
        "bytes": metrics.bytes_out,
        "retries": metrics.retries,
        "fallbacks": metrics.fallbacks,
    }


def log_unreadable(remote: str, status: int, request_id: str) -> None:
    """Logs the refusal of a request whose head could not be read; the line repeats nothing of it.

    Args:
        remote: The client's address.
        status: The HTTP status.
        request_id: The id that the refusal has.
    """
    if _log.isEnabledFor(logging.INFO):
        fields = {"msg": "request", "status": status, "request_id": request_id, "client_ip": remote}
        _log.info(Entry(fields, lambda: f"{remote} - '-' {status} 0.000 {request_id}"))
