"""Prices: the price of a `[[model]]`, and the price list that `[prices] file` names.

Owns the form of the list. A mistake in the list is a mistake in the configuration: the problem names the list's file
and line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from gai_fast.config.checks import PRICES, price
from gai_fast.config.file import ConfigFile
from gai_fast.config.limits import LIMITS
from gai_fast.config.problems import ConfigError, Problems, nearest, shown
from gai_fast.model.money import USD, amount_of
from gai_fast.model.settings import Price, PriceSettings
from gai_fast.providers import provider_names

_TOP: Final = ("date", "currency", "price")
_ENTRY: Final = ("provider", "id", *PRICES)
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_REPORTED: Final = 10
"""The most mistakes of one list that are reported: further ones mostly repeat the first."""


def build_price(table: Mapping[str, Any], currency: str) -> Price:
    """Builds the price from a table.

    Args:
        table: Units of currency for a million tokens, and for each request, accepted by `checks.price`.
        currency: The currency.
    """
    amounts = {name: amount_of(figure, LIMITS.price) or 0 for name, figure in table.items()}
    into, out = amounts.get("input", 0), amounts.get("output", 0)
    return Price(
        input=into,
        output=out,
        cached_input=amounts.get("cached_input", into),
        cache_write=amounts.get("cache_write", into),
        reasoning=amounts.get("reasoning", out),
        currency=currency,
        cache_write_1h=amounts.get("cache_write_1h"),
        request=amounts.get("request", 0),
        web_search=amounts.get("web_search", 0),
        image=amounts.get("image", 0),
    )


def read_price_list(path: Path, origin: str, problems: Problems) -> PriceSettings:
    """Reads a price list.

    Args:
        path: The list's file.
        origin: The place in the configuration that names the list.
        problems: Collects mistakes; if there are any, the returned prices are not usable.
    """
    try:
        file = ConfigFile(path, missing="write the list, or correct its path")
    except ConfigError as problem:
        problems.add(origin, f"`file` in [prices]: the price list cannot be used: {problem}")
        return PriceSettings()
    reader = _Reader(file)
    prices = reader.read()
    for where, what in reader.mistakes[:_REPORTED]:
        problems.add(where, what)
    if len(reader.mistakes) > _REPORTED:
        problems.add(str(path), f"{len(reader.mistakes) - _REPORTED} more mistakes")
    return prices


class _Reader:
    """Reads one list. It continues after a mistake, so that all mistakes are reported at once."""

    def __init__(self, file: ConfigFile) -> None:
        self._file = file
        self.mistakes: list[tuple[str, str]] = []

    def read(self) -> PriceSettings:
        tables = self._file.tables
        for name in tables:
            if name not in _TOP:
                self._wrong((name,), f"unknown key {shown(name)} in a price list{nearest(name, _TOP)}")
        currency = tables.get("currency", USD)
        if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
            self._wrong(
                ("currency",), f'`currency` must be three capital letters, such as "USD", not {shown(currency)}'
            )
            currency = USD
        entries = tables.get("price", [])
        if not isinstance(entries, list):
            self._wrong(("price",), "[price] must be [[price]]: there may be several")
            entries = []
        if len(entries) > LIMITS.price_list:
            self._wrong(("price",), f"there are more than {LIMITS.price_list} entries: leave out those not in use")
            entries = []
        listed: dict[tuple[str, str], Price] = {}
        for index, entry in enumerate(entries):
            self._read_entry(index, entry, currency, listed)
        return PriceSettings(MappingProxyType(listed), {}, self._date(), currency)

    def _date(self) -> str | None:
        given = self._file.tables.get("date")
        if given is None:
            return None
        if isinstance(given, datetime):
            return given.date().isoformat()
        if isinstance(given, date):
            return given.isoformat()
        try:
            return date.fromisoformat(given).isoformat()
        except (TypeError, ValueError):
            self._wrong(("date",), f"`date` must be a date, such as 2026-11-20, not {shown(given)}")
            return None

    def _read_entry(self, index: int, entry: Any, currency: str, listed: dict[tuple[str, str], Price]) -> None:
        at = ("price", index)
        if not isinstance(entry, dict):
            self._wrong(at, f"entry {index + 1} of `price` must be a table")
            return
        unknown = [name for name in entry if name not in _ENTRY]
        for name in unknown:
            self._wrong((*at, name), f"unknown key {shown(name)} in [[price]]{nearest(name, _ENTRY)}")
        provider, identifier = entry.get("provider"), entry.get("id")
        for name, value in (("provider", provider), ("id", identifier)):
            if not isinstance(value, str) or not value:
                self._wrong((*at, name), f"`{name}` in [[price]] must be a string that is not empty")
        try:
            price({name: figure for name, figure in entry.items() if name in PRICES})
        except ValueError as problem:
            self._wrong(at, f"[[price]] of {shown(identifier)} {problem}")
            return
        if unknown or not isinstance(provider, str) or not isinstance(identifier, str) or not provider:
            return
        key = provider.partition(":")[0], identifier  # all APIs of a provider have equal prices
        if key[0] not in provider_names():
            self._wrong((*at, "provider"), f"no provider is named {shown(provider)}{nearest(key[0], provider_names())}")
            return
        if key in listed:
            self._wrong(at, f"a second [[price]] of {shown(identifier)} of {shown(key[0])}: leave one out")
            return
        listed[key] = build_price({name: entry[name] for name in PRICES if name in entry}, currency)

    def _wrong(self, at: tuple[str | int, ...], what: str) -> None:
        self.mistakes.append((self._file.where(*at), what))
