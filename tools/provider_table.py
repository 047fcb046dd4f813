"""Writes the generated parts of `docs/providers.md`: each provider's address, its requests and its answers.

Nothing is declared for this page. A request with one thing in it shows whether the API supports that thing or leaves it
out. The fixtures of answers, read by the adapter, show what answers hold, so that a test stands behind each mark.

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
from gai_fast.core.reading import parse_request
from gai_fast.model.errors import Unsupported
from gai_fast.providers import API, PROVIDERS, Target, UpstreamRequest

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
    "system message": {"system": "Be brief."},
    "image by its URL": _with({"type": "image", "url": "https://example.com/a.png"}),
    "image as data": _with(_IMAGE),
    "audio": _with({"type": "audio", "data": "AAEC", "media_type": "audio/wav"}),
    "file": _with({"type": "file", "data": "JVBERi0=", "media_type": "application/pdf", "filename": "a.pdf"}),
    "`tools`": {"tools": [_TOOL]},
    "strict tools": {"tools": [{**_TOOL, "strict": True}]},
    "`tool_choice`: `required`": {"tools": [_TOOL], "tool_choice": "required"},
    "`tool_choice`: a tool by its name": {"tools": [_TOOL], "tool_choice": {"name": "weather"}},
    "results of tools": _after_call("4 °C"),
    "images in results of tools": _after_call([_TEXT, _IMAGE]),
    "`response_format`: `json`": {"response_format": {"type": "json"}},
    "`response_format`: `json_schema`": {"response_format": {"type": "json_schema", "name": "a", "schema": _SCHEMA}},
    "`reasoning.effort`": {"reasoning": {"effort": "high"}},
    "`reasoning.max_tokens`": {"reasoning": {"max_tokens": 1024}},
    "`temperature`, `top_p`": {"temperature": 0.5, "top_p": 0.5},
    "`max_tokens`": {"max_tokens": 100},
    "`stop`": {"stop": ["END"]},
    "`seed`": {"seed": 1},
    "`reasoning.summary`": {"reasoning": {"effort": "high", "summary": "concise"}},
    "`top_k`": {"top_k": 5},
    "`min_p`": {"min_p": 0.1},
    "`frequency_penalty`, `presence_penalty`": {"frequency_penalty": 0.5, "presence_penalty": 0.5},
    "`repetition_penalty`": {"repetition_penalty": 1.1},
    "`logit_bias`": {"logit_bias": {"5": 1}},
    "`logprobs`": {"logprobs": True},
    "`top_logprobs`": {"logprobs": True, "top_logprobs": 2},
    "`parallel_tool_calls`": {"tools": [_TOOL], "parallel_tool_calls": False},
    "`verbosity`": {"verbosity": "low"},
    "`service_tier`: `flex`": {"service_tier": "flex"},
    "`user`": {"user": "u1"},
    "`safety_identifier`": {"safety_identifier": "u1"},
    "`metadata`": {"metadata": {"user_id": "u1"}},
}
"""The things that a request may hold, each alone."""

_THOUGHT, _SIGNATURE = "Let me think of Oslo.", "c2lnbmF0dXJl"

_ANSWERED: Final[Mapping[str, str]] = {
    "reasoning": "reasoning.delta",
    "signed reasoning": "reasoning.signature",
    "refusal apart from text": "refusal.delta",
    "tool calls": "tool.call",
    "tools run by the provider": "server_tool",
    "citations": "citations",
    "images": "image",
    "audio": "audio.delta",
    "safety": "safety",
}
"""The things that answers may hold, by the type of the event."""


def apis() -> dict[str, API]:
    """Every API that asks an upstream, by `name` or `name:api`."""
    return {
        f"{provider}:{name}".removesuffix(":"): api
        for provider, module in PROVIDERS.items()
        for name, api in import_module(module).APIS.items()
        if not api.recording
    }


def mark_of(api: API, content: Mapping[str, Any]) -> str:
    """What becomes of the content of a request: one of the marks that the page explains."""
    target = Target("model-1", "key")
    request = _built(api, content, target)
    if request is None:
        return "–"
    if target.changes.dropped:
        return "○"
    if target.changes.adjusted:
        return "≈"
    names = content.keys() - {"messages", "system"}
    return "→" if names and names.isdisjoint(json.loads(request.body)) else "✓"


def _built(api: API, content: Mapping[str, Any], target: Target) -> UpstreamRequest | None:
    whole = content if "messages" in content else {"messages": [_ASKED], **content}
    try:
        return api.build_request(parse_request(json.dumps(whole).encode()), target)
    except Unsupported:
        return None


def sends_back(api: API, word: str) -> bool:
    """Whether a word of the provider's own thought, or of the signed call after it, is in the next request."""
    thought = {"type": "reasoning", "text": _THOUGHT, "signature": _SIGNATURE, "provider": api.provider}
    content = _after_call("4 °C")
    asked, answer, result = content["messages"]
    content["messages"] = [asked, {**answer, "content": [thought, {**_CALL, "signature": _SIGNATURE}]}, result]
    request = _built(api, content, Target("model-1", "key", "drop"))
    return request is not None and word.encode() in request.body


