"""The route table: every route, in one record each.

What depends on the routes reads it: the router, aiohttp's application, the fast lane, the guards (`PATHS`), and the
description of the API. Not compiled: it runs once per process, and mypyc generates 0.7 MB of C from its lambdas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

from gai_fast.model.events import Event
from gai_fast.model.metrics import Outcome
from gai_fast.model.pass_paths import METHODS
from gai_fast.model.request import Request
from gai_fast.runtime.ids import EVENT_NUMBERS
from gai_fast.server.admin import bodies
from gai_fast.server.admin.routes import AdminRoutes
from gai_fast.server.admission.access import Access, Paths
from gai_fast.server.admission.admit import is_form
from gai_fast.server.http.replies import Reply
from gai_fast.server.openapi.operation import (
    DATE,
    EVENTS,
    FORM,
    FULL_TEXT,
    IDEMPOTENCY,
    JSON,
    NDJSON,
    OF_REQUESTS,
    OF_STREAMS,
    PLACE,
    STREAM,
    TEXT,
    Operation,
    Parameter,
    Schema,
)
from gai_fast.server.pass_through.routes import PassThroughRoutes
from gai_fast.server.requests.gates import GateName
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.requests.passage import Passage
from gai_fast.server.routes.approvals import ApprovalRoutes, Decision
from gai_fast.server.routes.operations import OperationRoutes

Handler = Callable[[Incoming], Reply | Passage | None]
"""Answers a request; returns None if a stream has started, which ends the response itself. A request that asks an
upstream is returned as a `Passage`, which passes the gates of its route first."""


Read = Literal["", "always", "unless streamed"]
"""Whether requests of a route count as reads: `admission/reads.py`."""


class SocketRoutes(Protocol):
    """The part of `websocket.WebSocketRoutes` that answers a handshake."""

    def open(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /ws/stream`."""

    def open_turns(self, incoming: Incoming) -> Reply | None:
        """Handles `GET /v1/responses`."""


class Handlers(NamedTuple):
    """The objects with the handlers."""

    streams: StreamRoutes
    operations: OperationRoutes
    sockets: SocketRoutes
    admin: AdminRoutes
    pass_through: PassThroughRoutes
    approvals: ApprovalRoutes


