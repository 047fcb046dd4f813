"""`document`: the description of the HTTP API as a JSON object.

Owns the form of the document. The caller passes the route table: this package imports no route.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec

from gai_fast.formats import Format, get_format
from gai_fast.model.errors import Error
from gai_fast.model.version import __version__
from gai_fast.server.admission.access import Access
from gai_fast.server.openapi.operation import JSON, NDJSON, STREAM, Operation, Parameter, Schema
from gai_fast.server.openapi.response_headers import HEADERS, IDS, OF_ANSWERS, OF_ERRORS, OF_STATUS
from gai_fast.server.openapi.schemas import ref, schemas

_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_KEYLESS: Final = frozenset(("open", "login", "login file"))
_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A caller's key, if the server has keys. With `x-gai-key`, or if it has none: the caller's own "
        "credential, for an upstream that takes it.",
    },
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "As `bearer`."},
    "gateway_key": {
        "type": "apiKey",
        "in": "header",
        "name": "x-gai-key",
        "description": "A caller's key, where the other headers have the caller's own credential.",
    },
}
_SECURITY_OF_OPERATORS: Final[Sequence[Mapping[str, Sequence[str]]]] = (
    {},
    {"bearer": ()},
    {"key": ()},
    {"gateway_key": ()},
)
_SECURITY: Final = (*_SECURITY_OF_OPERATORS, {"gateway_key": (), "bearer": ()}, {"gateway_key": (), "key": ()})
"""The ways to send a key, each alone or beside a credential. The first one: no key is needed."""
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
        """The path, whose parameters are in braces."""

    @property
    def prefix(self) -> str:
        """The path up to its first parameter."""

    @property
    def ending(self) -> str:
        """The path after its last parameter."""

    @property
    def operation(self) -> Operation:
        """The description."""

    @property
    def access(self) -> Access:
        """The callers that the route accepts."""

    @property
    def format(self) -> str:
        """The name of the format of the route's requests and errors."""


def document(routes: Sequence[DescribedRoute]) -> dict[str, Any]:
    """Returns the document.

    Args:
        routes: The route table.
    """
    paths: dict[str, dict[str, Any]] = {}
    errors: dict[str, Any] = {}
    for route in routes:
        path = f"{route.path}{route.operation.rest}"
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, route.operation, errors)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gai-fast",
            "version": __version__,
            "summary": "A streaming gateway for language models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "."}],
        "tags": [{"name": name} for name in dict.fromkeys(route.operation.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas(kind for route in routes for kind in route.operation.kinds),
            "responses": errors,
            "headers": {
                name: {"description": about, "schema": dict(schema)} for name, (about, schema) in HEADERS.items()
            },
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(route: DescribedRoute, operation: Operation, errors: dict[str, Any]) -> dict[str, Any]:
    named = {"example": operation.named} if operation.named else {}
    schema = {"type": "string", "minLength": 1, **named}
    first = [Parameter(name, "", schema, "path", True) for name in _PARAMETER.findall(route.path)[:1]]
    is_keyless = route.access in _KEYLESS and not operation.lists_keys
    described: dict[str, Any] = {
        "operationId": _name(route),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [_parameter(each) for each in (*first, *operation.parameters)],
        "responses": _responses(route, operation, errors),
        "security": [] if is_keyless else _SECURITY if route.access == "key" else _SECURITY_OF_OPERATORS,
    }
    if operation.request:
        example = {} if operation.example is None else {"example": operation.example}
        content = {"schema": ref(operation.request), **example}
        described["requestBody"] = {"required": True, "content": {JSON: content}}
    return described


def _name(route: DescribedRoute) -> str:
    words = f"{route.method.lower()}{route.prefix}{route.ending}".replace(".", "/").split("/")
    return "_".join(word for word in words if word) + ("_one" if "{" in route.path and not route.ending else "")


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


def _answer(status: int, media: Mapping[str, Schema], headers: Sequence[str]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": _phrase(status), **_headers(headers)}
    if media:
        described["content"] = {name: _content(name, schema) for name, schema in media.items()}
    return described


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names}}


def _content(media: str, schema: Schema) -> dict[str, Any]:
    if media == JSON:
        return {"schema": ref(schema) if schema else {}}
    if media in (STREAM, NDJSON):  # OpenAPI 3.1 cannot describe the items of a stream
        return {"x-items": ref(schema)} if schema else {}
    return {"schema": {"type": "string"}}


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Overloaded"
