"""Judges over real sockets, in threads and on the loop, and what an answer's text does meanwhile: `net/judges/` with
`guards/pieces.py`. Every fault of a judge, for guards that fail closed and open: nothing unjudged is out.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gai_fast.guards.joined import JoinedTexts
from gai_fast.guards.stages.pieces import Action, Ended, JudgedMatch, Outcome, Passed, Piece, Pieces, Rules, Warned
from gai_fast.guards.verdicts import Failed, JudgeVerdict, Question
from gai_fast.model.settings import FunctionSettings, Secret, UpstreamSettings
from gai_fast.net.judges.input_check import judge_input
from gai_fast.net.judges.judge import Ask, Judge
from gai_fast.net.judges.judges import Judges
from gai_fast.runtime.timers import TimerWheel
from tests.conftest import ChangeLimits
from tests.integration.certificates import Authority
from tests.integration.gateway import Handler, Net, Peer, Upstream, on_both_loops, on_steady_loop, on_uvloop
from tests.waiting import SECONDS, until

MIB = 1 << 20
KEY = "sk-what-nobody-may-read"
TEXT = "The quick brown fox jumps over the lazy dog. " * 4
FINE = {"flagged": False}


@dataclass(frozen=True)
class Settings:
    """As the configuration has them."""

    upstream: UpstreamSettings | None = None
    model: str | None = None
    threshold: Mapping[str, float] = field(default_factory=dict)
    url: str = ""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    ca_file: str | None = None
    function: FunctionSettings | None = None
    timeout: float = SECONDS


def within(kind: str) -> float:
    """Returns the timeout of a judge with a fault of this kind: all but one are noticed before it."""
    return 0.3 if kind == "late" else SECONDS


def hook(server: Upstream | str, **more: Any) -> Settings:
    url = server if isinstance(server, str) else server.url
    return Settings(url=f"{url}/check", headers={"authorization": Secret(KEY)}, **more)


def moderation(server: Upstream, **more: Any) -> Settings:
    upstream = UpstreamSettings("up", "openai", f"{server.url}/v1", Secret(KEY), headers={"x-team": "blue"})
    return Settings(upstream=upstream, **more)


@asynccontextmanager
async def judging(**settings: Settings) -> AsyncIterator[dict[str, Judge]]:
    """Yields the judges of these guards."""
    loop = asyncio.get_running_loop()
    timers = TimerWheel(loop)
    judges = Judges(timers, loop)
    try:
        yield judges.use(settings)
    finally:
        await judges.close()
        assert len(timers) == 0


class Answer:
    """An answer whose text is judged on its way, as a stream does it."""

    def __init__(
        self,
        judge: Judge,
        action: Action = "stop",
        exposure: int = 0,
        fails_open: bool = False,
        caller: str = "anna",
    ) -> None:
        self.judge = judge
        self.caller = caller
        self.pieces = Pieces([Rules(action, "[{}]".format, exposure, fails_open)])
        self.left: list[Outcome] = []
        self.asks: dict[Piece, Ask] = {}
        self.unjudged = 0
        """The most characters that were out without a verdict."""
        self._judged = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, text: str) -> None:
        self.pieces.add(text, text, 0, "text", now_ms=self._now)
        self._go_on()

    async def end(self) -> None:
        """Returns once the answer has ended."""
        self.pieces.finish()
        self._go_on()
        await until(lambda: not self.pieces.holds)
        for piece in self.pieces.drop():
            self.asks.pop(piece).cancel()
        if self._timer is not None:
            self._timer.cancel()
        assert not self.asks

    @property
    def text(self) -> str:
        return "".join(each.event if each.text is None else each.text for each in self.left if isinstance(each, Passed))

    @property
    def failure(self) -> Failed:
        (ended,) = [each for each in self.left if isinstance(each, Ended)]
        assert ended.failure is not None
        return ended.failure

    @property
    def _now(self) -> int:
        return int(self._loop.time() * 1000)

    def _go_on(self) -> None:
        for piece in self.pieces.asks(self._now):
            question = Question(self.judge.guard, "output", piece.channel, piece.text, "m", self.caller, "s1")
            self.asks[piece] = self.judge.ask(question, partial(self._answered, piece))
        self.left += self.pieces.take()
        self.unjudged = max(self.unjudged, len(self.text) - self._judged)
        if self._timer is not None:
            self._timer.cancel()
        due = self.pieces.due_ms
        if due is not None:
            self._timer = self._loop.call_at(due / 1000 + 0.001, self._go_on)

    def _answered(self, piece: Piece, answer: JudgeVerdict | Failed) -> None:
        del self.asks[piece]
        self._judged += piece.size if isinstance(answer, JudgeVerdict) else 0
        self.pieces.judged(piece, answer)
        self._go_on()


async def answered(judge: Judge, **rules: Any) -> Answer:
    """Returns an answer that has ended, of a text in small events."""
    answer = Answer(judge, **rules)
    for at in range(0, len(TEXT), 3):
        answer.add(TEXT[at : at + 3])
    async with asyncio.timeout(SECONDS):
        await answer.end()
    return answer


def unwanted(answer: JudgeVerdict | Failed) -> None:
    raise AssertionError("a question that was cancelled has an answer")


# ---- servers ---------------------------------------------------------------------------------------------------------


def saying(body: Any, status: str = "200 OK", *headers: str) -> Handler:
    """Returns the handler of a server that says this to everything."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(status, data, *headers)

    return handler


