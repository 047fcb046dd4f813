"""What a request means, whatever dialect it is written in.

`read` turns a request of any dialect into one `Meaning`: its settings by a common name, and its conversation. The
readers are written from the providers' references and share nothing with the package. A member that asks for the
default has no meaning.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NAMES: dict[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p", "p", "topP"),
    "top_k": ("top_k", "k", "topK"),
    "min_p": ("min_p",),
    "frequency_penalty": ("frequency_penalty", "frequencyPenalty"),
    "presence_penalty": ("presence_penalty", "presencePenalty"),
    "repetition_penalty": ("repetition_penalty", "repeat_penalty"),
    "max_tokens": ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict", "maxOutputTokens"),
    "stop": ("stop", "stop_sequences", "stopSequences"),
    "seed": ("seed", "random_seed"),
    "n": ("n", "candidateCount"),
    "logprobs": ("logprobs", "include", "responseLogprobs"),
    "top_logprobs": ("top_logprobs", "logprobs"),
    "logit_bias": ("logit_bias",),
    "user": ("user", "metadata", "user_id"),
    "safety_identifier": ("safety_identifier",),
    "effort": ("reasoning_effort", "reasoning", "output_config", "thinking", "think", "thinkingConfig", "effort"),
    "budget": ("reasoning", "thinking", "thinkingConfig", "budget_tokens"),
    "thinking": ("thinking", "reasoning", "reasoning_effort", "thinkingConfig"),
    "summary": ("reasoning", "thinking", "reasoning_format", "include_reasoning", "thinkingConfig"),
    "verbosity": ("verbosity", "text"),
    "service_tier": ("service_tier",),
    "parallel": ("parallel_tool_calls", "tool_choice"),
    "tool_choice": ("tool_choice", "toolConfig", "function_call"),
    "form": ("response_format", "text", "output_config", "format", "responseSchema"),
    "schema": ("response_format", "text", "output_config", "format", "responseSchema"),
    "schema_strict": ("response_format", "text", "strict"),
    "metadata": ("metadata",),
    "store": ("store",),
    "cache_key": ("prompt_cache_key", "cache"),
    "prediction": ("prediction",),
    "web_search": ("web_search_options", "tools", "web_search"),
    "modalities": ("modalities", "audio"),
    "truncation": ("truncation",),
}
"""The members of all dialects that have a meaning; a refusal names one of them."""

_CONTENT = ("messages", "input", "content", "contents", "system", "instructions", "query", "parts", "prompt", "context")


@dataclass
class Meaning:
    """What a request asks for."""

    settings: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, tuple[str, tuple[str, ...], bool | None]] = field(default_factory=dict)
    """Description, properties and `strict`, by name."""
    said: list[tuple[str, str, Any]] = field(default_factory=list)
    """The conversation: role, kind and value. A result's role is the number of its call."""

    def text(self, role: str) -> str:
        """Returns all text of a role."""
        return "\n".join(str(value) for who, kind, value in self.said if who == role and kind == "text")


