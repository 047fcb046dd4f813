"""Writes `gai_fast/providers/models.toml`: what each family of models takes, from LiteLLM's model map.

The map (MIT) is in LiteLLM's wheel and repository: `litellm/model_prices_and_context_window_backup.json`. Facts are
taken from it, no code. `ROWS` names the entry of the map for each pattern of ids, and corrects by hand what the map
lacks or has wrong; the comment beside a correction is its source.

    python -m tools.model_facts MAP VERSION DATE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from gai_fast.providers.requests.facts import FACTS

PAGE: Final = Path(__file__).resolve().parent.parent / "gai_fast" / "providers" / "models.toml"

_HEAD: Final = """\
# What models take, by provider and pattern of the id. The longest pattern that matches an id counts.
# Written by tools/model_facts.py on {date}, from the model map of LiteLLM {version} (MIT) with the corrections in that
# file. A fact that is not here is not known, and nothing is added or refused for it.
# `usual`: the ids that a server without a configuration file offers, by provider.
"""


class Row(NamedTuple):
    """One pattern of ids.

    Attributes:
        entry: The entry of the map; empty: there is none.
        by_hand: Facts that the map lacks or has wrong; None removes a fact.
    """

    entry: str = ""
    by_hand: Mapping[str, Any] = {}


# Anthropic's documentation: sampling parameters do not go with thinking, budgets are at least 1,024 tokens.
_CLAUDE: Final = {"sampling_with_thinking": False}
_BUDGETS: Final = {"least_budget": 1024}
# Anthropic's documentation of Opus 4.1, and of all models until 4.6: `temperature` or `top_p`, not both.
_ONE: Final = {**_BUDGETS, "sampling": "one"}
# Retired at Anthropic, still at Bedrock and Vertex: Anthropic's table of models, 2025.
_CLAUDE_3: Final = {
    "thinking": ["disabled"],
    "efforts": [],
    "sampling": "both",
    "forced_tool": True,
    "prefill": True,
    "system_in_middle": False,
    "schema": False,
    "images": True,
}
_CLAUDE_4: Final = {**_CLAUDE_3, **_BUDGETS, "thinking": ["disabled", "budget"]}

# google-genai 3.6, `ThinkingLevel`; Google's guide to thinking.
_LEVELS: Final = ["minimal", "low", "medium", "high", "xhigh"]
_LEVEL: Final = {"thinking": ["level"], "efforts": _LEVELS}
_NO_MINIMAL: Final = {"thinking": ["level"], "efforts": _LEVELS[1:]}

# groq 1.7, `completion_create_params.py`, `reasoning_effort`; Groq's pages of the models.
_NO_THINKING: Final[Mapping[str, Any]] = {"thinking": ["disabled"], "efforts": []}
_GPT_OSS: Final = {"thinking": ["level"], "efforts": ["low", "medium", "high"], "images": False}

ROWS: Final[Mapping[str, Mapping[str, Row]]] = {
    "anthropic": {
        # What all current models have in common.
        "*claude*": Row("", {"max_output": 64_000, "schema": True, "images": True}),
        "*claude-3*": Row("", {**_CLAUDE_3, "max_output": 4096}),
        "*claude-3-5*": Row("", {**_CLAUDE_3, "max_output": 8192}),
        "*claude-3-7*": Row("", {**_CLAUDE_4, "max_output": 64_000}),
        "*claude-opus*": Row("claude-opus-5-5"),
        "*claude-opus-4*": Row("", {**_CLAUDE_4, "max_output": 32_000}),
        "*claude-opus-4-1*": Row("", {**_CLAUDE_4, "max_output": 32_000, "sampling": "one", "schema": None}),
        "*claude-opus-4-5*": Row("claude-opus-4-5", _ONE),
        "*claude-opus-4-6*": Row("claude-opus-4-6", _ONE),
        "*claude-opus-4-7*": Row("claude-opus-4-7"),
        "*claude-opus-4-8*": Row("claude-opus-4-8"),
        "*claude-opus-5*": Row("claude-opus-5"),
        "*claude-opus-5-5*": Row("claude-opus-5-5"),
        "*claude-sonnet*": Row("claude-sonnet-5-5", {"thinking": ["between_tools", "adaptive"]}),
        "*claude-sonnet-4*": Row("", {**_CLAUDE_4, "max_output": 64_000}),
        "*claude-sonnet-4-5*": Row("claude-sonnet-4-5", _ONE),
        "*claude-sonnet-4-6*": Row("claude-sonnet-4-6", _ONE),
        "*claude-sonnet-5*": Row("claude-sonnet-5"),
        # Anthropic's migration guide: `between_tools` in place of `disabled`.
        "*claude-sonnet-5-5*": Row("claude-sonnet-5-5", {"thinking": ["between_tools", "adaptive"]}),
        "*claude-haiku*": Row("claude-haiku-5-5"),
        "*claude-haiku-4-5*": Row("claude-haiku-4-5", _ONE),
        "*claude-haiku-5-5*": Row("claude-haiku-5-5"),
        "*claude-fable*": Row("claude-fable-5-1"),
        "*claude-fable-5*": Row("claude-fable-5"),
        "*claude-fable-5-1*": Row("claude-fable-5-1"),
        # Anthropic's table of models, November 2026.
        "*claude-fable-5-2": Row("claude-fable-5-1"),
        "*claude-mythos*": Row("claude-mythos-5-1"),
        "*claude-mythos-5*": Row("claude-mythos-5"),
        "*claude-mythos-5-1*": Row("claude-mythos-5-1"),
        "*claude-mythos-preview*": Row("claude-mythos-preview"),
    },
    "gemini": {
        # Google's guide to thinking: 2.5 Flash from 1, Flash-Lite from 512; 2.5 Pro from 128, and always on.
        "*gemini-2.5-flash*": Row("gemini/gemini-2.5-flash", {"thinking": ["disabled", "budget"], "least_budget": 1}),
        "*gemini-2.5-flash-lite*": Row(
            "gemini/gemini-2.5-flash-lite", {"thinking": ["disabled", "budget"], "least_budget": 512}
        ),
        "*gemini-2.5-pro*": Row("gemini/gemini-2.5-pro", {"thinking": ["budget"], "least_budget": 128}),
        "*gemini-3*": Row("gemini/gemini-3-flash-preview", _LEVEL),
        "*gemini-3-pro*": Row("gemini/gemini-3.1-pro-preview", _NO_MINIMAL),
        "*gemini-3.1-pro*": Row("gemini/gemini-3.1-pro-preview", _NO_MINIMAL),
        "*gemini-3.5-flash-lite*": Row("gemini/gemini-3.5-flash-lite", _LEVEL),
        "*gemini-3.6-flash*": Row("gemini/gemini-3.6-flash", _LEVEL),
        "*gemini-3.7-flash*": Row("gemini/gemini-3.7-flash", _NO_MINIMAL),
        "*gemini-3.7-flash-lite*": Row("gemini/gemini-3.5-flash-lite", _LEVEL),
        "*gemini-3.8-flash*": Row("gemini/gemini-3.8-flash", _NO_MINIMAL),
        "*gemini-4*": Row("gemini/gemini-4-hydrogen", _NO_MINIMAL),
        "*gemini-4*-flash-lite*": Row("gemini/gemini-3.5-flash-lite", _LEVEL),
        "*gemini-flash-latest*": Row("gemini/gemini-flash-latest", _NO_MINIMAL),
        "*gemini-flash-lite-latest*": Row("gemini/gemini-flash-lite-latest", _LEVEL),
        "*gemini-pro-latest*": Row("gemini/gemini-pro-latest", _NO_MINIMAL),
    },
    "groq": {
        "*compound*": Row("", {**_NO_THINKING, "images": False}),
        "*gpt-oss*": Row("groq/openai/gpt-oss-120b", _GPT_OSS),
        "*kimi-k2*": Row("", {**_NO_THINKING, "images": False}),
        "*llama*": Row("", {**_NO_THINKING, "images": False}),
        "*llama-4*": Row("", {**_NO_THINKING, "images": True}),
        "*qwen3*": Row("", {"thinking": ["disabled", "level"], "efforts": ["none", "default"]}),
        "*qwen3-32b*": Row("", {"thinking": ["disabled", "level"], "efforts": ["none", "default"], "images": False}),
        "*qwen3.8*": Row(
            "groq/qwen/qwen3.8-27b",
            {"thinking": ["disabled", "level"], "efforts": ["none", "low", "medium", "high"]},
        ),
    },
    "openai": {
        "gpt-4*": Row("", _NO_THINKING),
        # OpenAI's guide to reasoning: the o-models and the models of GPT-5 take no sampling parameters, later models
        # take them with the effort `none`. The map has no efforts of the o-models.
        "o1*": Row("o1", {"efforts": ["low", "medium", "high"], "sampling": "none"}),
        "o3*": Row("o3", {"efforts": ["low", "medium", "high"], "sampling": "none"}),
        "o3-mini*": Row("o3-mini", {"efforts": ["low", "medium", "high"], "sampling": "none"}),
        "o4*": Row("o4-mini", {"efforts": ["low", "medium", "high"], "sampling": "none"}),
        "gpt-5*": Row("gpt-5", {"sampling": "none"}),
        "gpt-5-pro*": Row("gpt-5-pro", {"efforts": ["high"], "sampling": "none"}),
        "gpt-5-chat*": Row("gpt-5-chat-latest", {"efforts": None, "thinking": None}),
        "gpt-5.1*": Row("gpt-5.1", {"sampling_with_thinking": False}),
        "gpt-5.2*": Row("gpt-5.2", {"sampling_with_thinking": False}),
        "gpt-5.2-pro*": Row("gpt-5.2-pro", {"efforts": ["medium", "high", "xhigh"], "sampling": "none"}),
        "gpt-5.3-codex*": Row("gpt-5.3-codex", {"sampling_with_thinking": False}),
        "gpt-5.4*": Row("gpt-5.4", {"sampling_with_thinking": False}),
        "gpt-5.4-pro*": Row("gpt-5.4-pro", {"efforts": ["medium", "high", "xhigh"], "sampling": "none"}),
        "gpt-5.5*": Row("gpt-5.5", {"sampling_with_thinking": False}),
        "gpt-5.5-pro*": Row("gpt-5.5-pro", {"sampling": "none"}),
        "gpt-5.6*": Row("gpt-5.6", {"sampling_with_thinking": False, "thinks_with_tools": False}),
        "gpt-6*": Row("gpt-6-sol", {"sampling_with_thinking": False}),
        "gpt-6-astra*": Row("gpt-6-astra", {"sampling": "none"}),
        "gpt-6.1-sol*": Row("gpt-6.1-sol", {"sampling": "none"}),
    },
    "mistral": {
        "codestral*": Row("mistral/codestral-latest", _NO_THINKING),
        "devstral*": Row("mistral/devstral-latest"),
        "magistral*": Row("mistral/magistral-medium-latest", {"thinking": ["level"]}),
        "ministral*": Row("mistral/ministral-8b-latest", _NO_THINKING),
        "mistral-large*": Row("mistral/mistral-large-latest", _NO_THINKING),
        "mistral-large-4*": Row("mistral/mistral-large-4"),
        "mistral-medium*": Row("mistral/mistral-medium-latest"),
        "mistral-small*": Row("mistral/mistral-small-latest"),
        "open-mistral-nemo*": Row("mistral/open-mistral-nemo", {**_NO_THINKING, "images": False}),
        "pixtral*": Row("mistral/pixtral-large-latest", _NO_THINKING),
    },
    "xai": {
        "*grok*": Row("xai/grok-4.7"),
        "*grok*non-reasoning*": Row("xai/grok-4.20-non-reasoning", _NO_THINKING),
    },
    "deepseek": {
        # DeepSeek's reference, and the map: only Flash reads images.
        "deepseek*": Row("", {"prefill": True, "schema": False, "images": False}),
        "deepseek-flash*": Row("deepseek-flash", {"schema": False}),
        "deepseek-v4-flash*": Row("deepseek-v4-flash", {"schema": False}),
    },
    "cohere": {
        # cohere 7.3 and Cohere's table of models: only the Vision and Plus models read images, only A's Reasoning and
        # Plus models think.
        "c4ai-aya-expanse*": Row("", {**_NO_THINKING, "images": False}),
        "command*": Row("", {**_NO_THINKING, "images": False}),
        "command-a-plus*": Row("command-a-plus-05-2026", {"thinking": ["disabled", "budget"], "efforts": None}),
        "command-a-reasoning*": Row("", {"thinking": ["disabled", "budget"], "images": False}),
        "command-a-vision*": Row("", {**_NO_THINKING, "images": True}),
    },
}
"""The patterns by provider. The entry of a family's pattern is its newest model."""

