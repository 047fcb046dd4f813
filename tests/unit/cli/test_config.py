"""`gai-fast config`: the written file is valid, the shown one whole and without secrets, the schema complete."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli.config import json_schema, toml
from gai_fast.config import LISTS, SECTIONS, load
from gai_fast.config.guard_keys import USES
from gai_fast.model.settings import KINDS
from gai_fast.processors import PROCESSORS, parameters
from gai_fast.providers import provider_names
from tests.integration.certificates import Authority
from tests.limits import LIMITS

from .conftest import Run

SECRETS = {"OPENAI_API_KEY": "sk-hidden-1", "ANTHROPIC_API_KEY": "sk-hidden-2", "GEMINI_API_KEY": "sk-hidden-3"}
FILE = """
[server]
port = 9000
[[upstream]]
name = "main"
provider = "openai"
base_url = "http://127.0.0.1:9/v1"
api_key = "env:OPENAI_API_KEY"
headers = { authorization = "Bearer sk-hidden-4" }
[[model]]
name = "fast"
upstream = "main"
heartbeat = 3
"""


class TestInit:
    def test_it_writes_an_upstream_for_each_key_that_is_there(self, run: Run, folder: Path) -> None:
        result = run("config", "init", env=SECRETS)
        assert result.exit_code == 0
        assert result.output.startswith("wrote gai-fast.toml, with openai, anthropic, gemini\n")
        text = (folder / "gai-fast.toml").read_text()
        assert "hidden" not in text
        assert "# Times are seconds and sizes bytes" in text.partition("[server]")[0]
        settings = load(folder / "gai-fast.toml", environ=SECRETS)
        assert list(settings.upstreams) == ["openai", "anthropic", "gemini"]

    def test_without_keys_the_file_is_valid_and_all_example(self, run: Run, folder: Path) -> None:
        assert run("config", "init").exit_code == 0
        assert not load(folder / "gai-fast.toml", environ={}).upstreams

    def test_the_file_may_be_named_as_for_every_other_command(self, run: Run, folder: Path) -> None:
        assert run("config", "init", "-c", "a.toml").exit_code == 0
        assert run("config", "init", env={"GAI_FAST_CONFIG": "b.toml"}).exit_code == 0
        assert run("config", "init", "c.toml", env={"GAI_FAST_CONFIG": "d.toml"}).exit_code == 0
        assert sorted(each.name for each in folder.glob("*.toml")) == ["a.toml", "b.toml", "c.toml"]

    def test_a_dash_is_the_standard_output(self, run: Run, folder: Path) -> None:
        assert run("config", "init", env=SECRETS).exit_code == 0
        result = run("config", "init", "-", env=SECRETS)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == (folder / "gai-fast.toml").read_text()
        assert [each.name for each in folder.iterdir()] == ["gai-fast.toml"]

    @pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": "sk"}])
    def test_every_comment_that_holds_a_key_is_valid_too(self, run: Run, folder: Path, environ: dict[str, str]) -> None:
        run("config", "init", "x.toml", env=environ)
        lines = (folder / "x.toml").read_text().splitlines()
        active = [line.removeprefix("# ") if " = " in line or line.startswith("# [[") else line for line in lines]
        (folder / "x.toml").write_text("\n".join(active))
        authority = Authority(folder)
        for name in ("client.pem", "client.key"):
            (authority.folder / name.replace("client", "good")).rename(folder / name)
        (folder / "prices.toml").write_text("")
        for module, function in (("my_model", "answer"), ("my_policy", "check"), ("my_tools", "invoice")):
            (folder / f"{module}.py").write_text(f"def {function}(asked):\n    return [asked]\n")
        for name in ("patterns.txt", "words.txt"):
            (folder / name).write_text("kestrel\n")
        document = tomllib.loads("\n".join(active))
        document["server"].pop("default_model")
        for section, keys in SECTIONS.items():
            tables = document[section] if section in LISTS else [document[section]]
            # Keys that exclude one another, of an identity or of targets, stand in tables of their own.
            shown = {name for table in tables for name in table}
            above = {*SECTIONS["stream"]} if section == "model" else {"default_model"}
            assert section == "processor" or set(keys) - above == shown - above
        settings = load(folder / "x.toml", environ={"OPENAI_API_KEY": "sk", "WEBSITE_KEY": "sk-website"})
        assert settings.models["fast"].upstream.name == "openai"
        assert settings.keys[0].name == "website"

    def test_its_comments_list_the_allowed_values_and_say_what_counts_per_worker(self, run: Run, folder: Path) -> None:
        run("config", "init")
        lines = (folder / "gai-fast.toml").read_text().splitlines()
        comments = {name: about for line in lines for name, found, about in [line.partition(" = ")] if found}
        assert comments["# log_level"].endswith(" One of: debug, info, warning, error.")
        assert comments["# on_disconnect"].endswith(" One of: auto, cancel, detach, drain.")
        assert comments["# compression"].endswith(" Any of: zstd, gzip, br.")
        assert comments["# port"].endswith(" 0 to 65535.")
        assert comments["# max_body"].endswith(" At least 1.")
        [providers] = [line for line in lines if "Providers: " in line]
        assert all(name in providers for name in provider_names())
        stands = {line.partition(" = ")[0] for line in lines if "per worker" in line}
        assert stands == {"# min_idle", "# max_bytes"}

    def test_it_overwrites_only_where_it_is_reported_to(self, run: Run, folder: Path) -> None:
        (folder / "gai-fast.toml").write_text("mine")
        result = run("config", "init")
        assert (result.exit_code, result.output) == (2, "error: gai-fast.toml exists: --force overwrites it\n")
        assert (folder / "gai-fast.toml").read_text() == "mine"
        assert run("config", "init", "--force").exit_code == 0
        assert (folder / "gai-fast.toml").read_text() != "mine"

    def test_a_file_that_cannot_be_written_is_a_failure(self, run: Run) -> None:
        result = run("config", "init", "no/such/folder.toml")
        assert (result.exit_code, result.output) == (
            1,
            "error: cannot write no/such/folder.toml: No such file or directory\n",
        )


class TestShow:
    @pytest.fixture(autouse=True)
    def file(self, folder: Path) -> None:
        (folder / "c.toml").write_text(FILE)

    def test_it_shows_every_key_as_toml_without_secrets(self, run: Run) -> None:
        result = run("config", "show", "-c", "c.toml", env=SECRETS)
        assert result.exit_code == 0
        assert "hidden" not in result.output
        document = tomllib.loads(result.output)
        assert document["server"]["port"] == 9000
        assert document["server"]["host"] == "127.0.0.1"
        assert document["upstream"][0]["api_key"] == "env:OPENAI_API_KEY"
        assert document["upstream"][0]["headers"] == {"authorization": "[redacted]"}
        assert document["upstream"][0]["idle_timeout"] == "auto"
        assert document["model"] == [{"name": "fast", "upstream": "main", "id": "fast", "heartbeat": 3.0}]

    @pytest.mark.parametrize(
        ("proxy", "shown"),
        [
            ("http://user:hidden@proxy.internal:3128", "http://user:[redacted]@proxy.internal:3128"),
            ("http://hidden@proxy.internal:3128", "http://[redacted]@proxy.internal:3128"),
            ("http://hidden:@proxy.internal:3128", "http://[redacted]@proxy.internal:3128"),
            ("http://proxy.internal:3128", "http://proxy.internal:3128"),
            ("env:PROXY", "env:PROXY"),
            ("env", "env"),
        ],
    )
    def test_the_password_of_a_proxy_is_not_shown(self, run: Run, folder: Path, proxy: str, shown: str) -> None:
        (folder / "c.toml").write_text(
            f'[[upstream]]\nname = "up"\nprovider = "openai"\napi_key = "env:K"\nproxy = "{proxy}"\n'
        )
        environ = {
            "K": "sk-hidden",
            "PROXY": "http://user:hidden@other.internal:1",
            "https_proxy": "http://u:hidden@p:1",
        }
        for form in ((), ("--json",), ("--origin",)):
            result = run("config", "show", "-c", "c.toml", *form, env=environ)
            assert result.exit_code == 0, result.output
            assert "hidden" not in result.output
            assert f'"{shown}"' in result.output

    def test_credentials_in_raw_members_are_not_shown(self, run: Run, folder: Path) -> None:
        """MCP servers of requests have tokens and headers, as OpenAI's and Anthropic's APIs take them."""
        extra = """
            extra = {api_key = "hidden", note = "shown", user = "shown", tools = [
              {type = "mcp", authorization = "hidden", headers = {"x-anything" = "hidden"}, server_url = "shown"},
            ], mcp_servers = [{authorization_token = "hidden", password = 7, max_tokens = 8}], clientSecret = "hidden"}
        """
        (folder / "c.toml").write_text(
            f'[[upstream]]\nname = "up"\nprovider = "openai"\napi_key = "env:K"\n{extra}'
            f'[[model]]\nname = "m"\nupstream = "up"\n{extra}'
        )
        shown = {
            "api_key": "[redacted]",
            "note": "shown",
            "user": "shown",
            "tools": [
                {
                    "type": "mcp",
                    "authorization": "[redacted]",
                    "headers": {"x-anything": "[redacted]"},
                    "server_url": "shown",
                }
            ],
            "mcp_servers": [{"authorization_token": "[redacted]", "password": "[redacted]", "max_tokens": 8}],
            "clientSecret": "[redacted]",
        }
        document = tomllib.loads(run("config", "show", "-c", "c.toml", env={"K": "sk-hidden"}).output)
        assert document["upstream"][0]["extra"] == document["model"][0]["extra"] == shown
        for form in ("--json", "--origin"):
            assert "hidden" not in run("config", "show", "-c", "c.toml", form, env={"K": "sk-hidden"}).output

    def test_json_holds_the_same(self, run: Run) -> None:
        result = run("config", "show", "-c", "c.toml", "--json", env=SECRETS)
        assert "hidden" not in result.output
        shown = json.loads(result.output)
        assert shown["server"]["port"] == 9000
        assert shown["server"]["default_model"] is None
        assert shown["upstream"][0]["headers"] == {"authorization": "[redacted]"}

    def test_origin_says_where_each_value_comes_from(self, run: Run) -> None:
        environ = {**SECRETS, "GAI_FAST_HOST": "127.0.0.2"}
        text = run("config", "show", "-c", "c.toml", "--origin", env=environ).output
        assert "port = 9000  # c.toml:3\n" in text
        assert 'host = "127.0.0.2"  # GAI_FAST_HOST\n' in text
        assert "workers = 1  # default\n" in text
        shown = json.loads(run("config", "show", "-c", "c.toml", "--origin", "--json", env=environ).output)
        assert shown["server"]["port"] == {"value": 9000, "origin": "c.toml:3"}
        assert shown["model"][0]["id"] == {"value": "fast", "origin": "default"}

    def test_processors_are_shown_in_order_with_their_defaults(self, run: Run, folder: Path) -> None:
        with (folder / "c.toml").open("a") as file:
            file.write('[[processor]]\nuse = "json_stream"\nrecover = true\n[[processor]]\nuse = "correlation"\n')
        result = run("config", "show", "-c", "c.toml", "--origin", env=SECRETS)
        text = result.output.partition("[[processor]]\n")[2]
        assert text.startswith('use = "json_stream"  # c.toml:15\non_invalid = "warn"  # default\nrecover = true  # c.')
        shown = tomllib.loads(result.output)["processor"]
        assert shown[1] == {
            "use": "correlation", "ids": ["request_id", "trace_id", "stream_id"], "on": "ends", "labels": {}
        }  # fmt: skip
        (folder / "again.toml").write_text(result.output.partition("[[upstream]]")[0] + "[[processor]]\n" + text)
        assert [entry["use"] for entry in load(folder / "again.toml", environ={}).processors] == [
            "json_stream",
            "correlation",
        ]

    def test_guards_are_shown_with_the_defaults_of_their_use(self, run: Run, folder: Path) -> None:
        hook = '[[guard]]\nname = "hook"\nuse = "http"\nurl = "https://a.example"\naction = "flag"\n'
        with (folder / "c.toml").open("a") as file:
            file.write(f'{hook}headers = {{ a = "sk-hidden-5" }}\n[[guard]]\nname = "people"\nuse = "pii"\n')
        for more in ([], ["--json"], ["--origin"]):
            result = run("config", "show", "-c", "c.toml", *more, env=SECRETS)
            assert result.exit_code == 0
            assert "hidden" not in result.output
        shown = tomllib.loads(run("config", "show", "-c", "c.toml", env=SECRETS).output)["guard"]
        assert shown[0] == {
            "name": "hook",
            "use": "http",
            "on": ["input", "output"],
            "action": "flag",
            "models": ["*"],
            "keys": ["*"],
            "replacement": "[{category}]",
            "url": "https://a.example",
            "headers": {"a": "[redacted]"},
            "timeout": 1.0,
            "max_exposure": 0,
            "on_failure": "open",
        }
        assert shown[1]["action"] == "mask"
        assert shown[1]["kinds"] == list(KINDS)

    def test_of_the_url_of_tools_the_host_alone_is_shown(self, run: Run, folder: Path) -> None:
        with (folder / "c.toml").open("a") as file:
            for name, rest in (
                ("a", "/mcp/sk-hidden-6"),
                ("b", "?key=sk-hidden-7"),
                ("c", "/m/?a=sk-hidden-8"),
                ("d", ""),
            ):
                file.write(f'[[tool_server]]\nname = "{name}"\nurl = "https://a.example:1{rest}"\n')
        result = run("config", "show", "-c", "c.toml", env=SECRETS)
        assert "hidden" not in result.output
        shown = [each["url"] for each in tomllib.loads(result.output)["tool_server"]]
        assert shown == [*["https://a.example:1/[redacted]"] * 3, "https://a.example:1"]

    def test_secrets_of_callers_are_shown_as_references_and_digests_not_at_all(self, run: Run, folder: Path) -> None:
        digest = "a1" * 32
        keys = (("one", "env:ONE"), ("two", "file:two"), ("three", f"sha256:{digest}"))
        text = "".join(f'[[key]]\nname = "{name}"\nsecret = "{secret}"\n' for name, secret in keys)
        (folder / "k.toml").write_text(text)
        (folder / "two").write_text("hidden-too\n")
        for more in ([], ["--json"], ["--origin"]):
            result = run("config", "show", "-c", "k.toml", *more, env={"ONE": "hidden-one"})
            assert result.exit_code == 0
            assert "hidden" not in result.output
            assert digest not in result.output
        shown = tomllib.loads(run("config", "show", "-c", "k.toml", env={"ONE": "hidden-one"}).output)["key"]
        assert [key["secret"] for key in shown] == ["env:ONE", "file:two", "sha256:[redacted]"]

    def test_a_key_is_shown_with_what_the_defaults_say(self, run: Run, folder: Path) -> None:
        (folder / "k.toml").write_text(
            "[key_defaults]\nstreams = 5\nexpires = 2030-01-31\n"
            '[[key]]\nname = "a"\nspend = {amount = 1.5, period = "day"}\n'
            f'secret = ["env:ONE", "sha256:{"a1" * 32}"]\n'
        )
        shown = run("config", "show", "-c", "k.toml", "--origin", env={"ONE": "hidden-one"}).output
        assert 'expires = "2030-01-31T00:00:00Z"  # k.toml:3' in shown
        key = {"name": "a", "secret": ["env:ONE", "sha256:[redacted]"], "spend": {"amount": 1.5, "period": "day"}}
        key |= {"streams": 5, "expires": "2030-01-31T00:00:00Z"}
        assert tomllib.loads(shown)["key"] == [key]
        message = json.loads(run("config", "show", "-c", "k.toml", "--json", env={"ONE": "hidden-one"}).output)
        assert message["key"] == [key]
        assert message["key_defaults"]["expires"] == "2030-01-31T00:00:00Z"

    def test_zero_configuration_is_shown(self, run: Run) -> None:
        text = run("config", "show", env=SECRETS).output
        assert [table["name"] for table in tomllib.loads(text)["upstream"]] == ["openai", "anthropic", "gemini"]


class TestSchema:
    def test_it_describes_every_key_with_its_default(self, run: Run) -> None:
        schema = json.loads(run("config", "schema").output)
        assert schema == json.loads(json.dumps(json_schema()))
        assert schema["additionalProperties"] is False
        for section, keys in SECTIONS.items():
            table = schema["properties"][section]
            table = table.get("items", table)
            if section in ("processor", "guard"):
                continue
            assert set(table["properties"]) == set(keys)
            assert table["additionalProperties"] is False
            assert all(key["description"] for key in table["properties"].values())
        assert schema["properties"]["server"]["properties"]["port"] == {
            "description": "Port to listen on; 0 chooses a free one.",
            "type": "integer",
            "minimum": 0,
            "maximum": 65535,
            "default": 8080,
        }
        assert schema["properties"]["upstream"]["items"]["required"] == ["name", "provider"]

    def test_it_describes_the_guards_of_each_use(self) -> None:
        tables = {table["title"]: table for table in json_schema()["properties"]["guard"]["items"]["oneOf"]}
        assert list(tables) == list(USES)
        assert {name for table in tables.values() for name in table["properties"]} == set(SECTIONS["guard"])
        assert all(table["required"] == ["name", "use"] for table in tables.values())
        words = tables["words"]
        assert words["anyOf"] == [{"required": ["words"]}, {"required": ["words_file"]}]
        assert words["properties"]["use"]["const"] == "words"
        assert not {"patterns", "timeout"} & words["properties"].keys()
        assert "anyOf" not in tables["pii"]

    def test_it_describes_every_processor_with_its_parameters(self) -> None:
        tables = json_schema()["properties"]["processor"]["items"]["oneOf"]
        assert [table["properties"]["use"] for table in tables] == [{"const": use} for use in PROCESSORS]
        for use, table in zip(PROCESSORS, tables, strict=True):
            assert list(table["properties"]) == ["use", *parameters(use).__struct_fields__]
            assert (table["required"][0], table["additionalProperties"]) == ("use", False)
        batch = next(table for table in tables if table["title"] == "batch")
        assert batch["properties"]["characters"]["anyOf"][0] == {
            "type": "integer",
            "minimum": 1,
            "maximum": LIMITS.batch,
        }


@pytest.mark.parametrize(
    "value",
    ["", 'a"b\\c', "é🐈\u2028", "\x7f\x00\n", True, 3, 1.5, 1e7, [], ["a", "b"], {}, {"x-y": "1", 'q"': "2"}],
)
def test_toml_is_read_back_as_it_was(value: Any) -> None:
    assert tomllib.loads(f"v = {toml(value)}") == {"v": value}
