"""Random cases: guards, an answer with planted matches, cuts of its texts and its bytes, dialect, format and route."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal

from tests.leaks.oracle import IGNORED, LOOK_ALIKES, MARK, Judged, Wanted, placeholders
from tests.leaks.upstreams import CALLS, CITES, DIALECTS, TAKE_TURNS, Said
from tests.readers import LACKS, READERS

ROUTES: Final = ("streamed", "whole", "restarted", "continued")
"""Streamed; one object; the first attempt breaks, and another begins again; another repeats what was delivered."""

USES: Final[tuple[Literal["patterns", "words", "pii"], ...]] = ("patterns", "words", "pii")
ACTIONS: Final[tuple[Literal["mask", "stop", "flag"], ...]] = ("mask", "stop", "flag")
PATTERNS: Final[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = (
    (("sk-[a-z]{4,}",), ("sk-abcd", "sk-abcdefghij", "sk-sk-abcd")),
    (("a{1,9}b", "abc{2,4}"), ("aaab", "abcc", "abcccccc", "ab")),
    (("(?:ab){0,4}c", "b"), ("ababc", "c", "b", "abab")),
    (("x.{0,5}y", "yz"), ("x12345y", "xyz", "x\ny", "xxyyz")),
    (("[0-9]{2,4}-?[0-9]", "\U0001f600{1,3}"), ("12-3", "1234-5", "\U0001f600\U0001f600", "99999")),
    (("(?:foo|foobar)(?:baz)?", "bar"), ("foobarbaz", "foobar", "foo", "bar")),
    (("né[e]?", "[à-ÿ]{3}"), ("née", "né", "éàü", "éàüé")),
)
"""Rules of a guard, and texts of which most match."""
WORDS: Final = (
    (("kestrel", "two words"), ("kestrel", "Two Words", "KESTREL")),
    (("ab", "abc", "c d"), ("ab", "abc", "c d", "abcd")),
)
KINDS: Final[dict[str, tuple[str, ...]]] = {
    "email": ("a@x.com", "anna.b+c@mail.example.org", "a@b.c"),
    "phone": ("+49 30 1234567", "+1 (555) 010-9999", "+12"),
    "iban": ("DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19", "DE89370400440532013001"),
    "card": ("4111 1111 1111 1111", "5500-0000-0000-0004", "4111111111111112"),
    "ip": ("10.0.0.1", "2001:db8::1", "::ffff:10.0.0.1", "256.1.1.1", "fe80::1"),
    "ssn": ("078-05-1120", "666-05-1120"),
    "api_key": ("sk-" + "aB3" * 8, "AKIA" + "A1" * 8, "ghp_" + "x" * 36, "sk-short"),
    "jwt": (
        base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=") + ".eyJzdWIiOjF9.c2lnbmF0dXJl",
        "eyJhIjoxfQAA.eyJzdWIiOjF9.c2lnbmF0dXJl",
    ),
    "url_credentials": ("https://anna:secret@x.org/p", "://a:b@", "http://a:b/c@d"),
}
CHOSEN: Final = (*[(each,) for each in KINDS], ("email", "ip"), ("card", "iban", "phone"), tuple(KINDS))
"""The kinds of a guard. Few, because each guard has an automaton of its own."""
FILLER: Final = (
    "the", "plan", " ", " ", ", ", ". ", "\n", "a", "k", "s", "sk", "-", "x", "+", "4", "é", "漢字", "\U0001f600", "ß",
    "kes", "ey", "fo", "\u200b", "“", "two", '"', "\\", "1", "@", ":", "e\u0301", "<", "{", "}", "/",
)  # fmt: skip
TOKENS: Final = ("Der ", "Hund ", "mit ", "grünem ", "Hut ", "lief. ", "漢字 ", "\U0001f388 ", "Wo? ")
"""Texts without a match, none of which ends with the beginning of one."""
PLAIN: Final = 0.1
NORMALIZED: Final = 0.25
"""How many lists compare what text looks like."""
BETWEEN: Final = 0.3
"""How many texts have usage and citations between their pieces."""
TITLE: Final = "Title"
JUDGED: Final = 0.25
"""How many cases have a judge."""
OWN: Final = 0.25
"""How many cases have own words that come back."""
OWN_WORDS: Final = (
    ("email", "a@x.com"), ("email", "b@x.com"), ("phone", "+49 30 1234567"), ("api_key", "sk-" + "aB3" * 8),
    ("url_credentials", 'anna:"\\'), ("ip", "10.0.0.1"), *[("card", f"{number}") for number in range(12)],
)  # fmt: skip
"""Kinds and own words; of one kind there are more than nine."""
SPELLED: Final = ("<EMAIL_1", "<EMAIL_", "EMAIL_1>", "<email_1>", "<EMAIL_01>", "<EMAIL_99>", "<<EMAIL_1>", "<CARD_1")
"""What is no placeholder, or only nearly."""


@dataclass
class Case:
    """One stream.

    Args:
        dialect: The upstream's provider.
        form: The client's format.
        route: One of `ROUTES`.
        guards: The guards.
        texts: The text of each channel; a call's is JSON.
        pieces: The pieces of the answer, in order.
        reads: The sizes of the reads of the upstream's body; they repeat.
        is_plain: Whether no piece holds a match, or the beginning of one at its end.
        judged: The guard with a judge. None if there is none.
        own: The kind and the own words of each match of the request, in its order.
        said: The request's text, for numbers that are skipped.
    """

    seed: int
    dialect: str
    form: str
    route: str
    guards: list[Wanted]
    texts: dict[str, str] = field(default_factory=dict)
    pieces: list[Said] = field(default_factory=list)
    reads: list[int] = field(default_factory=list)
    is_plain: bool = False
    judged: Judged | None = None
    own: Sequence[tuple[str, str]] = ()
    said: str = ""

    @property
    def stops(self) -> bool:
        """Whether a guard stops streams."""
        is_judged = self.judged is not None and self.judged.action == "stop"
        return is_judged or any(each.action == "stop" for each in self.guards)

    @property
    def titles(self) -> list[str]:
        """The titles of its citations."""
        return [text for kind, text in self.pieces if kind == "citation"]

    @property
    def placeholders(self) -> dict[str, str]:
        """The own words of each placeholder."""
        return placeholders(self.own, self.said)


def takes_turns(case: Case) -> bool:
    """Returns whether a call goes on behind the beginning of the next one."""
    kinds = [kind for kind, _ in case.pieces]
    return "call2" in kinds and "call" in kinds[kinds.index("call2") :]


def make(seed: int) -> Case:
    """Returns the case of a seed."""
    random = Random(seed)
    dialect = random.choice([*DIALECTS])
    form = random.choice([*READERS])
    route = random.choice(ROUTES)
    if route == "restarted" and form != "gai":
        route = "streamed"  # other formats are not begun again once they have content
    guards, planted = _guards(random)
    case = Case(seed, dialect, form, route, guards, is_plain=random.random() < PLAIN)
    if random.random() < JUDGED:
        case.judged = Judged(random.choices(ACTIONS, (6, 2, 2))[0], random.random() < 0.5, random.random() < 0.1)
        planted += [MARK] * (1 + len(planted) // 4)
        if random.random() < 0.5:
            case.guards = []
    if random.random() < OWN:
        case.own = random.choices(OWN_WORDS, k=random.randint(1, 30))
        case.said = random.choice(("", "Is <EMAIL_1> or <CARD_3> known?"))
        planted += [*case.placeholders, *SPELLED]
    has = DIALECTS[dialect][1] - LACKS.get(form, frozenset())
    if "calls" in LACKS.get(form, ()):
        has = has - {"call"}
    channels = [each for each in ("reasoning", "text", "refusal", "call") if each in has]
    chosen = (
        ["text"]
        if case.stops and not case.is_plain
        else [each for each in channels if each == "text" or random.random() < 0.35]
    )
    if "call" in chosen and random.random() < 0.5:
        chosen.append("call2")
    if "refusal" in chosen and random.random() < 0.5:
        chosen.remove("text")
    for channel in chosen:
        if case.is_plain:
            pieces = random.choices(TOKENS, k=random.randint(1, 24))
            if channel in CALLS:
                pieces = ['{"q": "', *pieces, '"}']
            text = "".join(pieces)
        else:
            # A mark in arguments ends the stream, whatever the action is: that is a case of its own.
            unmarked = [each for each in planted if each != MARK]
            text = _arguments(random, unmarked) if channel in CALLS else _text(random, planted)
            pieces = _cut(random, text)
        case.texts[channel] = text
        said = [*[(channel, "")] * (channel in CALLS), *[(channel, each) for each in pieces]]
        if channel == "text" and random.random() < BETWEEN:
            says_title = not case.is_plain and not case.stops and case.judged is None
            _put_between(random, said, planted if says_title else [], cites=dialect in CITES)
        if channel == "call2" and dialect in TAKE_TURNS:
            _take_turns(random, case.pieces, said)
        else:
            case.pieces += said
    case.reads = [random.choice((1, 7, 64, 1000, 10_000)) for _ in range(random.randint(1, 3))]
    return case


def _guards(random: Random) -> tuple[list[Wanted], list[str]]:
    guards: list[Wanted] = []
    planted: list[str] = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        action = random.choices(ACTIONS, (6, 2, 1))[0]
        use = random.choice(USES)
        is_normal = random.random() < NORMALIZED
        if use == "patterns":
            patterns, texts = random.choice(PATTERNS)
            guards.append(Wanted(use, action, patterns=patterns, normalize=is_normal))
        elif use == "words":
            words, texts = random.choice(WORDS)
            guards.append(Wanted(use, action, words=words, normalize=is_normal))
        else:
            kinds = random.choice(CHOSEN)
            texts = tuple(each for kind in kinds for each in KINDS[kind])
            guards.append(Wanted(use, action, kinds=kinds))
        planted += texts
        if guards[-1].normalize:
            planted += [_disguised(random, each) for each in texts]
    return guards, planted


def _disguised(random: Random, text: str) -> str:
    """Returns a text that looks like another one, or nearly."""
    looks = {letter: each for each, letter in LOOK_ALIKES.items()}
    looks |= {"1": "\uff11", "-": "\uff0d", "b": "\uff42", "f": "\uff46", "e": "\uff45"}
    found = text.replace("fo", "\ufb01o") if random.random() < 0.2 else text
    ways = [("", 6), *[(each, 1) for each in IGNORED]]
    between = random.choices([each for each, _ in ways], [weight for _, weight in ways], k=len(found))
    return "".join(
        [
            (looks.get(each, each) if random.random() < 0.4 else each) + more
            for each, more in zip(found, between, strict=True)
        ]
    )


def _put_between(random: Random, said: list[Said], planted: list[str], *, cites: bool) -> None:
    """Puts usage and citations between the pieces of a text.

    Args:
        random: Chooses them.
        said: The pieces, of which the first remains the first.
        planted: What may stand in their titles.
        cites: Whether there are citations.
    """
    for _ in range(random.randint(1, 4)):
        title = _text(random, planted) if planted and random.random() < 0.7 else TITLE
        between = ("citation", title) if cites and random.random() < 0.6 else ("usage", "")
        at = random.randint(1, len(said))
        if not "\ud800" <= said[at - 1][1][-1:] <= "\udbff":  # no upstream has an event between two halves
            said.insert(at, between)


def _take_turns(random: Random, pieces: list[Said], said: list[Said]) -> None:
    """Puts the pieces of a call among those of the call before."""
    at = next(place for place, (kind, _) in enumerate(pieces) if kind == "call") + 1
    for each in said:
        at = random.randint(at, min(at + 4, len(pieces)))
        pieces.insert(at, each)
        at += 1


def _text(random: Random, planted: list[str]) -> str:
    parts = [
        random.choice(planted) if random.random() < 0.2 else random.choice(FILLER) for _ in range(random.randint(1, 24))
    ]
    return "".join(parts)


def _arguments(random: Random, planted: list[str]) -> str:
    value: Any = {_text(random, planted): _text(random, planted), "n": 10**20, "l": [_text(random, planted), None]}
    return json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice((None, 1)))


def _cut(random: Random, text: str) -> list[str]:
    """Returns a text in pieces: of single characters, of random sizes, or at one place. Surrogates are cut too."""
    units = _halves(text) if random.random() < 0.3 else [*text]
    way = random.random()
    if way < 0.2:
        return units
    pieces: list[str] = []
    at = 0
    while at < len(units):
        size = random.randint(1, 6) if way < 0.8 else random.randint(1, len(units))
        pieces.append("".join(units[at : at + size]))
        at += size
    return pieces


def _halves(text: str) -> list[str]:
    """Returns the UTF-16 code units of a text."""
    data = text.encode("utf-16-le")
    return [data[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(data), 2)]
