"""Whether a request asks for reasoning: a model that thinks may be silent for minutes before its first word."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from gai_fast.model.request import Request

_NOTHING: Final = (None, False, 0, "none")
"""Values by which a client asks for no reasoning."""


def asks_for_reasoning(request: Request | dict[str, Any]) -> bool:
    """Returns whether a request asks for reasoning. Checks nothing: `formats/` does.

    Args:
        request: A native request, or a body in a client's dialect: `reasoning_effort` (chat), `reasoning` (OpenRouter,
            Responses), `thinking` (Messages, DeepSeek).
    """
    if isinstance(request, Request):
        wanted = request.reasoning
        return wanted is not UNSET and wanted.effort != "none" and wanted.max_tokens != 0
    thinking = request.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive"):
        return True
    reasoning = request.get("reasoning")
    given = reasoning if isinstance(reasoning, dict) else {}
    effort = request.get("reasoning_effort")
    if effort is None:  # also as `null`, beside the other one
        effort = given.get("effort")
    if effort is not None:
        return effort not in _NOTHING
    return any(given.get(name) not in _NOTHING for name in ("enabled", "max_tokens", "summary", "generate_summary"))
