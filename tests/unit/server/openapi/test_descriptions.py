"""The sentences and the examples for readers of the API."""

from __future__ import annotations

from gai_fast.server.admin import bodies
from gai_fast.server.openapi.descriptions import ABOUT
from gai_fast.server.routes.table import ROUTES
from tests.unit.server.openapi.test_document import DOCUMENT, operations


def test_of_docstrings_only_those_of_the_admins_bodies_reach_it() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name, schema in schemas.items():
        if name not in vars(bodies):
            assert schema.get("description") == ABOUT.get(name), name
        for member in schema.get("properties", {}).values():
            assert "description" not in member, name
    assert not ABOUT.keys() - schemas.keys()


def test_every_body_has_an_example_that_its_schema_takes() -> None:
    for path, method, operation in operations():
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            members = DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
            assert content["example"].keys() >= set(members.get("required", ())), (method, path)


def test_each_path_with_a_name_of_the_readers_has_an_example() -> None:
    for path, method, operation in operations():
        for each in operation["parameters"]:
            if each["in"] == "path" and each["name"] != "id":
                assert each["schema"]["example"], (method, path)
    for route in ROUTES:
        if route.path.startswith("/v1/") and route.operation.example is not None:
            assert "model" in route.operation.example, route.path
