"""What upstreams store for one caller is named by no other: ids belong to the caller who got them here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from gai_fast.model.settings import KeySettings, key_digest
from tests.integration.gateway import LAST_CHUNK, NATIVE, SSE_HEAD, Gateway, Net, Peer, on_both_loops, on_uvloop
from tests.integration.processes import serving
from tests.unit.formats.responses_reader import frame, upstream
from tests.wire import chunk

ALICE, BOB = "sk-canary-alice-012345", "sk-canary-bob-012345"
KEYS = (KeySettings("alice", (key_digest(ALICE),)), KeySettings("bob", (key_digest(BOB),)))
PATH = "/v1/responses"
ASK: dict[str, Any] = {"model": "native/gpt-x", "input": "hi", "stream": True, "store": False}
"""Nothing is kept here: what a request goes on from is the upstream's."""
CODES = {
    "previous_response_id": "previous_response_not_found",
    "conversation": "conversation_not_found",
    "prompt": "prompt_not_found",
    "container": "container_not_found",
    "file_id": "file_not_found",
    "file_ids": "file_not_found",
    "vector_store_ids": "vector_store_not_found",
    "item_reference": "item_not_found",
    "cachedContent": "cached_content_not_found",
    "fileSearchStoreNames": "file_search_store_not_found",
    "previous_message_id": "previous_message_not_found",
    "skill_id": "skill_not_found",
}
SUMMARY = {"type": "summary_text", "text": "Hm"}
NAMING: list[tuple[str, dict[str, Any]]] = [
    ("previous_response_id", {"previous_response_id": "resp_theirs"}),
    ("conversation", {"conversation": "conv_1"}),
    ("conversation", {"conversation": {"id": "conv_1"}}),
    ("prompt", {"prompt": {"id": "pmpt_1"}}),
    ("item_reference", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
    ("item_reference", {"input": [{"id": "msg_1"}]}),
    ("item_reference", {"input": [{"type": "reasoning", "id": "rs_1", "summary": [SUMMARY]}]}),
    ("container", {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}),
    ("file_ids", {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_1"]}}]}),
    ("file_id", {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]}),
    ("vector_store_ids", {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}),
    ("cachedContent", {"cachedContent": "cachedContents/c"}),
    ("fileSearchStoreNames", {"tools": [{"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/s"]}}]}),
    ("previous_message_id", {"thread": {"type": "continue", "previous_message_id": "msg_anthropics"}}),
    ("skill_id", {"container": {"skills": [{"type": "custom", "skill_id": "skill_1"}]}}),
]
TOOL = {
    "id": "ci_1",
    "type": "code_interpreter_call",
    "status": "completed",
    "code": "1",
    "container_id": "cntr_1",
    "outputs": [{"type": "image", "file_id": "file_1"}],
}


def answer() -> list[bytes]:
    """Returns the frames of an answer with a message, a container with a file, and reasoning that is not encrypted."""
    frames = upstream()
    item = frame("response.output_item.done", 90, output_index=1, item=TOOL)
    thought = {"type": "reasoning", "id": "rs_1", "summary": [SUMMARY]}
    return [*frames[:-1], item, frame("response.output_item.done", 91, output_index=2, item=thought), frames[-1]]


