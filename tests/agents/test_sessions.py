"""Sessions of Claude Code and Codex on models of five APIs: nothing is refused, and caches have each turn.

The blocks of docs/programs.md are run, too.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from programs.environments import Environment, NotInstalled, environment
from tests.agents.running import (
    UPSTREAMS,
    gateway_before,
    refusals,
    run_block,
    two_prompts_of_claude,
    two_prompts_of_codex,
    variables,
)
from tests.agents.upstream import CachingUpstream

PACKAGES = {"claude": "@anthropic-ai/claude-code", "codex": "@openai/codex"}
ROUNDS = 20
LEAST_SHARE = 0.9


async def place_of(agent: str) -> Environment:
    try:
        return await environment(f"npm install -g {PACKAGES[agent]}")
    except NotInstalled as problem:
        pytest.skip(f"missing on this machine: {PACKAGES[agent]} ({problem})")


def check_repeated(upstream: CachingUpstream, *, found: int = 0) -> None:
    """Each request holds the one before it, byte for byte but for marks; `found` of them have another tool, too."""
    prompts = [each.prompt for each in upstream.asked]
    grown = 0
    for before, after in itertools.pairwise(prompts):
        assert after.messages.startswith(before.messages[:-1])
        assert (after.head, after.rest) == (before.head, before.rest)
        if after.tools != before.tools:
            assert after.tools.startswith(before.tools.rstrip("]}"))
            grown += 1
    assert grown == found
    cold = sorted(each.share for each in upstream.asked[1:])
    assert all(share >= LEAST_SHARE for share in cold[found:]), cold


@pytest.mark.parametrize("api", UPSTREAMS)
async def test_a_session_of_claude_code(api: str, tmp_path: Path) -> None:
    place = await place_of("claude")
    async with CachingUpstream(ROUNDS, later=2) as upstream, gateway_before(tmp_path, api, upstream) as gateway:
        output, _ = await two_prompts_of_claude(gateway.url, tmp_path, variables(place, tmp_path))
        assert output.count("Done after") >= 2
        assert refusals(gateway.new_lines()) == []
    assert len(upstream.asked) == ROUNDS + 1 + 2 + 1
    check_repeated(upstream)


@pytest.mark.parametrize("api", ["chat", "gemini"])
async def test_a_tool_that_claude_code_finds_costs_one_cold_turn(api: str, tmp_path: Path) -> None:
    place = await place_of("claude")
    async with (
        CachingUpstream(6, later=2, finds=True) as upstream,
        gateway_before(tmp_path, api, upstream) as gateway,
    ):
        environ = variables(place, tmp_path)
        output, _ = await two_prompts_of_claude(gateway.url, tmp_path, environ, with_mcp=True)
        assert output.count("Done after") >= 2
        assert refusals(gateway.new_lines()) == []
    check_repeated(upstream, found=1)


@pytest.mark.parametrize("api", UPSTREAMS)
async def test_a_session_of_codex(api: str, tmp_path: Path) -> None:
    place = await place_of("codex")
    async with CachingUpstream(ROUNDS, later=2) as upstream, gateway_before(tmp_path, api, upstream) as gateway:
        output, errors = await two_prompts_of_codex(gateway.url, tmp_path, variables(place, tmp_path))
        assert output.count("Done after") >= 2
        assert "Reconnecting" not in output + errors
        assert refusals(gateway.new_lines()) == []
    assert len(upstream.asked) == ROUNDS + 1 + 2 + 1
    check_repeated(upstream)


@pytest.mark.parametrize("agent", PACKAGES)
async def test_the_block_of_an_agent_is_what_is_pasted(agent: str, tmp_path: Path) -> None:
    place = await place_of(agent)
    async with CachingUpstream(1) as upstream, gateway_before(tmp_path, "chat", upstream) as gateway:
        output, errors = await run_block(agent, gateway.url, tmp_path, variables(place, tmp_path))
        assert "Done after 1 steps." in output
        assert "Reconnecting" not in output + errors
        assert refusals(gateway.new_lines()) == []
