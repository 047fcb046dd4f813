"""`Check`: one result of `gai-fast doctor`, and the summary of several.

Owns the order of the statuses. Does no checks: `doctor.py` checks the machine, `proxy_check.py` the proxies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Status = Literal["ok", "warning", "error", "skipped"]
_ORDER: Final[tuple[Status, ...]] = ("skipped", "ok", "warning", "error")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: Its name: `limit`, `clock`, `dns`, `tls`, `certificate`, `store`, `identity.<upstream>`,
            `upstream.<upstream>`, `proxy.<what>`.
        status: The result.
        detail: The finding.
        fix: The remedy; empty if none is needed.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def worst(name: str, checks: Sequence[Check], otherwise: str) -> Check:
    """Joins several checks into one with the worst status. Its details come from the checks with a fix, or from all
    checks if none has a fix.

    Args:
        name: The name of the joined check.
        checks: The checks.
        otherwise: The detail if there are no checks, so that the joined check is skipped.
    """
    if not checks:
        return Check(name, "skipped", otherwise)
    status = max((each.status for each in checks), key=_ORDER.index)
    shown = [each for each in checks if each.fix] or checks
    details, fixes = dict.fromkeys(each.detail for each in shown), dict.fromkeys(each.fix for each in shown)
    return Check(name, status, "; ".join(details), "; ".join(fixes))
