"""`gai-fast reload`: a running server reads its configuration again, and the changes are printed."""

from __future__ import annotations

import json

from tests.ports import free_port
from tests.unit.cli.conftest import Run
from tests.unit.cli.keys.test_server_key import answering

REPORT = {
    "changes": [
        {"section": "model", "name": "fast", "change": "added"},
        {"section": "stream", "name": None, "change": "changed"},
    ],
    "needs_restart": ["[server]"],
}


def test_the_changes_are_printed_and_what_needs_a_restart(run: Run) -> None:
    with answering(200, json.dumps(REPORT)) as (url, asked):
        result = run("reload", "--url", url)
        shown = run("reload", "--url", url, "--json")
    assert asked[0].startswith("POST /admin/v1/reload")
    assert result.stdout.splitlines() == ["reloaded, 2 changes", "[[model]] fast: added", "[stream]: changed"]
    assert "what has changed in [server] needs a restart" in result.stderr
    assert (result.exit_code, json.loads(shown.stdout)) == (0, REPORT)


def test_a_refusal_is_a_failure_with_the_servers_words(run: Run) -> None:
    said = {"error": {"message": "the configuration is not reloaded: c.toml:3: unknown key"}}
    with answering(400, json.dumps(said)) as (url, _):
        result = run("reload", "--url", url)
    assert (result.exit_code, "c.toml:3: unknown key" in result.stderr) == (1, True)
    with answering(401, "{}") as (url, _):
        assert "set GAI_FAST_RELOAD_API_KEY" in run("reload", "--url", url).stderr
    with answering(200, '{"changes": 3}') as (url, _):
        assert "no gai-fast" in run("reload", "--url", url).stderr
    result = run("reload", "--url", f"http://127.0.0.1:{free_port()}")
    assert (result.exit_code, "check --url" in result.stderr) == (1, True)