def answered(name: str) -> set[str]:
    """The types of events in the fixtures' answers, `usage` and `choice` included where an event has them.

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


def requests_table(names: Iterable[str]) -> str:
    """The table of requests that each API supports."""
    every = apis()
    chosen = {name: every[name] for name in names}
    rows = {what: [mark_of(api, content) for api in chosen.values()] for what, content in _TAKEN.items()}
    rows["its own reasoning, sent back"] = [_mark(sends_back(api, _THOUGHT)) for api in chosen.values()]
    rows["its signatures, sent back"] = [_mark(sends_back(api, _SIGNATURE)) for api in chosen.values()]
    return table(chosen, rows)


def answers_table(names: Iterable[str]) -> str:
    """The table of events in the answers of each API."""
    kinds = {name: answered(name) for name in names}
    rows = {what: [_mark(kind in kinds[name]) for name in kinds] for what, kind in _ANSWERED.items()}
    rows["more than one choice"] = [_mark("choice" in kinds[name]) for name in kinds]
    rows["usage"] = [_mark("usage" in kinds[name]) for name in kinds]
    return table(kinds, rows)


def _mark(has: bool) -> str:
    return "✓" if has else "–"


def table(columns: Iterable[str], rows: Mapping[str, Iterable[str]]) -> str:
    """A Markdown table of marks."""
    heads = [f"`{name}`" for name in columns]
    lines = [["", *heads], ["---", *[":-:"] * len(heads)]]
    lines += [[what, *marks] for what, marks in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def facts(provider: str) -> str:
    """The address and the key of a provider."""
    own = {name: api for name, api in apis().items() if name.partition(":")[0] == provider}
    first = next(iter(own.values()))
    address = f"`{first.base_url}`" if first.base_url else "has no default"
    if first.host_variable:
        address += f", or where `{first.host_variable}` says"
    key = f"`{first.key_variable}`" if first.key_variable else "none is expected"
    framing = {"sse": "SSE", "ndjson": "NDJSON"}[first.framing]
    if first.answers_in_arrays:
        framing += ", or one JSON array that grows"
    unchanged = [f"`{name}`" for name, api in own.items() if api.dialect]
    lines = [
        f"`provider`: {', '.join(f'`{name}`' for name in own)}",
        f"`base_url`: {address}",
        f"key: {key}",
        f"streams: {framing}",
    ]
    if unchanged:
        lines.append(f"requests and answers of the same dialect pass: {', '.join(unchanged)}")
    sources = {name: api.rules.source for name, api in own.items() if api.rules.source}
    lines += [f"requests of `{name}` are fitted to: {source}" for name, source in sources.items()]
    return "".join(f"* {line}\n" for line in lines)


def generated(block: str) -> str:
    """The text of one block of the page.

    Raises:
        KeyError: No block has this name.
    """
    names = list(apis())
    plain, others = [name for name in names if ":" not in name], [name for name in names if ":" in name]
    match block:
        case "requests":
            return requests_table(plain) + "\n" + requests_table(others)
        case "answers":
            return answers_table(plain) + "\n" + answers_table(others)
        case provider if provider in plain:
            return facts(provider)
    raise KeyError(block)


def written(page: str) -> str:
    """The page with its generated blocks written anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}{generated(found[2])}{found[3]}", page)


def blocks(page: str) -> list[str]:
    """The names of the page's generated blocks."""
    return [found[2] for found in _BLOCK.finditer(page)]


if __name__ == "__main__":
    sys.stdout.write(f"writing {PAGE.relative_to(ROOT)}\n")
    PAGE.write_text(written(PAGE.read_text()))
