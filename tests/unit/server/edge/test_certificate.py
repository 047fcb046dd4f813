"""The files of a certificate: what cannot be used is named, and a new pair is for new connections."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from gai_fast.model.settings import ServerSettings
from gai_fast.server.edge.certificate import Certificate, CertificateError, certificate_of
from tests.integration.certificates import Authority
from tests.limits import LIMITS


def openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, capture_output=True, timeout=100, check=True)


def problem(cert: Path, key: Path) -> str:
    with pytest.raises(CertificateError) as caught:
        Certificate(str(cert), str(key))
    return str(caught.value)


def test_a_server_without_a_certificate_speaks_plain_http(authority: Authority) -> None:
    assert certificate_of(ServerSettings()) is None
    pair = {f"tls_{name}": str(authority.folder / f"good.{end}") for name, end in (("cert", "pem"), ("key", "key"))}
    assert certificate_of(ServerSettings(**pair)) is not None


def test_only_modern_tls_is_spoken(authority: Authority) -> None:
    context = Certificate(str(authority.folder / "good.pem"), str(authority.folder / "good.key")).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    for cipher in context.get_ciphers():
        assert cipher["aead"], cipher["name"]
        assert cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-"), cipher["name"]


@pytest.mark.parametrize("name", ["cert", "key"])
def test_a_file_that_cannot_be_read_is_named(authority: Authority, tmp_path: Path, name: str) -> None:
    files = {"cert": authority.folder / "good.pem", "key": authority.folder / "good.key"}
    what = {"cert": "certificate", "key": "key"}[name]
    files[name] = tmp_path / "missing"
    text = f"the {what} {tmp_path}/missing (`tls_{name}`) cannot be read: No such file or directory: check the path"
    assert problem(**files).startswith(text)
    files[name] = tmp_path
    assert "cannot be read: Is a directory" in problem(**files)


def test_a_file_that_holds_something_else_is_named(authority: Authority, tmp_path: Path) -> None:
    good, key = authority.folder / "good.pem", authority.folder / "good.key"
    other = tmp_path / "other"
    other.write_bytes(b"\x30\x82")
    assert problem(other, key).startswith(f"{other} (`tls_cert`) holds no certificate in PEM form")
    assert problem(good, other).startswith(f"{other} (`tls_key`) holds no key in PEM form")
    assert problem(key, good).startswith(f"{key} (`tls_cert`) holds no certificate in PEM form")


def test_a_damaged_file_is_reported_with_openssls_reason(authority: Authority, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pem"
    cut.write_bytes((authority.folder / "good.pem").read_bytes()[:200])
    text = problem(cut, authority.folder / "good.key")
    assert str(cut) in text
    assert "OpenSSL cannot use them" in text


def test_a_pair_that_does_not_belong_together_is_reported(authority: Authority) -> None:
    cert, key = authority.folder / "good.pem", authority.folder / "elsewhere.key"
    text = problem(cert, key)
    assert text.startswith(f"the key {key} (`tls_key`) does not belong to the certificate {cert} (`tls_cert`)")


def test_a_key_of_another_kind_does_not_belong_either(authority: Authority, tmp_path: Path) -> None:
    openssl(tmp_path, "genrsa -out rsa.key 2048")
    assert "does not belong" in problem(authority.folder / "good.pem", tmp_path / "rsa.key")


def test_a_weak_key_is_refused(tmp_path: Path) -> None:
    openssl(tmp_path, "req -x509 -newkey rsa:1024 -nodes -subj /CN=localhost -keyout weak.key -out weak.pem")
    assert "too weak" in problem(tmp_path / "weak.pem", tmp_path / "weak.key")


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(authority: Authority, tmp_path: Path) -> None:
    openssl(tmp_path, f"pkey -in {authority.folder}/good.key -aes256 -passout pass:secret -out locked.key")
    text = problem(authority.folder / "good.pem", tmp_path / "locked.key")
    assert text.startswith(f"the key {tmp_path}/locked.key (`tls_key`) is encrypted")


def test_permissions_are_named(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forbidden to root, who may run the tests."""

    def refuse(path: str) -> BinaryIO:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("gai_fast.server.edge.certificate.open_file", refuse)
    text = problem(authority.folder / "good.pem", authority.folder / "good.key")
    assert "Permission denied: check the path and the permissions" in text


def test_a_file_that_changes_while_it_is_read_is_reported(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", fail)
    text = problem(authority.folder / "good.pem", authority.folder / "good.key")
    assert text.endswith("good.pem cannot be read: No such file or directory")


def test_a_new_pair_is_a_new_context_and_a_bad_one_changes_nothing(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def write(name: str, key_name: str) -> None:
        shutil.copy(authority.folder / f"{name}.pem", cert)
        shutil.copy(authority.folder / f"{key_name}.key", key)

    write("good", "good")
    certificate = Certificate(str(cert), str(key))
    first = certificate.context
    write("elsewhere", "good")
    with caplog.at_level(logging.ERROR):
        certificate.reload()
    assert certificate.context is first
    (record,) = caplog.records
    assert record.getMessage().startswith("the certificate is not reloaded: the key ")
    write("elsewhere", "elsewhere")
    certificate.reload()
    assert certificate.context is not first


def test_an_end_within_two_weeks_is_a_warning_once_a_day(
    authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.issue("short", "DNS:localhost", days=13)
    pair = authority.pair("short")
    certificate = Certificate(pair["tls_cert"], pair["tls_key"])
    now = [1000.0]
    monkeypatch.setattr("gai_fast.server.edge.certificate.time.monotonic", lambda: now[0])
    for _ in range(3):
        assert certificate.for_connection() is certificate.context
    assert len(caplog.records) == 1
    assert "expires on 20" in caplog.text
    now[0] += LIMITS.certificate_check
    certificate.for_connection()
    assert len(caplog.records) == 2
    certificate.use(certificate.load())
    certificate.for_connection()
    now[0] += LIMITS.certificate_check
    certificate.warns = False
    certificate.for_connection()
    assert len(caplog.records) == 2, "a reload warns itself, and one of several workers"


def test_a_certificate_is_refused_by_clients_once_it_has_expired(authority: Authority) -> None:
    for name, text in (("expired", "certificate has expired"), ("good", ""), ("own", "")):
        pair = authority.pair(name)
        problem = Certificate(pair["tls_cert"], pair["tls_key"]).expiry_problem(time.time())
        assert (text in problem, bool(text)) == (True, bool(problem)), (name, problem)
