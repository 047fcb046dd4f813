"""The differences between two configurations, by name."""

from __future__ import annotations

import dataclasses

from gai_fast.model.settings import (
    GuardSettings,
    KeySettings,
    LimitSettings,
    ModelSettings,
    Secret,
    Settings,
    UpstreamSettings,
    key_digest,
)
from gai_fast.server.admin.bodies import plain
from gai_fast.server.admin.changes import changes

UP = UpstreamSettings("up", "openai", "http://127.0.0.1:1", Secret("sk-first"))
OLD = Settings(
    upstreams={"up": UP},
    models={"m": ModelSettings("m", UP, "m")},
    keys=(KeySettings("alice", (key_digest("sk"),)),),
)


def test_sections_are_named_with_what_became_of_them() -> None:
    new = dataclasses.replace(
        OLD,
        models={"n": ModelSettings("n", UP, "n")},
        keys=(KeySettings("alice", (key_digest("other"),)), KeySettings("bob", (key_digest("sk"),))),
        limits=LimitSettings(streams=1),
        default_model="n",
    )
    assert plain(changes(OLD, new)) == [
        {"section": "key", "name": "alice", "change": "changed"},
        {"section": "key", "name": "bob", "change": "added"},
        {"section": "limits", "name": None, "change": "changed"},
        {"section": "model", "name": "m", "change": "removed"},
        {"section": "model", "name": "n", "change": "added"},
        {"section": "default_model", "name": None, "change": "added"},
    ]
    assert changes(new, new) == []


def test_a_guard_whose_list_has_another_word_is_changed() -> None:
    one, other = (dataclasses.replace(OLD, guards=(GuardSettings("names", "words", words=(w,)),)) for w in ("a", "b"))
    assert plain(changes(one, other)) == [{"section": "guard", "name": "names", "change": "changed"}]


def test_no_value_is_shown() -> None:
    up = dataclasses.replace(UP, api_key=Secret("sk-second"))
    result = changes(OLD, dataclasses.replace(OLD, upstreams={"up": up}))
    assert plain(result) == [{"section": "upstream", "name": "up", "change": "changed"}]
