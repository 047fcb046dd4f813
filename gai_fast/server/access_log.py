"""The access log: a line for every answer, refusals included, written when the answer has ended.

Owns the form of a line: the client's address, method, path, status, seconds and request id, the caller where it has a
key, and of a stream its figures as one JSON object. A query string is never logged: it may hold a prompt.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from gai_fast._impl import encode_json
from gai_fast.server.forwarding import Forwarding
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
        line = f"{remote} {http.method} {path!r} {status} {seconds:.3f} {http.request_id}"
        if http.caller != ANONYMOUS:
            line += f" {http.caller}"
        if http.metrics is not None:
            line += f" {encode_json(log_fields(http.metrics)).decode()}"
        _log.info("%s", line)


def log_unreadable(remote: str, status: int, request_id: str) -> None:
    """Logs the refusal of a request whose head could not be read; the line repeats nothing of it.

    Args:
        remote: The client's address.
        status: The HTTP status.
        request_id: The id that the refusal has.
    """
    if _log.isEnabledFor(logging.INFO):
        _log.info("%s", f"{remote} - '-' {status} 0.000 {request_id}")
