"""`server/requests/keeping.py`: which answers are kept, and what of them; tests/integration has how they end."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.model.settings import ModelSettings, ResponsesSettings, UpstreamSettings
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.server.requests.chains import Turn
from gai_fast.server.requests.keeping import AnswerKeeping, keeping_of
from gai_fast.server.requests.newest import Newest
from gai_fast.stores.health import Health
from gai_fast.stores.responses import KeptResponse, KeptResponses
from tests.unit.formats.responses_reader import RESPONSE_ID, RESPONSES
from tests.unit.formats.streams import DONE, START, context, finish, text

BODY: dict[str, Any] = {"model": "m", "input": "Hi"}
MODEL = ModelSettings("m", UpstreamSettings("up", "openai", "http://127.0.0.1:9/v1"), "x")


def responses(*, store: bool = True) -> KeptResponses:
    made = KeptResponses(None, Health(time.monotonic), time.monotonic)
    made.use(ResponsesSettings(store=store))
    return made


def of(body: dict[str, Any], *, turn: Turn | None = None, store: bool = True, newest: Newest | None = None) -> Any:
    return keeping_of(responses(store=store), "ann", get_format("responses").read_request(body), turn, newest)


@pytest.mark.parametrize("member", [{}, {"store": True}, {"store": None}, {"background": True}, {"conversation": None}])
def test_answers_are_kept_unless_their_client_says_no(member: dict[str, Any]) -> None:
    assert of({**BODY, **member}).answer.is_kept


@pytest.mark.parametrize("member", [{"store": False}, {"previous_response_id": "resp_theirs"}])
def test_others_say_what_their_upstream_says(member: dict[str, Any]) -> None:
    assert of({**BODY, **member}) is None


def test_a_request_without_input_is_kept_with_no_items() -> None:
    # OpenAI answers a stored `prompt` alone.
    for body in ({"model": "m", "prompt": {"id": "pmpt_1"}}, {"model": "m", "input": None}):
        keeping = of(body)
        assert keeping.answer.is_kept
        assert keeping._own.text == b"[]"


def test_what_is_not_kept_says_so_where_the_upstream_may_say_otherwise() -> None:
    assert not of({**BODY, "conversation": "conv_1"}).answer.is_kept
    assert not of(BODY, store=False).answer.is_kept
    assert of({**BODY, "store": False}, store=False) is None


def test_the_parent_is_said_though_nothing_is_kept() -> None:
    answer = of({**BODY, "store": False}, turn=Turn("resp_1", [], False)).answer
    assert (answer.is_kept, answer.parent) == (False, "resp_1")
    assert of(BODY, turn=Turn("", [], False)).answer.parent is None


def test_the_turns_before_are_held_for_a_connection_alone() -> None:
    before = KeptResponse("resp_1", "", "completed", b"[]", b"{}")
    turn = Turn("resp_1", [], False, (before,))
    assert of(BODY, turn=turn)._before == ()
    assert of(BODY, turn=turn, newest=Newest())._before == (before,)


def ended(keeping: AnswerKeeping, *, is_left: bool = False, is_refused: bool = False) -> Any:
    """Ends an answer; returns what its end waits for."""
    stream = context(kept=keeping.answer)
    encoder = RESPONSES.encoder("sse", stream)
    for event in (START, text("Hello"), *(() if is_left else (finish(), DONE))):
        encoder.event(event)
    spec = StreamSpec(MODEL, {}, encoder)
    return keeping.ended(spec, is_left=is_left, is_refused=is_refused)


@pytest.mark.parametrize("is_left", [False, True])
async def test_what_is_kept(is_left: bool) -> None:
    own = [{"role": "user", "content": "Hi", "id": "msg_theirs"}]
    kept = responses()
    asked = get_format("responses").read_request({**BODY, "input": [{"role": "user", "content": "before"}, *own]})
    keeping = keeping_of(kept, "ann", asked, Turn("resp_1", own, False))
    assert keeping is not None
    assert ended(keeping, is_left=is_left) is None  # in memory nothing is waited for
    found = await kept.find("ann", RESPONSE_ID)
    assert found is not None
    assert (found.identifier, found.parent) == (RESPONSE_ID, "resp_1")
    assert found.status == ("cancelled" if is_left else "completed")
    assert json.loads(found.input) == own
    response = json.loads(found.response)
    assert (response["id"], response["store"], response["previous_response_id"]) == (RESPONSE_ID, True, "resp_1")
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert found.provider == "openai"
    assert set(await kept.holding("ann", ["msg_theirs", response["output"][0]["id"]])) == {
        "msg_theirs",
        response["output"][0]["id"],
    }
    assert await kept.find("bob", RESPONSE_ID) is None


@pytest.mark.parametrize("identifier", ["x" * 129, "resp/1", "resp_1\n", "r\u00e9sp", "resp_1="])
async def test_an_answer_that_no_request_may_name_is_not_kept_and_says_so(identifier: str) -> None:
    kept = responses()
    keeping = keeping_of(kept, "ann", get_format("responses").read_request(BODY))
    assert keeping is not None
    keeping.answer.leave(identifier, "completed", b"{}", [], b"piece", lambda _: b"without")
    spec = StreamSpec(MODEL, {}, RESPONSES.encoder("sse", context(kept=keeping.answer)))
    assert keeping.ended(spec, is_left=False, is_refused=False) is None
    assert keeping.last([b"before", keeping.answer.piece]) == [b"before", b"without"]
    assert await kept.find("ann", identifier) is None


async def test_items_are_found_by_ids_that_a_request_may_name_alone() -> None:
    kept = responses()
    ids = ["fc_1", "x" * 128, "x" * 129, "", "a b"]
    own = [{"role": "user", "content": "Hi", "id": each} for each in ids]
    keeping = keeping_of(kept, "ann", get_format("responses").read_request({**BODY, "input": own}))
    assert keeping is not None
    ended(keeping)
    assert [*await kept.holding("ann", ids)] == ids[:2]


async def test_a_refused_answer_is_not_kept() -> None:
    kept = responses()
    keeping = keeping_of(kept, "ann", get_format("responses").read_request(BODY))
    assert keeping is not None
    ended(keeping, is_refused=True)
    assert await kept.find("ann", RESPONSE_ID) is None


class Asked(KeptResponses):
    """Answers later."""

    def __init__(self) -> None:
        super().__init__(None, Health(time.monotonic), time.monotonic)
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def keep(self, caller: str, kept: KeptResponse, *, is_accepted: bool = True) -> asyncio.Future[bool]:
        return self.answer


@pytest.mark.parametrize("outcome", [True, False, None, RuntimeError("a bug")])
async def test_the_last_object_says_what_has_become_of_it(outcome: Any) -> None:
    kept = Asked()
    keeping = keeping_of(kept, "ann", get_format("responses").read_request(BODY))
    assert keeping is not None
    waited = ended(keeping)
    pieces = [b"before", keeping.answer.piece]
    if outcome is None:
        kept.answer.cancel()
    elif isinstance(outcome, Exception):
        kept.answer.set_exception(outcome)
    else:
        kept.answer.set_result(outcome)
    await asyncio.wait([waited])
    first, last = keeping.last(pieces)
    assert first == b"before"
    assert json.loads(bytes(last).partition(b"data: ")[2])["response"]["store"] is (outcome is True)
    if outcome is True:
        assert last is keeping.answer.piece


async def test_a_connection_remembers_what_is_not_kept_either() -> None:
    newest = Newest()
    first = KeptResponse("resp_1", "", "completed", b'[{"role":"user","content":"first"}]', b"{}")
    turn = Turn("resp_1", [{"role": "user", "content": "then"}], False, [first])
    body = {**BODY, "input": [{"role": "user", "content": "first"}, *turn.own], "store": False}
    keeping = of(body, turn=turn, newest=newest)
    ended(keeping)
    turns = newest.find(RESPONSE_ID)
    assert turns is not None
    assert turns[0] == first._replace(response=b'{"output":[]}')
    assert (turns[1].identifier, json.loads(turns[1].input), len(turns)) == (RESPONSE_ID, turn.own, 2)
    assert json.loads(turns[1].response)["output"][0]["type"] == "message"
