"""The description of each route."""

from __future__ import annotations

from gai_fast.runtime.ids import EVENT_NUMBER
from gai_fast.server.lanes.routes import ROUTES
from gai_fast.server.openapi.document import place_of
from gai_fast.server.openapi.paths import OPERATIONS
from gai_fast.server.openapi.schemas import schemas


def test_every_route_is_described_and_nothing_else() -> None:
    assert {place_of(route) for route in ROUTES} == OPERATIONS.keys()


def test_a_prefix_route_names_its_parameter_and_no_other_does() -> None:
    for route in ROUTES:
        assert bool(OPERATIONS[place_of(route)].id) is route.is_prefix


def test_every_schema_that_is_named_is_there() -> None:
    known = {"", *schemas()}
    for operation in OPERATIONS.values():
        assert operation.request in known
        assert {name for media in operation.answers.values() for name in media.values()} <= known


def test_every_sentence_is_one() -> None:
    for operation in OPERATIONS.values():
        texts = [operation.summary, *(each.about for each in operation.parameters)]
        assert all((text.endswith(".") and text[0].isupper()) or text.startswith("gai-fast") for text in texts)


def test_the_largest_number_of_an_event_is_the_one_that_is_read() -> None:
    parameters = {each.name: each.schema for operation in OPERATIONS.values() for each in operation.parameters}
    most = parameters["starting_after"]["maximum"]
    assert EVENT_NUMBER.fullmatch(str(most))
    assert not EVENT_NUMBER.fullmatch(str(most + 1))
