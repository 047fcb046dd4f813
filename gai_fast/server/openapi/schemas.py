"""The schemas of the API: bodies of requests and responses.

Owns nothing that another module defines: requests are `gai_fast.model.request.Request`, events
`gai_fast.model.events.Event`, a complete answer `gai_fast.core.result.Result`, and the members of other dialects'
requests are those that their readers know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final, get_args, get_type_hints

import msgspec

from gai_fast.config.keys import KEY, KEY_DEFAULTS
from gai_fast.config.stored_keys import ROLES, STORED
from gai_fast.core.result import Result
from gai_fast.formats.chat import completions_request
from gai_fast.formats.chat import request as chat_request
from gai_fast.formats.messages import request as messages_request
from gai_fast.formats.responses import request as responses_request
from gai_fast.model.errors import CLASSES, Phase
from gai_fast.model.events import FINISH_REASONS, TYPES, Event
from gai_fast.model.limits import SHARED
from gai_fast.model.request import Request
from gai_fast.model.settings import ANONYMOUS, COUNTED_LIMITS, LIMITS_OF_KEY
from gai_fast.server.admin import bodies
from gai_fast.server.admin.bodies import Key, KeySpendLimit, MadeKey, TargetState
from gai_fast.server.limits import LIMITS
from gai_fast.server.openapi.descriptions import ABOUT
from gai_fast.server.requests.idempotency import PRINTABLE

Schema = dict[str, Any]

_TEMPLATE: Final = "#/components/schemas/{name}"
_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_OBJECT: Final[Schema] = {"type": "object"}


def ref(schema: str | type) -> Schema:
    """Returns a reference to a schema.

    Args:
        schema: One of `schemas()`: its name, or its type.
    """
    return {"$ref": _TEMPLATE.format(name=schema if isinstance(schema, str) else schema.__name__)}


def schemas(of_routes: Iterable[type] = ()) -> dict[str, Schema]:
    """Returns all schemas by their names.

    Args:
        of_routes: The types of bodies that routes name.
    """
    kinds = list(dict.fromkeys((Request, Event, Key, MadeKey, TargetState, *of_routes)))
    named, parts = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    assert named == tuple(ref(kind) for kind in kinds)
    _complete(parts["Request"], parts["ImagePart"])
    parts["Tool"]["anyOf"] = [
        {"required": ["name"]},
        {"required": ["type"], "properties": {"type": {"enum": ["web_search", "code_execution"]}}},
    ]
    del parts["Event"]["properties"]["metrics"]  # only callbacks of the library get them
    parts["Event"]["properties"]["type"] = {"enum": sorted(TYPES)}
    parts["Event"]["properties"]["finish_reason"] = {"enum": sorted(FINISH_REASONS)}
    counted = dict.fromkeys((each.name for each in COUNTED_LIMITS), _or_null(_COUNT))
    for key in parts["Key"], parts["MadeKey"]:
        key["properties"]["limits"] = _record({**counted, "spend": _or_null(ref(KeySpendLimit))})
    properties = {**parts["Request"]["properties"], "stream": {"const": True, "default": True}}
    parts["StartRequest"] = {**parts["Request"], "title": "StartRequest", "properties": properties}
    whole = {**parts, **_errors(), **_dialects(), **_answers(), **_of_key_requests()}
    return {name: _described(name, schema) for name, schema in whole.items()}


def _described(name: str, schema: Schema) -> Schema:
    """Returns a schema with its public sentence. Only the docstrings of `bodies` are for readers of the API."""
    if name in vars(bodies):
        return schema
    bare = {key: value for key, value in schema.items() if key != "description"}
    return {"description": ABOUT[name], **bare} if name in ABOUT else bare


def _complete(request: Schema, image: Schema) -> None:
    """Adds rules that the types cannot express: those of `reading.parse_request` and of the idempotency key."""
    has_messages = {"required": ["messages"], "properties": {"messages": {"minItems": 1}}}
    request["anyOf"] = [{"required": ["query"]}, has_messages]
    request["properties"]["idempotency_key"] = {
        "type": "string",
        "pattern": f"^{PRINTABLE.pattern}$",
        "minLength": 1,
        "maxLength": LIMITS.idempotency_key,
    }
    image["oneOf"] = [{"required": ["url"]}, {"required": ["data"]}]


def _record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, *, more: bool = True) -> Schema:
    """Returns the schema of an object with these members, and with `more` (other dialects' answers) any others."""
    schema: Schema = {"type": "object", "required": [*required], "properties": {**required, **(optional or {})}}
    return schema if more else {**schema, "additionalProperties": False}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _errors() -> dict[str, Schema]:
    error = _record(
        {"code": {"enum": [*CLASSES]}, "message": _TEXT, "temporary": {"type": "boolean"}, "request_id": _TEXT},
        {
            "retry_after_ms": _COUNT,
            "phase": {"enum": [*get_args(Phase)]},
            "reason": _TEXT,
            "param": _TEXT,
            "guard": _TEXT,
        },
    )
    openai = _record({"message": _TEXT, "type": _or_null(_TEXT), "param": _or_null(_TEXT), "code": {}})
    anthropic = _record({"type": _TEXT, "message": _TEXT})
    return {
        "ErrorObject": error,
        "Error": _record({"error": ref("ErrorObject")}, more=False),
        "OpenAIError": _record({"error": openai}),
        "AnthropicError": _record({"type": {"const": "error"}, "error": anthropic, "request_id": _TEXT}),
    }


def _dialects() -> dict[str, Schema]:
    """Returns the requests in other dialects.

    Members that are unknown here are passed on to an upstream of the same dialect. The upstream also checks the values
    of all members that the gateway does not read.
    """
    model = {"type": "string", "maxLength": SHARED.model_name}
    switch = _or_null({"type": "boolean"})
    shared = {"model": _or_null(model), "stream": switch, "background": switch}
    items = {"type": "array", "minItems": 1}
    texts = {"anyOf": [_TEXT, items]}
    chat = {"type": "string", "minLength": 1, "maxLength": SHARED.chat_id}
    part = _record({"type": _TEXT})
    message = _record({"role": {"enum": ["system", "user", "assistant"]}, "parts": _list(part)})
    messages = {**_list(message), "minItems": 1}

    def request(known: frozenset[str], required: str, schema: Schema) -> Schema:
        members = {name: schema if name == required else shared.get(name, {}) for name in sorted(known)}
        return {"type": "object", "required": [required], "properties": members}

    return {
        "ChatCompletionRequest": request(chat_request.KNOWN, "messages", items),
        "MessagesRequest": request(messages_request.KNOWN, "messages", items),
        "ResponsesRequest": request(responses_request.KNOWN, "input", texts),
        "CompletionRequest": request(completions_request.KNOWN, "prompt", texts),
        "PassedRequest": _record({"model": {"type": "string", "minLength": 1}}),
        "ChatRequest": _record({"id": chat, "messages": messages}, {"trigger": _TEXT, "messageId": _TEXT}),
    }


def _answers() -> dict[str, Schema]:
    return {
        "Result": _result(),
        # In the requested format.
        "Answer": {"anyOf": [ref("Result"), _OBJECT]},
        "ChatCompletion": _record({"id": _TEXT, "object": _TEXT, "model": _TEXT, "choices": _list(_OBJECT)}),
        "Completion": _record({"id": _TEXT, "object": _TEXT, "model": _TEXT, "choices": _list(_OBJECT)}),
        "AnthropicMessage": _record({"id": _TEXT, "type": _TEXT, "role": _TEXT, "content": _list(_OBJECT)}),
        "Response": _record({"id": _TEXT, "object": _TEXT, "status": _TEXT, "output": _list(_OBJECT)}),
        "InputItems": _record(
            {"object": {"const": "list"}, "data": _list(_OBJECT), "first_id": _or_null(_TEXT)},
            {"last_id": _or_null(_TEXT), "has_more": {"type": "boolean"}},
        ),
        "DeletedResponse": _record({"id": _TEXT, "object": {"const": "response"}, "deleted": {"const": True}}),
        "TokenCount": _record({"input_tokens": _COUNT}),
        "Started": _record({"id": _TEXT, "url": _TEXT}, more=False),
        "StreamState": _record(
            {"id": _TEXT, "state": {"enum": ["running", "waiting", "finished", "failed", "cancelled"]}},
            {
                "model": _TEXT,
                "last_event_id": _or_null(_TEXT),
                "finish_reason": _or_null({"enum": sorted(FINISH_REASONS)}),
                "usage": _or_null(_OBJECT),
                "error": _or_null(_OBJECT),
                "takeovers": _COUNT,
                "durability": {"const": "degraded"},
            },
            more=False,
        ),
        "Decided": _record({"id": _TEXT, "decision": {"enum": ["approve", "deny"]}}, more=False),
        "Model": _record({"id": _TEXT, "object": {"const": "model"}, "owned_by": _TEXT, "display_name": _TEXT}),
        "Models": _record({"object": {"const": "list"}, "data": _list(ref("Model")), "has_more": {"type": "boolean"}}),
        "NotReady": {"anyOf": [ref("Health"), ref("Error")]},
        "Health": _record({"status": {"enum": ["ok", "ready", "draining"]}}),
        "Targets": _list(ref(TargetState)),
        "Probe": _record({"number": _COUNT}),
        "Version": _record(
            dict.fromkeys(("version", "implementation", "modules", "python"), _TEXT)
            | {"simd": _or_null(_TEXT), "fast_lane": {"type": "boolean"}}
        ),
    }


def _result() -> Schema:
    """Returns the schema of a complete answer. A failed answer is an error response, so there is no `error`."""
    hints = get_type_hints(Result)
    names = [field.name for field in fields(Result) if field.name != "error"]
    members = {
        name: _or_null(_list(_OBJECT) if name == "tool_calls" else msgspec.json.schema(hints[name])) for name in names
    }
    # The first are there if the request asks for them, in the answer of a run, and if the gateway has ended the answer.
    rare = {name: members.pop(name) for name in ("logprobs", "messages", "reason")}
    return _record({"id": _TEXT, "request_id": _TEXT, **members}, rare)


def _of_key_requests() -> dict[str, Schema]:
    """Returns the requests about keys: their members are those of a `[[key]]`."""
    values = {name: _or_null(dict(KEY_DEFAULTS[name].schema)) for name in STORED}
    limits = {name: values[name] for name in LIMITS_OF_KEY}
    members = {
        **values,
        "limits": {"type": "object", "properties": limits, "additionalProperties": False},
        "role": {"enum": [*ROLES, None]},
    }
    return {
        "NewKey": {
            "type": "object",
            "properties": {"name": {**KEY["name"].schema, "not": {"const": ANONYMOUS}}, **members},
            "required": ["name"],
            "additionalProperties": False,
        },
        "KeyChange": {"type": "object", "properties": members, "additionalProperties": False},
    }
