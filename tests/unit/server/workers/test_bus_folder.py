"""The folder of the sockets between workers: its end, and the folders of servers that were killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gai_fast.server.workers.bus_folder import PathTooLong, bus_folder
from tests.limits import LIMITS
from tests.waiting import SECONDS

SERVER = """
import os, signal, socket, sys
from pathlib import Path
from gai_fast.server.workers.bus_folder import bus_folder
with bus_folder(Path(sys.argv[1])) as folder:
    socket.socket(socket.AF_UNIX).bind(str(folder / "1"))
    if os.fork():
        print(folder, flush=True)
    signal.alarm(60)
    signal.pause()
"""
"""A process that has a folder, with a socket in it, and a child of it."""


def test_nobody_else_may_enter_it_and_it_is_removed_at_the_end(tmp_path: Path) -> None:
    with bus_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "1").touch()
    assert not folder.exists()


def test_the_folder_of_a_server_that_was_killed_is_removed_at_the_next_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        left = Path(server.stdout.readline().strip())
        server.kill()
        server.wait(SECONDS)
        with bus_folder(tmp_path):
            assert left.exists(), "its worker lives"
        os.killpg(server.pid, signal.SIGKILL)
        assert server.stdout.read() == "", "both are gone"
    assert left.exists()
    with bus_folder(tmp_path) as folder:
        assert [*tmp_path.iterdir()] == [folder]


def test_folders_that_may_be_somebody_elses_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gai-fast-new").mkdir()
    (tmp_path / "gai-fast-file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lock").touch()
    (tmp_path / "gai-fast-link").symlink_to("other")
    (tmp_path / "gai-fast-trap").mkdir()
    (tmp_path / "gai-fast-trap" / "lock").symlink_to("../other/lock")
    (tmp_path / "gai-fast-theirs").mkdir()
    before = {*tmp_path.rglob("*")}
    with bus_folder(tmp_path):
        pass
    assert {*tmp_path.rglob("*")} == before
    (tmp_path / "gai-fast-theirs" / "lock").touch()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with bus_folder(tmp_path):
        assert (tmp_path / "gai-fast-theirs").exists()


def test_a_path_that_no_socket_has_room_for_is_refused(tmp_path: Path) -> None:
    room = LIMITS.socket_path - len(os.fsencode(tmp_path)) - len(f"//gai-fast-12345678/{LIMITS.worker_number}")
    for length in (room, room + 1):
        (tmp_path / ("x" * length)).mkdir()
    with bus_folder(tmp_path / ("x" * room)) as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / str(LIMITS.worker_number)))
    with pytest.raises(PathTooLong), bus_folder(tmp_path / ("x" * (room + 1))):
        pass
    assert [*(tmp_path / ("x" * (room + 1))).iterdir()] == []
