"""`gai_fast/ledger/redis.py` if there is no library for Redis; tests/integration/ledger has the rest."""

from __future__ import annotations

import sys

import pytest

from gai_fast.ledger.redis import RedisHome
from gai_fast.stores import StoreError


async def test_without_the_package_the_error_of_the_start_is_not_hidden_by_its_clean_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "redis":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    home = RedisHome("redis://127.0.0.1:1")
    with pytest.raises(StoreError, match=r"pip install '\.\[redis\]'"):
        await home.open()
    await home.close()
