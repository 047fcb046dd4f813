"""The records of requests, with which other workers go on with durable streams.

Owns their form. `takeover.py` decides which streams have one, and reads it. No record has a credential.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gai_fast.kernels import encode_json
from gai_fast.model.request import Request
from gai_fast.net.limits import LIMITS

NATIVE_VERSION: Final = 1
"""Of records of native requests."""
ROUTE_VERSION: Final = 2
"""Of records of requests in a dialect, which the release of version 1 would ask for in vain."""
RUN_VERSION: Final = 3
"""Of records of runs: the release of version 2 would continue them as plain streams."""
VERSION: Final = 4
"""Of records of runs whose answers are whole: the release of version 3 would leave their first turns out. Raise it if a
worker must not ignore a new member."""


class RouteRecord(msgspec.Struct):
    """What a request in a client's dialect asks for.

    Args:
        format: The name of its route's format.
        body: Its JSON object.
        headers: The client's headers that go to an upstream of the dialect.
        echo: As for `StreamContext`.
        marks: `ItemMark`s of its conversation.
        containers: The objects and arrays of its body, if they were counted.
        kept: How its answer is kept; as `Keeping.recorded`.
    """

    format: str
    body: msgspec.Raw
    headers: dict[str, str]
    echo: dict[str, Any] | None = None
    marks: list[tuple[int, str, bool]] = []
    containers: int = 0
    kept: KeptRecord | None = None


class KeptRecord(msgspec.Struct):
    """How an answer is kept.

    Args:
        is_kept: As in `KeptAnswer`.
        parent: As above.
        input: The request's own items, as a JSON array.
    """

    is_kept: bool
    parent: str | None
    input: msgspec.Raw


class RunRecord(msgspec.Struct):
    """What makes a request a run.

    Args:
        tools: The tools that it offers, by the names that the model sees, as the gateway has them.
        client_tools: The names of the client's tools.
        max_steps: As in `RunLimits`, like the three below.
        max_tool_calls: As above.
        parallel_tools: As above.
        asks: As above.
        seconds: Its time.
        request_key: As in `RunIdentity`.
        leaves: As in `RunLimits`.
        answered: The calls that it begins with.
        traceparent: As in `RunIdentity`.
    """

    tools: Any
    client_tools: list[str]
    max_steps: int
    max_tool_calls: int
    parallel_tools: int
    asks: bool
    seconds: float
    request_key: str
    leaves: bool = False
    answered: Any = ()
    traceparent: str = ""


class _RunPart(msgspec.Struct):
    client_tools: list[str]


class _RunOf(msgspec.Struct):
    version: int = 0
    run: _RunPart | None = None


def client_tools_of(record: bytes) -> list[str] | None:
    """Returns the names of the client's tools of a run. None if a record is of none, or is damaged.

    Args:
        record: The record; nothing else of it is read.
    """
    try:
        found = _read_run(record)
    except ValueError:
        return None
    return None if found.run is None or found.version < RUN_VERSION else found.run.client_tools


class Version(msgspec.Struct):
    """The version of a record, whatever else it has. 0 for those before there was one."""

    version: int = 0


class RequestRecord(msgspec.Struct):
    """The record of a stream's request in the store. What a later release has added to its version is ignored.

    Args:
        version: `NATIVE_VERSION`, `ROUTE_VERSION`, `RUN_VERSION` or `VERSION`.
        request: The native request. An empty object for a request in a dialect.
        dialect: As `StreamSpec` has it, like the members below.
        can_reset: As above.
        is_agent: As above.
        unsupported: As above.
        left_out: As above.
        endpoint: As above.
        transport: As above.
        home: As above.
        said: What guards have said of the request: the events behind `start`.
        own: The caller's own words, by the placeholders that the request has in place of them.
        reserved: The spend that its key had to have left, and what was reserved.
        is_stored_key: Whether its key is one of the store.
        session: The session that its client has named. Providers get the name.
        is_large: As of `StreamSpec`.
        span: `Trace.context` of its request. Empty if it is not traced.
        route: The request in its dialect. None for a native one.
        run: What makes it a run. None if it is none.
    """

    version: int
    request: msgspec.Raw
    dialect: str
    can_reset: bool
    is_agent: bool
    unsupported: Any
    left_out: list[str]
    endpoint: str
    transport: str
    home: str
    said: list[Any] = []
    own: dict[str, str] = {}
    reserved: tuple[int, int] = (0, 0)
    is_stored_key: bool = False
    session: tuple[str, str] | None = None
    is_large: bool = False
    span: str = ""
    route: RouteRecord | None = None
    run: RunRecord | None = None


NO_REQUEST: Final = msgspec.Raw(b"{}")
encode: Final = msgspec.json.Encoder().encode
decode: Final = msgspec.json.Decoder(RequestRecord).decode
version_of: Final = msgspec.json.Decoder(Version).decode
_read_run: Final = msgspec.json.Decoder(_RunOf).decode


def has_secret(request: Request | Mapping[str, Any]) -> bool:
    """Returns whether what a client wrote for its provider alone may have a credential, or is long.

    Args:
        request: A native request, or a body in a dialect.
    """
    given = _of_native(request) if isinstance(request, Request) else _of_body(request)
    text = encode_json(given) if given else b""
    if len(text) > LIMITS.takeover_options:
        return True
    return _SECRET.search(text) is not None or _SECRET_IN_URL.search(text) is not None


def _of_native(request: Request) -> list[Any]:
    options = [getattr(tool, "options", None) for tool in request.tools]
    return [each for each in (request.extra, request.provider_options, *options) if each]


def _of_body(body: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = [{name: value for name, value in body.items() if name not in _TEXTS}]
    items = body.get("input")
    declaring = [body, *(items if isinstance(items, list) else ())]  # an item of a conversation may declare tools
    for each in declaring:
        tools = each.get("tools") if isinstance(each, dict) else None
        given = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        found += [{name: value for name, value in tool.items() if name not in _DECLARED} for tool in given]
    return found


_TEXTS: Final = frozenset(
    ("messages", "input", "system", "instructions", "prompt", "tools", "functions", "response_format", "text")
)
"""The members of requests that have the conversation, tools and schemas."""
_DECLARED: Final = frozenset(("name", "description", "parameters", "input_schema", "function", "format"))
"""The members of tools that models read."""
_SECRET: Final = re.compile(
    rb'"[^"]*(?:(?:api|access|private|subscription)[_-]?key|(?<=["_-])auth|authorization|bearer|cookies?|token(?!s)|secret'
    rb'|password|credentials?|headers)"\s*:',
    re.IGNORECASE,
)
"""A member of JSON whose name says that its value is a credential."""
_SECRET_IN_URL: Final = re.compile(
    rb'://[^"/]*@|[?&](?=[\w.-]{1,60}=)[\w.-]*(?:key|auth|token|secret|sig|signature|password|code)=', re.IGNORECASE
)
"""A URL with a user, or with a parameter of such a name."""
