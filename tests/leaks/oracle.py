"""What must stand in a whole text once guards have seen it, by others' code.

Patterns are judged by RE2 with `longest_match`, cards and accounts by python-stdnum, addresses by `ipaddress`; forms of
kinds by `re`, place by place. Own words come back by a replacement in the whole text. Nothing of `gai_fast` is
imported.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import re2
from stdnum import iban, luhn

Span = tuple[int, int, str]
"""The begin and the end of a match, and its category."""


@dataclass(frozen=True)
class Wanted:
    """A guard, in the words of the configuration."""

    use: Literal["patterns", "words", "pii"]
    action: Literal["mask", "stop", "flag"] = "mask"
    patterns: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    normalize: bool = False


MARK = "\u00a7"
"""What judges of cases flag: one character, so that no piece of a text can cut it."""


@dataclass(frozen=True)
class Judged:
    """A guard with a judge that flags each `MARK`.

    Args:
        action: What happens to a mark.
        is_patient: Whether answers come in the order of the questions.
        fails: Whether the judge fails at a question, and the guard is closed then.
    """

    action: Literal["mask", "stop", "flag"]
    is_patient: bool
    fails: bool = False


@dataclass(frozen=True)
class Seen:
    """A text behind guards.

    Args:
        text: What the client gets.
        stopped: Whether the stream ends there.
        matches: The number of matches.
    """

    text: str
    stopped: bool
    matches: int


def seen(
    text: str, guards: Sequence[Wanted], judged: Judged | None = None, own: Mapping[str, str] | None = None
) -> Seen:
    """Returns what guards let through of a whole text, one behind the other, then a judge, with own words put back.

    Args:
        text: The text.
        guards: The guards.
        judged: The guard with a judge. None if there is none.
        own: The own words of each placeholder.
    """
    stopped, count = False, 0
    for guard in guards:
        parts: list[str] = []
        at = 0
        for begin, end, category in matches(text, guard):
            parts.append(text[at:begin])
            at = max(at, begin)
            count += 1
            if guard.action == "stop":
                stopped = True
                break
            if guard.action == "mask":
                parts.append(f"[{category}]")
                at = end
        else:
            parts.append(text[at:])
        text = "".join(parts)
    if judged is not None and MARK in text:
        count += text.count(MARK)
        if judged.action == "stop":
            stopped, text = True, text.partition(MARK)[0]
        elif judged.action == "mask":
            text = text.replace(MARK, "[policy]")
    return Seen(restored(text, own), stopped, count) if own else Seen(text, stopped, count)


def placeholders(own: Sequence[tuple[str, str]], said: str) -> dict[str, str]:
    """Returns the own words of each placeholder.

    Args:
        own: The kind and the own words of each match, in the order of the conversation.
        said: The text of the conversation, whose numbers are skipped.
    """
    found: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for kind, value in dict.fromkeys(own):
        number = numbers.get(kind, 0) + 1
        while f"<{kind.upper()}_{number}>" in said:
            number += 1
        numbers[kind] = number
        found[f"<{kind.upper()}_{number}>"] = value
    return found


def restored(text: str, own: Mapping[str, str]) -> str:
    """Returns a whole text with own words in place of their placeholders."""
    return re.sub("<[A-Z_]+_[0-9]+>", lambda found: own.get(found[0], found[0]), text)


IGNORED: Final = "\u00ad\u200b\u200d\u2060\ufe0f\ufeff"
"""Some characters that do not count if text is normalized."""
LOOK_ALIKES: Final = {"а": "a", "е": "e", "к": "k", "о": "o", "с": "c", "х": "x", "ѕ": "s", "α": "a", "ο": "o"}
"""Some Cyrillic and Greek letters, with the Latin ones that they look like."""


def matches(text: str, guard: Wanted) -> Iterator[Span]:
    """Yields a guard's matches in a whole text: the leftmost, and of those the longest."""
    if not guard.normalize:
        yield from _matches(text, guard)
        return
    compared: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for each in "" if character in IGNORED else unicodedata.normalize("NFKC", character):
            compared.append(LOOK_ALIKES.get(each, each))
            places.append(place)
    last = 0
    for begin, end, category in _matches("".join(compared), guard):
        behind = places[end - 1] + 1
        if behind > last:  # else another part of the same character has matched
            yield places[begin], behind, category
            last = behind


def _matches(text: str, guard: Wanted) -> Iterator[Span]:
    if guard.use == "patterns":
        for found in _compiled(guard.patterns).finditer(text):
            yield (*found.span(), "patterns")
    elif guard.use == "words":
        for found in _whole_words(guard.words).finditer(text):
            yield (*found.span(), "words")
    else:
        yield from _kinds(text, guard.kinds)


