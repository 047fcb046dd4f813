"""A turn of a conversation repeats the turn before in the same bytes, whatever its client wraps it in.

Providers cache the beginning of a prompt. So the messages of a conversation that was cut before an answer are the
beginning of the whole conversation's, and no other member differs, but for the marks of a cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gai_fast.formats import get_format
from gai_fast.providers import Target, get_provider, provider_names

APIS: Final = [
    name if not api else f"{name}:{api}"
    for name in provider_names()
    if name not in ("demo", "python")
    for api in import_module(f"gai_fast.providers.{name.replace('-', '_')}").APIS
]
LISTS: Final = ("messages", "input", "contents")
MARKS: Final[Mapping[str, Any]] = {
    "cache_control": {"type": "ephemeral"},
    "prompt_cache_breakpoint": {"mode": "explicit"},
}
MARK: Final = re.compile(rb',"(?:%b)":\{[^{}]*\}' % "|".join(MARKS).encode())
"""A mark in a body that is sent: it is never the first member of its object."""
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer"}}}
WITHOUT_TOOLS: Final = ("perplexity",)
"""Providers whose API has no tools."""


@dataclass(frozen=True)
class Step:
    """A question or a step of an agent.

    Args:
        said: The texts of the user.
        image: Whether an image follows them.
        system: A system text behind them, or none.
        answer: The text of the answer.
        calls: How many tools the answer calls.
    """

    said: Sequence[str]
    image: bool
    system: str
    answer: str
    calls: int


WORDS = st.text('aä 1"\\', min_size=1, max_size=4).map(lambda text: f"x{text}x")


@st.composite
def steps(draw: st.DrawFn, with_calls: bool) -> list[Step]:
    calls = st.integers(0, 2 if with_calls else 0)
    return [
        Step(
            draw(st.lists(WORDS, min_size=1, max_size=2)),
            draw(st.booleans()),
            draw(st.one_of(st.just(""), WORDS)),
            draw(WORDS),
            draw(calls),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


class Wrapper:
    """Wraps texts in strings or parts, as a client may do differently in each turn.

    Args:
        is_plain: Returns whether a text is a string.
        kind: The type of a part with a text.
    """

    def __init__(self, is_plain: Callable[[], bool], kind: str) -> None:
        self._is_plain = is_plain
        self.kind = kind

    def one(self, text: str, kind: str = "") -> Any:
        return text if self._is_plain() else self.parts([text], kind)

    def parts(self, texts: Sequence[str], kind: str = "") -> list[dict[str, Any]]:
        return [{"type": kind or self.kind, "text": text} for text in texts]

    def said(self, step: Step, image: Any) -> Any:
        """Returns what the user says in a step; `image` is an image in the client's dialect."""
        if len(step.said) == 1 and not step.image:
            return self.one(step.said[0])
        return [*self.parts(step.said), *([image] if step.image else [])]


PIXEL: Final = "iVBORw0KGgo="
PIXEL_URL: Final = f"data:image/png;base64,{PIXEL}"


def chat(system: str, given_steps: Sequence[Step], wrap: Wrapper) -> dict[str, Any]:
    messages: list[Any] = [{"role": "system", "content": wrap.one(system)}]
    image = {"type": "image_url", "image_url": {"url": PIXEL_URL}}
    for at, step in enumerate(given_steps):
        messages.append({"role": "user", "content": wrap.said(step, image)})
        if step.system:
            messages.append({"role": "system", "content": wrap.one(step.system)})
        calls = [
            {"id": f"call_{at}_{n}", "type": "function", "function": {"name": f"f{n}", "arguments": '{"a":1}'}}
            for n in range(step.calls)
        ]
        if calls:
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": wrap.one("done")} for call in calls]
        messages.append({"role": "assistant", "content": wrap.one(step.answer)})
    tools = [{"type": "function", "function": {"name": f"f{n}", "parameters": SCHEMA}} for n in range(2)]
    return {"model": "m", "messages": messages, "tools": tools, "stream": True}


def messages(system: str, given_steps: Sequence[Step], wrap: Wrapper) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "max_tokens": 9, "system": wrap.one(system), "stream": True}
    turns: list[Any] = []
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    for at, step in enumerate(given_steps):
        turns.append({"role": "user", "content": wrap.said(step, image)})
        if step.system:
            turns.append({"role": "system", "content": wrap.one(step.system)})
        ids = [f"toolu_{at}_{n}" for n in range(step.calls)]
        if ids:
            called = [
                {"type": "tool_use", "id": each, "name": f"f{n}", "input": {"a": 1}} for n, each in enumerate(ids)
            ]
            turns.append({"role": "assistant", "content": called})
            results = [{"type": "tool_result", "tool_use_id": each, "content": wrap.one("done")} for each in ids]
            turns.append({"role": "user", "content": results})
        turns.append({"role": "assistant", "content": wrap.one(step.answer)})
    tools = [{"name": f"f{n}", "input_schema": SCHEMA} for n in range(2)]
    return {**body, "messages": turns, "tools": tools}


