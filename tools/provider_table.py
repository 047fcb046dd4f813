"""Writes the generated tables of `docs/providers.md`: addresses, routes, requests and answers.

Nothing is declared for this page. A request with one thing in it shows whether the API supports that thing or leaves it
out. The fixtures of answers, read by the adapter, show what answers hold, so that a test stands behind each entry.
APIs with equal entries share a row.

    python -m tools.provider_table
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import gai_fast
from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Unsupported
from gai_fast.providers import API, PROVIDERS, ROUTES, Target, UpstreamRequest

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "providers.md"
FIXTURES: Final = ROOT / "tests" / "corpus" / "fixtures"

_BLOCK: Final = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->)", re.S)

_TEXT: Final = {"type": "text", "text": "What is this?"}
_TOOL: Final = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
_CALL: Final = {"type": "tool_call", "call_id": "call_0001", "name": "weather", "input": {"city": "Oslo"}}
_ASKED: Final = {"role": "user", "content": "Weather in Oslo?"}
_SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "string"}}}
_IMAGE: Final = {"type": "image", "data": "iVBORw0K", "media_type": "image/png"}


def _with(*parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [_TEXT, *parts]}]}


def _after_call(result: Any) -> dict[str, Any]:
    answer = {"role": "assistant", "content": [_CALL]}
    return {"tools": [_TOOL], "messages": [_ASKED, answer, {"role": "tool", "call_id": "call_0001", "content": result}]}


_TAKEN: Final[Mapping[str, Mapping[str, Any]]] = {
    "system messages": {"system": "Be brief."},
    "image URLs": _with({"type": "image", "url": "https://example.com/a.png"}),
    "images": _with(_IMAGE),
    "audio": _with({"type": "audio", "data": "AAEC", "media_type": "audio/wav"}),
    "files": _with({"type": "file", "data": "JVBERi0=", "media_type": "application/pdf", "filename": "a.pdf"}),
    "`tools`": {"tools": [_TOOL]},
    "strict tools": {"tools": [{**_TOOL, "strict": True}]},
    "required calls": {"tools": [_TOOL], "tool_choice": "required"},
    "calls by name": {"tools": [_TOOL], "tool_choice": {"name": "weather"}},
    "tool results": _after_call("4 °C"),
    "images in tool results": _after_call([_TEXT, _IMAGE]),
    "`json`": {"response_format": {"type": "json"}},
    "`json_schema`": {"response_format": {"type": "json_schema", "name": "a", "schema": _SCHEMA}},
    "`reasoning.effort`": {"reasoning": {"effort": "high"}},
    "`reasoning.max_tokens`": {"reasoning": {"max_tokens": 1024}},
    "`reasoning.summary`": {"reasoning": {"effort": "high", "summary": "concise"}},
    "`temperature`": {"temperature": 0.5},
    "`top_p`": {"top_p": 0.5},
    "`max_tokens`": {"max_tokens": 100},
    "`stop`": {"stop": ["END"]},
    "`seed`": {"seed": 1},
    "`top_k`": {"top_k": 5},
    "`min_p`": {"min_p": 0.1},
    "penalties": {"frequency_penalty": 0.5, "presence_penalty": 0.5},
    "`repetition_penalty`": {"repetition_penalty": 1.1},
    "`logit_bias`": {"logit_bias": {"5": 1}},
    "`logprobs`": {"logprobs": True},
    "`top_logprobs`": {"logprobs": True, "top_logprobs": 2},
    "`parallel_tool_calls`": {"tools": [_TOOL], "parallel_tool_calls": False},
    "`verbosity`": {"verbosity": "low"},
    "`service_tier`": {"service_tier": "flex"},
    "`user`": {"user": "u1"},
    "`safety_identifier`": {"safety_identifier": "u1"},
    "`metadata`": {"metadata": {"user_id": "u1"}},
}
"""The things that a request may hold, each alone."""

_THOUGHT, _SIGNATURE = "Let me think of Oslo.", "c2lnbmF0dXJl"

_ANSWERED: Final[Mapping[str, str]] = {
    "reasoning": "reasoning.delta",
    "signatures": "reasoning.signature",
    "refusals": "refusal.delta",
    "calls": "tool.call",
    "`server_tool`": "server_tool",
    "citations": "citations",
    "images": "image",
    "audio": "audio.delta",
    "`safety`": "safety",
    "choices": "choice",
}
"""The things that answers may hold, by the type of the event or its key."""


def apis() -> dict[str, API]:
    """Returns every API that asks a server, by `name` or `name:api`."""
    return {
        f"{provider}:{name}".removesuffix(":"): api
        for provider, module in PROVIDERS.items()
        for name, api in import_module(module).APIS.items()
        if not api.recording and not api.calls_function
    }


def fate_of(api: API, content: Mapping[str, Any]) -> str:
    """What becomes of the content of a request: `sent`, `nearest`, `left out` or `refused`."""
    target = Target("model-1", "key")
    if _built(api, content, target) is None:
        return "refused"
    if target.changes.dropped:
        return "left out"
    return "nearest" if target.changes.adjusted else "sent"


def _built(api: API, content: Mapping[str, Any], target: Target) -> UpstreamRequest | None:
    whole = content if "messages" in content else {"messages": [_ASKED], **content}
    try:
        return api.build_request(parse_request(json.dumps(whole).encode()), target)
    except Unsupported:
        return None


def sends_back(api: API, word: str) -> bool:
    """Returns whether a word of the provider's own thought, or of the signed call after it, is in the next request."""
    thought = {"type": "reasoning", "text": _THOUGHT, "signature": _SIGNATURE, "provider": api.provider}
    content = _after_call("4 °C")
    asked, answer, result = content["messages"]
    content["messages"] = [asked, {**answer, "content": [thought, {**_CALL, "signature": _SIGNATURE}]}, result]
    request = _built(api, content, Target("model-1", "key", "drop"))
    return request is not None and word.encode() in request.body


