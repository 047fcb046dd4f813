"""Templates of requests in the chat dialect: what they write is what would be built from objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Error
from gai_fast.model.request import (
    AssistantMessage,
    CacheMark,
    ImagePart,
    NamedTool,
    Reasoning,
    ReasoningPart,
    Request,
    SharedTools,
    SystemMessage,
    TextPart,
    Tool,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)
from gai_fast.providers import API, PROVIDERS, Target, UpstreamRequest, get_provider
from gai_fast.providers.chat.api import ChatAPI
from gai_fast.providers.requests.limits import LIMITS as OF_REQUESTS
from gai_fast.runtime import breathing
from gai_fast.runtime.breathing import begin_work, end_work
from tests.limits import LIMITS

FULL_REQUEST = parse_request(
    json.dumps(
        {
            "query": "So?",
            "tools": [{"name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}],
            "response_format": {"type": "json"},
            "reasoning": {"effort": "high"},
        }
    ).encode()
)

APIS = [api for name in PROVIDERS for api in (get_provider(name),) if isinstance(api, ChatAPI)]
APIS += [get_provider(f"{name}:completions") for name in ("openai", "openai-compatible")]
TEXTS = (
    Request(query="Hi"),
    Request(system="Be brief.", messages=[UserMessage(content="a"), UserMessage(content="b")], query="c"),
    Request(messages=[SystemMessage(content="a"), UserMessage(content="b"), AssistantMessage(content="c")]),
    Request(messages=[UserMessage(content='"messages":[]'), AssistantMessage(content="-")], query="\\"),
    Request(query="\ud83d\ude00 \ud800 \x00\n\u2028 \U0001f600"),
    Request(query=""),
    Request(system="", messages=[AssistantMessage(content="")], query="a"),
    Request(messages=[ToolMessage(call_id="c", content="a")], query="b"),
    Request(query="a", stream=False, resumable=True, model="m", request_id="r", idempotency_key="k", json_snapshots=1),
)
MORE = [
    Request(query="a", **given)
    for given in (
        {"tools": FULL_REQUEST.tools},
        {"tools": FULL_REQUEST.tools, "tool_choice": "none"},
        {"response_format": FULL_REQUEST.response_format},
        {"reasoning": FULL_REQUEST.reasoning},
        {"temperature": 0.0},
        {"top_p": 0.0},
        {"max_tokens": 1},
        {"stop": ["x"]},
        {"seed": 0},
        {"metadata": {"a": "b"}},
        {"provider_options": {api.provider: {"x": 1} for api in APIS}},
    )
]


def _built(build: Any, api: API, asked: Request, model: str) -> Any:
    target = Target(model, "key", "drop")
    try:
        sent: UpstreamRequest = build(api, asked, target)
    except Error as problem:
        return problem.code, problem.message
    return sent.method, sent.path, [*sent.headers], sent.body, target.changes.dropped


@pytest.mark.parametrize("api", APIS, ids=lambda api: type(api).__name__)
def test_a_request_of_texts_is_written_as_any_other(api: API) -> None:
    made = type(api)()
    for model in ("m", "a/b:c", '[{"role":"user","content":"-"}]', "-", ""):
        for asked in (*TEXTS, *MORE, *TEXTS):
            assert _built(ChatAPI.build_request, made, asked, model) == _built(API.build_request, made, asked, model)


@pytest.mark.parametrize("name", [name for name in PROVIDERS if isinstance(get_provider(name), ChatAPI)])
def test_every_provider_of_chats_has_templates(name: str) -> None:
    made: Any = type(get_provider(name))()
    made.build_request(Request(query="a"), Target("m"))
    assert made._templates["m"].ends


class _Own(ChatAPI):
    """A provider of somebody else's: compiled ones cannot be derived from."""

    provider = "own"


class _Signed(_Own):
    """Headers that depend on the body."""

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        made = super().post(body, target)
        return UpstreamRequest(made.path, made.body, [*made.headers, ("x-size", str(len(made.body)))])


