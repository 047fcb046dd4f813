"""What gives requests their credential."""

from __future__ import annotations

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import Secret
from gai_fast.net.identity.grant import Bearer, IdentityError, MadeBearer, Signed, without_secrets
from gai_fast.net.identity.sigv4 import AWSKeys, Signer
from tests.limits import LIMITS

SIGNED = Signed(Signer(AWSKeys("AKID", "secret-key"), "us-east-1", "bedrock-mantle"), Secret("secret-key"), None)


def test_a_bearer_token_is_one_header_for_every_request() -> None:
    grant = Bearer("tok", 60.0, [("x-goog-user-project", "p")])
    headers = grant.headers("POST", "http://x", "/y", b"z")
    assert headers == [("authorization", "Bearer tok"), ("x-goog-user-project", "p")]
    assert grant.headers("GET", "http://y", "/", b"") is headers


@pytest.mark.parametrize("token", ["", "two words", "line\r\nx: y", "ü", "x" * 20_000])
def test_a_token_that_cannot_stand_in_a_header_is_refused(token: str) -> None:
    with pytest.raises(IdentityError, match="one printable ASCII word"):
        Bearer(token, None)


def test_a_token_that_has_ended_is_none() -> None:
    with pytest.raises(IdentityError, match="has ended already") as refused:
        Bearer("tok", LIMITS.token_least)
    assert not refused.value.is_final


def test_keys_sign_the_whole_path_and_the_host_that_is_sent() -> None:
    one = dict(SIGNED.headers("POST", "http://127.0.0.1:8080/openai/v1", "/chat", b"{}"))
    assert one["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert "/us-east-1/bedrock-mantle/aws4_request, SignedHeaders=host;x-amz-date, " in one["authorization"]
    signer = Signer(AWSKeys("AKID", "secret-key"), "us-east-1", "bedrock-mantle")
    assert one == dict(signer.headers("POST", "127.0.0.1:8080", "/openai/v1/chat", b"{}", one["x-amz-date"]))


def test_requests_are_signed_where_an_account_forbids_bearer_tokens() -> None:
    made = MadeBearer("tok", 60.0, SIGNED)
    for action in ("bedrock:CallWithBearerToken", "bedrock-mantle:CallWithBearerToken"):
        assert made.instead(Error("forbidden", f"User: arn is not authorized to perform: {action} on …")) is SIGNED
    assert made.instead(Error("forbidden", "not authorized to perform: bedrock:InvokeModel")) is None
    assert SIGNED.instead(Error("forbidden", "bedrock:CallWithBearerToken")) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no such file", "ValueError: no such file"),
        ("", "ValueError"),
        ("it said <!DOCTYPE html><title>hidden", "ValueError: it said"),
        ("one\nhidden", "ValueError: one"),
        ("token eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJh-_.x is bad", "ValueError: token *** is bad"),
        ("key wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "ValueError: key ***"),
        ("a\x1b[31mb", "ValueError: a [31mb"),
        ("word " * 100, "ValueError: " + ("word " * 40).rstrip()),
    ],
)
def test_what_a_library_tells_is_shown_without_secrets_on_one_line(text: str, shown: str) -> None:
    assert without_secrets(ValueError(text)).rstrip() == shown


@pytest.mark.parametrize("problem", [KeyError("access_token"), TypeError("string indices must be integers")])
def test_an_answer_that_a_library_cannot_read_is_reported_as_such(problem: Exception) -> None:
    assert without_secrets(problem) == "the answer is no token"
