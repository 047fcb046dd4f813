"""What an upstream says in two members of an answer is told once: text, thoughts, calls, sources, images, counts, ends.

Each row is a spelling of one answer; every spelling of it is told alike, streamed and whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import pytest

from gai_fast import collect
from gai_fast.library.decoding import decode
from tests.unit.providers.upstreams import PROVIDERS, dialect, frames

JSON: Final = {"content-type": "application/json"}
SAID: Final = ("Hello", ", ", "you", " over ", "there")
THOUGHT: Final = ("I ", "think", " it ", "is so", ".")
ADDRESS: Final = "https://example.org/a"
DATA: Final = "data:image/png;base64,aGk="
COUNTS: Final = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
CALL: Final = {"name": "f", "arguments": '{"a":1}'}
CALLED: Final = {"index": 0, "id": "call_1", "type": "function", "function": CALL}
NOTE: Final = {"type": "url_citation", "url_citation": {"url": ADDRESS, "title": "A"}}
TEXT: Final = {"text": "".join(SAID)}
THOUGHTS: Final = {**TEXT, "reasoning": "".join(THOUGHT)}
CHATS: Final = [name for name in PROVIDERS if dialect(name) == "chat"]

Said = dict[str, Any]
Piece = Callable[[str, str], Said]
"""Returns the members of a choice for a text, and for all of it so far."""


def told(provider: str, pieces: list[bytes], **headers: str) -> Said:
    """Returns what an answer says, without members that are empty."""
    result = collect(decode(provider, pieces, headers=headers)).raise_for_error()
    events = [*decode(provider, pieces, headers=headers)]
    members = {
        "text": result.text,
        "reasoning": result.reasoning,
        "refusal": result.refusal,
        "calls": [(call.name, call.input) for call in result.tool_calls],
        "citations": [*result.citations],
        "images": [event["image"] for event in events if event["type"] == "image"],
        "signatures": [event["signature"] for event in events if event["type"] == "reasoning.signature"],
        "warnings": [event["reason"] for event in events if event["type"] == "warning"],
        "finishes": [event["finish_reason"] for event in events if event["type"] == "finish"],
        "counts": result.usage if result.usage and not result.usage.get("estimated") else None,
    }
    return {name: value for name, value in members.items() if value}


def chat(*choices: Said, word: str = "stop", last: Said | None = None, **every: Any) -> list[Any]:
    """Returns the chunks of an answer in the chat dialect. `last` is the choice of the chunk with the word."""
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **every}
    listed = [*choices, {"delta": {}, **(last or {}), "finish_reason": word}]
    return [*({**chunk, "choices": [{"index": 0, **choice}]} for choice in listed), "[DONE]"]


def grown(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Returns each text, with all so far."""
    found: list[tuple[str, str]] = []
    for text in texts:
        found.append((text, (found[-1][1] if found else "") + text))
    return found


def streams(provider: str, chunks: list[Any]) -> list[list[bytes]]:
    """Returns a stream chunk by chunk, and in one piece."""
    pieces = frames(provider, chunks)
    return [pieces, [b"".join(pieces)]]


def whole(choice: Said, word: str = "stop", **beside: Any) -> list[bytes]:
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", **beside}
    return [json.dumps({**answer, "choices": [{"index": 0, **choice, "finish_reason": word}]}).encode()]


def as_whole(choice: Said) -> Said:
    """Returns a choice of a stream as one of a whole answer."""
    return {"message" if name == "delta" else name: value for name, value in choice.items()}


TEXTS: Final[dict[str, Piece]] = {
    "content": lambda text, _: {"delta": {"content": text}},
    "content, text of the choice": lambda text, _: {"delta": {"content": text}, "text": text},
    "content, content of the choice": lambda text, _: {"delta": {"content": text}, "content": text},
    "content, text": lambda text, _: {"delta": {"content": text, "text": text}},
    "content, output_text": lambda text, _: {"delta": {"content": text, "output_text": text}},
    "parts, text": lambda text, _: {"delta": {"content": [{"type": "text", "text": text}], "text": text}},
    "part with text and content": lambda text, _: {"delta": {"content": [{"text": text, "content": text}]}},
    "content, transcript": lambda text, _: {"delta": {"content": text, "audio": {"id": "a", "transcript": text}}},
    "content, parts beside": lambda text, _: {"delta": {"content": text, "parts": [{"text": text}]}},
}
STREAMED_TEXTS: Final[dict[str, Piece]] = {
    **TEXTS,
    "delta, message": lambda text, _: {"delta": {"content": text}, "message": {"content": text}},
    "delta, message of all so far": lambda text, so_far: {"delta": {"content": text}, "message": {"content": so_far}},
}