class Route(NamedTuple):
    """One route.

    Attributes:
        method: The HTTP method; a GET route with `whole` answers HEAD too.
        path: The path. The first parameter, `{name}`, begins a prefix route: it matches any text, and `Incoming.tail`
            is what stands there, up to the ending behind the last parameter. Words between parameters must be there.
        handler: Returns the handler.
        operation: The description of the route.
        gates: The gates of a route whose handler returns a `Passage`; `requests/gates.py` has their order.
        access: Who may ask.
        format: The name of the format of the route's requests and errors.
        whole: Whether the handler always returns a whole reply.
        action: The name of the admin's action in the audit log; empty if there is none.
        is_hot: Whether the fast lane may answer the route.
        any_body: Whether the body may have any media type, and is passed on unread.
        takes_form: Whether the body may be a form, which is passed on unread.
        reads: Whether its requests count as reads of their key; `unless streamed`: not those with `?stream=true`.
    """

    method: str
    path: str
    handler: Callable[[Handlers], Handler]
    operation: Operation
    gates: frozenset[GateName] = frozenset()
    access: Access = "key"
    format: str = "gai"
    whole: bool = True
    action: str = ""
    is_hot: bool = False
    any_body: bool = False
    takes_form: bool = False
    reads: Read = ""

    @property
    def is_prefix(self) -> bool:
        """Whether the path has a parameter."""
        return "{" in self.path

    @property
    def prefix(self) -> str:
        """The path up to its first parameter."""
        return self.path.partition("{")[0]

    @property
    def middle(self) -> str:
        """The words between its parameters, with their slashes; empty if there are none."""
        between = self.path[len(self.prefix) : len(self.path) - len(self.ending)].partition("}")[2].rpartition("{")[0]
        return "" if between == "/" else between

    @property
    def ending(self) -> str:
        """The path after its last parameter; empty without one."""
        return self.path.rpartition("}")[2] if self.is_prefix else ""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the route answers."""
        return (self.method, "HEAD") if self.method == "GET" and self.whole else (self.method,)


def _gates(*names: GateName) -> frozenset[GateName]:
    return frozenset(names)


_COUNTED: Final = _gates("early limits", "named ids", "admission")
_ALL: Final = _gates("early limits", "named ids", "idempotency", "guards", "shared answers", "admission")
_CHAINED: Final = _gates("chains")
_WITH_CHAINS: Final = "responses"
"""The dialect whose requests go on from earlier responses."""

_QUESTION: Final = {"model": "demo", "query": "Tell me a story"}
_HELLO: Final = [{"role": "user", "content": "Say hello"}]
_UI_MESSAGE: Final = {"role": "user", "parts": [{"type": "text", "text": "Say hello"}]}
_TARGET: Final = {"model": "demo", "upstream": "demo", "id": "demo"}
_ANY_BODY: Final = {JSON: "", "application/octet-stream": ""}
_PAGE: Final = {200: {"text/html": ""}, 304: {}}
_PAGE_FILES: Final = {200: {"text/javascript": "", "text/css": ""}, 304: {}}


def _dialect(
    path: str,
    format: str,
    summary: str,
    request: Schema,
    answer: str,
    example: Mapping[str, Any],
    *,
    handler: Callable[[Handlers], Handler] = lambda on: on.streams.dialect,
    errors: Sequence[int] = (),
    is_hot: bool = True,
) -> Route:
    """Returns a route that streams in the dialect of a provider."""
    operation = Operation(
        summary,
        "Dialects",
        {200: {STREAM: "", JSON: answer}},
        request,
        (IDEMPOTENCY, *OF_REQUESTS),
        (*OF_STREAMS, *errors),
        {"model": "demo", **example, "stream": True},
    )
    gates = _ALL | _CHAINED if format == _WITH_CHAINS else _ALL
    return Route("POST", path, handler, operation, gates, format=format, whole=False, is_hot=is_hot)


def _count(
    path: str, format: str, summary: str, request: Schema, example: Mapping[str, Any], *, errors: Sequence[int] = ()
) -> Route:
    """Returns a route that counts tokens."""
    operation = Operation(
        summary,
        "Dialects",
        {200: {JSON: "TokenCount"}},
        request,
        errors=(*OF_STREAMS, *errors),
        example={"model": "demo", **example},
    )
    gates = _COUNTED | _gates("guards")
    gates = gates | _CHAINED if format == _WITH_CHAINS else gates
    return Route("POST", path, lambda on: on.streams.count_tokens, operation, gates, format=format, whole=False)


def _passed(summary: str, example: Mapping[str, Any] | None = None) -> Operation:
    """Returns the description of a route that is passed through; `example` is a JSON body, if it has one."""
    if example is None:
        return Operation(summary, "Passed through", {200: _ANY_BODY}, errors=OF_STREAMS)
    body = {"model": "your-model", **example}  # what is passed through needs an upstream that has it
    return Operation(summary, "Passed through", {200: _ANY_BODY}, "PassedRequest", errors=OF_STREAMS, example=body)


def _with_model(path: str, summary: str, example: Mapping[str, Any]) -> Route:
    return Route(
        "POST",
        path,
        lambda on: on.pass_through.with_model,
        _passed(summary, example),
        _gates("early limits", "admission"),
        format="openai",
        whole=False,
        is_hot=True,
    )


def _form(path: str, summary: str) -> Route:
    return Route(
        "POST",
        path,
        lambda on: on.pass_through.form,
        _passed(summary),
        _COUNTED,
        format="openai",
        whole=False,
        takes_form=True,
    )


def _passed_through(method: str) -> Route:
    """Returns the route of the upstreams' own paths with a method."""
    summary = {
        "GET": "A path of an upstream.",
        "POST": "A path of an upstream, with a body of any type.",
        "HEAD": "The response headers of a path whose `lane` names this method.",
    }
    schema = {"type": "string", "minLength": 1, "example": "v1/models"}
    operation = Operation(
        summary.get(method, "A path of an upstream whose `lane` names this method."),
        "Passed through",
        {200: _ANY_BODY},
        parameters=(Parameter("path", "The path at the upstream, which its `lane` offers.", schema, "path", True),),
        errors=OF_STREAMS,
        named="your-upstream",
    )
    return Route(
        method,
        "/p/{upstream}/{path}",
        lambda on: on.pass_through.upstream,
        operation,
        _gates("admission"),
        whole=False,
        any_body=True,
    )


