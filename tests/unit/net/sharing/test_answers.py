"""`gai_fast/net/sharing/answers.py`: which requests are the same, and what is found where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest

from gai_fast.core.requests.reading import parse_request
from gai_fast.model.errors import Error
from gai_fast.model.metrics import StreamMetrics
from gai_fast.model.settings import (
    CacheSettings,
    ModelSettings,
    Secret,
    StoreSettings,
    TargetSettings,
    UpstreamSettings,
)
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.sharing.answers import SharedAnswer, SharedAnswers, _claim_ttl, key_of
from gai_fast.net.upstream import connection as upstream
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Ending, LogHeader, StreamLog
from gai_fast.stores._base import CALLS
from gai_fast.stores.backend import read_claim
from tests.limits import LIMITS
from tests.unit.stores.fake_backend import FakeBackend, World
from tests.waiting import until

UPSTREAM = UpstreamSettings("up", "openai", "https://api.example/v1")
MODEL = ModelSettings("m", UPSTREAM, "gpt")
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5}


def spec(request: Any = None, model: ModelSettings = MODEL, **more: Any) -> StreamSpec:
    return StreamSpec(model, dict(BODY) if request is None else request, cast(Any, None), **more)


def native(**members: Any) -> StreamSpec:
    return spec(parse_request(msgspec.json.encode({"query": "Hi", **members})))


def test_what_makes_no_difference_to_an_answer_makes_none_to_its_key() -> None:
    key = key_of(spec(), "anna")
    same = [
        spec(dict(reversed(BODY.items()))),
        spec({**BODY, "user": "u1", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "p"}),
    ]
    assert {key_of(each, "anna") for each in same} == {key}
    key = key_of(native(), "anna")
    same = [native(metadata={"a": "b"}, stream=False), native(resumable=True, request_id="r", model="m")]
    assert {key_of(each, "anna") for each in same} == {key}


def test_white_space_in_the_schema_of_a_tool_makes_no_difference() -> None:
    texts = (b'{"type":"object","title":"a  b"}', b'{ "type" : "object",\n\t"title": "a  b" }', b'{"title":"a b"}')
    requests = [b'{"query":"Hi","tools":[{"name":"f","parameters":%b}]}' % text for text in texts]
    first, second, other = [key_of(spec(parse_request(each)), "anna") for each in requests]
    assert first == second != other


def test_everything_else_makes_another_key() -> None:
    others = [
        (spec(), "berta"),
        (spec(), ""),
        (spec({**BODY, "temperature": 0.6}), "anna"),
        (spec({**BODY, "seed": 10**30}), "anna"),
        (spec(model=replace(MODEL, id="gpt-2")), "anna"),
        (spec(model=replace(MODEL, name="n")), "anna"),
        (spec(model=replace(MODEL, upstream=replace(UPSTREAM, base_url="https://b.example"))), "anna"),
        (spec(model=replace(MODEL, upstream=replace(UPSTREAM, provider="groq"))), "anna"),
        (spec(model=replace(MODEL, stream=replace(MODEL.stream, on_unsupported="drop"))), "anna"),
        (spec(headers={"anthropic-beta": "b"}), "anna"),
        (spec(left_out=("logit_bias",)), "anna"),
        (native(), "anna"),
        (native(seed=1), "anna"),
        (native(tools=[{"name": "t", "parameters": {"type": "object"}}]), "anna"),
    ]
    keys = [key_of(each, whose) for each, whose in [(spec(), "anna"), *others]]
    assert len({*keys}) == len(keys)


def test_an_answer_of_any_target_is_the_models() -> None:
    other = replace(UPSTREAM, name="other", base_url="https://b.example")
    targets = (TargetSettings(UPSTREAM, "gpt"), TargetSettings(other, "gpt-b"))
    first = replace(MODEL, targets=targets)
    second = replace(first, upstream=other, id="gpt-b")
    assert key_of(spec(model=first), "anna") == key_of(spec(model=second), "anna")
    assert key_of(spec(model=first), "anna") != key_of(spec(), "anna")
    elsewhere = replace(first, upstream=replace(other, provider="anthropic"))
    assert key_of(spec(model=first), "anna") != key_of(spec(model=elsewhere), "anna"), "its body is another"


class Home:
    """The engine, as the answers see it."""

    def __init__(self) -> None:
        self.timers = TimerWheel(asyncio.get_running_loop())
        self.refusal: Error | None = None
        self.read: list[StreamSpec] = []

    def tokens(self, upstream: UpstreamSettings) -> frozenset[bytes]:
        return frozenset()

    def look_in(self, store: Any, log: StreamLog, found: Callable[[float], None]) -> None:
        found(float("inf"))

    def read_on(self, spec: StreamSpec, stream_id: str, clock: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.read.append(spec)


class Process:
    """The answers of one process, and a clock that the test sets."""

    def __init__(self, world: World | None = None, **settings: Any) -> None:
        self.now_ms = 1_000_000
        self.home = Home()
        self.count = 0
        self.answers = SharedAnswers(
            self.home,
            CacheSettings(**{"ttl": 60.0, **settings}),
            StoreSettings(),
            asyncio.get_running_loop(),
            lambda: self.now_ms,
            None if world is None else FakeBackend(world),
        )

    def sharing(self, caller: str = "anna") -> SharedAnswer:
        return SharedAnswer(self.answers, caller, self.new_id)

    def new_id(self) -> str:
        self.count += 1
        return f"{id(self)}-{self.count:022}"

    def finished(self, sharing: SharedAnswer) -> None:
        """The answer to a new request comes at once."""
        receivers: list[Any] = []

        def ask(receiver: Any) -> Any:
            receivers.append(receiver)
            return None, None, Exchange()

        sharing.open(spec(), Receiver(sharing), ask)
        (call,) = receivers
        call.head_received(200, {})
        call.exchange_ended(None)


class Exchange:
    is_complete = is_waiting = resent = sent = False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...


class Receiver(upstream.Receiver):
    """A stream that finishes with whatever it is given."""

    def __init__(self, sharing: SharedAnswer) -> None:
        self.sharing = sharing

    def head_received(self, status: int, headers: dict[str, str]) -> None: ...

    def body_received(self, data: bytes) -> None: ...

    def exchange_ended(self, error: Error | None) -> None:
        self.sharing.ended(spec(), StreamMetrics(duration=0.0, outcome="finished" if error is None else "failed"), ())


class Deaf(Receiver):
    """A stream that nothing is asked of."""

    def exchange_ended(self, error: Error | None) -> None: ...


RECEIVER: Any = Deaf(cast(Any, None))


def opened(receiver: Any) -> Any:
    """Returns a request without an answer."""
    return None, None, Exchange()


async def test_an_answer_is_kept_in_its_process_for_its_caller() -> None:
    process = Process()
    sharing = process.sharing()
    assert not sharing.must_claim(spec())
    assert not sharing.finds(spec())
    process.finished(sharing)
    await until(lambda: process.sharing().finds(spec()))
    assert sharing.role == "miss"
    assert not process.sharing("berta").finds(spec())
    assert not process.sharing().finds(spec({**BODY, "seed": 1}))
    await process.answers.close()
    assert not process.sharing().finds(spec())


async def test_who_joins_an_answer_of_another_target_sees_nothing_of_its_key() -> None:
    process = Process()
    other = replace(UPSTREAM, name="other", api_key=Secret("sk-canary"))
    model = replace(MODEL, targets=(TargetSettings(UPSTREAM, "gpt"), TargetSettings(other, "gpt")))
    process.sharing().open(spec(model=replace(model, upstream=other)), RECEIVER, opened)
    joined = process.sharing()
    _, redact, _ = joined.open(spec(model=model), RECEIVER, opened)
    assert joined.role == "joined"
    assert redact(Error("invalid_request", "cannot read `Bearer sk-canary`")).message == "cannot read `Bearer ***`"
    await process.answers.close()


async def test_keys_of_answers_that_are_gone_are_forgotten() -> None:
    process = Process(max_bytes=65536)
    kept = cast(dict[str, StreamLog], process.answers._kept)
    for number in range(400):
        call = process.answers.begin(f"key {number}", header(f"{number:022}"))
        call.approve()
        call.cancel()
    assert len(process.answers.store.memory) < 50
    assert len(kept) < 200
    await process.answers.close()


def header(stream_id: str) -> LogHeader:
    return LogHeader(stream_id, "answers anna", "m", CALLS, "ndjson")


async def test_without_room_a_stream_has_a_call_of_its_own() -> None:
    process = Process(max_bytes=2 * LIMITS.log_stream_cost)
    first, second = process.sharing(), process.sharing("berta")
    first.open(spec(), RECEIVER, opened)
    own = object()
    assert second.open(spec(), cast(Any, None), lambda receiver: cast(Any, own)) is own
    assert second.role == "miss"
    await process.answers.close()


async def test_a_request_that_cannot_be_made_leaves_no_call_behind() -> None:
    process = Process()

    def refused(receiver: Any) -> Any:
        raise Error("unsupported", "no such part")

    for _ in range(3):
        with pytest.raises(Error, match="no such part"):
            process.sharing().open(spec(), RECEIVER, refused)
    assert not process.answers._running
    assert not process.sharing().finds(spec())
    await process.answers.close()


async def test_an_answer_is_claimed_and_found_by_other_processes() -> None:
    world = World()
    one, other = Process(world), Process(world)
    sharing = one.sharing()
    assert sharing.must_claim(spec())
    await sharing.claim(spec())
    assert len(world.claims) == 1
    one.finished(sharing)
    await until(lambda: any(stored.ending for stored in world.copies.values()))
    late = other.sharing()
    assert late.must_claim(spec())
    await late.claim(spec())
    assert late.finds(spec())
    for process in (one, other):
        await process.answers.close()


async def test_an_old_answer_is_asked_for_again() -> None:
    world = World()
    one, other = Process(world), Process(world)
    sharing = one.sharing()
    await sharing.claim(spec())
    one.finished(sharing)
    await until(lambda: any(stored.ending for stored in world.copies.values()))
    other.now_ms += 61_000
    late = other.sharing()
    await late.claim(spec())
    assert not late.finds(spec())
    late.release()
    await until(lambda: not world.claims)
    late.release()
    for process in (one, other):
        await process.answers.close()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"{}\n",
        b'{"seq":1,"at":0,"provider":"none","began_ms":1}\n',
        b'{"seq":1,"at":0,"provider":"openai","began_ms":"x"}\n',
        b'{"seq":1,"at":0,"provider":7,"began_ms":1}\n',
        b'{"seq":1,"at":0,"error":{"a":' + b"[" * 100_000 + b"}\n",
    ],
)
async def test_an_answer_that_cannot_be_read_is_asked_for_again(line: bytes) -> None:
    world = World()
    one, other = Process(world), Process(world)
    sharing = one.sharing()
    await sharing.claim(spec())
    (claim,) = world.claims.values()
    log = one.answers.store.create(header(read_claim(claim).stream_id))
    log.append(line, 1)
    log.end(Ending("finished"))
    await until(lambda: any(stored.ending for stored in world.copies.values()))
    late = other.sharing()
    await late.claim(spec())
    assert not late.finds(spec())
    for process in (one, other):
        await process.answers.close()


async def test_a_call_that_fails_frees_its_key() -> None:
    world = World()
    process = Process(world)
    sharing = process.sharing()
    await sharing.claim(spec())

    def refuse(receiver: Any) -> Any:
        raise Error("unsupported", "no place for this")

    with pytest.raises(Error):
        sharing.open(spec(), cast(Any, None), refuse)
    await until(lambda: not world.claims)
    await process.answers.close()


async def test_a_key_of_another_attempt_is_given_back() -> None:
    """The first model's breaker is open: its fallback is asked."""
    world = World()
    process = Process(world)
    sharing = process.sharing()
    await sharing.claim(spec())
    other = spec(model=replace(MODEL, name="backup"))
    sharing.open(other, RECEIVER, opened)
    await until(lambda: not world.claims)
    await process.answers.close()


