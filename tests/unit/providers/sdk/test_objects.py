"""`gai_fast/providers/sdk/objects.py`: an object's API is found by its members; how an object becomes JSON.

`tests/corpus/test_from_sdk.py` has recordings through the SDKs themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from orjson import loads

import gai_fast
from gai_fast.providers import PROVIDERS
from gai_fast.providers.sdk.objects import provider_of, shape_of


def langchain(text: Any = "", *, calls: Any = (), usage: Any = None, **expected: Any) -> Any:
    return SimpleNamespace(
        type="AIMessageChunk",
        content=text,
        tool_call_chunks=[*calls],
        usage_metadata=usage,
        response_metadata=expected,
        additional_kwargs={},
    )


def test_message_chunks_of_langchain_keep_reasoning_calls_and_usage() -> None:
    call = {"index": 0, "id": "c1", "name": "now", "args": '{"a":'}
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "output_token_details": {"reasoning": 1}}
    messages = [
        langchain([{"type": "reasoning", "reasoning": "Hm"}]),
        langchain([{"type": "text", "text": "Let us see."}]),
        langchain(calls=[call]),
        langchain(calls=[{"index": 0, "id": None, "name": None, "args": "1}"}]),
        langchain(finish_reason="tool_calls", model_name="m"),
        langchain(usage=usage),
    ]
    result = gai_fast.collect(gai_fast.from_sdk(iter(messages)))
    assert (result.reasoning, result.text) == ("Hm", "Let us see.")
    assert result.tool_calls[0].input == {"a": 1}
    assert result.usage["output_tokens"] == 4


@pytest.mark.parametrize("is_pair", [False, True])
def test_message_chunks_and_pairs_of_langgraph_are_read_and_their_usage_is_added(is_pair: bool) -> None:
    """Anthropic's first message counts the input, its last one the output; a chunk of Gemini's has that member too."""
    first = {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3, "input_token_details": {"cache_read": 2}}
    last = {"input_tokens": 0, "output_tokens": 4, "total_tokens": 4, "output_token_details": {"reasoning": None}}
    messages = [
        declared_message(usage=first),
        declared_message("Hi"),
        declared_message(usage=last, stop_reason="end_turn"),
    ]
    result = gai_fast.collect(gai_fast.from_sdk(iter([(each, {}) for each in messages] if is_pair else messages)))
    assert (result.text, result.finish_reason) == ("Hi", "stop")
    assert result.usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7, "cached_input_tokens": 2}


@pytest.mark.parametrize(
    ("members", "api"),
    [
        ({"choices": []}, "openai"),
        ({"object": "chat.completion.chunk"}, "openai"),
        ({"type": "response.created"}, "openai:responses"),
        ({"type": "message_start"}, "anthropic"),
        ({"type": "message-start"}, "cohere"),
        ({"event_type": "stream-start"}, "cohere"),
        ({"event_type": "text-generation", "text": "Hi"}, "cohere"),
        ({"candidates": []}, "gemini"),
        ({"usageMetadata": {}}, "gemini"),
        ({"model": "m", "message": {}, "done": False}, "ollama"),
        ({"model": "m", "response": "", "done": False}, "ollama:generate"),
    ],
)
def test_members_tell_the_api(members: dict[str, Any], api: str) -> None:
    shape = shape_of(members, "")
    assert shape.api == api
    assert loads(shape.wire(members) or "") == members


class Model:
    """A model of pydantic, as far as it is read."""

    __slots__ = ("__dict__", "__pydantic_extra__")

    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)
        self.__pydantic_extra__: dict[str, Any] = {}

    def model_dump_json(self, **options: Any) -> str:
        raise AssertionError("a text is not dumped")


def declared_message(text: str = "", **more: Any) -> Model:
    """Returns a message chunk of LangChain, which is a model too."""
    return Model(**vars(langchain(text, **more)))


class ToolMessage(Model):
    """LangChain's."""


