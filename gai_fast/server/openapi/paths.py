"""The parts of the API's description that the route table lacks: each route's sentence, parameters and bodies.

Owns the sentences. `document.py` refuses a route that is in only one of the two tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from gai_fast.formats import FORMATS
from gai_fast.model.limits import SHARED
from gai_fast.model.metrics import Outcome
from gai_fast.model.settings import OnUnsupported
from gai_fast.runtime.ids import EVENT_ID, EVENT_NUMBERS
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.caching import HEADER, VALUES
from gai_fast.server.requests.idempotency import TOKEN
from gai_fast.server.requests.specs import UNSUPPORTED_HEADER

STREAM: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
JSON: Final = "application/json"


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
    """One method of one path.

    Attributes:
        summary: A sentence.
        tag: The operation's group.
        answers: By status and media type: the name of the schema of a JSON object or of a stream's events; empty if
            there is none.
        request: The name of the schema of the body; empty if there is no body.
        parameters: The parameters in addition to the path's.
        errors: Error statuses in addition to those of every route.
        id: The name of the path's parameter, if it has one.
        needs: The key that it needs or accepts: any key, an admin's, or none.
    """

    summary: str
    tag: str
    answers: Mapping[int, Mapping[str, str]]
    request: str = ""
    parameters: Sequence[Parameter] = ()
    errors: Sequence[int] = ()
    id: str = ""
    needs: Literal["", "key", "admin"] = "key"


_TEXT: Final = {"type": "string"}
_FULL_TEXT: Final = {"type": "string", "minLength": 1}
_PATH: Final = {"type": "string", "minLength": 1, "example": "v1/models"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_AMOUNT: Final = {"type": "string", "pattern": "^[0-9.]+$"}
_FORM: Final = (
    Parameter("format", "The format of the answer.", {"enum": [*FORMATS]}),
    Parameter("framing", "The framing of a stream; it wins over `Accept`.", {"enum": ["sse", "ndjson"]}),
    Parameter("envelope", "How much of its envelope each event repeats.", {"enum": ["compact", "full"]}),
)
_KEY: Final = {"type": "string", "pattern": f"^{TOKEN.pattern}$", "minLength": 1, "maxLength": LIMITS.idempotency_key}
_IDEMPOTENCY: Final = Parameter("idempotency-key", "A request with the same key is answered once.", _KEY, "header")
_CACHE: Final = Parameter(HEADER, "Whether equal requests may share the answer.", {"enum": [*VALUES]}, "header")
_UNSUPPORTED: Final = Parameter(
    UNSUPPORTED_HEADER,
    "Whether fields that the upstream does not support are refused or left out.",
    {"enum": [*get_args(OnUnsupported)]},
    "header",
)
_OF_REQUESTS: Final = (_CACHE, _UNSUPPORTED)
_EVENT: Final = {"type": "string", "pattern": f"^{EVENT_ID.pattern}$", "minLength": 24, "maxLength": SHARED.identifier}
_SEQUENCE_NUMBER: Final = {"type": "integer", "minimum": 0, "maximum": EVENT_NUMBERS - 1}
_AFTER: Final = Parameter("after", "The id of the last event that the client has.", _EVENT)
_LAST: Final = Parameter("last-event-id", "As `after`, which it wins over.", _EVENT, "header")
_BY: Final = Parameter("by", "What spend is added up by.", {"enum": ["key", "model", "upstream", "day"]})
_DATE: Final = {"type": "string", "format": "date"}

_OF_STREAMS: Final = (402, 406, 409, 422, 502, 503, 504)
_EVENTS: Final = {STREAM: "Event", NDJSON: "Event"}
_ANY: Final = {STREAM: "", NDJSON: "", "text/plain": "", JSON: ""}


def _dialect(summary: str, request: str, answer: str, *more: Parameter, errors: Sequence[int] = ()) -> Operation:
    answers = {200: {STREAM: "", JSON: answer}}
    return Operation(
        summary, "Dialects", answers, request, (_IDEMPOTENCY, *_OF_REQUESTS, *more), (*_OF_STREAMS, *errors)
    )


_ANY_BODY: Final = {JSON: "", "application/octet-stream": ""}


def _passed(summary: str, request: str = "") -> Operation:
    """Returns the description of a JSON route that is passed through."""
    return Operation(summary, "Passed through", {200: _ANY_BODY}, request, (), _OF_STREAMS)


def _path(summary: str) -> Operation:
    """Returns the description of a method of the upstreams' own paths."""
    path = Parameter("path", "The path at the upstream, which its `lane` offers.", _PATH, "path", True)
    return Operation(summary, "Passed through", {200: _ANY_BODY}, "", (path,), _OF_STREAMS, "upstream")