@pytest.mark.parametrize("spelling", STREAMED_TEXTS)
@pytest.mark.parametrize("provider", CHATS)
def test_a_streamed_text_in_two_members_is_told_once(provider: str, spelling: str) -> None:
    piece = STREAMED_TEXTS[spelling]
    for pieces in streams(provider, chat(*(piece(*each) for each in grown(SAID)))):
        assert told(provider, pieces) == {**TEXT, "finishes": ["stop"]}


@pytest.mark.parametrize("spelling", TEXTS)
@pytest.mark.parametrize("provider", CHATS)
def test_a_whole_text_in_two_members_is_told_once(provider: str, spelling: str) -> None:
    text = "".join(SAID)
    assert told(provider, whole(as_whole(TEXTS[spelling](text, text))), **JSON) == {**TEXT, "finishes": ["stop"]}


@pytest.mark.parametrize("provider", CHATS)
def test_a_refusal_that_is_also_the_content_is_told_once(provider: str) -> None:
    chunks = chat(*({"delta": {"content": text, "refusal": text}} for text in SAID))
    said = {"refusal": "".join(SAID), "finishes": ["stop"]}
    for pieces in streams(provider, chunks):
        assert told(provider, pieces) == said
    text = "".join(SAID)
    assert told(provider, whole({"message": {"content": text, "refusal": text}}), **JSON) == said


@pytest.mark.parametrize("provider", CHATS)
def test_a_stream_whose_last_chunk_repeats_all_is_told_once(provider: str) -> None:
    message = {"content": "".join(SAID), "reasoning_content": "".join(THOUGHT), "tool_calls": [CALLED]}
    choices: list[Said] = [{"delta": {"reasoning_content": text}} for text in THOUGHT]
    choices += [{"delta": {"content": text}} for text in SAID]
    choices += [{"delta": {"tool_calls": [CALLED]}}]
    for pieces in streams(provider, chat(*choices, last={"message": message}, word="tool_calls")):
        assert told(provider, pieces) == {**THOUGHTS, "calls": [("f", {"a": 1})], "finishes": ["tool_calls"]}