def raw(*pieces: bytes, after: Callable[[Peer], Awaitable[None]] | None = None) -> Handler:
    """Returns the handler of a server that sends these bytes after a request, and then closes."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        if after is not None:
            await after(peer)

    return handler


async def dripping(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while True:
        await peer.send(b" ")
        await asyncio.sleep(0.01)


async def resetting(peer: Peer) -> None:
    await peer.request()
    peer.reset()


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = gzip.compress(b'{"flagged": false}')
FAULTS: dict[str, tuple[Handler, str]] = {
    "slow": (Peer.until_gone, "late"),
    "slow after its head": (raw(HEAD + b"Content-Length: 9\r\n\r\n", after=Peer.until_gone), "late"),
    "a byte at a time": (dripping, "late"),
    "resets": (resetting, "network"),
    "closes": (raw(), "network"),
    "half of its body": (raw(HEAD + b'Content-Length: 18\r\n\r\n{"flagged'), "network"),
    "no HTTP": (raw(b'{"flagged": false}\r\n\r\n'), "network"),
    "a redirect": (saying(b"", "302 Found", "Location: http://127.0.0.1:1/"), "network"),
    "compressed": (saying(GZIP, "200 OK", "Content-Encoding: gzip"), "network"),
    "refuses": (saying({"error": KEY}, "401 Unauthorized"), "status"),
    "is down": (saying(b"busy", "503 Service Unavailable"), "status"),
    "nothing": (saying(b"", "204 No Content"), "status"),
    "empty": (saying(b""), "form"),
    "HTML": (saying(b"<html>sign in</html>", "200 OK", "Content-Type: text/html"), "form"),
    "12 MB": (saying(b" " * 12 * MIB + b'{"flagged": false}'), "form"),
    "12 MB in chunks": (raw(CHUNKED, *[b"10000\r\n%b\r\n" % (b" " * 65536)] * 192), "form"),
    "64 KiB and one": (saying(b'{"flagged": false}'.ljust(64 * 1024 + 1)), "form"),
    "half a JSON": (saying(b'{"flagged": fal'), "form"),
    "no verdict": (saying({"category": "x"}), "form"),
    "flagged: yes": (saying({"flagged": "yes"}), "form"),
    "spans outside": (saying({"flagged": True, "spans": [[0, 1_000_000]]}), "form"),
    "a list": (saying([FINE, FINE]), "form"),
    "two JSONs": (saying(b'{"flagged": false}{"flagged": true}'), "form"),
    "a name twice": (saying(b'{"flagged": true, "flagged": false}'), "form"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("exposure", [0, 50])
@on_steady_loop
async def test_a_hook_that_fails_ends_a_closed_answer(net: Net, fault: str, exposure: int) -> None:
    handler, kind = FAULTS[fault]
    server = await net.upstream(handler)
    async with judging(policy=hook(server, timeout=within(kind))) as judges:
        answer = await answered(judges["policy"], exposure=exposure)
        assert answer.failure.fault == kind
        assert answer.unjudged <= exposure
        assert answer.text == TEXT[: len(answer.text)]
        assert len(answer.text) <= exposure
        assert KEY not in answer.failure.text
        assert judges["policy"].running == 0
    assert net.warned("guard 'policy': the judge has failed") == 1


@pytest.mark.parametrize("fault", FAULTS)
@on_steady_loop
async def test_a_hook_that_fails_lets_an_open_answer_pass_with_one_warning(net: Net, fault: str) -> None:
    handler, kind = FAULTS[fault]
    server = await net.upstream(handler)
    async with judging(policy=hook(server, timeout=within(kind))) as judges:
        answer = await answered(judges["policy"], fails_open=True)
        assert answer.text == TEXT
        assert [each for each in answer.left if not isinstance(each, Passed)] == [Warned(0)]
    assert net.warned("guard 'policy': the judge has failed") == 1
    assert not [line for line in net.logged if KEY in line]


MODERATION_FAULTS: dict[str, Any] = {
    "no results": {"id": "1", "model": "m"},
    "two results": {"results": [{"flagged": False}, {"flagged": False}]},
    "flagged: yes": {"results": [{"flagged": "yes", "categories": {"violence": True}}]},
    "no category": {"results": [{"category_scores": {"violence": 0.9}}]},
    "an error": {"error": {"message": "no quota"}},
}


@pytest.mark.parametrize("fault", MODERATION_FAULTS)
@on_steady_loop
async def test_a_moderation_that_is_none_ends_a_closed_answer(net: Net, fault: str) -> None:
    server = await net.upstream(saying(MODERATION_FAULTS[fault]))
    async with judging(policy=moderation(server)) as judges:
        answer = await answered(judges["policy"])
        assert (answer.failure.fault, answer.text) == ("form", "")
    assert net.warned("the judge has failed") == 1


@on_steady_loop
async def test_a_dead_server_is_a_failure_and_its_breaker_opens(net: Net) -> None:
    server = await net.upstream(saying(FINE))
    url = server.url
    await server.stop()
    async with judging(policy=hook(url)) as judges:
        answers = [await answered(judges["policy"], caller=caller) for caller in ("anna", "bert") * 6]
    faults = [answer.failure.fault for answer in answers]
    assert faults[0] == "network"
    assert faults[-5:] == ["breaker"] * 5
    assert faults.index("breaker") <= 5
    assert net.warned("the judge has failed") == 1


@on_both_loops
async def test_a_hook_is_asked_about_each_piece_once_over_kept_connections(net: Net) -> None:
    asked: list[Any] = []

    async def handler(peer: Peer) -> None:
        while True:
            asked.append(json.loads(await peer.request()))
            assert f"authorization: {KEY}".encode() in peer.head
            assert peer.head.startswith(b"POST /check HTTP/1.1\r\n")
            await peer.answer("200 OK", b'{"flagged": false}')

    server = await net.upstream(handler)
    async with judging(policy=hook(server)) as judges:
        answer = await answered(judges["policy"])
        assert answer.text == TEXT
        assert [each.text for each in answer.left if isinstance(each, Passed)] == [None] * (len(TEXT) // 3)
        assert (answer.unjudged, judges["policy"].failures) == (0, 0)
        count = len(server.peers)
        await answered(judges["policy"])
        assert len(server.peers) == count
    assert all({**each, "text": ""} == {**asked[0], "text": ""} for each in asked)
    assert {**asked[0], "text": ""} == {
        "guard": "policy",
        "on": "output",
        "channel": "text",
        "text": "",
        "model": "m",
        "caller": "anna",
        "stream_id": "s1",
    }


@on_both_loops
async def test_a_moderation_is_asked_with_the_key_of_its_upstream(net: Net) -> None:
    heads: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while True:
            body = json.loads(await peer.request())
            heads.append(peer.head)
            assert list(body) == ["model", "input"]
            flagged = "lazy" in body["input"]
            result = {"flagged": flagged, "categories": {"sloth": flagged}, "category_scores": {"sloth": 0.9}}
            await peer.answer("200 OK", json.dumps({"results": [result]}).encode())

    server = await net.upstream(handler)
    async with judging(policy=moderation(server, model="omni-moderation-latest")) as judges:
        answer = await answered(judges["policy"])
        assert answer.left[-2:] == [JudgedMatch(0, "stop", "sloth", 0.9, 0), Ended(0)]
        assert "lazy" not in answer.text
    assert heads[0].startswith(b"POST /v1/moderations HTTP/1.1\r\n")
    assert f"authorization: Bearer {KEY}\r\n".encode() in heads[0]
    assert b"x-team: blue\r\n" in heads[0]


@on_uvloop
async def test_a_hook_masks_what_it_names(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            text = json.loads(await peer.request())["text"]
            at = text.find("jumps")
            said = {"flagged": at >= 0, "category": "move", "spans": [[at, at + 5]] if at >= 0 else []}
            await peer.answer("200 OK", json.dumps(said).encode())

    server = await net.upstream(handler)
    async with judging(policy=hook(server)) as judges:
        answer = Answer(judges["policy"], action="mask")
        for word in TEXT.split(" "):
            answer.add(f"{word} ")
            await asyncio.sleep(0.002)
        await answer.end()
    assert answer.text.startswith("The quick brown fox [move] over the lazy dog.")


@on_steady_loop
async def test_a_second_answer_belongs_to_no_question(net: Net) -> None:
    """A server that answers twice: neither at once nor a moment later does its second answer become another's."""
    counts: Counter[str] = Counter()

    async def handler(peer: Peer) -> None:
        while True:
            asked = json.loads(await peer.request())["text"]
            counts["asked"] += 1
            fine, bad = b'{"flagged": false}', b'{"flagged": true}'
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
            if asked.startswith("at once"):
                await peer.send(answer % (len(fine), fine) + answer % (len(bad), bad))
            else:
                await peer.send(answer % (len(fine), fine))
                await asyncio.sleep(0.02)
                await peer.send(answer % (len(bad), bad))

    server = await net.upstream(handler)
    async with judging(policy=hook(server)) as judges:
        for text in ["at once 1", "at once 2", "later 1", "later 2"]:
            answer = Answer(judges["policy"])
            answer.add(text)
            await answer.end()
            assert answer.text == text
            await asyncio.sleep(0.05)
    assert counts["asked"] == len(server.peers) == 4


