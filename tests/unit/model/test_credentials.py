"""The caller's own credential."""

from __future__ import annotations

import hashlib

import pytest

from gai_fast.model.credentials import Credential, names_credential, passwords_in
from gai_fast.model.settings import figure_label

SECRET = "sk-planted-0123456789"


def test_it_names_its_caller_and_shows_itself_nowhere() -> None:
    credential = Credential(SECRET, is_bearer=True)
    assert credential.name == f"c-{hashlib.sha256(SECRET.encode()).hexdigest()[:16]}"
    assert credential.secret.reveal() == SECRET
    for shown in (repr(credential), str(credential), f"{[credential]}"):
        assert SECRET not in shown


def test_all_callers_with_credentials_have_one_label_in_figures() -> None:
    """Else each credential would make a series of its own."""
    assert figure_label(Credential(SECRET, is_bearer=False).name) == "c-"
    assert [figure_label(name) for name in ("c-team", "c-0123456789abcdeg", "anna", "idp:x")] == [
        "c-team",
        "c-0123456789abcdeg",
        "anna",
        "idp",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "X-API-Key",
        "GITHUB_TOKEN",
        "client_secret",
        "PGPASSWORD",
        "sig",
        "Cookie",
        "DB_PASS",
        "pass",
        "SMTPPASS",
        "SSH_PASSPHRASE",
        "DB_PWD",
        "GITHUB_PAT",
        "x-jwt",
    ],
)
def test_a_name_says_that_its_value_is_a_credential(name: str) -> None:
    assert names_credential(name)


@pytest.mark.parametrize(
    "name",
    ["accept", "x-project", "ROOT", "DOCS_URL", "LANG", "page", "design", "PWD", "x-passenger", "PATH", "x-pattern"],
)
def test_other_names_do_not(name: str) -> None:
    assert not names_credential(name)


@pytest.mark.parametrize(
    ("text", "passwords"),
    [
        ("postgres://app:s3cret-0123@db:5432/shop", ["s3cret-0123"]),
        ("amqp://app:a%2Fb%40c@mq/%2F", ["a%2Fb%40c", "a/b@c"]),
        ("redis://:only-0123@cache", ["only-0123"]),
        ("postgres://app:s3cret:0123@db/shop", ["s3cret:0123"]),
        ("a redis://:one@cache,redis://u:two@cache b", ["one", "two"]),
        ("https://docs.test/a:b@c", []),
        ("https://app@docs.test:8080/", []),
        ("mailto:a@b.test", []),
        ("://" * 9999 + ":" * 9999, []),
        ("", []),
    ],
    ids=range(10),
)
def test_a_url_may_have_a_password(text: str, passwords: list[str]) -> None:
    assert passwords_in(text) == passwords
