"""The log of tools: a line for each call by the gateway, without arguments, results and texts of errors."""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

from gai_fast.net.runs.tallies import SeenCall
from gai_fast.server.observe.log_format import Entry

_log: Final = logging.getLogger("gai_fast.tools")


def log_call(call: SeenCall) -> None:
    """Logs a call that has ended."""
    if not _log.isEnabledFor(logging.INFO):
        return
    fields = {
        "msg": "tool",
        "server": call.server or None,
        "tool": call.tool,
        "outcome": call.outcome,
        "dur_ms": round(call.seconds * 1e3, 3),
        "step": call.step,
        "attempt": call.attempt,
        "call_id": call.call_id,
        "stream_id": call.stream_id,
        "request_id": call.request_id,
        "trace_id": call.trace_id,
        "key": call.caller,
    }
    Entry(fields, partial(_text, call)).log(_log)


def _text(call: SeenCall) -> str:
    name = f"{call.server}.{call.tool}" if call.server else call.tool
    return f"tool {name!r} {call.outcome} {call.seconds:.3f} {call.stream_id} {call.call_id!r} {call.caller}"
