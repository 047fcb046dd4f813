"""`auth_command`: every form of a token that programs print, and programs that misbehave."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gai_fast.net.identity import command as module
from gai_fast.net.identity.command import fetch
from gai_fast.net.identity.grant import Bearer, IdentityError
from gai_fast.runtime.programs import Cancellation
from tests.limits import LIMITS, replaced
from tests.waiting import SECONDS


def run(script: str, *arguments: str) -> Bearer:
    return fetch([sys.executable, "-S", "-c", script, *arguments], Cancellation())


def printed(text: str) -> Bearer:
    return run("import sys; sys.stdout.write(sys.argv[1])", text)


def forms(hour: datetime) -> dict[str, str]:
    """What programs print of a token that ends in an hour."""
    unix, seconds = int(hour.timestamp()), f"{hour:%Y-%m-%dT%H:%M:%SZ}"
    local = f"{hour.astimezone():%Y-%m-%d %H:%M:%S}"
    return {
        "a number": f"tok {unix}",
        "two lines": f"tok\n{hour.isoformat()}\n",
        "a time": f"tok {seconds}",
        "seconds": "tok 3600",
        "expires_at": json.dumps({"token": "tok", "expires_at": hour.isoformat()}),
        "OAuth": json.dumps({"access_token": "tok", "token_type": "Bearer", "expires_in": 3600}),
        "az": json.dumps({"accessToken": "tok", "expiresOn": local, "expires_on": unix}),
        "kubectl": json.dumps({"status": {"token": "tok", "expirationTimestamp": hour.isoformat()}}),
        "gcloud": json.dumps({"credential": {"access_token": "tok", "token_expiry": seconds}}),
    }


@pytest.mark.parametrize("form", forms(datetime.now(UTC)))
def test_a_token_and_its_end_are_read_as_programs_print_them(form: str) -> None:
    grant = printed(forms(datetime.now(UTC) + timedelta(hours=1))[form])
    assert grant.secret.reveal() == "tok"
    assert grant.seconds is not None
    assert 3600 - SECONDS < grant.seconds < 3600 + SECONDS


@pytest.mark.parametrize("text", ["tok", "tok\n", '{"token": "tok"}', '{"token": "tok", "expires_at": null}'])
def test_a_token_without_an_end_is_a_token(text: str) -> None:
    grant = printed(text)
    assert (grant.secret.reveal(), grant.seconds) == ("tok", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "prints no token"),
        ("canary one two", "prints no token"),
        ("<!DOCTYPE html><html> canary", "prints no token"),
        ("canary tomorrow", "an end that is no time"),
        ("canary nan", "an end that is no time"),
        ("canary inf", "an end that is no time"),
        ("canary 1000000001", "has ended already"),
        ("canary\x7f", "not one printable ASCII word"),
        ("canarÿ", "not one printable ASCII word"),
        ('{"canary"', "broken JSON"),
        ('{"error": "canary"}', "JSON without a token"),
        ('{"token": 7, "status": "canary"}', "JSON without a token"),
        ("canary" * 4000, "not one printable ASCII word of at most"),
    ],
)
def test_what_is_no_token_is_refused_and_never_quoted(text: str, message: str) -> None:
    with pytest.raises(IdentityError, match=message) as refused:
        printed(text)
    assert "canar" not in f"{refused.value} {refused.value.fix} {refused.value!r}"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('canary'); raise SystemExit(1)", "exited with code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended by signal 15"),
    ],
)
def test_a_program_that_fails_gives_no_token_whatever_it_has_printed(script: str, message: str) -> None:
    with pytest.raises(IdentityError, match=message) as refused:
        run(script)
    assert refused.value.is_final


@pytest.mark.parametrize("command", [["/nowhere/at-all"], ["a\0b"], ["/"]])
def test_a_program_that_cannot_be_run_is_an_error(command: list[str]) -> None:
    with pytest.raises(IdentityError, match="cannot be run"):
        fetch(command, Cancellation())


def test_a_program_that_prints_without_end_is_ended() -> None:
    with pytest.raises(IdentityError, match=f"more than {LIMITS.token_output} bytes"):
        run("while True: print('x' * 65536)")


@pytest.mark.parametrize(
    "script",
    [
        "print('tok', flush=True); time.sleep(1e6)",
        "os.close(1); time.sleep(1e6)",
        "os.fork(); time.sleep(1e6)",
        "os.fork() or time.sleep(1e6)",  # what it has started keeps its output open
    ],
)
def test_a_program_that_hangs_is_ended_with_all_that_it_has_started(
    script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(module, "LIMITS", replaced(token_command=0.5))
    with pytest.raises(IdentityError, match="has not ended within") as refused:
        run(f"import os, time; held = open({str(fifo)!r}, 'wb', 0); held.write(b'.')\n{script}")
    assert not refused.value.is_final
    os.set_blocking(reader, True)
    assert os.read(reader, 2) in (b".", b"")
    assert os.read(reader, 2) == b"", "no process holds the other side any more"
    os.close(reader)


def test_a_program_is_ended_from_another_thread() -> None:
    cancellation = Cancellation()
    result: list[Any] = []

    def work() -> None:
        try:
            fetch([sys.executable, "-S", "-c", "import time; time.sleep(1e6)"], cancellation)
        except IdentityError as problem:
            result.append(str(problem))

    thread = threading.Thread(target=work)
    thread.start()
    while cancellation._process is None and thread.is_alive():
        time.sleep(0.002)
    cancellation.cancel()
    thread.join(SECONDS)
    assert result == [f"auth_command was ended by signal {signal.SIGKILL:d}"]
    with pytest.raises(IdentityError):
        fetch([sys.executable, "-S", "-c", "import time; time.sleep(1e6)"], cancellation)
