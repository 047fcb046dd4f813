"""`formats/responses/chain.py`: the items of kept responses, joined, listed and found by their ids."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.core.json.structure import Structure
from gai_fast.core.requests.limits import LIMITS as IDS
from gai_fast.core.requests.stored_ids import own_item_id
from gai_fast.formats._base import ItemMark, without_marked
from gai_fast.formats._members import read_text
from gai_fast.formats.responses.chain import (
    Written,
    indexed_ids,
    item_of,
    items_by_id,
    joined,
    mark_of,
    output_of,
    own_items,
    read_members,
    references,
    written,
    written_before,
)
from gai_fast.formats.responses.chain import (
    _has_content as has_content,
)
from gai_fast.model.errors import Error, InvalidRequest
from gai_fast.stores.responses import KeptResponse
from tests.limits import LIMITS

STREAM = "a" * 22
RESPONSE = f"resp_{STREAM}"
USER = {"role": "user", "content": "hi"}
THOUGHT: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAA1"}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "done"}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}


def said(text: str = "yo", status: str = "completed", number: int = 0) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    message = {"id": f"msg_{STREAM}_{number}", "type": "message", "status": status, "role": "assistant"}
    return {**message, "content": [part]}


def kept(
    *output: Any, given: Any = (USER,), status: str = "completed", provider: str = "", **members: Any
) -> KeptResponse:
    response = {"id": RESPONSE, "status": status, "output": list(output), **members}
    own, answer = json.dumps(list(given)).encode(), json.dumps(response).encode()
    return KeptResponse(RESPONSE, "", status, own, answer, provider=provider)


# ---- a request's own items -------------------------------------------------------------------------------------------


def test_a_text_is_one_message_and_other_types_are_refused() -> None:
    assert own_items({"input": "hi"}) == [USER]
    assert own_items({"input": [USER]}) == [USER]
    assert own_items({"input": None}) == own_items({}) == []
    with pytest.raises(InvalidRequest, match=r"\$\.input"):
        own_items({"input": 5})


# ---- items by their ids ----------------------------------------------------------------------------------------------


def test_an_item_is_found_by_its_id_in_the_answer_and_in_the_input() -> None:
    response = kept(said(), CALL, given=[USER, {**USER, "id": "mine"}])
    assert item_of(response, said()["id"]) == said()
    assert item_of(response, "fc_1") == CALL
    assert item_of(response, "mine") == {**USER, "id": "mine"}
    assert item_of(response, own_item_id("msg", STREAM, IDS.input_item)) == USER, "as it was written"
    assert item_of(response, "fc_2") is None
    assert item_of(kept(given=[{"type": "item_reference", "id": "msg_9"}]), "msg_9") is None, "a name is no item"


def test_only_ids_that_do_not_tell_their_response_are_indexed() -> None:
    output = [said(), CALL, {"id": ""}, {"id": 5}, "no item", {"id": "x" * (LIMITS.identifier + 1)}]
    ids = [item["id"] for item in output if isinstance(item, dict) and isinstance(item.get("id"), str)]
    assert indexed_ids(RESPONSE, written([USER, {**USER, "id": "mine"}], 9), ids, 9) == ["mine", "fc_1"]
    short = indexed_ids("resp_short", written([USER], 9), [], 9)
    assert short == [*items_by_id(kept()._replace(identifier="resp_short"))], "too short to be told"


def test_of_many_ids_the_last_ones_are_indexed_and_those_of_the_answer_last() -> None:
    own = [{**USER, "id": f"mine_{at}"} if at % 2 else USER for at in range(LIMITS.response_items)]
    for items in (written(own, 3), written_before(json.dumps(own).encode(), 3)):
        assert indexed_ids("resp_short", items, ["fc_1"], 3) == [f"mine_{len(own) - 3}", f"mine_{len(own) - 1}", "fc_1"]
        assert json.loads(items.text) == own
        assert len(items.given) == len(items.made) == 3, "the others are not held while the answer is made"


def test_of_a_long_text_the_ids_are_known_before_its_end() -> None:
    own = [{**USER, "content": "x" * LIMITS.parsed_bytes}, {**USER, "id": "mine"}]
    for items in (written(own, 9), written_before(json.dumps(own).encode(), 9)):
        assert items.made == [("msg", 0)]
        unread = Written(b"not read again", items.given, items.made)
        assert indexed_ids("resp_short", unread, [], 9) == indexed_ids("resp_short", items, [], 9) != []


def test_references_are_items_that_only_name_another_one() -> None:
    items = [
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_2"},
        {"id": "msg_3", "type": "message", "status": "completed"},
        said(),
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {"id": "rs_2", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
        THOUGHT,
        {"type": "item_reference"},
        {"id": 5},
        "text",
    ]
    found = [(each.place, each.identifier, each.is_needed) for each in references(items)]
    assert found == [
        *((0, "msg_1", True), (1, "msg_2", True), (2, "msg_3", True)),
        *((4, "rs_1", False), (5, "rs_2", False)),
    ]


# ---- chains ----------------------------------------------------------------------------------------------------------


def test_a_conversation_is_each_turns_input_and_output_and_then_the_new_items() -> None:
    chain = [kept(said("one")), kept(said("two"), given=[USER, USER])]
    assert joined(chain, [USER]).items == [USER, said("one"), USER, USER, said("two"), USER]
    assert joined([], [USER]).items == [USER]


def test_answers_to_the_gateways_requests_are_of_their_own_turn_alone() -> None:
    ours, theirs = f"{'a' * 22}-1", "mcpr_1"
    asks = [{"type": "mcp_approval_request", "id": each, "arguments": "{}"} for each in (ours, theirs)]
    answers = [
        {"type": "mcp_approval_response", "approval_request_id": each, "approve": True} for each in (ours, theirs)
    ]
    found = joined([kept(*asks), kept(given=answers)], [USER, *answers])
    assert found.items == [USER, *asks, answers[1], USER, *answers]
    assert [found.items[mark.place] for mark in found.marks] == [asks[1], answers[1]]


@pytest.mark.parametrize("status", ["completed", "incomplete", "cancelled", "failed"])
def test_empty_messages_do_not_count_and_whole_ones_do(status: str) -> None:
    empty = [said(""), {**said(), "content": []}, {**said(), "content": [{"type": "refusal", "refusal": ""}]}]
    image = {**said(), "content": [{"type": "output_image"}]}
    items = joined([kept(said("one"), *empty, image, status=status)], [USER]).items
    assert items == [USER, said("one"), image, USER]


def test_of_a_failed_turn_only_whole_items_count() -> None:
    half = said("half", "incomplete")
    for status in ("incomplete", "cancelled", "completed"):
        assert half in joined([kept(half, status=status)], [USER]).items
    assert joined([kept(said("one"), half, status="failed")], [USER]).items == [USER, said("one"), USER]


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call", "computer_call", "shell_call"])
def test_a_call_of_a_completed_turn_needs_its_output(kind: str) -> None:
    call = {**CALL, "type": kind}
    with pytest.raises(InvalidRequest, match="c1") as refused:
        joined([kept(call)], [USER])
    assert (refused.value.reason, refused.value.param, refused.value.status) == ("tool_output", "input", 400)
    output = {**OUTPUT, "type": f"{kind}_output"}
    assert joined([kept(call)], [output]).items == [USER, call, output]
    assert joined([kept(call), kept(said(), given=[output])], [USER]).items[-1] == USER


@pytest.mark.parametrize("own", [[OUTPUT], [USER, OUTPUT]])
def test_an_output_needs_its_call_before_it(own: list[Any]) -> None:
    with pytest.raises(InvalidRequest, match="c1") as refused:
        joined([kept(said())], own)
    assert refused.value.reason == "tool_output"
    with pytest.raises(InvalidRequest, match="c1"):
        joined([kept(said())], [OUTPUT, CALL])
    assert joined([], own).items == own, "without a chain its provider decides"


def test_the_requests_own_calls_are_its_providers_matter() -> None:
    assert joined([kept(said())], [CALL]).items[-1] == CALL


def test_a_call_id_may_be_used_again() -> None:
    chain = [kept(CALL), kept(CALL, given=[OUTPUT])]
    assert joined(chain, [OUTPUT]).items == [USER, CALL, OUTPUT, CALL, OUTPUT]
    assert joined([kept(CALL)], [OUTPUT, OUTPUT]).items[-2:] == [OUTPUT, OUTPUT]
    with pytest.raises(InvalidRequest, match="c1"):
        joined([kept(CALL, CALL)], [OUTPUT])


@pytest.mark.parametrize("status", ["incomplete", "cancelled", "failed"])
def test_a_call_of_a_turn_that_did_not_complete_is_left_out_with_its_reasoning(status: str) -> None:
    assert joined([kept(said(), THOUGHT, CALL, status=status)], [USER]).items == [USER, said(), USER]
    assert joined([kept(THOUGHT, CALL, status=status)], [OUTPUT]).items == [USER, THOUGHT, CALL, OUTPUT]
    other = {**CALL, "call_id": "c2"}
    answered = {**OUTPUT, "call_id": "c2"}
    assert joined([kept(THOUGHT, CALL, other, status=status)], [answered]).items == [USER, THOUGHT, other, answered]
    assert joined([kept(said(), THOUGHT, status=status)], [USER]).items == [USER, said(), USER]


def test_reasoning_of_a_complete_turn_stays() -> None:
    assert joined([kept(THOUGHT, said())], [USER]).items == [USER, THOUGHT, said(), USER]
    assert joined([kept(THOUGHT)], [USER]).items == [USER, THOUGHT, USER]


@pytest.mark.parametrize("kind", [{}, [], 5, None])
def test_an_item_whose_type_is_no_text_is_no_call(kind: Any) -> None:
    item = {"type": kind, "call_id": "c1"}
    assert joined([kept()], [item]).items[-1] is item
    assert joined([kept()._replace(input=json.dumps([item]).encode())], []).items[0] == item


def test_codex_answers_a_local_shell_call_with_the_output_of_a_function() -> None:
    call = {"type": "local_shell_call", "id": "lsh_1", "call_id": "c1", "action": {"type": "exec"}}
    assert joined([kept(call)], [OUTPUT]).items == [USER, call, OUTPUT]


def test_runs_of_a_providers_own_tools_need_no_output() -> None:
    run = {"type": "custom_tool_call", "id": "", "call_id": "xs_1", "name": "x_keyword_search", "input": "{}"}
    mine = {"type": "custom", "name": "mine"}
    assert joined([kept(run, said(), tools=[mine])], [USER]).items == [USER, run, said(), USER]
    for tools in ([{**mine, "name": run["name"]}], [{"type": "namespace", "tools": [{**mine, "name": run["name"]}]}]):
        with pytest.raises(InvalidRequest, match="xs_1"):
            joined([kept(run, said(), tools=tools)], [USER])


def test_empty_messages_do_not_count_of_requests_and_answers() -> None:
    nothing = {"role": "user", "content": ""}
    turn = kept(said(), {**said(), "content": []}, given=(nothing, USER))
    assert joined([turn], [USER]).items == [USER, said(), USER]


def test_what_one_turn_lacks_changes_no_other() -> None:
    first = kept(said(), {**said(), "content": []})
    assert joined([first, kept(THOUGHT)], [USER]).items == [USER, said(), USER, THOUGHT, USER]


# ---- what only its provider understands ------------------------------------------------------------------------------


def test_items_that_only_their_provider_understands_are_marked() -> None:
    assert mark_of(SEARCH, 3, "openai") == ItemMark(3, "openai", is_reasoning=False)
    assert mark_of({"type": "compaction", "encrypted_content": "x"}, 0, "") == ItemMark(0, "", is_reasoning=False)
    assert mark_of(THOUGHT, 1, "openai") == ItemMark(1, "openai", is_reasoning=True)
    assert mark_of(THOUGHT, 1, "") is None
    assert mark_of({**THOUGHT, "encrypted_content": 'gai:{"signature":"s"}'}, 1, "openai") is None, "its author is told"
    for item in (USER, said(), CALL, OUTPUT, {"type": "item_reference", "id": "x"}, {"id": "x"}, 5):
        assert mark_of(item, 0, "openai") is None


class Untold(list[int]):
    """A list that a client may send in place of a text."""

    def __repr__(self) -> str:
        raise AssertionError("to write it as a text takes as long as it is")


def test_a_list_in_place_of_a_text_is_not_written_as_one() -> None:
    thought = {**THOUGHT, "id": Untold([1]), "encrypted_content": None}
    assert mark_of(thought, 1, "openai") == ItemMark(1, "openai", is_reasoning=True)
    message = {"role": "user", "content": [{"type": Untold([1]), "text": ""}]}
    assert has_content(message)


def test_marked_items_go_back_to_their_provider_alone() -> None:
    chain = [kept(THOUGHT, SEARCH, said(), provider="openai"), kept(SEARCH, said("two"), provider="xai")]
    conversation = joined(chain, [USER])
    body = {"input": conversation.items}

    def sent(provider: str | None) -> list[Any]:
        found: list[Any] = without_marked(body, conversation.marks, provider)["input"]
        return found

    assert sent("openai") == [USER, THOUGHT, SEARCH, said(), USER, said("two"), USER]
    assert sent("xai") == [USER, said(), USER, SEARCH, said("two"), USER]
    assert sent("azure") == [USER, said(), USER, said("two"), USER]
    assert sent(None) == [USER, THOUGHT, said(), USER, said("two"), USER]
    assert without_marked(body, [], None) is body


def test_marks_are_moved_with_their_items() -> None:
    chain = [kept(said(""), SEARCH, said(), provider="openai")]
    conversation = joined(chain, [USER, SEARCH], [ItemMark(1, "xai", is_reasoning=False)])
    assert [(conversation.items[mark.place], mark.provider) for mark in conversation.marks] == [
        *((SEARCH, "openai"), (SEARCH, "xai"))
    ]


# ---- sizes and damage ------------------------------------------------------------------------------------------------


def test_long_turns_are_read_item_by_item_to_the_same_values() -> None:
    long = said("x" * (2 * LIMITS.parsed_bytes))
    chain = [kept(long, given=[{**USER, "content": "y" * (2 * LIMITS.parsed_bytes)}, USER])]
    structure = Structure()
    items = joined(chain, [USER]).items
    assert items == joined(chain, [USER], structure=structure).items
    assert items[2] == long
    assert structure.containers == 2 + 5, "two messages of the user; an answer with a part and three lists"


def test_too_many_values_are_refused_before_they_are_parsed() -> None:
    many = kept(given=[[]] * (LIMITS.json_containers // 2))
    assert len(joined([many], [], structure=Structure()).items) == LIMITS.json_containers // 2
    with pytest.raises(InvalidRequest, match="objects and arrays"):
        joined([many, many, many], [], structure=Structure())


def test_a_text_is_read_in_pieces_to_the_same_count() -> None:
    text = json.dumps([{"a": '"[{' * 50_000}, [[]]]).encode()
    structure = Structure()
    read_text(structure, text)
    read_text(structure, b"[]")
    assert structure.containers == 5


def test_an_upstreams_bytes_may_be_what_a_strict_parser_refuses() -> None:
    answer = b'\xef\xbb\xbf{"output":[{"id":"a\\ud800"}],"tools":[]}'
    half = KeptResponse(RESPONSE, "", "completed", b'["\\ud800"]', answer)
    assert output_of(half) == [{"id": "a\ud800"}]
    assert joined([half], [], structure=Structure()).items == ["\ud800", {"id": "a\ud800"}]
    for output in ("null", "5", '"x"'):
        assert output_of(kept()._replace(response=f'{{"output":{output}}}'.encode())) == []


@pytest.mark.parametrize("field", ["input", "response"])
def test_what_is_no_json_is_damaged(field: str) -> None:
    with pytest.raises(Error) as damaged:
        joined([kept()._replace(**{field: b"[{"})], [])
    assert (damaged.value.code, damaged.value.reason) == ("internal", "log_damaged")


# ---- by any conversation ---------------------------------------------------------------------------------------------


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[list[Any], list[Any]]]:
    """Returns turns of a user and an agent: each the input and the output."""
    turns: list[tuple[list[Any], list[Any]]] = []
    waiting: list[str] = []
    for turn in range(draw(st.integers(1, 5))):
        own: list[Any] = [{**OUTPUT, "call_id": each} for each in waiting]
        own += [
            {"role": "user", "content": draw(st.text(min_size=1, max_size=3))} for _ in range(draw(st.integers(0, 2)))
        ]
        output: list[Any] = [{**THOUGHT, "id": f"rs_{turn}"}] if draw(st.booleans()) else []
        output += [said(draw(st.text(min_size=1, max_size=3)), number=turn)] if draw(st.booleans()) else []
        waiting = [f"c{draw(st.integers(0, 3))}x{each}" for each in range(draw(st.integers(0, 2)))]
        output += [{**CALL, "call_id": each} for each in waiting]
        turns.append((own, output))
    turns.append(([{**OUTPUT, "call_id": each} for each in waiting] + [USER], []))
    return turns


@settings(max_examples=settings().max_examples // 2, derandomize=True)
@given(turns=conversations())
def test_the_whole_is_what_a_client_would_have_sent(turns: list[tuple[list[Any], list[Any]]]) -> None:
    chain = [kept(*output, given=own) for own, output in turns[:-1]]
    everything = [item for own, output in turns for item in (*own, *output)]
    assert joined(chain, turns[-1][0]).items == everything
    assert joined(chain, turns[-1][0], structure=Structure()).items == everything


# ---- what a chain reads ----------------------------------------------------------------------------------------------

CUSTOM = {
    "type": "custom_tool_call",
    "id": "ctc_1",
    "call_id": "c2",
    "name": "patch",
    "input": "x",
    "status": "completed",
}
DONE = {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"}
LARGE: dict[str, Any] = {"description": "x" * 1_000}
TOOLS: list[Any] = [
    {"type": "function", "name": "f", **LARGE},
    {"type": "custom", "name": "patch", **LARGE},
    {"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "deep", **LARGE}], **LARGE},
    7,
]


@pytest.mark.parametrize("output", [(), (said(),), (THOUGHT, CALL), (CUSTOM,), (said(), {**CUSTOM, "name": "deep"})])
@pytest.mark.parametrize("tools", [None, [], TOOLS, "none", [{"type": "namespace"}]])
@pytest.mark.parametrize("given", [(USER,), (USER, {**CUSTOM, "call_id": "c3"})])
@pytest.mark.parametrize("own", [(), (OUTPUT,), (DONE,)])
def test_a_chain_is_the_same_of_the_members_that_it_reads(output: Any, tools: Any, given: Any, own: Any) -> None:
    whole = kept(*output, given=given, tools=tools, instructions="x" * 1_000)
    short = whole._replace(response=read_members(whole))
    assert len(short.response) <= len(json.dumps(output)) + 200

    def read(turn: KeptResponse) -> Any:
        try:
            return joined([turn], own)
        except Error as error:
            return error.message

    assert read(short) == read(whole)
    assert item_of(short, "ctc_1") == item_of(whole, "ctc_1")
    assert read_members(short) == short.response


@pytest.mark.parametrize("text", [b"{}", b'{"output":[]}', b"[]", b"nonsense", b'{"output":[],"tools":[{]}'])
def test_an_object_that_cannot_be_read_is_left_as_it_is(text: bytes) -> None:
    damaged = KeptResponse(RESPONSE, "", "completed", b'[{"type":"custom_tool_call"}]', text)
    assert read_members(damaged) == (text if text[:1] != b"{" or b"tools" in text else b'{"output":[]}')


def test_the_gateways_calls_of_earlier_turns_are_understood_by_every_provider() -> None:
    made = {"type": "mcp_call", "id": f"mcp_{STREAM}_0", "server_label": "docs", "name": "search", "arguments": "{}"}
    made |= {"output": "found", "error": None, "status": "completed"}
    theirs = {**made, "id": "mcp_0a1b2c"}
    conversation = joined([kept(made, theirs, said(), provider="openai")], [USER])
    assert [mark.place for mark in conversation.marks] == [2]
    assert made in without_marked({"input": conversation.items}, conversation.marks, None)["input"]