class Asked:
    """An upstream that answers, and the bodies that it got."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.bodies.append(json.loads(await peer.request()))
            await peer.send(SSE_HEAD, *(chunk(each) for each in answer()), LAST_CHUNK)


async def ask(gateway: Gateway, key: str, more: dict[str, Any], path: str = PATH) -> tuple[int, Any]:
    """Returns the status and, of a refusal, the error."""
    body = {**ASK, **more} if path == PATH else more
    response = await gateway.ask("POST", path, body, {"x-api-key": key})
    return response.status, None if response.status == 200 else json.loads(response.body)["error"]


@on_both_loops
async def test_only_the_caller_who_got_an_answer_continues_it(net: Net) -> None:
    asked = Asked()
    gateway = await net.gateway(await net.upstream(asked), keys=KEYS)
    assert await ask(gateway, ALICE, {}) == (200, None)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=BOB, max_retries=0) as bob:
        with pytest.raises(openai.BadRequestError) as refused:
            await bob.responses.create(**ASK, previous_response_id="resp_theirs")
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"
    assert refused.value.type == "invalid_request_error"
    assert "Previous response with id 'resp_theirs' not found." in refused.value.message
    assert len(asked.bodies) == 1, "it was not sent"
    assert await ask(gateway, ALICE, {"previous_response_id": "resp_theirs"}) == (200, None)
    assert asked.bodies[-1] == {**ASK, "model": "gpt-x", "previous_response_id": "resp_theirs"}


@on_uvloop
async def test_each_member_that_names_a_stored_thing_is_its_owners(net: Net) -> None:
    asked = Asked()
    gateway = await net.gateway(await net.upstream(asked), keys=KEYS)
    assert (await ask(gateway, ALICE, {}))[0] == 200
    got_here = {"resp_theirs", "msg_1", "cntr_1", "file_1", "rs_1"}
    for member, more in NAMING:
        sent = len(asked.bodies)
        status, error = await ask(gateway, BOB, more)
        assert (status, error["code"]) == (400, CODES[member]), more
        assert len(asked.bodies) == sent
        is_alices = any(each in json.dumps(more) for each in got_here)
        assert (await ask(gateway, ALICE, more))[0] == (200 if is_alices else 400), more
        options = {key: value for key, value in more.items() if key != "input"} or more
        native = {"model": "native/gpt-x", "query": "hi", "provider_options": {"openai-compatible": options}}
        status, error = await ask(gateway, BOB, native, NATIVE)
        assert (status, error["reason"]) == (400, CODES[member]), native
        status, error = await ask(gateway, BOB, native, "/api/v1/streams")
        assert (status, error["reason"]) == (400, CODES[member]), native


@on_uvloop
async def test_blocks_and_extra_members_name_no_ids_of_others(net: Net) -> None:
    asked = Asked()
    gateway = await net.gateway(await net.upstream(asked), keys=KEYS)
    for block in ({"type": "item_reference", "id": "msg_1"}, {"type": "code", "container_id": "cntr_1"}):
        part = {"type": "provider_block", "provider": "openai-compatible", "block": block}
        native = {"model": "native/gpt-x", "messages": [{"role": "user", "content": [part]}], "query": "hi"}
        status, error = await ask(gateway, BOB, native, NATIVE)
        assert (status, error["code"]) == (400, "invalid_request"), block
        assert error["reason"].endswith("_not_found")
    native = {"model": "native/gpt-x", "query": "hi", "extra": {"previous_response_id": "resp_theirs"}}
    status, error = await ask(gateway, BOB, native, NATIVE)
    assert (status, error["reason"]) == (400, CODES["previous_response_id"])
    assert asked.bodies == []


@on_uvloop
async def test_an_id_that_the_operator_shares_is_everybodys(net: Net) -> None:
    asked = Asked()
    gateway = await net.gateway(await net.upstream(asked), keys=KEYS, shared_ids=("pmpt_*", "vs_1"))
    for more, status in (
        ({"prompt": {"id": "pmpt_1"}}, 200),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, 200),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_12"]}]}, 400),
        ({"prompt": {"id": "pmpt_1"}, "previous_response_id": "resp_x"}, 400),
    ):
        assert (await ask(gateway, BOB, more))[0] == status, more


@on_uvloop
async def test_a_native_answer_with_its_upstreams_id_is_continued_by_its_caller(net: Net) -> None:
    asked = Asked()
    gateway = await net.gateway(await net.upstream(asked), keys=KEYS)
    native: dict[str, Any] = {"model": "native/gpt-x", "query": "hi"}
    assert (await ask(gateway, ALICE, native, NATIVE))[0] == 200
    native["provider_options"] = {"openai-compatible": {"previous_response_id": "resp_theirs"}}
    assert (await ask(gateway, ALICE, native, NATIVE))[0] == 200
    assert asked.bodies[-1]["previous_response_id"] == "resp_theirs"


@on_uvloop
async def test_a_whole_answers_ids_are_its_callers(net: Net) -> None:
    whole = {"id": "resp_w", "object": "response", "status": "completed", "output": [TOOL]}

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer("200 OK", json.dumps(whole).encode(), "Content-Type: application/json")

    gateway = await net.gateway(await net.upstream(handler), keys=KEYS)
    assert (await ask(gateway, ALICE, {"stream": False}))[0] == 200
    for key, status in ((ALICE, 200), (BOB, 400)):
        named = {"stream": False, "previous_response_id": "resp_w", "input": [{"id": "ci_1"}]}
        assert (await ask(gateway, key, named))[0] == status


@on_uvloop
async def test_an_upstream_that_stores_nothing_is_asked_without_a_look_at_ids(net: Net) -> None:
    """It cannot know them: without a look they are as unknown as an id of nobody's, as without keys."""
    gateway = await net.gateway(await net.mock(deltas=2), keys=KEYS)
    status, error = await ask(gateway, ALICE, {"model": "m", "previous_response_id": "resp_1"})
    assert (status, error["code"]) == (400, "previous_response_not_found")


def write_configuration(folder: Path, url: str, more: str = "") -> None:
    """Writes a configuration with two keys, and an upstream that speaks OpenAI's Responses API."""
    (folder / "alice").write_text(ALICE)
    (folder / "bob").write_text(BOB)
    keys = "".join(f'[[key]]\nname = "{name}"\nsecret = "file:{name}"\n' for name in ("alice", "bob"))
    (folder / "gai-fast.toml").write_text(
        "[server]\nport = 0\n"
        f'[[upstream]]\nname = "native"\nprovider = "openai-compatible:responses"\nbase_url = "{url}/v1"\n{keys}{more}'
    )


async def test_all_workers_know_who_got_an_id(net: Net, tmp_path: Path) -> None:
    write_configuration(tmp_path, (await net.upstream(Asked())).url)
    async with serving(net, tmp_path, "--workers", "2") as server:

        async def status(key: str, body: dict[str, Any]) -> int:
            return (await server.ask("POST", PATH, body, headers={"x-api-key": key})).status

        assert await status(ALICE, ASK) == 200
        named = {**ASK, "previous_response_id": "resp_theirs"}  # connections come to the workers in turn
        assert [await status(ALICE, named) for _ in range(4)] == [200] * 4
        assert [await status(BOB, named) for _ in range(4)] == [400] * 4