USUAL: Final[Mapping[str, list[str]]] = {
    "openai": ["gpt-5-mini", "gpt-5.6", "gpt-6-sol"],
    "anthropic": ["claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5-5"],
    "gemini": ["gemini-flash-latest", "gemini-flash-lite-latest", "gemini-pro-latest"],
    "groq": ["openai/gpt-oss-120b"],
    "mistral": ["mistral-small-latest", "mistral-medium-latest", "mistral-large-latest"],
    "xai": ["grok-4.7"],
    "deepseek": ["deepseek-flash", "deepseek-v4-flash"],
    "cohere": ["command-a-plus-05-2026"],
    "openrouter": ["openai/gpt-5-mini"],
    "perplexity": ["sonar", "sonar-pro"],
}
"""The ids that a server without a configuration file offers, by provider; a request without `model` gets the first."""

_CLAUDE_EFFORTS: Final = ("low", "medium", "high")


def _claude(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts of a Claude: what the map does not say of one, it does not take."""
    adaptive = bool(entry.get("supports_adaptive_thinking"))
    takes_budget = entry.get("supports_legacy_thinking") or not adaptive
    thinking = [
        *(() if entry.get("thinking_always_on") else ("disabled",)),
        *(("adaptive",) if adaptive else ()),
        *(("budget",) if takes_budget else ()),
    ]
    efforts = [*_CLAUDE_EFFORTS] if entry.get("supports_output_config") else []
    efforts += [name for name in ("xhigh", "max") if entry.get(f"supports_{name}_reasoning_effort")]
    return {
        "thinking": thinking,
        "efforts": efforts,
        "sampling": "none" if entry.get("supports_sampling_params") is False else "both",
        "forced_tool": entry.get("supports_forced_tool_use", True),
        "prefill": bool(entry.get("supports_assistant_prefill")),
        "system_in_middle": bool(entry.get("supports_mid_conversation_system")),
        "schema": bool(entry.get("supports_native_structured_output")),
        **_CLAUDE,
    }


def _other(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the facts that the map says of another model."""
    facts: dict[str, Any] = {}
    efforts = entry.get("reasoning_effort_levels") or _efforts(entry)
    if efforts:
        facts["efforts"] = efforts
        facts["thinking"] = [*(("disabled",) if "none" in efforts else ()), "level"]
    if entry.get("supports_sampling_params") is False:
        facts["sampling"] = "none"
    if entry.get("supports_assistant_prefill") is not None:
        facts["prefill"] = entry["supports_assistant_prefill"]
    if entry.get("supports_response_schema") is not None:
        facts["schema"] = entry["supports_response_schema"]
    return facts


def _efforts(entry: Mapping[str, Any]) -> list[str]:
    """Returns the efforts of an entry with a switch for each effort but the three usual ones."""
    if entry.get("supports_none_reasoning_effort") is None:
        return []
    switches = {name: entry.get(f"supports_{name}_reasoning_effort") for name in ("none", "minimal", "low")}
    more = [name for name in ("xhigh", "max") if entry.get(f"supports_{name}_reasoning_effort")]
    least = [name for name in ("none", "minimal") if switches[name]]
    return [*least, *(() if switches["low"] is False else ("low",)), "medium", "high", *more]


def facts_of(provider: str, row: Row, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the facts of one row.

    Args:
        provider: The provider.
        row: The row.
        known: The map.
    """
    facts: dict[str, Any] = {}
    if row.entry:
        entry = known[row.entry]
        facts = {"max_output": entry["max_output_tokens"], "window": entry.get("max_input_tokens")}
        facts |= _claude(entry) if provider == "anthropic" else _other(entry)
        if entry.get("supports_vision") is not None:
            facts["images"] = entry["supports_vision"]
        elif provider in ("groq", "mistral"):
            facts["images"] = False  # the map marks each model of these that reads images
    elif provider == "anthropic":
        facts = {**_CLAUDE}
    facts |= row.by_hand
    return {name: facts[name] for name in FACTS if facts.get(name) is not None}


def written(known: Mapping[str, Mapping[str, Any]], version: str, date: str) -> str:
    """Returns the file.

    Args:
        known: The map.
        version: LiteLLM's version.
        date: Today.
    """
    lines = [_HEAD.format(version=version, date=date), "[usual]"]
    lines += [f"{provider} = {json.dumps(ids)}" for provider, ids in USUAL.items()]
    lines.append("")
    for provider, rows in ROWS.items():
        for pattern, row in rows.items():
            facts = facts_of(provider, row, known)
            lines.append(f"[{provider}.{json.dumps(pattern)}]")
            lines += [f"{name} = {json.dumps(value)}" for name, value in facts.items()]
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Writes the file."""
    path, version, date = sys.argv[1:]
    PAGE.write_text(written(json.loads(Path(path).read_text()), version, date))


if __name__ == "__main__":
    main()
