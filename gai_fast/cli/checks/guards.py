"""What `gai-fast check` says of guards: for which models and callers each holds, and which routes they close.

Prints nothing, and asks no judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gai_fast.model.guard_rules import GuardRules, Names
from gai_fast.model.pass_paths import offered_methods
from gai_fast.model.settings import ANONYMOUS, CREDENTIAL_NAME, STREAM_SIDES
from gai_fast.providers.requests.routes import (
    EDITS,
    EMBEDDINGS,
    IMAGES,
    MODERATIONS,
    RERANK,
    SPEECH,
    TRANSCRIPTIONS,
    TRANSLATIONS,
)

if TYPE_CHECKING:
    from gai_fast.model.settings import GuardSettings, Settings

_CLOSED_TO_ALL: Final = ("format=raw", "/v1/responses/compact")
"""What no guard can look into."""
_TOKENS: Final = "prompts of token ids"
_SPEECH_AS_TEXT: Final = (TRANSCRIPTIONS, TRANSLATIONS)
"""Routes of a `lane` that answer with text. Their forms are closed at the upstream, as are those of edits, which have a
text."""
_JSON: Final = (EMBEDDINGS, MODERATIONS, RERANK, IMAGES, EDITS, SPEECH)
"""Routes of a `lane` whose requests are JSON with text in it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one guard holds.

    Attributes:
        guard: Its name.
        use: Its use.
        action: Its action.
        on: What it sees.
        models: The names of the models for which it holds; `<upstream>/<id>` if it holds for an id of an upstream.
        keys: The patterns of its callers.
        restore: Whether the caller's own words come back.
    """

    guard: str
    use: str
    action: str
    on: tuple[str, ...]
    models: tuple[str, ...]
    keys: tuple[str, ...]
    restore: bool = False

    @property
    def line(self) -> str:
        """The line that is printed."""
        models = f"models {_listed(self.models)}" if self.models else "no model"
        callers = "every caller" if "*" in self.keys else f"callers {_listed(self.keys)}"
        action = f"{self.action} and restore" if self.restore else self.action
        what = f"{self.use}, {action} on {' and '.join(filter(None, (', '.join(self.on[:-1]), self.on[-1])))}"
        return f"guard {self.guard}: {what}; {models}; {callers}"


@dataclass(frozen=True, slots=True)
class Closed:
    """A route that is closed where a guard holds.

    Attributes:
        route: The route, or what a request asks of one.
        models: The models that cannot be asked there; empty for a route of an upstream.
        guards: The names of the guards that close it.
    """

    route: str
    models: tuple[str, ...]
    guards: tuple[str, ...]

    @property
    def line(self) -> str:
        """The line that is printed."""
        of = f" of {_listed(self.models)}" if self.models else ""
        return f"closed: {self.route}{of}, by {_listed(self.guards)}"


def held(settings: Settings) -> list[Held]:
    """Returns what each guard holds, in the order of the configuration."""
    return [
        Held(each.name, each.use, each.action, each.on, _models(each, settings), each.keys, each.restore)
        for each in settings.guards
    ]


def _models(guard: GuardSettings, settings: Settings) -> tuple[str, ...]:
    names = Names(guard.models)
    ids = (f"{each}/<id>" for each in settings.upstreams if names.has_below(f"{each}/"))
    return (*(each for each in settings.models if each in names), *ids)


def closed(settings: Settings) -> list[Closed]:
    """Returns the routes that guards close, for at least one caller."""
    if not settings.guards:
        return []
    models = {each.name: _models(each, settings) for each in settings.guards if _sees_streams(each)}
    on_input = {each.name for each in settings.guards if "input" in each.on}
    found = [_closed(route, models, models) for route in _CLOSED_TO_ALL]
    found.append(_closed(_TOKENS, models, on_input))
    for route in _JSON:
        upstreams = {name for name, each in settings.upstreams.items() if _has(each.pass_paths, route)}
        asked = {name: [each for each in of if _upstreams(each, settings) & upstreams] for name, of in models.items()}
        found.append(_closed(route, asked, on_input))
    return [each for each in found if each.guards] + list(_closed_at_upstreams(settings))


def _closed(route: str, models: dict[str, tuple[str, ...]] | dict[str, list[str]], guards: Iterable[str]) -> Closed:
    """Returns a route that some guards close for their models, which are given by guard."""
    closing = [name for name, of in models.items() if name in guards and of]
    return Closed(route, tuple(dict.fromkeys(each for name in closing for each in models[name])), tuple(closing))


def _sees_streams(guard: GuardSettings) -> bool:
    return any(each in STREAM_SIDES for each in guard.on)


def _upstreams(model: str, settings: Settings) -> set[str]:
    """Returns the upstreams of a model, which has a name or is any id of an upstream."""
    found = settings.models.get(model)
    if found is None:
        return {model.rpartition("/")[0]}
    return {place.upstream.name for place in found.targets or (found,)}


def _has(entries: tuple[str, ...], route: str) -> bool:
    return "POST" in offered_methods(entries, route[1:].split("/"))


def _closed_at_upstreams(settings: Settings) -> Iterator[Closed]:
    rules = GuardRules(settings)
    for name, upstream in settings.upstreams.items():
        guards = [each for each in rules.guards_at(name) if _sees_streams(each)]
        if not guards or not upstream.pass_paths:
            continue
        closing = tuple(each.name for each in guards)
        yield Closed(f"/p/{name}/…", (), closing)
        on_input = tuple(each.name for each in guards if "input" in each.on)
        for route, by in (*((each, closing) for each in _SPEECH_AS_TEXT), (EDITS, on_input)):
            if by and _has(upstream.pass_paths, route):
                yield Closed(f"{route} at {name}", (), by)


def guard_warnings(settings: Settings) -> list[str]:
    """Returns a warning for each guard that never holds, and for each key of a guard that has no effect."""
    found: list[str] = []
    for guard in settings.guards:
        if not _models(guard, settings):
            known = ", ".join(settings.model_names()) or "none"
            found.append(f"guard {guard.name}: never holds: `models` has no model that there is: {known}")
        elif not _has_caller(Names(guard.keys), settings):
            callers = [*(key.name for key in settings.keys), *(f"{each.name}:…" for each in settings.issuers)]
            known = ", ".join(callers) or ANONYMOUS
            found.append(f"guard {guard.name}: never holds: `keys` has no caller that there is: {known}")
        sides = [each for each in guard.on if each not in STREAM_SIDES]
        if sides and not any(
            settings.models[each].tools for each in _models(guard, settings) if each in settings.models
        ):
            shown = " and ".join(sides)
            found.append(f"guard {guard.name}: {shown} in `on` has no effect: its models use no tools of the gateway")
        if guard.judge is not None and guard.judge.max_exposure:
            why = "its flags wait for nothing" if guard.action == "flag" else "it sees no answers"
            if guard.action == "flag" or "output" not in guard.on:
                found.append(f"guard {guard.name}: `max_exposure` has no effect: {why}")
    return found


def _has_caller(keys: Names, settings: Settings) -> bool:
    """Returns whether a caller may have one of some names. An admin may make keys of any name."""
    return (
        any(key.name in keys or key.role == "admin" for key in settings.keys)
        or any(keys.has_below(f"{issuer.name}:") for issuer in settings.issuers)
        or (not settings.needs_key and (ANONYMOUS in keys))
        or (settings.takes_credentials and keys.has_below(CREDENTIAL_NAME))
    )


def _listed(names: tuple[str, ...]) -> str:
    """Returns some names for a line, and the number of the others."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


_SHOWN: Final = 10
"""The most names in a line."""
