"""Rules of providers that no type of an SDK states.

A rule is a function from what the provider received to the faults; its docstring names its source. `RULES` lists the
rules of each provider, by its name in the configuration.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """One request as the provider received it."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    raw: bytes = b""
    model: str = ""
    """The model's id; Gemini and Azure have it in the path."""
    seen: list[str] = field(default_factory=list)


Rule = Callable[[Received], Iterator[str]]

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _messages(asked: Received) -> list[dict[str, Any]]:
    messages = asked.body.get("messages")
    return [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# -- the chat dialect --


def some_messages(asked: Received) -> Iterator[str]:
    """At least one message: "Invalid 'messages': empty array" (OpenAI's API)."""
    if not _messages(asked):
        yield "messages: empty"


def calls_have_results(asked: Received) -> Iterator[str]:
    """Says "An assistant message with 'tool_calls' must be followed by tool messages responding to each

    'tool_call_id'";

    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'" (OpenAI's API; DeepSeek's,
    Groq's, xAI's and Mistral's say the same).
    """
    open_ids: list[str] = []
    for message in [*_messages(asked), {"role": "end"}]:
        if message.get("role") == "tool":
            if message.get("tool_call_id") in open_ids:
                open_ids.remove(str(message["tool_call_id"]))
            else:
                yield "messages: a result without its call before it"
            continue
        if open_ids:
            yield "messages: a call without its result after it"
        open_ids = [str(call.get("id")) for call in _list(message.get("tool_calls"))]
        if len(set(open_ids)) < len(open_ids):
            yield "messages: two calls of one id"


def roles(*allowed: str) -> Rule:
    """The provider's roles, as its reference lists them."""

    def rule(asked: Received) -> Iterator[str]:
        for role in dict.fromkeys(str(message.get("role")) for message in _messages(asked)):
            if role not in allowed:
                yield f"messages: role {role}"

    return rule


def call_ids(pattern: str) -> Rule:
    """The pattern of a call's id, in the call and in its result."""
    allowed = re.compile(pattern)

    def rule(asked: Received) -> Iterator[str]:
        ids = [call.get("id") for message in _messages(asked) for call in _list(message.get("tool_calls"))]
        ids += [message.get("tool_call_id") for message in _messages(asked) if message.get("role") == "tool"]
        for each in ids:
            if not isinstance(each, str) or not allowed.fullmatch(each):
                yield f"call id: {each!r} is not {pattern}"

    return rule


def stops(most: int) -> Rule:
    """The most stop sequences, as the provider's reference says."""

    def rule(asked: Received) -> Iterator[str]:
        for name in ("stop", "stop_sequences"):
            if len(_list(asked.body.get(name))) > most:
                yield f"{name}: more than {most}"

    return rule


def ranges(**allowed: tuple[float, float]) -> Rule:
    """The ranges of numbers, as the provider's reference says."""

    def rule(asked: Received) -> Iterator[str]:
        for name, (least, most) in allowed.items():
            value = asked.body.get(name)
            if isinstance(value, int | float) and not least <= value <= most:
                yield f"{name}: {value} is not within {least} and {most}"

    return rule


def choice_needs_tools(asked: Received) -> Iterator[str]:
    """Says "'tool_choice' is only allowed when 'tools' are specified"; `parallel_tool_calls` too (OpenAI's API)."""
    for name in ("tool_choice", "parallel_tool_calls"):
        if not asked.body.get("tools") and asked.body.get(name) not in (None, "none"):
            yield f"{name}: without tools"
    if asked.body.get("tools") == []:
        yield "tools: empty"


def choice_names_a_tool(asked: Received) -> Iterator[str]:
    """Says "Tool choice 'x' not found in 'tools' parameter" (OpenAI's API)."""
    choice = asked.body.get("tool_choice")
    if isinstance(choice, dict):
        wanted = (choice.get("function") or {}).get("name") or choice.get("name")
        names = [
            (tool.get("function") or {}).get("name") or tool.get("name") for tool in _list(asked.body.get("tools"))
        ]
        if wanted and wanted not in names:
            yield f"tool_choice: no tool {wanted}"


def tool_names(asked: Received) -> Iterator[str]:
    """`^[a-zA-Z0-9_-]{1,64}$` (OpenAI's reference, `tools.function.name`), in earlier calls too."""
    named = [*_list(asked.body.get("tools")), *_items(asked)]
    named += [call for message in _messages(asked) for call in _list(message.get("tool_calls"))]
    for each in named:
        if each.get("type", "function") in ("function", "function_call"):
            name = (each.get("function") or each).get("name")
            if name is not None and not NAME.fullmatch(str(name)):
                yield "tools: a name"


def logprobs_first(asked: Received) -> Iterator[str]:
    """Says "`logprobs` must be set to `true` if this parameter is used"; 0 to 20 (OpenAI's `top_logprobs`)."""
    most = asked.body.get("top_logprobs")
    if most is not None and (asked.body.get("logprobs") is not True or not 0 <= most <= 20):
        yield "top_logprobs: without logprobs, or not within 0 and 20"


def stream_options_of_a_stream(asked: Received) -> Iterator[str]:
    """Says "Only set this when you set `stream: true`" (OpenAI's reference, `stream_options`)."""
    if asked.body.get("stream_options") is not None and asked.body.get("stream") is not True:
        yield "stream_options: without stream"


def one_limit(asked: Received) -> Iterator[str]:
    """Says "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported" (OpenAI's API)."""
    if asked.body.get("max_tokens") is not None and asked.body.get("max_completion_tokens") is not None:
        yield "max_tokens: beside max_completion_tokens"


def no_legacy_limit(asked: Received) -> Iterator[str]:
    """`max_tokens` is "not compatible with o-series models"; GPT-5 refuses it too (OpenAI's reference)."""
    if asked.body.get("max_tokens") is not None:
        yield "max_tokens: this model takes max_completion_tokens"


def metadata_of_texts(asked: Received) -> Iterator[str]:
    """16 pairs, keys of at most 64, texts of at most 512 characters (OpenAI's reference, `metadata`)."""
    given = asked.body.get("metadata")
    if isinstance(given, dict) and (
        len(given) > 16 or not all(isinstance(each, str) and len(each) <= 512 for each in given.values())
    ):
        yield "metadata: not 16 texts"


def strict_schemas(asked: Received) -> Iterator[str]:
    """Says "'additionalProperties' is required to be supplied and to be false", every property is `required`

    (OpenAI's guide to structured outputs; Groq's and xAI's say the same).
    """
    given = [tool.get("function") or tool for tool in _list(asked.body.get("tools"))]
    form = asked.body.get("response_format") or (asked.body.get("text") or {}).get("format")
    if isinstance(form, dict):
        given.append(form.get("json_schema") or form)
    for each in given:
        if isinstance(each, dict) and each.get("strict") is True:
            schema = each.get("parameters") or each.get("schema")
            if isinstance(schema, dict) and not _is_closed(schema):
                yield "strict: the schema is open"


def _is_closed(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(map(_is_closed, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        names = set(schema.get("properties") or ())
        if schema.get("additionalProperties") is not False or names - set(schema.get("required") or ()):
            return False
    return all(map(_is_closed, schema.values()))


# -- Mistral --


def mistral_order(asked: Received) -> Iterator[str]:
    """Says "Unexpected role 'user' after role 'tool'", "Expected last role User or Tool (or Assistant with

    prefix True)", "Assistant message must have either content or tool_calls" (Mistral's API, code 3230; mistral-common
    `protocol/instruct/validator.py`).
    """
    messages = _messages(asked)
    if not messages:
        return
    after = {"tool": ("assistant", "tool"), "assistant": ("assistant", "user", "tool")}
    for before, message in itertools.pairwise(messages):
        allowed = after.get(str(before.get("role")))
        if allowed is not None and message.get("role") not in allowed:
            yield f"messages: {message.get('role')} after {before.get('role')}"
    last = messages[-1]
    if not (last.get("role") in ("user", "tool") or (last.get("role") == "assistant" and last.get("prefix"))):
        yield f"messages: {last.get('role')} is last"
    for message in messages:
        if message.get("role") == "assistant" and not message.get("content") and not message.get("tool_calls"):
            yield "messages: an assistant message without content"


# -- Perplexity --


def alternating(asked: Received) -> Iterator[str]:
    """Says "After the (optional) system message(s), user or tool message(s) should alternate with assistant

    message(s)", "Last message must have role `user` or `tool`" (Perplexity's API).
    """
    messages = _messages(asked)
    sides = [str(message.get("role")) for message in messages]
    while sides and sides[0] == "system":
        sides.pop(0)
    if "system" in sides:
        yield "messages: system after the beginning"
    sides = [side for side in sides if side != "system"]
    if any(one == other for one, other in itertools.pairwise(sides)) or sides[:1] == ["assistant"]:
        yield "messages: roles do not alternate"
    if sides[-1:] != ["user"]:
        yield "messages: the last is not the user's"


# -- DeepSeek, Groq, OpenRouter, Cohere, Ollama --


def answers_say_something(asked: Received) -> Iterator[str]:
    """DeepSeek: "Invalid assistant message: content or tool_calls must be set"; xAI: "Every message needs at least one

    non-empty content element" (github.com/AstrBotDevs/AstrBot/issues/6447).
    """
    for message in _messages(asked):
        said = [message.get(name) for name in ("content", "tool_calls", "function_call")]
        if message.get("role") in ("assistant", "system", "developer") and not any(said):
            yield f"messages: one of the role {message['role']} that says nothing"


def no_schema(asked: Received) -> Iterator[str]:
    """`response_format.type` is `text` or `json_object` (DeepSeek's reference)."""
    if (asked.body.get("response_format") or {}).get("type") not in (None, "text", "json_object"):
        yield "response_format: json_schema"


def prefix_at_beta(asked: Received) -> Iterator[str]:
    """`prefix` needs `base_url="https://api.deepseek.com/beta"`, and stands in the last message (DeepSeek's guide)."""
    messages = _messages(asked)
    if any(message.get("prefix") for message in messages) and "/beta/" not in asked.path:
        yield "messages: prefix without /beta"
    if messages and messages[-1].get("role") == "assistant" and not messages[-1].get("prefix"):
        yield "messages: assistant is last, without prefix"


def one_form_of_reasoning(asked: Received) -> Iterator[str]:
    """Says "Cannot be used with `include_reasoning`"; gpt-oss takes no `reasoning_format` (Groq's reference)."""
    if asked.body.get("reasoning_format") is not None:
        if asked.body.get("include_reasoning") is not None:
            yield "reasoning_format: beside include_reasoning"
        if "gpt-oss" in asked.model:
            yield "reasoning_format: gpt-oss has none"


def no_reasoning_before(asked: Received) -> Iterator[str]:
    """Says "messages[X].reasoning: reasoning is not supported with this model" (Groq's API of models that do not

    think; github.com/vercel/ai/pull/8057).
    """
    if any(message.get("reasoning") for message in _messages(asked)):
        yield "messages: reasoning, and this model does not think"


def one_amount_of_reasoning(asked: Received) -> Iterator[str]:
    """Says "Only one of `reasoning.effort` and `reasoning.max_tokens` can be specified" (OpenRouter's API)."""
    given = asked.body.get("reasoning")
    if isinstance(given, dict) and given.get("effort") and given.get("max_tokens"):
        yield "reasoning: effort beside max_tokens"


def cohere_order(asked: Received) -> Iterator[str]:
    """Says "the last message must have role 'user' or 'tool'"; no message is empty (Cohere's API)."""
    messages = _messages(asked)
    if messages and messages[-1].get("role") not in ("user", "tool"):
        yield f"messages: {messages[-1].get('role')} is last"
    for message in messages:
        if not message.get("content") and not message.get("tool_calls") and not message.get("tool_plan"):
            yield "messages: empty content"


# -- the Responses dialect --


def _items(asked: Received) -> list[dict[str, Any]]:
    return [each for each in _list(asked.body.get("input")) if isinstance(each, dict)]


def outputs_have_calls(asked: Received) -> Iterator[str]:
    """Says "No tool call found for function call output", "No tool output found for function call" (OpenAI's API)."""
    calls: list[Any] = []
    outputs: list[Any] = []
    for item in _items(asked):
        kind = str(item.get("type"))
        if kind in ("function_call", "custom_tool_call"):
            calls.append(item.get("call_id"))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            outputs.append(item.get("call_id"))
            if item.get("call_id") not in calls:
                yield "input: an output without its call"
    if not asked.body.get("previous_response_id") and set(calls) - set(outputs):
        yield "input: a call without its output"


def item_ids(asked: Received) -> Iterator[str]:
    """Says "Expected an ID that begins with 'fc'", `call_id` has at most 64 characters (OpenAI's API)."""
    begins = {"function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs", "message": "msg"}
    for item in _items(asked):
        kind = item.get("type") or ("message" if "role" in item else "")
        begin = begins.get(kind)
        if begin and item.get("id") is not None and not str(item["id"]).startswith(begin):
            yield f"input: the id of a {kind} begins with no {begin}"
        if len(str(item.get("call_id") or "")) > 64:
            yield "input: a call_id longer than 64"
        if "call_id" in item and not item["call_id"]:
            yield "input: an empty call_id"


def least_output(asked: Received) -> Iterator[str]:
    """Says "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16" (OpenAI's API)."""
    limit = asked.body.get("max_output_tokens")
    if limit is not None and limit < 16:
        yield "max_output_tokens: below 16"


def reasoning_has_its_item(asked: Received) -> Iterator[str]:
    """Says "Item 'rs_…' of type 'reasoning' was provided without its required following item" (OpenAI's API)."""
    items = _items(asked)
    for item, after in zip(items, [*items[1:], {}], strict=False):
        if item.get("type") != "reasoning":
            continue
        role = after.get("role")
        if not after or role in ("user", "system", "developer") or str(after.get("type")).endswith("_output"):
            yield "input: a reasoning item without its item after it"


def reasoning_is_whole(asked: Received) -> Iterator[str]:
    """Says "Item with id 'rs_…' not found. Items are not persisted when `store` is set to false" (OpenAI's API;

    github.com/vercel/ai/issues/7543): reasoning that is not encrypted is looked up by its id, which it knows if it has
    made it.
    """
    for item in _items(asked):
        if item.get("type") == "reasoning" and not item.get("encrypted_content"):
            yield "input: reasoning that is not encrypted"


def no_reasoning_items(asked: Received) -> Iterator[str]:
    """Says "Reasoning input items can only be provided to a reasoning or computer use model" (OpenAI's API)."""
    if any(item.get("type") == "reasoning" for item in _items(asked)):
        yield "input: a reasoning item, and this model does not think"


def some_input(asked: Received) -> Iterator[str]:
    """Says "One of 'input', 'previous_response_id', 'prompt' or 'conversation' must be provided" (OpenAI's API)."""
    if not any(asked.body.get(name) for name in ("input", "previous_response_id", "prompt", "conversation")):
        yield "input: empty"


# -- Anthropic --


def anthropic_turns(asked: Received) -> Iterator[str]:
    """Says "messages: at least one message is required", "text content blocks must be non-empty", "`tool_use` ids were

    found without `tool_result` blocks immediately after", "unexpected `tool_use_id` found in `tool_result` blocks",
    results
    stand first in their message (Anthropic's API and its guide to tool use).
    """
    messages = _messages(asked)
    if not messages:
        yield "messages: empty"
    open_ids: list[str] = []
    turns: list[tuple[str, list[Any]]] = []
    for message in messages:
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else _list(content)
        if turns and turns[-1][0] == message.get("role"):
            turns[-1][1].extend(blocks)
        else:
            turns.append((str(message.get("role")), list(blocks)))
    for at, (role, blocks) in enumerate(turns):
        if not blocks:
            yield "messages: no content"
        results = [str(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"]
        kinds = [block.get("type") == "tool_result" for block in blocks]
        if kinds != sorted(kinds, reverse=True):
            yield "messages: a result after other content"
        if role == "user":
            if set(open_ids) - set(results):
                yield "messages: a call without its result after it"
            if set(results) - set(open_ids):
                yield "messages: a result without its call before it"
            open_ids = []
        else:
            open_ids = [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
            if at == len(turns) - 1 and open_ids:
                yield "messages: a call without its result after it"
        for block in blocks:
            if block.get("type") == "text" and not str(block.get("text")).strip():
                yield "messages: an empty text"
    if turns and turns[-1][0] == "assistant":
        texts = [block for block in turns[-1][1] if block.get("type") == "text"]
        if texts and str(texts[-1].get("text")) != str(texts[-1].get("text")).rstrip():
            yield "messages: the last assistant text ends with white space"


def anthropic_texts(asked: Received) -> Iterator[str]:
    """Says "text content blocks must contain non-whitespace text", "final assistant content cannot end with trailing

    whitespace", "each stop sequence must contain non-whitespace" (Anthropic's API;
    github.com/BerriAI/litellm/issues/3286).
    """
    messages = _messages(asked)
    texts = [block.get("text") for message in messages for block in _list(message.get("content"))]
    if any(isinstance(text, str) and not text.strip() for text in texts):
        yield "messages: a text without a visible character"
    last = texts[-1] if texts and messages[-1].get("role") == "assistant" else None
    if isinstance(last, str) and last != last.rstrip():
        yield "messages: the last text ends in whitespace"
    if any(not stop.strip() for stop in asked.body.get("stop_sequences") or ()):
        yield "stop_sequences: one of whitespace"


def anthropic_tools(asked: Received) -> Iterator[str]:
    """Says "tools.0.custom.input_schema.type: Field required", and of strict tools what it says of schemas of answers

    (Anthropic's API; github.com/vercel/ai/issues/20681).
    """
    for tool in _list(asked.body.get("tools")):
        schema = tool.get("input_schema")
        if isinstance(schema, dict) and schema.get("type") != "object":
            yield "tools: the schema has no type"
        if isinstance(schema, dict) and not schema.keys().isdisjoint(("oneOf", "allOf", "anyOf")):
            yield "tools: the schema is a union"  # "does not support oneOf, allOf, or anyOf at the top level"
        if tool.get("strict") and not (_is_closed_everywhere(schema) and _LIMITS.isdisjoint(_keywords(schema))):
            yield "tools: a strict schema is open, or has limits"
        if tool.get("strict") and _is_recursive(schema):
            yield "tools: a strict schema is recursive"


_LIMITS = {*"minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems".split()}


def _keywords(schema: Any) -> set[str]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return {*(schema if isinstance(schema, dict) else ())}.union(*map(_keywords, inner))


def _is_recursive(schema: Any) -> bool:
    """Returns whether a schema refers to itself.

    Anthropic's API says "Circular reference detected in schema definitions: […] Self-referencing or
    mutually-referencing definitions are not supported" (github.com/egonSchiele/agency-lang/issues/487).
    """

    def found(part: Any, path: tuple[str, ...]) -> bool:
        if isinstance(part, list):
            return any(found(each, path) for each in part)
        if not isinstance(part, dict):
            return False
        name = part.get("$ref")
        if isinstance(name, str) and name.startswith("#"):
            if name in path:
                return True
            named: Any = schema
            for key in name.split("/")[1:]:
                named = named.get(key) if isinstance(named, dict) else None
            if found(named, (*path, name)):
                return True
        return any(found(each, path) for key, each in part.items() if key not in ("$defs", "definitions"))

    return found(schema, ("#",))


def anthropic_ids(asked: Received) -> Iterator[str]:
    """Says "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'" (Anthropic's API)."""
    for message in _messages(asked):
        for block in _list(message.get("content")):
            for name in ("id", "tool_use_id"):
                each = block.get(name) if isinstance(block, dict) else None
                if each is not None and not re.fullmatch(r"[a-zA-Z0-9_-]+", str(each)):
                    yield f"call id: {each!r}"


def anthropic_names(asked: Received) -> Iterator[str]:
    """`^[a-zA-Z0-9_-]{1,128}$`, each name once (Anthropic's reference, `tools.name`)."""
    names = [str(tool.get("name")) for tool in _list(asked.body.get("tools"))]
    if len(set(names)) < len(names):
        yield "tools: a name twice"
    calls = [
        str(block.get("name"))
        for message in _messages(asked)
        for block in _list(message.get("content"))
        if isinstance(block, dict) and block.get("type") == "tool_use"
    ]
    for name in names + calls:
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name):
            yield "tools: a name"


def anthropic_schema(asked: Received) -> Iterator[str]:
    """Says "For 'object' type, 'additionalProperties' must be explicitly set to false" (Anthropic's API)."""
    form = (asked.body.get("output_config") or {}).get("format") or {}
    if not _is_closed_everywhere(form.get("schema")):
        yield "output_config.format: the schema is open"
    if "oneOf" in _keywords(form.get("schema")):
        yield "output_config.format: oneOf"  # github.com/vercel/ai/issues/12876
    if _is_recursive(form.get("schema")):
        yield "output_config.format: the schema is recursive"
    if not _LIMITS.isdisjoint(_keywords(form.get("schema"))):
        yield "output_config.format: the schema has limits of values"


def _is_closed_everywhere(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(map(_is_closed_everywhere, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return False
    return all(map(_is_closed_everywhere, schema.values()))


def anthropic_thinking(asked: Received) -> Iterator[str]:
    """`budget_tokens` is at least 1,024 and less than `max_tokens`; with thinking `temperature` is 1, `top_k` is unset,

    `top_p` at least 0.95, `tool_choice` auto or none, no prefill; the last assistant turn with calls begins with
    thinking (Anthropic's guide to extended thinking).
    """
    body = asked.body
    thinking = body.get("thinking") or {}
    budget = thinking.get("budget_tokens")
    if budget is not None and not 1024 <= budget < body.get("max_tokens", 0):
        yield "thinking: the budget is below 1024, or not below max_tokens"
    if thinking.get("type") not in ("enabled", "adaptive"):
        return
    if body.get("temperature") not in (None, 1):
        yield "thinking: beside temperature"
    if body.get("top_k") is not None:
        yield "thinking: beside top_k"
    if body.get("top_p") is not None and body["top_p"] < 0.95:
        yield "thinking: beside top_p"
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        yield "thinking: beside a forced tool"
    messages = _messages(asked)
    if messages and messages[-1].get("role") == "assistant":
        yield "thinking: beside a prefill"
    spoken = [message for message in messages if message.get("role") == "assistant"]
    if thinking.get("type") == "enabled" and spoken and messages[-1].get("role") == "user":
        last = _list(messages[-1].get("content"))
        blocks = _list(spoken[-1].get("content"))
        in_loop = any(isinstance(block, dict) and block.get("type") == "tool_result" for block in last)
        if in_loop and blocks and blocks[0].get("type") not in ("thinking", "redacted_thinking"):
            yield "thinking: the last turn of calls does not begin with thinking"


def anthropic_sampling(asked: Received) -> Iterator[str]:
    """Sampling is refused from version 2026-10-21 on; `temperature` is 0 to 1; Claude 4.5 takes one of `temperature`

    and `top_p`; later models take none (Anthropic's migration guides).
    """
    body = asked.body
    given = [name for name in ("temperature", "top_p", "top_k") if body.get(name) is not None]
    if given and asked.headers.get("anthropic-version", "") >= "2026-10-21":
        yield f"{given[0]}: in version {asked.headers.get('anthropic-version')}"
    if body.get("temperature") is not None and not 0 <= body["temperature"] <= 1:
        yield "temperature: not within 0 and 1"
    if "temperature" in given and "top_p" in given:
        yield "temperature: beside top_p"


def adaptive_only(asked: Received) -> Iterator[str]:
    """Claude Opus 4.7 and later take no sampling, no budget and no prefill (Anthropic's "What's new in Opus 4.7")."""
    for name in ("temperature", "top_p", "top_k"):
        if asked.body.get(name) is not None:
            yield f"{name}: this model has no sampling"
    if (asked.body.get("thinking") or {}).get("type") == "enabled":
        yield "thinking: this model takes no budget"
    messages = _messages(asked)
    if messages and messages[-1].get("role") == "assistant":
        yield "messages: this model takes no prefill"


def no_effort(asked: Received) -> Iterator[str]:
    """Claude Sonnet 4.5 has no `output_config.effort` and no adaptive thinking (Anthropic's guide to effort)."""
    if (asked.body.get("output_config") or {}).get("effort") is not None:
        yield "output_config.effort: this model has none"
    if (asked.body.get("thinking") or {}).get("type") == "adaptive":
        yield "thinking: this model is not adaptive"


def few_breakpoints(asked: Received) -> Iterator[str]:
    """Says "A maximum of 4 blocks with cache_control may be provided" (Anthropic's API)."""
    if asked.raw.count(b'"cache_control"') > 4:
        yield "cache_control: more than 4"


def choice_of_anthropic(asked: Received) -> Iterator[str]:
    """Says "tool_choice may only be specified while providing tools" (Anthropic's API)."""
    choice = asked.body.get("tool_choice")
    if choice is None:
        return
    if not asked.body.get("tools"):
        yield "tool_choice: without tools"
    elif choice.get("type") == "tool" and choice.get("name") not in [tool.get("name") for tool in asked.body["tools"]]:
        yield f"tool_choice: no tool {choice.get('name')}"


# -- Gemini --


def gemini_turns(asked: Received) -> Iterator[str]:
    """Says "contents is not specified", "must include at least one parts field", "function call turn comes immediately

    after a user turn or after a function response turn", "the number of function response parts is equal to the
    number of
    function call parts of the function call turn" (Gemini's API).
    """
    contents = _list(asked.body.get("contents"))
    if not contents:
        yield "contents: empty"
    calls = 0
    before = ""
    for content in contents:
        parts = _list(content.get("parts"))
        if not parts:
            yield "contents: no parts"
        role = content.get("role", "user")
        if role not in ("user", "model"):
            yield f"contents: role {role}"
        made = sum("functionCall" in part for part in parts)
        results = sum("functionResponse" in part for part in parts)
        if made and before not in ("user", "results"):
            yield "contents: a call that follows no user turn"
        if results != calls:
            yield "contents: other numbers of calls and results"
        calls = made
        before = "results" if results else str(role)
    if calls:
        yield "contents: a call without its result after it"


def gemini_signatures(asked: Received) -> Iterator[str]:
    """Says "Function call is missing a thought_signature": the first call of each step of the current turn needs one

    (Gemini's guide to thought signatures, Gemini 3).
    """
    if "gemini-3" not in asked.model:
        return
    contents = _list(asked.body.get("contents"))
    begin = 0
    for at, content in enumerate(contents):
        if content.get("role", "user") == "user" and any("text" in part for part in _list(content.get("parts"))):
            begin = at
    for content in contents[begin:]:
        calls = [part for part in _list(content.get("parts")) if "functionCall" in part]
        if calls and not calls[0].get("thoughtSignature"):
            yield "contents: the first call of a step has no signature"


def gemini_config(asked: Received) -> Iterator[str]:
    """Up to 5 stop sequences; a schema needs `responseMimeType: application/json`; one of level and budget; `logprobs`

    needs `responseLogprobs` (Gemini's reference, `GenerationConfig`).
    """
    config = asked.body.get("generationConfig") or {}
    if len(_list(config.get("stopSequences"))) > 5:
        yield "stopSequences: more than 5"
    has_schema = config.get("responseSchema") is not None or config.get("responseJsonSchema") is not None
    if has_schema and config.get("responseMimeType") != "application/json":
        yield "responseSchema: without responseMimeType"
    thinking = config.get("thinkingConfig") or {}
    if thinking.get("thinkingLevel") and thinking.get("thinkingBudget") is not None:
        yield "thinkingConfig: level beside budget"
    if config.get("logprobs") is not None and not config.get("responseLogprobs"):
        yield "logprobs: without responseLogprobs"
    names = [
        each.get("name") for tool in _list(asked.body.get("tools")) for each in _list(tool.get("functionDeclarations"))
    ]
    if any(not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}", str(name)) for name in names):
        yield "tools: a name"
    if asked.body.get("toolConfig", {}).get("functionCallingConfig") and not names:
        yield "toolConfig: without tools"


def gemini_3_budget(asked: Received) -> Iterator[str]:
    """Gemini 3 takes `thinkingLevel`; 3 Pro cannot switch thinking off (Gemini's guide to thinking)."""
    thinking = (asked.body.get("generationConfig") or {}).get("thinkingConfig") or {}
    if thinking.get("thinkingBudget") == 0:
        yield "thinkingConfig: this model always thinks"


_CHAT: tuple[Rule, ...] = (
    some_messages,
    calls_have_results,
    choice_needs_tools,
    choice_names_a_tool,
    tool_names,
    logprobs_first,
    stream_options_of_a_stream,
    one_limit,
)
_OPENAI_ROLES = roles("system", "developer", "user", "assistant", "tool", "function")
_OPENAI: tuple[Rule, ...] = (
    *_CHAT,
    _OPENAI_ROLES,
    call_ids(r".{1,64}"),
    stops(4),
    metadata_of_texts,
    strict_schemas,
    ranges(temperature=(0, 2), top_p=(0, 1), frequency_penalty=(-2, 2), presence_penalty=(-2, 2), n=(1, 128)),
)
_RESPONSES: tuple[Rule, ...] = (
    tool_names,
    some_input,
    outputs_have_calls,
    item_ids,
    least_output,
    reasoning_has_its_item,
    choice_needs_tools,
    choice_names_a_tool,
    metadata_of_texts,
    strict_schemas,
    stream_options_of_a_stream,
    ranges(temperature=(0, 2), top_p=(0, 1), top_logprobs=(0, 20)),
)
_ANTHROPIC: tuple[Rule, ...] = (
    anthropic_turns,
    anthropic_ids,
    anthropic_names,
    anthropic_schema,
    anthropic_texts,
    anthropic_tools,
    anthropic_thinking,
    anthropic_sampling,
    few_breakpoints,
    choice_of_anthropic,
)
_ROLES = roles("system", "user", "assistant", "tool")

RULES: dict[str, tuple[Rule, ...]] = {
    "openai": (*_OPENAI, no_legacy_limit),
    "openai:responses": (*_RESPONSES, reasoning_is_whole),
    "openai:responses-4o": (*_RESPONSES, no_reasoning_items),
    "openai:completions": (stops(4), one_limit),
    "azure": (*_OPENAI, no_legacy_limit),
    "azure:responses": (*_RESPONSES, reasoning_is_whole),
    "anthropic": (*_ANTHROPIC, no_effort),
    "anthropic-adaptive": (*_ANTHROPIC, adaptive_only),
    "anthropic:vertex": (*_ANTHROPIC, no_effort),
    "gemini:vertex": (gemini_turns, gemini_signatures, gemini_config, gemini_3_budget),
    "gemini": (gemini_turns, gemini_signatures, gemini_config, gemini_3_budget),
    "groq": (
        *_CHAT,
        _OPENAI_ROLES,
        stops(4),
        one_form_of_reasoning,
        strict_schemas,
        ranges(temperature=(0, 2), n=(1, 1)),
    ),
    "groq-llama": (*_CHAT, _OPENAI_ROLES, stops(4), no_reasoning_before, ranges(temperature=(0, 2), n=(1, 1))),
    "groq:responses": _RESPONSES,
    "mistral": (
        *_CHAT,
        _ROLES,
        call_ids(r"[a-zA-Z0-9]{9}"),
        mistral_order,
        ranges(temperature=(0, 1.5), top_p=(0, 1)),
    ),
    "xai": (*_CHAT, _OPENAI_ROLES, answers_say_something, stops(4), strict_schemas, ranges(temperature=(0, 2))),
    "xai:responses": _RESPONSES,
    "deepseek": (
        *_CHAT,
        _ROLES,
        no_schema,
        answers_say_something,
        prefix_at_beta,
        stops(16),
        ranges(temperature=(0, 2), top_p=(0, 1)),
    ),
    "deepseek:responses": _RESPONSES,
    "cohere": (
        some_messages,
        calls_have_results,
        cohere_order,
        stops(5),
        ranges(temperature=(0, 1), p=(0.01, 0.99), k=(0, 500), frequency_penalty=(0, 1), presence_penalty=(0, 1)),
    ),
    "ollama": (some_messages, roles("system", "user", "assistant", "tool")),
    "ollama:generate": (),
    "openrouter": (
        *_CHAT,
        _OPENAI_ROLES,
        one_amount_of_reasoning,
        strict_schemas,
        ranges(temperature=(0, 2), top_p=(0, 1)),
    ),
    "openrouter:responses": _RESPONSES,
    "perplexity": (some_messages, alternating, roles("system", "user", "assistant", "tool")),
    "perplexity:responses": _RESPONSES,
    "openai-compatible": (*_CHAT, _OPENAI_ROLES),
    "openai-compatible:responses": _RESPONSES,
    "openai-compatible:completions": (),
}
