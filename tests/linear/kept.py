"""The walks of kept responses: each entry point that reads one, with its worst input of n."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from gai_fast.core.json.structure import Structure
from gai_fast.formats.responses.chain import (
    indexed_ids,
    items_by_id,
    joined,
    read_members,
    references,
    written,
    written_before,
)
from gai_fast.formats.responses.pages import items_page
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.server.requests.chains import Found, whole
from gai_fast.server.requests.newest import Newest
from gai_fast.stores.responses import KeptResponse

Work = Callable[[], object]

USER: dict[str, Any] = {"role": "user", "content": "hi"}
_RESPONSE = "resp_" + "a" * 22


def _call(at: int) -> dict[str, Any]:
    return {"type": "custom_tool_call", "call_id": f"c{at}", "name": f"f{at}", "input": ""}


def _kept(
    own: list[Any], output: list[Any] | None = None, tools: list[Any] | None = None, status: str = "completed"
) -> KeptResponse:
    response = {"id": _RESPONSE, "output": output or [], "tools": tools or []}
    return KeptResponse(_RESPONSE, "", status, encode_json(own), encode_json(response), provider="p")


def _custom(n: int) -> list[dict[str, Any]]:
    return [{"type": "custom", "name": f"g{at}"} for at in range(n)]


def _turns(n: int) -> dict[str, KeptResponse]:
    """Returns kept turns, by what they have much of."""
    answer = {"type": "message", "role": "assistant", "status": "in_progress", "content": [{"type": "output_text"}]}
    calls = [_call(at) for at in range(n)]
    outputs = [{"type": "custom_tool_call_output", "call_id": f"c{at}", "output": ""} for at in range(n)]
    return {
        "messages": _kept([USER] * n),
        "empty messages": _kept([{"role": "user", "content": ""}] * n),
        "empty parts": _kept([{"role": "user", "content": [{"type": "text", "text": ""}] * n}]),
        "calls without outputs, many tools": _kept(calls, tools=_custom(n)),
        "calls without outputs, a namespace": _kept(calls, tools=[{"type": "namespace", "tools": _custom(n)}]),
        "calls of an answer that broke off": _kept([USER], calls, status="incomplete"),
        "calls of one id": _kept([_call(0)] * n, tools=_custom(n)),
        "calls and outputs": _kept([*calls, *outputs], tools=_custom(n)),
        "reasoning that nothing follows": _kept([USER], [{"type": "reasoning", "id": "r"}] * n, status="failed"),
        "items that broke off": _kept([USER], [answer] * n, status="failed"),
        "items of its provider's own": _kept([USER], [{"type": "odd", "id": f"o{at}"} for at in range(n)]),
        "no items": _kept([5] * n, [5] * n),
        "names alone": _kept([{"type": "item_reference", "id": f"i{at}"} for at in range(n)]),
        "ids": _kept([{**USER, "id": f"i{at}"} for at in range(n)]),
    }


def _refusing(function: Callable[..., Any], *arguments: Any) -> Work:
    def work() -> None:
        with suppress(Error):
            function(*arguments)

    return work


def _noted(turn: KeptResponse) -> Work:
    return lambda: Newest().note(turn, ())


def _last_of(turn: KeptResponse) -> str:
    page = items_page(turn, "desc", None, 1)
    assert page is not None
    return str(page["last_id"])


_WALKS: dict[str, Callable[[KeptResponse, int], Work]] = {
    "joined": lambda turn, n: _refusing(joined, [turn], [USER] * n),
    "joined, counted": lambda turn, n: _refusing(joined, [turn], [USER] * n, (), Structure()),
    "asked": lambda turn, n: _refusing(
        whole, {}, b"{}", Found([turn], _RESPONSE, [USER], (), {}, is_upstreams=False, may_go_up=False, size=0)
    ),
    "by id": lambda turn, n: _refusing(items_by_id, turn),
    "read for a socket": lambda turn, n: _refusing(read_members, turn),
    "noted for a socket": lambda turn, n: _noted(turn),
    "written before": lambda turn, n: lambda: written_before(turn.input, n),
    "a page": lambda turn, n: lambda: items_page(turn, "asc", None, 20),
    "a page after the last": lambda turn, n: _refusing(items_page, turn, "asc", _last_of(turn), 20),
    "a page after none": lambda turn, n: lambda: items_page(turn, "desc", "none", 20),
}


def _walk(walk: str, turn: str) -> Callable[[int], Work]:
    return lambda n: _WALKS[walk](_turns(n)[turn], n)


def _requests(n: int) -> list[Any]:
    """Returns the own items of a request."""
    return [USER if at % 2 else {"type": "item_reference", "id": f"i{at}"} for at in range(n)]


NAMES = tuple(_turns(1))
"""What the turns have much of."""
KEPT: dict[str, Callable[[int], Work]] = {
    **{f"kept, {walk}, {turn}": _walk(walk, turn) for walk in _WALKS for turn in NAMES},
    "kept, own items written": lambda n: partial(written, _requests(n), n),
    "kept, references": lambda n: partial(references, _requests(n)),
    "kept, indexed": lambda n: partial(
        indexed_ids, "resp_up", written(_requests(n), n), [f"o{at}" for at in range(n)], n
    ),
}
