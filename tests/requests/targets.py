"""The providers that are judged: a model of each, the type of its requests, and what a fake of it answers.

SDKs are imported when the first request of their provider is judged: all of them take seconds.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from tests.requests.sdk_types import ANY, Member, Types

_TEXT = str | None
_SCHEMAS: dict[str, Any] = {"Parameters": ANY, "FunctionParameters": ANY}


def _openai_chat(
    more: Mapping[str, Any] | None = None,
    assistant: Mapping[str, Any] | None = None,
    **others: Mapping[str, Any],
) -> Types:
    from openai.types.chat import completion_create_params as params

    return Types(
        params.CompletionCreateParamsStreaming,
        {"": {**_STREAM, **(more or {})}, "ChatCompletionAssistantMessageParam": assistant or {}, **others},
        _SCHEMAS,
    )


def _responses(more: Mapping[str, Any] | None = None, **others: Mapping[str, Any]) -> Types:
    from openai.types.responses import response_create_params as params

    return Types(params.ResponseCreateParamsStreaming, {"": {**_STREAM, **(more or {})}, **others})


def _completions(more: Mapping[str, Any] | None = None) -> Types:
    from openai.types import completion_create_params as params

    return Types(params.CompletionCreateParamsStreaming, {"": {**_STREAM, **(more or {})}})


_STREAM: dict[str, Any] = {"stream": bool}
"""A whole answer is `stream: false`, or no such member."""


@cache
def _types_openai() -> Types:
    return _openai_chat()


def _types_azure() -> Types:
    """Azure adds `data_sources` ("On Your Data")."""
    return _openai_chat({"data_sources": list[Any]})


@cache
def _types_responses() -> Types:
    return _responses()


def _types_completions() -> Types:
    return _completions()


@cache
def _types_anthropic() -> Types:
    """The SDK's types, and sampling, which version 2023-06-01 takes; `rules.anthropic_sampling` judges the version."""
    from anthropic.types import message_create_params as params

    sampling = {"temperature": float, "top_p": float, "top_k": int}
    return Types(params.MessageCreateParamsStreaming, {"": {**_STREAM, **sampling}}, {"InputSchemaTyped": ANY})


def _types_anthropic_vertex() -> Types:
    """Vertex AI has the model in the path, and the version in the body."""
    plain = _types_anthropic()
    members = {name: member for name, member in plain.members(plain.root).items() if name != "model"}
    return Types({**members, "anthropic_version": Member(str, True)}, other={"InputSchemaTyped": ANY})


def _types_gemini() -> Types:
    """Returns the members of `GenerateContentRequest`; the SDK has a type for each of them, and none for the whole."""
    from google.genai import types

    members = {
        "contents": Member(list[types.Content], True),
        "systemInstruction": Member(types.Content, False),
        "tools": Member(list[types.Tool], False),
        "toolConfig": Member(types.ToolConfig, False),
        "safetySettings": Member(list[types.SafetySetting], False),
        "generationConfig": Member(types.GenerationConfig, False),
        "cachedContent": Member(str, False),
        "labels": Member(dict[str, str], False),
        "serviceTier": Member(str, False),
    }
    return Types(members)


def _types_groq() -> Types:
    from groq.types.chat import completion_create_params as params

    return Types(params.CompletionCreateParams, {}, _SCHEMAS)


def _types_mistral() -> Types:
    from mistralai.client import models

    return Types(models.ChatCompletionStreamRequestTypedDict)


def _types_xai() -> Types:
    """OpenAI's types and xAI's reference: search, thoughts that are sent back, deferred answers."""
    more = {"search_parameters": dict[str, Any], "deferred": bool}
    return _openai_chat(more, {"reasoning_content": _TEXT, "encrypted_content": _TEXT})


def _types_deepseek() -> Types:
    """OpenAI's types and DeepSeek's reference: thinking, thoughts that are sent back, a prefix."""
    return _openai_chat({"thinking": dict[str, Any]}, {"reasoning_content": _TEXT, "prefix": bool})


def _types_cohere() -> Types:
    from cohere.v2.raw_client import RawV2Client

    hints = typing.get_type_hints(RawV2Client.chat_stream, include_extras=True)
    members = {
        name: Member(kind, name in ("model", "messages"))
        for name, kind in hints.items()
        if name not in ("return", "request_options")
    }
    # The JSON Schema of a tool and of an answer is a mapping with any members.
    return Types({**members, "stream": Member(bool, False)})


def _types_ollama() -> Types:
    from ollama import _types

    return Types(_types.ChatRequest, {"Options": _OLLAMA}, {**_SCHEMAS, "Image": str})


def _types_ollama_generate() -> Types:
    from ollama import _types

    return Types(_types.GenerateRequest, {"Options": _OLLAMA}, {**_SCHEMAS, "Image": str})