@pytest.mark.parametrize("is_pair", [False, True])
def test_the_results_of_an_agents_tools_are_left_out(is_pair: bool) -> None:
    result = ToolMessage(type="tool", content="12:00", tool_call_id="c1")
    messages = [
        langchain(calls=[{"index": 0, "id": "c1", "name": "now", "args": "{}"}]),
        langchain(finish_reason="tool_calls"),
        result,
        langchain("It is noon."),
        langchain(finish_reason="stop"),
    ]
    found = gai_fast.collect(gai_fast.from_sdk(iter([(each, {}) for each in messages] if is_pair else messages)))
    assert (found.text, [call.name for call in found.tool_calls]) == ("It is noon.", ["now"])


@pytest.mark.parametrize("is_pair", [False, True])
@pytest.mark.parametrize("kind", ["human", "system", "remove", "HumanMessageChunk"])
def test_messages_that_no_model_wrote_are_left_out(kind: str, is_pair: bool) -> None:
    """LangGraph sends all messages that a node returns, also before the first one of a model."""
    other = Model(type=kind, content="What time is it?", additional_kwargs={}, response_metadata={})
    messages = [other, langchain("Noon."), other, langchain(finish_reason="stop")]
    result = gai_fast.collect(gai_fast.from_sdk(iter([(each, {}) for each in messages] if is_pair else messages)))
    assert result.text == "Noon."


def two(mode: str, data: Any) -> Any:
    return {"type": mode, "ns": (), "data": data, "interrupts": ()}


@pytest.mark.parametrize(
    "around",
    [
        lambda mode, data: (mode, data),
        lambda mode, data: ((), mode, data),
        lambda mode, data: (("sub:1", "m:2"), mode, data),
        two,
    ],
)
def test_messages_are_taken_out_of_the_modes_and_subgraphs_of_langgraph(around: Callable[[str, Any], Any]) -> None:
    """The other modes repeat them, or have what nodes write."""
    others = [("values", {"messages": []}), ("custom", "Hm"), ("updates", {"m": {}}), ("debug", None)]
    beside = [around(*each) for each in [*others, ("tasks", {}), ("checkpoints", {})]]
    parts = [around("messages", (langchain(text), {})) for text in ("It is ", "noon.")]
    end = around("messages", (langchain(finish_reason="stop"), {}))
    answer = gai_fast.collect(gai_fast.from_sdk(iter([*beside, parts[0], *beside, parts[1], end, *beside])))
    assert (answer.text, answer.finish_reason) == ("It is noon.", "stop")


def test_messages_are_taken_out_of_pairs_with_the_subgraph() -> None:
    messages = [langchain("Noon."), langchain(finish_reason="stop")]
    assert gai_fast.collect(gai_fast.from_sdk(iter([(("sub:1",), (each, {})) for each in messages]))).text == "Noon."


@pytest.mark.parametrize(
    "item", [(), ("odd", "Hi"), ((), {"m": {}}), ((), "odd", "Hi"), (("messages",),), ("messages",)]
)
def test_pairs_of_another_kind_are_refused(item: Any) -> None:
    with pytest.raises(TypeError, match="does not know"):
        list(gai_fast.from_sdk(iter([item])))


class AIMessage(Model):
    """LangChain's, of a whole answer."""


def whole_message(text: str, *, calls: Any = (), usage: Any = None, **expected: Any) -> AIMessage:
    members = {"id": None, "additional_kwargs": {}, "response_metadata": {"finish_reason": "stop"}, **expected}
    return AIMessage(type="ai", content=text, tool_calls=[*calls], usage_metadata=usage, **members)


USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize("is_pair", [False, True])
@pytest.mark.parametrize("identifier", [None, "run-1"])
def test_a_whole_message_behind_its_chunks_repeats_them(identifier: str | None, is_pair: bool) -> None:
    """LangGraph's nodes return the message whose chunks have come."""
    call = {"id": "c1", "name": "now", "args": {"at": 1}}
    chunks = [declared_message("Let us "), declared_message("see."), declared_message(finish_reason="stop")]
    pieces = [{"index": 0, "id": "c1", "name": "now", "args": '{"at": 1}'}]
    for calls in ((), (call,)):
        last = [declared_message(calls=pieces if calls else ()), declared_message(usage=USAGE)]
        end = whole_message("Let us see.", id=identifier, calls=calls, usage=USAGE)
        messages: list[Any] = [*chunks, *last, end]
        for each in messages:
            each.id = identifier
        result = gai_fast.collect(gai_fast.from_sdk(iter([(each, {}) for each in messages] if is_pair else messages)))
        assert (result.text, result.usage["output_tokens"], len(result.tool_calls)) == ("Let us see.", 4, len(calls))
        assert [one.arguments for one in result.tool_calls] == (['{"at": 1}'] if calls else [])


def test_a_whole_message_has_the_end_that_its_chunks_have_not() -> None:
    messages = [declared_message("Hi"), declared_message(" you"), whole_message("Hi you", usage=USAGE)]
    result = gai_fast.collect(gai_fast.from_sdk(iter(messages)))
    assert (result.text, result.finish_reason, result.usage["output_tokens"]) == ("Hi you", "stop", 4)


def test_whole_messages_of_models_that_were_not_streamed_are_read() -> None:
    call = {"id": "c1", "name": "now", "args": {"at": 1}}
    messages = [
        whole_message("", id="run-1", calls=[call], usage=USAGE, response_metadata={"finish_reason": "tool_calls"}),
        ToolMessage(type="tool", content="12:00", tool_call_id="c1"),
        whole_message("It is noon.", id="run-2", usage=USAGE),
    ]
    result = gai_fast.collect(gai_fast.from_sdk(iter(messages)))
    assert (result.text, [(one.name, one.input) for one in result.tool_calls]) == ("It is noon.", [("now", {"at": 1})])
    assert result.usage["output_tokens"] == 8
    mixed = [declared_message("Noon"), declared_message(", or "), whole_message("so.", id="run-3")]
    assert gai_fast.collect(gai_fast.from_sdk(iter(mixed))).text == "Noon, or so."


def texts(*messages: Any) -> list[str]:
    return [event["text"] for event in gai_fast.from_sdk(iter(messages)) if event["type"] == "text.delta"]


def piece(text: str = "", identifier: str | None = "run-1", **more: Any) -> Model:
    message = declared_message(text, **more)
    message.id = identifier
    return message


def test_two_answers_may_say_the_same() -> None:
    """The second one was not streamed, and has an id of a model's run, or an id and a count of its own."""
    again = whole_message("Yes", id="msg_2", usage=USAGE)
    for own in (again, whole_message("Yes", id="lc_run--2"), whole_message("Yes", id="run-2-0")):
        assert texts(piece("Yes"), own, piece("Yes", "run-3")) == ["Yes", "Yes", "Yes"]
    assert texts(whole_message("Yes", id="run-1"), whole_message("Yes", id="run-2")) == ["Yes", "Yes"]
    assert texts(whole_message("Yes"), whole_message("Yes")) == ["Yes", "Yes"]
    result = gai_fast.collect(gai_fast.from_sdk(iter([piece("Yes", usage=USAGE), again])))
    assert result.usage["output_tokens"] == 8


def test_a_message_that_a_node_makes_of_one_that_was_streamed_repeats_it_once() -> None:
    """It has a new id. Other messages were streamed before, or at the same time."""
    made = whole_message("It is noon.", id="new")
    assert texts(piece("Let us see. "), piece("It is noon.", "run-2"), made) == ["Let us see. ", "It is noon."]
    mixed = [piece("It is "), piece("Ye", "run-2"), piece("noon."), piece("s", "run-2")]
    end = whole_message("Yes", id="newer")
    assert texts(*mixed, end, made) == ["It is ", "Ye", "noon.", "s"]
    assert texts(*mixed, made, whole_message("It is noon.", id="newest")) == [
        "It is ",
        "Ye",
        "noon.",
        "s",
        "It is noon.",
    ]


