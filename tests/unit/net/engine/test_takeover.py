"""`gai_fast/net/engine/takeover.py`: which streams of lost workers go on, from which record, and how."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from typing import Any

import msgspec
import pytest

from gai_fast.core.processing.processor import StreamInfo
from gai_fast.core.requests.reading import parse_request
from gai_fast.core.session import NamedSession
from gai_fast.core.transcript import Repetition
from gai_fast.formats import StreamContext, get_format
from gai_fast.guards.outcomes import safety
from gai_fast.ledger import Demand, Reservation
from gai_fast.model.errors import Error
from gai_fast.model.settings import (
    ANONYMOUS,
    GuardSettings,
    KeyLimits,
    KeySettings,
    LimitSettings,
    Settings,
    SpendLimit,
    StoreSettings,
    StreamSettings,
)
from gai_fast.net.attempts.records import RouteRecord, RunRecord
from gai_fast.net.attempts.spec import Clock, StreamSpec
from gai_fast.net.engine import takeover
from gai_fast.net.engine.engine import Engine
from gai_fast.net.engine.takeover import KeyHome
from gai_fast.net.logs.view import Representation, view_of
from gai_fast.net.runs.records.records import AskedApproval
from gai_fast.otel.telemetry import Telemetry
from gai_fast.otel.trace import Trace
from gai_fast.runtime.clock import now_ms
from gai_fast.server.admission.server_limits import ServerLimits
from gai_fast.stores import LogHeader, StreamLog
from gai_fast.stores._base import EndsInstead, GoesOn, NoRoom, NotYet, TakeOver, data_lines
from gai_fast.stores.backend import Owner
from tests.conftest import ChangeLimits
from tests.unit.net.engine.test_durable import resumable
from tests.unit.net.engine.test_targets import MODEL, UPSTREAM
from tests.unit.net.fakes import FakeClient, FakeExchange, FakePool
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("pools")

SSE = {"content-type": "text/event-stream"}
START = {"type": "start", "model": "m", "provider": "p", "stream_id": "s1"}
LONG = "a text that is long enough, and more"
NUMBER = 1 << 20
TAKEN = TakeOver("former", "here", 2, 0.5)


class Recorder:
    """Takes nothing."""

    def put(self, spans: bytes, count: int) -> None: ...

    def observe(self, instrument: Any, labels: Any, value: float) -> None: ...

    def new_span_id(self) -> str:
        return "cd" * 8


def engine_with(wish: Any = "continue", processors: Any = (), store: str = "memory://", **model: Any) -> Engine:
    stream = StreamSettings(on_midstream_failure=wish, on_disconnect="cancel")
    named = dataclasses.replace(MODEL, stream=stream, **model)
    settings = Settings(models={"m": named}, processors=processors, store=StoreSettings(store))
    return Engine(settings, asyncio.get_running_loop())


def text(value: str) -> dict[str, Any]:
    return {"type": "text.delta", "text": value}


def logged(engine: Engine, *events: dict[str, Any], **header: Any) -> StreamLog:
    fields = {"stream_id": "s1", "caller": "", "model": "m", "format": "gai", "framing": "sse", **header}
    log = engine.store.create(LogHeader(**fields))
    encoder = get_format("gai").encoder("sse", StreamContext("s1", "r", None, "m", lambda: 1, ids=True))
    for seq, event in enumerate(events, 1):
        encoder.event(event)
        log.append(encoder.take(), seq)
    return log


def record(engine: Engine, body: bytes = b'{"query":"hi"}', **more: Any) -> bytes:
    kept = engine.takeovers.record_of(dataclasses.replace(resumable(), request=parse_request(body), **more))
    assert kept is not None
    return kept


async def begin(engine: Engine, log: StreamLog, epoch: int = 1, kept: bytes | None = None) -> None:
    """Goes on with a stream."""
    found = await engine.takeovers.going_on(log, Owner("lost", epoch), log.last_seq + NUMBER, kept or record(engine))
    assert isinstance(found, GoesOn)
    found.begin(TAKEN)


def pay(euros: int) -> str:
    return f"paid {euros}"


async def gone_on(
    engine: Engine, log: StreamLog, kept: bytes | None = None, **more: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Goes on with a stream; returns the new events of its log, and the request."""
    await begin(engine, log, kept=kept or record(engine, **more))
    await until(lambda: bool(FakePool.made and FakePool.made[0].asked))
    pool = FakePool.made[0]
    return events_of(log), json.loads(pool.asked[0][3])


def events_of(log: StreamLog) -> list[dict[str, Any]]:
    return [json.loads(data) for piece in log.read(0, 10**9).pieces for data in data_lines(piece)]


