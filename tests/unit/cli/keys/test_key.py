"""`gai-fast key`: the file keeps all that is not changed, and never holds a secret."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from gai_fast.config import load
from gai_fast.model.settings import KeySettings, key_digest
from gai_fast.runtime.ids import KEY_PREFIX
from tests.unit.cli.conftest import Run
from tests.waiting import SECONDS

FILE = """# Ours.
[server]
port = 0  # any

[[key]]
name = "alice"
secret = "env:ALICE"  # of the team

[[model]]
name = "fast"
upstream = "main"

# Where it comes from.
[[upstream]]
name = "main"
provider = "openai"
"""


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "c.toml"
    path.write_text(FILE)
    path.chmod(0o640)
    return path


def files() -> list[str]:
    return [each.name for each in Path().iterdir()]


def keys(path: Path) -> dict[str, KeySettings]:
    return {key.name: key for key in load(path, environ={"ALICE": "sk-alice-0123456789"}).keys}


def test_a_new_key_is_added_to_the_file_and_its_secret_shown_once(run: Run, file: Path) -> None:
    made = json.loads(run("key", "new", "bob", "-c", "c.toml", "--json").stdout)
    assert made.keys() == {"name", "secret", "hash"}
    assert made["name"] == "bob"
    assert made["hash"] == f"sha256:{sha256(made['secret'].encode()).hexdigest()}"
    assert made["secret"].startswith(KEY_PREFIX)
    assert len(made["secret"]) == len(KEY_PREFIX) + 43
    assert file.read_text() == f'{FILE}\n[[key]]\nname = "bob"\nsecret = "{made["hash"]}"\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert files() == ["c.toml"]
    assert keys(file)["bob"] == KeySettings("bob", (key_digest(made["secret"]),))
    shown = run("key", "new", "carol", "-c", "c.toml")
    secret = shown.stdout.removeprefix("secret: ").strip()
    assert keys(file)["carol"].digests == (key_digest(secret),)
    assert "it is not shown again" in shown.stderr
    assert "added [[key]] carol to c.toml: a server that runs takes the change with its next reload" in shown.stderr


def test_a_new_key_gets_tools_or_says_that_it_has_none(run: Run, file: Path) -> None:
    file.write_text(f'{FILE}[[tool_server]]\nname = "time"\nurl = "http://127.0.0.1:9/mcp"\n')
    assert "tool" not in run("key", "new", "one", "-c", "c.toml").stderr
    file.write_text(file.read_text().replace('upstream = "main"\n', 'upstream = "main"\ntools = ["*"]\n', 1))
    assert "two may use no tool of the gateway: --tools names some" in run("key", "new", "two", "-c", "c.toml").stderr
    result = run("key", "new", "three", "-c", "c.toml", "--tools", "time.*, time.now")
    assert (result.exit_code, "tool" in result.stderr) == (0, False), result.output
    assert [keys(file)[each].tools for each in ("two", "three")] == [(), ("time.*", "time.now")]


def test_a_new_key_has_what_the_flags_say(run: Run, file: Path) -> None:
    flags = ("--role", "admin", "--models", "fast, main/*", "--expires", "2030-01-31")
    assert run("key", "new", "root", "-c", "c.toml", *flags).exit_code == 0
    key = keys(file)["root"]
    assert (key.role, key.models, str(key.expires)) == ("admin", ("fast", "main/*"), "2030-01-31 00:00:00+00:00")
    assert 'models = ["fast", "main/*"]\nrole = "admin"\nexpires = "2030-01-31"\n' in file.read_text()
    assert run("key", "new", "none", "-c", "c.toml", "--models", "").exit_code == 0
    assert keys(file)["none"].models == ()


def test_without_a_file_the_block_is_there_to_paste(run: Run) -> None:
    made = run("key", "new", "bob", "--role", "admin")
    secret, _, block = made.stdout.removeprefix("secret: ").partition("\n\n")
    digest = sha256(secret.encode()).hexdigest()
    assert block == f'[[key]]\nname = "bob"\nsecret = "sha256:{digest}"\nrole = "admin"\n'
    assert made.stderr.count("\n") == 1
    assert "there is no file: paste" in made.stderr
    message = json.loads(run("key", "new", "bob", "--json").stdout)
    assert message["block"] == f'[[key]]\nname = "bob"\nsecret = "{message["hash"]}"'
    assert files() == []


def test_the_file_of_this_folder_is_meant_where_none_is_named(run: Run, file: Path) -> None:
    file.rename("gai-fast.toml")
    assert run("key", "new", "bob").exit_code == 0
    assert "bob" in keys(Path("gai-fast.toml"))


def test_keys_are_listed_without_their_secrets(run: Run, file: Path) -> None:
    file.write_text(
        "[key_defaults]\nstreams = 5\nmodels = ['fast']\n"
        + FILE
        + '[[key]]\nname = "old"\nsecret = ["env:OLD", "sha256:'
        + "ab" * 32
        + '"]\nrole = "admin"\nexpires = 2020-01-31\nmodels = []\nspend = {amount = 1.5, period = "day"}\n'
    )
    listed = run("key", "list", "-c", "c.toml", "--json")
    limits = {"requests_per_minute": None, "tokens_per_minute": None, "streams": 5, "spend": None}
    alice = {"name": "alice", "role": "user", "models": ["fast"], "expires": None, "expired": False, "limits": limits}
    old = {"name": "old", "role": "admin", "models": [], "expires": "2020-01-31T00:00:00Z", "expired": True}
    spend = {"amount": 1.5, "period": "day"}
    assert json.loads(listed.output) == [
        {**alice, "secrets": 1},
        {**old, "limits": {**limits, "spend": spend}, "secrets": 2},
    ]
    shown = run("key", "list", "-c", "c.toml").output
    assert [line.split() for line in shown.splitlines()] == [
        ["name", "role", "models", "expires", "limits"],
        ["alice", "user", "fast", "-", "streams", "5"],
        ["old", "admin", "none", "2020-01-31T00:00:00Z", "(expired)", "streams", "5,", "spend", "1.5", "a", "day"],
    ]
    assert "abab" not in shown + listed.output


def test_a_file_without_keys_has_none_to_list(run: Run) -> None:
    assert run("key", "list").output == "there are no keys\n"
    assert run("key", "list", "--json").output == "[]\n"


def test_a_rotated_key_has_its_former_secret_too_until_the_next_time(run: Run, file: Path) -> None:
    made = [json.loads(run("key", "rotate", "alice", "-c", "c.toml", "--json").stdout) for _ in range(3)]
    assert all(each.keys() == {"name", "secret", "hash"} for each in made)
    assert keys(file)["alice"].digests == tuple(key_digest(each["secret"]) for each in made[1:])
    written = f'["{made[1]["hash"]}", "{made[2]["hash"]}"]'
    assert file.read_text() == FILE.replace('"env:ALICE"', written)
    file.write_text(FILE)
    last = run("key", "rotate", "alice", "-c", "c.toml")
    secret = last.stdout.removeprefix("secret: ").strip()
    assert keys(file)["alice"].digests == (key_digest("sk-alice-0123456789"), key_digest(secret))
    assert "the former secret of alice stays valid until the next `key rotate`" in last.stderr


def test_a_revoked_key_is_gone_and_the_rest_as_it_was(run: Run, file: Path) -> None:
    run("key", "new", "bob", "-c", "c.toml")
    revoked = run("key", "revoke", "bob", "-c", "c.toml", "--json")
    assert json.loads(revoked.stdout) == {"name": "bob", "revoked": True}
    assert file.read_text() == f"{FILE}\n"
    last = run("key", "revoke", "alice", "-c", "c.toml")
    assert last.stdout == "revoked alice\n"
    assert last.stderr.startswith("removed [[key]] alice from c.toml: a server that runs takes the change")
    assert "alice was the last key: a server that began without `insecure` refuses the reload" in last.stderr
    assert (
        file.read_text() == FILE.replace('[[key]]\nname = "alice"\nsecret = "env:ALICE"  # of the team\n\n', "") + "\n"
    )


def test_with_an_issuer_the_last_key_may_go(run: Run, file: Path) -> None:
    file.write_text(f'{FILE}\n[[issuer]]\nname = "staff"\nurl = "https://login.example.com/"\naudience = "gai"\n')
    assert "was the last key" not in run("key", "revoke", "alice", "-c", "c.toml").stderr


@pytest.mark.parametrize("command", ["rotate", "revoke"])
def test_a_name_that_is_not_there_is_exit_code_2_and_changes_nothing(run: Run, file: Path, command: str) -> None:
    result = run("key", command, "alcie", "-c", "c.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: c.toml: no [[key]] has this name; did you mean alice?\n"
    assert file.read_text() == FILE
    file.write_text("")
    assert run("key", command, "alice", "-c", "c.toml").stderr.endswith("; there are no keys\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("new", "alice", "-c", "c.toml"),
            "c.toml:6: a [[key]] of this name is there: `gai-fast key rotate alice -c c.toml` gives it",
        ),
        (("new", "a b"), "NAME: `name` in [[key]] must be 1 to 64 characters"),
        (("new", "anonymous"), "NAME: `name` in [[key]] must not be anonymous"),
        (("new", ""), "NAME: `name` in [[key]] must be a string that is not empty"),
        (("new", "a", "--expires", "2030-01-31T00:00:00"), "--expires: `expires` in [[key]] must have a time zone"),
        (("new", "a", "--expires", "2020-01-31"), "--expires: 2020-01-31 has passed: the key could never be used"),
        (
            ("new", "a", "-c", "c.toml", "--models", "fsat"),
            "error: `models` of a key: no model is named 'fsat'; did you mean fast",
        ),
        (("new", "a", "--role", "root"), "Invalid value for '--role'"),
        (("new", "a", "-c", "none.toml"), "none.toml: cannot be read: No such file or directory"),
        (("list", "-c", "none.toml"), "none.toml: cannot be read: No such file or directory"),
        (("rotate", "a"), "there is no configuration file here: name one with -c"),
        (("revoke", "a"), "there is no configuration file here: name one with -c"),
    ],
)
def test_a_mistake_is_exit_code_2(run: Run, file: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("key", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert file.read_text() == FILE
    assert files() == ["c.toml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[key]\n", "c.toml:1:6: "),
        ('[[key]]\nname = "alice"\n', "c.toml:1: `secret` is missing in [[key]]"),
        ('key = [{name = "alice", secret = "env:A"}]', "c.toml: its `key` number 1 is no [[key]] table of its own"),
    ],
)
def test_a_file_that_cannot_be_changed_stays_as_it_is(run: Run, file: Path, text: str, message: str) -> None:
    file.write_text(text)
    result = run("key", "rotate", "alice", "-c", "c.toml")
    assert result.exit_code == 2
    assert message in result.stderr
    assert file.read_text() == text


def test_mistakes_that_were_there_before_do_not_matter(run: Run, file: Path) -> None:
    """`ALICE` is not set where the command runs, only where the server does."""
    twice = "".join(f'[[key]]\nname = "{name}"\nsecret = "sha256:{"ab" * 32}"\n' for name in ("x", "y"))
    file.write_text(f'{FILE}api_key = "env:NOT_HERE"\n{twice}')
    assert run("key", "new", "bob", "-c", "c.toml").exit_code == 0


def test_a_link_stays_one_and_line_ends_and_byte_order_mark_too(run: Run, file: Path) -> None:
    Path("link.toml").symlink_to(file)
    file.write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    assert run("key", "new", "bob", "-c", "link.toml").exit_code == 0
    assert Path("link.toml").is_symlink()
    data = file.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode() + b'\r\n[[key]]\r\nname = "bob"\r\n')
    assert data.count(b"\n") == data.count(b"\r\n")


def test_a_folder_that_cannot_be_written_is_a_failure(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    result = run("key", "new", "bob", "-c", "c.toml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: cannot write c.toml: No space left on device\n"
    assert file.read_text() == FILE
    assert files() == ["c.toml"]


def test_a_change_waits_for_another_one_and_keeps_it(run: Run, file: Path) -> None:
    """While the other command holds the file it is replaced, as that command does."""
    other = Path("other.toml")
    other.write_text(f'{FILE}\n[[key]]\nname = "other"\nsecret = "env:OTHER"\n')
    with file.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=run, args=("key", "rotate", "alice", "-c", "c.toml"))
        waiting.start()
        other.replace(file)
    waiting.join(30)
    names = [key["name"] for key in json.loads(run("key", "list", "-c", "c.toml", "--json").output)]
    assert names == ["alice", "other"]
    assert '["env:ALICE", "sha256:' in file.read_text()


def test_a_new_key_may_have_limits(run: Run, file: Path) -> None:
    rates = ("--requests-per-minute", "60", "--tokens-per-minute", "90000", "--streams", "3")
    result = run("key", "new", "bob", "-c", "c.toml", *rates, "--spend", "1.5/month")
    assert result.exit_code == 0, result.stderr
    [_, bob] = json.loads(run("key", "list", "-c", "c.toml", "--json").output)
    spend = {"amount": 1.5, "period": "month"}
    assert bob["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 90000, "streams": 3, "spend": spend}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ("--spend", "50"),
            "error: --spend must be AMOUNT/PERIOD, such as 50/month, with a period of day, month, total, not '50'\n",
        ),
        (("--spend", "much"), "error: --spend must be AMOUNT/PERIOD, such as 50/month"),
        (("--spend", "nan/day"), "error: --spend must be AMOUNT/PERIOD"),
        (("--spend", "1e999/day"), "error: --spend must be AMOUNT/PERIOD"),
        (("--spend", "5/fortnight"), "error: --spend must be AMOUNT/PERIOD"),
        (("--spend", "-5/day"), "error: --spend: `spend` in [[key]] must have an amount from 0 to"),
        (("--streams", "-1"), "error: --streams: `streams` in [[key]] must be a whole number"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named_and_changes_nothing(
    run: Run, file: Path, given: tuple[str, ...], expected: str
) -> None:
    result = run("key", "new", "bob", "-c", "c.toml", *given)
    assert (result.exit_code, result.stdout, file.read_text()) == (2, "", FILE)
    assert result.stderr.startswith(expected)


def test_a_secret_for_a_closed_output_changes_nothing(file: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -P -m gai_fast key new bob -c c.toml >&-', sys.executable],
        stderr=subprocess.PIPE,
        env={**os.environ, "ALICE": "sk-alice-0123456789"},
        timeout=SECONDS,
        check=False,
    )
    said = "error: the secret cannot be printed, so nothing is changed: the standard output is closed\n"
    assert (done.returncode, done.stderr.decode()) == (1, said)
    assert (file.read_text(), files()) == (FILE, ["c.toml"])


@pytest.mark.parametrize("arguments", [("new", "bob"), ("new", "bob", "--json"), ("rotate", "alice")])
@pytest.mark.parametrize("is_pipe", [False, True])
def test_a_secret_that_cannot_be_printed_changes_nothing(file: Path, arguments: tuple[str, ...], is_pipe: bool) -> None:
    reader, output = os.pipe() if is_pipe else (-1, os.open("/dev/full", os.O_WRONLY))
    if is_pipe:
        os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gai_fast", "key", *arguments, "-c", "c.toml"],
            stdout=output,
            stderr=subprocess.PIPE,
            env={**os.environ, "ALICE": "sk-alice-0123456789"},
            timeout=SECONDS,
            check=False,
        )
    finally:
        os.close(output)
    reason = "Broken pipe" if is_pipe else "No space left on device"
    assert done.stderr.decode() == f"error: the secret cannot be printed, so nothing is changed: {reason}\n"
    assert done.returncode == 1
    assert (file.read_text(), files()) == (FILE, ["c.toml"])
