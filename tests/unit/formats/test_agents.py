"""Which clients are coding agents."""

from __future__ import annotations

import pytest

from gai_fast.formats.agents import is_agent


@pytest.mark.parametrize(
    "user_agent",
    [
        "claude-cli/2.1.330 (external, cli)",
        "claude-cli/",
        "codex_cli_rs/0.169.0 (Debian 12.0.0; x86_64) unknown (codex_cli_rs; 0.169.0)",
        "codex_exec/0.169.0",
        "codex-tui/1.0",
        "codex/2",
    ],
)
def test_an_agent_is_known_by_the_beginning_of_its_name(user_agent: str) -> None:
    assert is_agent(user_agent)


@pytest.mark.parametrize(
    "user_agent",
    [
        None,
        "",
        "codex",
        "codexes/1",
        "Codex/1",
        "claude-cli",
        "Claude-CLI/1",
        "my-claude-cli/1",
        "curl/8 codex_cli_rs/0.169.0",
        " codex/1",
        "OpenAI/Python 3.57.0",
        "Anthropic/JS 0.90 claude-cli/2",
    ],
)
def test_a_client_that_names_an_agent_elsewhere_is_none(user_agent: str | None) -> None:
    assert not is_agent(user_agent)
