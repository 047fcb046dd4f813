"""`gai_fast/files.py`: nothing that a configuration names holds up a start or a reload for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gai_fast.config import ConfigError, load
from gai_fast.files import open_file
from gai_fast.net.tls import TLSFileError, TLSFiles
from gai_fast.server.certificate import Certificate, CertificateError


@pytest.fixture(params=["fifo", "device"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that nobody writes to, or that has no end."""
    if request.param == "device":
        return Path("/dev/zero")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_only_a_regular_file_and_the_null_device_are_opened(endless: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        open_file(endless)
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with open_file(str(tmp_path / "link")) as file:
        assert file.read() == b"text"
    with open_file(os.devnull) as file:
        assert file.read() == b""


def test_a_configuration_that_would_never_end_is_told(endless: Path, tmp_path: Path) -> None:
    told = rf"{endless}.* cannot be read: not a regular file"
    with pytest.raises(ConfigError, match=told):
        load(endless, environ={})
    upstream = '[[upstream]]\nname = "a"\nprovider = "openai"\n'
    for text in (
        f'[prices]\nfile = "{endless}"',
        f'{upstream}api_key = "file:{endless}"',
        f'{upstream}api_key = "env:A"\nca_file = "{endless}"',
        f'{upstream}api_key = "env:A"\nclient_cert = "{endless}"',
    ):
        (tmp_path / "gai-fast.toml").write_text(text)
        with pytest.raises(ConfigError, match="not a regular file"):
            load(tmp_path / "gai-fast.toml", environ={"A": "key"})


def test_files_of_tls_that_would_never_end_are_told(endless: Path, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="not a regular file"):
        Certificate(str(endless), str(endless))
    (tmp_path / "cert.pem").touch()
    for files, key in (
        (TLSFiles(str(endless)), "ca_file"),
        (TLSFiles(None, str(endless)), "client_cert"),
        (TLSFiles(None, str(tmp_path / "cert.pem"), str(endless)), "client_key"),
    ):
        with pytest.raises(TLSFileError, match="not a regular file") as told:
            files.context()
        assert told.value.key == key
