"""What ends at a moment is said alike: by `check`, by the start, by `doctor`."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.ends import end_of_token, ends
from gai_fast.model.settings import KeySettings, Secret, Settings, ToolServerSettings, UpstreamSettings
from tests.integration.certificates import Authority
from tests.unit.cli.conftest import Run

NOW = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
DAY = 86_400.0


def token(claims: Any) -> str:
    """Returns a JWT; nobody checks its signature."""
    parts = [json.dumps(each).encode() for each in ({"alg": "none"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts), "signature"])


@pytest.mark.parametrize(
    ("after", "status", "said"),
    [
        (-1.0, "error", "it has expired on 2026-11-30"),
        (13 * DAY, "warning", "it expires on 2026-12-14"),
        (15 * DAY, "", ""),
    ],
)
def test_keys_and_tokens_end_alike(after: float, status: str, said: str) -> None:
    end = NOW + after
    secret = Secret(token({"exp": end}))
    settings = Settings(
        keys=(
            KeySettings("alice", (), expires=datetime.fromtimestamp(end, UTC)),
            KeySettings("bob", ()),
        ),
        upstreams={
            "up": UpstreamSettings("up", "openai", "https://x", Secret("sk-plain"), more_api_keys=(secret,)),
        },
        tool_servers=(ToolServerSettings("docs", headers={"authorization": Secret(f"Bearer {secret.reveal()}")}),),
    )
    found = list(ends(settings, NOW))
    assert [each.name for each in found] == (["key.alice", "token.up", "token.tools.docs"] if status else [])
    for each in found:
        assert (each.status, each.detail.startswith(said), bool(each.fix)) == (status, True, True)
        assert secret.reveal() not in f"{each.detail}{each.fix}"


@pytest.mark.parametrize(
    "text",
    ["sk-plain", "a.b.c", "a.b", "..", token([1]), token({"exp": "soon"}), token({"exp": True}), token({"exp": 1e300}),
     token({}), "Bearer " + token({"sub": "x"}), f"x.{'W1tb' * 5000}.y"],
)  # fmt: skip
def test_what_has_no_end_is_no_end(text: str) -> None:
    assert end_of_token(text) is None
    assert end_of_token(token({"exp": 5})) == end_of_token("Bearer " + token({"exp": 5})) == 5.0


def configured(folder: Path, authority: Authority) -> dict[str, str]:
    """Writes a configuration in which all is over; returns its environment."""
    files = [authority.folder / f"expired-client.{kind}" for kind in ("pem", "key")]
    (folder / "c.toml").write_text(
        f"""[server]
port = 0
[[key]]
name = "alice"
secret = "sha256:{"a1" * 32}"
expires = 2026-01-31
[[upstream]]
name = "up"
provider = "openai-compatible"
base_url = "https://127.0.0.1:9/v1"
api_key = "env:TOKEN"
client_cert = '{files[0]}'
client_key = '{files[1]}'
"""
    )
    return {"TOKEN": token({"exp": 1_700_000_000})}


def test_check_and_doctor_say_what_is_over(run: Run, folder: Path, authority: Authority) -> None:
    environ = configured(folder, authority)
    checked = run("check", "-c", "c.toml", env=environ)
    said = [line.split(":")[1].strip() for line in checked.stderr.splitlines()]
    assert (checked.exit_code, said) == (0, ["key.alice", "token.up", "client_cert.up"]), checked.output
    looked = run("doctor", "-c", "c.toml", "--json", env=environ)
    found = {each["name"]: each["status"] for each in json.loads(looked.stdout)}
    assert [found[name] for name in said] == ["error"] * 3
    assert looked.exit_code == 1