def _with_parts(text: str, **others: Any) -> Said:
    return {"delta": {**others, "content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}}


def _detail(text: str, **others: Any) -> Said:
    return {"type": "reasoning.text", "text": text, "index": 0, **others}


def _block(text: str, **others: Any) -> Said:
    return {"type": "thinking", "thinking": text, **others}


THINKING: Final[dict[str, Callable[[str], Said]]] = {
    "reasoning_content": lambda text: {"delta": {"reasoning_content": text}},
    "reasoning, reasoning_content": lambda text: {"delta": {"reasoning": text, "reasoning_content": text}},
    "reasoning_content, thinking": lambda text: {"delta": {"reasoning_content": text, "thinking": text}},
    "reasoning, details": lambda text: {"delta": {"reasoning": text, "reasoning_details": [_detail(text)]}},
    "reasoning_content, summary": lambda text: {
        "delta": {
            "reasoning_content": text,
            "reasoning_details": [{"type": "reasoning.summary", "summary": text, "index": 0}],
        }
    },
    "detail with text and summary": lambda text: {"delta": {"reasoning_details": [_detail(text, summary=text)]}},
    "reasoning_content, blocks": lambda text: {"delta": {"reasoning_content": text, "thinking_blocks": [_block(text)]}},
    "details, blocks": lambda text: {
        "delta": {"reasoning_details": [_detail(text)], "thinking_blocks": [_block(text)]}
    },
    "reasoning, object": lambda text: {"delta": {"reasoning_content": text, "reasoning": {"content": text}}},
    "thinking, thought": lambda text: {"delta": {"thinking": text, "thought": text, "reasoning_text": text}},
    "parts, reasoning_content": lambda text: _with_parts(text, reasoning_content=text),
    "parts, reasoning": lambda text: _with_parts(text, reasoning=text),
    "parts, details": lambda text: _with_parts(text, reasoning_details=[_detail(text)]),
    "parts, blocks": lambda text: _with_parts(text, thinking_blocks=[_block(text)]),
    "delta, message": lambda text: {
        "delta": {"reasoning_content": text},
        "message": {"reasoning_content": text},
    },
}


@pytest.mark.parametrize("spelling", THINKING)
@pytest.mark.parametrize("provider", CHATS)
def test_streamed_thoughts_in_two_members_are_told_once(provider: str, spelling: str) -> None:
    choices = [*map(THINKING[spelling], THOUGHT), *({"delta": {"content": text}} for text in SAID)]
    for pieces in streams(provider, chat(*choices)):
        assert told(provider, pieces) == {**THOUGHTS, "finishes": ["stop"]}


@pytest.mark.parametrize("spelling", [name for name in THINKING if name != "delta, message"])
@pytest.mark.parametrize("provider", CHATS)
def test_whole_thoughts_in_two_members_are_told_once(provider: str, spelling: str) -> None:
    message = THINKING[spelling]("".join(THOUGHT))["delta"]
    text = "".join(SAID)
    parts = message.get("content")
    message["content"] = [*parts, {"type": "text", "text": text}] if parts else text
    assert told(provider, whole({"message": message}), **JSON) == {**THOUGHTS, "finishes": ["stop"]}


LAST_THOUGHTS: Final[dict[str, Said]] = {
    "details": {"reasoning_details": [_detail("".join(THOUGHT), signature="s")]},
    "blocks": {"thinking_blocks": [_block("".join(THOUGHT), signature="s")]},
    "parts": {"content": [_block("".join(THOUGHT), signature="s")]},
}


@pytest.mark.parametrize("spelling", LAST_THOUGHTS)
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("provider", CHATS)
def test_thoughts_that_their_signature_comes_with_again_are_told_once(provider: str, name: str, spelling: str) -> None:
    choices: list[Said] = [{"delta": {name: text}} for text in THOUGHT]
    choices += [{"delta": LAST_THOUGHTS[spelling]}, *({"delta": {"content": text}} for text in SAID)]
    for pieces in streams(provider, chat(*choices)):
        assert told(provider, pieces) == {**THOUGHTS, "signatures": ["s"], "finishes": ["stop"]}


@pytest.mark.parametrize("provider", CHATS)
def test_parts_that_think_otherwise_than_the_member_are_told_too(provider: str) -> None:
    choices = [_with_parts("Another", reasoning_content="One. "), {"delta": {"content": "Hi"}}]
    for pieces in streams(provider, chat(*choices)):
        assert told(provider, pieces)["reasoning"] == "One. Another"


CALLS: Final[dict[str, list[Said]]] = {
    "tool_calls": [{"tool_calls": [CALLED]}],
    "tool_calls, function_call": [{"tool_calls": [CALLED], "function_call": CALL}],
    "tool_calls, tool_call": [{"tool_calls": [CALLED], "tool_call": CALLED}],
    "function_call behind": [{"tool_calls": [CALLED]}, {"function_call": CALL}],
    "function_call before": [{"function_call": CALL}, {"tool_calls": [CALLED]}],
    "both, in pieces": [
        {
            "tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}],
            "function_call": {"name": "f", "arguments": ""},
        },
        *(
            {
                "tool_calls": [{"index": 0, "function": {"arguments": text}}],
                "function_call": {"arguments": text},
            }
            for text in ('{"a"', ":", "1}")
        ),
    ],
}


@pytest.mark.parametrize("spelling", CALLS)
@pytest.mark.parametrize("provider", CHATS)
def test_a_call_in_two_members_is_told_once(provider: str, spelling: str) -> None:
    said = {"calls": [("f", {"a": 1})], "finishes": ["tool_calls"]}
    deltas = CALLS[spelling]
    for pieces in streams(provider, chat(*({"delta": delta} for delta in deltas), word="tool_calls")):
        assert told(provider, pieces) == said
    if len(deltas) == 1:
        assert told(provider, whole({"message": {"content": None, **deltas[0]}}, "tool_calls"), **JSON) == said


@pytest.mark.parametrize("provider", CHATS)
def test_another_call_in_function_call_is_told_too(provider: str) -> None:
    deltas = ({"function_call": CALL}, {"tool_calls": [{**CALLED, "function": {**CALL, "name": "g"}}]})
    for pieces in streams(provider, chat(*({"delta": delta} for delta in deltas), word="tool_calls")):
        assert told(provider, pieces)["calls"] == [("f", {"a": 1}), ("g", {"a": 1})]


@pytest.mark.parametrize("provider", CHATS)
def test_an_image_in_two_members_is_told_once(provider: str) -> None:
    image = {"type": "image_url", "image_url": {"url": DATA}}
    message = {"content": [{"type": "text", "text": "".join(SAID)}, image], "images": [image]}
    said = {**TEXT, "images": [{"data": "aGk=", "media_type": "image/png"}], "finishes": ["stop"]}
    for pieces in streams(provider, chat({"delta": message})):
        assert told(provider, pieces) == said
    assert told(provider, whole({"message": message}), **JSON) == said


SOURCES: Final[dict[str, tuple[Said, Said]]] = {
    "annotations": ({"annotations": [NOTE]}, {}),
    "annotations, citations": ({"annotations": [NOTE]}, {"citations": [ADDRESS]}),
    "annotations, search_results": (
        {"annotations": [NOTE]},
        {"search_results": [{"url": ADDRESS, "title": "A"}]},
    ),
    "all": (
        {"annotations": [NOTE, NOTE]},
        {"search_results": [{"url": ADDRESS, "title": "A"}], "citations": [ADDRESS, ADDRESS]},
    ),
}


@pytest.mark.parametrize("spelling", SOURCES)
@pytest.mark.parametrize("provider", CHATS)
def test_a_source_in_two_members_is_told_once(provider: str, spelling: str) -> None:
    delta, beside = SOURCES[spelling]
    said = {**TEXT, "citations": [{"uri": ADDRESS, "title": "A"}], "finishes": ["stop"]}
    text = "".join(SAID)
    # Once in the last chunk, and in each chunk.
    for deltas in ([*SAID[:-1], {"content": SAID[-1], **delta}], [{"content": text, **delta} for text in SAID]):
        choices = [{"delta": {"content": each} if isinstance(each, str) else each} for each in deltas]
        for pieces in streams(provider, chat(*choices, **beside)):
            found = told(provider, pieces)
            found["citations"] = [{**each, "title": "A"} for each in found["citations"]]
            assert found == said
    found = told(provider, whole({"message": {"content": text, **delta}}, **beside), **JSON)
    assert {**found, "citations": [{**each, "title": "A"} for each in found["citations"]]} == said


@pytest.mark.parametrize("provider", CHATS)
def test_a_source_that_two_places_of_the_text_have_is_told_for_each(provider: str) -> None:
    notes = [
        {"type": "url_citation", "url_citation": {"url": ADDRESS, "start_index": start, "end_index": start + 2}}
        for start in (0, 3)
    ]
    for pieces in streams(provider, chat({"delta": {"content": "Hello", "annotations": notes}})):
        assert [each["start"] for each in told(provider, pieces)["citations"]] == [0, 3]


USAGES: Final[dict[str, tuple[Said, Said]]] = {
    "top": ({}, {"usage": COUNTS}),
    "choice, top": ({"usage": COUNTS}, {"usage": COUNTS}),
    "top, x_groq": ({}, {"usage": COUNTS, "x_groq": {"usage": COUNTS}}),
    "two names": ({}, {"usage": {**COUNTS, "input_tokens": 3, "output_tokens": 5}}),
}


@pytest.mark.parametrize("spelling", USAGES)
@pytest.mark.parametrize("provider", CHATS)
def test_counts_in_two_members_are_counted_once(provider: str, spelling: str) -> None:
    choice, beside = USAGES[spelling]
    counts = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    for chunks in (
        chat({"delta": {"content": "Hi"}, **choice}, last=choice, **beside),
        [*chat({"delta": {"content": "Hi"}, **choice}, **beside)[:-1], {"choices": [], **beside}, "[DONE]"],
    ):
        for pieces in streams(provider, chunks):
            assert told(provider, pieces)["counts"] == counts
    assert told(provider, whole({"message": {"content": "Hi"}, **choice}, **beside), **JSON)["counts"] == counts


@pytest.mark.parametrize("provider", CHATS)
def test_an_end_in_two_members_and_chunks_is_told_once(provider: str) -> None:
    end = {"delta": {"content": ""}, "finish_reason": "length", "native_finish_reason": "max_tokens"}
    for pieces in streams(provider, chat({"delta": {"content": "Hi"}}, end, last=end, word="length")):
        assert told(provider, pieces) == {"text": "Hi", "finishes": ["length"]}


@pytest.mark.parametrize("provider", CHATS)
def test_a_source_beside_a_member_that_cannot_be_read_is_told(provider: str) -> None:
    delta = {"content": "Hi", "annotations": [NOTE], "images": [{"image_url": 5}]}
    for pieces in streams(provider, chat({"delta": delta})):
        assert told(provider, pieces)["citations"] == [{"uri": ADDRESS, "title": "A"}]


@pytest.mark.parametrize("spelling", ["delta", "message", "content"])
def test_a_text_of_the_legacy_api_in_two_members_is_told_once(spelling: str) -> None:
    provider = "openai:completions"

    def choice(text: str) -> Said:
        return {"text": text, spelling: text if spelling == "content" else {"content": text}}

    for pieces in streams(provider, chat(*map(choice, SAID), last={"text": ""})):
        assert told(provider, pieces) == {**TEXT, "finishes": ["stop"]}
    assert told(provider, whole(choice("".join(SAID))), **JSON) == {**TEXT, "finishes": ["stop"]}


# ---- responses -------------------------------------------------------------------------------------------------------

RESPONSES: Final = [name for name in PROVIDERS if dialect(name) == "responses"]
AT: Final = {"item_id": "i", "output_index": 0, "content_index": 0}
OF_THOUGHT: Final = {"item_id": "t", "output_index": 0}
NOTED: Final = {"type": "url_citation", "url": ADDRESS, "title": "A"}
MESSAGE: Final = {"id": "i", "type": "message", "role": "assistant"}
FUNCTION: Final = {"id": "f", "type": "function_call", "call_id": "call_1", **CALL}
TOKENS: Final = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}


def response(*output: Said, **others: Any) -> Said:
    return {"id": "r", "object": "response", "model": "m", "status": "completed", "output": output, **others}


def completed(*events: Said, output: Iterable[Said] = (), **others: Any) -> list[Any]:
    begun = {**response(), "status": "in_progress", **({"usage": others["usage"]} if "usage" in others else {})}
    return [
        {"type": "response.created", "response": begun},
        *events,
        {"type": "response.completed", "response": response(*output, **others)},
    ]


def _deltas(kind: str, texts: Iterable[str], **at: Any) -> list[Said]:
    return [{"type": f"response.{kind}.delta", **at, "delta": text} for text in texts]


def _parts_said(kind: str, text: str) -> dict[str, list[Said]]:
    """Returns the events that say a text of an item, from its deltas to the whole item."""
    name = "refusal" if kind == "refusal" else "text"
    part = {"type": kind, name: text, "annotations": [NOTED]} if kind == "output_text" else {"type": kind, name: text}
    return {
        "deltas": _deltas(kind, SAID, **AT),
        "done": [{"type": f"response.{kind}.done", **AT, name: text}],
        "part": [{"type": "response.content_part.done", **AT, "part": part}],
        "item": [{"type": "response.output_item.done", "output_index": 0, "item": {**MESSAGE, "content": [part]}}],
    }


@pytest.mark.parametrize("missing", ["", "deltas", "done", "part", "item"])
@pytest.mark.parametrize("kind", ["output_text", "refusal"])
@pytest.mark.parametrize("provider", RESPONSES)
def test_a_text_that_events_and_the_whole_response_have_is_told_once(provider: str, kind: str, missing: str) -> None:
    text = "".join(SAID)
    said = _parts_said(kind, text)
    events = [event for name, events in said.items() if name != missing for event in events]
    item = said["item"][0]["item"]
    said_by: dict[str, Said] = {
        "output_text": {"text": text, "citations": [{"uri": ADDRESS, "title": "A"}]},
        "refusal": {"refusal": text},
    }
    found = said_by[kind]
    beside = {"output_text": text} if kind == "output_text" else {}
    for pieces in streams(provider, completed(*events, output=[item], **beside)):
        assert told(provider, pieces) == {**found, "finishes": ["stop"]}
    answer = [json.dumps(response(item, **beside)).encode()]
    assert told(provider, answer, **JSON) == {**found, "finishes": ["stop"]}


@pytest.mark.parametrize("provider", RESPONSES)
def test_a_note_that_an_event_and_its_part_have_is_told_once(provider: str) -> None:
    said = _parts_said("output_text", "".join(SAID))
    note = {"type": "response.output_text.annotation.added", **AT, "annotation_index": 0, "annotation": NOTED}
    chunks = completed(*said["deltas"], note, *said["part"], *said["item"], output=[said["item"][0]["item"]])
    for pieces in streams(provider, chunks):
        assert told(provider, pieces)["citations"] == [{"uri": ADDRESS, "title": "A"}]


@pytest.mark.parametrize("others", ["text", "message", "content_part", "output_item"])
@pytest.mark.parametrize("provider", RESPONSES)
def test_a_text_in_events_of_two_types_is_told_once(provider: str, others: str) -> None:
    events = [
        {"type": f"response.{kind}.delta", **AT, "delta": text} for text in SAID for kind in ("output_text", others)
    ]
    for pieces in streams(provider, completed(*events)):
        assert told(provider, pieces) == {**TEXT, "finishes": ["stop"]}


_SUMMARY: Final = [{"type": "summary_text", "text": "".join(THOUGHT)}]
_CONTENT: Final = [{"type": "reasoning_text", "text": "".join(THOUGHT)}]


@pytest.mark.parametrize("kinds", ["summary", "content", "summary content", "content summary"])
@pytest.mark.parametrize("provider", RESPONSES)
def test_thoughts_in_summary_and_content_are_told_once(provider: str, kinds: str) -> None:
    item: Said = {"id": "t", "type": "reasoning", "summary": [], "encrypted_content": "s"}
    item |= {"summary": _SUMMARY} if "summary" in kinds else {}
    item |= {"content": _CONTENT} if "content" in kinds else {}
    names = {"summary": "reasoning_summary_text", "content": "reasoning_text"}
    message = {**MESSAGE, "content": [{"type": "output_text", "text": "".join(SAID)}]}
    output = [item, message]
    said = {**THOUGHTS, "signatures": ["s"], "finishes": ["stop"]}
    events = [
        {"type": f"response.{names[kind]}.delta", **OF_THOUGHT, f"{kind}_index": 0, "delta": text}
        for text in THOUGHT
        for kind in kinds.split()
    ]
    ends = [{"type": "response.output_item.done", "output_index": 0, "item": item}]
    events += ends
    texts = _deltas("output_text", SAID, **{**AT, "output_index": 1})
    for chunks in (completed(*events, *texts, output=output), completed(*ends, *texts, output=output)):
        for pieces in streams(provider, chunks):
            assert told(provider, pieces) == said
    assert told(provider, [json.dumps(response(*output)).encode()], **JSON) == said


@pytest.mark.parametrize("provider", RESPONSES)
def test_a_summary_of_other_thoughts_is_told_too(provider: str) -> None:
    item = {"id": "t", "type": "reasoning", "summary": [{"type": "summary_text", "text": "One. "}], "content": _CONTENT}
    answer = [json.dumps(response(item)).encode()]
    assert told(provider, answer, **JSON)["reasoning"] == "One. " + "".join(THOUGHT)


@pytest.mark.parametrize("provider", RESPONSES)
def test_a_call_that_events_and_the_whole_response_have_is_told_once(provider: str) -> None:
    at = {"item_id": "f", "output_index": 0}
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**FUNCTION, "arguments": ""}},
        *_deltas("function_call_arguments", ('{"a"', ":1}"), **at),
        {"type": "response.function_call_arguments.done", **at, "arguments": '{"a":1}'},
        {"type": "response.output_item.done", "output_index": 0, "item": FUNCTION},
    ]
    said = {"calls": [("f", {"a": 1})], "finishes": ["tool_calls"]}
    for some in (events, [events[0], *events[3:]], events[3:], []):
        for pieces in streams(provider, completed(*some, output=[FUNCTION])):
            assert told(provider, pieces) == said
    assert told(provider, [json.dumps(response(FUNCTION)).encode()], **JSON) == said


