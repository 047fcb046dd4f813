"""The values of a key that an admin makes at run time: read by the rules of a `[[key]]`, and kept in the store.

Owns the form of these values in a request and in the store. The secret and the records are not here.

1. A request has the names of a `[[key]]`; the limits may stand in `limits` too, as the admin API shows them. `null`
   means that a key does not say it: then `[key_defaults]` counts.
2. The role is `user`, whatever `[key_defaults]` says, or `metrics`. A key of that role has no models, and in the store
   it says so: a release that does not know the role lets it use nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from gai_fast.config.keys import KEY, KEY_DEFAULTS, OF_MODELS
from gai_fast.config.problems import nearest, shortened, shown
from gai_fast.config.resolution import new_key
from gai_fast.model.errors import Error
from gai_fast.model.settings import LIMITS_OF_KEY, KeySettings, Settings
from gai_fast.model.tool_rules import AllowedTools, ToolPatterns

STORED: Final = tuple(KEY_DEFAULTS)
"""The names of the values that the store keeps."""
ROLES: Final = ("user", "metrics")
"""The roles of a key of the store, the usual one first."""
_VALUES: Final = tuple(name for name in STORED if name != "role")


def read_name(value: Any) -> str:
    """Returns the name of a new key.

    Args:
        value: The member of the request; None if it is missing.

    Raises:
        InvalidRequest: It is no name that a `[[key]]` may have.
    """
    if value is None:
        raise _invalid("`name` is missing: a name for the caller, such as website", "name")
    name: str = _read("name", value)
    return name


def read_values(given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Returns the values of a key in a request, in the store's form. None stands for `null`.

    Args:
        given: The request, without the name of the key.
        settings: The configuration, which has the models and upstreams that the key may name.

    Raises:
        InvalidRequest: It has an unknown member, or one whose value a `[[key]]` may not have.
    """
    said: dict[str, Any] = {}
    for name, value in given.items():
        if name == "limits":
            if not isinstance(value, dict):
                raise _invalid("`limits` must be an object", name)
            _add(said, value, LIMITS_OF_KEY)
        elif name == "role":
            if value is not None and value not in ROLES:
                text = f"`role` must be {' or '.join(ROLES)}: only a [[key]] of the file may be an admin's"
                raise _invalid(text, name)
            said[name] = value
        else:
            _add(said, {name: value}, _VALUES)
    if said.get("role") == "metrics":
        for name in OF_MODELS:
            if said.get(name) is not None:
                raise _invalid(f"`{name}` has no meaning for the role metrics, which may read /metrics alone", name)
        said["models"] = []
    values: dict[str, Any] = {}
    for name, value in said.items():
        read = None if value is None else _read(name, value)
        if read is not None and name == "models":
            _check_models(read, settings)
        elif read is not None and name == "lane":
            _check_passed_upstreams(read, settings)
        elif read is not None and name == "tools":
            _check_tools(read, settings)
        values[name] = _stored(read)
    return values


def key_of(name: str, digests: tuple[bytes, ...], values: Mapping[str, Any], settings: Settings) -> KeySettings:
    """Returns a key of the store, completed by `[key_defaults]`.

    Args:
        name: Its name.
        digests: The digests of its secrets.
        values: Its values in the store.
        settings: The configuration.

    Raises:
        ValueError: The values cannot be used.
    """
    read = {each: KEY_DEFAULTS[each].read(values[each]) for each in STORED if values.get(each) is not None}
    own, usual = new_key(name, digests, read), settings.key_defaults

    def one(each: str, mine: Any, otherwise: Any) -> Any:
        return mine if each in read else otherwise

    if own.role not in ROLES:
        raise ValueError(f"a key of the store has the role {own.role}")
    if own.role == "metrics":
        return KeySettings(name, digests, (), own.role, own.expires or usual.expires)
    limits = type(own.limits)(
        **{each: one(each, getattr(own.limits, each), getattr(usual.limits, each)) for each in LIMITS_OF_KEY}
    )
    rest = {each: one(each, getattr(own, each), getattr(usual, each)) for each in ("models", "expires")}
    rest["tools"] = one("tools", own.tools, usual.tools)
    rest["pass_upstreams"] = one("lane", own.pass_upstreams, usual.pass_upstreams)
    return KeySettings(name, digests, limits=limits, **rest)


def _add(said: dict[str, Any], given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name, value in given.items():
        if name not in known:
            others = () if known is LIMITS_OF_KEY else ("limits", "name")
            raise _invalid(f"unknown member {shown(name)} of a key{nearest(name, {*known, *others})}", "key")
        if name in said:
            raise _invalid(f"`{name}` is there twice: once in `limits`", name)
        said[name] = value


def _read(name: str, value: Any) -> Any:
    try:
        return KEY[name].read(value)
    except ValueError as problem:
        repeated = f", not {shown(value)}" if str(problem).startswith("must") else ""
        raise _invalid(f"`{name}` of a key {problem}{repeated}", name) from None


def _stored(value: Any) -> Any:
    """Returns a value in types that every store can keep; `Key.read` reads them again."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple):
        return [*value]
    return dict(value) if isinstance(value, Mapping) else value


def _check_models(names: tuple[str, ...], settings: Settings) -> None:
    for name in names:
        if "*" not in name and settings.model(name) is None:
            known = nearest(name, settings.models)
            raise _invalid(f"`models` of a key: no model is named {shown(name)}{known}", "models")


def _check_passed_upstreams(names: tuple[str, ...], settings: Settings) -> None:
    for name in names:
        upstream = settings.upstreams.get(name)
        if upstream is None:
            known = nearest(name, settings.upstreams)
            raise _invalid(f"`lane` of a key: no [[upstream]] is named {shown(name)}{known}", "lane")
        if not upstream.pass_paths:
            raise _invalid(f"`lane` of a key: [[upstream]] {shown(name)} offers no path", "lane")


def _check_tools(patterns: tuple[str, ...], settings: Settings) -> None:
    labels, own = [each.name for each in settings.tool_servers], [each.name for each in settings.tools]
    for pattern in patterns:
        allowed = AllowedTools([ToolPatterns([pattern])])
        if not allowed.servers(labels) and not allowed.own(own):
            raise _invalid(f"`tools` of a key: {shown(pattern)} names no tool of the gateway", "tools")


def _invalid(text: str, reason: str) -> Error:
    return Error("invalid_request", shortened(text), reason=reason)