@on_steady_loop
async def test_a_slow_judge_slows_nothing_within_its_exposure(net: Net) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.3)
            await peer.answer("200 OK", b'{"flagged": false}')

    server = await net.upstream(handler)
    async with judging(policy=hook(server)) as judges:
        answer = Answer(judges["policy"], exposure=200)
        for at in range(0, len(TEXT), 4):
            answer.add(TEXT[at : at + 4])
            assert answer.text == TEXT[: at + 4], "each token leaves as it comes"
            await asyncio.sleep(0.025)
        await answer.end()
    assert 0 < answer.unjudged <= 200


@on_both_loops
async def test_a_hook_over_tls_is_checked_by_its_own_authority(net: Net, authority: Authority) -> None:
    server = await net.upstream(saying(FINE), authority.server("good"))
    url = server.url.replace("127.0.0.1", "localhost")
    trusted = hook(url, ca_file=str(authority.folder / "ca.pem"))
    async with judging(own=trusted, others=hook(url)) as judges:
        assert (await answered(judges["own"])).text == TEXT
        assert (await answered(judges["others"])).failure.fault == "network"
    assert net.warned("guard 'others': the judge has failed") == 1


# ---- functions -------------------------------------------------------------------------------------------------------

MODULE = "judges_of_this_test"
GATE = threading.Event()


