"""`[[issuer]]`: what a table may hold, what it becomes, and what the tables must not have together."""

from __future__ import annotations

from pathlib import Path

import pytest

from gai_fast.config import issuers as module
from gai_fast.model.settings import IssuerSettings, KeyLimits, KeySettings, SpendLimit
from tests.unit.config.folders import KEY, MODEL, UPSTREAM, Folder

STAFF = '[[issuer]]\nname = "staff"\nurl = "https://login.example.com/"\naudience = "gateway"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_an_issuer_has_what_a_key_may_have(folder: Folder) -> None:
    assert folder.read(STAFF).settings.issuers == (
        IssuerSettings("staff", "https://login.example.com/", "gateway", KeySettings("staff", ())),
    )
    more = 'claim = "email"\nmodels = ["fast"]\nrequests_per_minute = 5\nspend = {amount = 2, period = "day"}\n'
    limits = KeyLimits(requests_per_minute=5, spend=SpendLimit(2 * 10**12, "day"))
    settings = folder.read(f"{UPSTREAM}{MODEL}{STAFF}{more}").settings
    rights = KeySettings("staff", (), ("fast",), limits=limits)
    assert settings.issuers == (IssuerSettings("staff", "https://login.example.com/", "gateway", rights, "email"),)
    assert settings.issuers[0].caller("a@b") == KeySettings("staff:a@b", (), ("fast",), limits=limits)


def test_the_defaults_of_keys_are_not_those_of_issuers(folder: Folder) -> None:
    settings = folder.read(f'{STAFF}[key_defaults]\nrole = "admin"\nstreams = 1\nmodels = []\n').settings
    assert settings.issuers[0].rights == KeySettings("staff", ())


def test_an_issuer_closes_the_server(folder: Folder) -> None:
    start = '[server]\nhost = "0.0.0.0"\n'
    [message] = folder.problems(start)
    assert "there are no keys" in message
    assert folder.read(start + STAFF).settings.needs_key
    assert not folder.read("").settings.needs_key


@pytest.mark.parametrize(
    "url", ["https://a.example", "https://a.example/realms/x", "http://127.0.0.1:9000", "http://localhost:9000/x/"]
)
def test_a_url_stays_as_it_is(folder: Folder, url: str) -> None:
    assert folder.read(STAFF.replace("https://login.example.com/", url)).settings.issuers[0].url == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://login.example.com", "https://, or with http:// and a loopback host"),
        ("http://10.0.0.1", "https://, or with http:// and a loopback host"),
        ("ftp://login.example.com", "http:// or https://"),
        ("login.example.com", "http:// or https://"),
        ("https://", "must name a host"),
        ("https://user:sk-canary@login.example.com", "a user or a password"),
        ("https://login.example.com/?a=b", "a query or a fragment"),
        ("https://169.254.169.254", "link-local or metadata"),
        ("https://metadata.google.internal", "https://, or with http:// and a loopback host"),
    ],
)
def test_another_url_is_refused(folder: Folder, url: str, words: str) -> None:
    [message] = folder.problems(STAFF.replace("https://login.example.com/", url))
    assert message.startswith("gai-fast.toml:3: `url` in [[issuer]] ")
    assert words in message


def test_names_urls_and_audiences_are_of_one_issuer_each(folder: Folder) -> None:
    [message] = folder.problems(STAFF + STAFF.replace("gateway", "other"))
    assert message.startswith("gai-fast.toml:6: a second [[issuer]] is named 'staff'")
    [message] = folder.problems(STAFF + STAFF.replace("staff", "batch"))
    assert message == (
        "gai-fast.toml:7: a second [[issuer]] has this `url` and `audience`, as at "
        f"{folder.path}/gai-fast.toml:3: a token has one caller".replace(f"{folder.path}/", "")
    )
    [message] = folder.problems(KEY + STAFF.replace("staff", "alice"))
    assert "a [[key]] is named 'alice', too" in message
    for name in ("a:b", "a b", "", "anonymous", "x" * 65):
        [message] = folder.problems(STAFF.replace("staff", name))
        assert "`name` in [[issuer]] must" in message


def test_what_is_missing_or_unknown_is_named(folder: Folder) -> None:
    assert sorted(each.partition(": ")[2] for each in folder.problems("[[issuer]]\n")) == [
        "`audience` is missing in [[issuer]]: the `aud` of its tokens: the id of this API, or of the client",
        '`name` is missing in [[issuer]]: the first part of its callers\' names, such as name = "staff"',
        "`url` is missing in [[issuer]]: the `issuer` in its discovery document",
    ]
    for line, words in (
        ('role = "admin"', "not under [[issuer]]"),
        ("expires = 2030-01-01", "not under [[issuer]]"),
        ('audiance = "x"', "did you mean"),
        ('claim = "a b"', "one printable ASCII word"),
        ('models = ["none"]', "none"),
        ('lane = ["none"]', "no [[upstream]] is named"),
    ):
        [message] = folder.problems(f"{STAFF}{line}\n")
        assert words in message
    [message] = folder.problems(STAFF.replace("gateway", " gateway"))
    assert "begin or end with a blank" in message
    [message] = folder.problems("[issuer]\n")
    assert "[issuer] must be [[issuer]]" in message


def test_a_missing_extra_is_named(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_installed", lambda: False)
    [message] = folder.problems(STAFF)
    assert message.endswith("[[issuer]] needs packages that are not there: pip install '.[jwt]' in a clone of gai-fast")
    assert folder.read("").settings.issuers == ()
