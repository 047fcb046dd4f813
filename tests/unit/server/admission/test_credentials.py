"""The headers that carry a caller's own credential."""

from __future__ import annotations

import pytest

from gai_fast.server.admission.credentials import credential_of
from tests.limits import LIMITS


def found(path: str = "/v1/chat/completions", **headers: str) -> tuple[str, bool] | None:
    credential = credential_of({name.replace("_", "-"): value for name, value in headers.items()}, path)
    return None if credential is None else (credential.secret.reveal(), credential.is_bearer)


def test_a_bearer_and_an_api_key_are_credentials() -> None:
    assert found(authorization="Bearer sk-1") == ("sk-1", True)
    assert found(authorization="bearer  sk-1") == ("sk-1", True)
    assert found(x_api_key="sk-2") == ("sk-2", False)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", ("sk-1", True)),
        ("/v1/messages", ("sk-2", False)),
        ("/v1/messages/count_tokens", ("sk-2", False)),
        ("/p/anthropic/v1/messages", ("sk-2", False)),
        ("/p/openai/v1/embeddings", ("sk-1", True)),
    ],
)
def test_of_both_the_route_decides(path: str, expected: tuple[str, bool]) -> None:
    assert found(path, authorization="Bearer sk-1", x_api_key="sk-2") == expected
    assert found(path, authorization="Bearer ", x_api_key="sk-2") == ("sk-2", False)
    assert found(path, authorization="Bearer sk-1", x_api_key="") == ("sk-1", True)


@pytest.mark.parametrize(
    "value", ["", " ", "a b", "a, b", "caf\u00e9", "a\tb", "a\x7f", "a\r\nx: y", "k" * (LIMITS.token + 1)]
)
def test_what_no_header_may_hold_is_no_credential(value: str) -> None:
    assert found(x_api_key=value) is None
    assert found(authorization=f"Bearer {value}") is None


def test_other_schemes_are_none() -> None:
    assert found(authorization="Basic YTpi") is None
    assert found(authorization="sk-1") is None
    assert found() is None
    assert found(authorization=f"Bearer {'k' * 8192}") == ("k" * 8192, True)