async def never(asked: Any) -> Any:
    await asyncio.get_running_loop().create_future()


def blocks(asked: Any) -> Any:
    GATE.wait(SECONDS)
    return FINE


def raises(asked: Any) -> Any:
    raise ValueError(asked["text"] + KEY)


async def ends_the_process(asked: Any) -> Any:
    raise SystemExit(asked["text"])


def fine(asked: Any) -> Any:
    return FINE


def foxes(asked: Any) -> Any:
    return {"flagged": "fox" in asked["text"], "category": "fox"}


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "never returns": (never, "late"),
    "blocks its thread": (blocks, "late"),
    "raises": (raises, "exception"),
    "ends the process": (ends_the_process, "exception"),
    "no verdict": (lambda asked: None, "form"),
    "flagged: yes": (lambda asked: {"flagged": "yes"}, "form"),
    "spans outside": (lambda asked: {"flagged": True, "spans": [(0, 1000)]}, "form"),
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Returns a module for functions that judge."""
    made = ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, made)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return made


def function(module: ModuleType, name: str, **more: Any) -> Settings:
    return Settings(function=FunctionSettings(f"{MODULE}:{name}", "."), **more)


@pytest.mark.parametrize("fault", FUNCTIONS)
@pytest.mark.parametrize("fails_open", [False, True])
@on_steady_loop
async def test_a_function_that_fails(net: Net, module: ModuleType, fault: str, fails_open: bool) -> None:
    module.check, kind = FUNCTIONS[fault]  # type: ignore[attr-defined]  # made for it
    GATE.clear()
    try:
        async with judging(policy=function(module, "check", timeout=within(kind))) as judges:
            answer = await answered(judges["policy"], fails_open=fails_open)
            if fails_open:
                assert answer.text == TEXT
                assert [each for each in answer.left if not isinstance(each, Passed)] == [Warned(0)]
            else:
                assert (answer.failure.fault, answer.text, answer.unjudged) == (kind, "", 0)
                assert KEY not in answer.failure.text
                assert "fox" not in answer.failure.text
    finally:
        GATE.set()
    assert net.warned("guard 'policy': the judge has failed") == 1
    assert not [line for line in net.logged if "fox" in line or KEY in line]


@on_steady_loop
async def test_functions_that_block_all_threads_delay_only_who_needs_one(net: Net, module: ModuleType) -> None:
    """Nine questions and eight threads; servers go on."""
    module.blocks = blocks  # type: ignore[attr-defined]  # as above
    module.fine = fine  # type: ignore[attr-defined]  # as above
    server = await net.upstream(saying(FINE))
    GATE.clear()
    try:
        stuck, plain = function(module, "blocks", timeout=0.3), function(module, "fine", timeout=0.3)
        settings = {"stuck": stuck, "plain": plain, "patient": function(module, "fine"), "server": hook(server)}
        async with judging(**settings) as judges:
            answers: list[Any] = []
            for _ in range(9):
                judges["stuck"].ask(Question("stuck", "output", "text", "x"), answers.append)
            assert (judges["stuck"].running, judges["stuck"].waiting) == (8, 1)
            assert (await answered(judges["server"])).text == TEXT
            await until(lambda: len(answers) == 9)
            assert {answer.fault for answer in answers} == {"late"}
            assert (await answered(judges["plain"])).failure.fault == "late"
            assert judges["stuck"].running == 8, "the threads are not free"
            assert len([each for each in threading.enumerate() if each.name == "gai-fast-judge"]) == 8
            GATE.set()
            await until(lambda: judges["stuck"].running == 0)
            assert (await answered(judges["patient"])).text == TEXT
    finally:
        GATE.set()
    assert net.warned("the judge has failed") == 2
    await until(lambda: not [each for each in threading.enumerate() if each.name == "gai-fast-judge"])


@on_both_loops
async def test_a_function_judges(net: Net, module: ModuleType) -> None:
    module.check = foxes  # type: ignore[attr-defined]  # as above
    async with judging(policy=function(module, "check")) as judges:
        answer = await answered(judges["policy"])
        assert answer.left[-2:] == [JudgedMatch(0, "stop", "fox", None, 0), Ended(0)]


# ---- input -----------------------------------------------------------------------------------------------------------


@on_both_loops
async def test_the_texts_of_a_request_are_judged_in_pieces(net: Net, module: ModuleType) -> None:
    module.check = lambda asked: {"flagged": "kestrel" in asked["text"]}  # type: ignore[attr-defined]  # as above
    joined = JoinedTexts(["You are kind. " * 9000, "", "A kestrel.", "And? " * 9000])
    asked = Question("policy", "input", "input", "", "m", "anna", "s1")
    async with judging(policy=function(module, "check")) as judges:
        answers = await judge_input(judges["policy"], asked, joined.pieces())
    flagged = [(at, answer) for at, answer in answers if isinstance(answer, JudgeVerdict) and answer.flagged]
    assert len(answers) == 6
    assert len(flagged) == 1
    pieces = dict(joined.pieces())
    assert "kestrel" in pieces[flagged[0][0]]


# ---- another configuration -------------------------------------------------------------------------------------------


@on_both_loops
async def test_equal_settings_keep_their_judge_and_a_stream_keeps_its_own(net: Net) -> None:
    server, other = await net.upstream(saying(FINE)), await net.upstream(saying(FINE))
    loop = asyncio.get_running_loop()
    timers = TimerWheel(loop)
    judges = Judges(timers, loop)
    first = judges.use({"a": hook(server), "b": hook(server)})
    assert (await answered(first["a"])).text == TEXT
    second = judges.use({"a": hook(server), "b": hook(other)})
    assert second["a"] is first["a"]
    assert second["b"] is not first["b"]
    assert (await answered(first["b"])).text == TEXT, "a stream that began before"
    assert not other.peers
    with pytest.raises(ValueError, match=r"guard 'b': names the module no_such_module") as caught:
        judges.use({"a": hook(other), "b": Settings(function=FunctionSettings("no_such_module:f", "."))})
    assert KEY not in str(caught.value)
    assert judges.use({"a": hook(server)})["a"] is first["a"], "it has changed nothing"
    await judges.close()
    assert len(timers) == 0


@on_both_loops
async def test_a_new_file_of_authorities_makes_a_new_judge(net: Net, authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes((authority.folder / "ca.pem").read_bytes())
    loop = asyncio.get_running_loop()
    judges = Judges(TimerWheel(loop), loop)
    settings = hook("https://localhost", ca_file=str(file))
    first = judges.use({"a": settings})["a"]
    assert judges.use({"a": settings})["a"] is first
    file.write_bytes(file.read_bytes() + b"\n")
    assert judges.use({"a": settings})["a"] is not first
    await judges.close()


@on_steady_loop
async def test_a_worker_has_so_many_questions_of_a_guard(net: Net, change_limits: ChangeLimits) -> None:
    change_limits(judge_requests=3)
    server = await net.upstream(Peer.until_gone)
    async with judging(policy=hook(server)) as judges:
        judge = judges["policy"]
        asks = [judge.ask(Question("policy", "output", "text", "x"), unwanted) for _ in range(5)]
        await until(lambda: len(server.peers) == 3)
        assert (judge.running, judge.waiting) == (3, 2)
        asks[0].cancel()
        await until(lambda: len(server.peers) == 4)
        assert (judge.running, judge.waiting) == (3, 1)
        for ask in asks:
            ask.cancel()
        assert (judge.running, judge.waiting) == (0, 0)
        await server.until_finished(4)
