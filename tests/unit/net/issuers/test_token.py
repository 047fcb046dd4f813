"""Tokens: the form that is accepted, and every known way to smuggle another one in (RFC 7515, 7519, 8725).

No signature is checked here: `test_key_set.py`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.net.issuers.token import ALGORITHMS, TokenError, read_token
from tests.issuer import claims, part, token
from tests.limits import LIMITS

HEADER = {"alg": "RS256", "typ": "JWT", "kid": "RSA-0"}


def unsigned(header: Any = HEADER, payload: Any = None, signature: str = "AAAA") -> str:
    return f"{part(header)}.{part(claims() if payload is None else payload)}.{signature}"


def refusal(text: str) -> str:
    with pytest.raises(TokenError) as caught:
        read_token(text)
    assert caught.value.reason == "token"
    return str(caught.value)


def test_a_token_of_pyjwt_is_read() -> None:
    text = token(groups=["a", "b"])
    found = read_token(text)
    assert (found.algorithm, found.key_id, found.claims["groups"]) == ("RS256", "RSA-0", ["a", "b"])
    assert f"{found.signed.decode()}.{part(found.signature)}" == text


def test_only_signatures_of_public_keys_are_accepted() -> None:
    for algorithm in sorted(ALGORITHMS):
        assert read_token(unsigned({**HEADER, "alg": algorithm})).algorithm == algorithm
    shared = ["HS256", "HS384", "HS512", "rs256", "RS256 ", "ES256K", "RS1", "RSA-OAEP"]
    for algorithm in ["none", "None", "NONE", "nOnE", "", *shared, None, 1, True, ["RS256"], {"RS256": 1}]:
        assert "(`alg`)" in refusal(unsigned({**HEADER, "alg": algorithm}))
    assert "(`alg`)" in refusal(unsigned({"typ": "JWT"}))


@pytest.mark.parametrize(
    "text",
    [
        "..",
        "a.b",
        "a.b.",
        ".b.c",
        "a..c",
        "a.b.c.d",
        "a.b.c.d.e",  # an encrypted token
        f"{unsigned()}=",
        f"{unsigned()} ",
        f" {unsigned()}",
        f"{unsigned()}\n",
        f"{unsigned()}, {unsigned()}",  # the header twice
        unsigned().replace(".", ".."),
        unsigned().replace("A", "+"),
        unsigned().replace("A", "/"),
        unsigned().replace("A", "Ａ"),
        json.dumps({"payload": part(claims()), "signatures": []}),  # the JSON form
    ],
)
def test_another_form_is_refused(text: str) -> None:
    assert "is no signed JWT" in refusal(text)


@pytest.mark.parametrize("name", ["header", "claims"])
@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"x"',
        b'{"alg": "RS256", "alg": "none"}',
        b'{"exp": 1, "exp": 99999999999}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"exp": NaN}',
        b'{"exp": Infinity}',
        b'{"a": -Infinity}',
        b'{"alg": "RS256"} {}',
        b'\xef\xbb\xbf{"alg": "RS256"}',
        '{"alg": "RS256"}'.encode("utf-16"),
        '{"alg": "RS256"}'.encode("utf-32"),
        b'{"alg": "\xff"}',
        b"[" * 2500,
        b'{"a":' * 500,
        b'{"n": ' + b"9" * 2900 + b"e}",
    ],
)
def test_parts_that_are_no_json_object_are_refused(name: str, data: bytes) -> None:
    text = unsigned(data) if name == "header" else unsigned(payload=data)
    assert f"has a {name} that is no JSON" in refusal(text)


@pytest.mark.parametrize(
    "more",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"cty": "JWT"},  # a nested token
    ],
)
def test_what_is_not_understood_is_refused(more: dict[str, Any]) -> None:
    assert "not understood here" in refusal(unsigned({**HEADER, **more}))


def test_the_kind_of_a_token_is_checked() -> None:
    for kind in ("JWT", "jwt", "at+jwt", "application/at+jwt", "application/JWT"):
        assert read_token(unsigned({**HEADER, "typ": kind}))
    for other in ("logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", "JWE", "", None, 1, ["JWT"]):
        assert "(`typ`)" in refusal(unsigned({**HEADER, "typ": other}))


def test_the_id_of_a_key_is_a_text() -> None:
    """It is looked up among known ids, so that no text of it is a path or a query."""
    for key_id in ("", "../../etc/passwd", "' OR 1=1--", "http://evil.example/keys", "\0", "x" * 2000):
        assert read_token(unsigned({**HEADER, "kid": key_id})).key_id == key_id
    for other in (1, True, ["RSA-0"], {"kid": "RSA-0"}):
        assert "(`kid`)" in refusal(unsigned({**HEADER, "kid": other}))
    assert read_token(unsigned({**HEADER, "kid": None})).key_id is None


def test_keys_in_the_header_are_ignored() -> None:
    """RFC 8725, 3.10: a token never brings its own key."""
    more = {"jwk": {"kty": "oct", "k": "AA"}, "jku": "https://evil.example/", "x5u": "file:///keys", "x5c": ["AA"]}
    assert read_token(unsigned({**HEADER, **more})).key_id == "RSA-0"


def test_each_byte_has_one_spelling() -> None:
    """Otherwise one token would have thousands of digests."""
    assert read_token(unsigned(signature="AAAA"))
    for signature in ("AAB", "AB", "A", "AAAAA"):
        assert "base64url" in refusal(unsigned(signature=signature))


def test_a_token_is_bounded() -> None:
    payload = claims(pad="")
    room = LIMITS.caller_token - len(unsigned(payload=payload))
    longest = unsigned(payload={**payload, "pad": "x" * (room * 3 // 4 - 2)})
    assert LIMITS.caller_token - 4 <= len(longest) <= LIMITS.caller_token
    assert read_token(longest)
    assert "is longer than" in refusal(unsigned(payload={**payload, "pad": "x" * room}))
    assert "has a header of more" in refusal(unsigned({**HEADER, "x5c": "x" * LIMITS.caller_token_header}))


@pytest.mark.parametrize("value", [None, "99999999999", True, False, [99999999999], {}, "soon"])
def test_an_end_is_needed_and_is_a_number(value: Any) -> None:
    assert "`exp`" in refusal(unsigned(payload={**claims(), "exp": value}))


def test_an_end_counts_to_the_second() -> None:
    for end, ends in ((1000, 1000), (1000.5, 1000.5), (-5, 0), (10**300, LIMITS.latest_end), (0, 0)):
        found = read_token(unsigned(payload=claims(exp=end)))
        assert found.ends == ends
    found = read_token(unsigned(payload=claims(exp=1000)))
    found.check_time(999.999)
    for now in (1000.0, 1000.1, 5000.0):
        with pytest.raises(TokenError) as caught:
            found.check_time(now)
        assert caught.value.reason == "expired"
    huge = read_token(unsigned(payload=b'{"exp": 1e999}'))
    assert huge.ends == LIMITS.latest_end


def test_a_token_begins_with_a_leeway() -> None:
    found = read_token(unsigned(payload=claims(exp=5000, nbf=1000)))
    found.check_time(1000 - LIMITS.caller_token_leeway)
    with pytest.raises(TokenError, match="not valid yet"):
        found.check_time(999 - LIMITS.caller_token_leeway)
    for value in ("1000", True, [], 10**300):
        with pytest.raises(TokenError, match="nbf"):
            read_token(unsigned(payload={**claims(exp=5000), "nbf": value})).check_time(1000)


def test_an_audience_is_exact() -> None:
    def is_for(given: Any, audience: str = "gateway") -> bool:
        return read_token(unsigned(payload={**claims(), "aud": given})).is_for(audience)

    assert is_for("gateway")
    assert is_for(["other", "gateway"])
    for other in ("gateway ", "Gateway", "gate", "", None, [], ["gate", "way"], [["gateway"]], {"gateway": 1}, 7, True):
        assert not is_for(other), other
    assert not read_token(unsigned(payload=claims(aud=None))).is_for("gateway")


def test_a_claim_names_the_caller() -> None:
    def name(value: Any, claim: str = "sub", **more: Any) -> str:
        return read_token(unsigned(payload={**claims(), claim: value, **more})).caller(claim)

    for right in ("alice", "a", "auth0|5f7c8ec7c33c6c004bbafe82", "alice@example.com", "Zoë", "x" * 128, "a:b"):
        assert name(right) == right
    for wrong in (None, "", "x" * 129, "a\nb", "a\0", "\x1b[31m", "a\u202eb", "\ud800", 7, True, ["alice"], {"a": 1}):
        with pytest.raises(TokenError, match="has no claim `sub`"):
            name(wrong)
    with pytest.raises(TokenError, match="has no claim `email`"):
        read_token(unsigned()).caller("email")


def test_an_address_that_its_issuer_has_not_verified_names_nobody() -> None:
    for verified, is_right in ((True, True), (None, True), ("true", True), (False, False), ("false", False)):
        found = read_token(unsigned(payload={**claims(email="a@b.example"), "email_verified": verified}))
        if is_right:
            assert found.caller("email") == "a@b.example"
        else:
            with pytest.raises(TokenError, match="not verified"):
                found.caller("email")
