"""What a client asks for reaches the provider in a form that it takes, judged by the provider's own types and rules."""

from __future__ import annotations

import os
from importlib import import_module

import pytest

from gai_fast.providers import PROVIDERS, provider_names
from tests.requests.judge import Judge
from tests.requests.known import grown, known, summary
from tests.requests.rules import RULES
from tests.requests.targets import TARGETS, Target


@pytest.mark.parametrize("target", [pytest.param(target, id=target.name) for target in TARGETS])
def test_requests_fail_as_listed_and_no_more(target: Target, judge: Judge, summaries: list[str]) -> None:
    """`failures.txt` is exact: a listed failure that is gone fails too (README.md tells how to take it out)."""
    verdict = judge.verdict(target)
    summaries.append(summary(target.name, verdict))
    found, listed = verdict.lines(target), known(target.name)
    new = grown(listed, found)
    assert not new, "\n".join(["failures that are not listed:", *new])
    if "GAI_FAST_REQUESTS" not in os.environ:
        gone = sorted(set(listed) - set(found))
        assert not gone, "\n".join([f"listed, but gone: python -m tests.requests.known {target.name}", *gone])


def test_every_api_of_every_provider_is_judged() -> None:
    judged = {target.provider for target in TARGETS}
    apis: set[str] = set()
    for name in provider_names():
        module = import_module(PROVIDERS[name])
        apis |= {f"{name}:{api}" if api else name for api in module.APIS}
    assert apis - {"demo", "python"} == judged  # these ask no server


def test_every_target_has_rules_with_their_sources() -> None:
    assert RULES.keys() == {target.name for target in TARGETS}
    for rule in {rule for rules in RULES.values() for rule in rules}:
        assert rule.__doc__ or "<locals>" in rule.__qualname__, rule.__name__
