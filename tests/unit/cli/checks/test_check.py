"""`gai-fast check`: what is said of a right and of a wrong configuration. `integration/test_cli.py` probes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.certificates import Authority
from tests.unit.cli.conftest import Run
from tests.unit.config.folders import GUARD

UPSTREAM = '[[upstream]]\nname = "main"\nprovider = "openai"\nbase_url = "http://127.0.0.1:9"\n'
MODEL = '[[model]]\nname = "fast"\nupstream = "main"\n'


def test_a_right_configuration_is_counted(run: Run, folder: Path) -> None:
    (folder / "c.toml").write_text(UPSTREAM + MODEL + MODEL.replace("fast", "slow"))
    result = run("check", "-c", "c.toml")
    assert (result.exit_code, result.output) == (0, "config OK (1 upstream, 2 models and the demo): c.toml\n")
    shown = json.loads(run("check", "-c", "c.toml", "--json").output)
    assert shown == {"ok": True, "problems": [], "warnings": [], "file": "c.toml", "upstreams": 1, "models": 2}


def test_guards_are_said(run: Run, folder: Path) -> None:
    (folder / "c.toml").write_text(
        f"{UPSTREAM}{MODEL}{GUARD}models = ['fast']\n{GUARD.replace('names', 'b')}models = ['b']\n"
    )
    result = run("check", "-c", "c.toml")
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (
        0,
        [
            "guard names: words, mask on input and output; models fast; every caller",
            "guard b: words, mask on input and output; no model; every caller",
            "closed: format=raw of fast, by names",
            "closed: /v1/responses/compact of fast, by names",
            "closed: prompts of token ids of fast, by names",
        ],
    )
    assert result.stderr.startswith("warning: guard b: never holds: `models` has no model that there is: fast, demo, m")
    shown = json.loads(run("check", "-c", "c.toml", "--json").output)
    assert [each["guard"] for each in shown["guards"]] == ["names", "b"]
    assert [each["route"] for each in shown["closed"]][:2] == ["format=raw", "/v1/responses/compact"]
    (folder / "c.toml").write_text(GUARD.replace("words =", "wrods ="))
    result = run("check", "-c", "c.toml")
    assert (result.exit_code, result.output) == (
        2,
        "error: c.toml:4: unknown key 'wrods' in [[guard]] 'names'; did you mean words?\n",
    )


def test_zero_configuration_is_checked(run: Run) -> None:
    result = run("check", env={"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "x", "GAI_FAST_SERVER__DEMO": "false"})
    assert result.output == "config OK (2 upstreams, 6 models): no file\n"


def test_a_wrong_one_is_reported_line_by_line(run: Run, folder: Path) -> None:
    (folder / "c.toml").write_text("[server]\nprot = 1\n\nkeep_alive = 9\n")
    lines = [
        "c.toml:2: unknown key 'prot' in [server]; did you mean port?",
        "c.toml:4: `keep_alive` in [server] is not supported yet",
    ]
    result = run("check", "-c", "c.toml")
    assert (result.exit_code, result.output.splitlines()) == (2, [f"error: {line}" for line in lines])
    result = run("check", "-c", "c.toml", "--json")
    assert result.exit_code == 2
    assert json.loads(result.output) == {"ok": False, "problems": lines}


def test_mistakes_are_in_the_order_of_the_file(run: Run, folder: Path) -> None:
    """Whichever part of the reading finds them; those of variables stand below."""
    wrong = f"{MODEL.replace('main', 'none')}{UPSTREAM.replace('openai', 'bedrock')}[server]\nprot = 1\nport = -1\n"
    (folder / "c.toml").write_text(f"{wrong}[key_defaults]\nstreams = -1\n")
    result = run("check", "-c", "c.toml", "--json", env={"GAI_FAST_SERVER__GRACE": "soon"})
    problems = json.loads(result.output)["problems"]
    places = [each.split(": ")[0] for each in problems]
    assert places == [*(f"c.toml:{line}" for line in (3, 6, 9, 10, 12)), "GAI_FAST_SERVER__GRACE"]
    assert 'with auth = "aws" in [[upstream]]' in problems[1]


def test_a_certificate_that_the_server_could_not_use_is_a_mistake(run: Run, folder: Path, authority: Authority) -> None:
    pair = authority.pair("good")
    for change, code, message in (
        ({}, 0, "config OK"),
        ({"tls_cert": "none.pem"}, 2, "c.toml:2: the certificate none.pem (`tls_cert`) cannot be read: No such file"),
        ({"tls_key": pair["tls_cert"]}, 2, f"c.toml:3: {pair['tls_cert']} (`tls_key`) holds no key"),
        ({"tls_key": authority.pair("elsewhere")["tls_key"]}, 2, "c.toml:3: the key "),
    ):
        keys = (f'{name} = "{file}"' for name, file in {**pair, **change}.items())
        (folder / "c.toml").write_text("\n".join(["[server]", *keys]))
        result = run("check", "-c", "c.toml")
        assert (result.exit_code, message in result.output) == (code, True), result.output


def test_a_certificate_that_clients_refuse_is_a_warning(run: Run, folder: Path, authority: Authority) -> None:
    authority.issue("short", "DNS:localhost", days=3)
    for name, found in (("short", "(`tls_cert`) expires on 20"), ("expired", "certificate has expired")):
        keys = (f'{key} = "{file}"' for key, file in authority.pair(name).items())
        (folder / "c.toml").write_text("\n".join(["[server]", *keys]))
        result = run("check", "-c", "c.toml")
        assert (result.exit_code, found in result.stderr) == (0, True), result.stderr
        [warning] = json.loads(run("check", "-c", "c.toml", "--json").output)["warnings"]
        assert found in warning


def test_a_missing_key_is_a_warning(run: Run, folder: Path) -> None:
    (folder / "c.toml").write_text('[[upstream]]\nname = "main"\nprovider = "openai"\n')
    result = run("check", "-c", "c.toml")
    warning = (
        'upstream.main: it has no key, and openai refuses requests without one: set `api_key = "env:OPENAI_API_KEY"`'
    )
    assert (result.exit_code, f"warning: {warning}" in result.stderr) == (0, True), result.output
    [shown] = json.loads(run("check", "-c", "c.toml", "--json").output)["warnings"]
    assert shown.startswith(warning)
    assert run("check", "-c", "c.toml", env={"OPENAI_API_KEY": "k"}).stderr == ""


TOOLS = """[[upstream]]
name = "main"
provider = "openai"
api_key = "env:K"
[[tool_server]]
name = "time"
url = "http://127.0.0.1:9/mcp"
[[tool]]
name = "weather"
python = "weather_tool:weather"
[[model]]
name = "m"
upstream = "main"
tools = ["*"]
"""
CALLER = f'[[key]]\nname = "a"\nsecret = "sha256:{"a1" * 32}"\n'


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ("", []),
        (CALLER, ["time.*", "weather"]),
        (f'{CALLER}tools = ["weather"]\n', ["time.*"]),
        (f'{CALLER}models = ["other/*"]\ntools = ["*"]\n', ["time.*", "weather"]),
        (f'{CALLER}[key_defaults]\ntools = ["*"]\n', []),
    ],
)
def test_tools_that_no_key_may_use_are_a_warning(run: Run, folder: Path, more: str, warned: list[str]) -> None:
    (folder / "weather_tool.py").write_text("def weather(city: str) -> str:\n    'The weather.'\n    return city\n")
    (folder / "c.toml").write_text(TOOLS + more.replace("other/*", "main/*"))
    result = run("check", "-c", "c.toml", env={"K": "k"})
    said = [f"warning: no key may use {each}: set `tools` of [[key]] or [key_defaults]" for each in warned]
    assert (result.exit_code, result.stderr.splitlines()) == (0, said), result.output


def test_times_that_end_long_answers_are_warned_of_with_their_lines(run: Run, folder: Path) -> None:
    upstream = '[[upstream]]\nname = "main"\nprovider = "openai"\napi_key = "env:K"\n'
    (folder / "c.toml").write_text(
        f"{upstream}first_event_timeout = 60\nidle_timeout = 299.5\ntotal_timeout = 600\n"
        + upstream.replace("main", "other")
        + 'first_event_timeout = 300\nidle_timeout = "auto"\ntotal_timeout = 3600\n'
    )
    result = run("check", "-c", "c.toml", env={"K": "k"})
    think = "ends answers of models that think for minutes: remove it, or set at least 300"
    assert (result.exit_code, result.stderr.splitlines()) == (
        0,
        [
            f"warning: c.toml:5: `first_event_timeout = 60` of upstream 'main' {think}",
            f"warning: c.toml:6: `idle_timeout = 299.5` of upstream 'main' {think}",
            "warning: c.toml:7: `total_timeout = 600` of upstream 'main' ends the long answers of agents: "
            "remove it, or set at least 3600",
        ],
    )
    assert len(json.loads(run("check", "-c", "c.toml", "--json", env={"K": "k"}).output)["warnings"]) == 3


def test_a_probe_opens_the_store_too(run: Run, folder: Path) -> None:
    (folder / "damaged.db").write_text("this is no database" * 100)
    (folder / "c.toml").write_text('[store]\nurl = "sqlite:///damaged.db"\n')
    result = run("check", "-c", "c.toml", "--probe")
    assert (result.exit_code, "store: error: " in result.output) == (1, True), result.output
    (folder / "c.toml").write_text('[store]\nurl = "sqlite:///new.db"\n')
    result = run("check", "-c", "c.toml", "--probe", "--json")
    assert (result.exit_code, json.loads(result.output)["store"][0]["status"]) == (0, "ok")
    assert not (folder / "new.db").exists()


def test_an_upstream_of_callers_credentials_lacks_no_key_and_is_not_probed(run: Run, folder: Path) -> None:
    (folder / "c.toml").write_text('[[upstream]]\nname = "a"\nprovider = "openai"\napi_key = "caller"\n')
    result = run("check", "-c", "c.toml", "--probe", "--json")
    read = json.loads(result.output)
    assert (result.exit_code, read["warnings"], [each["ok"] for each in read["probes"]]) == (0, [], [True])
    assert "is not asked: each caller" in read["probes"][0]["message"]


def test_a_probe_fetches_the_keys_of_each_issuer(run: Run, folder: Path) -> None:
    """Nothing listens at port 9: the failure is reported as the store's and upstreams' are."""
    (folder / "c.toml").write_text('[[issuer]]\nname = "staff"\nurl = "http://127.0.0.1:9"\naudience = "gateway"\n')
    result = run("check", "-c", "c.toml", "--probe")
    found = "issuer.staff: error: http://127.0.0.1:9: it cannot be reached"
    assert (result.exit_code, found in result.output) == (1, True), result.output
    assert " -> check `url` of staff" in result.output
    result = run("check", "-c", "c.toml", "--probe", "--json")
    shown = json.loads(result.output)
    assert (result.exit_code, shown["ok"]) == (1, False)
    assert [(each["name"], each["status"]) for each in shown["issuers"]] == [("issuer.staff", "error")]
    assert run("check", "-c", "c.toml").exit_code == 0, "nothing is asked without --probe"