CALLED = {"id": "call_0", "name": "now", "args": {"at": 1}}


def called(*messages: Any) -> list[Any]:
    result = gai_fast.collect(gai_fast.from_sdk(iter(messages)))
    return [result.text, *((call.name, call.input) for call in result.tool_calls)]


def test_calls_that_share_an_id_are_all_kept() -> None:
    """Some servers count the calls of each answer from 0."""
    other = {**CALLED, "args": {"at": 2}}
    pieces = [{"index": 0, "id": "call_0", "name": "now", "args": '{"at": 1}'}]
    for first in (whole_message("", id="run-1", calls=[CALLED], usage=USAGE), piece(calls=pieces, usage=USAGE)):
        second = whole_message("Again.", id="run-2", calls=[other], usage=USAGE)
        assert called(first, second) == ["Again.", ("now", {"at": 1}), ("now", {"at": 2})]
    unnamed = {**CALLED, "id": None}
    assert len(called(whole_message("", calls=[unnamed]), whole_message("", calls=[unnamed]))) == 3


def test_a_message_that_a_node_makes_has_what_is_new_in_it() -> None:
    pieces = [{"index": 0, "id": "call_0", "name": "now", "args": '{"at": 1}'}]
    streamed = [piece("Let us see."), piece(calls=pieces)]
    assert called(*streamed, whole_message("", calls=[CALLED])) == ["Let us see.", ("now", {"at": 1})]
    assert called(*streamed, whole_message(" So.", calls=[CALLED])) == ["Let us see. So.", ("now", {"at": 1})]
    handed = {"id": "c2", "name": "hand_over", "args": {}}
    made = whole_message("Let us see.", calls=[CALLED, handed])
    assert called(*streamed, made) == ["Let us see.", ("now", {"at": 1}), ("hand_over", {})]


@pytest.mark.parametrize("calls", [(), (CALLED,)])
def test_a_whole_message_is_complete_without_a_finish_reason(calls: Any) -> None:
    """A node may return a text of its own, and models in tests have no metadata."""
    made = whole_message("Hi", calls=calls, response_metadata={})
    for messages in ([made], [piece("Hi"), made], [piece("Hi"), piece(), made]):
        result = gai_fast.collect(gai_fast.from_sdk(iter(messages)))
        assert (result.text, result.finish_reason) == ("Hi", "tool_calls" if calls else "stop")
    limited = [piece("Hi", finish_reason="length"), whole_message("Hi", response_metadata={})]
    assert gai_fast.collect(gai_fast.from_sdk(iter(limited))).finish_reason == "length"
    *_, error, _ = gai_fast.from_sdk(iter([made, piece("and")]))
    assert error["error"]["reason"] == "truncated"


def test_the_last_chunk_of_a_message_completes_it() -> None:
    """LangChain marks it if the model's stream has ended, whatever the model's metadata are."""
    last = piece()
    last.chunk_position = "last"
    result = gai_fast.collect(gai_fast.from_sdk(iter([piece("Hi"), last])))
    assert (result.text, result.finish_reason) == ("Hi", "stop")
    bedrock = gai_fast.collect(gai_fast.from_sdk(iter([piece("Hi"), piece(stopReason="max_tokens")])))
    assert bedrock.finish_reason == "length"


def test_what_a_message_says_beside_its_text() -> None:
    invalid = {"id": "c2", "name": "now", "args": '{"at": ', "error": "no JSON", "type": "invalid_tool_call"}
    whole = whole_message("", id="1", additional_kwargs={"refusal": "No."}, invalid_tool_calls=[invalid])
    result = gai_fast.collect(gai_fast.from_sdk(iter([whole])))
    assert (result.refusal, [call.arguments for call in result.tool_calls]) == ("No.", ['{"at": '])
    blocks = [
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "H"}, {"type": "summary_text", "text": "m"}],
        },
        {"type": "reasoning_content", "reasoning_content": {"text": ", so"}},
        {"type": "reasoning_content", "reasoning_content": {"signature": "s"}},
        {"type": "thinking", "thinking": "."},
        {"type": "refusal", "refusal": "No."},
        {"type": "text", "text": None},
        {"type": 5, "text": "odd"},
        "Hi",
    ]
    result = gai_fast.collect(gai_fast.from_sdk(iter([langchain(blocks, finish_reason="stop")])))
    assert (result.reasoning, result.refusal, result.text) == ("Hm, so.", "No.", "Hi")


