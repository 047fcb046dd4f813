"""Keys of an issuer: which are used for which signatures."""

from __future__ import annotations

import hmac
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gai_fast.net.issuers.key_set import KeySet, KeySetError
from gai_fast.net.issuers.token import TokenError, read_token
from tests.conftest import ChangeLimits
from tests.issuer import claims, jwk, part, private_key, public_pem, signed, token
from tests.limits import LIMITS

KINDS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
    "Ed448": ("EdDSA",),
}
ALL = KeySet({"keys": [jwk(kind) for kind in KINDS]})


def is_right(keys: KeySet, text: str) -> bool:
    """Returns whether a key of the set has signed a token."""
    found = read_token(text)
    return any(key.has_signed(found) for key in keys.find(found))


@pytest.mark.parametrize(("kind", "algorithm"), [(kind, each) for kind, given in KINDS.items() for each in given])
def test_each_algorithm_is_checked_as_pyjwt_signs(kind: str, algorithm: str) -> None:
    text = token(algorithm, kind)
    assert is_right(ALL, text)
    head, payload, signature = text.split(".")
    assert not is_right(ALL, f"{head}.{part(claims(sub='mallory'))}.{signature}")
    right = read_token(text).signature
    for wrong in (b"\0", bytes(64), bytes(len(right)), right[:-1], right + b"\0", right[::-1], bytes(1000)):
        assert not is_right(ALL, f"{head}.{payload}.{part(wrong)}")
    other = KeySet({"keys": [{**jwk(kind, 1), "kid": f"{kind}-0"}]})
    assert not is_right(other, text), "another key of the same id"


def test_a_public_key_is_no_shared_secret() -> None:
    """The classic confusion of RS256 and HS256: the form is refused before any key is looked for."""
    header = {"alg": "HS256", "typ": "JWT", "kid": "RSA-0"}
    parts = f"{part(header)}.{part(claims())}"
    forged = f"{parts}.{part(hmac.digest(public_pem('RSA'), parts.encode(), 'sha256'))}"
    with pytest.raises(TokenError, match="alg"):
        is_right(ALL, forged)


def test_a_key_is_used_for_its_own_algorithms() -> None:
    for kind, others in (("RSA", ("ES256", "EdDSA")), ("P-256", ("RS256", "ES384")), ("Ed25519", ("ES256", "RS256"))):
        for algorithm in others:
            header = {"alg": algorithm, "kid": f"{kind}-0"}
            assert ALL.find(read_token(f"{part(header)}.{part(claims())}.AAAA")) == []
    named = KeySet({"keys": [jwk("RSA", alg="RS256")]})
    assert is_right(named, token("RS256"))
    for algorithm in ("RS384", "PS256"):
        assert not is_right(named, token(algorithm))


def test_the_key_is_found_by_its_id() -> None:
    two = KeySet({"keys": [jwk("RSA", 0), jwk("RSA", 1)]})
    for number in (0, 1):
        assert is_right(two, token(number=number))
    for key_id in ("", "rsa-0", "RSA-2", "RSA-0\0", "../RSA-0"):
        assert not is_right(two, token(headers={"kid": key_id}))
    assert not is_right(two, token(headers={"kid": None})), "which of them?"
    assert is_right(KeySet({"keys": [jwk("RSA"), jwk("P-256")]}), token(headers={"kid": None}))
    same = KeySet({"keys": [jwk("RSA", kid="k"), jwk("P-256", kid="k")]})  # RFC 7517, 4.5
    assert is_right(same, token(headers={"kid": "k"}))
    assert is_right(same, token("ES256", "P-256", headers={"kid": "k"}))
    rolled = KeySet({"keys": [jwk("RSA", 0, kid="k"), jwk("RSA", 1, kid="k")]})
    assert all(is_right(rolled, token(number=number, headers={"kid": "k"})) for number in (0, 1))
    assert not is_right(rolled, token(number=2, headers={"kid": "k"}))
    without = KeySet({"keys": [jwk("RSA", kid=None)]})
    assert is_right(without, token(headers={"kid": None}))
    assert not is_right(without, token())


def test_a_token_brings_no_key() -> None:
    own = rsa.generate_private_key(65537, 2048)
    public = jwt.get_algorithm_by_name("RS256").to_jwk(own.public_key(), as_dict=True)
    for more in ({"jwk": public}, {"jwk": {**public, "kid": "RSA-0"}}, {"jku": "https://evil.example/keys"}):
        assert not is_right(ALL, signed({"alg": "RS256", "kid": "RSA-0", **more}, claims(), key=own))


