"""SIGHUP: what may change while the server runs."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from gai_fast.config import ConfigError, load
from gai_fast.model.settings import (
    CacheSettings,
    IssuerSettings,
    KeySettings,
    ModelSettings,
    ServerSettings,
    Settings,
    UpstreamSettings,
    key_digest,
)
from gai_fast.net.stream.guarding import GuardError
from gai_fast.server.admin.bodies import plain
from gai_fast.server.edge.certificate import Certificate, CertificateError
from gai_fast.server.reload import Reload, from_bytes, to_bytes

UP = UpstreamSettings("up", "openai", "http://127.0.0.1:1")
OLD = Settings(upstreams={"up": UP}, models={"m": ModelSettings("m", UP, "m")}, default_model="m")
KEY = KeySettings("alice", (key_digest("sk"),))


def changed(**parts: Any) -> Settings:
    return dataclasses.replace(OLD, **parts)


def test_what_is_new_counts_and_is_the_base_of_the_next_time(caplog: pytest.LogCaptureFixture) -> None:
    new = changed(models={**OLD.models, "n": ModelSettings("n", UP, "n")}, keys=(KEY,))
    last = changed(keys=(KEY,))
    answers = [new, last]
    reload = Reload(OLD, lambda: answers.pop(0), is_open=False)
    with caplog.at_level(logging.INFO, "gai_fast.server"):
        assert reload().settings == new
        assert reload.settings == new
        assert reload().settings == last
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines.count(("INFO", "the configuration has been reloaded")) == 2
    assert {level for level, _ in lines} == {"INFO"}, "a reload that is as wanted is no warning"


def test_each_change_of_a_reload_is_logged_by_its_name_and_without_its_value(caplog: pytest.LogCaptureFixture) -> None:
    new = changed(models={"n": ModelSettings("n", UP, "n"), **OLD.models}, keys=(KEY,))
    with caplog.at_level(logging.INFO, "gai_fast.server"):
        Reload(OLD, lambda: new, is_open=False)()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert sorted(lines) == ["[[key]] alice: added", "[[model]] n: added", "the configuration has been reloaded"]


async def test_a_reload_beside_the_loop_prepares_what_is_new_and_one_that_cannot_be_prepared_changes_nothing() -> None:
    new, last = changed(keys=(KEY,)), changed(keys=(KEY,), cache=CacheSettings(ttl=5.0))
    answers, prepared = [new, last, last], list[Settings]()
    reload = Reload(OLD, lambda: answers.pop(0), is_open=False)

    async def prepare(settings: Settings) -> None:
        assert reload.settings is not settings
        prepared.append(settings)
        if len(prepared) == 2:
            raise GuardError("guard 'a': no")

    reloads = await asyncio.gather(*[reload.beside(prepare) for _ in range(3)])
    assert [each.settings for each in reloads] == [new, None, last]
    assert reloads[1].problem == "guard 'a': no"
    assert prepared == [new, last, last]
    assert reload.settings == last


def test_a_configuration_that_cannot_be_used_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Settings:
        raise ConfigError("gai-fast.toml:3: first", "gai-fast.toml:9: second")

    reload = Reload(OLD, fail, is_open=False)
    assert reload().settings is None
    assert reload.settings is OLD
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "\n" not in record.getMessage()
    assert "first" in record.getMessage()
    assert "second" in record.getMessage()


def test_each_hangup_has_a_line_in_the_audit_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Settings:
        raise ConfigError("gai-fast.toml:3: first")

    with caplog.at_level(logging.INFO, "gai_fast.audit"):
        Reload(OLD, lambda: OLD, is_open=False).signalled()
        Reload(OLD, fail, is_open=False).signalled()
    lines = [record.getMessage() for record in caplog.records if record.name == "gai_fast.audit"]
    assert lines == [
        "action='reload' key=None client_ip=None target=None result=200",
        "action='reload' key=None client_ip=None target=None result=400",
    ]


class FakeCertificate(Certificate):
    """A certificate without files."""

    def __init__(self, problem: str | None = None) -> None:
        self.problem = problem
        self.context = self.first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def load(self) -> ssl.SSLContext:
        if self.problem is not None:
            raise CertificateError(self.problem, "tls_cert")
        return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def expiry_problem(self, now: float) -> str:
        return "it ends"


def test_the_certificate_is_loaded_anew_and_its_end_said(caplog: pytest.LogCaptureFixture) -> None:
    certificate = FakeCertificate()
    assert Reload(OLD, lambda: OLD, is_open=False, certificate=certificate)().settings == OLD
    assert certificate.context is not certificate.first
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == ["it ends"]


def test_a_certificate_that_cannot_be_used_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    certificate = FakeCertificate("it is torn")
    reload = Reload(OLD, lambda: changed(keys=(KEY,)), is_open=False, certificate=certificate)
    assert reload().settings is None
    assert reload.settings is OLD
    assert certificate.context is certificate.first
    assert [record.getMessage() for record in caplog.records] == ["the configuration is not reloaded: it is torn"]


def test_a_configuration_that_cannot_be_used_leaves_the_certificate_alone() -> None:
    def fail() -> Settings:
        raise ConfigError("gai-fast.toml:3: first")

    certificate = FakeCertificate()
    assert Reload(OLD, fail, is_open=False, certificate=certificate)().settings is None
    assert certificate.context is certificate.first


def test_what_needs_a_restart_stays_as_it_is_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    new = changed(server=ServerSettings(port=1), default_model=None, keys=(KEY,))
    reload = Reload(OLD, lambda: new, is_open=False)
    answer = reload().settings
    assert answer is not None
    assert (answer.server, answer.default_model, answer.keys) == (OLD.server, "m", (KEY,))
    assert caplog.records[-1].getMessage() == "what has changed in [server], `default_model` needs a restart"


@pytest.mark.parametrize(
    ("new", "is_open", "reason"),
    [
        (
            changed(keys=()),
            True,
            "no key would be left, while other machines reach this server",
        ),
        (changed(models={}), False, "there would be no model 'm', which `default_model` names until a restart"),
    ],
)
def test_what_would_open_or_break_the_server_is_refused(
    new: Settings, is_open: bool, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    reload = Reload(OLD, lambda: new, is_open=is_open)
    assert reload().settings is None
    assert reload.settings is OLD
    assert caplog.records[-1].getMessage() == f"the configuration is not reloaded: {reason}"


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("server", [ServerSettings(), ServerSettings(forwarded_allow_ips=("127.0.0.1",))])
def test_the_last_key_is_dropped_only_from_an_insecure_server(server: ServerSettings, is_open: bool) -> None:
    """A reload keeps `[server]`, so `insecure` in the new file does not count either."""
    with_key = changed(server=server, keys=(KEY,))
    insecure = dataclasses.replace(server, insecure=True)
    for new in (changed(server=server), changed(server=insecure)):
        reload = Reload(with_key, lambda new=new: new, is_open=is_open)
        reloaded = reload()
        assert (reloaded.settings, reload.settings) == (None, with_key)
        assert "key" in reloaded.problem
    kept = changed(server=insecure, keys=(KEY,))
    assert Reload(kept, lambda: changed(server=insecure), is_open=is_open)().settings is not None


def test_an_issuer_is_what_keeps_a_server_closed_too() -> None:
    issuer = IssuerSettings("staff", "https://login.example.com", "gateway", KeySettings("staff", ()))
    closed = changed(issuers=(issuer,))
    assert Reload(closed, changed, is_open=False)().settings is None
    assert plain(Reload(changed(), lambda: closed, is_open=True)().changes) == [
        {"section": "issuer", "name": "staff", "change": "added"}
    ]
    assert Reload(changed(keys=(KEY,)), lambda: closed, is_open=True)().settings is not None
    assert from_bytes(to_bytes(closed)) == closed


def test_a_configuration_reaches_another_process_whole(tmp_path: Path) -> None:
    file = tmp_path / "gai-fast.toml"
    file.write_text(
        '[[key]]\nname = "alice"\nsecret = "env:KEY"\n'
        '[[upstream]]\nname = "up"\nprovider = "openai"\napi_key = "env:KEY"\nheaders = { a = "b" }\n'
        '[[model]]\nname = "m"\nupstream = "up"\nfallback_on = { timeout = "demo" }\n'
        '[[processor]]\nuse = "batch"\ncharacters = 5\n'
    )
    settings = load(file, environ={"KEY": "sk-hidden"})
    again = from_bytes(to_bytes(settings))
    key = again.upstreams["up"].api_key
    assert key is not None
    assert key.reveal() == "sk-hidden"
    assert isinstance(again.models, MappingProxyType)
    assert repr(again) == repr(settings)


def test_a_price_list_is_read_again_and_a_broken_one_leaves_the_old_prices(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, prices = tmp_path / "gai-fast.toml", tmp_path / "prices.toml"
    file.write_text('[prices]\nfile = "prices.toml"\n')
    entry = '[[price]]\nprovider = "demo"\nid = "demo"\noutput = 1\ninput = '
    prices.write_text(f"{entry}1\n")
    first = load(file, environ={})
    reload = Reload(first, lambda: load(file, environ={}), is_open=False)
    prices.write_text(f"{entry}-1\n")
    assert reload().settings is None
    assert reload.settings is first
    assert f"{prices}:1: [[price]] of 'demo' must have a number for input" in caplog.records[-1].getMessage()
    prices.write_text(f"date = 2026-11-22\n{entry}2\n")
    second = reload().settings
    assert second is not None
    assert second.prices.date == "2026-11-22"
    price, former = second.price(second.chosen("demo")), first.price(first.chosen("demo"))
    assert price is not None
    assert former is not None
    assert price.input == 2 * former.input
    assert from_bytes(to_bytes(second)) == second