def _admin(
    method: str, path: str, handler: Callable[[Handlers], Handler], operation: Operation, action: str = ""
) -> Route:
    is_list = method == "GET" and STREAM not in operation.answers[200]
    reads: Read = "always" if is_list else ""
    return Route(method, path, handler, operation, access="admin", whole=False, action=action, reads=reads)


ROUTES: Final = (
    # -- native --
    Route(
        "POST",
        "/api/v1/stream",
        lambda on: on.streams.native,
        Operation(
            "Asks for an answer: a stream of events, or one JSON object.",
            "Native",
            {200: {**EVENTS, JSON: "Answer", "text/plain": ""}},
            Request,
            (*FORM, IDEMPOTENCY, *OF_REQUESTS),
            OF_STREAMS,
            _QUESTION,
        ),
        _ALL,
        whole=False,
        is_hot=True,
    ),
    Route(
        "GET",
        "/api/v1/stream",
        lambda on: on.streams.event_source,
        Operation(
            "Starts a stream for a browser's EventSource, or sends the rest of one.",
            "Native",
            {200: {**EVENTS, "text/plain": ""}, 204: {}},
            parameters=(
                Parameter("q", "The question.", FULL_TEXT, is_required=True),
                Parameter("model", "The model.", TEXT),
                *FORM,
                *PLACE,
                *OF_REQUESTS,
            ),
            errors=OF_STREAMS,
        ),
        _gates("guards", "shared answers", "admission"),
        whole=False,
    ),
    Route(
        "POST",
        "/api/v1/streams",
        lambda on: on.streams.start,
        Operation(
            "Starts a durable stream, which is followed later.",
            "Native",
            {202: {JSON: "Started"}},
            "StartRequest",
            (*FORM, IDEMPOTENCY, *OF_REQUESTS),
            OF_STREAMS,
            _QUESTION,
        ),
        _gates("early limits", "named ids", "idempotency", "guards", "admission"),
        whole=False,
    ),
    Route(
        "GET",
        "/api/v1/streams/{id}",
        lambda on: on.streams.durable.follow,
        Operation(
            "Sends a durable stream from any event on, or its state.",
            "Native",
            {200: {**EVENTS, JSON: "StreamState", "text/plain": ""}, 204: {}},
            parameters=(*FORM, *PLACE),
            errors=OF_STREAMS,
        ),
        whole=False,
    ),
    Route(
        "HEAD",
        "/api/v1/streams/{id}",
        lambda on: on.streams.durable.head,
        Operation(
            "The response headers of a durable stream.",
            "Native",
            {200: {}, 204: {}},
            parameters=(*FORM, *PLACE),
            errors=OF_STREAMS,
        ),
        whole=False,
    ),
    Route(
        "DELETE",
        "/api/v1/streams/{id}",
        lambda on: on.streams.durable.cancel,
        Operation(
            "Cancels a running stream; an ended one is answered with its state.",
            "Native",
            {200: {JSON: "StreamState"}, 202: {JSON: "StreamState"}},
            errors=OF_STREAMS,
        ),
        whole=False,
    ),
    Route(
        "POST",
        "/api/v1/streams/{id}/approvals/{approval}",
        lambda on: on.approvals.decide,
        Operation(
            "Decides a call of a run that waits for an approval.",
            "Native",
            {200: {JSON: "Decided"}},
            Decision,
            (Parameter("approval", "The id of the approval.", {**FULL_TEXT, "example": "gai_1-1"}, "path", True),),
            OF_STREAMS,
            example={"decision": "approve", "digest": "0" * 64},
        ),
        whole=False,
    ),
    Route(
        "POST",
        "/api/v1/chat",
        lambda on: on.streams.chat,
        Operation(
            "A stream for useChat of the AI SDK.",
            "Native",
            {200: {STREAM: "", NDJSON: "", JSON: "", "text/plain": ""}},
            "ChatRequest",
            (*FORM, *OF_REQUESTS, Parameter("ui", "The version of the UI message stream.", TEXT)),
            OF_STREAMS,
            {"id": "c1", "model": "demo", "messages": [_UI_MESSAGE]},
        ),
        _gates("early limits", "named ids", "guards", "shared answers", "admission", "chat"),
        format="vercel",
        whole=False,
    ),
    Route(
        "GET",
        "/api/v1/chat/{chat}",
        lambda on: on.streams.chats.follow,
        Operation(
            "The running stream of a chat from its beginning.",
            "Native",
            {200: {STREAM: "", NDJSON: "", "text/plain": ""}, 204: {}},
            parameters=FORM,
            errors=OF_STREAMS,
            named="c1",
            rest="/stream",
        ),
        format="vercel",
        whole=False,
    ),
    # -- dialects --
    _dialect(
        "/v1/chat/completions",
        "openai",
        "OpenAI's Chat Completions, streamed or whole.",
        "ChatCompletionRequest",
        "ChatCompletion",
        {"messages": _HELLO},
    ),
    _dialect(
        "/v1/messages",
        "anthropic",
        "Anthropic's Messages, streamed or whole.",
        "MessagesRequest",
        "AnthropicMessage",
        {"max_tokens": 100, "messages": _HELLO},
        errors=(529,),
    ),
    Route(
        "GET",
        "/ws/stream",
        lambda on: on.sockets.open,
        Operation("A WebSocket for many streams.", "Native", {101: {}}, errors=(406, 426)),
        whole=False,
    ),
    _count(
        "/v1/messages/count_tokens",
        "anthropic",
        "The number of tokens of a request to the Messages API.",
        "MessagesRequest",
        {"messages": _HELLO},
        errors=(529,),
    ),
    _dialect(
        "/v1/responses",
        "responses",
        "OpenAI's Responses, streamed, whole or in the background.",
        "ResponsesRequest",
        "Response",
        {"input": "Say hello"},
        handler=lambda on: on.streams.response,
    ),
    Route(
        "GET",
        "/v1/responses",
        lambda on: on.sockets.open_turns,
        Operation("A WebSocket for responses, one at a time.", "Dialects", {101: {}}, errors=(426,)),
        format="responses",
        whole=False,
    ),
    Route(
        "POST",
        "/v1/responses/{id}/cancel",
        lambda on: on.streams.responses.cancel,
        Operation(
            "Cancels a response in the background; one that has ended stays as it is.",
            "Dialects",
            {200: {JSON: "Response"}},
            errors=OF_STREAMS,
        ),
        format="responses",
        whole=False,
    ),
    Route(
        "GET",
        "/v1/responses/{id}/input_items",
        lambda on: on.streams.responses.input_items,
        Operation(
            "The items of a kept response's own request.",
            "Dialects",
            {200: {JSON: "InputItems"}},
            parameters=(
                Parameter("limit", "The most items.", {"type": "integer", "minimum": 1, "maximum": 100}),
                Parameter("order", "The newest or the oldest first.", {"enum": ["desc", "asc"]}),
                Parameter("after", "The id of the item before the first.", TEXT),
            ),
            errors=OF_STREAMS,
        ),
        format="responses",
        whole=False,
        reads="always",
    ),
    Route(
        "DELETE",
        "/v1/responses/{id}",
        lambda on: on.streams.responses.delete,
        Operation("Deletes a kept response.", "Dialects", {200: {JSON: "DeletedResponse"}}, errors=OF_STREAMS),
        format="responses",
        whole=False,
    ),
    Route(
        "GET",
        "/v1/responses/{id}",
        lambda on: on.streams.responses.retrieve,
        Operation(
            "A kept response, or one in the background; or its stream from any event on.",
            "Dialects",
            {200: {JSON: "Response", STREAM: ""}},
            parameters=(
                Parameter("stream", "The rest of the stream.", {"type": "boolean"}),
                Parameter(
                    "starting_after",
                    "The `sequence_number` of the last event.",
                    {"type": "integer", "minimum": 0, "maximum": EVENT_NUMBERS - 1},
                ),
            ),
            errors=OF_STREAMS,
        ),
        format="responses",
        whole=False,
        reads="unless streamed",
    ),
    _dialect(
        "/v1/completions",
        "completions",
        "OpenAI's legacy Completions, streamed or whole.",
        "CompletionRequest",
        "Completion",
        {"prompt": "Say hello"},
        is_hot=False,
    ),
    _count(
        "/v1/responses/input_tokens",
        "responses",
        "The number of tokens of a request to the Responses API.",
        "ResponsesRequest",
        {"input": "Say hello"},
    ),
    # -- passed through --
    Route(
        "POST",
        "/v1/responses/compact",
        lambda on: on.pass_through.compact,
        _passed("A conversation, compacted by its upstream.", {"input": "Say hello"}),
        _COUNTED | _CHAINED,
        format="responses",
        whole=False,
    ),
    _with_model("/v1/embeddings", "Embeddings of texts.", {"input": "A text"}),
    _with_model("/v1/moderations", "Whether texts or images may be shown.", {"input": "A text"}),
    _with_model(
        "/v1/rerank",
        "Documents in the order in which they answer a question.",
        {"query": "fruit", "documents": ["an apple", "a stone"]},
    ),
    _with_model("/v1/images/generations", "Images of a text.", {"prompt": "A lighthouse"}),
    _with_model("/v1/audio/speech", "A text as speech, streamed.", {"input": "Hello", "voice": "alloy"}),
    _form("/v1/audio/transcriptions", "Speech as text; the body is a form."),
    _form("/v1/audio/translations", "Speech as English text; the body is a form."),
    _form("/v1/images/edits", "Images, changed by a text; the body is a form, or JSON."),
    _form("/v1/images/variations", "Images that are like another; the body is a form."),
    *map(_passed_through, METHODS),
    # -- models --
    Route(
        "GET",
        "/v1/models",
        lambda on: on.operations.models,
        Operation("The models that a request may name.", "Dialects", {200: {JSON: "Models"}}),
        format="openai",
    ),
    Route(
        "GET",
        "/v1/models/{id}",
        lambda on: on.operations.model,
        Operation("One model.", "Dialects", {200: {JSON: "Model"}}, named="demo"),
        format="openai",
    ),
    # -- admin --
    _admin(
        "GET",
        "/admin/v1/streams",
        lambda on: on.admin.streams,
        Operation("The streams that run, of all workers.", "Admin", {200: {JSON: bodies.RunningStreams}}),
    ),
    _admin(
        "GET",
        "/admin/v1/requests",
        lambda on: on.admin.requests,
        Operation(
            "The newest requests that have ended, of all workers; no text of them.",
            "Admin",
            {200: {JSON: bodies.RecentRequests}},
            parameters=(
                Parameter("key", "Only those of a caller's key.", TEXT),
                Parameter("model", "Only those for a model.", TEXT),
                Parameter("outcome", "Only those with this end.", {"enum": [*get_args(Outcome)]}),
            ),
        ),
    ),
    _admin(
        "GET",
        "/admin/v1/history",
        lambda on: on.admin.history,
        Operation("The figures of the last hour, of all workers.", "Admin", {200: {JSON: bodies.History}}),
    ),
    _admin(
        "GET",
        "/admin/v1/streams/{id}",
        lambda on: on.admin.follow,
        Operation("The events of any stream from now on.", "Admin", {200: {STREAM: Event}}),
        "streams.follow",
    ),
    _admin(
        "DELETE",
        "/admin/v1/streams/{id}",
        lambda on: on.admin.cancel,
        Operation("Cancels any stream.", "Admin", {202: {JSON: "StreamState"}}),
        "streams.cancel",
    ),
    _admin(
        "GET",
        "/admin/v1/keys",
        lambda on: on.admin.keys.list_all,
        Operation("The keys and what they have spent; no secrets.", "Admin", {200: {JSON: bodies.Keys}}),
    ),
    _admin(
        "POST",
        "/admin/v1/keys",
        lambda on: on.admin.keys.create,
        Operation(
            "Makes a key in the store; the answer has its secret, this once.",
            "Admin",
            {201: {JSON: bodies.MadeKey}},
            "NewKey",
            errors=(409,),
            example={"name": "website", "requests_per_minute": 60},
        ),
        "keys.new",
    ),
    _admin(
        "POST",
        "/admin/v1/keys/{name}/rotate",
        lambda on: on.admin.keys.rotate,
        Operation(
            "Gives a key of the store another secret; the former one stays valid for `grace` seconds.",
            "Admin",
            {200: {JSON: bodies.MadeKey}},
            bodies.Rotation,
            errors=(409,),
            example={"grace": 3600},
            named="website",
        ),
        "keys.rotate",
    ),
    _admin(
        "POST",
        "/admin/v1/keys/{name}/reset",
        lambda on: on.admin.keys.reset,
        Operation(
            "Counts what a key uses of its limits from zero again. Streams under way still count.",
            "Admin",
            {200: {JSON: bodies.Key}},
            named="website",
        ),
        "keys.reset",
    ),
    _admin(
        "GET",
        "/admin/v1/keys/{name}",
        lambda on: on.admin.keys.show,
        Operation("One key and what it has spent.", "Admin", {200: {JSON: bodies.Key}}, named="website"),
    ),
    _admin(
        "PATCH",
        "/admin/v1/keys/{name}",
        lambda on: on.admin.keys.update,
        Operation(
            "Changes what a key of the store may use; null takes a value away.",
            "Admin",
            {200: {JSON: bodies.Key}},
            "KeyChange",
            errors=(409,),
            example={"requests_per_minute": 30},
            named="website",
        ),
        "keys.change",
    ),
    _admin(
        "DELETE",
        "/admin/v1/keys/{name}",
        lambda on: on.admin.keys.revoke,
        Operation(
            "Removes a key from the store, and ends its streams.",
            "Admin",
            {200: {JSON: bodies.RevokedKey}},
            errors=(409,),
            named="website",
        ),
        "keys.revoke",
    ),
    _admin(
        "GET",
        "/admin/v1/spend",
        lambda on: on.admin.spend,
        Operation(
            "The spend, as JSON or CSV.",
            "Admin",
            {200: {JSON: bodies.Spend, "text/csv": ""}},
            parameters=(
                Parameter("by", "What spend is added up by.", {"enum": ["key", "model", "upstream", "day"]}),
                Parameter("from", "The first day, in UTC.", DATE),
                Parameter("to", "The last day, in UTC.", DATE),
                Parameter("format", "The form of the answer.", {"enum": ["json", "csv"]}),
            ),
        ),
    ),
    _admin(
        "GET",
        "/admin/v1/targets",
        lambda on: on.admin.targets,
        Operation("The targets of models, of all workers.", "Admin", {200: {JSON: "Targets"}}),
    ),
    _admin(
        "POST",
        "/admin/v1/targets/drain",
        lambda on: on.admin.drain,
        Operation(
            "No stream begins at a target any more; those that run go on.",
            "Admin",
            {200: {JSON: bodies.TargetState}},
            bodies.Target,
            example=_TARGET,
        ),
        "targets.drain",
    ),
    _admin(
        "POST",
        "/admin/v1/targets/restore",
        lambda on: on.admin.restore,
        Operation("Takes a target back.", "Admin", {200: {JSON: bodies.TargetState}}, bodies.Target, example=_TARGET),
        "targets.restore",
    ),
    _admin(
        "GET",
        "/admin/v1/approvals",
        lambda on: on.approvals.list_open,
        Operation("The calls of runs that wait for an approval.", "Admin", {200: {JSON: bodies.Approvals}}),
    ),
    _admin(
        "POST",
        "/admin/v1/reload",
        lambda on: on.admin.reload_configuration,
        Operation("Reloads the configuration.", "Admin", {200: {JSON: bodies.Reloaded}}),
        "reload",
    ),
    _admin(
        "GET",
        "/admin/v1/events",
        lambda on: on.admin.events,
        Operation(
            "Samples of the figures, one a second; the answer does not end.", "Admin", {200: {STREAM: bodies.Sample}}
        ),
    ),
    # -- the server --
    Route(
        "GET",
        "/healthz",
        lambda on: on.operations.healthz,
        Operation("The process lives.", "Server", {200: {JSON: "Health"}}),
        access="open",
    ),
    Route(
        "GET",
        "/health",
        lambda on: on.operations.healthz,
        Operation("As `/healthz`.", "Server", {200: {JSON: "Health"}}),
        access="open",
    ),
    Route(
        "GET",
        "/readyz",
        lambda on: on.operations.readyz,
        Operation("The server accepts streams.", "Server", {200: {JSON: "Health"}, 503: {JSON: "NotReady"}}),
        access="open",
    ),
    Route(
        "GET",
        "/metrics",
        lambda on: on.operations.metrics,
        Operation(
            "Figures for Prometheus; with keys, an admin's is needed, unless `metrics` in `[server]` is `open`.",
            "Server",
            {200: {"text/plain": "", "application/openmetrics-text": ""}},
        ),
        access="metrics",
    ),
    Route(
        "GET",
        "/version",
        lambda on: on.operations.version,
        Operation("The release, and what it runs on.", "Server", {200: {JSON: "Version"}}),
        access="open",
    ),
    Route(
        "GET",
        "/probe",
        lambda on: on.operations.probe,
        Operation(
            "A stream of known timing, by which `gai-fast doctor` sees what proxies do to streams. `?idle=SECONDS` is "
            "the silence before its last event.",
            "Server",
            {200: {STREAM: "Probe"}},
        ),
        access="open",
        whole=False,
    ),
    Route(
        "GET",
        "/openapi.json",
        lambda on: on.operations.openapi,
        Operation("This document.", "Server", {200: {JSON: ""}, 304: {}}),
        access="open",
    ),
    # -- pages --
    Route(
        "GET",
        "/docs",
        lambda on: on.operations.docs,
        Operation("A page of this document.", "Pages", _PAGE, lists_keys=True),
        access="login",
    ),
    Route(
        "GET",
        "/docs/{file}",
        lambda on: on.operations.docs_asset,
        Operation("A file of that page.", "Pages", _PAGE_FILES, named="docs.js", lists_keys=True),
        access="login file",
    ),
    Route(
        "GET",
        "/dashboard",
        lambda on: on.operations.dashboard,
        Operation("A page of what the server does now; it asks for an admin's key if there are keys.", "Pages", _PAGE),
        access="login",
    ),
    Route(
        "GET",
        "/dashboard/{file}",
        lambda on: on.operations.dashboard_asset,
        Operation("A file of that page.", "Pages", _PAGE_FILES, named="dashboard.js"),
        access="login file",
    ),
    Route(
        "GET",
        "/client.js",
        lambda on: on.operations.client,
        Operation("gai-fast.js, the client for pages.", "Pages", {200: {"text/javascript": ""}, 304: {}}),
        access="open",
    ),
    Route(
        "GET",
        "/gai.proto",
        lambda on: on.operations.proto,
        Operation(
            "The service of `gai-fast grpc`, from which clients are made.",
            "Pages",
            {200: {"text/plain": ""}, 304: {}},
        ),
        access="open",
    ),
    Route(
        "GET",
        "/",
        lambda on: on.operations.playground,
        Operation("The playground.", "Pages", _PAGE),
        access="open",
    ),
    Route(
        "GET",
        "/playground/{file}",
        lambda on: on.operations.asset,
        Operation(
            "A file of the playground.",
            "Pages",
            {200: {"text/html": "", "text/javascript": "", "text/css": "", "image/svg+xml": ""}, 304: {}},
            named="app.js",
        ),
        access="open",
    ),
)
"""Every route. Of several routes with one prefix, the first whose ending matches the path is used. For any other path,
`SECTIONS` gives the form of the error."""

