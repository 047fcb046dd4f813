"""`document`: the description of the HTTP API as a JSON object.

Owns the form of the document. The caller passes the route table: this package imports no route. Raises if a route has
no description, or a description has no route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec

from gai_fast.formats import Format, get_format
from gai_fast.model.errors import Error
from gai_fast.model.version import __version__
from gai_fast.server.openapi.descriptions import EXAMPLES, NAMED
from gai_fast.server.openapi.paths import (
    HEADERS,
    IDS,
    JSON,
    NDJSON,
    OF_ANSWERS,
    OF_ERRORS,
    OF_STATUS,
    OPERATIONS,
    STREAM,
    Operation,
    Parameter,
)
from gai_fast.server.openapi.schemas import ref, schemas

_OF_EVERY_ROUTE: Final = (400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 429, 431, 500, 503, 505)


class DescribedRoute(Protocol):
    """The part of `routes.Route` that the document describes.

    The route table refers to every handler, and one handler sends the document: importing the table would be a cycle.
    """

    @property
    def method(self) -> str:
        """The HTTP method."""

    @property
    def path(self) -> str:
        """The path, or the prefix."""

    @property
    def is_prefix(self) -> bool:
        """Whether the path is a prefix."""

    @property
    def ending(self) -> str:
        """The end of the paths under a prefix."""

    @property
    def format(self) -> str:
        """The name of the format of the route's requests and errors."""


def document(routes: Sequence[DescribedRoute]) -> dict[str, Any]:
    """Returns the document.

    Args:
        routes: The route table.

    Raises:
        ValueError: The table and the descriptions differ.
    """
    table = {place_of(route): route for route in routes}
    if table.keys() != OPERATIONS.keys():
        raise ValueError(f"described or routed only: {sorted(table.keys() ^ OPERATIONS.keys())}")
    paths: dict[str, dict[str, Any]] = {}
    errors: dict[str, Any] = {}
    for place, route in table.items():
        operation = OPERATIONS[place]
        path = _path(route, operation)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, operation, errors)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gai-fast",
            "version": __version__,
            "summary": "A streaming gateway for language models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],
        "tags": [{"name": name} for name in dict.fromkeys(each.tag for each in OPERATIONS.values())],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": errors,
            "headers": {
                name: {"description": about, "schema": dict(schema)} for name, (about, schema) in HEADERS.items()
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A caller's key, if the server has keys.",
                },
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same."},
            },
        },
    }


def place_of(route: DescribedRoute) -> tuple[str, str]:
    """Returns the key of a route in the descriptions: its method, and its path without the parameter in it."""
    return route.method, route.path + route.ending.removeprefix("/")


def _path(route: DescribedRoute, operation: Operation) -> str:
    if not route.is_prefix:
        return route.path
    if route.path == "/p/":
        return "/p/{upstream}/{path}"
    if route.path == "/api/v1/chat/":
        return f"{route.path}{{{operation.id}}}/stream"
    return f"{route.path}{{{operation.id}}}{route.ending}"


def _operation(route: DescribedRoute, operation: Operation, errors: dict[str, Any]) -> dict[str, Any]:
    named = {"example": NAMED[route.path]} if route.path in NAMED else {}
    schema = {"type": "string", "minLength": 1, **named}
    ids = [Parameter(operation.id, "", schema, "path", True)] if operation.id else []
    described: dict[str, Any] = {
        "operationId": _name(route),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [_parameter(each) for each in (*ids, *operation.parameters)],
        "responses": _responses(route, operation, errors),
        "security": [{}, {"bearer": []}, {"key": []}] if operation.needs else [],
    }
    if operation.request:
        example = EXAMPLES.get(place_of(route))
        content = {"schema": ref(operation.request), **({} if example is None else {"example": example})}
        described["requestBody"] = {"required": True, "content": {JSON: content}}
    return described


def _name(route: DescribedRoute) -> str:
    words = f"{route.method.lower()}{route.path}{route.ending}".replace(".", "/").split("/")
    return "_".join(word for word in words if word) + ("_one" if route.is_prefix and not route.ending else "")


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described = {"name": parameter.name, "in": parameter.place, "required": parameter.is_required}
    about = {"description": parameter.about} if parameter.about else {}
    return {**described, **about, "schema": dict(parameter.schema)}


def _responses(route: DescribedRoute, operation: Operation, errors: dict[str, Any]) -> dict[str, Any]:
    """Returns the responses of a route. Error responses are references into `errors`, which has each error once."""
    responses: dict[str, Any] = {}
    kind = "" if route.method == "HEAD" else _error_of(get_format(route.format))
    for status in {*_OF_EVERY_ROUTE, *operation.errors}:
        name = f"{kind or 'Bodiless'}{status}"
        content = {"content": {JSON: {"schema": ref(kind)}}} if kind else {}
        headers = _headers((*IDS, *OF_ERRORS, *OF_STATUS.get(status, ())))
        errors[name] = {"description": _phrase(status), **headers, **content}
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    is_of_models = operation.tag in ("Native", "Dialects", "Passed through")
    for status, media in operation.answers.items():
        responses[str(status)] = _answer(status, media, (*IDS, *OF_ANSWERS) if is_of_models else IDS)
    return dict(sorted(responses.items()))


def _error_of(format: Format) -> str:
    """Returns the name of the schema of a format's errors, chosen by their members."""
    body = msgspec.json.decode(format.error_body(Error("internal"), ""))
    return "AnthropicError" if "type" in body else "OpenAIError" if "param" in body["error"] else "Error"


def _answer(status: int, media: Mapping[str, str], headers: Sequence[str]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": _phrase(status), **_headers(headers)}
    if media:
        described["content"] = {name: _content(name, schema) for name, schema in media.items()}
    return described


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names}}


def _content(media: str, schema: str) -> dict[str, Any]:
    if media == JSON:
        return {"schema": ref(schema) if schema else {}}
    if media in (STREAM, NDJSON):  # OpenAPI 3.1 cannot describe the items of a stream
        return {"x-items": ref(schema)} if schema else {}
    return {"schema": {"type": "string"}}


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Overloaded"