def answer(engine: Engine, *pieces: str) -> None:
    """Plays the upstream's answer."""
    receiver = FakePool.made[0].asked[-1][4]
    receiver.head_received(200, SSE)
    for piece in pieces:
        chunk = {"choices": [{"index": 0, "delta": {"content": piece}}]}
        receiver.body_received(f"data: {json.dumps(chunk)}\n\n".encode())
    receiver.body_received(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')


# ---- the record ------------------------------------------------------------------------------------------------------


async def test_a_record_has_the_request_and_no_credential() -> None:
    engine = engine_with()
    kept = record(engine, '{"query":"ä","extra":{"a":1.10},"temperature":1}'.encode())
    assert json.loads(kept)["request"]["query"] == "ä"
    assert b"sk-canary" not in kept
    await engine.close()


@pytest.mark.parametrize(
    "change",
    [
        {"log_header": None},
        {"request": {"messages": []}},
        {"log_header": LogHeader("s1", "", "m", "openai", "sse")},
        {"request": parse_request(b'{"query":"hi","extra":{"a":"%b"}}' % (b"x" * 99_999))},
        {"credential": object()},
        {"model": dataclasses.replace(MODEL, upstream=dataclasses.replace(UPSTREAM, provider="python:m:f"))},
    ],
    ids=[
        "no log",
        "a dialect",
        "another log",
        "too long",
        "a credential",
        "functions",
    ],
)
async def test_a_stream_that_no_other_worker_could_go_on_with_has_no_record(
    change: dict[str, Any], change_limits: ChangeLimits
) -> None:
    change_limits(takeover_request=50_000)
    engine = engine_with()
    assert engine.takeovers.record_of(resumable()) is not None
    assert engine.takeovers.record_of(dataclasses.replace(resumable(), **change)) is None
    await engine.close()


GUARDED = """{"messages":[{"role":"system","content":"ä \\ud83d\\ude00"},{"role":"user","content":[
    {"type":"text","text":"mail joe@example.com, <EMAIL_1> pay DE89370400440532013000"}]}],"temperature":1,"top_p":0.30,
    "extra":{"a":1.10,"b":12345678901234567890123}}""".encode()


@pytest.mark.parametrize("kinds", [("email",), ("iban",), ("email", "iban"), ()])
async def test_the_new_owners_provider_gets_what_was_sent_whatever_its_guards_hide(kinds: tuple[str, ...]) -> None:
    engine = engine_with()
    guard = GuardSettings("pii", "pii", kinds=("email",), restore=True, on=("input", "output"))
    engine.use(dataclasses.replace(engine.settings, guards=(guard,)))
    request, let = await engine.guarding.let_through(parse_request(GUARDED), StreamInfo("s1", model="m"))
    kept = engine.takeovers.record_of(dataclasses.replace(resumable(), request=request, let=let))
    assert kept is not None
    assert json.loads(kept)["own"] == {"<EMAIL_2>": "joe@example.com"}
    other = () if not kinds else (dataclasses.replace(guard, kinds=kinds),)
    engine.use(dataclasses.replace(engine.settings, guards=other))
    log = logged(engine, START)
    await begin(engine, log, kept=kept)
    await until(lambda: bool(FakePool.made and FakePool.made[0].asked))
    asked = FakePool.made[0].asked[0][3]
    assert b"joe@example.com" not in asked
    assert b"<EMAIL_2>, <EMAIL_1> pay" in asked
    answer(engine, "to <EMA", "IL_2>, not <EMAIL_1>")
    said = [each["text"] for each in events_of(log) if each["type"] == "text.delta"]
    assert "".join(said) == "to joe@example.com, not <EMAIL_1>"
    await engine.close()


@pytest.mark.parametrize(
    "more",
    [
        {"extra": {"mcp_servers": [{"url": "https://x", "authorization_token": "t"}]}},
        {"provider_options": {"openai": {"api_key": "t"}}},
        {"extra": {"note": "x" * 16_384}},
    ],
)
async def test_a_request_with_a_secret_for_its_provider_stays_with_its_worker(more: dict[str, Any]) -> None:
    engine = engine_with()
    request = parse_request(json.dumps({"query": 'say "token": x', **more}).encode())
    assert engine.takeovers.record_of(dataclasses.replace(resumable(), request=request)) is None
    plain = parse_request(b'{"query":"say \\"token\\": x","extra":{"max_tokens":1,"note":"\\"token\\": x"}}')
    assert engine.takeovers.record_of(dataclasses.replace(resumable(), request=plain)) is not None
    await engine.close()


@pytest.mark.parametrize("body", [{"messages": [], "api_key": "canary"}, {"messages": []}])
async def test_a_body_is_searched_as_it_was_read(body: dict[str, Any]) -> None:
    """A body of 15 MB takes half a second to be read again."""
    engine = engine_with()
    route = RouteRecord("openai", msgspec.Raw(b"not read"), {})
    spec = dataclasses.replace(resumable(), recorded=lambda: (route, body))
    assert (engine.takeovers.record_of(spec) is None) == ("api_key" in body)


@pytest.mark.parametrize(
    ("url", "takeover", "keeps"), [("memory://", True, False), ("sqlite", True, True), ("sqlite", False, False)]
)
async def test_only_a_store_outside_keeps_records(tmp_path: Any, url: str, takeover: bool, keeps: bool) -> None:
    url = f"sqlite:///{tmp_path}/s.db" if url == "sqlite" else url
    engine = Engine(Settings(store=StoreSettings(url, takeover=takeover)), asyncio.get_running_loop())
    assert engine.durable.record_of is not None
    assert (engine.store.keeps_requests, engine.durable.record_of(resumable()) is not None) == (keeps, keeps)
    await engine.close()


# ---- what goes on ----------------------------------------------------------------------------------------------------


async def test_a_long_text_is_a_prefill() -> None:
    engine = engine_with(prefill=True)
    log = logged(engine, START, text(LONG))
    events, asked = await gone_on(engine, log)
    assert [(each["type"], each.get("seq")) for each in events[2:]] == [
        ("stream.gap", 2 + NUMBER),
        ("warning", 3 + NUMBER),
    ]
    assert (events[2]["text"], events[2]["from"], events[2]["reason"]) == (LONG, 3, "taken_over")
    assert asked["messages"][-1] == {"role": "assistant", "content": LONG}
    answer(engine, " to say")
    assert [(each["type"], each.get("text")) for each in events_of(log)[4:5]] == [("text.delta", " to say")]
    finish = events_of(log)[-2]
    assert (finish["type"], finish["continued"]) == ("finish", "prefill")
    assert log.ending is not None
    assert log.ending.state == "finished"
    await engine.close()


async def test_a_short_text_is_compared_although_the_model_takes_a_prefill() -> None:
    engine = engine_with(prefill=True)
    log = logged(engine, START, text("Hel"), text("lo"))
    _, asked = await gone_on(engine, log)
    assert [each["role"] for each in asked["messages"]] == ["user"]
    answer(engine, "Hello", " you")
    assert [each.get("text") for each in events_of(log) if each["type"] == "text.delta"] == ["Hel", "lo", " you"]
    assert events_of(log)[-2]["continued"] == "verified"
    await engine.close()


async def test_a_call_in_progress_is_compared_and_keeps_the_id_that_the_client_has() -> None:
    engine = engine_with(prefill=True)
    called = {"type": "tool.call.start", "index": 0, "call_id": "first", "tool_call": {"name": "f"}}
    part = {"type": "tool.call.delta", "index": 0, "call_id": "first", "arguments": '{"a"'}
    log = logged(engine, START, called, part)
    _, asked = await gone_on(engine, log)
    assert [each["role"] for each in asked["messages"]] == ["user"]
    receiver = FakePool.made[0].asked[-1][4]
    receiver.head_received(200, SSE)
    call = {"index": 0, "id": "second", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    for delta in ({"tool_calls": [call]}, {}):
        finish = None if delta else "tool_calls"
        chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        receiver.body_received(f"data: {json.dumps(chunk)}\n\n".encode())
    receiver.body_received(b"data: [DONE]\n\n")
    *_, last, whole, finish_event, _ = events_of(log)
    assert (last["type"], last["call_id"], last["arguments"]) == ("tool.call.delta", "first", ":1}")
    assert (whole["type"], whole["call_id"], whole["tool_call"]["input"]) == ("tool.call", "first", {"a": 1})
    assert finish_event["finish_reason"] == "tool_calls"
    await engine.close()


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ((), ["stream.gap", "start", "warning", "text.delta", "finish", "done"]),
        ((START,), ["start", "stream.gap", "stream.reset", "start", "warning", "text.delta", "finish", "done"]),
        (
            (START, text("void"), {"type": "stream.reset", "reason": "network"}),
            ["start", "text.delta", "stream.reset", "stream.gap", "start", "warning", "text.delta", "finish", "done"],
        ),
    ],
    ids=["nothing", "a start", "a reset"],
)
@pytest.mark.parametrize("wish", ["error", "continue", "restart"])
async def test_without_content_the_request_is_asked_again_whatever_the_model_wishes(
    wish: str, said: tuple[dict[str, Any], ...], kinds: list[str]
) -> None:
    engine = engine_with(wish)
    log = logged(engine, *said)
    await gone_on(engine, log)
    answer(engine, "new")
    events = events_of(log)
    assert [each["type"] for each in events] == kinds
    numbered = [each["seq"] for each in events if "seq" in each]
    assert numbered == sorted({*numbered})
    assert log.ending is not None
    assert log.ending.state == "finished"
    await engine.close()


