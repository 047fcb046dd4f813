"""Requests of n, each of the worst shape that something walks: deep, wide, many small, one large, repeated names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SAID = "Be brief. " * 20
"""A text that is long enough for its copies to be noticed."""
Body = dict[str, Any]


def nested(n: int) -> dict[str, Any]:
    """Returns a JSON Schema of objects in objects, each a property `properties` of the one around it.

    A request may have 64 levels, so there is one for each eight of n.
    """
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(n // 8):
        schema = {"type": "object", "properties": {"properties": schema}}
    return schema


def wide(n: int) -> dict[str, Any]:
    """Returns a JSON Schema with n properties, each with limits of its own, and as many required names."""
    properties = {f"p{at}": {"type": "string", "maxLength": at, "minimum": 1} for at in range(n)}
    return {"type": "object", "properties": properties, "required": [*properties]}


def union(n: int) -> dict[str, Any]:
    """Returns a union of n references, each to a definition of its own, with one name in all of them."""
    definitions = {
        f"d{at}": {"type": "object", "properties": {"same": {"const": at}, f"own{at}": {}}, "required": ["same"]}
        for at in range(n)
    }
    return {"oneOf": [{"$ref": f"#/$defs/d{at}"} for at in range(n)], "$defs": definitions}


def chained(n: int) -> dict[str, Any]:
    """Returns a reference to a definition that refers to the next one, n times."""
    definitions: dict[str, Any] = {
        f"d{at}": {"$ref": f"#/$defs/d{at + 1}", "properties": {f"p{at}": {}}, "required": [f"p{at}"]}
        for at in range(n)
    }
    definitions[f"d{n}"] = {"type": "object", "properties": {}}
    return {"$ref": "#/$defs/d0", "$defs": definitions}


SCHEMAS: dict[str, Callable[[int], dict[str, Any]]] = {
    "nested": nested,
    "wide": wide,
    "union": union,
    "chained": chained,
}


def user(text: str = SAID) -> Body:
    """Returns a message of the user."""
    return {"role": "user", "content": text}


def _calls(n: int, name: Callable[[int], str]) -> list[Body]:
    return [{"type": "tool_call", "call_id": name(at), "name": "f", "input": {"a": at}} for at in range(n)]


def _results(n: int, name: Callable[[int], str]) -> list[Body]:
    return [{"role": "tool", "call_id": name(at), "content": "4"} for at in range(n)]


def _tool(at: int, schema: dict[str, Any] | None = None, **more: Any) -> Body:
    return {"name": f"f{at}", "description": "d", "parameters": schema or {"type": "object"}, **more}


def _own(at: int) -> str:
    return f"c{at}"


def _same(at: int) -> str:
    return "c"


ANSWER: Body = {"role": "assistant", "content": SAID}
SYSTEM: Body = {"role": "system", "content": "Be brief."}
TEXT: Body = {"type": "text", "text": SAID}
THOUGHT: Body = {"type": "reasoning", "text": "Hm. " * 20, "signature": "s" * 40}
IMAGE: Body = {"type": "image", "data": "aGk=", "media_type": "image/png"}
FILE: Body = {"type": "file", "data": "aGk=", "media_type": "text/plain"}

NATIVE: dict[str, Callable[[int], Body]] = {
    "turns": lambda n: {"messages": [user(), ANSWER] * n + [user()]},
    "users in a row": lambda n: {"messages": [user()] * n},
    "answers in a row": lambda n: {"messages": [user(), *[ANSWER] * n, user()]},
    "answers at the end": lambda n: {"messages": [user(), *[ANSWER] * n]},
    "systems at the beginning": lambda n: {"messages": [*[SYSTEM] * n, user()]},
    "systems in the middle": lambda n: {"messages": [user(), *[SYSTEM] * n, ANSWER, user()]},
    "systems apart": lambda n: {"messages": [user(), *[SYSTEM, user(), ANSWER] * n, user()]},
    "parts of a user": lambda n: {"messages": [{"role": "user", "content": [TEXT] * n}]},
    "parts of an answer": lambda n: {
        "messages": [user(), {"role": "assistant", "content": [TEXT, THOUGHT] * n}, user()]
    },
    "images": lambda n: {"messages": [{"role": "user", "content": [IMAGE, FILE] * n}]},
    "images of results": lambda n: {
        "messages": [
            user(),
            {"role": "assistant", "content": _calls(n, _own)},
            *({**result, "content": [IMAGE]} for result in _results(n, _own)),
        ]
    },
    "calls": lambda n: {"messages": [user(), {"role": "assistant", "content": _calls(n, _own)}, *_results(n, _own)]},
    "calls, results backwards": lambda n: {
        "messages": [user(), {"role": "assistant", "content": _calls(n, _own)}, *_results(n, _own)[::-1]]
    },
    "calls of one id": lambda n: {
        "messages": [user(), {"role": "assistant", "content": _calls(n, _same)}, *_results(n, _same)]
    },
    "answers with calls of one id": lambda n: {
        "messages": [user(), *[{"role": "assistant", "content": _calls(1, _same)}, *_results(1, _same)] * n]
    },
    "ids that own ids would have": lambda n: {
        "messages": [
            user(),
            *[{"role": "assistant", "content": _calls(n, lambda at: f"c_{at + 2}")}],
            *[{"role": "assistant", "content": _calls(1, _same)}] * n,
            user(),
        ]
    },
    "calls before all results": lambda n: {
        "messages": [
            user(),
            *({"role": "assistant", "content": [call]} for call in _calls(n, _own)),
            *_results(n, _own),
        ]
    },
    "calls without results": lambda n: {
        "messages": [user(), *({"role": "assistant", "content": [call]} for call in _calls(n, _own)), user()]
    },
    "results without calls": lambda n: {"messages": [user(), *_results(n, _own), user()]},
    "results among texts": lambda n: {
        "messages": [
            user(),
            {"role": "assistant", "content": _calls(n, _own)},
            *(message for result in _results(n, _own) for message in (result, user("a"), SYSTEM)),
        ]
    },
    "texts before results": lambda n: {
        "messages": [user(), {"role": "assistant", "content": _calls(n, _own)}, *[user("a")] * n, *_results(n, _own)]
    },
    "tools": lambda n: {
        "query": "Hi",
        "tools": [_tool(at, {"type": "object", "properties": {"a": {}}}, strict=True) for at in range(n)],
        "tool_choice": {"name": f"f{n - 1}"},
    },
    "tools of one long name": lambda n: {"query": "Hi", "tools": [{**_tool(0), "name": "f" * 200}] * n},
    "tools of long names": lambda n: {
        "query": "Hi",
        "tools": [{**_tool(0), "name": f"{'f' * 150}{at}"} for at in range(n)],
    },
    **{
        f"tool, {name} schema": lambda n, make=make: {"query": "Hi", "tools": [_tool(0, make(n), strict=True)]}
        for name, make in SCHEMAS.items()
    },
    **{
        f"answer, {name} schema": lambda n, make=make: {
            "query": "Hi",
            "response_format": {"type": "json_schema", "schema": make(n), "strict": True},
        }
        for name, make in SCHEMAS.items()
    },
    "options": lambda n: {"query": "Hi", "extra": {f"o{at}": {"a": at} for at in range(n)}},
    "metadata": lambda n: {"query": "Hi", "metadata": {f"m{at}": "v" for at in range(n)}},
    "stops": lambda n: {"query": "Hi", "stop": [f"s{at}" for at in range(n)]},
    "biases": lambda n: {"query": "Hi", "logit_bias": {str(at): 1 for at in range(n)}},
    "marks": lambda n: {"messages": [{"role": "user", "content": [{**TEXT, "cache": True}] * n}]},
    "one text": lambda n: {"system": "é" * n * 100, "query": "x" * n * 100},
}
"""Native requests, by what there are n of."""


def _chat_calls(n: int, name: Callable[[int], str]) -> list[Body]:
    function = {"name": "f", "arguments": '{"a":1}'}
    return [{"id": name(at), "type": "function", "function": function} for at in range(n)]


def _chat_results(n: int, name: Callable[[int], str]) -> list[Body]:
    return [{"role": "tool", "tool_call_id": name(at), "content": "4"} for at in range(n)]


def _function(at: int, schema: Any = None) -> Body:
    return {
        "type": "function",
        "function": {"name": f"f{at}", "strict": True, "parameters": schema or {"type": "object"}},
    }


CHAT: dict[str, Callable[[int], Body]] = {
    "turns": lambda n: {"messages": [user(), ANSWER] * n + [user()]},
    "users in a row": lambda n: {"messages": [user()] * n},
    "answers at the end": lambda n: {"messages": [user(), *[ANSWER] * n]},
    "empty answers": lambda n: {"messages": [user(), *[{"role": "assistant", "content": ""}] * n, user()]},
    "systems in the middle": lambda n: {"messages": [user(), *[SYSTEM] * n, ANSWER, user()]},
    "systems alone": lambda n: {"messages": [SYSTEM] * n},
    "parts": lambda n: {"messages": [{"role": "user", "content": [TEXT] * n}]},
    "images": lambda n: {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,A"}}] * n}
        ]
    },
    "calls": lambda n: {
        "messages": [user(), {"role": "assistant", "tool_calls": _chat_calls(n, _own)}, *_chat_results(n, _own)]
    },
    "calls of one id": lambda n: {
        "messages": [user(), {"role": "assistant", "tool_calls": _chat_calls(n, _same)}, *_chat_results(n, _same)]
    },
    "results of one id before calls": lambda n: {
        "messages": [
            user(),
            *_chat_results(n, _same),
            *[{"role": "assistant", "tool_calls": _chat_calls(1, _same)}] * n,
            *_chat_results(n, _same),
        ]
    },
    "calls before all results": lambda n: {
        "messages": [
            user(),
            *({"role": "assistant", "tool_calls": [call]} for call in _chat_calls(n, _own)),
            *[SYSTEM] * n,
            *_chat_results(n, _own),
        ]
    },
    "results among texts": lambda n: {
        "messages": [
            user(),
            {"role": "assistant", "tool_calls": _chat_calls(n, _own)},
            *(message for result in _chat_results(n, _own) for message in (SYSTEM, result, user("a"))),
        ]
    },
    "functions": lambda n: {
        "messages": [
            user(),
            *[
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "4"},
            ]
            * n,
        ],
        "functions": [{"name": f"f{at}", "parameters": {"type": "object"}} for at in range(n)],
    },
    "tools": lambda n: {"messages": [user()], "tools": [_function(at) for at in range(n)]},
    **{
        f"tool, {name} schema": lambda n, make=make: {"messages": [user()], "tools": [_function(0, make(n))]}
        for name, make in SCHEMAS.items()
    },
    **{
        f"answer, {name} schema": lambda n, make=make: {
            "messages": [user()],
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": make(n), "strict": True}},
        }
        for name, make in SCHEMAS.items()
    },
    "unknown members": lambda n: {"messages": [user()], **{f"o{at}": {"a": at} for at in range(n)}},
    "unknown members of messages": lambda n: {"messages": [{**user(), **{f"o{at}": at for at in range(n)}}]},
    "thoughts": lambda n: {
        "messages": [
            user(),
            *[{**ANSWER, "reasoning_details": [{"type": "reasoning.text", "text": "Hm", "signature": "s"}] * 4}] * n,
            user(),
        ]
    },
    "one text": lambda n: {"messages": [user("é" * n * 100)]},
}
"""Requests in the chat dialect."""


def _uses(n: int, name: Callable[[int], str]) -> list[Body]:
    return [{"type": "tool_use", "id": name(at), "name": "f", "input": {"a": at}} for at in range(n)]


def _tool_results(n: int, name: Callable[[int], str]) -> list[Body]:
    return [{"type": "tool_result", "tool_use_id": name(at), "content": "4"} for at in range(n)]


def _claude(*messages: Body, **more: Any) -> Body:
    return {"max_tokens": 9, "messages": [*messages], **more}


def _claude_tool(at: int, schema: Any = None) -> Body:
    return {"name": f"f{at}", "strict": True, "input_schema": schema or {"type": "object"}}


MESSAGES: dict[str, Callable[[int], Body]] = {
    "turns": lambda n: _claude(*[user(), ANSWER] * n, user()),
    "users in a row": lambda n: _claude(*[user()] * n),
    "systems": lambda n: _claude(user(), system=[TEXT] * n),
    "parts": lambda n: _claude({"role": "user", "content": [TEXT] * n}),
    "parts of an answer": lambda n: _claude(user(), {"role": "assistant", "content": [TEXT] * n}, user()),
    "thoughts": lambda n: _claude(
        user(),
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}, TEXT] * n},
        user(),
    ),
    "calls": lambda n: _claude(
        user(), {"role": "assistant", "content": _uses(n, _own)}, {"role": "user", "content": _tool_results(n, _own)}
    ),
    "calls of odd ids": lambda n: _claude(
        user(),
        {"role": "assistant", "content": _uses(n, lambda at: f"c.{at}")},
        {"role": "user", "content": _tool_results(n, lambda at: f"c.{at}")},
    ),
    "calls of one id": lambda n: _claude(
        user(), {"role": "assistant", "content": _uses(n, _same)}, {"role": "user", "content": _tool_results(n, _same)}
    ),
    "rounds of calls": lambda n: _claude(
        user(),
        *(
            message
            for at in range(n)
            for message in (
                {"role": "assistant", "content": _uses(1, lambda _, at=at: f"c{at}")},  # type: ignore[misc]  # the default binds it
                {"role": "user", "content": _tool_results(1, lambda _, at=at: f"c{at}")},  # type: ignore[misc]  # the default binds it
            )
        ),
    ),
    "searches": lambda n: _claude(
        user(),
        {
            "role": "assistant",
            "content": [
                block
                for at in range(n)
                for block in (
                    {"type": "server_tool_use", "id": f"s{at}", "name": "web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": f"s{at}", "content": []},
                )
            ],
        },
        user(),
    ),
    "documents": lambda n: _claude(
        {
            "role": "user",
            "content": [
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": SAID},
                    "title": "t",
                },
            ]
            * n,
        }
    ),
    "marks": lambda n: _claude({"role": "user", "content": [{**TEXT, "cache_control": {"type": "ephemeral"}}] * n}),
    "tools": lambda n: _claude(user(), tools=[_claude_tool(at) for at in range(n)]),
    **{
        f"tool, {name} schema": lambda n, make=make: _claude(user(), tools=[_claude_tool(0, make(n))])
        for name, make in SCHEMAS.items()
    },
    **{
        f"answer, {name} schema": lambda n, make=make: _claude(
            user(), output_config={"format": {"type": "json_schema", "schema": make(n)}}
        )
        for name, make in SCHEMAS.items()
    },
    "unknown members": lambda n: _claude(user(), **{f"o{at}": {"a": at} for at in range(n)}),
    "one text": lambda n: _claude(user("é" * n * 100)),
}
"""Requests in the Messages dialect."""


def _items(*items: Body, **more: Any) -> Body:
    return {"input": [*items], **more}


def _function_calls(n: int, name: Callable[[int], str]) -> list[Body]:
    return [{"type": "function_call", "call_id": name(at), "name": "f", "arguments": "{}"} for at in range(n)]


def _outputs(n: int, name: Callable[[int], str]) -> list[Body]:
    return [{"type": "function_call_output", "call_id": name(at), "output": "4"} for at in range(n)]


INPUT_TEXT: Body = {"type": "input_text", "text": SAID}
OUTPUT_TEXT: Body = {"type": "output_text", "text": SAID, "annotations": []}
REASONING: Body = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "e" * 40}


def _declared(at: int, schema: Any = None) -> Body:
    return {"type": "function", "name": f"f{at}", "strict": True, "parameters": schema or {"type": "object"}}


RESPONSES: dict[str, Callable[[int], Body]] = {
    "turns": lambda n: _items(*[user(), ANSWER] * n, user()),
    "users in a row": lambda n: _items(*[user()] * n),
    "answers in a row": lambda n: _items(user(), *[ANSWER] * n, user()),
    "systems in the middle": lambda n: _items(user(), *[SYSTEM] * n, ANSWER, user()),
    "parts": lambda n: _items({"role": "user", "content": [INPUT_TEXT] * n}),
    "parts of an answer": lambda n: _items(
        user(), {"type": "message", "role": "assistant", "content": [OUTPUT_TEXT] * n}, user()
    ),
    "calls": lambda n: _items(user(), *_function_calls(n, _own), *_outputs(n, _own)),
    "calls of one id": lambda n: _items(user(), *_function_calls(n, _same), *_outputs(n, _same)),
    "results without calls": lambda n: _items(user(), *_outputs(n, _own)),
    "calls without results": lambda n: _items(user(), *_function_calls(n, _own), user()),
    "thoughts": lambda n: _items(user(), *[REASONING, ANSWER] * n, user()),
    "thoughts in a row": lambda n: _items(user(), *[REASONING] * n, ANSWER, user()),
    "references": lambda n: _items(user(), *({"type": "item_reference", "id": f"m{at}"} for at in range(n))),
    "tools": lambda n: _items(user(), tools=[_declared(at) for at in range(n)]),
    "namespaces": lambda n: _items(
        user(), tools=[{"type": "namespace", "name": f"s{at}", "tools": [_declared(at)]} for at in range(n)]
    ),
    **{
        f"tool, {name} schema": lambda n, make=make: _items(user(), tools=[_declared(0, make(n))])
        for name, make in SCHEMAS.items()
    },
    **{
        f"answer, {name} schema": lambda n, make=make: _items(
            user(), text={"format": {"type": "json_schema", "name": "a", "schema": make(n), "strict": True}}
        )
        for name, make in SCHEMAS.items()
    },
    "unknown members": lambda n: _items(user(), **{f"o{at}": {"a": at} for at in range(n)}),
    "include": lambda n: _items(user(), include=["reasoning.encrypted_content"] * n),
    "one text": lambda n: _items(user("é" * n * 100)),
}
"""Requests in the Responses dialect."""

VERCEL: dict[str, Callable[[int], Body]] = {
    "turns": lambda n: {
        "messages": [
            {"id": f"m{at}", "role": role, "parts": [TEXT]} for at in range(n) for role in ("user", "assistant")
        ]
        + [{"id": "m", "role": "user", "parts": [TEXT]}]
    },
    "parts": lambda n: {"messages": [{"id": "m", "role": "user", "parts": [TEXT] * n}]},
    "calls": lambda n: {
        "messages": [
            {
                "id": "m",
                "role": "assistant",
                "parts": [
                    {
                        "type": "tool-f",
                        "toolCallId": f"c{at}",
                        "state": "output-available",
                        "input": {"a": at},
                        "output": 4,
                    }
                    for at in range(n)
                ],
            },
            {"id": "n", "role": "user", "parts": [TEXT]},
        ]
    },
    "unknown members": lambda n: {
        "messages": [{"id": "m", "role": "user", "parts": [TEXT]}],
        **{f"o{at}": {"a": at} for at in range(n)},
    },
}
"""Requests of Vercel's AI SDK."""

AGUI: dict[str, Callable[[int], Body]] = {
    "turns": lambda n: {
        "threadId": "t",
        "runId": "r",
        "messages": [{"id": f"m{at}", **message} for at in range(n) for message in (user(), ANSWER)]
        + [{"id": "m", **user()}],
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {},
    },
    "calls": lambda n: {
        "threadId": "t",
        "runId": "r",
        "messages": [
            {"id": "u", **user()},
            {"id": "a", "role": "assistant", "toolCalls": _chat_calls(n, _own)},
            *({"id": f"r{at}", "role": "tool", "toolCallId": f"c{at}", "content": "4"} for at in range(n)),
        ],
        "tools": [{"name": f"f{at}", "description": "", "parameters": {"type": "object"}} for at in range(n)],
        "context": [{"description": "d", "value": SAID}] * n,
        "state": {},
        "forwardedProps": {f"o{at}": 1 for at in range(n)},
    },
}
"""Requests of AG-UI."""

DIALECTS: dict[str, dict[str, Callable[[int], Body]]] = {
    "openai": CHAT,
    "anthropic": MESSAGES,
    "responses": RESPONSES,
    "vercel": VERCEL,
    "agui": AGUI,
}
"""Requests by the format that reads them."""