class _Counting(_Own):
    """Another path for each body."""

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        made = super().post(body, target)
        return UpstreamRequest(f"{made.path}?messages={len(body['messages'])}", made.body, made.headers)


class _SystemFirst(_Own):
    def messages(self, request: Request, target: Target) -> list[dict[str, Any]]:
        return sorted(super().messages(request, target), key=lambda message: message["role"] != "system")


class _Trimmed(_Own):
    def message(self, message: Any, path: str, target: Target) -> dict[str, Any] | None:
        written = super().message(message, path, target)
        return written and written | {"content": written["content"].strip()}


class _Numbered(_Own):
    """A header that differs each time."""

    number = 0

    def headers(self, target: Target) -> list[tuple[str, str]]:
        self.number += 1
        return [*super().headers(target), ("x-number", str(self.number))]


@pytest.mark.parametrize("kind", [_Signed, _Counting, _SystemFirst, _Trimmed])
def test_what_a_provider_overrides_is_in_every_request(kind: Any) -> None:
    made = kind()
    for asked in (
        Request(query="Hi"),
        Request(messages=[UserMessage(content=" a "), SystemMessage(content="b")], query="c"),
        Request(query="Hi there"),
    ):
        assert _built(ChatAPI.build_request, made, asked, "m") == _built(API.build_request, made, asked, "m")


def test_headers_that_differ_each_time_are_made_for_each_request() -> None:
    made = _Numbered()
    sent = [dict(made.build_request(Request(query="a"), Target("m")).headers)["x-number"] for _ in range(3)]
    assert len({*sent}) == 3


class _Interrupted(str):
    """A credential during whose comparison another thread asks with its own."""

    api: ClassVar[Any] = None
    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        differs = str.__ne__(self, other)
        self.api.build_request(Request(query="a"), Target("m", "theirs"))
        return differs


def test_a_request_has_its_own_credential_whatever_other_threads_ask() -> None:
    api = _Interrupted.api = _Own()
    api.build_request(Request(query="a"), Target("m", "mine"))
    sent = api.build_request(Request(query="a"), Target("m", _Interrupted("mine")))
    assert dict(sent.headers)["authorization"] == "Bearer mine"


