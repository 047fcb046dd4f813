"""`[[issuer]]`: the issuers of callers' tokens.

Fetches nothing: `net/issuers/` does that once the gateway runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gai_fast.config.checks import PRINTABLE, base_url
from gai_fast.config.problems import Problems, Value, shown
from gai_fast.model.addresses import is_https_or_loopback
from gai_fast.model.version import installing
from gai_fast.net.issuers.key_set import is_installed


def issuer_url(value: str) -> str:
    """Checks the URL of an issuer, and leaves it as it is: tokens must have exactly this one."""
    base_url(value)
    if not is_https_or_loopback(value):
        raise ValueError("must begin with https://, or with http:// and a loopback host")
    return value


def audience(value: str) -> str:
    """Accepts any text without blanks around it."""
    if value != value.strip():
        raise ValueError("must not begin or end with a blank")
    return value


def claim(value: str) -> str:
    """Checks the name of a claim."""
    if not PRINTABLE.fullmatch(value):
        raise ValueError("must be one printable ASCII word, such as sub or email")
    return value


def check_issuers(tables: Sequence[Mapping[str, Value]], keys: Collection[str], problems: Problems) -> None:
    """Reports conflicts between the `[[issuer]]` tables, and a missing extra.

    Args:
        tables: The given, valid keys of each table.
        keys: The names of the `[[key]]` tables.
        problems: Collects mistakes.
    """
    if tables and not is_installed():
        origin = next((each.origin for each in tables[0].values()), "[[issuer]]")
        problems.add(origin, f"[[issuer]] needs packages that are not there: {installing('jwt')}")
    seen: dict[tuple[str, str], Value] = {}
    for table in tables:
        if "name" in table and table["name"].value in keys:
            what = f"`name` in [[issuer]]: a [[key]] is named {shown(table['name'].value)}, too"
            problems.add(table["name"].origin, f"{what}, and figures would not tell them apart")
        if "url" in table and "audience" in table:
            pair = table["url"].value, table["audience"].value
            first = seen.setdefault(pair, table["url"])
            if first is not table["url"]:
                what = "a second [[issuer]] has this `url` and `audience`"
                problems.add(table["url"].origin, f"{what}, as at {first.origin}: a token has one caller")
