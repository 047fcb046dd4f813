"""A fake OIDC issuer: keys of `cryptography`, tokens right and wrong, and the two documents of its server."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gai_fast.model.settings import IssuerSettings, KeyLimits, KeySettings

URL: Final = "https://login.example.com"
AUDIENCE: Final = "gateway"


def private_key(kind: str, number: int = 0) -> Any:
    """Returns a private key of a kind: `RSA`, the bits of an RSA key, or a curve; `number` tells several apart."""
    return _private_key(kind, number)


@cache
def _private_key(kind: str, number: int) -> Any:
    curves: dict[str, Any] = {
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "Ed448": ed448.Ed448PrivateKey.generate,
    }
    if kind in curves:
        return curves[kind]()
    return rsa.generate_private_key(65537, 2048 if kind == "RSA" else int(kind))


def jwk(kind: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """Returns the public key as an issuer publishes it; members that are None are left out."""
    key = private_key(kind, number)
    name = "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC" if kind[0] in "Ps" else "OKP"
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[name]
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    found = {**public, "kid": f"{kind}-{number}", "use": "sig", **more}
    return {name: value for name, value in found.items() if value is not None}


def public_pem(kind: str) -> bytes:
    """Returns the public key in PEM: what a forger uses as a shared secret."""
    pem: bytes = private_key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def claims(**more: Any) -> dict[str, Any]:
    """Returns the claims of a token for alice; those that are None are left out."""
    found = {"iss": URL, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 600, **more}
    return {name: value for name, value in found.items() if value is not None}


def token(
    algorithm: str = "RS256", kind: str = "RSA", number: int = 0, headers: dict[str, Any] | None = None, **more: Any
) -> str:
    """Returns a token as PyJWT signs it; `more` are claims."""
    key_id = {"kid": f"{kind}-{number}", **(headers or {})}
    given = {name: value for name, value in key_id.items() if value is not None}
    return jwt.encode(claims(**more), private_key(kind, number), algorithm, headers=given)


def part(value: Any) -> str:
    """Returns a part of a token: an object as JSON, or bytes as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: Any, payload: Any, algorithm: str = "RS256", key: Any = None) -> str:
    """Returns a token of any two parts, with a right signature."""
    parts = f"{part(header)}.{part(payload)}"
    chosen = jwt.get_algorithm_by_name(algorithm)
    signer = private_key("RSA") if key is None else chosen.prepare_key(key)
    return f"{parts}.{part(chosen.sign(parts.encode(), signer))}"


def issuer(url: str = URL, name: str = "staff", **more: Any) -> IssuerSettings:
    """The configuration of the issuer; `more` are members of `IssuerSettings`, and of what its callers may use."""
    own = {each: more.pop(each) for each in ("audience", "claim") if each in more}
    limits = {each: more.pop(each) for each in ("requests_per_minute", "streams", "spend") if each in more}
    rights = KeySettings(name, (), limits=KeyLimits(**limits), **more)
    return IssuerSettings(name, url, **{"audience": AUDIENCE, **own}, rights=rights)
