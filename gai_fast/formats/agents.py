"""Coding agents, by the beginning of their `User-Agent`.

An agent cannot be told that a member is not supported, and gets new members each week. So the default of
`on_unsupported` leaves out for agents what it refuses to others.
"""

from __future__ import annotations

from typing import Final

CLAUDE_CODE: Final = "claude-cli/"
CODEX: Final = ("codex_", "codex-", "codex/")
"""`codex_cli_rs/0.169.0`, `codex_exec/0.169.0` and their like."""
_AGENTS: Final = (CLAUDE_CODE, *CODEX)


def is_agent(user_agent: str | None) -> bool:
    """Returns whether a request is of a coding agent.

    Args:
        user_agent: The request's `User-Agent`. None if it has none.
    """
    return user_agent is not None and user_agent.startswith(_AGENTS)
