"""The keys of `[[tool_server]]` and `[[tool]]`: the purpose and the valid values of each, and which way each is of.

`tool_tables.py` reads what they name: secrets, files, functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, get_args

from gai_fast.config import checks
from gai_fast.config.limits import LIMITS
from gai_fast.config.values import Key, choice, program, seconds, switch, text, texts, whole
from gai_fast.kernels import encode_json
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import SessionKind, ToolServerSettings, ToolSettings
from gai_fast.model.tool_rules import OWN_LABEL

SERVER_NAME: Final = re.compile(rf"[a-z0-9-]{{1,{LIMITS.tool_server_name}}}")
TOOL_NAME: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{SHARED.model_tool_name}}}")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_OF_MCP: Final = re.compile(r"mcp-.*|last-event-id")
_OF_CALLS: Final = re.compile(r"idempotency-key|x-request-id|x-gai-.*|traceparent")
_WORDS_OF_SCHEMAS: Final = ("$ref", "$dynamicRef", "$recursiveRef")


def _server_name(value: str) -> str:
    if not SERVER_NAME.fullmatch(value):
        raise ValueError(f"must be 1 to {LIMITS.tool_server_name} characters of a-z 0-9 -")
    if value == OWN_LABEL:
        raise ValueError(f"must not be {OWN_LABEL}: so [[tool]] tables are labelled")
    return value


def _tool_name(value: str) -> str:
    if not TOOL_NAME.fullmatch(value):
        raise ValueError(
            f"must be 1 to {SHARED.model_tool_name} characters of A-Z a-z 0-9 _ -, which every provider takes"
        )
    return value


def tool_pattern(value: str) -> str:
    """Checks a name or a pattern of tools.

    Raises:
        ValueError: It is none.
    """
    if not value.strip() or not value.isprintable() or len(value) > SHARED.tool_pattern:
        raise ValueError(
            f"must be a list of names of tools, or of patterns such as get_*, of at most {SHARED.tool_pattern} "
            "characters each"
        )
    return value


def _description(value: Any) -> str:
    if not isinstance(value, str) or len(value.encode("utf-8", "replace")) > SHARED.tool_description:
        raise ValueError(f"must be a string of at most {SHARED.tool_description} bytes")
    return value


def _headers_without(reserved: re.Pattern[str]) -> Key:
    """Returns the key of headers, of which some are the gateway's."""

    def read(value: Any) -> Mapping[str, str]:
        headers = checks.headers(value)
        for name in headers:
            if reserved.fullmatch(name.lower()):
                raise ValueError(f"must not set {name}: the gateway writes it")
        return headers

    about = "Headers of all requests; a value may be env:NAME or file:PATH."
    return Key(about, {"type": "object", "additionalProperties": {"type": "string"}}, read, secret=True)


def _env(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError('must be a table of variables, such as {DOCS_TOKEN = "env:DOCS_TOKEN"}')
    for name, each in value.items():
        if not VARIABLE.fullmatch(name):
            raise ValueError("must have names of variables: letters, digits and _")
        if not isinstance(each, str) or "\0" in each:
            raise ValueError(f"must have a string for {name}")
    return value


def parameters(value: Any) -> Mapping[str, Any]:
    """Checks the JSON Schema of a tool's arguments.

    Raises:
        ValueError: It is no schema of an object, too large, nested too deep, or refers to another document.
    """
    if not isinstance(value, dict) or value.get("type") != "object":
        raise ValueError('must be the JSON Schema of an object: {type = "object", properties = {…}}')
    try:
        size = len(encode_json(value))
    except (TypeError, ValueError):
        raise ValueError("must be a JSON Schema, without dates and times of TOML") from None
    if size > SHARED.tool_schema:
        raise ValueError(f"must be a JSON Schema of at most {SHARED.tool_schema} bytes")
    level: list[Any] = [value]
    for _ in range(SHARED.tool_depth):
        for each in level:
            _check_references(each)
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, (dict, list))
        ]
    if level:
        raise ValueError(f"must be a JSON Schema of at most {SHARED.tool_depth} levels")
    return value


def _check_references(part: Any) -> None:
    for word in _WORDS_OF_SCHEMAS:
        target = part.get(word) if isinstance(part, dict) else None
        if isinstance(target, str) and not target.startswith("#"):
            raise ValueError(f'must be a JSON Schema each {word} of which begins with "#"')


_SECONDS: Final = seconds("Longest time of a call; each notice of progress begins it again.")
_RESULT: Final = whole("Bytes that are kept of a result.", 1, SHARED.tool_result_most)
_CALLS: Final = whole("Calls of a worker at a time; further ones wait.", 1, LIMITS.tool_calls_most)

