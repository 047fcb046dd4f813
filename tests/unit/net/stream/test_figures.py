"""The figures of one stream."""

from __future__ import annotations

from dataclasses import replace

from gai_fast.core.session import NamedSession
from gai_fast.model.changes import Changes
from gai_fast.model.settings import Secret
from gai_fast.net.attempts.spec import Role, Sharing
from gai_fast.net.stream.figures import figures_of
from tests.limits import LIMITS
from tests.unit.net.attempts.test_attempts import failing
from tests.unit.net.stream.test_session import DONE, Fixture, frame


def test_they_are_those_of_the_relay_and_of_all_attempts() -> None:
    stream = Fixture(retries=1)
    failing(stream.start())
    stream.time.advance(1)
    stream.session.intake.head_received(200, {"content-type": "text/event-stream"})
    stream.session.intake.body_received(frame() + frame("", "stop") + DONE)
    figures = figures_of(stream.relay, stream.session.attempts, "asked for", "finished")
    assert (figures.model, figures.stream_id, figures.upstream, figures.provider) == (
        "asked for",
        "s1",
        "up",
        "openai-compatible",
    )
    assert (figures.retries, figures.fallbacks, figures.finish_reason, figures.events) == (1, 0, "stop", 4)
    assert figures.usage is not None


def test_reading_them_changes_nothing() -> None:
    stream = Fixture().streaming()
    first = figures_of(stream.relay, stream.session.attempts, "m", "disconnected")
    assert figures_of(stream.relay, stream.session.attempts, "m", "disconnected") == first
    assert not stream.session.attempts.bill.charges


def test_the_tokens_of_a_provider_that_fills_in_zeros_are_estimated() -> None:
    """Its client sees the zeros; limits of tokens count what is charged."""
    stream = Fixture().streaming()
    zeros = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}\n\n'
    stream.session.intake.body_received(frame("a" * 40) + frame("", "stop") + zeros + DONE)
    usage = figures_of(stream.relay, stream.session.attempts, "m", "finished").usage
    assert usage is not None
    assert usage["output_tokens"] >= 10
    assert (usage["total_tokens"], usage["source"]) == (usage["input_tokens"] + usage["output_tokens"], "estimated")


def test_they_name_the_members_that_the_upstream_was_asked_without() -> None:
    stream = Fixture().streaming()
    assert figures_of(stream.relay, stream.session.attempts, "m", "finished").dropped == ()
    attempt = stream.session.attempts.attempt
    assert attempt is not None
    attempt.adapter.changes = Changes("drop")
    for number in range(30):
        attempt.adapter.changes.drop(f"tools[{number}]")
    dropped = figures_of(stream.relay, stream.session.attempts, "m", "finished").dropped
    assert (len(dropped), dropped[0]) == (LIMITS.logged_changes, "tools[0]")


def test_they_name_the_session_and_the_place_of_the_key() -> None:
    first, second = Secret("one"), Secret("two")
    stream = Fixture()
    upstream = replace(stream.model.upstream, api_key=first, more_api_keys=(second,))
    stream.model = stream.spec.model = replace(stream.model, upstream=upstream)
    stream.spec.session = NamedSession("a name", "0123456789abcdef")
    stream.streaming()
    attempts = stream.session.attempts
    figures = figures_of(stream.relay, attempts, "m", "finished")
    assert (figures.session, figures.upstream_key) == ("0123456789abcdef", 1)
    assert attempts.attempt is not None
    for key, place in ((second, 2), (Secret("of an earlier configuration"), 0), (None, 0)):
        attempts.attempt.key = key
        assert figures_of(stream.relay, attempts, "m", "finished").upstream_key == place
    stream.spec.session = None
    assert figures_of(stream.relay, attempts, "m", "finished").session == ""


def test_an_answer_that_is_shared_was_asked_for_with_no_key() -> None:
    stream = Fixture()
    upstream = replace(stream.model.upstream, api_key=Secret("one"))
    stream.model = stream.spec.model = replace(stream.model, upstream=upstream)
    attempts = stream.streaming().session.attempts
    found = {}
    roles: tuple[Role, ...] = ("miss", "hit", "joined")
    for role in roles:
        sharing = Sharing()
        sharing.role, sharing.upstream = role, "up"
        attempts.spec.sharing = sharing
        figures = figures_of(stream.relay, attempts, "m", "finished")
        found[figures.cache] = figures.upstream_key
    assert found == {"miss": 1, "hit": 0, "joined": 0}
