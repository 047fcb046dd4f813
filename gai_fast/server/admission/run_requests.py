"""Requests that are runs: the wait for the lists of their tools, and what such a request cannot be.

`net/runs/` has the runs, and decides which requests are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from gai_fast.model.errors import Error
from gai_fast.server.admission.negotiation import Negotiated

if TYPE_CHECKING:
    from gai_fast.net.runs.run_tools import RunOffer, RunTools, RunWish

APPROVALS_HEADER: Final = "x-gai-approvals"
_DENY: Final = "deny"


async def list_tools(tools: RunTools, wish: RunWish, then: Callable[[RunOffer], object]) -> None:
    """Calls with what a run offers, once that is known.

    Args:
        tools: The tools of the process.
        wish: The run.
        then: The function.
    """
    then(await tools.offer(wish))


def check_run(headers: Mapping[str, str], negotiated: Negotiated, answers: int) -> None:
    """Checks whether a request can be a run.

    Args:
        headers: Its headers.
        negotiated: The form of its response.
        answers: The number of answers that it wants.

    Raises:
        Error: It wants several answers, or a form without events; or its header asks for what there is not.
    """
    asked = headers.get(APPROVALS_HEADER)
    if asked is not None and asked != _DENY:
        raise Error("unsupported", f"the header {APPROVALS_HEADER} must be {_DENY}", reason="approvals")
    if answers > 1:
        raise Error("unsupported", "a request that may use the gateway's tools has one answer", reason="n")
    if negotiated.copies_upstream:
        text = f"format {negotiated.name!r} has no place for the calls of the gateway's tools"
        raise Error("unsupported", text, reason="format")
