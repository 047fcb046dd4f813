"""Events changed by a function, and words replaced wherever the deltas are cut."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gai_fast.processors import StreamInfo, make_chain, read_processor
from gai_fast.processors.transform import ReplaceProcessor, TransformProcessor
from tests.conftest import ChangeLimits

from .streams import DONE, FINISH, START, delta, pieces, stream, text_of, through, types_of


def test_a_function_changes_or_drops_events() -> None:
    def louder(event: Any) -> Any:
        return None if event["text"] == "b" else {**event, "text": event["text"].upper()}

    out = through(TransformProcessor(louder), stream("a", "b", "c"))
    assert text_of(out) == "AC"
    assert types_of(out) == ["start", "text.delta", "text.delta", "finish", "done"]


@pytest.mark.parametrize("made", [{"type": "finish"}, {"type": "done"}, {}, "text", {"type": None}])
def test_a_function_cannot_frame_the_stream(made: Any) -> None:
    with pytest.raises(ValueError, match="must return an event that does not frame the stream"):
        through(TransformProcessor(lambda event: made), [delta("a")])


WORDS = {"ACME": "***", "ACME Corp": "###", "cat": "dog", "aab": "X", "b": "Y"}


@given(
    st.lists(st.sampled_from([*WORDS, "AC", "a", "aa", "c", " ", "ACME Co", "x"]), max_size=12).map("".join),
    st.lists(st.integers(min_value=0), max_size=6),
)
def test_however_the_text_is_cut_the_same_words_are_replaced(text: str, edges: list[int]) -> None:
    longest_first = re.compile("|".join(sorted(WORDS, key=len, reverse=True)))
    expected = longest_first.sub(lambda found: WORDS[found[0]], text)
    for cut in (edges, 1, 2):
        assert text_of(through(ReplaceProcessor(WORDS), stream(*pieces(text, cut)))) == expected


def test_what_is_held_back_comes_before_the_next_event() -> None:
    reasoning: Any = {"type": "reasoning.delta", "text": "ME"}
    out = through(ReplaceProcessor(WORDS), [START, delta("xAC"), reasoning, delta("ACM"), {"type": "usage"}, FINISH])
    assert [(event["type"], event.get("text")) for event in out] == [
        *(("start", None), ("text.delta", "x"), ("text.delta", "AC"), ("reasoning.delta", "ME")),
        *(("text.delta", "ACM"), ("usage", None), ("finish", None)),
    ]


def test_what_stands_beside_the_text_cuts_no_word() -> None:
    aside: Any = {"type": "warning", "reason": "malformed_chunk"}
    events: Any = [START, delta("a sec"), aside, delta("re"), aside, delta("t, s"), aside, FINISH, DONE]
    out = through(ReplaceProcessor({"secret": "***"}), [{**event, "seq": n} for n, event in enumerate(events, 1)])
    assert text_of(out) == "a ***, s"
    assert types_of(out) == [
        *("start", "text.delta", "warning", "warning", "text.delta", "text.delta", "warning", "finish", "done"),
    ]
    numbers = [event["seq"] for event in out]
    assert numbers == sorted(numbers)


def test_nothing_in_place_of_a_word_is_no_event() -> None:
    out = through(ReplaceProcessor({"a": "", "ab": "x"}), stream("a"))
    assert types_of(out) == ["start", "finish", "done"]


def test_tool_arguments_are_left_as_they_are() -> None:
    call: Any = {"type": "tool.call.delta", "arguments": '{"a": "ACME"}', "index": 0}
    assert through(ReplaceProcessor(WORDS), [call]) == [call]


@pytest.mark.parametrize("replace", [{}, {"": "x"}])
def test_a_replacement_needs_words(replace: Any) -> None:
    with pytest.raises(ValueError, match="needs words"):
        ReplaceProcessor(replace)
    with pytest.raises(ValueError, match="'transform', parameter 'replace"):
        read_processor({"use": "transform", "replace": replace})


def test_the_configuration_makes_one() -> None:
    made = read_processor({"use": "transform", "replace": {"cat": "dog"}}).processor(StreamInfo())
    assert made is not None
    assert text_of(through(made, stream("a c", "at"))) == "a dog"


def test_no_more_than_so_many_events_wait_beside_held_text(change_limits: ChangeLimits) -> None:
    change_limits(held_beside=3)
    processor = ReplaceProcessor({"cat": "dog"})
    out = list(processor.process(delta("ca")))
    for _ in range(10):
        out += processor.process({"type": "usage", "usage": {"total_tokens": 1}})
        assert len(processor._beside) <= 3
    out += processor.process(FINISH)
    assert text_of(out) == "ca"
    assert types_of(out).count("usage") == 10


def scored(*tokens: str, **more: Any) -> Any:
    """Returns a delta with the probabilities of its tokens."""
    scores = [{"token": token, "logprob": -1.0, "bytes": list(token.encode()), "top_logprobs": []} for token in tokens]
    return {**delta("".join(tokens)), "logprobs": scores, **more}


def tokens_of(events: Any) -> list[str]:
    return [score["token"] for event in events for score in event.get("logprobs", [])]


@given(
    st.lists(st.sampled_from(["sec", "ret", " sec", "rets", "a", " ", "secret", "s", "et"]), max_size=8),
    st.lists(st.integers(min_value=0, max_value=3), max_size=6),
)
def test_no_probability_spells_a_replaced_word(tokens: list[str], sizes: list[int]) -> None:
    deltas, rest = [], tokens
    for size in sizes:
        deltas.append(scored(*rest[:size]))
        rest = rest[size:]
    given_deltas = [each for each in [*deltas, scored(*rest)] if each["text"]]
    out = through(ReplaceProcessor({"secret": "***"}), [START, *given_deltas, FINISH])
    whole = "".join(tokens)
    words = [found.span() for found in re.finditer("secret", whole)]
    kept, at = [], 0
    for token in tokens:
        end = at + len(token)
        if not any(at < last and first < end for first, last in words):
            kept.append(token)
        at = end
    assert tokens_of(out) == kept
    assert text_of(out) == whole.replace("secret", "***")


def test_a_replaced_word_is_no_alternative_either() -> None:
    score = {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a"}, {"token": " secret"}]}
    out = through(ReplaceProcessor({"secret": "***"}), [START, {**delta("a"), "logprobs": [score]}, FINISH])
    assert out[1]["logprobs"] == [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a"}]}]


def test_probabilities_that_do_not_spell_the_text_are_left_out() -> None:
    out = through(ReplaceProcessor({"secret": "***"}), [START, {**delta("a"), "logprobs": [{"token": "b"}]}, FINISH])
    assert out[1] == delta("a")


@pytest.mark.parametrize("token", [5, None, True, 1.5, ["5"], {"a": 1}])
def test_a_token_that_is_no_text_breaks_nothing(token: Any) -> None:
    """Upstreams send what they like: an exception of a processor would end the stream as the gateway's own failure."""
    score = {"token": token, "logprob": -1.0, "top_logprobs": [5, {"token": token}, {"token": "secret"}]}
    for text in (str(token), "5"):
        events = [START, {**delta(text), "logprobs": [score]}, FINISH]
        out = through(ReplaceProcessor({"secret": "***"}), events)
        assert text_of(out) == text
        assert "secret" not in str(out)