async def test_a_store_that_cannot_be_opened_is_left_alone_for_a_while() -> None:
    world = World()
    world.fail()
    process = Process(world)
    for _ in range(3):
        sharing = process.sharing()
        await sharing.claim(spec())
        assert not sharing.finds(spec())
    world.mend()
    process.answers._open_again = 0.0
    await process.sharing().claim(spec())
    assert len(world.claims) == 1
    await process.answers.close()


async def test_who_leaves_a_call_that_others_read_leaves_a_remainder() -> None:
    process = Process()
    first, second = process.sharing(), process.sharing()
    for sharing in (first, second):
        sharing.open(spec(), RECEIVER, opened)
    assert (first.role, second.role) == ("miss", "joined")
    left = StreamMetrics(duration=1.0, outcome="disconnected")
    assert second.ended(spec(), left, ()) is left
    assert first.ended(spec(), left, ()) is None
    assert len(process.home.read) == 1
    process.home.refusal = Error("overloaded", "no room")
    assert first.ended(spec(), left, ()) is left
    await process.answers.close()


async def test_other_settings_hold_from_then_on() -> None:
    process = Process()
    process.finished(process.sharing())
    await until(lambda: process.sharing().finds(spec()))
    process.answers.use(CacheSettings(ttl=5.0, max_bytes=65536, scope="all"), 86400.0)
    assert process.answers.store.memory.max_bytes == 65536
    assert not process.sharing().finds(spec()), "the caller's own is not everybody's"
    await process.answers.close()


@pytest.mark.parametrize(("longest", "claimed"), [(90.0, 90.0), (86400.0, 3600.0)])
def test_a_key_is_claimed_as_long_as_the_longest_call_and_an_hour_at_most(longest: float, claimed: float) -> None:
    assert _claim_ttl(CacheSettings(ttl=5.0), longest) == 5.0 + claimed
