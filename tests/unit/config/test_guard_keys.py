"""`config/guard_keys.py`: the table of a guard's keys, and which `use` each is of."""

from __future__ import annotations

import pytest

from gai_fast.config.guard_keys import GUARD, GUARD_DEFAULTS, NEEDED, USES, USES_OF, pattern, url, word
from gai_fast.model.settings import JUDGES, MATCHERS


def test_each_key_is_of_all_uses_or_of_some() -> None:
    general = {"name", "use", "on", "action", "models", "keys", "category"}
    assert set(GUARD) == general | set(USES_OF)
    assert {use for uses in USES_OF.values() for use in uses} == set(USES) == {*MATCHERS, *JUDGES}
    assert all(use in USES_OF[name] for use, (names, _) in NEEDED.items() for name in names)


def test_each_key_has_a_default_an_example_or_known_values() -> None:
    needed = {name for names, _ in NEEDED.values() for name in names}
    for name, key in GUARD.items():
        assert name in GUARD_DEFAULTS or key.example or "enum" in key.schema or name in {*needed, "name"}, name
    for name, default in GUARD_DEFAULTS.items():
        given = list(default) if isinstance(default, tuple) else default
        assert GUARD[name].read(given) == default
    for name, key in GUARD.items():
        if key.example:
            given = list(key.example) if isinstance(key.example, tuple) else key.example
            assert key.read(given) == key.example, name


@pytest.mark.parametrize("value", ["https://a.example", "https://a.example/", "http://127.0.0.1:9/x/", "https://a/x"])
def test_a_url_stays_as_it_is(value: str) -> None:
    assert url(value) == value


def test_an_entry_stays_as_it_is() -> None:
    assert pattern(" a ") == word(" a ") == " a "
    with pytest.raises(ValueError, match="empty"):
        word("\t")
