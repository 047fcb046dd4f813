"""The facts of models, from `models.toml`, by provider and pattern of the id, and corrections of a configuration.

`tools/model_facts.py` writes the file. A provider's part of it is read at the first request that needs a fact. What is
not known is None, and providers add and refuse nothing for it.

1. The longest pattern that matches an id counts, alone: facts of a shorter pattern are not added.
2. `*` in a pattern stands for any text.
3. Providers without rows of their own have the rows of the provider whose models they serve.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from gai_fast.model.limits import SHARED

Thinking = Literal["disabled", "between_tools", "adaptive", "budget", "level"]
Sampling = Literal["both", "one", "none"]

SCALE: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""The efforts, from the least on."""
_WORDS: Final = (*SCALE, "default")
_SAME_MODELS: Final[Mapping[str, str]] = {"azure": "openai"}


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a model. None means unknown."""

    max_output: int | None = None
    """The most tokens of an answer, thinking included."""
    thinking: tuple[Thinking, ...] | None = None
    """The ways in which thinking is controlled. Without `disabled` and `between_tools` the model always thinks; with
    `disabled` alone it never does."""
    least_budget: int | None = None
    """The least tokens of thinking that may be asked for."""
    efforts: tuple[str, ...] | None = None
    """The words for the effort that the model takes, from the least on; empty: it takes none."""
    sampling: Sampling | None = None
    """Whether `temperature` and `top_p` are taken: both, one of them, none."""
    sampling_with_thinking: bool | None = None
    """Whether sampling parameters are taken by a model that thinks."""
    thinks_with_tools: bool | None = None
    """Whether the chat API takes functions of a model that thinks. Other APIs always do."""
    forced_tool: bool | None = None
    """Whether a call can be demanded."""
    prefill: bool | None = None
    """Whether an assistant message at the end is continued."""
    system_in_middle: bool | None = None
    """Whether a system message may follow other messages."""
    schema: bool | None = None
    """Whether answers can be bound to a JSON schema."""
    images: bool | None = None
    """Whether images are read."""
    window: int | None = None
    """The most tokens that the model reads. Counts above it and above the text's are an upstream's mistake."""
    never_thinks: bool = field(init=False, repr=False, compare=False)
    """Whether the model has no thinking; no fact of its own. A property costs each request 600 instructions more."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "never_thinks", self.thinking == ("disabled",))

    @property
    def always_thinks(self) -> bool:
        """Whether thinking cannot be turned off."""
        return self.thinking is not None and not {"disabled", "between_tools"} & {*self.thinking}


def nearest_effort(words: Sequence[str], wanted: str) -> str | None:
    """Returns the nearest word for an effort, above or below it. Thinking that is asked for is never turned off.

    Args:
        words: The words that are taken, from the least on.
        wanted: One of `SCALE`.

    Returns:
        The word. None if there is none.
    """
    if wanted in words:
        return wanted
    known = [word for word in words if word in SCALE and word != "none"]
    if not known:
        return "default" if "default" in words else None
    at = SCALE.index(wanted)
    return min(known, key=lambda word: (abs(SCALE.index(word) - at), SCALE.index(word) < at))


FACTS: Final = tuple(each.name for each in fields(Facts) if each.init)
"""The names of all facts."""

NOTHING: Final = Facts()

_WHOLE: Final = {"max_output", "window", "least_budget"}
_LISTS: Final[Mapping[str, tuple[str, ...]]] = {"thinking": get_args(Thinking), "efforts": _WORDS}


def checked_facts(value: Any) -> Mapping[str, Any]:
    """Checks a table of facts, and returns the facts by name.

    Args:
        value: A value of TOML.

    Raises:
        ValueError: It is no table of facts. The text names the rule and never repeats a value.
    """
    if not isinstance(value, dict):
        raise ValueError(f"must be a table with some of {', '.join(FACTS)}")
    return MappingProxyType({name: _checked(name, given) for name, given in value.items()})


def _checked(name: str, given: Any) -> Any:
    if name in _WHOLE:
        if type(given) is int and 1 <= given <= SHARED.max_tokens:
            return given
        raise ValueError(f"must have a whole number for {name}, 1 to {SHARED.max_tokens}")
    if name in _LISTS:
        words = _LISTS[name]
        if isinstance(given, list) and all(word in words for word in given) and len({*given}) == len(given):
            return tuple(given)
        raise ValueError(f"must have a list for {name}, of {', '.join(words)}, each at most once")
    if name == "sampling":
        if given in get_args(Sampling):
            return given
        raise ValueError(f"must have {' or '.join(get_args(Sampling))} for sampling")
    if name not in FACTS:
        raise ValueError(f"must have facts; known: {', '.join(FACTS)}")
    if type(given) is not bool:
        raise ValueError(f"must have true or false for {name}")
    return given


@cache
def _rows(provider: str) -> tuple[tuple[str, Facts], ...]:
    """Returns the patterns of a provider and their facts, the longest pattern first."""
    named = _SAME_MODELS.get(provider, provider)
    known = _tables(f"[{named}.").get(named, {})
    rows = [(pattern, Facts(**checked_facts(facts))) for pattern, facts in known.items()]
    return tuple(sorted(rows, key=lambda row: -len(row[0])))


_TABLE: Final = re.compile(r"^(?=\[)", re.M)
"""The beginnings of tables."""


def _tables(beginning: str) -> dict[str, Any]:
    """Returns the tables of the file whose heads begin so. tomllib reads the whole file in 5 ms."""
    text = files("gai_fast.providers").joinpath("models.toml").read_text("utf-8")
    return tomllib.loads("".join(part for part in _TABLE.split(text) if part.startswith(beginning)))


@cache
def _usual() -> Mapping[str, Sequence[str]]:
    usual: Mapping[str, Sequence[str]] = _tables("[usual]")["usual"]
    return usual


def usual_ids(provider: str) -> Sequence[str]:
    """Returns the ids of a provider that a server without a configuration file offers, the usual one first.

    Args:
        provider: The provider's name, without an API.
    """
    return _usual().get(provider, ())


def pattern_of(provider: str, model: str) -> str | None:
    """Returns the pattern whose facts a model has. None if nothing is known of it.

    Args:
        provider: The provider's name, without an API.
        model: The upstream's id of the model.
    """
    return next((pattern for pattern, _ in _rows(provider) if _matches(model, pattern)), None)


@lru_cache(SHARED.known_values)
def facts_of(provider: str, model: str) -> Facts:
    """Returns the facts about a model.

    Args:
        provider: The provider's name, without an API.
        model: The upstream's id of the model.
    """
    return next((facts for pattern, facts in _rows(provider) if _matches(model, pattern)), NOTHING)


def corrected(facts: Facts, corrections: Mapping[str, Any]) -> Facts:
    """Returns facts with the corrections of a configuration.

    Args:
        facts: What is known.
        corrections: The result of `checked_facts`.
    """
    return replace(facts, **corrections)


def _matches(model: str, pattern: str) -> bool:
    """Returns whether an id matches a pattern, in which only `*` is special."""
    return fnmatchcase(model, pattern.replace("[", "[[]").replace("?", "[?]"))
