"""A guard on input that finds nothing: each request reaches its provider byte for byte as without."""

from __future__ import annotations

import pytest

from tests.requests.gateway import Bench
from tests.requests.judge import specimens
from tests.requests.targets import TARGETS, Target

ASKED = ("openai", "openai:responses", "anthropic", "gemini", "ollama")
"""One of each dialect."""


@pytest.mark.parametrize("target", [pytest.param(each, id=each.name) for each in TARGETS if each.name in ASKED])
def test_the_same_bytes_reach_the_provider(target: Target, bench: Bench) -> None:
    for door, bodies in specimens().items():
        for name, body in bodies.items():
            (plain_answer, plain), (answer, guarded) = (
                bench.ask(target, way, door, body) for way in ("plain", "guard")
            )
            case = target.name, door, name
            assert (answer.status, plain is None) == (plain_answer.status, guarded is None), case
            if plain is not None and guarded is not None:
                assert (guarded.path, guarded.raw) == (plain.path, plain.raw), case


def test_each_dialect_is_asked() -> None:
    assert {each.name for each in TARGETS if each.name in ASKED} == {*ASKED}