class _Asked(_Own):
    """Another thread asks at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.is_inside = False
        self.bodies: list[bytes] = []

    def message(self, message: Any, path: str, target: Target) -> dict[str, Any] | None:
        if not self.is_inside:
            self.is_inside = True
            self.bodies.append(self.build_request(Request(query="a"), Target("m")).body)
            self.is_inside = False
        return super().message(message, path, target)


def test_a_template_is_not_used_before_it_is_complete() -> None:
    api = _Asked()
    api.build_request(Request(query="a"), Target("m"))
    assert {*api.bodies} == {API.build_request(_Own(), Request(query="a"), Target("m")).body}


def test_few_models_are_known_whatever_callers_name() -> None:
    api = type(get_provider("openai-compatible"))()
    for number in range(2 * LIMITS.known_values):
        assert _built(ChatAPI.build_request, api, TEXTS[0], f"m{number}")[3].startswith(b'{"model":"m%d",' % number)
    assert len(api._templates) <= LIMITS.known_values


# ---- tools -----------------------------------------------------------------------------------------------------------

MODELS = ("m", "gpt-5.6", "gpt-4.1", "grok-4", "deepseek-reasoner", "a/b:c", "tool-1")
SCHEMA = Raw(b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}')
UNION = Raw(b'{"anyOf":[{"type":"object","properties":{"a":{"type":"string"}}},{"type":"object"}]}')
TOOLS = {
    "one": [Tool(name="weather", description="The weather of a city", parameters=SCHEMA)],
    "the probe's name": [Tool(name="tool-1"), Tool(name="tool", description='said-it "call_id-1" [{"role":"user"')],
    "a long name": [Tool(name="n" * 80)],
    "a dotted name": [Tool(name="docs.search")],
    "strict": [Tool(name="weather", parameters=SCHEMA, strict=True)],
    "a union": [Tool(name="weather", parameters=UNION)],
    "marked": [Tool(name="weather", parameters=SCHEMA, cache=CacheMark())],
    "a search": [Tool(type="web_search"), Tool(name="weather")],
    "custom": [Tool(type="custom", name="weather")],
    "none": [],
}
WORDS = st.sampled_from(["", " ", "a", "tok\n", "-", "said-it", '"},{"', "\ud800", "\u2028é😀"])
IDS = st.sampled_from(["call_1", "call_2", "abcdefgh1", "call_id-1", "", "x" * 70, 'a"b', "c:1"])
NAMES = st.sampled_from(["weather", "tool-1", "docs.search", "n" * 80, "nobody"])
INPUTS = st.sampled_from([b"{}", b'{ "city": "Os\\u006co" }', b'{"n":1e400}', b"null", b'"text"', b"[1]"])
CALLS = st.builds(
    ToolCallPart,
    call_id=IDS,
    name=NAMES,
    input=INPUTS.map(Raw),
)
SIGNED = st.builds(ToolCallPart, call_id=IDS, name=NAMES, signature=st.just("s"))
PARTS = st.one_of(
    CALLS,
    CALLS,
    st.builds(TextPart, text=WORDS),
    st.builds(TextPart, text=WORDS, cache=st.just(True)),
    SIGNED,
    st.builds(ReasoningPart, text=WORDS, provider=st.sampled_from(["deepseek", "openai-compatible"])),
)
RESULTS = st.builds(
    ToolMessage,
    call_id=IDS,
    content=st.one_of(WORDS, st.lists(st.builds(TextPart, text=WORDS), max_size=2)),
    is_error=st.booleans(),
)
MESSAGES = st.one_of(
    st.builds(UserMessage, content=st.one_of(WORDS, st.just([TextPart(text="a")]), st.just([ImagePart(url="u")]))),
    st.builds(SystemMessage, content=WORDS),
    st.builds(AssistantMessage, content=st.one_of(WORDS, st.lists(PARTS, max_size=3))),
    RESULTS,
)
REST = st.fixed_dictionaries(
    {},
    optional={
        "query": WORDS,
        "system": WORDS,
        "tool_choice": st.sampled_from(["auto", "none", "required", NamedTool(name="weather")]),
        "temperature": st.sampled_from([0.0, 0.5, 1.0]),
        "top_p": st.just(0.5),
        "max_tokens": st.just(5),
        "seed": st.just(1),
        "reasoning": st.just(Reasoning(effort="low")),
        "parallel_tool_calls": st.booleans(),
    },
)


@st.composite
def turns(draw: st.DrawFn) -> list[Any]:
    """Turns of a run: calls, and their results in their order."""
    said: list[Any] = [UserMessage(content="a")]
    for turn in range(draw(st.integers(1, 4))):
        calls = [
            ToolCallPart(call_id=f"call{turn}0000{at}"[:9], name=draw(NAMES), input=Raw(draw(INPUTS)))
            for at in range(draw(st.integers(1, 3)))
        ]
        texts = [TextPart(text=draw(WORDS)) for _ in range(draw(st.integers(0, 2)))]
        said.append(AssistantMessage(content=[*texts, *calls]))
        said += [ToolMessage(call_id=call.call_id, content=draw(WORDS)) for call in calls]
    return said


@pytest.mark.parametrize("api", APIS, ids=lambda api: type(api).__name__)
@given(
    tools=st.sampled_from([*TOOLS]),
    conversations=st.lists(st.one_of(turns(), st.lists(MESSAGES, min_size=1, max_size=6)), min_size=1, max_size=3),
    rest=REST,
    model=st.sampled_from(MODELS),
)
def test_a_request_with_tools_is_written_as_any_other(
    api: API, tools: str, conversations: Sequence[list[Any]], rest: dict[str, Any], model: str
) -> None:
    shared = SharedTools(TOOLS[tools])
    for said in conversations:
        asked = Request(messages=said, tools=shared, **rest)
        assert _built(ChatAPI.build_request, api, asked, model) == _built(API.build_request, api, asked, model)


class _Counted(_Own):
    """Counts what is built from objects."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies = 0

    def body(self, request: Request, target: Target) -> dict[str, Any]:
        self.bodies += 1
        return super().body(request, target)


