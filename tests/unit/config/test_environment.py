"""`config/environment.py`: variables that set keys, the providers' usual ones, and secrets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import pytest

from gai_fast.cli import main
from gai_fast.config import FLAGS, ConfigError, load, wants_color
from gai_fast.config.environment import activated_sockets
from gai_fast.model.errors import NotFound
from gai_fast.model.settings import ServerSettings
from gai_fast.providers.requests.facts import usual_ids
from tests.unit.config.folders import UPSTREAM, Folder

STORES = (
    "`url` in [store] must be the address of a store, such as "
    '"memory://", "sqlite:///gai-fast.db", "redis://127.0.0.1:6379/0"'
)


PAIR = '[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n'
"""Neither is allowed without the other."""


class TestVariables:
    @pytest.mark.parametrize(
        ("variable", "text", "section", "key", "value"),
        [
            ("GAI_FAST_SERVER__ACCESS_LOG", "yes", "server", "access_log", True),
            ("GAI_FAST_SERVER__ACCESS_LOG", "0", "server", "access_log", False),
            ("GAI_FAST_SERVER__MAX_BODY", "2048", "server", "max_body", 2048),
            ("GAI_FAST_SERVER__HEADER_TIMEOUT", "1.5", "server", "header_timeout", 1.5),
            ("GAI_FAST_SERVER__CORS_ORIGINS", "https://a.b, http://c.d", "server", "cors_origins", ("https://a.b", "http://c.d")),
            ("GAI_FAST_SERVER__LOG_LEVEL", "debug", "server", "log_level", "debug"),
            ("GAI_FAST_STREAM__HEARTBEAT", "0", "stream", "heartbeat", 0.0),
        ],
    )  # fmt: skip
    def test_a_variables_text_becomes_the_keys_value(
        self, folder: Folder, variable: str, text: str, section: str, key: str, value: Any
    ) -> None:
        settings = folder.read("", {variable: text}).settings
        assert getattr(getattr(settings, section), key) == value

    @pytest.mark.parametrize("name", FLAGS)
    def test_a_flag_has_a_variable_of_only_the_keys_name(self, folder: Folder, name: str) -> None:
        text = {"host": "127.0.0.5", "app": "shop:extend", "store": "redis://h", "log_format": "json"}.get(name, "1")
        section, key = FLAGS[name]
        for variable in (f"GAI_FAST_{name.upper()}", f"GAI_FAST_{section.upper()}__{key.upper()}"):
            settings = folder.read(PAIR, {variable: text}).settings
            value = str(getattr(getattr(settings, section), key))
            assert value.removeprefix(f"{folder.path}/") == text

    def test_an_empty_variable_counts_as_unset(self, folder: Folder) -> None:
        assert folder.read("[server]\nport = 1", {"GAI_FAST_PORT": ""}).settings.server.port == 1
        for variable in ("GAI_FAST_UDS", "GAI_FAST_SERVER__UDS", "GAI_FAST_SERVER__PROT"):
            assert folder.read("", {variable: ""}).settings.server == ServerSettings()

    @pytest.mark.parametrize(
        ("variable", "problem"),
        [
            ("GAI_FAST_SERVER__PROT", "no such setting; did you mean GAI_FAST_SERVER__PORT?"),
            ("GAI_FAST_STREEM__USAGE", "no such setting; did you mean GAI_FAST_STREAM__USAGE?"),
            ("GAI_FAST_STORE__URL", STORES),
            ("GAI_FAST_STORE", STORES),
            (
                "GAI_FAST_SERVER_PORT",
                "no such setting: two underscores follow the section, as in GAI_FAST_SERVER__PORT",
            ),
            ("GAI_FAST_UPSTREAM__NAME", "[[upstream]] is set in the file only"),
            ("GAI_FAST_SERVER__PORT", "`port` in [server] must be a whole number, 0 to 65535, not '1e3'"),
        ],
    )
    def test_a_variable_that_sets_nothing_is_an_error(self, folder: Folder, variable: str, problem: str) -> None:
        assert folder.problems("", {variable: "1e3"}) == [f"{variable}: {problem}"]

    @pytest.mark.parametrize("variable", ["GAI_FAST_BUILD", "GAI_FAST_MOCK_PORT", "OTHER__X", "GAI_FASTER__X"])
    def test_other_variables_are_left_alone(self, folder: Folder, variable: str) -> None:
        assert folder.read("", {variable: "x"}).settings.server == ServerSettings()

    def test_the_address_that_kubernetes_sets_for_a_service_is_left_alone(self, folder: Folder) -> None:
        """Kubernetes sets this variable for a Service of the name `gai-fast-server`."""
        read = folder.read("", {"GAI_FAST_SERVER_PORT": "tcp://10.0.0.1:80"})
        assert read.settings.server == ServerSettings()

    def test_no_flag_of_a_command_looks_like_a_setting_with_one_underscore(self, folder: Folder) -> None:
        def flags(command: click.Command, prefix: str) -> Iterator[str]:
            for parameter in command.params:
                yield f"{prefix}_{parameter.name}".upper()
            if isinstance(command, click.Group):
                context = click.Context(command)
                for name in command.list_commands(context):
                    each = command.get_command(context, name)
                    assert each is not None
                    yield from flags(each, f"{prefix}_{name}".replace("-", "_"))

        variables = [name for name in flags(main, "GAI_FAST") if name.count("_") > 2]
        assert "GAI_FAST_MOCK_PORT" in variables
        assert folder.read("", dict.fromkeys(variables, "x")).settings.server == ServerSettings()

    def test_the_process_environment_is_read_where_none_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GAI_FAST_PORT", "4711")
        assert load(None).server.port == 4711


class TestUsualVariables:
    def test_each_key_in_the_environment_configures_its_provider(self) -> None:
        environ = {"OPENAI_API_KEY": "sk-o", "ANTHROPIC_API_KEY": "sk-a", "GROQ_API_KEY": ""}
        settings = load(None, environ=environ)
        assert list(settings.upstreams) == ["openai", "anthropic"]
        key = settings.upstreams["anthropic"].api_key
        assert key is not None
        assert key.reveal() == "sk-a"
        model = settings.model("anthropic/claude")
        assert model is not None
        assert model.id == "claude"

    def test_the_usual_models_of_a_key_are_offered_without_a_file_and_suggested_with_one(self, folder: Folder) -> None:
        environ = {"OPENAI_API_KEY": "sk-o", "ANTHROPIC_API_KEY": "sk-a", "OLLAMA_HOST": "gpu.example"}
        settings = load(None, environ=environ)
        ids = [*map("openai/{}".format, usual_ids("openai")), *map("anthropic/{}".format, usual_ids("anthropic"))]
        assert list(settings.models) == [*ids, "demo"]
        assert settings.chosen(None).name == settings.chosen("gpt-5-mini").name == "openai/gpt-5-mini"
        with pytest.raises(NotFound, match="Did you mean 'openai/gpt-5-mini'"):
            settings.chosen("gpt5-mini")
        with_file = folder.read(UPSTREAM.replace('"main"', '"openai"'), environ).settings
        assert list(with_file.models) == ["demo"]
        with pytest.raises(NotFound, match="Did you mean 'openai/gpt-5-mini'"):
            with_file.chosen("gpt-5-mini")

    def test_a_usual_id_of_two_upstreams_is_asked_for_with_its_upstream(self) -> None:
        settings = load(None, environ={"GROQ_API_KEY": "sk", "OPENROUTER_API_KEY": "sk"})
        assert settings.chosen("openai/gpt-oss-120b").upstream.name == "groq"
        both = replace(settings, usual={})
        with pytest.raises(NotFound, match="Did you mean 'groq/openai/gpt-oss-120b'"):
            both.chosen("openai/gpt-oss-120b")

    @pytest.mark.parametrize(
        "variable", "OPENAI ANTHROPIC GEMINI GROQ MISTRAL XAI DEEPSEEK COHERE PERPLEXITY OPENROUTER".split()
    )
    def test_every_usual_variable_is_known(self, variable: str) -> None:
        settings = load(None, environ={f"{variable}_API_KEY": "sk"})
        assert list(settings.upstreams) == [variable.lower()]

    def test_the_address_of_a_local_server_configures_it(self, folder: Folder) -> None:
        environ = {"OLLAMA_HOST": "gpu.example"}
        upstream = load(None, environ=environ).upstreams["ollama"]
        assert (upstream.base_url, upstream.api_key) == ("http://gpu.example:11434", None)
        table = '[[upstream]]\nname = "x"\nprovider = "ollama"\n'
        for source, variables, base_url in (
            (table, environ, "http://gpu.example:11434"),
            (table, {}, "http://127.0.0.1:11434"),
            (table + 'base_url = "http://other.example"', environ, "http://other.example"),
        ):
            assert folder.read(source, variables).settings.upstreams["x"].base_url == base_url

    def test_an_address_that_cannot_be_used_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="OLLAMA_HOST: `base_url`"):
            load(None, environ={"OLLAMA_HOST": "http://user@gpu.example"})

    def test_a_key_that_could_break_a_header_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="OPENAI_API_KEY: `api_key`"):
            load(None, environ={"OPENAI_API_KEY": "a\r\nb"})

    @pytest.mark.parametrize("quote", ["'", '"'])
    def test_a_key_that_keeps_its_quotes_is_refused(self, folder: Folder, quote: str) -> None:
        """`docker run --env-file` takes them as a part of the value; each request would be a 401."""
        key = f"{quote}sk-abc{quote}"
        for lines, environ in (
            (None, {"OPENAI_API_KEY": key}),
            ('[[upstream]]\nname = "a"\nprovider = "openai"\napi_key = ["env:A", "env:B"]', {"A": "sk-a", "B": key}),
            ('[[upstream]]\nname = "a"\nprovider = "openai"\napi_key = "env:A"', {"A": key}),
        ):
            with pytest.raises(ConfigError, match="keeps its quotes") as refused:
                load(None, environ=environ) if lines is None else folder.read(lines, environ)
            assert "sk-abc" not in str(refused.value)

    def test_the_usual_variable_is_used_only_for_the_providers_own_address(self, folder: Folder) -> None:
        environ = {"OPENAI_API_KEY": "sk-1"}
        key = folder.read(UPSTREAM, environ).settings.upstreams["main"].api_key
        assert key is not None
        elsewhere = folder.read(UPSTREAM + 'base_url = "http://127.0.0.1:9"', environ)
        assert elsewhere.settings.upstreams["main"].api_key is None


class TestSecrets:
    def test_a_key_comes_from_the_environment_or_a_file_beside_the_configuration(self, folder: Folder) -> None:
        (folder.path / "key").write_text("sk-file\n")
        for reference, environ, secret in (("env:MY_KEY", {"MY_KEY": "sk-env"}, "sk-env"), ("file:key", {}, "sk-file")):
            key = folder.read(f'{UPSTREAM}api_key = "{reference}"', environ).settings.upstreams["main"].api_key
            assert key is not None
            assert key.reveal() == secret

    @pytest.mark.parametrize(
        ("reference", "problem"),
        [
            ("env:MY_KEY", "`api_key`: the environment variable MY_KEY is not set"),
            ("env:EMPTY", "`api_key`: the environment variable EMPTY is not set"),
            ("env:TWO", "`api_key`: what env:TWO holds is no key"),
            ("file:none", "cannot be read: No such file or directory"),
            ("file:blank", "is empty"),
            ("sk-very-secret", 'must be "env:NAME" or "file:PATH"'),
            ("sha256:very-secret", 'must be "env:NAME" or "file:PATH"'),
            ("env:", 'must be "env:NAME" or "file:PATH"'),
            ("env:very-secret", 'must be "env:NAME" or "file:PATH"'),
        ],
    )
    def test_a_key_that_is_not_there_or_stands_in_the_file_is_an_error(
        self, folder: Folder, reference: str, problem: str
    ) -> None:
        (folder.path / "blank").write_text("\n")
        environ = {"EMPTY": "", "TWO": "very-secret words\n"}
        [message] = folder.problems(f'{UPSTREAM}api_key = "{reference}"', environ)
        assert message.startswith("gai-fast.toml:4: ")
        assert problem in message
        assert "very-secret" not in message

    def test_no_text_of_the_settings_shows_a_secret(self, folder: Folder) -> None:
        text = UPSTREAM + 'api_key = "env:K"\nheaders = { authorization = "Bearer hidden" }'
        loaded = folder.read(text, {"K": "sk-hidden"})
        assert "hidden" not in repr(loaded.settings)
        assert "hidden" not in f"{loaded.settings.upstreams['main'].api_key}"


def test_no_color_means_no_colors() -> None:
    assert wants_color({})
    assert wants_color({"NO_COLOR": ""})
    assert not wants_color({"NO_COLOR": "1"})


class TestProxy:
    """`proxy` in [[upstream]]: a URL, a reference to one, or what the environment says."""

    URL = "http://user:s3cret@proxy.example:3128"

    def proxy(
        self, folder: Folder, value: str, environ: dict[str, str] | None = None, base_url: str = ""
    ) -> str | None:
        where = f'base_url = "{base_url}"\n' if base_url else ""
        settings = folder.read(f'{UPSTREAM}{where}proxy = "{value}"\n', environ).settings
        assert "s3cret" not in repr(settings)
        found = settings.upstreams["main"].proxy
        return None if found is None else found.reveal()

    def test_it_is_a_url_or_where_one_is(self, folder: Folder) -> None:
        (folder.path / "proxy").write_text(self.URL + "\n")
        assert self.proxy(folder, self.URL) == self.URL
        assert self.proxy(folder, "env:PROXY", {"PROXY": self.URL}) == self.URL
        assert self.proxy(folder, "file:proxy") == self.URL

    @pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
    def test_the_environment_is_read_only_where_it_is_asked_for(self, folder: Folder, name: str) -> None:
        environ = {name: self.URL}
        assert self.proxy(folder, "env", environ) == self.URL
        assert folder.read(UPSTREAM, environ).settings.upstreams["main"].proxy is None

    @pytest.mark.parametrize(
        ("environ", "base_url", "used"),
        [
            ({}, "", False),
            ({"HTTPS_PROXY": URL, "NO_PROXY": "example.org, api.openai.com"}, "", False),
            ({"HTTPS_PROXY": URL, "no_proxy": ".openai.com"}, "", False),
            ({"HTTPS_PROXY": URL, "no_proxy": "*"}, "", False),
            ({"HTTPS_PROXY": URL, "no_proxy": "openai.com.example"}, "", True),
            ({"HTTPS_PROXY": URL}, "http://10.0.0.1:8000/v1", False),
            ({"HTTP_PROXY": URL}, "http://10.0.0.1:8000/v1", False),
            ({"http_proxy": URL}, "http://10.0.0.1:8000/v1", True),
            ({"http_proxy": URL, "no_proxy": "10.0.0.1:8000"}, "http://10.0.0.1:8000/v1", False),
            ({"http_proxy": URL, "no_proxy": "x, 10.0.0.0/8"}, "http://10.0.0.1:8000/v1", False),
            ({"http_proxy": URL, "no_proxy": "10.0.0.0/33,11.0.0.0/8"}, "http://10.0.0.1:8000/v1", True),
            ({"http_proxy": URL, "no_proxy": "::1"}, "http://[::1]:8000/v1", False),
            ({"http_proxy": URL, "no_proxy": "[::1]"}, "http://[::1]:8000/v1", False),
            ({"http_proxy": URL, "no_proxy": "fd00::/8"}, "http://[fd00::1]/v1", False),
        ],
    )
    def test_which_variable_counts(self, folder: Folder, environ: dict[str, str], base_url: str, used: bool) -> None:
        assert self.proxy(folder, "env", environ, base_url) == (self.URL if used else None)

    @pytest.mark.parametrize(
        ("value", "environ", "said"),
        [
            ("socks5://s3cret@h", {}, "gai-fast.toml:4: `proxy` in [[upstream]] must begin with http://"),
            ("http://s3cret@h/path", {}, "gai-fast.toml:4: `proxy` in [[upstream]] must end after the port"),
            ("env:PROXY", {}, "gai-fast.toml:4: `proxy`: the environment variable PROXY is not set"),
            ("env:PROXY", {"PROXY": "s3cret"}, "gai-fast.toml:4: `proxy`: the URL that it holds must begin with http://"),
            ("env", {"https_proxy": "https://s3cret"}, "https_proxy: `proxy`: the URL that it holds must begin with http://"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_reported_without_the_secret(
        self, folder: Folder, value: str, environ: dict[str, str], said: str
    ) -> None:
        problem = folder.problems(f'{UPSTREAM}proxy = "{value}"\n', environ)[0]
        assert problem.startswith(said)
        assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, 2),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "2"}, 0),
        ({"LISTEN_FDS": "2"}, 0),
        ({"LISTEN_PID": "7"}, 0),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, 0),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "9999"}, 0),
    ],
)
def test_systemds_sockets_are_those_of_the_process_that_it_names(environ: dict[str, str], count: int) -> None:
    assert activated_sockets(7, environ) == count
