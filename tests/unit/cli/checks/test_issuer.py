"""The check of an `[[issuer]]`: its keys are fetched, and a failure has its fix."""

from __future__ import annotations

import pytest

from gai_fast.cli.checks.issuer import check_issuer
from gai_fast.net.issuers import fetching
from gai_fast.net.issuers.key_set import KeySet
from tests.issuer import issuer, jwk


async def test_keys_that_can_be_fetched_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch_keys(url: str) -> KeySet:
        return KeySet({"keys": [jwk("P-256"), jwk("RSA")]})

    monkeypatch.setattr(fetching, "fetch_keys", fetch_keys)
    check = await check_issuer(issuer("https://login.example.com"))
    assert (check.name, check.status, check.fix) == ("issuer.staff", "ok", "")
    assert check.detail.startswith("https://login.example.com: 2 keys in ")


async def test_an_issuer_that_does_not_answer_is_an_error_with_its_fix() -> None:
    check = await check_issuer(issuer("http://127.0.0.1:9"))
    assert (check.name, check.status) == ("issuer.staff", "error")
    assert check.detail.startswith("http://127.0.0.1:9: it cannot be reached")
    assert check.fix == "check `url` of staff, and that it is reached from here"