def _conversation(turns: int) -> list[Any]:
    said: list[Any] = [UserMessage(content="Hi")]
    for turn in range(turns):
        said.append(
            AssistantMessage(content=[TextPart(text="So"), ToolCallPart(call_id=f"call_{turn}", name="weather")])
        )
        said.append(ToolMessage(call_id=f"call_{turn}", content="4 °C"))
    return said


def test_turns_of_runs_with_the_same_tools_are_not_built_from_objects() -> None:
    api, tools = _Counted(), SharedTools(TOOLS["one"])
    api.build_request(Request(messages=_conversation(0), tools=tools), Target("m"))
    before = api.bodies
    for turn in range(5):
        api.build_request(Request(messages=_conversation(turn), tools=tools), Target("m"))
    assert api.bodies == before


def test_a_choice_and_sampling_have_forms_of_their_own_and_few_are_kept() -> None:
    api, tools = _Counted(), SharedTools(TOOLS["one"])
    forms = 2 * OF_REQUESTS.frames
    for number in range(2 * forms):
        for choice in ("auto", "none"):
            asked = Request(
                messages=_conversation(1),
                tools=tools,
                tool_choice=choice,
                max_tokens=1 + number % forms,
            )
            assert _built(ChatAPI.build_request, api, asked, "m") == _built(API.build_request, api, asked, "m")
    assert len(tools.written) <= OF_REQUESTS.frames


class _Announced(_Own):
    """A header of requests with tools alone."""

    def post(self, body: dict[str, Any], target: Target) -> UpstreamRequest:
        made = super().post(body, target)
        return UpstreamRequest(made.path, made.body, [*made.headers, *([("x-tools", "1")] if "tools" in body else [])])


def test_headers_of_requests_with_tools_alone_are_in_each_of_them() -> None:
    api, tools = _Announced(), SharedTools(TOOLS["one"])
    for turn in range(3):
        asked = Request(messages=_conversation(turn), tools=tools)
        assert _built(ChatAPI.build_request, api, asked, "m") == _built(API.build_request, api, asked, "m")
    assert _built(ChatAPI.build_request, api, Request(query="a"), "m") == _built(
        API.build_request, api, Request(query="a"), "m"
    )


def test_facts_that_the_configuration_corrects_have_a_form_of_their_own() -> None:
    api, tools = get_provider("openai"), SharedTools(TOOLS["one"])
    for corrections in ({}, {"thinks_with_tools": False}, {}):
        asked = Request(messages=_conversation(1), tools=tools)
        one, other = (Target("gpt-5.2", "key", "drop", corrections) for _ in range(2))
        assert api.build_request(asked, one).body == API.build_request(api, asked, other).body


def test_a_key_of_the_cache_is_in_requests_with_tools() -> None:
    api, tools = get_provider("openai"), SharedTools(TOOLS["one"])
    asked = Request(messages=_conversation(1), tools=tools)
    sent = [
        json.loads(build(api, asked, Target("gpt-4.1", "key", cache_key="k")).body)
        for build in (ChatAPI.build_request, API.build_request)
    ]
    assert sent[0] == sent[1]
    assert sent[0]["prompt_cache_key"] == "k"


def test_work_beside_the_loop_breathes_while_a_template_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    breaths: list[float] = []
    monkeypatch.setattr(breathing, "sleep", breaths.append)
    api, tools = _Own(), SharedTools(TOOLS["one"])
    for asked in (Request(messages=_conversation(9), tools=tools), Request(messages=[UserMessage(content="a")] * 9)):
        api.build_request(asked, Target("m"))
        monkeypatch.setattr(breathing._work, "breathed_at", 0.0)
        breaths.clear()
        begin_work()
        try:
            api.build_request(asked, Target("m"))
        finally:
            end_work()
        assert breaths
