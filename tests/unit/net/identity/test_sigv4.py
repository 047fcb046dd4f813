"""Signatures of AWS, judged by botocore's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from gai_fast.net.identity.sigv4 import AWSKeys, Signer

auth = pytest.importorskip("botocore.auth")
from botocore.awsrequest import AWSRequest  # noqa: E402  # after the check that it is there
from botocore.credentials import Credentials  # noqa: E402  # likewise

TIME = datetime(2026, 11, 25, 21, 38, 42, tzinfo=UTC)
NOW = "20261125T213842Z"
LASTING = AWSKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
ENDING = AWSKeys("ASIAEXAMPLE", LASTING.secret_key, "token/with+signs==" * 40)
BODY = b'{"messages":[{"role":"user","content":"\xc3\xa4"}]}'


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "get_current_datetime", lambda: TIME)


def theirs(keys: AWSKeys) -> Any:
    return Credentials(keys.access_key, keys.secret_key, keys.session_token)


@pytest.mark.parametrize("keys", [LASTING, ENDING], ids=["lasting", "ending"])
@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages", BODY),
        ("GET", "https://bedrock-mantle.us-east-1.api.aws/openai/v1/models", b""),
        ("POST", "http://127.0.0.1:8080/a%20b/claude%3A1/v1?b=2&a=1&a=0&c=", BODY),
        ("POST", "https://x.execute-api.eu-west-1.amazonaws.com/stage/~x/@y/v1:call?alt=sse", BODY),
    ],
)
def test_a_request_is_signed_as_botocore_signs_it(keys: AWSKeys, method: str, url: str, body: bytes) -> None:
    request = AWSRequest(method=method, url=url, data=body)
    auth.SigV4Auth(theirs(keys), "bedrock-mantle", "us-east-1").add_auth(request)
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    ours = Signer(keys, "us-east-1", "bedrock-mantle").headers(method, parts.netloc, target, body, NOW)
    assert dict(ours) == {name.lower(): value for name, value in request.headers.items()}


@pytest.mark.parametrize("keys", [LASTING, ENDING], ids=["lasting", "ending"])
def test_a_url_is_signed_as_botocore_signs_it(keys: AWSKeys) -> None:
    request = AWSRequest(
        method="POST",
        url="https://bedrock.amazonaws.com/",
        headers={"host": "bedrock.amazonaws.com"},
        params={"Action": "CallWithBearerToken"},
    )
    auth.SigV4QueryAuth(theirs(keys), "bedrock", "us-east-1", expires=43200).add_auth(request)
    ours = Signer(keys, "us-east-1", "bedrock").presigned(
        "POST", "bedrock.amazonaws.com", "Action=CallWithBearerToken", NOW, 43200
    )
    assert f"https://{ours}" == request.url


def test_the_key_of_a_day_is_that_of_the_day() -> None:
    signer = Signer(LASTING, "us-east-1", "bedrock")
    signer.headers("POST", "h", "/", b"", "20261124T235959Z")
    fresh = Signer(LASTING, "us-east-1", "bedrock")
    assert signer.headers("POST", "h", "/", b"", NOW) == fresh.headers("POST", "h", "/", b"", NOW)
