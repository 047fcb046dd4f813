"""One request for each thing that a client can ask for, in each client's dialect: material of `tools.client_table`.

A specimen is a request with one thing in it, the same request without that thing, and the values to look for in what an
upstream gets. A dialect without a specimen for a thing has no place for it. Answers of earlier turns are not written
here: the format makes them, as clients send back what they were given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

Body: TypeAlias = dict[str, Any]


class Specimen(NamedTuple):
    """One thing to ask for.

    Args:
        plain: A request without it.
        asking: The same request with it.
        marks: Values of it that an upstream gets, if it gets the thing unchanged. None: any difference will do.
    """

    plain: Body
    asking: Body
    marks: tuple[Any, ...] = ()


class Dialect(NamedTuple):
    """The requests of one client.

    Args:
        specimens: By the name of the thing, in the page's order.
        history: Returns the conversation of the next request.
            Its arguments are the whole answer of the format, and the result of the call in it.
    """

    specimens: Mapping[str, Specimen]
    history: Callable[[Any, str], Body] | None = None


QUESTION: Final = "What is this?"
CALL_ID: Final = "call_0001"
CITY: Final = "Oslo 4711"
_RULE, _RESULT = "Be brief 4711.", "4 degrees, 4711"
_IMAGE, _AUDIO, _PDF = "aW1hZ2U0NzEx", "YXVkaW80NzEx", "ZmlsZTQ3MTE="
_URL: Final = "https://a.example/4711.png"
_PNG: Final = f"data:image/png;base64,{_IMAGE}"
_SCHEMA: Final = {
    "type": "object",
    "properties": {"a": {"type": "string", "description": "Schema 4711"}},
    "required": ["a"],
    "additionalProperties": False,
}
_PARAMETERS: Final = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "City 4711"}},
    "required": ["city"],
    "additionalProperties": False,
}
_ABOUT: Final = "Tells the weather 4711"
_TOOL_MARKS: Final = ("weather", _ABOUT, "City 4711")
_CALL: Final = {"city": CITY}
_CALL_TEXT: Final = json.dumps(_CALL)


def _set(plain: Body, marks: tuple[Any, ...] = (), **members: Any) -> Specimen:
    return Specimen(plain, {**plain, **members}, marks)


def _native() -> Dialect:
    text = {"type": "text", "text": QUESTION}

    def said(*parts: Body) -> Body:
        return {"messages": [{"role": "user", "content": [text, *parts]}]}

    tool = {"name": "weather", "description": _ABOUT, "parameters": _PARAMETERS}
    plain, tooled = said(), {**said(), "tools": [tool]}
    call = {
        "role": "assistant",
        "content": [{"type": "tool_call", "call_id": CALL_ID, "name": "weather", "input": _CALL}],
    }

    def result(content: Any, **members: Any) -> Body:
        answer = {"role": "tool", "call_id": CALL_ID, "content": content, **members}
        return {**tooled, "messages": [*plain["messages"], call, answer]}

    parts = [{"type": "text", "text": _RESULT}]
    image = {"type": "image", "data": _IMAGE, "media_type": "image/png"}
    file = {"type": "file", "data": _PDF, "media_type": "application/pdf"}
    schema = {"type": "json_schema", "name": "form", "schema": _SCHEMA, "strict": True}
    specimens = {
        "system message": _set(plain, (_RULE,), system=_RULE),
        "image URL": Specimen(plain, said({"type": "image", "url": _URL}), (_URL,)),
        "image": Specimen(plain, said(image), (_IMAGE,)),
        "audio": Specimen(plain, said({"type": "audio", "data": _AUDIO, "media_type": "audio/wav"}), (_AUDIO,)),
        "document": Specimen(plain, said(file), (_PDF,)),
        "file name": Specimen(said(file), said({**file, "filename": "4711.pdf"}), ("4711.pdf",)),
        "tool": Specimen(plain, tooled, _TOOL_MARKS),
        "strict tool": Specimen(tooled, {**tooled, "tools": [{**tool, "strict": True}]}, (True,)),
        "tool choice: required": _set(tooled, tool_choice="required"),
        "tool choice: none": _set(tooled, tool_choice="none"),
        "tool choice: named": _set(tooled, ("weather",), tool_choice={"name": "weather"}),
        "call and result": Specimen(tooled, result(_RESULT), (CITY, _RESULT)),
        "failed result": Specimen(result(_RESULT), result(_RESULT, is_error=True), (True,)),
        "result image": Specimen(result(parts), result([*parts, image]), (_IMAGE,)),
        "JSON answer": _set(plain, response_format={"type": "json"}),
        "schema answer": _set(plain, ("Schema 4711",), response_format=schema),
        "effort": _set(plain, ("high",), reasoning={"effort": "high"}),
        "reasoning budget": _set(plain, (4711,), reasoning={"max_tokens": 4711}),
        "temperature": _set(plain, (0.4711,), temperature=0.4711),
        "top_p": _set(plain, (0.4711,), top_p=0.4711),
        "max tokens": _set(plain, (4711,), max_tokens=4711),
        "stop sequences": _set(plain, ("END 4711",), stop=["END 4711"]),
        "seed": _set(plain, (4711,), seed=4711),
        "metadata": _set(plain, ("u-4711",), metadata={"user_id": "u-4711"}),
    }

    def history(answer: Any, result: str) -> Body:
        messages = [answer["message"], {"role": "tool", "call_id": CALL_ID, "content": result}]
        return {**tooled, "messages": [*plain["messages"], *messages]}

    return Dialect(specimens, history)


def _chat() -> Dialect:
    text = {"type": "text", "text": QUESTION}

    def said(*parts: Body) -> Body:
        return {"messages": [{"role": "user", "content": [text, *parts]}]}

    function = {"name": "weather", "description": _ABOUT, "parameters": _PARAMETERS}
    tool = {"type": "function", "function": function}
    strict = {"type": "function", "function": {**function, "strict": True}}
    plain, tooled = said(), {**said(), "tools": [tool]}
    call = {"id": CALL_ID, "type": "function", "function": {"name": "weather", "arguments": _CALL_TEXT}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}

    def result(content: Any) -> Body:
        answer = {"role": "tool", "tool_call_id": CALL_ID, "content": content}
        return {**tooled, "messages": [*plain["messages"], asked, answer]}

    parts = [{"type": "text", "text": _RESULT}]
    image = {"type": "image_url", "image_url": {"url": _PNG}}
    file = {"file_data": f"data:application/pdf;base64,{_PDF}"}
    audio = {"type": "input_audio", "input_audio": {"data": _AUDIO, "format": "wav"}}
    by_name = {"type": "function", "function": {"name": "weather"}}
    specimens = {
        "system message": Specimen(
            plain, {"messages": [{"role": "system", "content": _RULE}, *plain["messages"]]}, (_RULE,)
        ),
        "image URL": Specimen(plain, said({"type": "image_url", "image_url": {"url": _URL}}), (_URL,)),
        "image": Specimen(plain, said(image), (_IMAGE,)),
        "audio": Specimen(plain, said(audio), (_AUDIO,)),
        "document": Specimen(plain, said({"type": "file", "file": file}), (_PDF,)),
        "file name": Specimen(
            said({"type": "file", "file": file}),
            said({"type": "file", "file": {**file, "filename": "4711.pdf"}}),
            ("4711.pdf",),
        ),
        "file id": Specimen(plain, said({"type": "file", "file": {"file_id": "file-4711"}}), ("file-4711",)),
        "tool": Specimen(plain, tooled, _TOOL_MARKS),
        "strict tool": Specimen(tooled, {**tooled, "tools": [strict]}, (True,)),
        "tool choice: required": _set(tooled, tool_choice="required"),
        "tool choice: none": _set(tooled, tool_choice="none"),
        "tool choice: named": _set(tooled, ("weather",), tool_choice=by_name),
        "no parallel calls": _set(tooled, parallel_tool_calls=False),
        "call and result": Specimen(tooled, result(_RESULT), (CITY, _RESULT)),
        "result image": Specimen(result(parts), result([*parts, image]), (_IMAGE,)),
        **_chat_settings(plain),
    }

    def history(answer: Any, result: str) -> Body:
        messages = [answer["choices"][0]["message"], {"role": "tool", "tool_call_id": CALL_ID, "content": result}]
        return {**tooled, "messages": [*plain["messages"], *messages]}

    return Dialect(specimens, history)


def _chat_settings(plain: Body) -> dict[str, Specimen]:
    schema = {"type": "json_schema", "json_schema": {"name": "form", "schema": _SCHEMA, "strict": True}}
    return {
        "JSON answer": _set(plain, response_format={"type": "json_object"}),
        "schema answer": _set(plain, ("Schema 4711",), response_format=schema),
        "effort": _set(plain, ("high",), reasoning_effort="high"),
        "temperature": _set(plain, (0.4711,), temperature=0.4711),
        "top_p": _set(plain, (0.4711,), top_p=0.4711),
        "max tokens": _set(plain, (4711,), max_completion_tokens=4711),
        "stop sequences": _set(plain, ("END 4711",), stop=["END 4711"]),
        "seed": _set(plain, (4711,), seed=4711),
        "metadata": _set(plain, ("u-4711",), metadata={"user_id": "u-4711"}),
        "several choices": _set(plain, n=2),
        "logprobs": _set(plain, logprobs=True),
        "penalties": _set(plain, (0.4711,), presence_penalty=0.4711),
        "cache key": _set(plain, ("key-4711",), prompt_cache_key="key-4711"),
    }


def _responses() -> Dialect:
    text = {"type": "input_text", "text": QUESTION}

    def said(*parts: Body) -> Body:
        return {"input": [{"role": "user", "content": [text, *parts]}]}

    tool = {"type": "function", "name": "weather", "description": _ABOUT, "parameters": _PARAMETERS, "strict": False}
    plain, tooled = said(), {**said(), "tools": [tool]}
    call = {"type": "function_call", "call_id": CALL_ID, "name": "weather", "arguments": _CALL_TEXT}

    def result(output: Any) -> Body:
        answer = {"type": "function_call_output", "call_id": CALL_ID, "output": output}
        return {**tooled, "input": [*plain["input"], call, answer]}

    parts = [{"type": "input_text", "text": _RESULT}]
    image = {"type": "input_image", "image_url": _PNG}
    file = {"type": "input_file", "file_data": f"data:application/pdf;base64,{_PDF}"}
    schema = {"format": {"type": "json_schema", "name": "form", "schema": _SCHEMA, "strict": True}}
    audio = {"type": "input_audio", "input_audio": {"data": _AUDIO, "format": "wav"}}
    specimens = {
        "system message": _set(plain, (_RULE,), instructions=_RULE),
        "image URL": Specimen(plain, said({"type": "input_image", "image_url": _URL}), (_URL,)),
        "image": Specimen(plain, said(image), (_IMAGE,)),
        "audio": Specimen(plain, said(audio), (_AUDIO,)),
        "document": Specimen(plain, said(file), (_PDF,)),
        "file name": Specimen(said(file), said({**file, "filename": "4711.pdf"}), ("4711.pdf",)),
        "file id": Specimen(plain, said({"type": "input_file", "file_id": "file-4711"}), ("file-4711",)),
        "tool": Specimen(plain, tooled, _TOOL_MARKS),
        "strict tool": Specimen(tooled, {**tooled, "tools": [{**tool, "strict": True}]}, (True,)),
        "server tool": _set(plain, tools=[{"type": "web_search"}]),
        "tool choice: required": _set(tooled, tool_choice="required"),
        "tool choice: none": _set(tooled, tool_choice="none"),
        "tool choice: named": _set(tooled, ("weather",), tool_choice={"type": "function", "name": "weather"}),
        "no parallel calls": _set(tooled, parallel_tool_calls=False),
        "call and result": Specimen(tooled, result(_RESULT), (CITY, _RESULT)),
        "result image": Specimen(result(parts), result([*parts, image]), (_IMAGE,)),
        "JSON answer": _set(plain, text={"format": {"type": "json_object"}}),
        "schema answer": _set(plain, ("Schema 4711",), text=schema),
        "effort": _set(plain, ("high",), reasoning={"effort": "high"}),
        "temperature": _set(plain, (0.4711,), temperature=0.4711),
        "top_p": _set(plain, (0.4711,), top_p=0.4711),
        "max tokens": _set(plain, (4711,), max_output_tokens=4711),
        "metadata": _set(plain, ("u-4711",), metadata={"user_id": "u-4711"}),
        "previous response": _set(plain, ("resp_4711",), previous_response_id="resp_4711"),
        "cache key": _set(plain, ("key-4711",), prompt_cache_key="key-4711"),
    }

    def history(answer: Any, result: str) -> Body:
        back = {"type": "function_call_output", "call_id": CALL_ID, "output": result}
        return {**tooled, "input": [*plain["input"], *answer["output"], back]}

    return Dialect(specimens, history)


def _messages() -> Dialect:
    text = {"type": "text", "text": QUESTION}

    def said(*parts: Body) -> Body:
        return {"max_tokens": 1000, "messages": [{"role": "user", "content": [text, *parts]}]}

    tool = {"name": "weather", "description": _ABOUT, "input_schema": _PARAMETERS}
    plain, tooled = said(), {**said(), "tools": [tool]}
    asked = {"role": "assistant", "content": [{"type": "tool_use", "id": CALL_ID, "name": "weather", "input": _CALL}]}

    def result(content: Any, **members: Any) -> Body:
        block = {"type": "tool_result", "tool_use_id": CALL_ID, "content": content, **members}
        return {**tooled, "messages": [*plain["messages"], asked, {"role": "user", "content": [block]}]}

    parts = [{"type": "text", "text": _RESULT}]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _IMAGE}}
    file = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": _PDF}}
    at = {"type": "document", "source": {"type": "url", "url": _URL}}
    cached = {**text, "cache_control": {"type": "ephemeral"}}
    specimens = {
        "system message": _set(plain, (_RULE,), system=_RULE),
        "image URL": Specimen(plain, said({"type": "image", "source": {"type": "url", "url": _URL}}), (_URL,)),
        "image": Specimen(plain, said(image), (_IMAGE,)),
        "document": Specimen(plain, said(file), (_PDF,)),
        "file name": Specimen(said(file), said({**file, "title": "4711.pdf"}), ("4711.pdf",)),
        "document URL": Specimen(plain, said(at), (_URL,)),
        "document citations": Specimen(said(file), said({**file, "citations": {"enabled": True}})),
        "tool": Specimen(plain, tooled, _TOOL_MARKS),
        "strict tool": Specimen(tooled, {**tooled, "tools": [{**tool, "strict": True}]}, (True,)),
        "server tool": _set(plain, tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        "tool choice: required": _set(tooled, tool_choice={"type": "any"}),
        "tool choice: none": _set(tooled, tool_choice={"type": "none"}),
        "tool choice: named": _set(tooled, ("weather",), tool_choice={"type": "tool", "name": "weather"}),
        "no parallel calls": _set(tooled, tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        "call and result": Specimen(tooled, result(_RESULT), (CITY, _RESULT)),
        "failed result": Specimen(result(_RESULT), result(_RESULT, is_error=True), (True,)),
        "result image": Specimen(result(parts), result([*parts, image]), (_IMAGE,)),
        **_messages_settings(plain),
        "cache mark": Specimen(plain, {**plain, "messages": [{"role": "user", "content": [cached]}]}),
    }

    def history(answer: Any, result: str) -> Body:
        block = {"type": "tool_result", "tool_use_id": CALL_ID, "content": result}
        turns = [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": [block]}]
        return {**tooled, "messages": [*plain["messages"], *turns]}

    return Dialect(specimens, history)


def _messages_settings(plain: Body) -> dict[str, Specimen]:
    return {
        "schema answer": _set(
            plain, ("Schema 4711",), output_config={"format": {"type": "json_schema", "schema": _SCHEMA}}
        ),
        "effort": _set(plain, ("high",), output_config={"effort": "high"}),
        "reasoning budget": _set(
            {**plain, "max_tokens": 9000}, (4711,), thinking={"type": "enabled", "budget_tokens": 4711}
        ),
        "temperature": _set(plain, (0.4711,), temperature=0.4711),
        "top_p": _set(plain, (0.4711,), top_p=0.4711),
        "top_k": _set(plain, (47,), top_k=47),
        "max tokens": _set(plain, (4711,), max_tokens=4711),
        "stop sequences": _set(plain, ("END 4711",), stop_sequences=["END 4711"]),
        "metadata": _set(plain, ("u-4711",), metadata={"user_id": "u-4711"}),
    }


_NOT_OF_CONVERSATION: Final = (
    "tool",
    "strict tool",
    "tool choice: required",
    "tool choice: none",
    "tool choice: named",
    "JSON answer",
    "schema answer",
    "effort",
    "reasoning budget",
    "temperature",
    "top_p",
    "max tokens",
    "stop sequences",
    "seed",
    "metadata",
)


def _beside(conversation: Body, names: tuple[str, ...], place: Callable[[Body], Body]) -> dict[str, Specimen]:
    """Returns the specimens of members that are a native request's own, in a body of another dialect.

    Args:
        conversation: The body with its messages.
        names: The specimens.
        place: Puts native members where the dialect has them.
    """
    native = _native().specimens

    def body(asked: Body) -> Body:
        return {**conversation, **place({key: value for key, value in asked.items() if key != "messages"})}

    chosen = {name: native[name] for name in names}
    return {name: Specimen(body(one.plain), body(one.asking), one.marks) for name, one in chosen.items()}


def _ui_messages() -> Dialect:
    text = {"type": "text", "text": QUESTION}

    def said(*parts: Body, role: str = "user") -> Body:
        return {"id": "m1", "role": role, "parts": [*parts]}

    def body(*messages: Body) -> Body:
        return {"id": "chat", "trigger": "submit-message", "messages": [said(text), *messages]}

    def asked(*parts: Body) -> Body:
        return {**body(), "messages": [said(text, *parts)]}

    plain = body()
    called = {"type": "tool-weather", "toolCallId": CALL_ID, "state": "output-available", "input": _CALL}
    done = {**called, "output": _RESULT}
    file = {"type": "file", "mediaType": "application/pdf", "url": f"data:application/pdf;base64,{_PDF}"}
    members = _beside(plain, _NOT_OF_CONVERSATION, dict)
    tooled = members["tool"].asking
    failed = {**called, "state": "output-error", "errorText": _RESULT}

    def answered(*parts: Body) -> Body:
        return {**tooled, "messages": body(said(*parts, role="assistant"))["messages"]}

    audio = {"type": "file", "mediaType": "audio/wav", "url": f"data:audio/wav;base64,{_AUDIO}"}
    specimens = {
        "system message": Specimen(
            plain,
            {**plain, "messages": [said({"type": "text", "text": _RULE}, role="system"), *plain["messages"]]},
            (_RULE,),
        ),
        "image URL": Specimen(plain, asked({"type": "file", "mediaType": "image/png", "url": _URL}), (_URL,)),
        "image": Specimen(plain, asked({"type": "file", "mediaType": "image/png", "url": _PNG}), (_IMAGE,)),
        "audio": Specimen(plain, asked(audio), (_AUDIO,)),
        "document": Specimen(plain, asked(file), (_PDF,)),
        "file name": Specimen(asked(file), asked({**file, "filename": "4711.pdf"}), ("4711.pdf",)),
        "document URL": Specimen(plain, asked({**file, "url": _URL}), (_URL,)),
        "call and result": Specimen(tooled, answered(done), (CITY, _RESULT)),
        "failed result": Specimen(answered(done), answered(failed), (True,)),
        **members,
    }

    def history(answer: Any, result: str) -> Body:
        parts = [
            {**part, "state": "output-available", "output": result} if "toolCallId" in part else part
            for part in answer["parts"]
        ]
        return answered(*parts)

    return Dialect(specimens, history)


def _forwarded(members: Body) -> Body:
    return {"forwardedProps": {key: value for key, value in members.items() if key != "tools"}}


def _run_input() -> Dialect:
    text = {"type": "text", "text": QUESTION}

    def body(*messages: Body, **members: Any) -> Body:
        own = {"threadId": "t", "runId": "r", "state": {}, "tools": [], "context": [], "forwardedProps": {}}
        return {**own, "messages": [*messages], **members}

    def said(*parts: Body) -> Body:
        return {"id": "1", "role": "user", "content": [text, *parts]}

    def source(data: str, media_type: str) -> Body:
        return {"type": "data", "value": data, "mimeType": media_type}

    plain = body(said())
    tool = {"name": "weather", "description": _ABOUT, "parameters": _PARAMETERS}
    tooled = body(said(), tools=[tool])
    function = {"id": CALL_ID, "type": "function", "function": {"name": "weather", "arguments": _CALL_TEXT}}
    call = {"id": "2", "role": "assistant", "toolCalls": [function]}

    def result(content: Any, **members: Any) -> Body:
        answer = {"id": "3", "role": "tool", "toolCallId": CALL_ID, "content": content, **members}
        return {**tooled, "messages": [said(), call, answer]}

    parts = [{"type": "text", "text": _RESULT}]
    image = {"type": "image", "source": source(_IMAGE, "image/png")}
    file = {"type": "document", "source": source(_PDF, "application/pdf")}
    by_url = {"type": "image", "source": {"type": "url", "value": _URL}}
    fact = {"description": "Rule", "value": _RULE}
    choices = tuple(name for name in _NOT_OF_CONVERSATION if name.startswith("tool choice"))
    others = tuple(name for name in _NOT_OF_CONVERSATION if name not in ("tool", "strict tool", *choices))
    specimens = {
        "system message": Specimen(plain, body({"id": "0", "role": "system", "content": _RULE}, said()), (_RULE,)),
        "context": Specimen(plain, body(said(), context=[fact]), (_RULE,)),
        "state": Specimen(plain, body(said(), state={"a": "state 4711"}), ("state 4711",)),
        "image URL": Specimen(plain, body(said(by_url)), (_URL,)),
        "image": Specimen(plain, body(said(image)), (_IMAGE,)),
        "audio": Specimen(plain, body(said({"type": "audio", "source": source(_AUDIO, "audio/wav")})), (_AUDIO,)),
        "document": Specimen(plain, body(said(file)), (_PDF,)),
        "tool": Specimen(plain, tooled, _TOOL_MARKS),
        "call and result": Specimen(tooled, result(_RESULT), (CITY, _RESULT)),
        "failed result": Specimen(result(_RESULT), result(_RESULT, error="failed"), (True,)),
        "result image": Specimen(result(parts), result([*parts, image]), (_IMAGE,)),
        **_beside(tooled, choices, _forwarded),
        **_beside(plain, others, _forwarded),
    }

    def history(answer: Any, result: str) -> Body:
        back = {"id": "9", "role": "tool", "toolCallId": CALL_ID, "content": result}
        return {**tooled, "messages": [said(), *answer["newMessages"], back]}

    return Dialect(specimens, history)


def _prompt() -> Dialect:
    plain: Body = {"prompt": QUESTION}
    specimens = {
        "temperature": _set(plain, (0.4711,), temperature=0.4711),
        "top_p": _set(plain, (0.4711,), top_p=0.4711),
        "max tokens": _set(plain, (4711,), max_tokens=4711),
        "stop sequences": _set(plain, ("END 4711",), stop=["END 4711"]),
        "seed": _set(plain, (4711,), seed=4711),
        "several choices": _set(plain, n=2),
        "logprobs": _set(plain, logprobs=1),
        "penalties": _set(plain, (0.4711,), presence_penalty=0.4711),
        "echo": _set(plain, echo=True),
        "suffix": _set(plain, ("Suffix 4711",), suffix="Suffix 4711"),
    }
    return Dialect(specimens)


DIALECTS: Final[Mapping[str, Dialect]] = {
    "gai": _native(),
    "openai": _chat(),
    "responses": _responses(),
    "anthropic": _messages(),
    "vercel": _ui_messages(),
    "agui": _run_input(),
    "completions": _prompt(),
}
"""By the format's name. Where a format that reads requests is missing, `tools.client_table` names it."""
