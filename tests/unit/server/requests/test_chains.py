"""`server/requests/chains.py`: what is looked up, in which order, and the whole; tests/integration has requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gai_fast.core.requests.stored_ids import own_item_id
from gai_fast.formats.responses.chain import references
from gai_fast.kernels import encode_json
from gai_fast.model.errors import ContextLengthExceeded, Error, InvalidRequest, Overloaded
from gai_fast.model.request import CheckedBody
from gai_fast.model.settings import (
    ANONYMOUS,
    KeyLimits,
    KeySettings,
    LimitSettings,
    ModelSettings,
    Settings,
    UpstreamSettings,
)
from gai_fast.net.engine.engine import Engine
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.server.requests.chains import Chains, Found, Turn, WholeRequest, whole
from gai_fast.server.requests.early import EarlyChecks, read_rest
from gai_fast.server.requests.kinds.stream_routes import StreamRoutes
from gai_fast.server.requests.newest import Newest
from gai_fast.server.requests.passage import Passage
from gai_fast.server.workers.peers import worker_lost
from gai_fast.stores.responses import KeptResponse
from tests.conftest import ChangeLimits
from tests.limits import LIMITS
from tests.unit.server.requests.test_kinds import asked

CHAT = UpstreamSettings("chat", "openai", "http://127.0.0.1:9/v1")
NATIVE = UpstreamSettings("native", "openai:responses", "http://127.0.0.1:9/v1")
SETTINGS = Settings(
    upstreams={"chat": CHAT, "native": NATIVE},
    models={"m": ModelSettings("m", CHAT, "x"), "n": ModelSettings("n", NATIVE, "x")},
)
STREAM = "a" * 22
RESPONSE = f"resp_{STREAM}"
USER = {"role": "user", "content": "hi"}
SAID = {
    "id": f"msg_{STREAM}_0",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "yo"}],
}
SEARCH = {"id": "ws_1", "type": "web_search_call", "status": "completed"}
NOTHING = Found((), "", [], (), {}, is_upstreams=False, may_go_up=False, size=0)


def kept(identifier: str = RESPONSE, parent: str = "", *output: Any, **members: Any) -> KeptResponse:
    answer = json.dumps({"id": identifier, "output": list(output or (SAID,)), **members}).encode()
    return KeptResponse(identifier, parent, "completed", json.dumps([USER]).encode(), answer, ["ws_1"], "openai")


def newest() -> Newest:
    remembered = Newest()
    remembered.note(kept("resp_newest"), ())
    return remembered


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(SETTINGS, asyncio.get_running_loop())
    yield engine
    await engine.close()


async def read(
    engine: Engine, body: dict[str, Any], path: str = "dialect", newest: Any = None, running: Sequence[str] = ()
) -> Passage:
    """Returns a request that has passed the gate."""

    async def is_running(stream_id: str, caller: str) -> bool:
        return stream_id in running

    incoming = asked(json.dumps({"model": "m", **body}).encode(), "responses")
    incoming.http.set_key(None)
    incoming.newest = newest
    passage: Passage = getattr(StreamRoutes(engine), path)(incoming)
    passage.read()
    if passage.linked is not None:
        await Chains(engine, is_running, EarlyChecks(engine).look, read_rest).join(passage)
    return passage


def refusal(problem: Error) -> tuple[int, str | None]:
    return problem.status, problem.reason


# ---- look-ups --------------------------------------------------------------------------------------------------------


async def test_a_request_without_links_has_none(engine: Engine) -> None:
    for body in ({"input": "hi"}, {"input": [USER, SAID]}, {"input": "hi", "previous_response_id": None}):
        passage = await read(engine, body)
        assert passage.turn is None
        assert passage.linked is None


async def test_a_chain_is_joined_and_what_it_goes_on_from_is_noted(engine: Engine) -> None:
    engine.store.responses.keep(ANONYMOUS, kept())
    passage = await read(engine, {"previous_response_id": RESPONSE, "input": "on"})
    assert passage.turn is not None
    assert passage.turn[:3] == (RESPONSE, [{"role": "user", "content": "on"}], False)
    assert [each.identifier for each in passage.turn.before] == [RESPONSE]
    passage.plan()
    assert passage.spec is not None
    request: Any = passage.spec.request
    assert [message.content for message in request.messages[:1]] == ["hi"]
    assert len(request.messages) == 3


async def test_reasoning_is_asked_for_where_a_later_turn_sends_it_back(engine: Engine) -> None:
    """What a connection remembers is sent back too; an upstream that is asked to store nothing knows no such id."""
    for store, connection, is_kept in ((True, None, True), (False, None, False), (False, Newest(), True)):
        passage = await read(engine, {"model": "n", "input": "hi", "store": store}, "response", connection)
        passage.plan()
        assert passage.spec is not None
        assert passage.spec.is_kept is is_kept


async def test_a_connections_newest_response_is_looked_for_first(engine: Engine) -> None:
    passage = await read(engine, {"previous_response_id": "resp_newest", "input": "on"}, newest=newest())
    assert passage.turn is not None
    assert passage.turn[:3] == ("resp_newest", [{"role": "user", "content": "on"}], False)
    engine.store.responses.keep(ANONYMOUS, kept())
    passage = await read(engine, {"previous_response_id": RESPONSE, "input": "on"}, newest=newest())
    assert passage.turn is not None
    assert passage.turn.parent == RESPONSE
    with pytest.raises(InvalidRequest) as refused:
        await read(engine, {"previous_response_id": "resp_older", "input": "on"}, newest=newest())
    assert refusal(refused.value) == (400, "previous_response_not_found")


@pytest.mark.parametrize("identifier", ["", "resp_x", "x" * 5000, "a\r\nb", RESPONSE])
async def test_an_unknown_id_goes_up_only_if_an_upstream_may_know_it(engine: Engine, identifier: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await read(engine, {"previous_response_id": identifier, "input": "on"})
    assert refusal(refused.value) == (400, "previous_response_not_found")
    body = {"model": "n", "previous_response_id": identifier, "input": "on"}
    if not identifier:
        with pytest.raises(InvalidRequest):
            await read(engine, body)
        return
    passage = await read(engine, body)
    assert passage.turn == Turn("", [{"role": "user", "content": "on"}], is_upstreams=True)
    passage.plan()
    assert passage.spec is not None
    assert passage.spec.request == body
    assert not passage.spec.is_kept


async def test_a_hole_never_goes_up(engine: Engine) -> None:
    engine.store.responses.keep(ANONYMOUS, kept("resp_child", "resp_gone"))
    for model in ("m", "n"):
        with pytest.raises(InvalidRequest) as refused:
            await read(engine, {"model": model, "previous_response_id": "resp_child", "input": "on"})
        assert refusal(refused.value) == (400, "previous_response_not_found")


async def test_a_response_that_runs_is_a_conflict(engine: Engine) -> None:
    for model in ("m", "n"):
        with pytest.raises(InvalidRequest) as refused:
            body = {"model": model, "previous_response_id": RESPONSE, "input": "on"}
            await read(engine, body, running=[STREAM])
        assert refusal(refused.value) == (409, "running")


async def test_a_stream_of_the_caller_runs_or_not(engine: Engine) -> None:
    durable = StreamRoutes(engine).durable
    assert not await durable.is_running(STREAM, ANONYMOUS)

    class Others:
        async def running(self, stream_id: str, caller: str) -> Any:
            return (stream_id, caller) if caller == ANONYMOUS else None

    durable.others = Others()  # type: ignore[assignment]  # the rest is not asked
    assert await durable.is_running(STREAM, ANONYMOUS)
    assert not await durable.is_running(STREAM, "bob")


@pytest.mark.parametrize("problem", [worker_lost(), Error("overloaded", "ask again", reason="worker")])
async def test_a_stream_runs_no_more_once_its_worker_has_ended(engine: Engine, problem: Error) -> None:
    durable = StreamRoutes(engine).durable

    class Others:
        async def running(self, stream_id: str, caller: str) -> Any:
            raise problem

    durable.others = Others()  # type: ignore[assignment]  # the rest is not asked
    if problem.reason == "worker_lost":
        assert not await durable.is_running(STREAM, ANONYMOUS)
        return
    with pytest.raises(Error) as refused:
        await durable.is_running(STREAM, ANONYMOUS)
    assert refused.value.reason == "worker"


async def test_references_are_looked_up_once_each_and_what_is_missing_is_named(engine: Engine) -> None:
    engine.store.responses.keep(ANONYMOUS, kept(RESPONSE, "", SEARCH, SAID))
    items = [{"type": "item_reference", "id": "ws_1"}, {"id": SAID["id"]}, USER]
    passage = await read(engine, {"input": items})
    assert passage.turn == Turn("", [SEARCH, SAID, USER], is_upstreams=False)
    with pytest.raises(InvalidRequest) as refused:
        await read(engine, {"input": [{"type": "item_reference", "id": own_item_id("msg", STREAM, 7)}]})
    assert refusal(refused.value) == (400, "item_not_found")
    body = {"model": "n", "input": [{"type": "item_reference", "id": "msg_9"}, {"id": SAID["id"]}]}
    passage = await read(engine, body)
    assert passage.turn is not None
    assert passage.turn.own == [body["input"][0], SAID]


async def test_too_many_references_are_refused_and_optional_ones_are_not_counted(engine: Engine) -> None:
    for model in ("m", "n"):
        with pytest.raises(InvalidRequest) as refused:
            await read(engine, {"model": model, "input": [{"id": "msg_1"}] * (LIMITS.kept_references + 1)})
        assert refusal(refused.value) == (400, "items")
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    passage = await read(engine, {"model": "n", "input": [thought] * (LIMITS.kept_references + 1)})
    assert passage.turn is not None


async def test_only_what_the_client_wrote_itself_may_name_an_upstreams_ids(engine: Engine) -> None:
    """Kept items have been checked when they came: a record of their ids may be gone since."""
    file = {"type": "input_file", "file_id": "file_kept"}
    own = json.dumps([{"role": "user", "content": [file]}]).encode()
    engine.store.responses.keep("ann", kept()._replace(input=own))
    incoming = asked(
        json.dumps(
            {
                "model": "n",
                "previous_response_id": RESPONSE,
                "input": [{"role": "user", "content": [{**file, "file_id": "file_new"}]}, {"id": SAID["id"]}],
            }
        ).encode(),
        "responses",
    )
    incoming.http.set_key(KeySettings("ann", (), limits=KeyLimits(tokens_per_minute=1000)))
    passage = StreamRoutes(engine).dialect(incoming)
    passage.read()
    assert not passage.named, "the gate names them"
    await Chains(engine, StreamRoutes(engine).durable.is_running, EarlyChecks(engine).look, read_rest).join(passage)
    assert [each.identifier for each in passage.named] == ["file_new"]
    passage.plan()
    assert passage.demand.tokens > len(own) // 4, "of the whole conversation"


async def test_a_count_is_of_the_whole(engine: Engine) -> None:
    engine.store.responses.keep(ANONYMOUS, kept())
    passage = await read(engine, {"previous_response_id": RESPONSE, "input": "on"}, "count_tokens")
    passage.plan()
    alone = await read(engine, {"input": "on"}, "count_tokens")
    alone.plan()
    counts = [json.loads(each.begin().body)["input_tokens"] for each in (passage, alone)]  # type: ignore[union-attr]  # it is estimated
    assert counts == [2, 1]
    with pytest.raises(InvalidRequest):
        await read(engine, {"previous_response_id": "resp_x", "input": "on"}, "count_tokens")
    passage = await read(engine, {"model": "n", "previous_response_id": "resp_x", "input": "on"}, "count_tokens")
    assert passage.turn is not None
    assert passage.turn.is_upstreams, "its upstream counts"


async def test_a_long_conversation_is_joined_beside_the_loop(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    beside = engine.targets.beside
    do = beside.do
    monkeypatch.setattr(beside, "do", lambda work, caller: done.append(caller) or do(work, caller))
    engine.store.responses.keep(ANONYMOUS, kept())
    await read(engine, {"previous_response_id": RESPONSE, "input": "on"})
    assert not done
    await read(engine, {"previous_response_id": RESPONSE, "input": "x" * LIMITS.checked_bytes})
    assert done == [ANONYMOUS]


LONG = {**SAID, "content": [{"type": "output_text", "text": "x" * 2 * LIMITS.checked_bytes}]}


async def test_what_is_kept_counts_for_the_limits_as_if_the_client_had_sent_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.limits = limits = ServerLimits(LimitSettings(upload_bytes=1_000_000))
    counted: list[int] = []
    beside = engine.targets.beside
    do = beside.do
    monkeypatch.setattr(beside, "do", lambda work, caller: counted.append(limits.uploading) or do(work, caller))
    long = kept(RESPONSE, "", LONG)
    engine.store.responses.keep(ANONYMOUS, long)
    engine.store.responses.keep(ANONYMOUS, kept("resp_short"))
    size = len(long.input) + len(long.response)
    for body in (
        {"previous_response_id": RESPONSE, "input": "on"},
        {"input": [{"type": "item_reference", "id": SAID["id"]}]},
    ):
        await read(engine, body)
        assert (counted.pop(), counted, limits.uploading) == (size, [], 0)
        limits.begin_upload(1_000_000 - size + 1)
        with pytest.raises(Overloaded) as refused:
            await read(engine, body)
        assert (refused.value.reason, counted) == ("upload", [])
        limits.end_upload(1_000_000 - size + 1)
        limits.is_short_of_memory = True
        with pytest.raises(Overloaded) as refused:
            await read(engine, body)
        assert (refused.value.reason, counted) == ("memory", []), "it is not parsed for a refusal"
        limits.is_short_of_memory = False
    limits.is_short_of_memory = True
    await read(engine, {"previous_response_id": "resp_short", "input": "on"})


# ---- the whole body --------------------------------------------------------------------------------------------------


def test_the_whole_body_is_the_clients_with_all_items_in_its_place() -> None:
    body = {"model": "m", "previous_response_id": RESPONSE, "input": "on", "store": True}
    own = [{"role": "user", "content": "on"}]
    found = whole(body, b"{}", NOTHING._replace(turns=[kept()], parent=RESPONSE, own=own))
    assert list(found.body.items()) == [("model", "m"), ("input", [USER, SAID, *own]), ("store", True)]
    assert found.unknown == {"model": "m", "store": True, "input": own}
    assert body["input"] == "on", "a copy"
    without = whole({"previous_response_id": RESPONSE}, b"{}", NOTHING._replace(turns=[kept()], parent=RESPONSE))
    assert without.body == {"input": [USER, SAID]}


def test_a_body_of_which_nothing_is_kept_is_the_clients_own() -> None:
    body = {"previous_response_id": "resp_theirs", "input": "on"}
    found = whole(body, b"{}", NOTHING._replace(is_upstreams=True, own=[USER]))
    assert found.body is found.unknown is body
    assert found.turn == Turn("", [USER], is_upstreams=True)


@pytest.mark.parametrize("brackets", [0, LIMITS.turn_containers])
def test_objects_and_arrays_are_counted_and_what_a_response_repeats_is_not(brackets: int) -> None:
    answer = kept(
        RESPONSE, "", {**SAID, "content": [{"type": "output_text", "text": "[" * brackets}]}, tools=[[]] * brackets
    )
    raw = b'{"input":[{}]}'
    found = whole({"input": []}, raw, NOTHING._replace(turns=[answer], parent=RESPONSE, own=[USER]))
    exact = 1 + 1 + 3 + 1
    assert found.containers == exact if brackets else found.containers >= exact
    assert CheckedBody(raw).containers == 0


def test_a_replaced_item_is_marked_with_its_provider() -> None:
    own = [{"id": "ws_1"}, USER, {"id": "ws_1"}]
    named = references(own)
    found = whole(
        {"input": own}, b"{}", NOTHING._replace(own=own, named=named, holding={"ws_1": kept(RESPONSE, "", SEARCH)})
    )
    assert found.body == {"input": [SEARCH, USER, SEARCH]}
    assert [(mark.place, mark.provider) for mark in found.marks] == [(0, "openai"), (2, "openai")]
    assert found.unknown == {"input": [USER]}
    assert own[0] == {"id": "ws_1"}, "a copy"


def test_a_turn_that_names_an_item_of_an_upstreams_is_not_kept() -> None:
    own = [{"type": "item_reference", "id": "msg_theirs"}, USER]
    asked = NOTHING._replace(own=own, named=references(own), may_go_up=True)
    found = whole({"input": own}, b"{}", asked)
    assert found.turn == Turn("", own, is_upstreams=True)
    assert found.body["input"] is own


def test_one_item_that_is_named_often_counts_each_time(change_limits: ChangeLimits) -> None:
    item = {**SAID, "content": [{"type": "output_text", "text": "x" * 1000}]}
    change_limits(kept_items=9 * len(encode_json(item)))
    answer = kept(RESPONSE, "", item)
    identifier = SAID["id"]

    def of(number: int) -> WholeRequest:
        own = [{"type": "item_reference", "id": identifier}] * number
        asked = NOTHING._replace(own=own, named=references(own), holding={identifier: answer})
        return whole({"input": own}, b"{}", asked)

    assert len(of(9).body["input"]) == 9
    with pytest.raises(ContextLengthExceeded) as refused:
        of(10)
    assert refused.value.reason == "conversation"


def test_an_item_of_many_values_that_is_named_often_is_not_walked_at_each_place(change_limits: ChangeLimits) -> None:
    change_limits(translated_containers=50)
    item = {**SAID, "content": [{"type": "output_text", "text": "x", "annotations": [[]] * 20}]}
    own = [{"type": "item_reference", "id": SAID["id"]}] * 1000
    asked = NOTHING._replace(own=own, named=references(own), holding={SAID["id"]: kept(RESPONSE, "", item)})
    found = whole({"input": own}, b"{}", asked)
    assert found.containers == 51, "one above what a translation may have"