IDS: Final = ("x-request-id", "request-id")
"""The headers of every response."""
RATES: Final = (
    *("ratelimit", "ratelimit-policy"),
    *("x-gai-spend-limit", "x-gai-spend-remaining", "x-gai-spend-reset"),
)
"""The headers of responses to a key with limits, refused or not. The `x-ratelimit-…` headers of dialects are not
described."""
OF_ANSWERS: Final = (
    *("x-gai-stream-id", "x-gai-model", "x-gai-upstream", "x-gai-fallback", "x-gai-dropped", "x-gai-adjusted"),
    *("x-gai-cache", "x-gai-cost", "x-gai-usage-source", "idempotent-replayed"),
    *RATES,
)
"""The headers of models' answers."""
OF_ERRORS: Final = ("x-should-retry", "retry-after", "retry-after-ms", *RATES)
OF_STATUS: Final[Mapping[int, Sequence[str]]] = {401: ("www-authenticate",), 405: ("allow",)}
HEADERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "x-request-id": ("The request's own id, or a new one.", _FULL_TEXT),
    "request-id": ("The request's id, as in `x-request-id`.", _FULL_TEXT),
    "x-gai-stream-id": ("The stream's id.", _FULL_TEXT),
    "x-gai-model": ("The model that answers, if it is known in time.", _FULL_TEXT),
    "x-gai-upstream": ("The upstream that answers, if it is known in time.", _FULL_TEXT),
    "x-gai-fallback": ("A fallback answers, not the model that was asked.", {"enum": ["true"]}),
    "x-gai-dropped": ("The members of the request that the upstream did not get.", _FULL_TEXT),
    "x-gai-adjusted": ("The members that the upstream got in another form.", _FULL_TEXT),
    "x-gai-cache": ("Whether the answer is shared: kept, joined or new.", {"enum": ["hit", "joined", "miss"]}),
    "x-gai-cost": ("What a whole answer has cost.", _AMOUNT),
    "x-gai-usage-source": ("The source of a count of tokens that is not the upstream's.", _FULL_TEXT),
    "idempotent-replayed": ("The answer is that of an earlier request with the same key.", {"enum": ["true"]}),
    "ratelimit": ("What is left of the limits of a key.", _FULL_TEXT),
    "ratelimit-policy": ("The limits of a key.", _FULL_TEXT),
    "x-gai-spend-limit": ("The limit of spend of a key.", _AMOUNT),
    "x-gai-spend-remaining": ("The amount of that limit that is neither spent nor reserved.", _AMOUNT),
    "x-gai-spend-reset": ("Seconds until the next period begins.", _COUNT),
    "x-should-retry": ("Whether the same request may succeed later.", {"enum": ["true", "false"]}),
    "retry-after": ("Seconds after which to send the request again.", _COUNT),
    "retry-after-ms": ("Milliseconds after which to send the request again.", _COUNT),
    "www-authenticate": ("How a key is sent.", {"enum": ["Bearer"]}),
    "allow": ("The methods of the route.", _FULL_TEXT),
}
"""Headers of responses, each with a sentence and its schema: ours, and HTTP's own headers that direct a client's next
request."""


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/api/v1/stream"): Operation(
        "Asks for an answer: a stream of events, or one JSON object.",
        "Native",
        {200: {**_EVENTS, JSON: "Answer", "text/plain": ""}},
        "Request",
        (*_FORM, _IDEMPOTENCY, *_OF_REQUESTS),
        _OF_STREAMS,
    ),
    ("GET", "/api/v1/stream"): Operation(
        "Starts a stream for a browser's EventSource, or sends the rest of one.",
        "Native",
        {200: {**_EVENTS, "text/plain": ""}, 204: {}},
        "",
        (
            Parameter("q", "The question.", _FULL_TEXT, is_required=True),
            Parameter("model", "The model.", _TEXT),
            *_FORM,
            _AFTER,
            _LAST,
            *_OF_REQUESTS,
        ),
        _OF_STREAMS,
    ),
    ("POST", "/api/v1/streams"): Operation(
        "Starts a durable stream, which is followed later.",
        "Native",
        {202: {JSON: "Started"}},
        "StartRequest",
        (*_FORM, _IDEMPOTENCY, *_OF_REQUESTS),
        _OF_STREAMS,
    ),
    ("GET", "/api/v1/streams/"): Operation(
        "Sends a durable stream from any event on, or its state.",
        "Native",
        {200: {**_EVENTS, JSON: "StreamState", "text/plain": ""}, 204: {}},
        "",
        (*_FORM, _AFTER, _LAST),
        _OF_STREAMS,
        "id",
    ),
    ("HEAD", "/api/v1/streams/"): Operation(
        "The response headers of a durable stream.",
        "Native",
        {200: {}, 204: {}},
        "",
        (*_FORM, _AFTER, _LAST),
        _OF_STREAMS,
        "id",
    ),
    ("DELETE", "/api/v1/streams/"): Operation(
        "Cancels a running stream; an ended one is answered with its state.",
        "Native",
        {200: {JSON: "StreamState"}, 202: {JSON: "StreamState"}},
        "",
        (),
        _OF_STREAMS,
        "id",
    ),
    ("POST", "/api/v1/chat"): Operation(
        "A stream for useChat of the AI SDK.",
        "Native",
        {200: {STREAM: "", NDJSON: "", JSON: "", "text/plain": ""}},
        "ChatRequest",
        (*_FORM, *_OF_REQUESTS, Parameter("ui", "The version of the UI message stream.", _TEXT)),
        _OF_STREAMS,
    ),
    ("GET", "/api/v1/chat/"): Operation(
        "The running stream of a chat from its beginning.",
        "Native",
        {200: {STREAM: "", NDJSON: "", "text/plain": ""}, 204: {}},
        "",
        _FORM,
        _OF_STREAMS,
        "chat",
    ),
    ("POST", "/v1/chat/completions"): _dialect(
        "OpenAI's Chat Completions, streamed or whole.", "ChatCompletionRequest", "ChatCompletion"
    ),
    ("POST", "/v1/completions"): _dialect(
        "OpenAI's legacy Completions, streamed or whole.", "CompletionRequest", "Completion"
    ),
    ("POST", "/v1/responses"): _dialect(
        "OpenAI's Responses, streamed, whole or in the background.", "ResponsesRequest", "Response"
    ),
    ("GET", "/v1/responses/"): Operation(
        "A response in the background, or its stream from any event on.",
        "Dialects",
        {200: {JSON: "Response", STREAM: ""}},
        "",
        (
            Parameter("stream", "The rest of the stream.", {"type": "boolean"}),
            Parameter("starting_after", "The `sequence_number` of the last event.", _SEQUENCE_NUMBER),
        ),
        _OF_STREAMS,
        "id",
    ),
    ("POST", "/v1/responses/cancel"): Operation(
        "Cancels a response in the background.",
        "Dialects",
        {200: {JSON: "Response"}},
        "",
        (),
        _OF_STREAMS,
        "id",
    ),
    ("POST", "/v1/messages"): _dialect(
        "Anthropic's Messages, streamed or whole.", "MessagesRequest", "AnthropicMessage", errors=(529,)
    ),
    ("POST", "/v1/messages/count_tokens"): Operation(
        "The number of tokens of a request to the Messages API.",
        "Dialects",
        {200: {JSON: "TokenCount"}},
        "MessagesRequest",
        (),
        (*_OF_STREAMS, 529),
    ),
    ("POST", "/v1/responses/input_tokens"): Operation(
        "The number of tokens of a request to the Responses API.",
        "Dialects",
        {200: {JSON: "TokenCount"}},
        "ResponsesRequest",
        (),
        _OF_STREAMS,
    ),
    ("POST", "/v1/responses/compact"): _passed("A conversation, compacted by its upstream.", "PassedRequest"),
    ("POST", "/v1/embeddings"): _passed("Embeddings of texts.", "PassedRequest"),
    ("POST", "/v1/moderations"): _passed("Whether texts or images may be shown.", "PassedRequest"),
    ("POST", "/v1/rerank"): _passed("Documents in the order in which they answer a question.", "PassedRequest"),
    ("POST", "/v1/images/generations"): _passed("Images of a text.", "PassedRequest"),
    ("POST", "/v1/audio/speech"): _passed("A text as speech, streamed.", "PassedRequest"),
    ("POST", "/v1/audio/transcriptions"): _passed("Speech as text; the body is a form."),
    ("POST", "/v1/audio/translations"): _passed("Speech as English text; the body is a form."),
    ("POST", "/v1/images/edits"): _passed("Images, changed by a text; the body is a form, or JSON."),
    ("POST", "/v1/images/variations"): _passed("Images that are like another; the body is a form."),
    ("GET", "/p/"): _path("A path of an upstream."),
    ("POST", "/p/"): _path("A path of an upstream, with a body of any type."),
    ("PUT", "/p/"): _path("A path of an upstream whose `lane` names this method."),
    ("PATCH", "/p/"): _path("A path of an upstream whose `lane` names this method."),
    ("DELETE", "/p/"): _path("A path of an upstream whose `lane` names this method."),
    ("HEAD", "/p/"): _path("The response headers of a path whose `lane` names this method."),
    ("GET", "/ws/stream"): Operation("A WebSocket for many streams.", "Native", {101: {}}, "", (), (406, 426)),
    ("GET", "/v1/models"): Operation("The models that a request may name.", "Dialects", {200: {JSON: "Models"}}),
    ("GET", "/v1/models/"): Operation("One model.", "Dialects", {200: {JSON: "Model"}}, id="id"),
    ("GET", "/admin/v1/streams"): Operation(
        "The streams that run, of all workers.", "Admin", {200: {JSON: "RunningStreams"}}, needs="admin"
    ),
    ("GET", "/admin/v1/requests"): Operation(
        "The newest requests that have ended, of all workers; no text of them.",
        "Admin",
        {200: {JSON: "RecentRequests"}},
        "",
        (
            Parameter("key", "Only those of a caller's key.", _TEXT),
            Parameter("model", "Only those for a model.", _TEXT),
            Parameter("outcome", "Only those with this end.", {"enum": [*get_args(Outcome)]}),
        ),
        needs="admin",
    ),
    ("GET", "/admin/v1/history"): Operation(
        "The figures of the last hour, of all workers.", "Admin", {200: {JSON: "History"}}, needs="admin"
    ),
    ("GET", "/admin/v1/streams/"): Operation(
        "The events of any stream from now on.",
        "Admin",
        {200: {STREAM: "Event"}},
        id="id",
        needs="admin",
    ),
    ("DELETE", "/admin/v1/streams/"): Operation(
        "Cancels any stream.", "Admin", {202: {JSON: "StreamState"}}, id="id", needs="admin"
    ),
    ("GET", "/admin/v1/keys"): Operation(
        "The keys and what they have spent; no secrets.", "Admin", {200: {JSON: "Keys"}}, needs="admin"
    ),
    ("POST", "/admin/v1/keys"): Operation(
        "Makes a key in the store; the answer has its secret, this once.",
        "Admin",
        {201: {JSON: "MadeKey"}},
        "NewKey",
        errors=(409,),
        needs="admin",
    ),
    ("GET", "/admin/v1/keys/"): Operation(
        "One key and what it has spent.", "Admin", {200: {JSON: "Key"}}, id="name", needs="admin"
    ),
    ("PATCH", "/admin/v1/keys/"): Operation(
        "Changes what a key of the store may use; null takes a value away.",
        "Admin",
        {200: {JSON: "Key"}},
        "KeyChange",
        errors=(409,),
        id="name",
        needs="admin",
    ),
    ("DELETE", "/admin/v1/keys/"): Operation(
        "Removes a key from the store, and ends its streams.",
        "Admin",
        {200: {JSON: "RevokedKey"}},
        errors=(409,),
        id="name",
        needs="admin",
    ),
    ("POST", "/admin/v1/keys/rotate"): Operation(
        "Gives a key of the store another secret; the former one stays valid for `grace` seconds.",
        "Admin",
        {200: {JSON: "MadeKey"}},
        "Rotation",
        errors=(409,),
        id="name",
        needs="admin",
    ),
    ("POST", "/admin/v1/keys/reset"): Operation(
        "Counts what a key uses of its limits from zero again. Streams under way still count.",
        "Admin",
        {200: {JSON: "Key"}},
        id="name",
        needs="admin",
    ),
    ("GET", "/admin/v1/spend"): Operation(
        "The spend, as JSON or CSV.",
        "Admin",
        {200: {JSON: "Spend", "text/csv": ""}},
        "",
        (
            _BY,
            Parameter("from", "The first day, in UTC.", _DATE),
            Parameter("to", "The last day, in UTC.", _DATE),
            Parameter("format", "The form of the answer.", {"enum": ["json", "csv"]}),
        ),
        needs="admin",
    ),
    ("GET", "/admin/v1/targets"): Operation(
        "The targets of models, of all workers.", "Admin", {200: {JSON: "Targets"}}, needs="admin"
    ),
    ("POST", "/admin/v1/targets/drain"): Operation(
        "No stream begins at a target any more; those that run go on.",
        "Admin",
        {200: {JSON: "TargetState"}},
        "Target",
        needs="admin",
    ),
    ("POST", "/admin/v1/targets/restore"): Operation(
        "Takes a target back.", "Admin", {200: {JSON: "TargetState"}}, "Target", needs="admin"
    ),
    ("POST", "/admin/v1/reload"): Operation(
        "Reloads the configuration.", "Admin", {200: {JSON: "Reloaded"}}, needs="admin"
    ),
    ("GET", "/admin/v1/events"): Operation(
        "Samples of the figures, one a second; the answer does not end.",
        "Admin",
        {200: {STREAM: "Sample"}},
        needs="admin",
    ),
    ("GET", "/healthz"): Operation("The process lives.", "Server", {200: {JSON: "Health"}}, needs=""),
    ("GET", "/health"): Operation("As `/healthz`.", "Server", {200: {JSON: "Health"}}, needs=""),
    ("GET", "/readyz"): Operation(
        "The server accepts streams.", "Server", {200: {JSON: "Health"}, 503: {JSON: "NotReady"}}, needs=""
    ),
    ("GET", "/metrics"): Operation(
        "Figures for Prometheus; with keys, an admin's is needed, unless `metrics` in `[server]` is `open`.",
        "Server",
        {200: {"text/plain": "", "application/openmetrics-text": ""}},
        needs="admin",
    ),
    ("GET", "/version"): Operation("The release, and what it runs on.", "Server", {200: {JSON: "Version"}}, needs=""),
    ("GET", "/probe"): Operation(
        "A stream of known timing, by which `gai-fast doctor` sees what proxies do to streams. `?idle=SECONDS` is the "
        "silence before its last event.",
        "Server",
        {200: {STREAM: "Probe"}},
        needs="",
    ),
    ("GET", "/openapi.json"): Operation("This document.", "Server", {200: {JSON: ""}, 304: {}}, needs=""),
    ("GET", "/docs"): Operation("A page of this document.", "Pages", {200: {"text/html": ""}, 304: {}}, needs="admin"),
    ("GET", "/docs/"): Operation(
        "A file of that page.",
        "Pages",
        {200: {"text/javascript": "", "text/css": ""}, 304: {}},
        id="file",
        needs="admin",
    ),
    ("GET", "/dashboard"): Operation(
        "A page of what the server does now; it asks for an admin's key if there are keys.",
        "Pages",
        {200: {"text/html": ""}, 304: {}},
        needs="",
    ),
    ("GET", "/dashboard/"): Operation(
        "A file of that page.",
        "Pages",
        {200: {"text/javascript": "", "text/css": ""}, 304: {}},
        id="file",
        needs="",
    ),
    ("GET", "/client.js"): Operation(
        "gai-fast.js, the client for pages.", "Pages", {200: {"text/javascript": ""}, 304: {}}, needs=""
    ),
    ("GET", "/gai.proto"): Operation(
        "The service of `gai-fast grpc`, from which clients are made.",
        "Pages",
        {200: {"text/plain": ""}, 304: {}},
        needs="",
    ),
    ("GET", "/"): Operation("The playground.", "Pages", {200: {"text/html": ""}, 304: {}}, needs=""),
    ("GET", "/playground/"): Operation(
        "A file of the playground.",
        "Pages",
        {200: {"text/html": "", "text/javascript": "", "text/css": "", "image/svg+xml": ""}, 304: {}},
        id="file",
        needs="",
    ),
}