_OLLAMA: dict[str, Any] = {"min_p": float}
"""Ollama's reference of model files; the SDK's `Options` lack it."""


def _types_openrouter() -> Types:
    """OpenAI's types and OpenRouter's reference: reasoning, routing, plugins, sampling, breakpoints of the cache."""
    details = {"reasoning": _TEXT, "reasoning_details": list[dict[str, Any]], "reasoning_content": _TEXT}
    more = {
        "reasoning": dict[str, Any],
        "include_reasoning": bool,
        "models": list[str],
        "route": str,
        "provider": dict[str, Any],
        "plugins": list[dict[str, Any]],
        "transforms": list[str],
        "usage": dict[str, Any],
        "session_id": str,
        "trace": dict[str, Any],
        "cache_control": dict[str, Any],
        "top_k": int,
        "top_a": float,
        "min_p": float,
        "repetition_penalty": float,
    }
    cached = {"cache_control": dict[str, Any]}
    return _openai_chat(
        more,
        {**details, "annotations": list[dict[str, Any]]},  # "Skip Parsing Costs" in the guide to PDFs
        ChatCompletionContentPartTextParam=cached,
        ChatCompletionToolMessageParam={"content": str | list[dict[str, Any]]},  # `ChatToolMessage` of its SDK
    )


def _types_openrouter_responses() -> Types:
    """OpenAI's types and OpenRouter's: `OpenResponsesReasoningConfig` has a budget."""
    return _responses(Reasoning={"max_tokens": int, "enabled": bool})


def _types_perplexity() -> Types:
    """OpenAI's types and Perplexity's reference: search, images, related questions."""
    more = {
        "search_mode": str,
        "search_domain_filter": list[str],
        "search_recency_filter": str,
        "search_after_date_filter": str,
        "search_before_date_filter": str,
        "last_updated_after_filter": str,
        "last_updated_before_filter": str,
        "search_language_filter": list[str],
        "web_search_options": dict[str, Any],
        "return_images": bool,
        "return_related_questions": bool,
        "image_domain_filter": list[str],
        "image_format_filter": list[str],
        "disable_search": bool,
        "enable_search_classifier": bool,
        "media_response": dict[str, Any],
        "language_preference": str,
        "top_k": int,
    }
    from openai.types.chat import completion_create_params as params

    return Types(
        params.CompletionCreateParamsStreaming,
        {"": {**_STREAM, **more}},
        # A file is `file_url` with an address or bare base64.
        {**_SCHEMAS, "File": _FILE_URL},
    )


_FILE_URL: dict[str, Member] = {
    "type": Member(Literal["file_url"], True),
    "file_url": Member(dict[str, str], True),
    "file_name": Member(str, False),
}


@cache
def _types_compatible() -> Types:
    """OpenAI's types, and what vLLM, SGLang and llama.cpp add: sampling, thoughts, Google's signatures."""
    more = {"top_k": int, "min_p": float, "repetition_penalty": float, "chat_template_kwargs": dict[str, Any]}
    return _openai_chat(
        more,
        {"reasoning_content": _TEXT, "reasoning": _TEXT},
        ChatCompletionMessageFunctionToolCallParam={"extra_content": dict[str, Any]},
    )


def _types_compatible_completions() -> Types:
    return _completions({"top_k": int, "min_p": float, "repetition_penalty": float})


@dataclass(frozen=True)
class Target:
    """One API of a provider with one model.

    Attributes:
        name: The name in lists; its rules have the same.
        provider: The name in the configuration.
        model: The model's id.
        dialect: The reader of its requests in `meanings.READERS`, and its `ANSWERS`.
        door: The door whose requests it gets as they are, if it has one.
        types: Loads the type of its requests.
        lacks: Meanings that the provider does not have although its type has a member for them.
        most_stops: The most stop sequences, 0 for any.
        one_of: Settings of which the model takes one.
        takes_signatures: Authors whose signatures it may get besides its own.
    """

    name: str
    provider: str
    model: str
    dialect: str
    door: str
    types: Callable[[], Types]
    lacks: frozenset[str] = frozenset()
    most_stops: int = 0
    one_of: frozenset[str] = frozenset()
    takes_signatures: frozenset[str] = frozenset()


_OTHER_MODELS = {"anthropic-adaptive": "anthropic", "groq-llama": "groq", "openai:responses-4o": "openai:responses"}
"""The provider of each target with another model of a target before it."""


def _target(
    name: str,
    model: str,
    dialect: str,
    types: Callable[[], Types],
    lacks: str = "",
    *,
    most_stops: int = 0,
    one_of: str = "",
    takes: str = "",
) -> Target:
    provider = _OTHER_MODELS.get(name, name)
    door = dialect if dialect in ("chat", "responses", "messages") else ""
    lacking, apart, signed = (frozenset(each.split()) for each in (lacks, one_of, takes))
    return Target(name, provider, model, dialect, door, types, lacking, most_stops, apart, signed)