@pytest.mark.parametrize("provider", RESPONSES)
def test_counts_at_the_begin_and_the_end_are_counted_once(provider: str) -> None:
    for pieces in streams(provider, completed(*_deltas("output_text", SAID, **AT), usage=TOKENS)):
        assert told(provider, pieces) == {**TEXT, "counts": TOKENS, "finishes": ["stop"]}


@pytest.mark.parametrize("provider", RESPONSES)
def test_a_failure_in_two_events_is_told_once(provider: str) -> None:
    failed = {**response(), "status": "failed", "error": {"code": "server_error", "message": "No."}}
    chunks = [
        *completed(*_deltas("output_text", SAID, **AT))[:-1],
        {"type": "error", "code": "server_error", "message": "No."},
        {"type": "response.failed", "response": failed},
    ]
    for pieces in streams(provider, chunks):
        assert [event["type"] for event in decode(provider, pieces)].count("error") == 1


# ---- messages --------------------------------------------------------------------------------------------------------

CLAUDE: Final = {"id": "m", "type": "message", "role": "assistant", "model": "m"}
_TOKENS: Final = {"input_tokens": 3, "output_tokens": 5}
_CITED: Final = {"type": "web_search_result_location", "url": ADDRESS, "title": "A", "cited_text": ""}
_BLOCKS: Final[list[Said]] = [
    {"type": "thinking", "thinking": "".join(THOUGHT), "signature": "s"},
    {"type": "text", "text": "".join(SAID)},
    {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
]


def message(*, announced: bool, begun: bool, repeated: bool) -> list[Any]:
    """Returns the events of a message.

    Args:
        announced: Whether its first and its last event have its whole content, too.
        begun: Whether the start of the block of the call has its whole input, too.
        repeated: Whether the whole message follows its events.
    """
    content = _BLOCKS if announced else []
    empty: list[Said] = [
        {"type": "thinking", "thinking": "", "signature": "s"},
        {"type": "text", "text": ""},
        {**_BLOCKS[2], "input": {"a": 1} if begun else {}},
    ]
    deltas: list[list[Said]] = [
        [
            *({"type": "thinking_delta", "thinking": text} for text in THOUGHT),
            {"type": "signature_delta", "signature": "s"},
        ],
        [{"type": "text_delta", "text": text, "content": text} for text in SAID],
        [{"type": "input_json_delta", "partial_json": text} for text in ('{"a"', ":1}")],
    ]
    events: list[Any] = []
    for index, block in enumerate(empty):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas[index]]
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    return [
        {"type": "message_start", "message": {**CLAUDE, "content": content, "usage": _TOKENS}},
        *events,
        {"type": "message_delta", "delta": {**end, "content": content}, "usage": _TOKENS},
        {"type": "message_delta", "delta": end, "usage": _TOKENS},
        *([{**CLAUDE, **end, "content": _BLOCKS, "usage": _TOKENS}] if repeated else []),
        {"type": "message_stop", "message": {**CLAUDE, "content": content, "usage": _TOKENS}},
    ]


