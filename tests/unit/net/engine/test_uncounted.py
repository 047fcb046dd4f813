"""`tests/integration/test_token_counts.py` asks the routes over sockets."""

from __future__ import annotations

import pytest

from gai_fast.model.settings import ModelSettings, UpstreamSettings
from gai_fast.net.engine.uncounted import Uncounted
from gai_fast.net.limits import LIMITS
from gai_fast.providers import get_provider
from tests.conftest import ChangeLimits

ROUTE = "/v1/messages/count_tokens"
UPSTREAM = UpstreamSettings("a", "anthropic", "https://a.example")
MODEL = ModelSettings("m", UPSTREAM, "id")
MISSING, UNSURE = b"", b'{"error":{"message":"nothing here"}}'


class Bench:
    def __init__(self) -> None:
        self.now = 1.0
        self.known = Uncounted(lambda: self.now)

    def refused(self, status: int, body: bytes, model: ModelSettings = MODEL, *, is_configured: bool = True) -> bool:
        error = get_provider("anthropic").decode_error(status, {}, body)
        return self.known.refused(model, ROUTE, error, is_configured=is_configured)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_upstream_without_the_route_is_known_for_an_hour(bench: Bench) -> None:
    assert bench.refused(404, MISSING)
    assert bench.known.has(MODEL, ROUTE)
    bench.now += LIMITS.uncounted_for - 1
    assert bench.known.has(MODEL, ROUTE)
    bench.now += 2
    assert not bench.known.has(MODEL, ROUTE)


def test_nothing_that_a_caller_may_have_caused_is_remembered(bench: Bench) -> None:
    """The caller gets its estimate; the others' requests are counted as before."""
    for status, body, is_configured in ((404, UNSURE, True), (404, MISSING, False), (405, MISSING, False)):
        assert bench.refused(status, body, is_configured=is_configured)
        assert not bench.known.has(MODEL, ROUTE)
    assert not bench.refused(404, b'{"error":{"message":"model: x"}}')
    assert not bench.refused(529, MISSING)
    assert not bench.known.has(MODEL, ROUTE)


def test_what_is_remembered_is_of_one_model_at_one_address(bench: Bench) -> None:
    assert bench.refused(501, MISSING)
    moved = UpstreamSettings("a", "anthropic", "https://b.example")
    for other in (ModelSettings("n", UPSTREAM, "other"), ModelSettings("m", moved, "id")):
        assert not bench.known.has(other, ROUTE)
    assert not bench.known.has(MODEL, "/v1/responses/input_tokens")


def test_it_is_bounded(bench: Bench, change_limits: ChangeLimits) -> None:
    change_limits(uncounted=2)
    for name in "abcd":
        bench.refused(404, MISSING, ModelSettings(name, UPSTREAM, name))
    assert len(bench.known._until) <= 2
    assert bench.known.has(ModelSettings("d", UPSTREAM, "d"), ROUTE)
