"""`core/requests/dialects.py`: one table a dialect, from which the walks over bodies run."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gai_fast.core.requests.dialects import (
    BODY,
    CHAT,
    DIALECTS,
    FORMS,
    MESSAGES,
    PLACES,
    PROOFS,
    RESPONSES,
    SETTINGS,
    STORED,
    TEXTS,
    TYPES,
    DialectMembers,
    Stored,
    known_members,
)
from gai_fast.core.requests.stored_ids import StoredId, stored_ids
from gai_fast.core.requests.texts import texts_in
from gai_fast.server.admission.further_models import kind_of

FORMS_OF_IDS = {"text", "object", "list", "resource", "address"}


def given(form: str) -> object:
    """Returns an id as a member of a form holds it."""
    values: dict[str, object] = {
        "text": "id_1",
        "object": {"id": "id_1"},
        "list": ["id_1"],
        "resource": "projects/id_1",
        "address": "gs://id_1",
    }
    return values[form]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_table_names_a_member_of_a_request_once(dialect: DialectMembers) -> None:
    settings = " ".join((dialect.same, dialect.read, dialect.harmless, dialect.others, dialect.forms)).split()
    beside = [name for name in dialect.without_effect.split() if name not in dialect.texts.split()]
    named = sorted((*dialect.texts.split(), *settings, *beside))
    assert not [name for name, after in pairwise(named) if name == after]


def test_no_text_of_a_dialect_is_a_setting_of_another() -> None:
    assert not SETTINGS & (TEXTS | FORMS)


def test_each_place_of_an_object_has_its_kind() -> None:
    kinds = (*PLACES.values(), *TYPES.values())
    places = {*BODY.values(), *(place for kind in kinds for place in (*kind.within.values(), kind.others) if place)}
    assert places - {"part"} == PLACES.keys()  # a part has a `type`


def test_a_member_that_two_dialects_have_holds_the_same_ids() -> None:
    assert all(STORED[name] == stored for dialect in DIALECTS for name, stored in dialect.stored.items())


@pytest.mark.parametrize(("name", "stored"), STORED.items())
def test_each_stored_id_of_a_table_is_found(name: str, stored: Stored) -> None:
    assert stored.forms
    assert {*stored.forms} <= FORMS_OF_IDS
    for form in stored.forms:
        (found,) = stored_ids({"within": [{name: given(form)}]})
        assert found.member == name


def test_an_object_has_the_members_of_all_dialects_that_have_it() -> None:
    assert {"tool_call_id", "phase", *PROOFS} <= PLACES["message"].silent
    assert {"data", "mimeType"} <= PLACES["medium"].silent
    assert not {*PROOFS} & PLACES["medium"].silent


@pytest.mark.parametrize("dialect", DIALECTS)
def test_texts_of_a_table_are_found_and_no_settings(dialect: DialectMembers) -> None:
    members = dialect.texts.split()
    body = dict.fromkeys((*members, *known_members(dialect), *dialect.others.split()), "x")
    found = [text.path for text in texts_in(body, members)]
    assert found[: len(members)] == [(name,) for name in members]
    assert {*found[len(members) :]} <= {(name,) for name in TEXTS | FORMS}


def test_no_further_model_is_looked_for_in_texts() -> None:
    assert {kind_of(name) for name in TEXTS} == {"written"}


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, RESPONSES])
def test_a_reader_knows_the_texts_of_its_dialect(dialect: DialectMembers) -> None:
    assert {*dialect.texts.split()} <= known_members(dialect)


def test_an_earlier_thread_is_an_id_and_no_text() -> None:
    body = {"thread": {"type": "continue", "previous_message_id": "msg_1"}}
    assert texts_in(body, ()) == []
    assert stored_ids(body) == [StoredId("previous_message_id", "msg_1")]
