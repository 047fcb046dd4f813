"""The targets of a `[[model]]`: reads `upstream` and `id`, or `targets`, and finds the mistakes in either form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gai_fast.config.problems import Problems, Value, nearest, shown
from gai_fast.model.settings import TargetSettings, UpstreamSettings

_NEEDS_TARGETS = ("balance", "hedge_after")


def read_targets(
    name: str,
    table: Mapping[str, Value],
    upstreams: Mapping[str, UpstreamSettings],
    named: Mapping[str, object],
    problems: Problems,
) -> tuple[TargetSettings, ...]:
    """Returns the targets of a model; a model without `targets` has one. Returns no targets if there is a mistake,
    which is reported.

    Args:
        name: The model's name.
        table: The given, valid keys of the model's table.
        upstreams: The usable upstreams.
        named: All upstreams with a name; mistakes in them are already reported.
        problems: Collects mistakes.
    """
    if "targets" not in table:
        for key in _NEEDS_TARGETS:
            if key in table:
                what = f"`{key}` in [[model]] needs `targets`: there is nothing to choose from"
                problems.add(table[key].origin, what)
        if "upstream" not in table:
            return ()
        one = {"upstream": table["upstream"].value, "id": table["id"].value if "id" in table else name}
        return _found([one], table["upstream"], upstreams, named, problems)
    given = table["targets"]
    for key in ("upstream", "id"):
        if key in table:
            what = f"`{key}` in [[model]] beside `targets`: name it in a target, or leave `targets` out"
            problems.add(table[key].origin, what)
    targets = [{"id": name, **target} for target in given.value]
    _check(targets, table, problems)
    return _found(targets, given, upstreams, named, problems)


def _check(targets: list[dict[str, Any]], table: Mapping[str, Value], problems: Problems) -> None:
    """Reports mistakes that concern several targets."""
    origin = table["targets"].origin
    places: set[tuple[str, str]] = set()
    for target in targets:
        place = target["upstream"], target["id"]
        if place in places:
            what = f"`targets` in [[model]] has {shown(place[1])} of {shown(place[0])} twice: give it one weight"
            problems.add(origin, what)
        places.add(place)
    asked = [target for target in targets if target.get("weight", 1)]
    if not asked:
        problems.add(origin, "`targets` in [[model]] has no weight above 0: nothing would be asked")
    elif len(asked) == 1 and "hedge_after" in table:
        what = "`hedge_after` in [[model]] needs two targets with a weight above 0: the second is asked"
        problems.add(table["hedge_after"].origin, what)


def _found(
    targets: list[dict[str, Any]],
    given: Value,
    upstreams: Mapping[str, UpstreamSettings],
    named: Mapping[str, object],
    problems: Problems,
) -> tuple[TargetSettings, ...]:
    """Returns the targets with their upstreams; none if an upstream is unknown or has a mistake."""
    for target in targets:
        upstream = target["upstream"]
        if upstream not in named:
            near = nearest(upstream, named) if named else ": there is no [[upstream]]"
            problems.add(given.origin, f"no [[upstream]] is named {shown(upstream)}{near}")
    if any(target["upstream"] not in upstreams for target in targets):
        return ()
    return tuple(TargetSettings(**{**target, "upstream": upstreams[target["upstream"]]}) for target in targets)
