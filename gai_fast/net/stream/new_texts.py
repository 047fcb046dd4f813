"""The texts of a request after its guards: those that go up, and those that stores keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from gai_fast.core.requests.texts import Path, Text
from gai_fast.guards.input import InputCheck
from gai_fast.runtime.breathing import breathe


class NewTexts(NamedTuple):
    """Other texts for a request, as `core/requests/texts.with_texts` takes them.

    Attributes:
        sent: The values that go up, by their places.
        kept: Those that stores keep: with the caller's own words in place of placeholders.
        left_out: The places of what is left out of both.
    """

    sent: Mapping[Path, Any]
    kept: Mapping[Path, Any]
    left_out: Collection[Path]


def new_texts(texts: Sequence[Text], check: InputCheck) -> NewTexts | None:
    """Returns the texts that guards have changed. None if there are none.

    Args:
        texts: The texts of a request.
        check: The check of their strings, which has ended.
    """
    changed = check.changed
    if not changed:
        return None
    places = {*changed}
    restores = check.placeholders is not None
    sent: dict[Path, Any] = {}
    kept: dict[Path, Any] = {}
    left_out: dict[Path, None] = {}
    at = 0
    for text in texts:
        breathe()
        begin, at = at, at + len(text.strings)
        if places.isdisjoint(range(begin, at)):
            continue
        sent[text.path] = text.with_strings(check.texts[begin:at])
        if restores:
            # What has not changed has no placeholder: numbers that stand in a text are not issued.
            own = [check.own(place) if place in places else check.texts[place] for place in range(begin, at)]
            kept[text.path] = text.with_strings(own)
        if not check.masked.isdisjoint(range(begin, at)):
            left_out.update(dict.fromkeys(text.proofs))
    return NewTexts(sent, kept if restores else sent, left_out)
