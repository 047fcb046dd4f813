"""Callers with tokens: whose token it is, what it costs to refuse one, and what is known of a verified one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.model.settings import IssuerSettings, KeyLimits, KeySettings, key_digest
from gai_fast.net.issuers.fetching import IssuerError
from gai_fast.net.issuers.key_set import KeySet, PublicKey
from gai_fast.server.admission import token_callers as module
from gai_fast.server.admission.auth_throttle import AuthThrottle
from gai_fast.server.admission.callers import Callers
from gai_fast.server.admission.token_callers import TokenCallers
from tests.conftest import ChangeLimits
from tests.issuer import URL, claims, issuer, jwk, signed, token
from tests.limits import LIMITS

FROM = "192.0.2.1"
SECRET = "sk-alice-0123456789"


class Site:
    """The callers of a server, and its issuers' keys."""

    def __init__(self, *issuers: IssuerSettings) -> None:
        self.keys: dict[str, Any] = {URL: {"keys": [jwk("RSA"), jwk("P-256")]}}
        self.asked = 0
        self.auth_throttle = AuthThrottle()
        self.tokens = TokenCallers(self.auth_throttle, self.fetch)
        self.tokens.use(issuers or (issuer(),))
        self.callers = Callers([KeySettings("alice", (key_digest(SECRET),))], self.auth_throttle, self.tokens)

    async def fetch(self, url: str) -> KeySet:
        self.asked += 1
        if url not in self.keys:
            raise IssuerError("it is down")
        return KeySet(self.keys[url])

    def find(self, text: str, address: str | None = FROM, **headers: str) -> KeySettings:
        return self.callers.find({"authorization": f"Bearer {text}", **headers}, address)

    def refusal(self, text: str, address: str | None = FROM) -> tuple[str, str | None, int]:
        with pytest.raises(Error) as caught:
            self.find(text, address)
        return caught.value.code, caught.value.reason, caught.value.status

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


def run(scenario: Callable[[Site], Awaitable[None]], *issuers: IssuerSettings) -> None:
    async def main() -> None:
        site = Site(*issuers)
        try:
            await site.settle()
            await scenario(site)
        finally:
            site.tokens.close()
            await site.settle()

    asyncio.run(main())


WRONG = ("unauthorized", "token", 401)


def test_a_token_is_its_claim_and_has_what_its_issuer_may() -> None:
    async def scenario(site: Site) -> None:
        for text in (token(), token("PS384"), token("ES256", "P-256"), token(aud=["x", "gateway"])):
            assert site.find(text) == KeySettings("staff:alice", (), ("fast*",), limits=KeyLimits(streams=3))
        for header in ("x-api-key", "api-key"):
            assert site.callers.find({header: token(sub="bob")}, FROM).name == "staff:bob"
        assert site.callers.find({"sec-websocket-protocol": f"bearer.{token()}"}, FROM).role == "user"

    run(scenario, issuer(models=("fast*",), streams=3))


def test_a_token_is_never_a_key_nor_an_admin() -> None:
    async def scenario(site: Site) -> None:
        assert site.find(SECRET).name == "alice"
        assert site.find(token(sub="alice")).name == "staff:alice"
        for name in ("staff:alice", ":alice", "alice", "anonymous"):
            assert site.find(token(sub=name, role="admin", admin=True)).name == f"staff:{name}"
            assert site.find(token(sub=name, role="admin")).role == "user"

    run(scenario)


