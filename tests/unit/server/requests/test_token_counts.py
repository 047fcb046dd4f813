"""`tests/integration/test_token_counts.py` asks the routes over sockets."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.model.settings import ModelSettings, UpstreamSettings
from gai_fast.providers import get_provider
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.token_counts import TokenCounts
from tests.conftest import ChangeLimits

ROUTE = "/v1/messages/count_tokens"
UPSTREAM = UpstreamSettings("a", "anthropic", "https://a.example")
MODEL = ModelSettings("m", UPSTREAM, "id")
MISSING, UNSURE = b"", b'{"error":{"message":"nothing here"}}'


class Asked:
    """The parts of a request that an estimate needs."""

    path = ROUTE
    format = get_format("anthropic")

    def json_reply(self, body: Any) -> Reply:
        return Reply(200, repr(body).encode(), [])


class Bench:
    def __init__(self) -> None:
        self.now = 1.0
        self.counts = TokenCounts(lambda: self.now)

    def refused(self, status: int, body: bytes, model: ModelSettings = MODEL, *, is_configured: bool = True) -> Any:
        asked: Any = get_format("anthropic").read_request(
            {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        )
        incoming: Any = Asked()
        instead = self.counts.instead(incoming, asked, model, is_configured=is_configured)
        return instead(get_provider("anthropic").decode_error(status, {}, body))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_upstream_without_the_route_is_not_asked_again_for_an_hour(bench: Bench) -> None:
    assert bench.refused(404, MISSING).status == 200
    assert bench.counts.counts_none(MODEL, ROUTE)
    bench.now += LIMITS.uncounted_for - 1
    assert bench.counts.counts_none(MODEL, ROUTE)
    bench.now += 2
    assert not bench.counts.counts_none(MODEL, ROUTE)


def test_nothing_that_a_caller_may_have_caused_is_remembered(bench: Bench) -> None:
    """The caller gets its estimate; the others' requests are counted as before."""
    for status, body, is_configured in ((404, UNSURE, True), (404, MISSING, False), (405, MISSING, False)):
        assert bench.refused(status, body, is_configured=is_configured).status == 200
        assert not bench.counts.counts_none(MODEL, ROUTE)
    assert bench.refused(404, b'{"error":{"message":"model: x"}}') is None
    assert bench.refused(529, MISSING) is None


def test_what_is_remembered_is_of_one_model_at_one_address(bench: Bench) -> None:
    assert bench.refused(501, MISSING).status == 200
    moved = UpstreamSettings("a", "anthropic", "https://b.example")
    for other in (ModelSettings("n", UPSTREAM, "other"), ModelSettings("m", moved, "id")):
        assert not bench.counts.counts_none(other, ROUTE)
    assert not bench.counts.counts_none(MODEL, "/v1/responses/input_tokens")


def test_it_is_bounded(bench: Bench, change_limits: ChangeLimits) -> None:
    change_limits(uncounted=2)
    for name in "abcd":
        bench.refused(404, MISSING, ModelSettings(name, UPSTREAM, name))
    assert len(bench.counts._uncounted) <= 2
    assert bench.counts.counts_none(ModelSettings("d", UPSTREAM, "d"), ROUTE)