def answered(name: str) -> set[str]:
    """Returns the types of events in the fixtures' answers, `choice` included if an event has it.

    An API beside a provider's first is also shown the answers of OpenAI's API of the same name, whose dialect it is, or
    of the first, if both are read alike.
    """
    provider, _, api = name.partition(":")
    folders = {name.replace(":", "-"), *([f"openai-{api}"] if api else [])}
    if type(apis()[name].adapter()) is type(apis()[provider].adapter()):
        folders.add(provider)
    kinds: set[str] = set()
    for path in sorted(path for folder in folders for path in FIXTURES.glob(f"{folder}/*")):
        if not path.name.endswith(".events.ndjson"):
            for event in gai_fast.decode(name, [path.read_bytes()]):
                kinds |= {event["type"], *event}
    return kinds


def requests_table() -> str:
    """Returns the table of what the requests of each API cannot hold."""
    rows = {}
    for name, api in apis().items():
        fates = {what: fate_of(api, content) for what, content in _TAKEN.items()}
        fates["earlier reasoning"] = "sent" if sends_back(api, _THOUGHT) else "left out"
        fates["signatures"] = "sent" if sends_back(api, _SIGNATURE) else "left out"
        rows[name] = [[what for what in fates if fates[what] == fate] for fate in ("refused", "left out", "nearest")]
    return _table(["API", "refused", "left out", "sent as the nearest"], rows)


def answers_table() -> str:
    """Returns the table of what the answers of each API hold beside text."""
    rows = {name: [[what for what, kind in _ANSWERED.items() if kind in answered(name)]] for name in apis()}
    return _table(["API", "answers hold"], rows)


def routes_table() -> str:
    """Returns the table of the routes of each API that are passed through, and of the path at which they stand."""
    lines = [["provider", "routes below `/v1`", "path below `base_url`"], ["---"] * 3]
    shared: dict[tuple[str, str], list[str]] = {}
    for name, api in apis().items():
        routes = api.routes
        names = [route.removeprefix("/v1") for route in ROUTES if route in routes.known]
        places = [f"`{path}`" for path in routes.elsewhere.values()]
        if routes.root is not None:
            places.append(f"`{routes.root}/…`")
        elif not places:
            places = ["`unsupported`"]
        known = ", ".join(f"`{each}`" for each in names) or ("none" if routes.root is None else "none is known")
        if len(names) == len(ROUTES):
            known = "as the server has them"
        shared.setdefault((known, ", ".join(places)), []).append(f"`{name}`")
    return _lines([*lines, *([", ".join(names), *cells] for cells, names in shared.items())])


def _table(heads: list[str], rows: Mapping[str, list[list[str]]]) -> str:
    """Returns a Markdown table of lists; APIs with equal lists share a row."""
    shared: dict[str, list[str]] = {}
    for name, cells in rows.items():
        shared.setdefault(" | ".join(", ".join(cell) for cell in cells), []).append(f"`{name}`")
    return _lines([heads, ["---"] * len(heads), *([", ".join(names), cells] for cells, names in shared.items())])


def _lines(rows: Iterable[Iterable[str]]) -> str:
    return "".join(re.sub(" +", " ", f"| {' | '.join(row)} |\n") for row in rows)


def addresses() -> str:
    """Returns the table of the address and the key of each provider."""
    lines = [["provider", "further APIs", "`base_url`", "key", "fitted to"], ["---"] * 5]
    every = apis()
    for provider, first in every.items():
        if ":" in provider:
            continue
        own = {name: api for name, api in every.items() if name.partition(":")[0] == provider}
        address = f"`{first.base_url}`" if first.base_url else "required"
        if first.host_variable:
            address += f", `{first.host_variable}`"
        sources = dict.fromkeys(api.rules.source for api in own.values() if api.rules.source)
        lines.append(
            [
                f"`{provider}`",
                ", ".join(f"`{name.removeprefix(provider)}`" for name in own if name != provider),
                address,
                f"`{first.key_variable}`" if first.key_variable else "none",
                "; ".join(sources),
            ]
        )
    return _lines(lines)


def generated(block: str) -> str:
    """Returns the text of one block of the page.

    Raises:
        KeyError: No block has this name.
    """
    tables = {"addresses": addresses, "routes": routes_table, "requests": requests_table, "answers": answers_table}
    return tables[block]()


def written(page: str) -> str:
    """Returns the page with its generated blocks written again."""
    return _BLOCK.sub(lambda found: f"{found[1]}{generated(found[2])}{found[3]}", page)


def blocks(page: str) -> list[str]:
    """Returns the names of the page's generated blocks."""
    return [found[2] for found in _BLOCK.finditer(page)]


if __name__ == "__main__":
    sys.stdout.write(f"writing {PAGE.relative_to(ROOT)}\n")
    PAGE.write_text(written(PAGE.read_text()))