# Made in the test: a suite may take longer than a token lasts, and an expired one is not counted.
WRONG_TOKENS: dict[str, Callable[[], str]] = {
    "another issuer": lambda: token(iss="https://evil.example"),
    "a slash behind the issuer": lambda: token(iss=f"{URL}/"),
    "the issuer in capitals": lambda: token(iss=URL.upper()),
    "no issuer": lambda: token(iss=None),
    "another audience": lambda: token(aud="other"),
    "no audience": lambda: token(aud=None),
    "no name": lambda: token(sub=None),
    "a long name": lambda: token(sub="x" * 129),
    "a line end in the name": lambda: token(sub="a\nb"),
    "no end": lambda: token(exp=None),
    "not valid yet": lambda: token(nbf=int(time.time()) + 600),
    "another key": lambda: token(number=1),
    "another key under a known id": lambda: token(number=1, headers={"kid": "RSA-0"}),
    "a key of another kind": lambda: token("ES256", "P-256", headers={"kid": "RSA-0"}),
    "another signature": lambda: token()[:-8] + "AAAAAAAA",
    "a longer signature": lambda: f"{token()}A",
    "two tokens": lambda: f"{token()}, Bearer {token()}",
    "three letters": lambda: "a.b.c",
    "dots": lambda: "..",
    "no ASCII": lambda: "é.b.c",
    "many parts": lambda: "x." * 50_000,
    "crit": lambda: signed({"alg": "RS256", "kid": "RSA-0", "crit": ["exp"]}, claims()),
    "a claim twice": lambda: signed({"alg": "RS256", "kid": "RSA-0"}, b'{"exp": 99999999999, "exp": 1}'),
}


@pytest.mark.parametrize("name", WRONG_TOKENS)
def test_a_wrong_token_is_refused_and_counts_as_a_wrong_key(name: str) -> None:
    text = WRONG_TOKENS[name]()

    async def scenario(site: Site) -> None:
        for _ in range(LIMITS.wrong_keys):
            assert site.refusal(text) == WRONG
            await site.settle()
        while site.refusal(text) == WRONG:  # the first may have named an unknown key, which is not counted
            pass
        assert site.refusal(text) == ("rate_limited", "wrong_keys", 429)
        assert site.refusal(token(sub="someone"))[1] == "wrong_keys", "no other token is taken from there either"
        assert site.find(token(), "192.0.2.2").name == "staff:alice", "other addresses go on"
        assert site.refusal(text, None) == WRONG, "on a socket nothing is counted"

    run(scenario)


def test_each_key_of_a_shared_id_counts() -> None:
    async def scenario(site: Site) -> None:
        site.keys[URL] = {"keys": [jwk("RSA", number, kid="k") for number in (1, 2)]}
        site.tokens.close()
        site.tokens.use((issuer(),))
        await site.settle()
        for number in (1, 2):
            assert site.find(token(number=number, headers={"kid": "k"})).name == "staff:alice"
        assert site.refusal(token(headers={"kid": "k"})) == WRONG

    run(scenario)


def test_an_expired_token_is_refused_and_not_counted() -> None:
    async def scenario(site: Site) -> None:
        for _ in range(LIMITS.wrong_keys + 1):
            assert site.refusal(token(exp=int(time.time()))) == ("unauthorized", "expired", 401)
        assert site.find(token())

    run(scenario)


def test_a_known_token_expires_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        text = token(exp=int(time.time()) + 5)
        assert site.find(text)
        monkeypatch.setattr(module, "now_ms", lambda: time.time() * 1e3 + 5000)
        assert site.refusal(text) == ("unauthorized", "expired", 401)

    run(scenario)


def test_callers_that_share_an_address_with_a_guesser_go_on() -> None:
    async def scenario(site: Site) -> None:
        assert site.find(token(jti="1"))
        for _ in range(LIMITS.wrong_keys):
            site.refusal("a.b.c")
        assert site.find(token(jti="1")), "a known token"
        assert site.find(token(jti="2")), "a new token of a caller who has come from there"
        assert site.refusal(token(sub="bob"))[1] == "wrong_keys"

    run(scenario)


def test_a_blocked_address_costs_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        checked: list[str] = []
        has_signed = PublicKey.has_signed

        def counted(self: PublicKey, found: Any) -> bool:
            checked.append(found.claims["sub"])
            return has_signed(self, found)

        monkeypatch.setattr(PublicKey, "has_signed", counted)
        forged = [f"{token(sub=f'm{number}')[:-8]}AAAAAAAA" for number in range(LIMITS.wrong_keys + 20)]
        for text in forged:
            site.refusal(text)
        assert len(checked) == LIMITS.wrong_keys
        for text in (token(exp=1), token(aud="x"), token(iss="x"), "a.b.c", "x" * 20_000 + ".."):
            site.refusal(text, "192.0.2.3")
        assert len(checked) == LIMITS.wrong_keys, "cheap checks come first"
        verified = token(iat=5)
        for _ in range(50):
            assert site.find(verified, "192.0.2.4")
        assert len(checked) == LIMITS.wrong_keys + 1, "a verified token is not verified again"

    run(scenario)