def _closed(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            return value
    return _closed(value or {})


def _properties(schema: Any) -> tuple[str, ...]:
    """Returns the names of all properties of a schema."""
    found: list[str] = []
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            found += properties
        for name, each in schema.items():
            if name == "properties" and isinstance(each, dict):
                for inner in each.values():
                    found += _properties(inner)
            elif isinstance(each, dict | list):
                found += _properties(each)
    elif isinstance(schema, list):
        for each in schema:
            found += _properties(each)
    return tuple(sorted(found))


class _Reader:
    """Collects one request."""

    def __init__(self) -> None:
        self.meaning = Meaning()
        self._calls: dict[str, int] = {}
        self._number = 0
        self._unpaired: list[int] = []

    def set(self, name: str, value: Any, *neutral: Any) -> None:
        """Stores a setting, unless it asks for the default."""
        if value is not None and value not in neutral and value not in ([], {}):
            self.meaning.settings[name] = value

    def same(self, body: Mapping[str, Any], *names: str) -> None:
        for name in names:
            self.set(name, body.get(name))

    def stop(self, value: Any) -> None:
        self.set("stop", [value] if isinstance(value, str) else value)

    def say(self, role: str, kind: str, value: Any) -> None:
        if value not in (None, "", []):
            self.meaning.said.append((role, kind, value))

    def call(self, identifier: Any, name: Any, arguments: Any) -> None:
        self._calls[str(identifier)] = self._number
        self._unpaired.append(self._number)
        self._number += 1
        self.say("assistant", "call", f"{name} {_arguments(arguments)}")

    def result(self, identifier: Any, texts: str, media: Iterable[str] = (), is_error: bool = False) -> None:
        if identifier is None:  # Ollama's and Gemini's results have the order of their calls
            number: Any = self._unpaired.pop(0) if self._unpaired else "?"
        else:
            number = self._calls.get(str(identifier), "?")
        self.meaning.said.append((f"result {number}", "text", texts))
        for each in media:
            self.say(f"result {number}", "media", each)
        if is_error:
            self.say(f"result {number}", "error", True)

    def tool(self, name: Any, description: Any, schema: Any, strict: bool | None = None) -> None:
        self.meaning.tools[str(name)] = (str(description or ""), _properties(schema), strict or None)

    def choose(self, choice: Any) -> None:
        """Stores a choice of tools: a word, or a name in a tuple."""
        self.set("tool_choice", choice, "auto", "none" if not self.meaning.tools else "auto")


def _texts(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(
        str(part.get("text") or part.get("refusal") or "")
        for part in content
        if isinstance(part, dict)
        and part.get("type", "text") in ("text", "input_text", "output_text", "refusal", "summary_text")
    )


def _data(url: str) -> str:
    return url.partition(";base64,")[2] or url if url.startswith("data:") else url


def _media(content: Any) -> Iterator[tuple[str, str]]:
    """Yields kind and address or data of the media in content of any dialect."""
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        kind = str(part.get("type"))
        if kind in ("image_url", "video_url", "document_url", "input_image", "file_url"):
            url = part.get(kind) or part.get("image_url")
            url = url.get("url") if isinstance(url, dict) else url
            yield kind.partition("_")[0].replace("input", "image"), _data(str(url or part.get("file_id")))
        elif kind == "input_audio":
            audio = part["input_audio"]
            yield "audio", audio["data"] if isinstance(audio, dict) else str(audio)
        elif kind in ("file", "input_file"):
            file = part.get("file") if isinstance(part.get("file"), dict) else part
            yield (
                "file",
                _data(
                    str(
                        file.get("file_data")
                        or file.get("file_url")
                        or file.get("file_id")
                        or file.get("data")
                        or file.get("url")
                    )
                ),
            )
        elif kind in ("image", "document", "audio", "video"):
            source = part.get("source")
            if isinstance(source, dict):
                value = source.get("data") or source.get("url") or source.get("file_id") or source.get("value")
                value = value or _texts(source.get("content"))
            else:
                value = part.get("data") or part.get("url") or part.get("file_id")
            yield kind, _data(str(value))


def _content(read: _Reader, role: str, content: Any) -> None:
    if isinstance(content, str):
        read.say(role, "text", content)
        return
    for part in content if isinstance(content, list) else ():
        texts = _texts([part])
        if texts:
            read.say(role, "text", texts)
        for _, value in _media([part]):
            read.say(role, "media", value)


# -- chat --


def chat(body: Mapping[str, Any]) -> Meaning:
    """Reads the chat dialect, with the additions of its providers."""
    read = _Reader()
    for tool in body.get("tools") or ():
        function = tool.get("function")
        if function:
            strict = function.get("strict", body.get("strict_tools"))  # the second is Cohere's, of all tools
            read.tool(function.get("name"), function.get("description"), function.get("parameters"), strict)
    for function in body.get("functions") or ():
        read.tool(function.get("name"), function.get("description"), function.get("parameters"))
    choice = body.get("tool_choice", body.get("function_call"))
    if isinstance(choice, dict):
        name = (choice.get("function") or choice).get("name")
        choice = (name,) if name else choice
    read.choose(
        {"any": "required", "REQUIRED": "required", "NONE": "none"}.get(choice, choice)
        if isinstance(choice, str)
        else choice
    )
    for name in "temperature top_p top_k min_p seed user safety_identifier verbosity logit_bias metadata".split():
        read.set(name, body.get(name))
    read.set("seed", body.get("random_seed"))
    read.set("top_p", body.get("p"))
    read.set("top_k", body.get("k"))
    for name in ("frequency_penalty", "presence_penalty", "repetition_penalty"):
        read.set(name, body.get(name), 0)
    read.set("max_tokens", body.get("max_tokens"))
    read.set("max_tokens", body.get("max_completion_tokens"))
    read.stop(body.get("stop", body.get("stop_sequences")))
    read.set("n", body.get("n"), 1)
    read.set("logprobs", body.get("logprobs"), False)
    read.set("top_logprobs", body.get("top_logprobs"), 0)
    read.set("effort", body.get("reasoning_effort"))
    reasoning = body.get("reasoning")
    if isinstance(reasoning, dict):
        read.set("effort", reasoning.get("effort"))
        read.set("budget", reasoning.get("max_tokens"))
        read.set("thinking", reasoning.get("enabled"), False)
    thinking = body.get("thinking")
    if isinstance(thinking, dict):
        read.set("budget", thinking.get("token_budget"))
        if thinking.get("type") == "disabled":
            read.set("effort", "none")
    read.set("service_tier", body.get("service_tier"), "auto", "default")
    read.set("parallel", body.get("parallel_tool_calls"), True)
    read.set("store", body.get("store"), False)
    read.set("cache_key", body.get("prompt_cache_key"))
    read.same(body, "prediction")
    read.set("modalities", body.get("modalities"), ["text"])
    searches = [tool for tool in body.get("tools") or () if tool.get("type") == "browser_search"]  # Groq's
    searches += [plugin for plugin in body.get("plugins") or () if plugin.get("id") == "web"]  # OpenRouter's
    if body.get("web_search_options") is not None or searches:
        read.meaning.settings["web_search"] = True
    form = body.get("response_format")
    if isinstance(form, dict):
        given = form.get("json_schema")
        schema = form.get("schema")
        if isinstance(given, dict):
            schema = (
                given.get("schema", given.get("schema_definition"))
                if "schema" in given or "schema_definition" in given
                else given
            )
            read.set("schema_strict", given.get("strict"), False)
        if schema is not None:
            read.set("schema", _properties(schema))
        read.set("form", {"json_object": "json", "json_schema": "json"}.get(form.get("type"), form.get("type")), "text")
    for message in body.get("messages") or ():
        _chat_message(read, message)
    return read.meaning


def _chat_message(read: _Reader, message: Mapping[str, Any]) -> None:
    role = {"developer": "system"}.get(message.get("role"), str(message.get("role")))
    content = message.get("content")
    if role in ("tool", "function"):
        media = [value for _, value in _media(content)]
        content = (
            content
            if isinstance(content, str)
            else [
                each["document"]["data"]
                if each.get("type") == "document" and isinstance(each.get("document"), dict)
                else each
                for each in content or ()
            ]
        )
        texts = (
            "\n".join(_texts([each]) if isinstance(each, dict) else _closed(each) for each in content)
            if isinstance(content, list)
            else str(content)
        )
        read.result(message.get("tool_call_id") if role == "tool" else message.get("name"), texts, media)
        return
    _content(read, role, content)
    read.say(role, "text", message.get("refusal"))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or call.get("custom") or {}
        read.call(call.get("id"), function.get("name"), function.get("arguments", function.get("input")))
    legacy = message.get("function_call")
    if legacy:
        read.call(legacy.get("name"), legacy.get("name"), legacy.get("arguments"))


# -- Responses --


def responses(body: Mapping[str, Any]) -> Meaning:
    """Reads the Responses dialect."""
    read = _Reader()
    given = body.get("input")
    added = [item["tools"] for item in given if item.get("type") == "additional_tools"] if type(given) is list else []
    for tool in itertools.chain(body.get("tools") or (), *added):
        if tool.get("type") == "function":
            read.tool(tool.get("name"), tool.get("description"), tool.get("parameters"), tool.get("strict"))
        elif tool.get("type") == "namespace":
            for at, each in enumerate(tool["tools"]):
                described = "\n\n".join([*([tool["description"]] if at == 0 else []), each["description"]])
                read.tool(f"{tool['name']}{each['name']}", described, each.get("parameters"), each.get("strict"))
        elif str(tool.get("type")).startswith("web_search"):
            read.meaning.settings["web_search"] = True
    choice = body.get("tool_choice")
    read.choose((choice.get("name"),) if isinstance(choice, dict) and choice.get("name") else choice)
    for name in "temperature top_p top_k user safety_identifier metadata".split():
        read.set(name, body.get(name))
    read.set("top_logprobs", body.get("top_logprobs"), 0)
    read.set("logprobs", "message.output_text.logprobs" in (body.get("include") or ()), False)
    for name in ("frequency_penalty", "presence_penalty"):
        read.set(name, body.get(name), 0)
    read.set("max_tokens", body.get("max_output_tokens"))
    read.set("service_tier", body.get("service_tier"), "auto", "default")
    read.set("parallel", body.get("parallel_tool_calls"), True)
    read.set("store", body.get("store"), False)
    read.set("cache_key", body.get("prompt_cache_key"))
    read.set("truncation", body.get("truncation"), "disabled")
    reasoning = body.get("reasoning") or {}
    read.set("effort", reasoning.get("effort"))
    read.set("budget", reasoning.get("max_tokens"))
    text = body.get("text") or {}
    read.set("verbosity", text.get("verbosity"))
    form = text.get("format") or {}
    if form.get("schema") is not None:
        read.set("schema", _properties(form["schema"]))
    read.set("schema_strict", form.get("strict"), False)
    read.set("form", {"json_object": "json", "json_schema": "json"}.get(form.get("type"), form.get("type")), "text")
    read.say("system", "text", body.get("instructions"))
    given = body.get("input")
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given or ():
        kind = item.get("type", "message")
        if kind == "message":
            _content(read, {"developer": "system"}.get(item.get("role"), str(item.get("role"))), item.get("content"))
        elif kind in ("function_call", "custom_tool_call"):
            name = f"{item.get('namespace') or ''}{item.get('name')}"
            read.call(item.get("call_id"), name, item.get("arguments", item.get("input")))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            output = item.get("output")
            media = [value for _, value in _media(output)]
            read.result(item.get("call_id"), _texts(output), media)
    return read.meaning


# -- Messages --


def messages(body: Mapping[str, Any]) -> Meaning:
    """Reads Anthropic's Messages."""
    read = _Reader()
    for tool in body.get("tools") or ():
        if tool.get("type", "custom") == "custom":
            read.tool(tool.get("name"), tool.get("description"), tool.get("input_schema"), tool.get("strict"))
        elif str(tool["type"]).startswith("web_search"):
            read.meaning.settings["web_search"] = True
    choice = body.get("tool_choice") or {}
    kind = choice.get("type")
    read.choose((choice.get("name"),) if kind == "tool" else {"any": "required"}.get(kind, kind))
    read.set("parallel", False if choice.get("disable_parallel_tool_use") else None)
    for name in ("temperature", "top_p", "top_k", "max_tokens"):
        read.set(name, body.get(name))
    read.stop(body.get("stop_sequences"))
    read.set("user", (body.get("metadata") or {}).get("user_id"))
    read.set("service_tier", body.get("service_tier"), "auto", "standard_only")
    thinking = body.get("thinking") or {}
    read.set("budget", thinking.get("budget_tokens"))
    if thinking.get("type") == "disabled":
        read.set("effort", "none")
    read.set("thinking", "adaptive" if thinking.get("type") == "adaptive" else None)
    output = body.get("output_config") or {}
    read.set("effort", output.get("effort"))
    form = output.get("format") or {}
    if form.get("schema") is not None:
        read.set("schema", _properties(form["schema"]))
        read.set("form", "json")
    read.say("system", "text", _texts(body.get("system")))
    for message in body.get("messages") or ():
        content = message.get("content")
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
            kind = block.get("type")
            if kind == "tool_use":
                read.call(block.get("id"), block.get("name"), block.get("input"))
            elif kind == "tool_result":
                inner = block.get("content")
                media = [value for _, value in _media(inner)]
                read.result(block.get("tool_use_id"), _texts(inner), media, bool(block.get("is_error")))
            else:
                _content(read, str(message.get("role")), [block])
    return read.meaning


# -- Gemini --


def gemini(body: Mapping[str, Any]) -> Meaning:
    """Reads `generateContent`."""
    read = _Reader()
    calling = (body.get("toolConfig") or {}).get("functionCallingConfig") or {}
    strict = calling.get("mode") in ("ANY", "VALIDATED")  # of all tools ("ensures function schema adherence")
    for tool in body.get("tools") or ():
        for function in tool.get("functionDeclarations") or ():
            schema = function.get("parametersJsonSchema", function.get("parameters"))
            read.tool(function.get("name"), function.get("description"), schema, strict)
        if "googleSearch" in tool:
            read.meaning.settings["web_search"] = True
    read.set("service_tier", body.get("serviceTier"))
    names = calling.get("allowedFunctionNames")
    mode = {"ANY": "required", "NONE": "none", "AUTO": "auto", "VALIDATED": "auto"}.get(calling.get("mode"))
    read.choose((names[0],) if names and len(names) == 1 else mode)
    config = body.get("generationConfig") or {}
    read.set("temperature", config.get("temperature"))
    read.set("top_p", config.get("topP"))
    read.set("top_k", config.get("topK"))
    read.set("max_tokens", config.get("maxOutputTokens"))
    read.stop(config.get("stopSequences"))
    read.set("seed", config.get("seed"))
    read.set("n", config.get("candidateCount"), 1)
    read.set("frequency_penalty", config.get("frequencyPenalty"))
    read.set("presence_penalty", config.get("presencePenalty"))
    read.set("logprobs", config.get("responseLogprobs"), False)
    read.set("top_logprobs", config.get("logprobs"))
    thinking = config.get("thinkingConfig") or {}
    read.set("budget", thinking.get("thinkingBudget"))
    level = thinking.get("thinkingLevel")
    read.set("effort", level and str(level).lower())
    read.set("form", "json" if config.get("responseMimeType") == "application/json" else None)
    schema = config.get("responseJsonSchema", config.get("responseSchema"))
    read.set("schema", _properties(schema) if schema is not None else None)
    _gemini_parts(read, "system", (body.get("systemInstruction") or {}).get("parts"))
    for content in body.get("contents") or ():
        _gemini_parts(read, {"model": "assistant"}.get(content.get("role"), "user"), content.get("parts"))
    return read.meaning


def _gemini_parts(read: _Reader, role: str, parts: Any) -> None:
    for part in parts or ():
        if part.get("thought"):
            continue
        read.say(role, "text", part.get("text"))
        for name, key in (("inlineData", "data"), ("fileData", "fileUri")):
            if name in part:
                read.say(role, "media", part[name].get(key))
        if "functionCall" in part:
            read.call(
                part["functionCall"].get("id"), part["functionCall"].get("name"), part["functionCall"].get("args")
            )
        if "functionResponse" in part:
            result = part["functionResponse"]
            response = result.get("response")
            media = [
                str((each.get("inlineData") or each.get("fileData") or {}).get("data"))
                for each in result.get("parts") or ()
            ]
            text = (
                "\n".join(str(each) if isinstance(each, str) else _closed(each) for each in (response or {}).values())
                if isinstance(response, dict)
                else ""
            )
            read.result(None, f"{text}\n{_closed(response)}", media, isinstance(response, dict) and "error" in response)


# -- Ollama, Completions --


def ollama(body: Mapping[str, Any]) -> Meaning:
    """Reads `/api/chat` and `/api/generate`."""
    read = _Reader()
    for tool in body.get("tools") or ():
        function = tool.get("function") or {}
        read.tool(function.get("name"), function.get("description"), function.get("parameters"))
    options = body.get("options") or {}
    for name in ("temperature", "top_p", "top_k", "min_p", "seed"):
        read.set(name, options.get(name))
    for name in ("frequency_penalty", "presence_penalty"):
        read.set(name, options.get(name))
    read.set("repetition_penalty", options.get("repeat_penalty"))
    read.set("max_tokens", options.get("num_predict"))
    read.stop(options.get("stop"))
    read.set("logprobs", body.get("logprobs"), False)
    read.set("top_logprobs", body.get("top_logprobs"), 0)
    think = body.get("think")
    read.set("effort", "none" if think is False else think, True)
    form = body.get("format")
    if form:
        read.set("form", "json")
        read.set("schema", _properties(form) if isinstance(form, dict) else None)
    read.say("system", "text", body.get("system"))
    read.say("user", "text", body.get("prompt"))
    for image in body.get("images") or ():
        read.say("user", "media", image)
    for message in body.get("messages") or ():
        role = str(message.get("role"))
        if role == "tool":
            read.result(None, str(message.get("content")), list(message.get("images") or ()))
            continue
        read.say(role, "text", message.get("content"))
        for image in message.get("images") or ():
            read.say(role, "media", image)
        for call in message.get("tool_calls") or ():
            read.call(None, call["function"].get("name"), call["function"].get("arguments"))
    return read.meaning


def completions(body: Mapping[str, Any]) -> Meaning:
    """Reads the legacy Completions: the conversation is one prompt."""
    read = _Reader()
    for name in "temperature top_p top_k min_p repetition_penalty seed max_tokens user logit_bias".split():
        read.set(name, body.get(name))
    for name in ("frequency_penalty", "presence_penalty"):
        read.set(name, body.get(name), 0)
    read.stop(body.get("stop"))
    read.set("n", body.get("n"), 1)
    prompt = body.get("prompt")
    for role in ("system", "user", "assistant"):
        read.say(role, "text", prompt if isinstance(prompt, str) else _closed(prompt))
    return read.meaning


# -- gai, Vercel, AG-UI --


def gai(body: Mapping[str, Any]) -> Meaning:
    """Reads the native request (docs/http-api.md)."""
    read = _Reader()
    _native(read, body)
    read.say("system", "text", body.get("system"))
    for message in body.get("messages") or ():
        role, content = str(message.get("role")), message.get("content")
        if role == "tool":
            media = [value for _, value in _media(content)]
            read.result(message.get("call_id"), _texts(content), media, bool(message.get("is_error")))
            continue
        if isinstance(content, str):
            read.say(role, "text", content)
            continue
        for part in content or ():
            if part.get("type") == "tool_call":
                read.call(part.get("call_id"), part.get("name"), part.get("input"))
            else:
                _content(read, role, [part])
    read.say("user", "text", body.get("query"))
    return read.meaning


def _native(read: _Reader, body: Mapping[str, Any]) -> None:
    for tool in body.get("tools") or ():
        if tool.get("type", "function") == "function" and "name" in tool:
            read.tool(tool.get("name"), tool.get("description"), tool.get("parameters"), tool.get("strict"))
        elif tool.get("type") == "web_search":
            read.meaning.settings["web_search"] = True
    choice = body.get("tool_choice")
    read.choose((choice["name"],) if isinstance(choice, dict) else choice)
    for name in (
        "temperature top_p top_k min_p seed user safety_identifier verbosity logit_bias metadata max_tokens "
        "repetition_penalty"
    ).split():
        read.set(name, body.get(name))
    for name in ("frequency_penalty", "presence_penalty"):
        read.set(name, body.get(name), 0)
    read.stop(body.get("stop"))
    read.set("logprobs", body.get("logprobs"), False)
    read.set("top_logprobs", body.get("top_logprobs"), 0)
    read.set("service_tier", body.get("service_tier"), "auto", "default")
    read.set("parallel", body.get("parallel_tool_calls"), True)
    read.set("cache_key", (body.get("cache") or {}).get("key") if isinstance(body.get("cache"), dict) else None)
    reasoning = body.get("reasoning") or {}
    read.set("effort", reasoning.get("effort"))
    read.set("budget", reasoning.get("max_tokens"))
    form = body.get("response_format") or {}
    read.set("form", {"json_schema": "json"}.get(form.get("type"), form.get("type")), "text")
    read.set("schema", _properties(form["schema"]) if form.get("schema") is not None else None)
    read.set("schema_strict", form.get("strict"), False)


def vercel(body: Mapping[str, Any]) -> Meaning:
    """Reads the AI SDK's `UIMessage`s."""
    read = _Reader()
    _native(read, body)
    for message in body.get("messages") or ():
        role = str(message.get("role"))
        for part in message.get("parts") or ():
            kind = str(part.get("type"))
            if kind == "text":
                read.say(role, "text", part.get("text"))
            elif kind == "file":
                read.say(role, "media", _data(str(part.get("url"))))
            elif (kind.startswith("tool-") or kind == "dynamic-tool") and part.get("state") != "input-streaming":
                name = part.get("toolName") or kind.removeprefix("tool-")
                read.call(part.get("toolCallId"), name, part.get("input"))
                if part.get("state") == "output-available":
                    output = part.get("output")
                    read.result(
                        part.get("toolCallId"),
                        output
                        if isinstance(output, str)
                        else json.dumps(output, ensure_ascii=False, separators=(",", ":")),
                    )
                elif part.get("state") == "output-error":
                    read.result(part.get("toolCallId"), str(part.get("errorText")), (), True)
    return read.meaning


def agui(body: Mapping[str, Any]) -> Meaning:
    """Reads AG-UI's `RunAgentInput`."""
    read = _Reader()
    for tool in body.get("tools") or ():
        read.tool(tool.get("name"), tool.get("description"), tool.get("parameters"))
    _native(read, body.get("forwardedProps") or {})
    read.say("system", "text", (body.get("forwardedProps") or {}).get("system"))
    for entry in body.get("context") or ():
        read.say("system", "text", entry.get("value"))
    for message in body.get("messages") or ():
        role = {"developer": "system"}.get(message.get("role"), str(message.get("role")))
        if role == "tool":
            read.result(
                message.get("toolCallId"),
                _texts(message.get("content")) or str(message.get("error")),
                [],
                "error" in message,
            )
            continue
        if role in ("reasoning", "activity"):
            continue
        _content(read, role, message.get("content"))
        for call in message.get("toolCalls") or ():
            read.call(call.get("id"), call["function"].get("name"), call["function"].get("arguments"))
    return read.meaning


READERS: dict[str, Callable[[Mapping[str, Any]], Meaning]] = {
    "gai": gai,
    "chat": chat,
    "responses": responses,
    "messages": messages,
    "vercel": vercel,
    "agui": agui,
    "gemini": gemini,
    "cohere": chat,
    "ollama": ollama,
    "completions": completions,
}
"""By door or dialect."""


@dataclass(frozen=True)
class Asked:
    """One meaning of a request.

    Attributes:
        name: Its name in lists.
        members: Members of any dialect that hold it, one of which a refusal, `x-gai-dropped` or `x-gai-adjusted` names.
        setting: The name in `Meaning.settings`, empty for content and tools.
    """

    name: str
    members: tuple[str, ...]
    setting: str = ""


def compared(
    client: Meaning, sent: Meaning, raw: str, *, always_strict: bool = False, media_apart: bool = False
) -> Iterator[tuple[Asked, bool]]:
    """Yields each meaning of a client's request, and whether it reached the provider.

    Args:
        client: The client's request.
        sent: What the provider received.
        raw: The text of what the provider received.
        always_strict: The provider's schemas of answers are always strict.
        media_apart: The provider has media beside the text, so that their order has no place.
    """
    no_tool = client.settings.get("tool_choice") == "none" and not sent.tools
    for name, value in client.settings.items():
        is_kept = _is_same(name, value, sent) or (name == "tool_choice" and no_tool)
        is_kept = is_kept or (name == "schema_strict" and always_strict and "schema" in sent.settings)
        yield Asked(name, NAMES[name], name), is_kept
    for name, (description, properties, strict) in client.tools.items():
        found = sent.tools.get(name)
        yield (
            Asked("tools", ("tools", "functions")),
            no_tool or (found is not None and description in found[0] and found[1] == properties),
        )
        if strict:
            yield Asked("tools.strict", ("tools", "strict")), found is not None and found[2] is True
    texts = {role: _flat(sent.text(role)) for role in {role for role, _, _ in sent.said}}
    order = []
    for role, kind, value in client.said:
        if kind == "text":
            text = texts.get(role, "")
            at = text.find(_flat(str(value)))
            if role.startswith("result") and at < 0:
                at = text.find(_flat(_closed(str(value)).strip('"')))
            yield Asked(f"content.{role.partition(' ')[0]}.text", _CONTENT), at >= 0
        elif kind == "media":
            yield Asked(f"content.{role.partition(' ')[0]}.media", _CONTENT), str(value) in raw
        elif kind == "error":
            is_left = all(said != role for said, _, _ in sent.said)  # with its whole result
            yield Asked("content.result.error", ("is_error",)), is_left or (role, kind, value) in sent.said
        else:
            yield Asked("content.call", (*_CONTENT, "tool_calls")), (role, kind, value) in sent.said
        if kind != "media" or not media_apart:
            order.append((role, kind, value))
    positions: list[int] = []
    for each in order:
        if each[0] in ("user", "assistant"):
            last = positions[-1] if positions else 0
            found = [at for at in range(len(sent.said)) if _holds(sent.said[at], each)]
            positions += [next((at for at in found if at >= last), found[0])] if found else []
    if len(positions) > 1:
        yield Asked("content.order", _CONTENT), positions == sorted(positions)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _holds(sent: tuple[str, str, Any], asked: tuple[str, str, Any]) -> bool:
    """Returns whether something that was sent is or holds what was asked."""
    if sent[:2] != asked[:2]:
        return False
    return bool(sent[2] == asked[2]) or (asked[1] == "text" and _flat(str(asked[2])) in _flat(str(sent[2])))


_BUDGETS = {"none": (0, 512), "minimal": (0, 2048), "low": (0, 8192), "medium": (1024, 16384), "high": (4096, 200000)}


def _is_same(name: str, value: Any, sent: Meaning) -> bool:
    found = sent.settings.get(name)
    if name == "parallel" and not sent.tools:
        return True  # it means nothing
    if name == "thinking":
        return True  # elsewhere a model that thinks does so by default
    if name == "effort" and found is None and "budget" in sent.settings:
        least, most = _BUDGETS.get(value, (4096, 1 << 30))
        return least <= sent.settings["budget"] <= most
    if name == "stop" and isinstance(found, list):
        return set(value) <= set(found)
    if name in ("temperature", "top_p") and isinstance(found, int | float):
        return float(value) == float(found)
    return bool(found == value)