def responses(system: str, given_steps: Sequence[Step], wrap: Wrapper) -> dict[str, Any]:
    items: list[Any] = []
    image = {"type": "input_image", "image_url": PIXEL_URL, "detail": "auto"}
    for at, step in enumerate(given_steps):
        items.append({"role": "user", "content": wrap.said(step, image)})
        if step.system:
            items.append({"role": "developer", "content": wrap.one(step.system)})
        ids = [f"call_{at}_{n}" for n in range(step.calls)]
        items += [
            {"type": "function_call", "call_id": each, "name": f"f{n}", "arguments": '{"a":1}'}
            for n, each in enumerate(ids)
        ]
        items += [{"type": "function_call_output", "call_id": each, "output": wrap.one("done")} for each in ids]
        items.append({"type": "message", "role": "assistant", "content": wrap.one(step.answer, "output_text")})
    tools = [{"type": "function", "name": f"f{n}", "parameters": SCHEMA} for n in range(2)]
    return {"model": "m", "instructions": system, "input": items, "tools": tools, "stream": True, "store": False}


CLIENTS: Final[Mapping[str, Any]] = {
    "openai": (chat, "text"),
    "anthropic": (messages, "text"),
    "responses": (responses, "input_text"),
}


def before_an_answer(body: dict[str, Any], dialect: str, place: int) -> dict[str, Any]:
    """Returns the body with the conversation before the answer that begins at a place."""
    name = "input" if dialect == "responses" else "messages"
    return {**body, name: body[name][:place]}


def answers(body: dict[str, Any], dialect: str) -> list[int]:
    """Returns the places at which answers begin."""
    items = body["input" if dialect == "responses" else "messages"]

    def is_answer(item: Any) -> bool:
        return item.get("role") == "assistant" or item.get("type") == "function_call"

    return [at for at, item in enumerate(items) if is_answer(item) and not (at and is_answer(items[at - 1]))]


def markable(body: dict[str, Any], dialect: str) -> Iterator[dict[str, Any]]:
    """Yields the objects that a client may mark: parts, and those that stand for all of their parts."""
    is_responses = dialect == "responses"
    if not is_responses:
        yield from body.get("tools", ())
    for message in [{"content": body.get("system")}, *body["input" if is_responses else "messages"]]:
        if dialect == "openai" and "role" in message:
            yield message
        content = message.get("output") if is_responses and "output" in message else message.get("content")
        for part in content if isinstance(content, list) else ():
            if part["type"] != "output_text":
                yield part
            inner = part.get("content")
            if isinstance(inner, list):
                yield from inner


def sent(api_name: str, dialect: str, body: dict[str, Any]) -> dict[str, bytes]:
    """Returns the members of a request in the bytes that go up, without marks."""
    api, target = get_provider(api_name), Target("m", on_unsupported="drop", cache_key="session")
    if api.dialect == dialect:
        written = api.build_passthrough(body, target).body
    else:
        written = api.build_request(get_format(dialect).parse_request(body)[0], target).body
    members = msgspec.json.decode(MARK.sub(b"", written), type=dict[str, msgspec.Raw])
    return {name: bytes(raw) for name, raw in members.items()}


@pytest.mark.parametrize("dialect", CLIENTS)
@pytest.mark.parametrize("api_name", [name for name in APIS if not name.endswith((":completions", ":generate"))])
@settings(max_examples=settings().max_examples * 3 // 20, derandomize=True)
@given(data=st.data())
def test_each_turn_begins_with_the_turn_before(api_name: str, dialect: str, data: st.DataObject) -> None:
    """Of a conversation with marks each turn has one at least, anywhere: also where a native request has no place."""
    write, kind = CLIENTS[dialect]
    api = get_provider(api_name)
    with_calls = api_name not in WITHOUT_TOOLS
    conversation = data.draw(steps(with_calls))
    has_marks = data.draw(st.booleans())
    is_own = api.dialect == dialect

    def body(place: int | None) -> dict[str, Any]:
        # What a client of the upstream's own dialect wraps goes up as it is.
        is_plain = (lambda: not has_marks) if is_own else (lambda: data.draw(st.booleans()))
        written: dict[str, Any] = write("You help.", conversation, Wrapper(is_plain, kind))
        if not with_calls:
            del written["tools"]
        if place is None:
            return written
        cut = before_an_answer(written, dialect, place)
        if has_marks:
            holders = [*markable(cut, dialect)]
            assume(holders)
            mark = "prompt_cache_breakpoint" if dialect == "responses" else "cache_control"
            for at in data.draw(st.sets(st.integers(0, len(holders) - 1), min_size=1, max_size=2)):
                holders[at][mark] = MARKS[mark]
        return cut

    places = sorted(data.draw(st.sampled_from(answers(body(None), dialect))) for _ in range(2))
    shorter, longer = [sent(api_name, dialect, body(place)) for place in places]
    name = next(name for name in LISTS if name in longer)
    assert longer.pop(name).startswith(shorter.pop(name)[:-1])
    assert longer == shorter