# `web_search_options` are for search models (OpenAI's reference). The others: meanings that the reference of an API
# refuses or does not have, beside OpenAI's types which have them.
_XAI = "logit_bias metadata store verbosity prediction modalities safety_identifier web_search cache_key"
_DEEPSEEK = (
    "metadata store verbosity prediction modalities safety_identifier web_search cache_key parallel seed n logit_bias "
    "service_tier user schema schema_strict form effort"
)
_PERPLEXITY = (
    "metadata store verbosity prediction modalities safety_identifier cache_key parallel seed n logit_bias "
    "service_tier user tool_choice stop logprobs top_logprobs form tools"
)
_GROQ_CHAT = "metadata store n logprobs top_logprobs logit_bias"
_GROQ = "store cache_key logprobs top_logprobs verbosity safety_identifier truncation"
_ROUTED = "metadata store cache_key prediction modalities web_search safety_identifier n"

_SAMPLING = "temperature top_p"
# Chat's `store` keeps an answer for evaluations, the member of this name in the Responses API for later requests.
_STORED = "store"

# A client's own body has no author of a signature, only its form. These have OpenAI's models behind them, so that they
# may be their own; Google's endpoint is an openai-compatible server; OpenRouter names authors as this gateway does. If
# the upstream refuses them, it is asked without them (`integration/test_retry.py`).
_OPENAIS = "openai"
_ROUTED_SIGNATURES = "openai anthropic"

TARGETS: tuple[Target, ...] = (
    _target("openai", "gpt-5.2", "chat", _types_openai, "web_search", most_stops=4),
    _target("openai:responses", "gpt-5.2", "responses", _types_responses, _STORED),
    _target("openai:responses-4o", "gpt-4o", "responses", _types_responses, _STORED + " effort"),
    _target("openai:completions", "gpt-3.5-turbo-instruct", "completions", _types_completions, most_stops=4),
    _target("azure", "gpt-5.2", "chat", _types_azure, "web_search", most_stops=4),
    _target("azure:responses", "gpt-5.2", "responses", _types_responses, _STORED, takes=_OPENAIS),
    _target("anthropic", "claude-sonnet-4-5", "messages", _types_anthropic, "effort", one_of=_SAMPLING),
    _target("anthropic-adaptive", "claude-opus-4-7", "messages", _types_anthropic, "temperature top_p top_k budget"),
    _target("anthropic:vertex", "claude-sonnet-4-5", "messages", _types_anthropic_vertex, "effort", one_of=_SAMPLING),
    _target("gemini", "gemini-3-pro-preview", "gemini", _types_gemini, most_stops=5),
    _target("gemini:vertex", "gemini-3-pro-preview", "gemini", _types_gemini, most_stops=5),
    _target("groq", "openai/gpt-oss-120b", "chat", _types_groq, _GROQ_CHAT, most_stops=4),
    _target("groq-llama", "llama-3.3-70b-versatile", "chat", _types_groq, _GROQ_CHAT + " effort budget", most_stops=4),
    _target("groq:responses", "openai/gpt-oss-120b", "responses", _types_responses, _GROQ),
    _target("mistral", "mistral-medium-latest", "chat", _types_mistral),
    _target("xai", "grok-4", "chat", _types_xai, _XAI, most_stops=4),
    _target("xai:responses", "grok-4", "responses", _types_responses, "safety_identifier truncation verbosity store"),
    _target("deepseek", "deepseek-chat", "chat", _types_deepseek, _DEEPSEEK),
    _target("deepseek:responses", "deepseek-chat", "responses", _types_responses, _DEEPSEEK + " truncation"),
    _target("cohere", "command-a-reasoning-08-2025", "cohere", _types_cohere, "logprobs", most_stops=5),
    _target("ollama", "qwen3", "ollama", _types_ollama),
    _target("ollama:generate", "qwen3", "ollama", _types_ollama_generate),
    _target("openrouter", "openai/gpt-5.2", "chat", _types_openrouter, _ROUTED, takes=_ROUTED_SIGNATURES),
    _target(
        "openrouter:responses",
        "openai/gpt-5.2",
        "responses",
        _types_openrouter_responses,
        _ROUTED + " logprobs",
        takes=_ROUTED_SIGNATURES,
    ),
    _target("perplexity", "sonar-pro", "chat", _types_perplexity, _PERPLEXITY),
    _target("perplexity:responses", "sonar-pro", "responses", _types_responses, _PERPLEXITY + " truncation"),
    _target("openai-compatible", "qwen", "chat", _types_compatible, "web_search", takes="gemini"),
    _target("openai-compatible:responses", "qwen", "responses", _types_responses, _STORED, takes=_OPENAIS),
    _target("openai-compatible:completions", "qwen", "completions", _types_compatible_completions),
)
"""Every API of `gai_fast/providers` that has an upstream; `test_every_provider_is_judged` keeps it so."""

