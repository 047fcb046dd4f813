"""`gai_fast/core/answer.py`: one response of an upstream, as far as the relay has it read."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from gai_fast.core.account import Account, Bill
from gai_fast.core.answer import Progress, UpstreamAnswer, is_partly_read, partly_read
from gai_fast.core.body import BodyKind
from gai_fast.core.transcript import Transcript
from gai_fast.kernels import Frame
from gai_fast.model.errors import Error, Malformed
from gai_fast.model.halves import rest
from gai_fast.model.money import UNIT
from gai_fast.model.settings import Price
from gai_fast.model.upstream_errors import for_client
from tests.legal import sse
from tests.limits import LIMITS
from tests.unit.core.test_relay import END, HELLO, STOP, FakeAdapter, FakeAPI, chunk

PRICE = Price(input=UNIT, output=UNIT, cached_input=UNIT, cache_write=UNIT, reasoning=UNIT)


class ArrayAPI(FakeAPI):
    answers_in_arrays = True


def answer(
    api: FakeAPI | None = None,
    *,
    on_malformed: Literal["skip", "error"] = "skip",
    prompt_characters: int | None = None,
    goes_on: bool = False,
    characters: int = 0,
    **options: Any,
) -> UpstreamAnswer:
    known: dict[str, Any] = {"deltas": None, "passes": False, "redact": None, "transcript": None, "account": None}
    return UpstreamAnswer(
        FakeAdapter(api or FakeAPI()),
        on_malformed=on_malformed,
        prompt_characters=prompt_characters,
        goes_on=goes_on,
        characters=characters,
        **{**known, **options},
    )


class Request:
    def __init__(self, sent: bool) -> None:
        self.sent = sent


def billed(*, sent: bool = True, **options: Any) -> tuple[UpstreamAnswer, Bill]:
    bill = Bill()
    account = Account(bill, Request(sent), "fake", "up", PRICE, prompt_characters=40)
    return answer(account=account, prompt_characters=40, **options), bill


def frames_of(made: UpstreamAnswer, data: bytes) -> list[Frame]:
    stream = made.receive(data)
    made.copier.feed(stream)
    frames: list[Frame] = []
    while (more := made.next_frames(0, 0)) is not None:
        frames += more
    return frames


# ---- the body --------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_stream_are_cut() -> None:
    made = answer()
    assert [frame.data for frame in frames_of(made, sse(HELLO, END))] == [json.dumps(HELLO), END]
    assert made.body.kind is BodyKind.STREAM


def test_an_array_has_frames_of_its_own() -> None:
    made = answer(ArrayAPI())
    frames = frames_of(made, b'[{"text": "a"},\n{"text": "b"}]')
    assert [frame.data for frame in frames if frame.data] == ['{"text": "a"}', '{"text": "b"}']


def test_an_oversized_frame_is_noted_and_the_frames_before_it_are_returned() -> None:
    made = answer()
    frames = frames_of(made, sse(HELLO) + b"data: " + b"x" * (LIMITS.event + 1))
    assert [frame.data for frame in frames] == [json.dumps(HELLO)]
    assert str(LIMITS.event) in made.oversized


def test_a_whole_answer_is_read_or_is_an_error() -> None:
    def whole(body: bytes, **options: Any) -> UpstreamAnswer:
        made = answer(**options)
        made.receive(body)
        return made

    made = whole(b' {"answer": {"text": "Hi", "end": "stop"}}')
    assert [event["type"] for event in made.read_whole()] == ["start", "text.delta"]
    with pytest.raises(Error, match="Overloaded"):
        whole(b'{"error": {"message": "Overloaded"}}').read_whole()
    with pytest.raises(Malformed) as caught:
        whole(b'{"strange": true}').read_whole()
    assert whole(b'{"strange": true}').error_of_whole(caught.value).reason == "malformed_chunk"
    assert whole(b'{"answer": {"text"').error_of_whole(caught.value).reason == "truncated"
    partly = b'{"answer": {"text": "Hi", "events": [{"type": "warning"}]}}'
    assert is_partly_read(whole(partly).read_whole())
    with pytest.raises(Malformed, match=str(partly_read())):
        whole(partly, on_malformed="error").read_whole()


# ---- chunks that cannot be read --------------------------------------------------------------------------------------


def test_the_third_malformed_chunk_in_a_row_is_refused() -> None:
    made, frame = answer(), Frame(b"", "", "{}", None)
    for _ in range(2):
        assert [made.refuse_malformed(Malformed("odd"), may_have_lost_text=False) for _ in range(2)] == [None, None]
        made.note_read(frame, [])
    assert made.refuse_malformed(Malformed("odd"), may_have_lost_text=False) is None
    assert made.refuse_malformed(Malformed("odd"), may_have_lost_text=False) is None
    error = made.refuse_malformed(KeyError("private"), may_have_lost_text=False)
    assert error is not None
    assert (error.reason, error.message) == (
        "malformed_chunk",
        "fake sent what cannot be read: it has another shape",
    )


def test_a_strict_answer_refuses_the_first() -> None:
    error = answer(on_malformed="error").refuse_malformed(Malformed("odd"), may_have_lost_text=False)
    assert error is not None
    assert error.message == "fake sent what cannot be read: odd"


@pytest.mark.parametrize(("progress", "started"), [(Progress.AWAITED, False), (Progress.BEGUN, True)])
def test_a_start_that_was_lost_with_a_malformed_chunk_is_made_again(progress: Progress, started: bool) -> None:
    made = answer()
    made.adapter.start("m1", None)
    made.progress = progress
    made.refuse_malformed(Malformed("odd"), may_have_lost_text=False)
    assert made.adapter.started is started


def test_lines_that_are_not_sse_may_report_a_failure() -> None:
    made = answer()
    assert made.read_stray("error: sorry") == made.read_stray('{"fine": true}') == []
    with pytest.raises(Malformed, match="no event of SSE"):
        made.read_stray('{"text": "Hi"}')
    with pytest.raises(Error, match="Overloaded"):
        made.read_stray('error: {"error": "Overloaded"}')


def test_an_error_is_hidden_whose_text_the_translation_replaces() -> None:
    made = answer(redact=lambda error, _: for_client(error, "main"))
    secret = json.dumps(chunk(error={"message": "Incorrect API key sk-1", "code": "invalid_api_key"}))
    assert made.is_hidden(Frame(b"", "", secret, None))
    for shown in (json.dumps(chunk(error="Overloaded")), json.dumps(HELLO), "{", None):
        assert not made.is_hidden(Frame(b"", "", shown, None))
        assert not answer().is_hidden(Frame(b"", "", secret, None))


# ---- content, usage and cost -----------------------------------------------------------------------------------------


def test_halves_of_a_character_are_joined_or_replaced() -> None:
    made = answer()
    event, text = made.joined({"type": "text.delta", "text": "a\ud83d"}, "text", "a\ud83d")
    assert (event["text"], text) == ("a", "a")
    assert made.joined({"type": "text.delta", "text": "\ude00b"}, "text", "\ude00b")[1] == "😀b"
    assert rest(made.halves) == []
    made.joined({"type": "text.delta", "text": "\ud83d"}, "text", "\ud83d")
    assert rest(made.halves) == [{"type": "text.delta", "text": "\ufffd"}]
    assert made.halves == {}


def test_an_answer_that_reports_no_usage_gets_an_estimate() -> None:
    made = answer(prompt_characters=40, characters=8)
    made.adapter.receive("", json.dumps(STOP))
    assert made.finish()[-1]["usage"] == {
        "input_tokens": 10, "output_tokens": 2, "total_tokens": 12, "source": "estimated",
    }  # fmt: skip
    unasked = answer()
    unasked.adapter.receive("", json.dumps(STOP))
    assert "usage" not in unasked.finish()[-1]


def test_partial_usage_is_nothing_before_the_start_unless_the_provider_has_counted() -> None:
    made = answer(prompt_characters=40)
    assert made.partial_usage(has_started=False) == {}
    assert made.partial_usage(has_started=True)["input_tokens"] == 10
    made.adapter.usage = {"input_tokens": 7}
    assert made.partial_usage(has_started=False)["input_tokens"] == 7


def test_a_failed_attempt_is_charged_if_it_has_content() -> None:
    for progress, charged in ((Progress.BEGUN, 0), (Progress.CONTENT, 1)):
        made, bill = billed()
        made.progress = progress
        made.close_account(is_abandoned=False)
        assert len(bill.charges) == charged


def test_an_attempt_that_its_client_leaves_is_charged_for_its_prompt_if_that_was_sent() -> None:
    for sent in (True, False):
        made, bill = billed(sent=sent)
        usage = made.usage_so_far()
        assert (usage is not None, len(made.charges_so_far()), bill.charges) == (sent, int(sent), ())
        made.close_account(is_abandoned=True)
        assert made.usage_so_far() == usage
        assert made.charges_so_far() == bill.charges
        assert len(bill.charges) == sent


def test_the_end_has_the_cost_of_the_stream() -> None:
    made, bill = billed()
    event = made.priced({"type": "finish", "usage": {"input_tokens": 1, "output_tokens": 2}})
    cost = event["usage"]["cost"]
    assert bill.charges == (), "a processor may still count other tokens"
    assert made.settled(event)["usage"]["cost"] == cost
    assert len(bill.charges) == 1
    unbegun, bill = billed()
    assert "cost" not in unbegun.settled({"type": "error", "usage": {"input_tokens": 1}})["usage"]
    assert bill.charges == ()


def test_an_answer_that_goes_on_is_charged_for_its_own_content_alone() -> None:
    made, bill = billed(goes_on=True, characters=400)
    made.progress = Progress.CONTENT
    made.settled({"type": "finish", "usage": {"output_tokens": 100, "source": "estimated"}})
    assert bill.charges[0].amount == 10 * UNIT // 10**6


def test_the_next_attempt_keeps_the_characters_that_it_goes_on_from() -> None:
    made = answer(characters=8, transcript=Transcript(), on_malformed="error")
    for goes_on, characters in ((True, 8), (False, 0)):
        following = made.next_attempt(
            FakeAdapter(FakeAPI()), deltas=None, passes=False, redact=None, account=None, goes_on=goes_on
        )
        assert (following.characters, following.progress) == (characters, Progress.AWAITED)
        assert (following.transcript, following.is_strict) == (made.transcript, True)


@pytest.mark.parametrize(
    ("unread", "passes", "fails"),
    [
        ({"said": {"text": "a"}}, False, True),
        ({"said": {"text": "a"}}, True, False),
        ({"said": {"text": "a" * LIMITS.unread_chunks}}, False, False),
        ({"said": 5}, False, False),
    ],
)
def test_text_that_no_event_has_is_found_at_the_end_unless_the_client_has_the_chunk(
    unread: dict[str, Any], passes: bool, fails: bool
) -> None:
    made = answer(passes=passes)
    for data in (json.dumps(unread), json.dumps(STOP)):
        made.note_read(Frame(b"", "", data, None), made.adapter.receive("", data))
    if not fails:
        assert made.finish()[-1]["finish_reason"] == "stop"
        return
    with pytest.raises(Error, match="none of the known members"):
        made.finish()


def test_chunks_before_the_content_are_kept_until_it_comes() -> None:
    made = answer()
    made.note_read(Frame(b"", "", '{"instructions": "a"}', None), [])
    assert made._unread.chunks
    made.progress = Progress.CONTENT
    made.note_read(Frame(b"", "", "{}", None), [])
    assert not made._unread.chunks


def test_half_a_character_that_waits_is_content() -> None:
    """A limit of one token can cut an answer after half a surrogate pair."""
    made = answer()
    half = {"text": "\ud83d"}
    made.note_read(Frame(b"", "", json.dumps(half), None), [])
    made.joined({"type": "text.delta", **half}, "text", half["text"])
    made.note_read(Frame(b"", "", json.dumps(STOP), None), made.adapter.receive("", json.dumps(STOP)))
    assert made.finish()[-1]["finish_reason"] == "stop"