def test_verified_tokens_are_bounded(change_limits: ChangeLimits) -> None:
    change_limits(verified_tokens=3)

    async def scenario(site: Site) -> None:
        texts = [token(sub=f"c{number}") for number in range(8)]
        for text in texts * 2:
            assert site.find(text)
        assert len(site.tokens._verified) == 3

    run(scenario)


def test_a_token_whose_key_is_withdrawn_is_refused(change_limits: ChangeLimits) -> None:
    change_limits(issuer_fresh=0.01, issuer_refresh=1000)

    async def scenario(site: Site) -> None:
        kept, text = token("ES256", "P-256"), token()
        assert site.find(text)
        assert site.find(kept)
        site.keys[URL] = {"keys": [jwk("P-256")]}
        await asyncio.sleep(0.05)
        assert site.refusal(text) == WRONG
        await site.settle()
        assert site.refusal(text) == WRONG
        assert site.find(kept)

    run(scenario)


def test_a_token_that_cannot_be_checked_yet_may_come_again(change_limits: ChangeLimits) -> None:
    change_limits(issuer_refresh=0)

    async def scenario(site: Site) -> None:
        new = token(number=1)
        for _ in range(LIMITS.wrong_keys + 5):
            with pytest.raises(Error, match="are being fetched again") as caught:
                site.find(new)
            assert (caught.value.status, caught.value.temporary, caught.value.retry_after_ms) == (401, True, 1000)
        site.keys[URL] = {"keys": [jwk("RSA", 1)]}
        await site.settle()
        assert site.find(new)
        assert site.asked == 2, "one fetch has brought it"

    run(scenario)


def test_an_issuer_that_is_down_is_no_fault_of_the_token() -> None:
    other = "https://down.example"

    async def scenario(site: Site) -> None:
        for _ in range(LIMITS.wrong_keys + 5):
            assert site.refusal(token(iss=other)) == ("overloaded", "issuer", 503)
        assert site.refusal(token(iss=other, exp=1)) == ("unauthorized", "expired", 401)
        assert site.refusal(token(iss=other, aud="x")) == WRONG
        assert site.find(token()), "the other issuer is not concerned"

    run(scenario, issuer(), issuer(other, "down"))


def test_two_audiences_of_an_issuer_are_two_kinds_of_callers() -> None:
    async def scenario(site: Site) -> None:
        assert site.find(token(aud="gateway")).name == "staff:alice"
        assert site.find(token(aud="batch")).name == "batch:alice"
        assert site.asked == 1

    run(scenario, issuer(), issuer(name="batch", audience="batch"))


def test_another_configuration_counts_at_once() -> None:
    async def scenario(site: Site) -> None:
        text = token()
        assert site.find(text).models == ("*",)
        site.tokens.use((issuer(models=("m",)),))
        assert site.find(text).models == ("m",)
        assert site.asked == 1, "the keys of the same issuer are kept"
        site.tokens.use((issuer(audience="other"),))
        assert site.refusal(text) == WRONG
        site.tokens.use(())
        assert site.refusal(text) == WRONG

    run(scenario)


def test_a_claim_of_choice_names_the_caller() -> None:
    async def scenario(site: Site) -> None:
        assert site.find(token(email="a@b.example", email_verified=True)).name == "staff:a@b.example"
        assert site.refusal(token(email="a@b.example", email_verified=False)) == WRONG
        assert site.refusal(token()) == WRONG

    run(scenario, issuer(claim="email"))


def test_no_refusal_holds_the_token() -> None:
    async def scenario(site: Site) -> None:
        for text in (token(iss="https://canary.example"), token(aud="canary"), token(sub="canary" * 40), "canary.b.c"):
            with pytest.raises(Error) as caught:
                site.find(text)
            assert "canary" not in str(caught.value)
            assert text not in str(caught.value)

    run(scenario)