@pytest.mark.parametrize("spelling", ["plain", "announced", "begun", "repeated"])
def test_a_message_in_two_events_is_told_once(spelling: str) -> None:
    names = ("announced", "begun", "repeated")
    chunks = message(**{name: name == spelling for name in names})
    said = {
        **THOUGHTS,
        "calls": [("f", {"a": 1})],
        "signatures": ["s"],
        "finishes": ["tool_calls"],
        "counts": TOKENS,
    }
    for pieces in streams("anthropic", chunks):
        assert told("anthropic", pieces) == said
    answer = {**CLAUDE, "content": _BLOCKS, "text": "".join(SAID), "stop_reason": "tool_use", "usage": _TOKENS}
    assert told("anthropic", [json.dumps(answer).encode()], **JSON) == said


@pytest.mark.parametrize("times", [1, 2])
def test_a_source_at_the_start_of_a_block_and_in_a_delta_is_told_once(times: int) -> None:
    delta = {"type": "citations_delta", "citation": _CITED}
    chunks = [
        {"type": "message_start", "message": {**CLAUDE, "content": [], "usage": _TOKENS}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": "", "citations": [_CITED]},
        },
        *({"type": "content_block_delta", "index": 0, "delta": delta} for _ in range(times)),
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": _TOKENS},
        {"type": "message_stop"},
    ]
    for pieces in streams("anthropic", chunks):
        assert told("anthropic", pieces)["citations"] == [{"uri": ADDRESS, "title": "A", "start": 0, "end": 2}]


