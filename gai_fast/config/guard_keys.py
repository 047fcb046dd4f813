"""The keys of a `[[guard]]`: the purpose and the valid values of each, and which `use` each is of.

`guards.py` reads the tables: what their keys must not have together, files, upstreams and functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, get_args

from gai_fast.config import checks
from gai_fast.config.limits import LIMITS
from gai_fast.config.problems import nearest, shown
from gai_fast.config.values import Key, choice, fraction, seconds, switch, text, whole
from gai_fast.guards.limits import LIMITS as MATCHER
from gai_fast.model.settings import (
    CATEGORY,
    JUDGES,
    KINDS,
    MATCHERS,
    STREAM_SIDES,
    GuardAction,
    GuardSettings,
    GuardSide,
    GuardUse,
)

USES: Final[tuple[str, ...]] = get_args(GuardUse)
SIDES: Final[tuple[str, ...]] = get_args(GuardSide)
NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_SCORE: Final = fraction("")


def guard_name(value: str) -> str:
    """Checks the name of a `[[guard]]`."""
    if not NAME.fullmatch(value):
        raise ValueError("must be 1 to 32 characters of a-z 0-9 _ -")
    return value


def url(value: str) -> str:
    """Checks the URL of a hook, and leaves it as it is: a slash at its end may count."""
    checks.base_url(value)
    return value


def _label(value: str) -> str:
    if len(value) > LIMITS.guard_label or not value.isprintable():
        raise ValueError(f"must have at most {LIMITS.guard_label} printable characters")
    return value


def _caller_pattern(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be a list of names of callers, or of patterns such as web-*")
    return checks.model_name(value)


def _replacement(value: Any) -> str:
    # `text` refuses the empty string, which removes a match.
    if not isinstance(value, str) or len(value) > LIMITS.guard_replacement or not (value.isprintable() or not value):
        raise ValueError(f"must be a string of at most {LIMITS.guard_replacement} printable characters")
    return value


def _threshold(value: Any) -> Mapping[str, float]:
    if not isinstance(value, dict) or not 1 <= len(value) <= LIMITS.guard_thresholds:
        most = LIMITS.guard_thresholds
        raise ValueError(f"must be a table of 1 to {most} categories and scores, such as {{violence = 0.8}}")
    scores: dict[str, float] = {}
    for name, score in value.items():
        try:
            _label(name)
            scores[name] = _SCORE.read(score)
        except ValueError as problem:
            raise ValueError(f"has a score for {shown(name)} that {problem}, not {shown(score)}") from None
    return MappingProxyType(scores)


def _side(value: str) -> str:
    if value not in SIDES:
        raise ValueError(f"has {shown(value)}; known: {', '.join(SIDES)}")
    return value


def _kind(value: str) -> str:
    if value not in KINDS:
        raise ValueError(f"has the unknown kind {shown(value)}{nearest(value, KINDS)}")
    return value


def pattern(value: str) -> str:
    """Checks the length of a pattern; `gai_fast.guards.syntax` knows what it may have."""
    return _entry(value, MATCHER.pattern)


def word(value: str) -> str:
    """Checks the length of a word, or of several with blanks between them."""
    return _entry(value, LIMITS.guard_word)


def _entry(value: str, most: int) -> str:
    if not value.strip():
        raise ValueError("has an empty entry")
    if len(value) > most:
        raise ValueError(f"has an entry of more than {most} characters")
    return value


def _entries(
    about: str, most: int, check: Callable[[str], str], *names: str, secret: bool = False, example: Sequence[str] = ()
) -> Key:
    """Returns a key whose value is a list of texts that is not empty.

    Args:
        about: As for `Key`.
        most: The most entries.
        check: Returns an entry in its final form, or raises `ValueError`.
        names: The only valid entries, each at most once; none if there are others.
        secret: As for `Key`.
        example: As for `Key`.
    """

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ValueError("must be a list of strings")
        checked = tuple(dict.fromkeys(check(each) for each in value))
        if not 1 <= len(value) <= most:
            raise ValueError(f"must have 1 to {most} entries")
        if names and len(checked) < len(value):
            raise ValueError("has an entry twice")
        return checked

    items = {"enum": list(names)} if names else {"type": "string", "minLength": 1}
    schema: dict[str, Any] = {"type": "array", "items": items, "minItems": 1, "maxItems": most}
    return Key(about, {**schema, "uniqueItems": True} if names else schema, read, secret, tuple(example))


GUARD: Final[Mapping[str, Key]] = {
    "name": text("Its name in events, errors, figures and audit lines.", guard_name, f"^{NAME.pattern}$"),
    "use": choice("How it finds what must not pass; moderation, http and python ask for a verdict.", *USES),
    "on": _entries(
        "What it sees: what callers send, what models answer, what the gateway's tools get, and what these answer.",
        len(SIDES),
        _side,
        *SIDES,
    ),
    "action": choice(
        "mask: the match is replaced; stop: the request is refused, or the answer ends; flag: it is reported alone. By "
        "default mask; for moderation, http and python stop.",
        *get_args(GuardAction),
    ),
    "models": _entries(
        "The models for which it holds, as requests name them: names, and patterns with * ? [].",
        LIMITS.guard_names,
        checks.model_pattern,
    ),
    "keys": _entries(
        "The callers for whom it holds: names of keys, and patterns with * ? [].", LIMITS.guard_names, _caller_pattern
    ),
    "category": text("The category of its matches; by default what was found, or the use.", _label, example="secret"),
    "replacement": Key(
        f"What stands in place of a match; {CATEGORY} is its category.",
        {"type": "string", "maxLength": LIMITS.guard_replacement},
        _replacement,
    ),
    "normalize": switch("Whether invisible characters do not count, and look-alikes count as what they look like."),
    "patterns": _entries(
        "Patterns of texts: literals, classes, groups, |, ? * + {m,n}, (?i).",
        LIMITS.guard_patterns,
        pattern,
        secret=True,
        example=["sk-[A-Za-z0-9]{20,}"],
    ),
    "patterns_file": text(
        "A file of further patterns, one a line; # begins a comment. It is read again at every reload.",
        checks.path,
        example="patterns.txt",
    ),
    "words": _entries(
        "Words that are found whole, in capitals or not.",
        LIMITS.guard_words,
        word,
        secret=True,
        example=["kestrel", "two words"],
    ),
    "words_file": text("A file of further words, as patterns_file.", checks.path, example="words.txt"),
    "kinds": _entries("The kinds of personal data that it finds.", len(KINDS), _kind, *KINDS),
    "restore": switch("Whether models get placeholders such as <EMAIL_1>, and callers get their own words back."),
    "upstream": text("The [[upstream]] whose /moderations is asked, with its key.", checks.any_text, example="main"),
    "model": text("The model of the moderation; without one none is sent.", checks.model_name, example="omni"),
    "threshold": Key(
        "The least score that counts, by category; a category without one counts if it is flagged.",
        {
            "type": "object",
            "additionalProperties": dict(_SCORE.schema),
            "minProperties": 1,
            "maxProperties": LIMITS.guard_thresholds,
        },
        _threshold,
        example={"violence": 0.8},
    ),
    "url": text("Where each text is posted.", url, secret=True, example="https://policy.internal/check"),
    "headers": Key(
        "Headers of these requests; a value may be env:NAME or file:PATH.",
        {"type": "object", "additionalProperties": {"type": "string"}},
        checks.headers,
        secret=True,
    ),
    "ca_file": text(
        "File of certificate authorities for the url's certificate, in place of the system's (PEM).",
        checks.path,
        example="ca.pem",
    ),
    "python": text(
        "The function that gives the verdict, module:function; the file's folder is searched first.",
        checks.function,
        f"^{checks.FUNCTION.pattern}$",
        example="my_policy:check",
    ),
    "timeout": seconds("Longest time to a verdict."),
    "max_exposure": whole("Characters of an answer that may be sent before their verdict.", 0, LIMITS.guard_exposure),
    "on_failure": choice(
        "What happens if a verdict fails; closed: the request or the answer ends. By default closed; open if the "
        "action is flag.",
        "closed",
        "open",
    ),
}
GUARD_DEFAULTS: Final[Mapping[str, Any]] = {
    "on": STREAM_SIDES,
    "models": ("*",),
    "keys": ("*",),
    "replacement": GuardSettings("", "pii").replacement,
    "normalize": False,
    "kinds": KINDS,
    "restore": False,
    "headers": {},
    "timeout": 1.0,
    "max_exposure": 0,
}
_REPLACES: Final = (*MATCHERS, "http", "python")
USES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "replacement": _REPLACES,  # a moderation names no place, and masks nothing
    "normalize": ("patterns", "words"),
    "patterns": ("patterns",),
    "patterns_file": ("patterns",),
    "words": ("words",),
    "words_file": ("words",),
    "kinds": ("pii",),
    "restore": ("pii",),
    "upstream": ("moderation",),
    "model": ("moderation",),
    "threshold": ("moderation",),
    "url": ("http",),
    "headers": ("http",),
    "ca_file": ("http",),
    "python": ("python",),
    "timeout": JUDGES,
    "max_exposure": JUDGES,
    "on_failure": JUDGES,
}
"""The values of `use` that a key goes with; other keys go with all."""
NEEDED: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "patterns": (("patterns", "patterns_file"), 'such as patterns = ["sk-[A-Za-z0-9]{20,}"]'),
    "words": (("words", "words_file"), 'such as words = ["kestrel"]'),
    "moderation": (("upstream",), "the name of an [[upstream]]"),
    "http": (("url",), "where texts are posted"),
    "python": (("python",), 'the function that is asked, such as python = "my_policy:check"'),
}
"""The keys of which a guard needs one at least, by its `use`, and a hint for the message if it has none."""
REQUIRED_OF_GUARD: Final[Mapping[str, str]] = {
    "name": 'what events and errors call it, such as name = "secrets"',
    "use": f"one of {', '.join(USES)}",
}
