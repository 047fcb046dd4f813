"""The audit log: a line for every action of an admin, refused ones included, whatever `access_log` says."""

from __future__ import annotations

import logging
from typing import Final

from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.log_format import Entry

_log: Final = logging.getLogger("gai_fast.audit")


def audit(action: str, key: str | None, client_ip: str | None, target: str | None, result: int) -> None:
    """Logs one action.

    Args:
        action: Its name, such as `reload` or `streams.cancel`.
        key: The name of the key that asked for it; `None`: none did, as with a signal.
        client_ip: The address that it came from; `None`: this machine, by a signal.
        target: The name or id of what it concerns, where there is one; the beginning of one that is too long to be any.
        result: The HTTP status of its answer, or what that would be.
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