def _kinds(text: str, kinds: Sequence[str]) -> Iterator[Span]:
    begins = dict.fromkeys(kinds, -1)  # where each form is next, whatever its check says
    at = 0
    while True:
        for kind, begin in begins.items():
            if begin < at:
                found = _form(kind)[0].search(text, at)
                begins[kind] = len(text) if found is None else found.start()
        at = min(begins.values())
        if at == len(text):
            return
        longest = max((_longest(kind, text, at), -order) for order, kind in enumerate(kinds) if begins[kind] == at)
        if longest[0] > at:
            yield at, longest[0], kinds[-longest[1]]
            at = longest[0]
        else:
            at += 1


@cache
def _compiled(patterns: tuple[str, ...]) -> Any:
    options = re2.Options()
    options.longest_match = True
    options.log_errors = False
    return re2.compile("|".join(f"(?:{each})" for each in patterns), options)


@cache
def _whole_words(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    letter = "[^\\W\u4e00-\u9fff]"  # Chinese characters need no space between words
    return re.compile(f"(?<!{letter})(?:{'|'.join(map(re.escape, longest_first))})(?!{letter})", re.IGNORECASE)


# ---- kinds of personal data: the table of the specification ----------------------------------------------------------


def _is_card(text: str) -> bool:
    return bool(luhn.is_valid(re.sub("[ -]", "", text)))


def _is_account(text: str) -> bool:
    plain = text.replace(" ", "")
    return bool(iban.is_valid(plain, check_country=False)) and len(plain) == _ACCOUNTS.get(plain[:2])


_ACCOUNTS = {"DE": 22, "GB": 22, "FR": 27, "NL": 18, "NO": 15, "CH": 21}
"""The lengths of the accounts that cases have, by ISO 13616."""


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 or re.search("[0-9A-Fa-f]", text) is not None


def _is_number(text: str) -> bool:
    area, group, serial = text.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_token(text: str) -> bool:
    head = text.split(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        return False
    return isinstance(header, dict) and "alg" in header


def _always(text: str) -> bool:
    return True


_KINDS: dict[str, tuple[str, str, str, Callable[[str], bool]]] = {
    "email": (
        r"[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}",
        "[A-Za-z0-9._%+-]", "[A-Za-z0-9-]", _always,
    ),
    "phone": (r"\+[1-9]([ .()-]{0,2}[0-9]){7,14}", r"\w", "[0-9]", _always),
    "iban": (r"[A-Z]{2}[0-9]{2}( ?[A-Z0-9]){11,30}", r"\w", r"\w", _is_account),
    "card": (r"[2-6]([ -]?[0-9]){12,18}", r"[\w.-]", r"[\w-]", _is_card),
    "ip": (r"[0-9A-Fa-f:.]{2,45}", r"[\w.:]", r"[\w:]", _is_address),
    "ssn": (r"[0-9]{3}-[0-9]{2}-[0-9]{4}", r"[\w-]", r"[\w-]", _is_number),
    "jwt": (
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{8,}", r"[\w.-]", r"[\w-]", _is_token,
    ),
    "api_key": (
        r"sk-[A-Za-z0-9_-]{20,200}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[bp]-[A-Za-z0-9-]{20,100}"
        r"|AIza[A-Za-z0-9_-]{35}|glpat-[A-Za-z0-9_-]{20}",
        r"[\w-]", r"[\w-]", _always,
    ),
    "url_credentials": (r"(?<=://)[^\s/:@?#]{1,100}:[^\s/@]{1,200}(?=@)", "", "", _always),
}  # fmt: skip
"""The form of each kind, what must not stand before and behind it, and its check."""


@cache
def _form(kind: str) -> tuple[re.Pattern[str], re.Pattern[str] | None, re.Pattern[str] | None]:
    form, before, behind, _ = _KINDS[kind]
    return re.compile(form), re.compile(before) if before else None, re.compile(behind) if behind else None


def _longest(kind: str, text: str, at: int) -> int:
    """Returns the end of the longest match of a kind that begins at a place, or -1."""
    form, before, behind = _form(kind)
    found = form.match(text, at)
    if found is None or (before is not None and at > 0 and before.match(text[at - 1])):
        return -1
    check = _KINDS[kind][3]
    for end in range(found.end(), at, -1):
        if behind is not None and end < len(text) and behind.match(text[end]):
            continue
        whole = form.match(text, at) if end == found.end() else form.fullmatch(text, at, end)
        if kind == "url_credentials" and end != found.end():
            whole = form.fullmatch(text, at, end) if text[end : end + 1] == "@" else None
        if whole is not None and whole.end() == end and check(text[at:end]):
            return end
    return -1
