"""Application Default Credentials by google-auth itself: the metadata server, a key file; and what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gai_fast.model.settings import IdentitySettings
from gai_fast.net.identity.google import fetch
from gai_fast.net.identity.grant import IdentityError
from tests.unit.net.identity.servers import HTML, Server
from tests.waiting import SECONDS

IDENTITY = IdentitySettings("google")
ROOT = "/computeMetadata/v1"
TOKEN = {"access_token": "tok", "expires_in": 3599, "token_type": "Bearer"}
FLAVOR = {"metadata-flavor": "Google"}


@pytest.fixture(autouse=True)
def address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads the address when it is imported, and pauses before it asks again."""
    metadata = pytest.importorskip("google.auth.compute_engine._metadata")
    monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", server.url.removeprefix("http://"))
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)


def of_metadata(server: Server, token: Any = TOKEN) -> None:
    server.answers = {
        "GET /": ("", FLAVOR),
        f"GET {ROOT}/project/project-id": ("p-1", FLAVOR),
        f"GET {ROOT}/universe/universe-domain": ("googleapis.com", FLAVOR),
        f"GET {ROOT}/universe/universe_domain": ("googleapis.com", FLAVOR),
        f"GET {ROOT}/instance/service-accounts/default/": {"email": "it@p-1.iam", "scopes": [], "aliases": []},
        f"GET {ROOT}/instance/service-accounts/default/token": token,
        f"GET {ROOT}/instance/service-accounts/it@p-1.iam/token": token,
    }


@pytest.fixture
def key_file(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service account's key, whose tokens come from the server."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    about = {"type": "service_account", "project_id": "p-1", "client_email": "it@p-1.iam", "private_key_id": "hidden"}
    path = tmp_path / "adc.json"
    path.write_text(json.dumps({**about, "private_key": pem, "token_uri": f"{server.url}/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))


def test_the_metadata_server_gives_the_token_of_the_service_account(server: Server) -> None:
    of_metadata(server)
    grant = fetch(IDENTITY)
    assert grant.headers("POST", "http://x", "/", b"") == [("authorization", "Bearer tok")]
    assert grant.seconds is not None
    assert 3599 - SECONDS < grant.seconds <= 3600


@pytest.mark.usefixtures("key_file")
def test_credentials_name_the_project_that_pays(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "payer")
    server.answers = {"POST /token": TOKEN}
    headers = dict(fetch(IDENTITY).headers("POST", "http://x", "/", b""))
    assert headers == {"authorization": "Bearer tok", "x-goog-user-project": "payer"}


@pytest.mark.parametrize(
    ("answer", "is_final"), [(HTML, False), (("", {}), False), (500, False)], ids=["html", "nothing", "500"]
)
def test_a_metadata_server_that_answers_something_else_is_an_error(server: Server, answer: Any, is_final: bool) -> None:
    of_metadata(server, answer)
    with pytest.raises(IdentityError, match="Google gives no token") as refused:
        fetch(IDENTITY)
    assert refused.value.is_final is is_final
    assert "hidden" not in str(refused.value)
    assert "<" not in str(refused.value)


def test_where_nothing_has_credentials_it_is_said_what_to_do(server: Server) -> None:
    server.answers = {"GET /": HTML}
    with pytest.raises(IdentityError, match="Google finds no credentials") as refused:
        fetch(IDENTITY)
    assert refused.value.is_final
    assert "gcloud auth application-default login" in refused.value.fix


@pytest.mark.usefixtures("key_file")
@pytest.mark.parametrize(("answer", "is_final"), [(400, True), (HTML, False), (503, False)], ids=["400", "html", "503"])
def test_what_a_token_endpoint_refuses_is_final_and_what_it_cannot_do_now_is_not(
    server: Server, answer: Any, is_final: bool
) -> None:
    server.answers = {"POST /token": answer}
    with pytest.raises(IdentityError, match="Google gives no token") as refused:
        fetch(IDENTITY)
    assert refused.value.is_final is is_final
    assert "hidden" not in str(refused.value)
    assert "<" not in str(refused.value)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a library logs, which the gateway's log shows from warnings on, has no secret either."""
    yield
    assert "hidden" not in "".join(record.getMessage() for record in caplog.get_records("call"))