MEMBERS: dict[str, dict[str, tuple[str, ...]]] = {
    "chat": {
        "temperature": ("temperature",),
        "top_p": ("top_p",),
        "top_k": ("top_k",),
        "min_p": ("min_p",),
        "frequency_penalty": ("frequency_penalty",),
        "presence_penalty": ("presence_penalty",),
        "repetition_penalty": ("repetition_penalty",),
        "max_tokens": ("max_tokens", "max_completion_tokens"),
        "stop": ("stop",),
        "seed": ("seed", "random_seed"),
        "logprobs": ("logprobs",),
        "top_logprobs": ("top_logprobs",),
        "logit_bias": ("logit_bias",),
        "user": ("user",),
        "safety_identifier": ("safety_identifier",),
        "effort": ("reasoning_effort", "reasoning"),
        "budget": ("reasoning",),
        "verbosity": ("verbosity",),
        "service_tier": ("service_tier",),
        "parallel": ("parallel_tool_calls",),
        "tool_choice": ("tool_choice",),
        "form": ("response_format",),
        "schema": ("response_format",),
        "schema_strict": ("response_format",),
        "metadata": ("metadata",),
        "store": ("store",),
        "cache_key": ("prompt_cache_key",),
        "prediction": ("prediction",),
        "web_search": ("web_search_options",),
        "tools": ("tools",),
        "tools.strict": ("tools",),
    },
    "responses": {
        "temperature": ("temperature",),
        "top_p": ("top_p",),
        "max_tokens": ("max_output_tokens",),
        "logprobs": ("include",),
        "top_logprobs": ("top_logprobs",),
        "user": ("user",),
        "safety_identifier": ("safety_identifier",),
        "effort": ("reasoning",),
        "verbosity": ("text",),
        "service_tier": ("service_tier",),
        "parallel": ("parallel_tool_calls",),
        "tool_choice": ("tool_choice",),
        "form": ("text",),
        "schema": ("text",),
        "schema_strict": ("text",),
        "metadata": ("metadata",),
        "store": ("store",),
        "cache_key": ("prompt_cache_key",),
        "web_search": ("tools",),
        "truncation": ("truncation",),
        "tools": ("tools",),
        "tools.strict": ("tools",),
    },
    "messages": {
        "temperature": ("temperature",),
        "top_p": ("top_p",),
        "top_k": ("top_k",),
        "max_tokens": ("max_tokens",),
        "stop": ("stop_sequences",),
        "user": ("metadata",),
        "effort": ("output_config",),
        "budget": ("thinking",),
        "parallel": ("tool_choice",),
        "tool_choice": ("tool_choice",),
        "schema": ("output_config",),
        "web_search": ("tools",),
        "tools": ("tools",),
        "tools.strict": ("tools",),
    },
    "gemini": dict.fromkeys(
        (
            "temperature top_p top_k max_tokens stop seed frequency_penalty presence_penalty logprobs top_logprobs "
            "effort form schema"
        ).split(),
        ("generationConfig",),
    )
    | {"tool_choice": ("toolConfig",), "web_search": ("tools",), "tools": ("tools",)},
    "cohere": {
        "temperature": ("temperature",),
        "top_p": ("p",),
        "top_k": ("k",),
        "frequency_penalty": ("frequency_penalty",),
        "presence_penalty": ("presence_penalty",),
        "max_tokens": ("max_tokens",),
        "stop": ("stop_sequences",),
        "seed": ("seed",),
        "logprobs": ("logprobs",),
        "budget": ("thinking",),
        "form": ("response_format",),
        "schema": ("response_format",),
        "tools": ("tools",),
    },
    "ollama": {
        **dict.fromkeys(
            (
                "temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty max_tokens stop "
                "seed"
            ).split(),
            ("options",),
        ),
        "effort": ("think",),
        "form": ("format",),
        "schema": ("format",),
        "logprobs": ("logprobs",),
        "top_logprobs": ("top_logprobs",),
        "tools": ("tools",),
    },
    "completions": {
        "temperature": ("temperature",),
        "top_p": ("top_p",),
        "frequency_penalty": ("frequency_penalty",),
        "presence_penalty": ("presence_penalty",),
        "max_tokens": ("max_tokens",),
        "stop": ("stop",),
        "seed": ("seed",),
        "user": ("user",),
        "logit_bias": ("logit_bias",),
        "top_k": ("top_k",),
        "min_p": ("min_p",),
        "repetition_penalty": ("repetition_penalty",),
    },
}
"""The members of a dialect that can hold a meaning: a refusal is false if the provider has the member."""
