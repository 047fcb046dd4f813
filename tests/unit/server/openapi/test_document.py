"""The description of the API as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from gai_fast import __version__
from gai_fast.server.openapi.document import document
from gai_fast.server.openapi.operation import JSON, Operation
from gai_fast.server.routes.table import ROUTES

DOCUMENT = document(ROUTES)


class Body(Struct):
    """For readers of the code."""

    text: str


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_its_routes_are_those_of_the_table() -> None:
    shown = {(method.upper(), path) for path, method, _ in operations()}
    assert shown == {(route.method, route.path + route.operation.rest) for route in ROUTES}
    assert "/v1/responses/{id}/cancel" in DOCUMENT["paths"]
    assert "/api/v1/chat/{chat}/stream" in DOCUMENT["paths"]


def test_a_body_may_be_a_type() -> None:
    operation = Operation("A test.", "Admin", {200: {JSON: Body}}, Body)
    shown = document([ROUTES[0]._replace(path="/admin/v1/made-up", operation=operation)])
    schema = shown["components"]["schemas"]["Body"]
    assert (schema["required"], "description" in schema) == (["text"], False)
    described = shown["paths"]["/admin/v1/made-up"]["post"]
    for body in (described["requestBody"], described["responses"]["200"]):
        assert body["content"][JSON]["schema"] == {"$ref": "#/components/schemas/Body"}


def test_every_reference_leads_somewhere() -> None:
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
        found: Any = DOCUMENT
        for name in reference.split("/"):
            found = found[name]


def test_names_of_operations_and_of_parameters_are_unique() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    for path, _, operation in operations():
        parameters = [(each["in"], each["name"]) for each in operation["parameters"]]
        assert len(set(parameters)) == len(parameters)
        assert [name for place, name in parameters if place == "path"] == re.findall(r"\{(\w+)\}", path)


def test_every_operation_says_what_it_answers_and_which_errors_it_has() -> None:
    for path, method, operation in operations():
        statuses = {*operation["responses"]}
        assert {"400", "404", "405", "429", "500"} <= statuses, path
        assert any(status[0] in "12" for status in statuses)
        for answer in operation["responses"].values():
            assert "$ref" in answer or answer["description"]
        assert ("requestBody" in operation) <= (method in ("post", "patch"))
    chat = DOCUMENT["paths"]["/v1/messages"]["post"]["responses"]
    assert chat["529"] == {"$ref": "#/components/responses/AnthropicError529"}


def test_each_way_to_send_a_key_and_a_credential_is_described() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    headers = {each.get("name", "authorization") for each in schemes.values()}
    assert headers == {"authorization", "x-api-key", "x-gai-key"}
    for path, ways in (("/v1/messages", 6), ("/v1/embeddings", 6), ("/admin/v1/streams", 4), ("/healthz", 0)):
        for operation in DOCUMENT["paths"][path].values():
            given = [{*each} for each in operation["security"]]
            assert len(given) == ways, path
            assert all(each <= schemes.keys() for each in given)
            assert ({"gateway_key", "bearer"} in given) is (ways == 6)


def test_it_says_which_release_it_is_of() -> None:
    assert (DOCUMENT["openapi"], DOCUMENT["info"]["version"]) == ("3.1.0", __version__)