@pytest.mark.parametrize("name", ["gai", "openai"])
async def test_a_whole_answer_is_asked_for_again(name: str) -> None:
    engine = engine_with("error")
    log, client = logged(engine, format=name, framing="json"), FakeClient()
    follower = engine.durable.await_answer(log, client, is_first=False)
    follower.begin()
    kept = record(engine, hold=True, log_header=log.header)
    await gone_on(engine, log, kept)
    publication = engine.durable.publication("s1")
    assert publication is not None
    assert publication.followers == 1
    answer(engine, "Hel", "lo")
    assert log.last_seq == NUMBER
    *_, (end, piece) = client.calls
    assert end == "end"
    assert b'"Hello"' in piece
    assert log.ending is not None
    assert log.ending.state == "finished"
    await engine.close()


async def test_a_whole_answer_that_is_stored_is_not_asked_for_again() -> None:
    engine = engine_with()
    log = logged(engine, framing="json")
    log.append(b"{}", 1)
    kept = record(engine, hold=True, log_header=log.header)
    assert await engine.takeovers.going_on(log, Owner("lost", 1), NUMBER, kept) == EndsInstead()
    await engine.close()


async def test_the_provider_gets_the_name_of_the_session_from_the_new_owner_too() -> None:
    engine = engine_with()
    session = NamedSession("chat-7", "0" * 16)
    await gone_on(engine, logged(engine), record(engine, session=session, is_large=True))
    spec = engine.streams["s1"].spec
    assert (spec.session, spec.is_large) == (session, True)
    await engine.close()


