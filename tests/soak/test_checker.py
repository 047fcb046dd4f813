"""`checker.py` and `verdict.py`: an event that is missing, comes twice or is another stream's is found, in any form."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.soak.__main__ import note_moves, note_remains
from tests.soak.answers import Answer
from tests.soak.checker import Ending, Form, Format, Ledger
from tests.soak.report import Moment, course, grown, has_leaked, slope, table
from tests.soak.upstream import Call, Upstream
from tests.soak.verdict import Judge, Kill, Reading

ANSWER = Answer(7, 5, 20, 0.0)
ID = "AbCdEfGhIjKlMnOpQrStUvABCD2"
FORMS = [
    Form("gai", "sse"),
    Form("gai", "ndjson"),
    Form("openai", "sse"),
    Form("openai", "ndjson"),
    Form("simple", "sse"),
    Form("simple", "ndjson"),
]
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.format} {form.framing}")


def frames(form: Form, answer: Answer = ANSWER) -> list[bytes]:
    """Returns the frames of a durable stream, one for each delta, and the end."""
    deltas = [*map(answer.piece, range(answer.deltas))]
    objects: list[Any]
    last = answer.deltas + 2
    if form.format == "gai":
        texts = [{"type": "text.delta", "seq": seq, "text": text} for seq, text in enumerate(deltas, 2)]
        finish = {"type": "finish", "seq": last, "finish_reason": "stop"}
        objects = [{"type": "start", "seq": 1}, *texts, finish, {"type": "done", "finished": True}]
    elif form.format == "openai":
        texts = [{"choices": [{"delta": {"content": text}, "finish_reason": None}]} for text in deltas]
        objects = [*texts, {"choices": [{"delta": {}, "finish_reason": "stop"}]}, "[DONE]"]
    else:
        objects = [*({"content": text} for text in deltas), "[DONE]"]
    if form.framing == "ndjson":
        return [f"{json.dumps(each, ensure_ascii=False)}\n".encode() for each in objects if each != "[DONE]"]
    lines = []
    for number, each in enumerate(objects, 1 if form.format == "gai" else 2):
        has_id = each != "[DONE]" and number <= last
        said = each if each == "[DONE]" else json.dumps(each, ensure_ascii=False)
        lines.append(f"{f'id: {ID}.{number}' if has_id else ': ping'}\ndata: {said}\n\n".encode())
    return lines


def read(form: Form, sent: Sequence[bytes], step: int = 1 << 20) -> Ledger:
    """Returns the ledger of a client that has read all of this, and a proper end."""
    ledger = Ledger(ANSWER, form)
    body = b"".join(sent)
    for at in range(0, len(body), step):
        ledger.feed(body[at : at + step])
    ledger.ended()
    return ledger


@every_form
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_whole_stream_is_whole_however_it_is_cut(form: Form, step: int) -> None:
    ledger = read(form, frames(form), step)
    assert (ledger.faults, ledger.is_whole) == ("", True)
    assert ledger.ending == Ending("finish", "stop")


@every_form
def test_a_lost_event_is_found(form: Form) -> None:
    sent = frames(form)
    del sent[3]
    assert read(form, sent).lost == 1


@every_form
def test_a_doubled_event_is_found(form: Form) -> None:
    sent = frames(form)
    assert read(form, [*sent[:3], sent[2], *sent[3:]]).doubled >= 1


@every_form
def test_an_answer_that_ends_early_is_no_whole_one(form: Form) -> None:
    sent = frames(form)
    end = [each for each in sent if "‹" not in each.decode()]
    ledger = read(form, [*sent[:2], *end[-2:]])
    assert not ledger.is_whole
    if form.format == "simple":  # which has no reason: whoever judges it knows that nobody has cancelled the stream
        assert ledger.ending == Ending("finish", "cancelled")
    else:
        assert ledger.lost


@every_form
def test_a_proper_end_without_an_ending_is_wrong(form: Form) -> None:
    assert read(form, frames(form)[:3]).faults or form == Form("simple", "ndjson")


@every_form
def test_text_of_another_stream_is_wrong(form: Form) -> None:
    sent, foreign = frames(form), frames(form, Answer(8, 5, 20, 0.0))
    assert "no part of the answer" in read(form, [*sent[:2], foreign[2], *sent[3:]]).faults


@every_form
def test_altered_text_is_wrong(form: Form) -> None:
    sent = [each.replace("‹7.2›W".encode(), "‹7.2›w".encode()) for each in frames(form)]
    altered = [each.replace("‹7.2›".encode(), "‹7.2›!".encode()) for each in sent]
    assert "altered" in read(form, altered).faults


@pytest.mark.parametrize("form", FORMS[:3:2], ids=lambda form: form.format)
def test_half_a_frame_comes_again_after_a_resume(form: Form) -> None:
    sent = frames(form)
    ledger = Ledger(ANSWER, form)
    ledger.feed(b"".join(sent[:2]) + sent[2][:-5])
    ledger.connected()
    ledger.feed(b"".join(sent[2:]))
    ledger.ended()
    assert (ledger.faults, ledger.is_whole) == ("", True)


def test_frames_without_an_id_come_again_with_the_one_that_has_it() -> None:
    form = Form("openai", "sse")
    sent = frames(form)
    finish = sent[-2].replace(f"id: {ID}".encode(), b": ping")
    usage = f'id: {ID}.7\ndata: {{"choices": []}}\n\n'.encode()
    ledger = Ledger(ANSWER, form)
    ledger.feed(b"".join(sent[:-2]) + finish)
    ledger.connected()
    ledger.feed(finish + usage + sent[-1])
    ledger.ended()
    assert (ledger.faults, ledger.is_whole, ledger.place) == ("", True, 7)


@pytest.mark.parametrize(
    ("format_", "frame"),
    [("openai", b'data: {"error": {"code": "network"}}\n\n'), ("simple", b'data: {"error": "gone"}\n\n')],
    ids=["openai", "simple"],
)
def test_an_error_without_an_id_is_reported_again_to_a_client_that_was_cut_off_behind_it(
    format_: Format, frame: bytes
) -> None:
    ledger = Ledger(ANSWER, Form(format_, "sse"))
    ledger.feed(frame)
    ledger.connected()
    ledger.feed(frame)
    ledger.ended()
    assert ledger.faults == ""


@pytest.mark.parametrize(("comes_back", "faults"), [(True, ""), (False, "follows")])
def test_who_comes_back_with_an_end_may_hear_that_its_worker_is_gone(comes_back: bool, faults: str) -> None:
    form = FORMS[0]
    ledger = Ledger(ANSWER, form)
    ledger.feed(b"".join(frames(form)[:-1]))
    if comes_back:
        ledger.connected()
    ledger.feed(error(ledger.place + 1, "worker_lost"))
    assert faults in ledger.faults
    assert bool(ledger.faults) is bool(faults)


def test_joined_deltas_are_all_of_them() -> None:
    form = Form("gai", "ndjson")
    sent = frames(form)
    text = "".join(map(ANSWER.piece, (1, 2, 3)))
    joined = json.dumps({"type": "text.delta", "seq": 5, "text": text, "from_seq": 3}).encode() + b"\n"
    ledger = read(form, [*sent[:2], joined, *sent[5:]])
    assert (ledger.faults, ledger.is_whole) == ("", True)


NEXT = 1 << 20
"""The number of the first event of a worker that has taken the stream over."""


def gap(stored: int, text: str = "") -> bytes:
    """Returns the event that another worker has the stream, of which the store has so many events."""
    event = {"type": "stream.gap", "seq": NEXT, "from": stored + 1, "to": NEXT, "text": text, "reason": "taken_over"}
    return f"id: {ID}.{NEXT}\ndata: {json.dumps(event)}\n\n".encode()


def renumbered(sent: bytes, before: int, now: int) -> bytes:
    """Returns an event with another number."""
    return sent.replace(b".%d\n" % before, b".%d\n" % now).replace(b'"seq": %d' % before, b'"seq": %d' % now)


STORED = "".join(map(ANSWER.piece, range(2)))


@pytest.mark.parametrize("has", [3, 5], ids=["what is stored", "more than is stored"])
def test_a_stream_that_another_worker_took_over_has_what_was_stored_and_the_rest(has: int) -> None:
    form = FORMS[0]
    sent = frames(form)
    warning = f'data: {{"type": "warning", "seq": {NEXT + 1}, "reason": "taken_over"}}\n\n'.encode()
    rest = [renumbered(each, number, NEXT + number - 2) for number, each in enumerate(sent[3:-1], 4)]
    ledger = read(form, [*sent[:has], gap(3, STORED), warning, *rest, sent[-1]])
    assert (ledger.faults, ledger.is_whole, ledger.taken_over) == ("", True, STORED)


def test_a_gap_takes_no_stored_event_away_and_tells_what_is_stored() -> None:
    form = FORMS[0]
    assert read(form, [*frames(form)[:2], gap(3, STORED), error(NEXT + 1, "worker_lost")]).lost == 1
    told = read(form, [*frames(form)[:3], gap(3, ANSWER.piece(0)), error(NEXT + 1, "worker_lost")])
    assert "a gap tells 1 deltas, where 2 were sent" in told.faults
    no_reason = gap(3, STORED).replace(b"taken_over", b"dropped")
    assert "nobody has sent" in read(form, [*frames(form)[:3], no_reason, error(NEXT + 1, "worker_lost")]).faults


def test_nothing_may_follow_the_end() -> None:
    for form in FORMS[::2]:
        sent = frames(form)
        assert "follows" in read(form, [*sent, sent[1]]).faults


# ---- outcomes --------------------------------------------------------------------------------------------------------


def reading(form: Form = FORMS[0], *, is_durable: bool = True, manner: str = "reads") -> Reading:
    made = Reading(7, Ledger(ANSWER, form), manner, is_durable, "m", ID)
    made.connected(0.5)
    return made


def judge(*, outlives_workers: bool = True) -> Judge:
    return Judge(Upstream(), lambda: float("-inf"), outlives_workers=outlives_workers)


def error(seq: int, reason: str) -> bytes:
    """Returns the end of a stream by an error."""
    result = {"type": "error", "seq": seq, "error": {"code": "network", "reason": reason}}
    events = (result, {"type": "done", "finished": False})
    return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in events)


def tell(court: Judge, deltas: int) -> Reading:
    """Returns a follower that has some deltas, and the error of a worker that is gone."""
    result = reading()
    result.ledger.feed(b"".join(frames(FORMS[0])[: deltas + 1]) + error(deltas + 2, "worker_lost"))
    court.ended(result)
    assert result.outcome == "worker_lost"
    return result


@pytest.mark.parametrize("killed", [None, 1, 2], ids=["nobody", "another", "its worker"])
def test_a_worker_is_lost_only_where_it_was_killed(killed: int | None) -> None:
    court = judge()
    if killed is not None:
        court.kills.append(Kill(4711, 0.6, 0.7))
        court.killed[killed] = 4711
    result = tell(court, 1)
    court.finish({})
    assert ["of a worker that lives" in line for line in court.tally.unexplained] == [True] * (killed != result.owner)


def test_a_worker_that_is_killed_later_was_not_lost_before() -> None:
    court = judge()
    result = tell(court, 1)
    court.kills.append(Kill(4711, result.ended_at + 1))
    court.killed[result.owner] = 4711
    court.finish({})
    assert len(court.tally.unexplained) == 1


@pytest.mark.parametrize(("outlives_workers", "lost"), [(True, 2), (False, 0)], ids=["sqlite", "memory"])
def test_stored_deltas_that_a_follower_did_not_get_are_lost(outlives_workers: bool, lost: int) -> None:
    court = judge(outlives_workers=outlives_workers)
    court.kills.append(Kill(4711, 0.6, 0.7))
    court.killed[2] = 4711
    court.compare(tell(court, 1), tell(court, 3))
    court.finish({})
    assert court.tally.lost == lost


@pytest.mark.parametrize(("form", "lost"), [(FORMS[0], 4), (FORMS[2], 0)], ids=["gai", "openai"])
def test_only_gai_clients_follow_a_stream_of_which_they_had_more_than_was_stored(form: Form, lost: int) -> None:
    court = judge()
    court.kills.append(Kill(4711, 0.6, 0.7))
    court.killed[2] = 4711
    former, replay = reading(form), reading()
    former.ledger.pieces, former.ended_at = 1, 1.0
    replay.ledger.feed(b"".join(frames(FORMS[0])))
    court.compare(former, replay)
    court.finish({})
    assert court.tally.lost == lost


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_cut_is_a_kills_or_unexplained(is_killed: bool) -> None:
    court, result = judge(), reading(is_durable=False)
    if is_killed:
        court.kills.append(Kill(4711, 0.6, 0.7))
    assert not court.cut(result, "closed")
    assert bool(court.tally.unexplained) is not is_killed


@pytest.mark.parametrize(
    ("manner", "starved_until", "explained"), [("slow", 5.0, True), ("slow", -50.0, False), ("reads", 5.0, False)]
)
def test_a_slow_reader_is_cut_off_only_on_a_machine_that_is_too_busy(
    manner: str, starved_until: float, explained: bool
) -> None:
    court = Judge(Upstream(), lambda: starved_until)
    assert court.cut(reading(manner=manner), "reset") is explained
    assert bool(court.tally.unexplained) is not explained


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"error": "busy"}'])
def test_a_refusal_that_is_no_error_of_the_gateways_is_unexplained(body: bytes) -> None:
    court = judge()
    court.refused(reading(), 503, body)
    assert court.tally.unexplained


def test_an_error_needs_a_failure_of_the_upstream() -> None:
    for failure, explained in (("cut", True), ("", False)):
        court, result = judge(), reading()
        court._upstream.calls[7] = [Call(is_reused=False, failure=failure, deltas=1)]
        result.ledger.feed(frames(FORMS[0])[0] + error(2, "truncated"))
        court.ended(result)
        assert (result.outcome, not court.tally.unexplained) == ("error told", explained)


RESET: Any = "reset"
STATUS: Any = "status"
ONCE_MORE = (Call(True, RESET, at=1), Call(False, at=1.1))
AFTER_A_HANDSHAKE = (Call(True, RESET, at=1), Call(False, RESET, at=4, accepted=1.1))


@pytest.mark.parametrize(
    ("calls", "explained"),
    [
        ([Call(False, STATUS, at=1), Call(False, at=2)], True),
        ([Call(False, deltas=3, at=1), Call(False, at=2)], False),
        ([Call(False, at=1), Call(False, at=2)], False),
        ([Call(False, STATUS, at=time) for time in (1, 2, 3)], True),
        ([Call(False, STATUS, at=time) for time in (1, 2, 3, 4)], False),
        ([*ONCE_MORE], True),
        ([Call(False, RESET, at=1), Call(False, at=1.1)], True),
        ([*AFTER_A_HANDSHAKE], True),
        ([*AFTER_A_HANDSHAKE, *(Call(False, STATUS, at=time) for time in (5, 6))], True),
        ([*AFTER_A_HANDSHAKE, *(Call(False, STATUS, at=time) for time in (5, 6, 7))], False),
        ([Call(True, RESET, at=1), Call(True, at=1.1)], False),
        ([Call(True, RESET, at=1), Call(True, RESET, at=1.1), Call(False, at=1.2)], False),
        ([Call(True, RESET, at=1), Call(False, RESET, at=1.1), Call(False, at=1.2)], False),
        ([Call(True, STATUS, at=1), Call(False, at=1.1)], False),
        ([Call(each.is_reused, RESET, at=7 * time + each.at) for time in (0, 1, 2) for each in ONCE_MORE], True),
        ([Call(each.is_reused, RESET, at=7 * time + each.at) for time in (0, 1, 2, 3) for each in ONCE_MORE], False),
    ],
    ids=[
        *("a retry", "after content", "without a failure", "two retries", "three retries"),
        *("a dead connection", "a ready and dead connection", "sent again behind a handshake"),
        *("with two retries after it", "with three"),
        *("one dead connection in place of another", "two dead connections", "sent again twice", "a retry at once"),
        *("dead connections before each retry", "before one retry too many"),
    ],
)
def test_an_upstream_is_called_again_only_as_documented(calls: list[Call], explained: bool) -> None:
    court = judge()
    court._upstream.calls[7] = calls
    court.stream_ended(7)
    assert (not court.tally.unexplained) is explained


@pytest.mark.parametrize(
    ("killed", "explained"), [((1.5, 1.6), True), ((0.1, 0.2), False), ((2.5, 2.6), False)], ids=str
)
def test_a_worker_asks_again_behind_the_kill_of_the_one_before(killed: tuple[float, float], explained: bool) -> None:
    court = judge()
    court.kills.append(Kill(4711, *killed))
    court._upstream.calls[7] = [Call(False, deltas=3, at=1), Call(False, at=2)]
    court.stream_ended(7)
    assert (not court.tally.unexplained) is explained


@pytest.mark.parametrize(("was_left", "explained"), [(True, True), (False, False)])
def test_a_killed_workers_request_may_be_read_late_where_its_connection_is_left(
    was_left: bool, explained: bool
) -> None:
    court = judge()
    court.kills.append(Kill(4711, 1.0, 1.1))
    court._upstream.calls[7] = [Call(False, deltas=3, at=5, was_left=was_left), Call(False, at=8)]
    court.stream_ended(7)
    court.finish({7: 0})
    assert (not court.tally.unexplained) is explained


async def test_a_request_is_read_behind_its_senders_end() -> None:
    upstream = Upstream()
    await upstream.start()
    try:
        for number, leaves in enumerate((False, True), 1):
            upstream.answers[number] = Answer(number, 5, 20, 0.0)
            body = json.dumps({"messages": [{"content": str(number)}]}).encode()
            client = socket.create_connection(upstream.place)
            client.sendall(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            if leaves:
                client.close()
            async with asyncio.timeout(5):
                while not (calls := upstream.calls.get(number)):  # noqa: ASYNC110  # the upstream sets no event
                    await asyncio.sleep(0.01)
            assert [call.was_left for call in calls] == [leaves]
            client.close()
    finally:
        await upstream.stop()


def test_on_a_machine_that_is_too_busy_a_request_that_is_sent_at_once_may_come_late() -> None:
    late = [Call(time % 2 == 0, RESET, at=6 * time) for time in range(6)]
    for starved_until, calls, explained in ((5.0, late, True), (5.0, [*late, *ONCE_MORE], False), (-50.0, late, False)):
        court = Judge(Upstream(), lambda until=starved_until: until)
        court._upstream.calls[7] = calls
        court.stream_ended(7)
        assert (not court.tally.unexplained) is explained


@pytest.mark.parametrize(
    ("counted", "explained"), [({7: 1}, True), ({7: 2}, True), ({7: 0}, False), ({}, False)], ids=str
)
def test_each_further_call_counts_as_a_retry_in_the_metrics(counted: dict[int, int], explained: bool) -> None:
    court = judge()
    court._upstream.calls[7] = [*ONCE_MORE]
    court.stream_ended(7)
    court.finish(counted)
    assert (not court.tally.unexplained) is explained
    assert (court.tally.repeated, court.tally.counted) == (1, sum(counted.values()))


@pytest.mark.parametrize(("killed", "explained"), [((4.0, 4.1), True), ((1.0, 2.0), False)], ids=str)
def test_the_metrics_have_nothing_of_the_requests_of_a_killed_worker(
    killed: tuple[float, float], explained: bool
) -> None:
    court = judge()
    court._upstream.calls[7] = [Call(False, STATUS, at=3), Call(False, at=6)]
    court.kills.append(Kill(4711, *killed))
    court.stream_ended(7)
    court.finish({7: 0})
    assert (not court.tally.unexplained) is explained


@pytest.mark.parametrize(
    ("began", "gone", "explained"),
    [(5.0, 6.0, True), (2.7, 2.8, True), (1.0, 2.0, False), (1e12, 1e13, False)],
    ids=["amid it", "before the upstream has read its request", "before it", "after it"],
)
def test_only_of_a_killed_worker_the_metrics_may_be_missing(began: float, gone: float, explained: bool) -> None:
    court = judge()
    court._upstream.calls[7] = [Call(False, at=3)]
    court.stream_ended(7)
    court.kills.append(Kill(4711, began, gone))
    court.finish({})
    assert (not court.tally.unexplained) is explained


@pytest.mark.parametrize(("seconds", "explained"), [(0.1, True), (2.0, False)], ids=["at once", "later"])
def test_a_worker_that_is_killed_when_the_last_reader_has_left_may_not_have_seen_it(
    seconds: float, explained: bool
) -> None:
    court = judge()
    court._upstream.calls[7] = [Call(False)]
    court.stream_ended(7)
    began = court._asked[7].ended + seconds
    court.kills.append(Kill(4711, began, began + 0.1))
    court.finish({})
    assert (not court.tally.unexplained) is explained


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_slope_is_that_of_the_later_samples() -> None:
    flat = [(float(at), 1000) for at in range(100)]
    assert slope(flat) == 0.0
    assert slope(flat[:10]) is None
    begins = [(float(at), 10 * at) for at in range(25)]
    assert slope([*begins, *((at, 250) for at in map(float, range(25, 100)))]) == pytest.approx(0.0, abs=0.05)
    assert slope([(float(at), 3 * at) for at in range(100)]) == pytest.approx(3.0)


def test_the_table_names_what_is_unexplained() -> None:
    text = table([("lost", "0"), ("duplicated", "0")], [f"line {number}" for number in range(25)])
    assert text.splitlines()[:2] == ["lost        0", "duplicated  0"]
    assert "unexplained (25):" in text
    assert "* … and 5 more" in text


def test_the_course_has_a_line_for_each_moment() -> None:
    idle, busy = Moment(0.0, 0, 40.5, 30, 2, 6, 0, 1200, 90_000), Moment(1.0, 150, 80.0, 130, 90, 9, 70, 12000, 400_000)
    assert [line.split() for line in course([idle, busy]).splitlines()] == [
        ["minute", "streams", "mib", "descriptors", "timers", "tasks", "connections", "objects", "blocks"],
        ["0.0", "0", "40.5", "30", "2", "6", "0", "1,200", "90,000"],
        ["1.0", "150", "80.0", "130", "90", "9", "70", "12,000", "400,000"],
    ]


# ---- descriptors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "is_leak"),
    [
        ({}, False),
        ({"unix": 4}, False),
        ({"unix": 5}, True),
        ({"store": 38}, False),
        ({"store": 39}, True),
        ({"tcp": 1}, True),
        ({"anon_inode": 20}, False),
        ({"anon_inode": 21}, True),
    ],
    ids=[
        *("none", "workers that asked", "more than there are pairs", "a busy store", "a store's leak", "a connection"),
        *("sets of upstreams", "more than there are pools"),
    ],
)
def test_descriptors_that_are_left(more: dict[str, int], is_leak: bool) -> None:
    first = Counter(tcp=10, unix=4, store=2)
    assert has_leaked(first, first + Counter(more), workers=2) is is_leak


@pytest.mark.parametrize(
    ("more", "is_leak"),
    [({}, False), ({"Task": 2}, False), ({"Task": 3}, True), ({"TimerHandle": 1}, True), ({"StreamLog": 9}, False)],
    ids=["none", "workers that asked", "a task", "a timer", "a stream that is kept"],
)
def test_objects_that_are_left(more: dict[str, int], is_leak: bool) -> None:
    first = Counter(Task=8, TimerHandle=4, StreamLog=2)
    assert bool(grown(first, first + Counter(more), workers=2)) is is_leak


def test_what_the_changes_of_an_upstream_must_not_bring_about() -> None:
    upstream = Upstream()
    made: Any = SimpleNamespace(made=Counter({"wrong certificate": 1}), missing=["address"])
    court = judge()
    upstream.served_untrusted = 2
    note_moves(court, upstream, made)
    assert court.tally.unexplained == [
        "2 requests reached an upstream whose certificate is wrong",
        "no handshake was refused",
        "no request came after a change: address",
    ]
    court, upstream.served_untrusted, upstream.refused, made.missing = judge(), 0, 1, []
    note_moves(court, upstream, made)
    assert not court.tally.unexplained


def test_a_run_in_which_nothing_was_compared_has_not_passed() -> None:
    court, gateway = judge(), SimpleNamespace(bad_lines=())
    note_remains(court, court._upstream, gateway, 0, 0)
    assert court.tally.unexplained == ["no delta was checked"]
    court.tally.events = 1
    note_remains(court, court._upstream, gateway, 0, 0)
    assert len(court.tally.unexplained) == 1
