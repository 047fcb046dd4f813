"""The specification of a stream, and its clock."""

from __future__ import annotations

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.settings import ModelSettings, UpstreamSettings
from gai_fast.net.attempts.spec import Clock, StreamSpec
from tests.unit.net.fakes import FakeOutput

UPSTREAM = UpstreamSettings("up", "openai-compatible", "http://x")
REQUEST = parse_request(b'{"query":"hi"}')


def test_the_clock_is_read_on_demand() -> None:
    now = 1
    clock = Clock(lambda: now)
    now = 2
    assert clock() == 1
    assert clock.tick() == clock() == 2


def test_the_spec_for_another_model_differs_in_nothing_else() -> None:
    spec = StreamSpec(ModelSettings("m", UPSTREAM, "m"), REQUEST, FakeOutput(), hold=True, request_id="r")
    other = ModelSettings("o", UPSTREAM, "o")
    made = spec.to(other, has_begun=False)
    assert (made.model, made.request, made.output, made.hold, made.request_id) == (
        other,
        REQUEST,
        spec.output,
        True,
        "r",
    )


def test_the_caller_makes_it_where_more_differs_and_is_given_what_has_begun() -> None:
    asked: list[tuple[ModelSettings, StreamSpec | None]] = []

    def other(model: ModelSettings, before: StreamSpec | None) -> StreamSpec:
        asked.append((model, before))
        return spec

    spec = StreamSpec(ModelSettings("m", UPSTREAM, "m"), REQUEST, FakeOutput(), other=other)
    model = ModelSettings("o", UPSTREAM, "o")
    assert spec.to(model, has_begun=False) is spec
    assert spec.to(model, has_begun=True) is spec
    assert asked == [(model, None), (model, spec)]
