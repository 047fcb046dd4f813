"""What a request's headers say, looked up once for all requests with one head."""

from __future__ import annotations

import pytest

from gai_fast.core.session import NamedSession, session_digest
from gai_fast.server.http.head_facts import HeadFacts


def test_a_head_without_wishes() -> None:
    facts = HeadFacts({"host": "x", "user-agent": "curl/8.5.0"})
    assert (facts.session("anna"), facts.is_agent, facts.is_retry, facts.unsupported) == (None, False, False, None)


def test_a_head_of_an_agent_that_tries_again() -> None:
    headers = {
        "user-agent": "claude-cli/2.1.332 (external, cli)",
        "x-claude-code-session-id": "main",
        "x-stainless-retry-count": "2",
        "x-gai-unsupported": "error",
    }
    facts = HeadFacts(headers)
    assert (facts.is_agent, facts.is_retry, facts.unsupported) == (True, True, "error")


def test_a_session_of_a_head_is_each_callers_own() -> None:
    facts = HeadFacts({"x-session-id": "main"})
    for caller in ("anna", "anna", "bert", "anna"):
        assert facts.session(caller) == NamedSession("main", session_digest("main", caller))


@pytest.mark.parametrize("count", ["0", "00", "", "x", "-1"])
def test_a_first_try_is_no_retry(count: str) -> None:
    assert not HeadFacts({"x-stainless-retry-count": count}).is_retry
