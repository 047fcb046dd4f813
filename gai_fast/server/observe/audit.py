"""The audit log: a line for every action of an admin, including refused actions, and for every stop of a guard.

Its lines do not depend on `access_log`.
"""

from __future__ import annotations

import logging
from typing import Final

from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.log_format import Entry

_log: Final = logging.getLogger("gai_fast.audit")


def audit(action: str, key: str | None, client_ip: str | None, target: str | None, result: int) -> None:
    """Logs one action.

    Args:
        action: The name of the action, such as `reload` or `streams.cancel`.
        key: The name of the key of the request. `None` if there was no key, as with a signal.
        client_ip: The address of the client. `None` for a signal, which comes from this machine.
        target: The name or id of the object of the action; only its beginning is logged if it is too long to be valid.
            `None` if the action has no object.
        result: The HTTP status of the response; for a signal, the status that a response would have.
    """
    fields = {
        "msg": "audit",
        "action": action,
        "key": key,
        "client_ip": client_ip,
        "target": None if target is None else target[: LIMITS.audited],
        "result": result,
    }
    _log.info(Entry(fields, lambda: " ".join(f"{name}={value!r}" for name, value in fields.items() if name != "msg")))


_STOPPED: Final = {"input": 400, "output": 200, "tool_input": 200, "tool_result": 200}
"""The statuses of a request that a guard refuses, of an answer that it ends, and of one whose calls it stops."""


def audit_stop(guard: str, on: str, stream_id: str, caller: str) -> None:
    """Logs that a guard has ended a stream, refused a request, or stopped a call of a tool.

    Args:
        guard: The guard's name.
        on: What it has looked at.
        stream_id: The stream's id; empty for a request that starts none.
        caller: The caller's name.
    """
    audit("guard.stop", caller, None, f"{guard} {stream_id}".rstrip(), _STOPPED[on])