async def test_a_large_log_is_read_beside_the_loop(change_limits: ChangeLimits) -> None:
    change_limits(takeover_turn=0)
    engine = engine_with()
    reasoned = {"type": "reasoning.delta", "text": "Hm"}
    log = logged(engine, START, reasoned, reasoned, *[text(each) for each in "Hello"], {"type": "usage"})
    await gone_on(engine, log)
    receiver = FakePool.made[0].asked[-1][4]
    receiver.head_received(200, SSE)
    for delta in ({"reasoning_content": "HmHm"}, {"content": "Hel"}, {"content": "lo you"}):
        receiver.body_received(f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n".encode())
    assert (events_of(log)[-1]["type"], events_of(log)[-1]["text"]) == ("text.delta", " you")
    await engine.close()


# ---- processors ------------------------------------------------------------------------------------------------------

HIDES = {"use": "transform", "replace": {"secret": "*"}}
JOINS = {"use": "batch", "characters": 5, "milliseconds": 10_000}


async def test_an_answer_runs_through_new_processors_and_what_they_send_is_compared() -> None:
    engine = engine_with(processors=(HIDES,), prefill=True)
    log = logged(engine, START, text("my * is, for as long as I live, m"))
    _, asked = await gone_on(engine, log)
    assert [each["role"] for each in asked["messages"]] == ["user"], "the upstream does not know its own text"
    answer(engine, "my sec", "ret is, for as long as I", " live, my secret", " se", "crets")
    *_, finish, done = events_of(log)
    said = [each["text"] for each in events_of(log) if each["type"] == "text.delta"]
    assert "".join(said) == "my * is, for as long as I live, my * *s"
    assert [each["type"] for each in events_of(log)][:4] == ["start", "text.delta", "stream.gap", "warning"]
    assert (finish["continued"], finish["finish_reason"], done["type"]) == ("verified", "stop", "done")
    numbered = [each["seq"] for each in events_of(log) if "seq" in each]
    assert numbered == sorted({*numbered})
    await engine.close()


@pytest.mark.parametrize("pieces", [("my secret", " was"), ("my",), ()], ids=["another text", "less", "nothing"])
async def test_an_answer_that_processors_do_not_repeat_is_that_of_a_lost_worker(pieces: tuple[str, ...]) -> None:
    engine = engine_with(processors=(HIDES,))
    log = logged(engine, START, text("my * is"))
    await gone_on(engine, log)
    answer(engine, *pieces)
    kinds = ["start", "text.delta", "stream.gap", "warning", "error", "done"]
    assert [each["type"] for each in events_of(log)] == kinds
    assert events_of(log)[-2]["error"]["reason"] == "worker_lost"
    await engine.close()


async def test_a_stream_whose_repetition_is_cancelled_ends_with_nothing_of_it() -> None:
    engine = engine_with(processors=(HIDES,))
    log = logged(engine, START, text("my * is"))
    await gone_on(engine, log)
    receiver = FakePool.made[0].asked[-1][4]
    receiver.head_received(200, SSE)
    receiver.body_received(b'data: {"choices":[{"index":0,"delta":{"content":"my s"}}]}\n\n')
    engine.cancel("s1")
    assert [each["type"] for each in events_of(log)] == [
        *("start", "text.delta", "stream.gap", "warning", "finish", "done")
    ]
    assert events_of(log)[-2]["finish_reason"] == "cancelled"
    await engine.close()


async def test_a_prefill_passes_processors_that_read_no_delta() -> None:
    engine = engine_with(processors=({"use": "correlation"},), prefill=True)
    log = logged(engine, START, text(LONG))
    _, asked = await gone_on(engine, log)
    assert asked["messages"][-1] == {"role": "assistant", "content": LONG}
    answer(engine, " to say")
    assert events_of(log)[-2]["continued"] == "prefill"
    await engine.close()


@pytest.mark.parametrize("said", [(), (START, text("Hel"))], ids=["nothing", "a text"])
async def test_joined_deltas_have_numbers_behind_those_of_the_lost_worker(said: tuple[dict[str, Any], ...]) -> None:
    engine = engine_with(processors=(JOINS,))
    log = logged(engine, *said)
    await gone_on(engine, log)
    answer(engine, "Hel", "lo", " y", "ou")
    events = events_of(log)
    assert "".join(each["text"] for each in events if each["type"] == "text.delta") == "Hello you"
    numbered = [each["seq"] for each in events if "seq" in each]
    assert numbered == sorted({*numbered})
    firsts = [each["from_seq"] for each in events if "from_seq" in each]
    assert firsts
    assert all(first > log.header.is_numbered + NUMBER for first in firsts)
    await engine.close()


async def test_snapshots_of_what_a_client_has_are_left_out() -> None:
    engine = engine_with()
    request = b'{"query":"hi","response_format":{"type":"json"},"json_snapshots":1}'
    snapshot = {"type": "json.snapshot", "json": {"a": 1}}
    log = logged(engine, START, text('{"a":1,'), snapshot)
    await gone_on(engine, log, record(engine, request))
    answer(engine, '{"a"', ":1", ',"b":', "2}")
    new = [each.get("text") or each.get("json") for each in events_of(log)[5:-2]]
    assert new == ['"b":', {"a": 1}, "2}", {"a": 1, "b": 2}]
    await engine.close()


async def test_each_finding_of_a_guard_is_sent_once() -> None:
    failure = Error("network", reason="worker_lost")
    repetition = Repetition(failure)
    finding = safety("g", "flag", "c", "output", score=0.5)
    for event in (text("one two"), finding):
        repetition.recall(event)
    repetition.begin()
    assert repetition.take({"type": "start"}) is None
    assert repetition.take(safety("g", "flag", "c", "output", score=0.6)) is None
    assert repetition.take(finding) == finding, "a second one, which the client does not have"
    assert repetition.take(text("one")) is None
    assert repetition.take({"type": "warning"}) is None
    assert repetition.take(text(" two three")) == text(" three")
    assert repetition.take({"type": "warning"}) == {"type": "warning"}


async def test_a_void_text_needs_no_repetition() -> None:
    engine = engine_with(processors=(HIDES,))
    log = logged(engine, START, text("void"), {"type": "stream.reset", "reason": "network"})
    await gone_on(engine, log)
    answer(engine, "secret")
    assert [each.get("text") for each in events_of(log) if each["type"] == "text.delta"] == ["void", "*"]
    assert log.ending is not None
    assert log.ending.state == "finished"
    await engine.close()


async def test_a_restart_is_in_the_log_whatever_the_format_of_its_first_client_can_say() -> None:
    engine = engine_with("restart")
    log = logged(engine, START, text(LONG), dialect="openai")
    await gone_on(engine, log, can_reset=False)
    answer(engine, "new")
    kinds = [each["type"] for each in events_of(log)]
    assert kinds[2:5] == ["stream.gap", "stream.reset", "start"]
    assert log.ending is not None
    assert log.ending.state == "finished"
    await engine.close()


async def test_a_restart_runs_through_new_processors_too() -> None:
    engine = engine_with("restart", processors=(HIDES, JOINS))
    log = logged(engine, START, text("void"))
    await begin(engine, log, kept=record(engine, can_reset=True))
    await until(lambda: bool(FakePool.made and FakePool.made[0].asked))
    answer(engine, "se", "cret", "s")
    events = events_of(log)
    assert [each["type"] for each in events[2:6]] == ["stream.gap", "stream.reset", "start", "warning"]
    assert "".join(each["text"] for each in events[6:-2]) == "*s"
    numbered = [each["seq"] for each in events if "seq" in each]
    assert numbered == sorted({*numbered})
    await engine.close()


@pytest.mark.parametrize(
    "why",
    [
        "a fourth worker",
        "an unknown model",
        "a lost beginning",
        "its end",
        "a damaged record",
        "the model's wish",
    ],
)
async def test_what_cannot_go_on_is_closed(why: str) -> None:
    engine = engine_with("error" if why == "the model's wish" else "continue")
    ends = [{"type": "finish", "finish_reason": "stop"}] if why == "its end" else []
    log = logged(engine, START, text(LONG), *ends, model="other" if why == "an unknown model" else "m")
    if why == "a lost beginning":
        log.trim(0)
    kept = b'{"request":{"query":1}}' if why == "a damaged record" else record(engine)
    epoch = 4 if why == "a fourth worker" else 3
    assert await engine.takeovers.going_on(log, Owner("lost", epoch), log.last_seq + NUMBER, kept) == EndsInstead()
    await engine.close()


async def test_a_record_of_a_later_release_is_left_to_its_workers_unless_it_only_has_more() -> None:
    engine = engine_with()
    log, kept = logged(engine, START), json.loads(record(engine))

    async def found(**change: Any) -> GoesOn | EndsInstead:
        changed = json.dumps({**kept, **change}).encode()
        return await engine.takeovers.going_on(log, Owner("lost", 1), 1 + NUMBER, changed)

    assert isinstance(await found(more={"a": 1}), GoesOn)
    for change in ({"version": 5}, {"version": 5, "request": None, "dialect": 7}):
        with pytest.raises(NotYet):
            await found(**change)
    assert await found(version=0) == await found(version="x") == EndsInstead()
    del kept["version"]
    assert await found() == EndsInstead(), "it has own words in place of placeholders"
    await engine.close()


async def test_the_own_items_of_a_request_are_read_with_its_record(change_limits: ChangeLimits) -> None:
    change_limits(takeover_turn=0)  # beside the loop
    engine = engine_with()
    made: list[Any] = []

    def of_route(*arguments: Any) -> Any:
        made.append(arguments[-1])
        raise Error("unsupported", "seen")

    engine.takeovers.of_route = of_route
    items = [{"role": "user", "content": "hi", "id": "mine"}, {"role": "user", "content": "ho"}]
    kept = json.loads(record(engine))
    kept["route"] = {
        "format": "responses",
        "body": {"model": "m", "input": items},
        "headers": {},
        "kept": {"is_kept": True, "parent": None, "input": items},
    }
    found = await engine.takeovers.going_on(
        logged(engine, START), Owner("lost", 1), 1 + NUMBER, json.dumps(kept).encode()
    )
    assert isinstance(found, EndsInstead)
    assert [(json.loads(own.text), own.given) for own in made] == [(items, ["mine"])]
    await engine.close()


async def test_a_log_whose_events_are_none_is_damaged() -> None:
    engine = engine_with()
    log = logged(engine)
    log.append(b'id: s1.1\ndata: {"type":\n\n', 1)
    with pytest.raises(Error) as caught:
        await engine.takeovers.going_on(log, Owner("lost", 1), NUMBER, record(engine))
    assert caught.value.reason == "log_damaged"
    await engine.close()


async def test_a_server_that_is_full_leaves_a_stream_to_others() -> None:
    engine = engine_with()
    engine.limits = ServerLimits(LimitSettings(streams=1))
    engine.transfers["other"] = ("", lambda error: None)
    log = logged(engine, START, text(LONG))
    with pytest.raises(NoRoom):
        await engine.takeovers.going_on(log, Owner("lost", 1), 2 + NUMBER, record(engine))
    engine.transfers.clear()
    await begin(engine, log)
    assert engine.running == 1
    await engine.close()


@pytest.mark.parametrize("limits", [LimitSettings(streams=1), LimitSettings(streams_per_caller=1)])
async def test_a_stream_keeps_its_place_from_its_admission_on(limits: LimitSettings) -> None:
    engine = engine_with()
    engine.limits = server_limits = ServerLimits(limits)
    logs = [logged(engine, START, text(LONG), stream_id=each, caller="anna") for each in ("s1", "s2")]
    kept = keyed(engine)
    found = await engine.takeovers.going_on(logs[0], Owner("lost", 1), 2 + NUMBER, kept)
    assert isinstance(found, GoesOn)
    with pytest.raises(NoRoom):
        await engine.takeovers.going_on(logs[1], Owner("lost", 1), 2 + NUMBER, kept)
    with pytest.raises(Error, match="as many streams"):
        engine.begin_transfer("other", "anna", lambda error: None)
    server_limits.is_short_of_memory = True
    found.begin(TAKEN)
    assert ([*engine.streams], logs[0].is_over) == (["s1"], False)
    server_limits.is_short_of_memory = False
    engine.cancel("s1")
    found = await engine.takeovers.going_on(logs[1], Owner("lost", 1), 2 + NUMBER, kept)
    assert isinstance(found, GoesOn)
    found.withdraw()
    engine.begin_transfer("other", "anna", lambda error: None)
    await engine.close()


@pytest.mark.parametrize("is_large", [False, True])
async def test_what_the_end_of_a_run_says_is_read_once(
    change_limits: ChangeLimits, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    """However often its stream is tried; beside the loop if it is large."""
    if is_large:
        change_limits(takeover_turn=0)
    settings = Settings(models={"m": MODEL}, store=StoreSettings("memory://"))
    engine = Engine(settings, asyncio.get_running_loop(), functions=[pay])
    engine.limits = limits = ServerLimits(LimitSettings(streams=1))
    assert engine.run_tools is not None
    await (await engine.run_tools.desk.records.begin("s1", "", 1)).save(b"state")
    said, read = {"usage": {"total_tokens": 1}, "steps": [{"step": 1}]}, list[tuple[Any, ...]]()

    def told(*given: Any) -> dict[str, Any]:
        read.append((*given, threading.current_thread().name.startswith("gai-fast-beside")))
        return said

    monkeypatch.setattr(takeover, "told_of_state", told)
    kept = record(engine, recorded_run=RunRecord({}, ["own"], 10, 32, 4, False, 60.0, "s1"))
    log = logged(engine, START)
    limits.is_short_of_memory = True
    for _ in range(3):
        with pytest.raises(NoRoom):
            await engine.takeovers.going_on(log, Owner("lost", 1), NUMBER, kept)
    limits.is_short_of_memory = False
    found = await engine.takeovers.going_on(log, Owner("lost", 1), NUMBER, kept)
    assert isinstance(found, GoesOn)
    assert (found.told, read) == (said, [(b"state", ["own"], is_large)])
    found.withdraw()
    again = await engine.takeovers.going_on(log, Owner("lost", 2), NUMBER, kept)
    assert isinstance(again, GoesOn)
    assert len(read) == 2, "it is of another owner"
    again.withdraw()
    assert await engine.takeovers.told_of("s1", record(engine)) == {}, "it is no run"
    assert await engine.takeovers.told_of("s1", b"{") == {}
    await engine.close()


@pytest.mark.parametrize("wish", ["continue", "error"])
async def test_a_stream_waits_for_a_connection_to_its_upstream(wish: Any) -> None:
    """It would end for ever where a new request is told to come again."""
    engine = engine_with(wish)
    first, log = logged(engine, START), logged(engine, START, stream_id="s2")
    assert room(engine) is None
    await begin(engine, first)
    await until(lambda: bool(FakePool.made and FakePool.made[0].asked))
    [pool] = FakePool.made
    pool.stats = dataclasses.replace(pool.stats, open=6, idle=1, connecting=1, pending=0)
    assert room(engine) is None
    assert room(engine, HEADER) is (None if wish == "error" else NotYet), "it may end without one"
    pool.stats = dataclasses.replace(pool.stats, pending=1)
    with pytest.raises(NotYet):
        await engine.takeovers.going_on(log, Owner("lost", 1), log.last_seq + NUMBER, record(engine))
    assert engine.running == 1
    pool.stats = dataclasses.replace(pool.stats, pending=0)
    await begin(engine, log)
    await engine.close()


async def test_a_server_without_room_reads_no_stream() -> None:
    engine = engine_with()
    engine.limits = server_limits = ServerLimits(LimitSettings(streams=1))
    assert room(engine) is None
    server_limits.is_short_of_memory = True
    assert room(engine) is NoRoom
    with pytest.raises(NoRoom):
        await engine.takeovers.going_on(logged(engine, START), Owner("lost", 1), NUMBER, record(engine))
    server_limits.is_short_of_memory = False
    found = await engine.takeovers.going_on(logged(engine, stream_id="s2"), Owner("lost", 1), NUMBER, record(engine))
    assert isinstance(found, GoesOn)
    assert room(engine) is NoRoom
    found.withdraw()
    assert room(engine) is None
    assert server_limits.refused["streams"] == 0
    await engine.close()


class Refusing:
    """Starts no stream."""

    def go_on(self, *asked: Any) -> None:
        raise Error("unsupported", "no")


async def test_a_stream_that_cannot_start_ends_with_that_error() -> None:
    engine = engine_with()
    engine.limits = server_limits = ServerLimits(LimitSettings(streams=1))
    log = logged(engine, START, text(LONG))
    found = await engine.takeovers.going_on(log, Owner("lost", 1), 2 + NUMBER, record(engine))
    assert isinstance(found, GoesOn)
    engine.takeovers._durable = Refusing()
    found.begin(TAKEN)
    assert [each["type"] for each in events_of(log)[2:]] == ["stream.gap", "error", "done"]
    assert log.ending is not None
    assert log.ending.error is not None
    assert log.ending.error["code"] == "unsupported"
    assert server_limits.has_room(0)
    await engine.close()


# ---- keys ------------------------------------------------------------------------------------------------------------

LIMITED = KeySettings("anna", (), limits=KeyLimits(streams=1, requests_per_minute=1, spend=SpendLimit(100, "total")))


def keyed(engine: Engine) -> bytes:
    return record(engine, caller="anna")


async def test_a_stream_of_a_key_takes_a_place_and_a_reservation_and_is_no_further_request() -> None:
    engine = engine_with()
    engine.ledger.use([LIMITED])
    await engine.ledger.take(LIMITED, "s1", Demand(10, Reservation(5, 20)))
    kept = keyed(engine)
    assert json.loads(kept)["reserved"] == [5, 20]
    engine.ledger.settle("s1", 0)
    log = logged(engine, START, text(LONG), caller="anna")
    found = await engine.takeovers.going_on(log, Owner("lost", 1), 2 + NUMBER, kept)
    assert isinstance(found, GoesOn)
    assert engine.ledger.reservations == {"s1": 20}
    with pytest.raises(Error) as refused:
        await engine.ledger.take(LIMITED, "s2")
    assert refused.value.reason == "requests_per_minute"
    found.withdraw()
    assert engine.ledger.reservations == {}
    await begin(engine, log, kept=kept)
    assert engine.streams["s1"].intake.allowance is not None
    engine.cancel("s1")
    assert engine.ledger.reservations == {}
    await engine.close()


@pytest.mark.parametrize("limits", [KeyLimits(streams=1), KeyLimits(spend=SpendLimit(10, "total"))])
async def test_a_stream_whose_key_has_nothing_left_ends_with_that_error(
    limits: KeyLimits, change_limits: ChangeLimits
) -> None:
    engine = engine_with()
    key = KeySettings("anna", (), limits=limits)
    kept = keyed(engine)
    engine.ledger.use([key])
    await engine.ledger.take(key, "another", Demand(0, Reservation(1, 10)))
    log = logged(engine, START, text(LONG), caller="anna")
    for epoch in (1, 1, 2):  # soon after, and after another worker has had it
        with pytest.raises(NotYet):
            await engine.takeovers.going_on(log, Owner("lost", epoch), 2 + NUMBER, kept)
    change_limits(lease_renewal=0)
    found = await engine.takeovers.going_on(log, Owner("lost", 2), 2 + NUMBER, kept)
    assert isinstance(found, EndsInstead)
    assert found.error is not None
    assert (found.error.code, found.error.reason) == ("rate_limited", "streams" if limits.streams else "spend")
    await engine.close()


async def test_a_stream_whose_place_another_worker_had_for_a_moment_goes_on(change_limits: ChangeLimits) -> None:
    change_limits(lease_renewal=0, lease_lost=-1)
    engine = engine_with()
    key = KeySettings("anna", (), limits=KeyLimits(streams=1))
    kept = keyed(engine)
    engine.ledger.use([key])
    await engine.ledger.take(key, "another")
    for stream_id in ("s1", "s2", "s2"):
        with pytest.raises(NotYet):
            log = logged(engine, START, stream_id=stream_id, caller="anna")
            await engine.takeovers.going_on(log, Owner("lost", 1), 1 + NUMBER, kept)
    assert [*engine.takeovers._refused] == ["s2"], "it knows no more of what others have"
    engine.ledger.cancel("another")
    assert isinstance(await engine.takeovers.going_on(log, Owner("lost", 1), 1 + NUMBER, kept), GoesOn)
    await engine.close()


@pytest.mark.parametrize("was", ["file", "store"])
async def test_a_stream_of_a_key_that_is_gone_goes_on_unless_it_was_revoked(was: KeyHome) -> None:
    engine = engine_with()
    homes: dict[str, KeyHome] = {"anna": was}
    engine.takeovers.key_home = lambda caller: homes.get(caller, "")
    kept = keyed(engine)
    homes.clear()
    log = logged(engine, START, text(LONG), caller="anna")
    found = await engine.takeovers.going_on(log, Owner("lost", 1), 2 + NUMBER, kept)
    assert isinstance(found, EndsInstead) == (was == "store")
    if isinstance(found, EndsInstead):
        assert found.is_cancelled
        assert found.error is not None
        assert found.error.reason == "key_revoked"
    await engine.close()


HEADER = LogHeader("s9", "", "m", "gai", "sse")


def room(engine: Engine, *taking: LogHeader, **header: Any) -> type[NoRoom] | None:
    """Returns why there is no room for another stream. None if there is."""
    try:
        engine.takeovers.check_room(HEADER._replace(**header), taking)
    except NoRoom as reason:
        return type(reason)
    return None


async def test_a_few_streams_are_taken_over_at_once_and_one_whose_attempt_is_sent_counts_no_more(
    change_limits: ChangeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_limits(takeovers_at_once=2)
    engine = engine_with()
    assert room(engine) is None
    assert room(engine, HEADER, HEADER) is NoRoom, "others are on their way"
    monkeypatch.setattr(FakeExchange, "sent", False)
    await gone_on(engine, logged(engine, START, text(LONG)))
    assert room(engine, HEADER) is NoRoom
    monkeypatch.setattr(FakeExchange, "sent", True)
    assert room(engine) is None, "it may still have no content"
    assert not engine.takeovers.beginning
    await engine.close()


async def test_a_caller_and_an_upstream_have_half_of_the_take_overs(
    change_limits: ChangeLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_limits(takeovers_at_once=4)
    monkeypatch.setattr(FakeExchange, "sent", False)
    engine = engine_with()
    models = engine.targets.settings.models
    for name in ("n", "o", "p"):
        models[name] = dataclasses.replace(  # type: ignore[index]  # the dict behind the view
            models["m"], name=name, upstream=dataclasses.replace(UPSTREAM, name=name)
        )
    anna, bert = HEADER._replace(caller="anna"), HEADER._replace(caller="bert")
    await begin(engine, logged(engine, START, caller="anna"), kept=record(engine, caller="anna"))
    assert room(engine, caller="anna") is None
    assert room(engine, anna._replace(model="n"), caller="anna", model="o") is NoRoom, "anna has half"
    assert room(engine, anna._replace(model="n"), caller="bert", model="o") is None
    assert room(engine, bert, caller="carl") is NotYet, "the upstream has half"
    assert room(engine, bert, caller="carl", model="o") is None
    nobody = HEADER._replace(caller=ANONYMOUS)
    taking = [nobody._replace(model=name) for name in ("n", "o")]
    assert room(engine, *taking, caller=ANONYMOUS, model="p") is None, "without keys nobody else waits"
    await engine.close()


async def test_nothing_keeps_a_stream_that_was_taken_over_and_has_ended() -> None:
    engine = engine_with()
    await gone_on(engine, logged(engine, START, text(LONG)))
    assert [*engine.takeovers.beginning] == ["s1"]
    engine.cancel("s1")
    assert not engine.takeovers.beginning
    await engine.close()


async def test_a_stream_that_goes_on_waits_for_a_follower_as_one_that_was_started_without() -> None:
    engine = engine_with()
    log = logged(engine, START, text(LONG))
    await gone_on(engine, log)
    publication = engine.durable.publication("s1")
    assert publication is not None
    assert publication._stream.on_disconnect == "detach"
    spec: StreamSpec = engine.streams["s1"].spec
    assert (spec.caller, spec.is_retry, spec.sharing) == ("", False, None)
    await engine.close()


async def test_who_has_waited_for_the_stream_follows_it() -> None:
    engine = engine_with()
    log, client = logged(engine, START, text(LONG)), FakeClient()
    view = view_of(log.header, Representation(get_format("gai"), "sse"), 2, now_ms)
    follower = engine.durable.follow(log, client, view, 2, StreamSettings())
    follower.begin()
    await gone_on(engine, log)
    publication = engine.durable.publication("s1")
    assert publication is not None
    assert (publication.followers, publication._timer) == (1, None)
    answer(engine, LONG, " more")
    sent = b"".join(each for each in client.calls if isinstance(each, bytes))
    assert [json.loads(data)["type"] for data in data_lines(sent)][:3] == ["stream.gap", "warning", "text.delta"]
    assert publication.followers == 0
    await engine.close()


async def test_a_log_whose_events_are_no_stream_has_an_end() -> None:
    engine = engine_with()
    log = logged(engine, text("no start"))
    await begin(engine, log)
    *_, error, done = events_of(log)
    assert (error["error"]["code"], done["type"]) == ("internal", "done")
    assert log.ending is not None
    assert log.ending.state == "failed"
    await engine.close()


async def test_a_worker_that_has_lost_a_stream_may_go_on_with_it_again_and_its_clients_stay() -> None:
    engine = engine_with(prefill=True)
    log = logged(engine, START, text(LONG))
    await gone_on(engine, log)
    client = FakeClient()
    view = view_of(log.header, Representation(get_format("gai"), "sse"), 2, now_ms)
    follower = engine.durable.follow(log, client, view, 2, StreamSettings())
    follower.begin()
    engine.leave_to_other("s1")  # another worker has it
    await begin(engine, log, 2)
    publication = engine.durable.publication("s1")
    assert publication is not None
    assert publication.followers == 1
    assert not follower.is_over
    await engine.close()


# ---- a worker that stops ---------------------------------------------------------------------------------------------


async def running(engine: Engine, *said: str) -> StreamLog:
    """Starts a durable stream that has a record."""
    publication = engine.durable.publish(dataclasses.replace(resumable(), can_reset=True), Clock(now_ms))
    publication.log.request = b"request"
    for each in said:
        receiver = FakePool.made[0].asked[-1][4]
        receiver.head_received(200, SSE)
        chunk = {"choices": [{"index": 0, "delta": {"content": each}}]}
        receiver.body_received(f"data: {json.dumps(chunk)}\n\n".encode())
    return publication.log


@pytest.mark.parametrize(
    ("wish", "said", "is_let_go"),
    [("error", (), True), ("error", ("x",), False), ("continue", ("x",), True), ("restart", ("x",), True)],
)
async def test_a_stream_is_let_go_if_another_worker_goes_on_with_it(
    tmp_path: Any, wish: str, said: tuple[str, ...], is_let_go: bool
) -> None:
    engine = engine_with(wish, store=f"sqlite:///{tmp_path}/s.db")
    log = await running(engine, *said)
    engine.disconnect_clients(0.0)
    assert room(engine) is None
    await engine.let_go()
    assert room(engine) is NoRoom, "it begins with no more streams"
    assert (log.is_over, [*engine.streams]) == ((False, []) if is_let_go else (False, ["s1"]))
    await engine.close()
    assert (log.ending is None) == is_let_go


@pytest.mark.parametrize("why", ["no record", "no model", "plain", "no store"])
async def test_a_stream_that_no_worker_goes_on_with_is_not_let_go(tmp_path: Any, why: str) -> None:
    engine = engine_with(store="memory://" if why == "no store" else f"sqlite:///{tmp_path}/s.db")
    if why == "plain":
        engine.start(dataclasses.replace(resumable(), log_header=None), FakeClient(), "s1", Clock(now_ms))
    else:
        log = await running(engine)
        if why == "no record":
            log.request = None
        elif why == "no model":
            engine.targets.settings = dataclasses.replace(engine.settings, models={})
    await engine.let_go()
    assert [*engine.streams] == ["s1"]
    await engine.close()


async def test_handovers_do_not_count_as_lost_workers() -> None:
    engine = engine_with()
    log = logged(engine, START, text(LONG), handovers=6)
    for owner, goes_on in (
        (Owner("", 10), True),
        (Owner("", 11), False),
        (Owner("lost", 9), True),
        (Owner("lost", 10), False),
    ):
        found = await engine.takeovers.going_on(log, owner, log.last_seq + NUMBER, record(engine))
        assert isinstance(found, GoesOn) is goes_on
    await engine.close()


# ---- sight -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "events", "answers", "outcome"),
    [
        ("continue", [START, text(LONG)], [LONG, " more"], "continued"),
        ("continue", [START, text(LONG)], ["another text"], "differed"),
        ("restart", [START, text(LONG)], [], "restarted"),
        ("error", [START], [], "retried"),
    ],
)
async def test_each_outcome_is_counted_once_and_has_a_log_line(
    wish: str, events: list[dict[str, Any]], answers: list[str], outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_with(wish)
    log = logged(engine, *events)
    await gone_on(engine, log, can_reset=True)
    if answers:
        assert engine.tallies.takeovers == {}
        answer(engine, *answers)
    assert engine.tallies.takeovers == {("m", outcome): 1}
    assert not engine.takeovers.continued
    kept = len(LONG) if len(events) > 1 else 0
    begun = "continued" if outcome == "differed" else outcome
    [line] = [each.message for each in caplog.records if "stream s1" in each.message]
    assert line == (
        f"stream s1: worker former is gone, after 0.5 s worker here has epoch 2: {begun}, {kept} characters kept"
    )
    assert caplog.records[-1].levelname == "WARNING"
    await engine.close()


async def test_a_stream_that_is_refused_or_closed_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    engine = engine_with()
    log = logged(engine, START, text(LONG), model="m")
    found = await engine.takeovers.going_on(log, Owner("", 1), 2 + NUMBER, record(engine))
    assert isinstance(found, GoesOn)
    engine.takeovers._durable = Refusing()
    found.begin(TAKEN._replace(former=""))
    engine.takeovers.closed(
        logged(engine, stream_id="s2", model="unknown"), TAKEN, 7, {"steps": [{"step": 1}]}, is_refused=False
    )
    engine.takeovers.closed(logged(engine, stream_id="s3", model="m"), TAKEN, None, {}, is_refused=True)
    assert engine.tallies.takeovers == {("m", "refused"): 2, ("other", "closed"): 1}
    let_go, closed, refused = [each for each in caplog.records if " has epoch 2: " in each.message]
    assert refused.message.endswith(": refused")
    assert closed.message.endswith(": closed, 7 characters kept")
    assert (let_go.levelname, closed.levelname) == ("INFO", "WARNING")
    assert "its worker has let it go" in let_go.message
    await engine.close()


async def test_an_approval_that_an_ended_run_has_left_may_still_be_answered() -> None:
    """Its worker was killed between its `finish` and its end."""
    settings = Settings(models={"m": MODEL}, store=StoreSettings("memory://"))
    engine = Engine(settings, asyncio.get_running_loop(), functions=[pay])
    assert engine.run_tools is not None
    records = engine.run_tools.desk.records
    left = AskedApproval("s1-1", "s1", "", "digest", now_ms() + 60_000, b"{}")
    await records.leave(left)
    required = {"type": "approval.required", "call_id": "c", "approval": {"id": left.id}}
    log = logged(engine, START, required, {"type": "finish", "finish_reason": "stop"})
    engine.takeovers.closed(log, TAKEN, None, {}, is_refused=False)
    await engine.run_tools.desk.close()
    assert await records.left(left.id) == (left, None)
    await engine.close()


async def test_a_stream_that_leaves_before_its_content_comes_is_not_counted() -> None:
    engine = engine_with()
    log = logged(engine, START, text(LONG))
    await gone_on(engine, log)
    engine.leave_to_other("s1")
    assert (engine.tallies.takeovers, engine.takeovers.continued, log.watchers) == ({}, {}, 0)
    await engine.close()


class Traced(Telemetry):
    """Notes which traces go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def go_on(self, context: str) -> Trace:
        self.asked.append(context)
        return Trace(Recorder(), "ab" * 16, parent_id="", state="", is_sampled=False, route=None, with_content=False)


async def test_a_stream_goes_on_in_the_trace_of_its_request() -> None:
    engine = engine_with()
    about = {"parent_id": "", "state": "", "is_sampled": True, "route": "/r", "with_content": False}
    trace = Trace(Recorder(), "ab" * 16, **about)
    kept = record(engine, trace=trace)
    assert json.loads(kept)["span"] == trace.context
    engine.telemetry = traced = Traced()
    assert isinstance(await engine.takeovers.going_on(logged(engine, START), Owner("lost", 1), NUMBER, kept), GoesOn)
    assert traced.asked == [trace.context]
    engine.telemetry = None
    await engine.close()


def test_a_guard_is_warned_of_once_whoever_runs_the_stream() -> None:
    repetition = Repetition(Error("internal", "differs"))
    warning: Any = {"type": "warning", "reason": "guard_failed", "guard": "hk"}
    repetition.recall({"type": "text.delta", "text": "Hi"})
    repetition.recall(warning)
    repetition.begin()
    assert repetition.take({"type": "text.delta", "text": "Hi"}) is None
    assert repetition.take(warning) is None
    other: Any = {**warning, "guard": "other"}
    assert repetition.take(other) is other
