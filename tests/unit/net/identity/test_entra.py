"""Entra ID by azure-identity itself: managed identity of an app, and what is not there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from gai_fast.model.settings import IdentitySettings
from gai_fast.net.identity.entra import fetch
from gai_fast.net.identity.grant import IdentityError
from tests.unit.net.identity.servers import HTML, Server
from tests.waiting import SECONDS

IDENTITY = IdentitySettings("entra")


@pytest.fixture(autouse=True)
def app(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A managed identity, whose server is asked over HTTP; it is the only source."""
    pytest.importorskip("azure.identity")
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "hidden-header")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setattr("azure.core.pipeline.transport._requests_basic.RequestsTransport.sleep", lambda *_: None)


@pytest.mark.parametrize(
    ("identity", "resource"),
    [(IDENTITY, "https://ai.azure.com"), (IdentitySettings("entra", scope="api://x/.default"), "api://x")],
)
def test_a_managed_identity_is_asked_for_the_scope(server: Server, identity: IdentitySettings, resource: str) -> None:
    end = int(time.time()) + 3600
    server.answers = {
        "GET /msi/token": {"access_token": "tok", "expires_on": str(end), "resource": "r", "token_type": "Bearer"}
    }
    grant = fetch(identity)
    assert grant.headers("POST", "http://x", "/", b"") == [("authorization", "Bearer tok")]
    assert grant.seconds is not None
    assert 3600 - SECONDS < grant.seconds <= 3600
    ((path, headers, _),) = server.asked
    assert f"resource={resource}" in unquote(path)
    assert headers["x-identity-header"] == "hidden-header"


@pytest.mark.parametrize("answer", [HTML, 403, 500, {"access_token": "hidden"}], ids=["html", "403", "500", "half"])
def test_what_is_no_token_is_an_error_without_secrets(server: Server, answer: Any) -> None:
    server.answers = {"GET /msi/token": answer}
    with pytest.raises(IdentityError, match="Entra ID gives no token") as refused:
        fetch(IDENTITY)
    assert "hidden" not in f"{refused.value} {refused.value.fix}"
    assert "<" not in str(refused.value)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a library logs, which the gateway's log shows from warnings on, has no secret either."""
    yield
    assert "hidden" not in "".join(record.getMessage() for record in caplog.get_records("call"))