TOOL_SERVER: Final[Mapping[str, Key]] = {
    "name": text(
        "Its label, which stands before the names of its tools: docs.search.", _server_name, f"^{SERVER_NAME.pattern}$"
    ),
    "url": text("Where it speaks MCP.", checks.url_with_query, secret=True, example="https://tools.example.com/mcp"),
    "headers": _headers_without(_OF_MCP),
    "auth_command": program(
        "A program and its arguments, which prints a token and its end, for the header authorization.",
        checks.command,
        ["print-token"],
    ),
    "ca_file": text(
        "File of certificate authorities for the url's certificate, in place of the system's (PEM).",
        checks.path,
        example="ca.pem",
    ),
    "command": program(
        "A program and its arguments, which speaks MCP over its standard input and output; each worker has a process.",
        checks.command,
        ["docs-mcp", "--read-only"],
    ),
    "env": Key(
        "The process's variables beside PATH, HOME and LANG; a value may be env:NAME or file:PATH.",
        {"type": "object", "additionalProperties": {"type": "string"}},
        _env,
        secret=True,
    ),
    "tools": texts("The tools that are offered: names, and patterns with * ? [].", tool_pattern),
    "approve": texts("The tools whose calls wait for a person.", tool_pattern),
    "idempotent": texts(
        "The tools that may be called again after a fault, beside those that the server calls read-only or idempotent.",
        tool_pattern,
    ),
    "connect_timeout": seconds("Longest time to connect, TLS included."),
    "timeout": _SECONDS,
    "max_result": _RESULT,
    "max_calls": _CALLS,
    "session": choice(
        "Who has an MCP session, or a process, of its own: each caller or each run; or all share one.",
        *get_args(SessionKind),
    ),
}
TOOL: Final[Mapping[str, Key]] = {
    "name": text("Its name, for models too.", _tool_name, f"^{TOOL_NAME.pattern}$"),
    "description": Key(
        "What it is for; of a function, by default its docstring.",
        {"type": "string"},
        _description,
        example="The weather of a city",
    ),
    "parameters": Key(
        "The JSON Schema of its arguments, an object's; a function has its own.",
        {"type": "object"},
        parameters,
        example={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    ),
    "url": text(
        "Where its arguments are posted as JSON.",
        checks.url_with_query,
        secret=True,
        example="https://api.example.com/weather",
    ),
    "python": text(
        "The function that is called, module:function; the file's folder is searched first.",
        checks.function,
        f"^{checks.FUNCTION.pattern}$",
        example="my_tools:invoice",
    ),
    "headers": _headers_without(_OF_CALLS),
    "approve": switch("Whether its calls wait for a person."),
    "idempotent": switch("Whether it may be called again after a fault."),
    "timeout": replace(_SECONDS, about="Longest time of a call."),
    "max_result": _RESULT,
    "max_calls": _CALLS,
}
TOOL_SERVER_DEFAULTS: Final[Mapping[str, Any]] = {
    **{
        name: getattr(ToolServerSettings(""), name)
        for name in ("tools", "approve", "idempotent", "connect_timeout", "timeout", "max_result", "max_calls")
    },
    "headers": {},
    "env": {},
}
TOOL_DEFAULTS: Final[Mapping[str, Any]] = {
    **{
        name: getattr(ToolSettings(""), name)
        for name in ("approve", "idempotent", "timeout", "max_result", "max_calls")
    },
    "headers": {},
}
WAYS: Final[Mapping[str, tuple[str, str]]] = {"tool_server": ("url", "command"), "tool": ("url", "python")}
"""The two ways of a table, of which it has one."""
WAY_OF: Final[Mapping[str, Mapping[str, str]]] = {
    "tool_server": {
        "headers": "url",
        "auth_command": "url",
        "ca_file": "url",
        "connect_timeout": "url",
        "env": "command",
    },
    "tool": {"headers": "url", "parameters": "url"},
}
"""The way that a key goes with; other keys go with both."""
REQUIRED_OF_TOOLS: Final[Mapping[str, Mapping[str, str]]] = {
    "tool_server": {"name": 'its label, such as name = "docs"'},
    "tool": {"name": 'what models call it, such as name = "weather"'},
}
NEEDED_OF_TOOLS: Final[Mapping[str, str]] = {
    "tool_server": "where it speaks MCP, or `command`, the program that does",
    "tool": "where its arguments are posted, or `python`, the function that is called",
}
