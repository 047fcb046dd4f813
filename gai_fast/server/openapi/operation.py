"""`Operation`: what the description of the API says of a route, besides what the route's record says already.

Owns the form of an operation, and the parameters and the statuses that several routes have. The sentences stand in the
route table, each in the record of its route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from gai_fast.formats import FORMATS
from gai_fast.model.events import Event
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import OnUnsupported
from gai_fast.runtime.ids import EVENT_ID
from gai_fast.server.http.head_facts import UNSUPPORTED_HEADER
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.caching import HEADER, VALUES
from gai_fast.server.requests.idempotency import TOKEN

STREAM: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"

Schema = str | type
"""The source of a body's schema: a type of msgspec, or a name in `schemas.py`."""


class Parameter(NamedTuple):
    """One parameter of a route.

    Attributes:
        name: The parameter's name.
        about: A sentence.
        schema: The parameter's schema.
        place: Where it is sent: in the path, the query or a header.
        is_required: Whether the route responds with 400 if it is missing.
    """

    name: str
    about: str
    schema: Mapping[str, Any]
    place: Literal["query", "header", "path"] = "query"
    is_required: bool = False


class Operation(NamedTuple):
    """The description of one route.

    Attributes:
        summary: A sentence.
        tag: The operation's group.
        answers: By status and media type: the schema of a JSON object or of a stream's events; empty if there is none.
        request: The schema of the body; empty if there is no body.
        parameters: The parameters in addition to the first of the path.
        errors: Error statuses in addition to those of every route.
        example: A body for readers, which the model `demo` answers.
        named: The value of the path's first parameter in an example; empty if it comes from an earlier request.
        rest: The text after the path: the handler reads it from `Incoming.tail`.
        lists_keys: Whether keys are listed for a page that asks for a key itself.
    """

    summary: str
    tag: Literal["Native", "Dialects", "Passed through", "Admin", "Server", "Pages"]
    answers: Mapping[int, Mapping[str, Schema]]
    request: Schema = ""
    parameters: Sequence[Parameter] = ()
    errors: Sequence[int] = ()
    example: Mapping[str, Any] | None = None
    named: str = ""
    rest: str = ""
    lists_keys: bool = False

    @property
    def kinds(self) -> list[type]:
        """The types of its bodies."""
        schemas = [self.request, *(schema for media in self.answers.values() for schema in media.values())]
        return [schema for schema in schemas if not isinstance(schema, str)]


TEXT: Final = {"type": "string"}
FULL_TEXT: Final = {"type": "string", "minLength": 1}
DATE: Final = {"type": "string", "format": "date"}
_TOKEN: Final = {"type": "string", "pattern": f"^{TOKEN.pattern}$", "minLength": 1, "maxLength": LIMITS.idempotency_key}
_EVENT: Final = {"type": "string", "pattern": f"^{EVENT_ID.pattern}$", "minLength": 24, "maxLength": SHARED.identifier}

FORM: Final = (
    Parameter("format", "The format of the answer.", {"enum": [*FORMATS]}),
    Parameter("framing", "The framing of a stream; it wins over `Accept`.", {"enum": ["sse", "ndjson"]}),
    Parameter("envelope", "How much of its envelope each event repeats.", {"enum": ["compact", "full"]}),
)
IDEMPOTENCY: Final = Parameter("idempotency-key", "A request with the same key is answered once.", _TOKEN, "header")
OF_REQUESTS: Final = (
    Parameter(HEADER, "Whether equal requests may share the answer.", {"enum": [*VALUES]}, "header"),
    Parameter(
        UNSUPPORTED_HEADER,
        "Whether fields that the upstream does not support are refused or left out.",
        {"enum": [*get_args(OnUnsupported)]},
        "header",
    ),
)
PLACE: Final = (
    Parameter("after", "The id of the last event that the client has.", _EVENT),
    Parameter("last-event-id", "As `after`, which it wins over.", _EVENT, "header"),
)
"""From where on a stream is sent."""

OF_STREAMS: Final = (402, 406, 409, 422, 502, 503, 504)
"""The errors of routes that ask an upstream."""
EVENTS: Final[Mapping[str, Schema]] = {STREAM: Event, NDJSON: Event}