# ---- generate --------------------------------------------------------------------------------------------------------


def _generated(parts: list[Said], **others: Any) -> Said:
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": parts}, **others}], "modelVersion": "m"}


GENERATED: Final[dict[str, tuple[Said, Said]]] = {
    "plain": ({}, {}),
    "text of the candidate": ({"text": "T"}, {}),
    "output": ({"output": "T"}, {}),
    "message": ({"message": {"content": "T"}}, {}),
    "text at the top": ({}, {"text": "T"}),
    "in response, too": ({}, {"response": {"text": "T"}}),
}


@pytest.mark.parametrize("spelling", GENERATED)
def test_a_generated_text_in_two_members_is_told_once(spelling: str) -> None:
    def chunk(text: str, **others: Any) -> Said:
        beside, top = (json.loads(json.dumps(each).replace('"T"', json.dumps(text))) for each in GENERATED[spelling])
        return {**_generated([{"text": text}], **beside, **others), **top}

    chunks = [*map(chunk, SAID[:-1]), chunk(SAID[-1], finishReason="STOP")]
    for pieces in streams("gemini", chunks):
        assert told("gemini", pieces) == {**TEXT, "finishes": ["stop"]}
    answer = chunk("".join(SAID), finishReason="STOP", finish_reason="STOP")
    assert told("gemini", [json.dumps(answer).encode()], **JSON) == {**TEXT, "finishes": ["stop"]}


