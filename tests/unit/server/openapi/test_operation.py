"""The description of each route."""

from __future__ import annotations

from msgspec import Struct

from gai_fast.runtime.ids import EVENT_NUMBER
from gai_fast.server.openapi.operation import JSON, STREAM, Operation
from gai_fast.server.openapi.schemas import schemas
from gai_fast.server.routes.table import ROUTES

OPERATIONS = [route.operation for route in ROUTES]


class Body(Struct):
    """A body."""

    text: str


def test_only_a_prefix_route_has_an_example_of_its_parameter_or_something_behind_it() -> None:
    for route in ROUTES:
        assert route.is_prefix or not (route.operation.named or route.operation.rest)


def test_every_schema_that_is_named_is_there() -> None:
    known = {"", *schemas()}
    for operation in OPERATIONS:
        named = [operation.request, *(schema for media in operation.answers.values() for schema in media.values())]
        assert {schema for schema in named if isinstance(schema, str)} <= known


def test_the_types_of_bodies_are_those_that_are_no_names() -> None:
    operation = Operation("A test.", "Admin", {200: {STREAM: Body, JSON: "Key"}}, dict)
    assert operation.kinds == [dict, Body]
    assert Operation("A test.", "Admin", {200: {}}).kinds == []


def test_every_sentence_is_one() -> None:
    for operation in OPERATIONS:
        texts = [operation.summary, *(each.about for each in operation.parameters)]
        assert all((text.endswith(".") and text[0].isupper()) or text.startswith("gai-fast") for text in texts)


def test_the_largest_number_of_an_event_is_the_one_that_is_read() -> None:
    parameters = {each.name: each.schema for operation in OPERATIONS for each in operation.parameters}
    most = parameters["starting_after"]["maximum"]
    assert EVENT_NUMBER.fullmatch(str(most))
    assert not EVENT_NUMBER.fullmatch(str(most + 1))
