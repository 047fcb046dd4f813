"""Results of checks."""

from __future__ import annotations

import pytest

from gai_fast.cli.diagnosis import Check, missing_key, missing_keys, worst
from gai_fast.model.settings import IdentitySettings, Secret, Settings, UpstreamSettings


def test_several_checks_are_one_with_the_worst_status_and_each_fault_once() -> None:
    one, two = Check("a", "ok", "1"), Check("a", "error", "2", "do")
    assert worst("a", [one, two, two], "") == Check("a", "error", "2", "do")
    assert worst("a", [one, Check("a", "ok", "3")], "") == Check("a", "ok", "1; 3")
    assert worst("a", [], "none") == Check("a", "skipped", "none")


URL = "https://api.anthropic.com"


@pytest.mark.parametrize(
    "upstream",
    [
        UpstreamSettings("a", "anthropic", URL, api_key=Secret("k")),
        UpstreamSettings("a", "anthropic", URL, headers={"X-Api-Key": "k"}),
        UpstreamSettings("a", "anthropic", URL, headers={"Authorization": "Bearer k"}),
        UpstreamSettings("a", "anthropic", URL, identity=IdentitySettings(command=("token",))),
        UpstreamSettings("a", "anthropic", "http://127.0.0.1:9"),
    ],
)
def test_a_key_elsewhere_is_a_key(upstream: UpstreamSettings) -> None:
    assert missing_key(upstream) is None


def test_a_missing_key_is_an_error_with_its_fix() -> None:
    upstream = UpstreamSettings("a", "anthropic", URL, headers={"x-team": "k"})
    detail, fix = "it has no key, and anthropic refuses requests without one", "ANTHROPIC_API_KEY"
    found = missing_key(upstream)
    assert found == Check("upstream.a", "error", detail, f'set `api_key = "env:{fix}"` in its [[upstream]]')
    assert missing_keys(Settings(upstreams={"a": upstream})) == [f"upstream.a: {detail}: {found.fix}"]