@pytest.mark.parametrize("is_whole", [False, True])
def test_what_a_message_says_in_its_blocks_and_beside_them_is_read_once(is_whole: bool) -> None:
    beside = {"reasoning_content": "Hm.", "refusal": "No."}
    blocks = [{"type": "thinking", "thinking": "Hm."}, {"type": "refusal", "refusal": "No."}]
    item: Any = whole_message("") if is_whole else langchain(finish_reason="stop")
    item.content, item.additional_kwargs = blocks, beside
    result = gai_fast.collect(gai_fast.from_sdk(iter([item])))
    assert (result.reasoning, result.refusal, result.text) == ("Hm.", "No.", "")


def test_the_members_of_a_model_tell_its_api_without_a_dump() -> None:
    assert shape_of(Model(candidates=None, usage_metadata=Model()), "").api == "gemini"
    assert shape_of(Model(choices=None, type="response.created"), "").api == "openai:responses"
    bare = Model()
    bare.__pydantic_extra__ = {"choices": []}
    assert shape_of(bare, "").api == "openai"


MESSAGE = {"type": "message_start", "message": {"id": "m", "model": "c", "content": [], "usage": {}}}
CREATED = {"type": "response.created", "response": {"id": "r", "model": "m", "output": []}, "sequence_number": 0}
CHUNK = {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}
LINE = {"model": "m", "message": {"content": "Hi"}, "done": False}
FLAT = {"type": "error", "code": "server_error", "message": "Busy.", "param": None, "sequence_number": 1}


@pytest.mark.parametrize(
    "chunks",
    [
        [CREATED, FLAT],
        [MESSAGE, {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}],
        [CHUNK, {"error": {"message": "Busy.", "code": 502}}],
        [LINE, {"error": "Busy."}],
        [{"candidates": []}, {"error": {"code": 503, "message": "Busy.", "status": "UNAVAILABLE"}}],
        [{"error": {"message": "Busy.", "code": 502}}],
    ],
)
def test_an_error_between_the_chunks_is_the_providers(chunks: list[Any]) -> None:
    *_, error, done = gai_fast.from_sdk(iter(chunks))
    assert (error["error"]["message"], done) == ("Busy.", {"type": "done", "finished": False})


def test_the_error_event_of_responses_is_read_as_an_object() -> None:
    """OpenAI's SDK raises an exception only if the error is nested."""
    pytest.importorskip("openai")
    from openai.types.responses import ResponseCreatedEvent, ResponseErrorEvent

    flat = ResponseErrorEvent.model_validate(FLAT)
    for objects in ([ResponseCreatedEvent.model_construct(None, **CREATED), flat], [flat]):
        *_, error, _ = gai_fast.from_sdk(iter(objects))
        assert (error["error"]["code"], error["error"]["message"]) == ("internal", "Busy.")


def test_what_an_sdks_helper_adds_says_nothing() -> None:
    assert shape_of(Model(type="text", text="Hi", snapshot="Hi"), "anthropic").wire(None) is None
    with pytest.raises(TypeError, match="Model"):
        shape_of(Model(type="text", text="Hi"), "")


def test_the_library_names_the_provider_of_a_dialect() -> None:
    class Chunk:
        __module__ = "groq.types.chat"

    assert provider_of("openai", Chunk(), PROVIDERS) == "groq"
    assert provider_of("anthropic", Chunk(), PROVIDERS) == "anthropic"
    assert provider_of("openai", {}, PROVIDERS) == "openai"