UNUSABLE: list[dict[str, Any]] = [
    {},
    {"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"},
    {"kty": 1},
    {"kty": ["RSA"]},
    {"kty": "RSA"},
    {"kty": "RSA", "n": 1, "e": "AQAB"},
    {"kty": "RSA", "n": "", "e": "AQAB"},
    {"kty": "RSA", "n": "!!", "e": "AQAB"},
    {"kty": "RSA", "n": "é", "e": "AQAB"},
    {**jwk("RSA"), "e": ""},
    {**jwk("RSA"), "e": "AA"},
    {**jwk("RSA"), "e": "AQ"},
    {**jwk("RSA"), "e": part(b"\1" + bytes(20) + b"\1")},
    {**jwk("RSA"), "use": "enc"},
    {**jwk("RSA"), "use": 1},
    {**jwk("RSA"), "key_ops": ["encrypt"]},
    {**jwk("RSA"), "key_ops": "verify"},
    {**jwk("RSA"), "alg": "RSA-OAEP"},
    {**jwk("RSA"), "alg": "HS256"},
    {**jwk("RSA"), "kid": 7},
    jwk("1024"),
    jwk("secp256k1"),
    {**jwk("P-256"), "crv": "P-384"},
    {**jwk("P-256"), "crv": "P-257"},
    {**jwk("P-256"), "x": jwk("P-256", 1)["x"]},  # no point of the curve
    {**jwk("P-256"), "alg": "ES384"},
    {**jwk("Ed25519"), "crv": "X25519"},
    {**jwk("Ed25519"), "x": "AAAA"},
]


@pytest.mark.parametrize("given", UNUSABLE)
def test_keys_that_cannot_be_used_are_left_out(given: dict[str, Any]) -> None:
    with pytest.raises(KeySetError, match="no key for"):
        KeySet({"keys": [given]})
    assert len(KeySet({"keys": [given, jwk("P-256")]})) == 1


@pytest.mark.parametrize("document", [None, [], 1, "x", {}, {"keys": None}, {"keys": {}}, {"keys": "RSA"}])
def test_a_document_without_keys_is_no_set(document: Any) -> None:
    with pytest.raises(KeySetError, match="no list"):
        KeySet(document)
    with pytest.raises(KeySetError):
        KeySet({"keys": []})
    with pytest.raises(KeySetError):
        KeySet({"keys": [None, 1, "x", []]})


def test_a_private_key_that_is_published_is_used_as_the_public_one() -> None:
    private = jwt.get_algorithm_by_name("RS256").to_jwk(private_key("RSA"), as_dict=True)
    keys = KeySet({"keys": [{**private, "kid": "RSA-0", "key_ops": ["sign", "verify"]}]})
    assert is_right(keys, token())
    assert private["d"] not in repr(keys.find(read_token(token())))


def test_the_number_of_keys_is_bounded(change_limits: ChangeLimits) -> None:
    change_limits(issuer_keys=2)
    given = [jwk("P-256", kid=f"k{number}") for number in range(LIMITS.issuer_keys + 3)]
    keys = KeySet({"keys": [*given, {**jwk("RSA"), "use": "enc"}]})
    assert (len(keys), keys.left_out) == (2, 3)
    assert keys != KeySet({"keys": given[:2]})
    assert KeySet({"keys": given[:2]}).left_out == 0


def test_a_member_that_is_null_is_not_there() -> None:
    keys = KeySet({"keys": [{**jwk("RSA"), "alg": None, "use": None, "key_ops": None, "x5c": None}]})
    for algorithm in KINDS["RSA"]:
        assert is_right(keys, token(algorithm))
    with pytest.raises(KeySetError, match="no key for"):
        KeySet({"keys": [{**jwk("RSA"), "n": None}]})
    assert is_right(KeySet({"keys": [{**jwk("RSA"), "kid": None}]}), token(headers={"kid": None}))


def test_equal_sets_are_known() -> None:
    assert KeySet({"keys": [jwk("RSA")]}) == KeySet({"keys": [{**jwk("RSA"), "x5t": "abc"}]})
    assert KeySet({"keys": [jwk("RSA")]}) != KeySet({"keys": [jwk("RSA", 1)]})
    assert KeySet({"keys": [jwk("RSA")]}) != KeySet({"keys": [jwk("RSA", kid="other")]})
    assert KeySet({"keys": [jwk("RSA")]}) != 1
