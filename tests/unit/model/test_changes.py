"""What was changed of a request: its headers and its event, both bounded."""

from __future__ import annotations

import pytest

from gai_fast.model.changes import Changes
from gai_fast.model.errors import Unsupported
from gai_fast.model.limits import SHARED


def headers(changes: Changes) -> dict[str, str]:
    return dict(changes.headers())


def test_a_member_that_no_native_request_holds_is_refused_in_words_of_its_own_or_left_out() -> None:
    """The provider may have it: that it does not would be untrue."""
    with pytest.raises(Unsupported, match=r"^gai-fast cannot say `moderation` to openai$") as caught:
        Changes().leave_out_unsaid("openai", "moderation")
    assert caught.value.reason == "field"
    changes = Changes("drop")
    changes.leave_out_unsaid("openai", "moderation")
    assert changes.dropped == ["moderation"]


def test_each_header_is_there_if_it_has_something_to_report() -> None:
    changes = Changes()
    assert (bool(changes), headers(changes)) == (False, {})
    changes.drop("temperature")
    changes.drop("tools[0].strict")
    assert headers(changes) == {"x-gai-dropped": "temperature,tools[0].strict"}
    changes.adjust("reasoning.effort", "high")
    changes.adjust("messages[2].role", "user")
    assert headers(changes)["x-gai-adjusted"] == "reasoning.effort=high,messages[2].role=user"


def test_a_clients_own_words_separate_no_entries_and_no_lines() -> None:
    changes = Changes()
    changes.drop("a,b=c+1\r\nx: é 50%")
    changes.adjust("x=y", "1,2")
    assert headers(changes) == {
        "x-gai-dropped": "a%2Cb%3Dc%2B1%0D%0Ax: %C3%A9 50%25",
        "x-gai-adjusted": "x%3Dy=1%2C2",
    }


def test_a_path_is_reported_once_and_the_last_value_counts() -> None:
    changes = Changes()
    for value in ("low", "high"):
        changes.drop("seed")
        changes.adjust("reasoning.effort", value)
    assert changes.warning()["provider_metadata"] == {"dropped": ["seed"], "adjusted": {"reasoning.effort": "high"}}


def test_entries_beyond_the_limits_are_counted() -> None:
    changes = Changes()
    for at in range(SHARED.request_changes + 5):
        changes.drop(f"members[{at}]")
        changes.adjust(f"members[{at}]", "x")
    assert len(changes.dropped) == len(changes.adjusted) == SHARED.request_changes
    assert headers(changes)["x-gai-dropped"].endswith(f"members[{SHARED.request_changes - 1}],+5")
    assert headers(changes)["x-gai-adjusted"].endswith("=x,+5")


def test_a_header_and_its_entries_have_at_most_their_bytes() -> None:
    changes = Changes()
    for at in range(SHARED.request_changes):
        changes.drop(f"{at:02}{'é' * 500}")
    value = headers(changes)["x-gai-dropped"]
    assert len(changes.dropped[0]) == SHARED.changed_path
    assert len(value) <= SHARED.changes_header + len(",+99")
    assert value.endswith(f",+{SHARED.request_changes - 1}")


@pytest.mark.parametrize("number", ["9" * 5000, "\u0663", "1", "-1", ""])
def test_a_member_may_be_named_as_an_index_is_written(number: str) -> None:
    changes = Changes("drop")
    changes.tools = ["tools[7]"]
    name = f"tools[{number}]"
    changes.drop(name)
    assert changes.dropped == [name[: SHARED.changed_path]]


def test_a_message_is_left_out_once() -> None:
    changes = Changes()
    changes.places = ["messages[3]", "messages[5]"]
    changes.drop("messages[0].content[1]")
    changes.drop_message("messages[0]")
    changes.drop_message("messages[1]")
    assert changes.dropped == ["messages[3].content[1]", "messages[5]"]
