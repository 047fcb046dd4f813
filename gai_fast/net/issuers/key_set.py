"""The keys of an issuer (JWK Set, RFC 7517), and the check of a token's signature with one of them.

Owns which keys are used. PyJWT and `cryptography`, of the extra `jwt`, are imported here only.

1. A key is used for the algorithms of its kind alone: an RSA key never checks ES256, and no public key is ever a
   secret. If it has `alg`, for that one only.
2. Keys for encryption (`use`, `key_ops`), symmetric ones, weak ones and ones that cannot be read are left out. If none
   is left, the set cannot be used.
3. A token with `kid` is checked with the keys of that id: usually one, but RFC 7517 (4.5) lets several share it. A
   token without it needs a set with one key of its algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gai_fast.net.issuers.token import CURVES, EDWARDS, RSA, Token
from gai_fast.net.limits import LIMITS

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""The members of a public key, by kind (RFC 7518, 6; RFC 8037). The members of a private key are never read."""
_EDWARDS_CURVES: Final = ("Ed25519", "Ed448")
_NEEDS: Final = ("jwt", "cryptography")
"""The packages of the extra, as they are imported."""


def is_installed() -> bool:
    """Returns whether the packages of the extra are there. None of them is imported."""
    return all(find_spec(name) is not None for name in _NEEDS)


class KeySetError(Exception):
    """A key set that cannot be used."""


class PublicKey(NamedTuple):
    """One key of an issuer.

    Attributes:
        members: Its public members: they distinguish it from other keys.
        key_id: `kid`; None if it has none.
        algorithms: The algorithms that it is used for.
        key: The key as `cryptography` has it.
    """

    members: tuple[str, ...]
    key_id: str | None
    algorithms: Sequence[str]
    key: Any

    def has_signed(self, token: Token) -> bool:
        """Returns whether a token's signature is this key's.

        Args:
            token: The token; its algorithm is one of the key's.
        """
        is_signed: bool = _algorithm(token.algorithm).verify(token.signed, self.key, token.signature)
        return is_signed


class KeySet:
    """The keys of an issuer that can be used.

    Args:
        document: The set, as JSON has it.

    Attributes:
        left_out: The number of further keys, above `limits.issuer_keys`.

    Raises:
        KeySetError: It has no such key.
    """

    def __init__(self, document: Any) -> None:
        given = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(given, list):
            raise KeySetError("its key set has no list `keys`")
        keys = [key for each in given if isinstance(each, dict) and (key := _key_of(each)) is not None]
        if not keys:
            raise KeySetError("its key set has no key for RS, PS, ES or EdDSA signatures")
        self._keys = keys[: LIMITS.issuer_keys]
        self.left_out = len(keys) - len(self._keys)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, KeySet)
            and [each[:3] for each in self._keys] == [each[:3] for each in other._keys]
            and self.left_out == other.left_out
        )

    __hash__ = None  # type: ignore[assignment]  # no set or dict holds it

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, token: Token) -> Sequence[PublicKey]:
        """Returns the keys that may have signed a token: rule 3.

        Args:
            token: The token.
        """
        may = [each for each in self._keys if token.algorithm in each.algorithms]
        if token.key_id is None:
            return may if len(may) == 1 else ()
        return [each for each in may if each.key_id == token.key_id]


def _key_of(given: Mapping[str, Any]) -> PublicKey | None:
    """Returns a key of a set. None if it cannot be used: rule 2."""
    given = {name: value for name, value in given.items() if value is not None}  # issuers write null for no value
    kind = given.get("kty")
    names = _PUBLIC.get(kind, ()) if isinstance(kind, str) else ()
    values = [given.get(name) for name in names]
    if not names or not all(isinstance(value, str) for value in values):
        return None
    operations, key_id = given.get("key_ops", ["verify"]), given.get("kid")
    is_for_signatures = given.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not is_for_signatures or not (key_id is None or isinstance(key_id, str)):
        return None
    usual: Sequence[str] = RSA
    if kind == "EC":
        usual = (CURVES[given["crv"]],) if given["crv"] in CURVES else ()
    elif kind == "OKP":
        usual = (EDWARDS,) if given["crv"] in _EDWARDS_CURVES else ()
    algorithms = [each for each in usual if given.get("alg", each) == each]
    key = _read(algorithms[0], {"kty": kind, **dict(zip(names, values, strict=True))}) if algorithms else None
    return None if key is None else PublicKey((kind, *values), key_id, algorithms, key)  # type: ignore[arg-type]  # texts


def _read(algorithm: str, members: dict[str, Any]) -> Any:
    """Returns the key of these members. None if they are not a key, or a weak or an expensive one."""
    from jwt import InvalidKeyError

    try:
        key = _algorithm(algorithm).from_jwk(members)
        if members["kty"] == "RSA":
            is_usable = LIMITS.rsa_least <= key.key_size <= LIMITS.rsa_most
            return key if is_usable and key.public_numbers().e <= LIMITS.rsa_exponent else None
    except (InvalidKeyError, ValueError):
        return None
    return key


def _algorithm(name: str) -> Algorithm:
    from jwt import get_algorithm_by_name

    return get_algorithm_by_name(name)