def test_a_snapshot_has_the_replacements() -> None:
    snapshot: Any = {"type": "json.snapshot", "json": {"secret": ["a secret", 5, {"b": "secrets"}]}}
    out = through(ReplaceProcessor({"secret": "***"}), [START, snapshot, FINISH])
    assert out[1]["json"] == {"***": ["a ***", 5, {"b": "***s"}]}


@pytest.mark.parametrize("order", [["transform"], ["json_stream", "transform"], ["transform", "json_stream"]])
def test_snapshots_are_of_the_text_that_the_client_gets(order: list[str]) -> None:
    words = {"use": "transform", "replace": {"secret": "***"}}
    configured = [read_processor(words if use == "transform" else {"use": use}) for use in order]
    chain = make_chain(configured, StreamInfo(wants_json=True, json_snapshots=0))
    assert chain is not None
    events: Any = [START, *(delta(piece) for piece in pieces('{"a":"my secret","b":1}', 1)), FINISH]
    out = [made for event in events for made in chain.process(event)]
    assert text_of(out) == '{"a":"my ***","b":1}'
    snapshots = [event["json"] for event in out if event["type"] == "json.snapshot"]
    assert snapshots[-1] == {"a": "my ***", "b": 1}
    assert "s" not in "".join(str(each.get("a", "")) for each in snapshots).replace("my ", "").replace("m", "")