def test_generated_thoughts_calls_and_counts_in_two_spellings_are_told_once() -> None:
    call = {"name": "f", "args": {"a": 1}}
    counts = {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8}
    spelled = {"prompt_token_count": 3, "candidates_token_count": 5, "total_token_count": 8}
    said = {**THOUGHTS, "calls": [("f", {"a": 1})], "finishes": ["tool_calls"], "counts": TOKENS}
    for also in (False, True):
        called: Said = {"functionCall": call, **({"function_call": call} if also else {})}
        usage: Said = {"usageMetadata": counts, **({"usage_metadata": spelled} if also else {})}
        parts: list[Said] = [{"text": text, "thought": text if also else True} for text in THOUGHT]
        parts += [{"text": text} for text in SAID]
        parts.append(called)
        chunks = [*({**_generated([part]), **usage} for part in parts), _generated([], finishReason="STOP")]
        for pieces in streams("gemini", chunks):
            assert told("gemini", pieces) == said
        answer = {**_generated(parts, finishReason="STOP"), **usage}
        assert told("gemini", [json.dumps(answer).encode()], **JSON) == said


def test_a_generated_source_in_two_members_is_told_once() -> None:
    grounded = {"groundingChunks": [{"web": {"uri": ADDRESS, "title": "A"}}]}
    fetched = {"urlMetadata": [{"retrievedUrl": ADDRESS, "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"}]}
    recited = {"citations": [{"uri": ADDRESS}]}
    beside = {"groundingMetadata": grounded, "urlContextMetadata": fetched, "citationMetadata": recited}
    chunks = [_generated([{"text": text}], **beside) for text in SAID]
    chunks.append(_generated([], finishReason="STOP", **beside))
    for pieces in streams("gemini", chunks):
        assert told("gemini", pieces)["citations"] == [{"uri": ADDRESS, "title": "A"}]
    answer = _generated([{"text": "Hi"}], finishReason="STOP", **beside)
    assert told("gemini", [json.dumps(answer).encode()], **JSON)["citations"] == [{"uri": ADDRESS, "title": "A"}]


