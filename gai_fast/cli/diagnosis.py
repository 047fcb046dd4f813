"""`Check`: one result of `gai-fast doctor`, and several as one.

Owns the order of the statuses. Looks at nothing: `doctor.py` checks the machine, `proxy_check.py` the proxies.
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
        name: Its name: `limit`, `clock`, `dns`, `tls`, `upstream.<name>`, `proxy.<what>`.
        status: The result.
        detail: What was found.
        fix: What to do; empty: nothing.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


def worst(name: str, checks: Sequence[Check], otherwise: str) -> Check:
    """Returns several checks as one: the worst status, and the details of those that have a fix, or of all if none has.

    Args:
        name: Its name.
        checks: The checks.
        otherwise: Why it is skipped where there are none.
    """
    if not checks:
        return Check(name, "skipped", otherwise)
    status = max((each.status for each in checks), key=_ORDER.index)
    shown = [each for each in checks if each.fix] or checks
    details, fixes = dict.fromkeys(each.detail for each in shown), dict.fromkeys(each.fix for each in shown)
    return Check(name, status, "; ".join(details), "; ".join(fixes))
