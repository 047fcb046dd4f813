"""`gai_fast/runtime/files.py`: nothing that a configuration names holds up a start or a reload for ever."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gai_fast.config import ConfigError, load
from gai_fast.net.upstream.tls import TLSFileError, TLSFiles
from gai_fast.runtime.files import open_file
from gai_fast.server.edge.certificate import Certificate, CertificateError
from tests.conftest import ChangeLimits

_NO_FILE = "not a regular file|a pipe that was not written to its end within 0.01 s"


@pytest.fixture(autouse=True)
def short_wait(change_limits: ChangeLimits) -> None:
    change_limits(piped_file=0.01)


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, str]]:
    """Where it is written, and its path as the shell gives it for `<(…)`."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as writer:
        yield writer, f"/dev/fd/{reading}"


@pytest.fixture(params=["fifo", "device"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Returns a file that is never written, or that has no end."""
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


def test_a_configuration_that_would_never_end_is_reported(endless: Path, tmp_path: Path) -> None:
    message = rf"{endless}.* cannot be read: ({_NO_FILE})"
    with pytest.raises(ConfigError, match=message):
        load(endless, environ={})
    upstream = '[[upstream]]\nname = "a"\nprovider = "openai"\n'
    for text in (
        f'[prices]\nfile = "{endless}"',
        f'{upstream}api_key = "file:{endless}"',
        f'{upstream}api_key = "env:A"\nca_file = "{endless}"',
        f'{upstream}api_key = "env:A"\nclient_cert = "{endless}"',
    ):
        (tmp_path / "gai-fast.toml").write_text(text)
        with pytest.raises(ConfigError, match=_NO_FILE):
            load(tmp_path / "gai-fast.toml", environ={"A": "key"})


def test_a_piped_configuration_is_read_to_its_end_and_once(pipe: tuple[io.FileIO, str]) -> None:
    writer, path = pipe
    writer.write(b"[server]\n")
    with pytest.raises(ConfigError, match="not written to its end"):
        load(Path(path), environ={})
    writer.write(b"[server]\nport = 8123\n")
    writer.close()
    assert load(Path(path), environ={}).server.port == 8123
    with pytest.raises(ConfigError, match="a pipe with nothing in it"):
        load(Path(path), environ={})


def test_a_pipe_without_an_end_is_not_read_for_ever(pipe: tuple[io.FileIO, str], change_limits: ChangeLimits) -> None:
    change_limits(config_file=1000)
    pipe[0].write(b"#" * 2000)
    with pytest.raises(ConfigError, match="larger than 1000 bytes"):
        load(Path(pipe[1]), environ={})


def test_files_of_tls_that_would_never_end_are_reported(endless: Path, tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="not a regular file"):
        Certificate(str(endless), str(endless))
    (tmp_path / "cert.pem").touch()
    for files, key in (
        (TLSFiles(str(endless)), "ca_file"),
        (TLSFiles(None, str(endless)), "client_cert"),
        (TLSFiles(None, str(tmp_path / "cert.pem"), str(endless)), "client_key"),
    ):
        with pytest.raises(TLSFileError, match="not a regular file") as message:
            files.context()
        assert message.value.key == key