# ---- cohere and ollama -----------------------------------------------------------------------------------------------


def test_an_answer_of_cohere_in_two_members_is_told_once() -> None:
    text, thought = "".join(SAID), "".join(THOUGHT)
    usage = {"billed_units": _TOKENS, "tokens": _TOKENS}
    said = {**THOUGHTS, "finishes": ["stop"], "counts": TOKENS}
    blocks = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": text}]
    message = {"role": "assistant", "content": blocks, "text": text, "tool_plan": thought}
    answer = {"id": "c", "message": message, "text": text, "finish_reason": "COMPLETE", "usage": usage}
    assert told("cohere", [json.dumps(answer).encode()], **JSON) == said
    chunks: list[Any] = [{"type": "message-start", "id": "c"}]
    for kind, member, texts in (("thinking", "thinking", THOUGHT), ("text", "text", SAID)):
        index = int(kind == "text")
        begun = {"type": kind, member: ""}
        chunks.append({"type": "content-start", "index": index, "delta": {"message": {"content": begun}}})
        for piece in texts:
            delta = {"message": {"content": {member: piece}, "text": piece}, "text": piece}
            chunks.append({"type": "content-delta", "index": index, "delta": delta})
        chunks.append({"type": "content-end", "index": index})
    end = {"finish_reason": "COMPLETE", "usage": usage, "message": message}
    chunks.append({"type": "message-end", "delta": end})
    for pieces in streams("cohere", chunks):
        assert told("cohere", pieces) == said


def test_a_text_of_the_first_version_of_cohere_is_told_once() -> None:
    end = {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"text": "".join(SAID)}}
    chunks = [*({"event_type": "text-generation", "text": text} for text in SAID), end]
    for pieces in streams("cohere", chunks):
        assert told("cohere", pieces) == {**TEXT, "finishes": ["stop"]}


@pytest.mark.parametrize("provider", ["ollama", "ollama:generate"])
def test_an_answer_of_ollama_in_two_members_is_told_once(provider: str) -> None:
    counts: Said = {"prompt_eval_count": 3, "eval_count": 5}
    called = {"function": {"name": "f", "arguments": {"a": 1}}}

    def chunk(text: str = "", thought: str = "", *, calls: bool = False, **others: Any) -> Said:
        members: Said = {"content": text, "text": text, "thinking": thought, "reasoning": thought}
        members |= {"reasoning_content": thought, **({"tool_calls": [called], "tool_call": called} if calls else {})}
        inner = {"message": members, "response": text} if provider == "ollama" else {**members, "response": text}
        return {"model": "m", **inner, **others}

    said = {**THOUGHTS, "calls": [("f", {"a": 1})], "finishes": ["tool_calls"], "counts": TOKENS}
    chunks = [*(chunk(thought=each, done=False) for each in THOUGHT), *(chunk(each, done=False) for each in SAID)]
    chunks.append(chunk(calls=True, done=False))
    chunks.append(chunk(done=True, done_reason="stop", **counts))
    for pieces in streams(provider, chunks):
        assert told(provider, pieces) == said
    answer = chunk("".join(SAID), "".join(THOUGHT), calls=True, done=True, done_reason="stop", **counts)
    assert told(provider, [json.dumps(answer).encode()], **JSON) == said
