"""Claude Code's attribution block: the first `system` block or line that begins with a name of a header.

The block says which program asks, for Anthropic's bills. Older versions of Claude Code change it in each turn, and it
stands before all else: other providers' caches then never have the beginning of a prompt. Only Anthropic reads it.
"""

from __future__ import annotations

from typing import Any, Final

from gai_fast.core.session import ATTRIBUTION

_BEGIN: Final = ATTRIBUTION


def is_attribution(block: Any) -> bool:
    """Returns whether a block of `system` is the attribution block.

    Args:
        block: The block, of any type.
    """
    text = block.get("text") if isinstance(block, dict) else None
    return isinstance(text, str) and text.startswith(_BEGIN)


def without_attribution(body: dict[str, Any]) -> dict[str, Any]:
    """Returns a Messages request without its attribution block: a copy, or the request itself if it has none.

    Of a text the first line is cut, and `system` itself if nothing else is in it. No other text is looked at.

    Args:
        body: The client's JSON object.
    """
    system = body.get("system")
    rest: str | list[Any]
    if isinstance(system, str):
        if not system.startswith(_BEGIN):
            return body
        rest = system.partition("\n")[2]
    else:
        if not isinstance(system, list):
            return body
        place = next((at for at, block in enumerate(system) if is_attribution(block)), None)
        if place is None:
            return body
        rest = [*system[:place], *system[place + 1 :]]
    copy = {**body, "system": rest}
    if not rest:
        del copy["system"]
    return copy