NOT_OFFERED: Final = frozenset(
    (
        *("/v1/files", "/v1/batches", "/v1/uploads", "/v1/vector_stores", "/v1/assistants", "/v1/threads"),
        *("/v1/fine_tuning/jobs", "/v1/realtime", "/v1/messages/batches", "/v1/conversations"),
    )
)
"""Paths of OpenAI's and Anthropic's APIs that the gateway does not have, and whose error says so."""

SECTIONS: Final = (("/v1/messages", "anthropic"), ("/v1/", "openai"), ("", "gai"))
"""The format of paths with these beginnings; the first match counts."""

HOT_PATHS: Final = frozenset(route.path for route in ROUTES if route.is_hot)

PATHS: Final = Paths((route.path, route.access) for route in ROUTES)
"""The access of each path."""

_FORMS: Final = frozenset(route.path for route in ROUTES if route.takes_form)
_ANY_BODY_BELOW: Final = tuple({route.prefix for route in ROUTES if route.any_body})


def is_passed_unread(path: str, headers: dict[str, str]) -> bool:
    """Returns whether the body of a request is passed on unread.

    Args:
        path: The path, without the prefix that the application is mounted under.
        headers: By lower-case name.
    """
    return (path in _FORMS and is_form(headers)) or path.startswith(_ANY_BODY_BELOW)
