"""`config/resolution.py`: which source wins, and what tables refer to."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from gai_fast.config import find
from gai_fast.model.addresses import is_loopback
from gai_fast.model.settings import (
    BreakerSettings,
    IdempotencySettings,
    KeyLimits,
    KeySettings,
    LimitSettings,
    ServerSettings,
    SpendLimit,
    StoreSettings,
    StreamSettings,
    UpstreamSettings,
    key_digest,
)
from tests.integration.certificates import Authority
from tests.unit.config.folders import BATCH, KEY, MODEL, UPSTREAM, Folder


class TestValues:
    def test_an_empty_file_means_the_defaults_and_the_demo(self, folder: Folder) -> None:
        settings = folder.read("").settings
        assert settings.server == ServerSettings()
        assert settings.stream == StreamSettings()
        assert list(settings.models) == ["demo"]
        assert not settings.upstreams

    def test_every_supported_key_is_taken(self, folder: Folder) -> None:
        settings = folder.read(
            """
[server]
host = "::1"
port = 0
workers = 1
allow_get_start = true
cors_origins = ["https://app.example.com", "http://localhost:5173"]
allowed_hosts = ["gateway.internal"]
default_model = "fast"
header_timeout = 1
body_timeout = 2.5
max_body = 1000
log_level = "debug"
access_log = true
insecure = true
websocket_compression = true
fast_lane = "off"
app = "shop.web:extend"
demo = false
tls_cert = "tls/cert.pem"
tls_key = "/etc/key.pem"
forwarded_allow_ips = ["10.0.0.0/8", "192.0.2.1", "::1", "unix:"]
proxy_protocol = true
[stream]
heartbeat = 0
commit_after = 0
flush_interval = 0.01
timestamps = true
envelope = "full"
usage = "always"
on_unsupported = "drop"
on_midstream_failure = "restart"
on_malformed = "error"
[[upstream]]
name = "main"
provider = "openai"
base_url = "http://127.0.0.1:9000/v1/"
api_key = "env:KEY"
headers = { "x-team" = "search" }
connect_timeout = 1
first_event_timeout = 2
idle_timeout = 3
total_timeout = 4
max_connections = 5
retries = 0
breaker = { failures = 3, open = 1.5 }
[[model]]
name = "fast"
upstream = "main"
id = "gpt"
fallback = ["main/gpt-2"]
fallback_on = { context_length_exceeded = "main/big" }
prefill = true
heartbeat = 7
""",
            {"KEY": "sk-1"},
        ).settings
        assert settings.server == ServerSettings(
            host="::1",
            port=0,
            allow_get_start=True,
            cors_origins=("https://app.example.com", "http://localhost:5173"),
            allowed_hosts=("gateway.internal",),
            header_timeout=1.0,
            body_timeout=2.5,
            max_body=1000,
            log_level="debug",
            access_log=True,
            insecure=True,
            fast_lane="off",
            websocket_compression=True,
            app="shop.web:extend",
            tls_cert=str(folder.path / "tls" / "cert.pem"),
            tls_key="/etc/key.pem",
            forwarded_allow_ips=("10.0.0.0/8", "192.0.2.1", "::1", "unix:"),
            proxy_protocol=True,
        )
        assert settings.stream == StreamSettings(
            0.0,
            0.0,
            0.01,
            timestamps=True,
            envelope="full",
            usage="always",
            on_unsupported="drop",
            on_midstream_failure="restart",
            on_malformed="error",
        )
        upstream = settings.upstreams["main"]
        assert upstream == UpstreamSettings(
            "main",
            "openai",
            "http://127.0.0.1:9000/v1",
            upstream.api_key,
            {"x-team": "search"},
            1.0,
            2.0,
            3.0,
            4.0,
            5,
            retries=0,
            breaker=BreakerSettings(3, 30.0, 1.5),
        )
        assert upstream.api_key is not None
        assert upstream.api_key.reveal() == "sk-1"
        assert settings.models["fast"].fallback == ("main/gpt-2",)
        assert settings.models["fast"].fallback_on == {"context_length_exceeded": "main/big"}
        assert settings.models["fast"].prefill
        assert list(settings.models) == ["fast"]
        model = settings.models["fast"]
        assert (model.id, model.upstream, model.stream.heartbeat, model.stream.usage) == (
            "gpt",
            upstream,
            7.0,
            "always",
        )
        assert settings.default_model == "fast"

    def test_the_store_is_read(self, folder: Folder) -> None:
        text = (
            '[store]\nurl = "memory://"\nttl = 1\nmax_bytes = 65536\nmax_stream_bytes = 4096\nsync = "before_send"\n'
            "[idempotency]\nttl = 60"
        )
        settings = folder.read(text).settings
        assert settings.store == StoreSettings("memory://", 1.0, 65536, 4096, "before_send")
        assert settings.idempotency == IdempotencySettings(60.0)
        assert folder.read("").settings.store == StoreSettings()
        assert folder.read("", {"GAI_FAST_STORE__TTL": "5"}).settings.store == StoreSettings(ttl=5.0)

    def test_a_stores_file_is_relative_to_the_configurations_folder(self, folder: Folder) -> None:
        text = '[store]\nurl = "sqlite:///logs.db"'
        assert folder.read(text).settings.store.url == f"sqlite:///{folder.path / 'logs.db'}"

    def test_processors_are_kept_as_they_stand_in_the_file_and_in_order(self, folder: Folder) -> None:
        text = BATCH + '[[processor]]\nuse = "transform"\nreplace = { a = "b" }\n'
        assert folder.read(text).settings.processors == (
            {"use": "batch", "characters": 3},
            {"use": "transform", "replace": {"a": "b"}},
        )
        assert folder.read("").settings.processors == ()

    def test_a_breaker_can_be_left_out(self, folder: Folder) -> None:
        loaded = folder.read('[[upstream]]\nname = "a"\nprovider = "openai"\nbreaker = false')
        assert loaded.settings.upstreams["a"].breaker is None

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ('fallback = ["bakcup"]', "`fallback` in [[model]]: no model is named 'bakcup'; did you mean backup?"),
            ('fallback = ["fast"]', "`fallback` in [[model]] must name another model than itself"),
            ('fallback = "backup"', "`fallback` in [[model]] must be a list of strings"),
            ('fallback_on = { timeout = "b" }', "`fallback_on` in [[model]]: no model is named 'b'"),
            ('fallback_on = { late = "backup" }', "`fallback_on` in [[model]] must have error codes; known: "),
            ('fallback_on = ["backup"]', "`fallback_on` in [[model]] must be a table of error codes and models"),
        ],
    )
    def test_where_a_failure_leads_is_a_model(self, folder: Folder, line: str, problem: str) -> None:
        models = f'[[model]]\nname = "backup"\nupstream = "a"\n[[model]]\nname = "fast"\nupstream = "a"\n{line}'
        [message] = folder.problems(f'[[upstream]]\nname = "a"\nprovider = "openai"\n{models}')
        assert message.startswith(f"gai-fast.toml:10: {problem}")

    def test_a_name_that_no_table_has_is_reported_beside_other_mistakes(self, folder: Folder) -> None:
        models = '[[model]]\nname = "backup"\nupstream = "b"\n[[model]]\nname = "fast"\nupstream = "a"\n'
        upstreams = '[[upstream]]\nname = "a"\nprovider = "openai"\napi_key = "env:NONE"\n'
        message = folder.problems(f'{upstreams}{models}fallback = ["bakcup"]\n[server]\ndefault_model = "fsat"\n')
        assert [line.partition(": ")[2] for line in message] == [
            "`api_key`: the environment variable NONE is not set",
            "no [[upstream]] is named 'b'; known: a",
            "`fallback` in [[model]]: no model is named 'bakcup'; did you mean backup?",
            "`default_model` in [server]: no model is named 'fsat'; did you mean fast?",
        ]

    @pytest.mark.parametrize("name", ["backup", "b/gpt"])
    def test_a_reference_to_a_table_with_a_mistake_is_none(self, folder: Folder, name: str) -> None:
        models = '[[model]]\nname = "backup"\nupstream = "b"\n[[model]]\nname = "fast"\nupstream = "a"\n'
        upstreams = '[[upstream]]\nname = "a"\nprovider = "openai"\n[[upstream]]\nname = "b"\nprovider = "x"\n'
        [message] = folder.problems(f'{upstreams}{models}fallback = ["{name}"]\n[server]\ndefault_model = "{name}"\n')
        assert "unknown provider 'x'" in message
        nameless = upstreams.replace('"x"', '"groq"') + models.replace('"backup"', "1")
        [message] = folder.problems(f'{nameless}fallback = ["backup"]\n')
        assert "`name` in [[model]]" in message

    def test_a_prefill_that_the_model_refuses_is_a_mistake_unless_facts_correct_it(self, folder: Folder) -> None:
        claude = '[[upstream]]\nname = "main"\nprovider = "anthropic"\n' + MODEL + "prefill = true\n"
        for identifier, is_refused in (("claude-opus-5", True), ("claude-sonnet-4-5", False), ("other", False)):
            text = f'{claude}id = "{identifier}"\n'
            if not is_refused:
                assert folder.read(text).settings.models["fast"].prefill
                continue
            [problem] = folder.problems(text)
            assert problem.startswith("gai-fast.toml:7: `prefill` in [[model]]: 'claude-opus-5' continues no assistant")
            settings = folder.read(f"{text}facts = {{prefill = true}}\n").settings
            assert settings.models["fast"].facts == {"prefill": True}
        targets = 'prefill = true\ntargets = [{upstream = "main", id = "a"}, {upstream = "main", id = "claude-opus-5"}]'
        [problem] = folder.problems(
            f'[[upstream]]\nname = "main"\nprovider = "anthropic"\n[[model]]\nname = "fast"\n{targets}'
        )
        assert "'claude-opus-5' continues no assistant message" in problem

    def test_what_a_model_changes_of_its_requests(self, folder: Folder) -> None:
        keys = 'defaults = {max_tokens = 5}\noverrides = {seed = 1}\nextra = {a = {b = 1}}\ndrop = ["tools[].strict"]\n'
        more = "extra = {c = 1}\nquirks = {developer_role = false}\n"
        settings = folder.read(UPSTREAM + more + MODEL + keys).settings
        tuning = settings.models["fast"].tuning
        assert tuning is not None
        assert tuning.defaults is not None
        assert tuning.overrides is not None
        assert (tuning.defaults.max_tokens, tuning.default_names) == (5, ("max_tokens",))
        assert (tuning.overrides.seed, tuning.override_names) == (1, ("seed",))
        assert (tuning.extra, tuning.drop) == ({"a": {"b": 1}}, ("tools[].strict",))
        upstream = settings.upstreams["main"]
        assert (upstream.extra, upstream.quirks) == ({"c": 1}, {"developer_role": False})
        assert folder.read(UPSTREAM + MODEL).settings.models["fast"].tuning is None

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("defaults = 1", "`defaults` in [[model]] must be a table of fields of a request"),
            (
                "defaults = {max_token = 1}",
                "`defaults` in [[model]] has an unknown key 'max_token'",
            ),
            ("defaults = {messages = []}", "`defaults` in [[model]] has an unknown key 'messages'"),
            (
                'overrides = {top_p = "x"}',
                "`overrides` in [[model]] must have fields of a request: Expected ",
            ),
            (
                "overrides = {top_p = 2}",
                "`overrides` in [[model]] must have fields of a request: Expected ",
            ),
            ("extra = []", "`extra` in [[model]] must be a table of members of the provider's request"),
            ('extra = {model = "x"}', "`extra` in [[model]] must not have model: "),
            ("extra = {stream = true}", "`extra` in [[model]] must not have stream: "),
            ("extra = {n = 2}", "`extra` in [[model]] must not have n: "),
            ('drop = ["a..b"]', "`drop` in [[model]] must be a list of paths"),
            ('drop = ["a[]"]', "`drop` in [[model]] must be a list of paths"),
            ('drop = ["messages"]', "`drop` in [[model]] must not have messages: no request is without it"),
        ],
    )
    def test_a_mistake_in_what_is_changed_is_named(self, folder: Folder, line: str, problem: str) -> None:
        [found] = folder.problems(UPSTREAM + MODEL + line)
        assert found.startswith(f"gai-fast.toml:7: {problem}")

    @pytest.mark.parametrize(
        ("provider", "quirks", "problem"),
        [
            ("openai", "{max_tokens = 1}", "must have max_tokens or max_completion_tokens for max_tokens"),
            ("openai", "{developer_role = 1}", "must have true or false for developer_role"),
            ("openai", "{roles = false}", "has an unknown key 'roles'"),
            ("gemini", "{strict = false}", "needs a provider of the chat dialect"),
        ],
    )
    def test_a_mistake_in_quirks_is_named(self, folder: Folder, provider: str, quirks: str, problem: str) -> None:
        [found] = folder.problems(f'[[upstream]]\nname = "a"\nprovider = "{provider}"\nquirks = {quirks}')
        assert f"`quirks` in [[upstream]] {problem}" in found

    def test_facts_that_are_none_are_a_mistake(self, folder: Folder) -> None:
        [problem] = folder.problems(UPSTREAM + MODEL + "facts = {max_output = 0}")
        assert "`facts` in [[model]] must have a whole number for max_output" in problem

    def test_a_model_is_asked_for_by_its_name_where_it_has_no_id(self, folder: Folder) -> None:
        assert folder.read(UPSTREAM + MODEL).settings.models["fast"].id == "fast"

    def test_models_keep_the_order_of_the_file_and_the_demo_comes_last(self, folder: Folder) -> None:
        other = MODEL.replace("fast", "zeta") + MODEL.replace("fast", "alpha")
        assert list(folder.read(UPSTREAM + other).settings.models) == ["zeta", "alpha", "demo"]

    def test_a_model_of_the_users_own_may_be_called_demo(self, folder: Folder) -> None:
        settings = folder.read(UPSTREAM + MODEL.replace("fast", "demo")).settings
        assert settings.models["demo"].upstream.name == "main"

    def test_the_base_url_is_by_default_the_providers(self, folder: Folder) -> None:
        assert folder.read(UPSTREAM).settings.upstreams["main"].base_url == "https://api.openai.com/v1"

    def test_a_default_model_may_be_upstream_and_id(self, folder: Folder) -> None:
        settings = folder.read('[server]\ndefault_model = "main/gpt"\n' + UPSTREAM).settings
        model = settings.model(None)
        assert model is not None
        assert (model.upstream.name, model.id) == ("main", "gpt")

    @pytest.mark.parametrize(
        ("provider", "url", "problem"),
        [
            (
                "openai",
                "https://api.openai.com/v1/chat/completions",
                "/chat/completions: requests add /chat/completions",
            ),
            ("anthropic", "https://api.anthropic.com/v1/", "/v1: requests add /v1/messages"),
            ("anthropic", "https://api.anthropic.com/v1/messages", "/v1/messages: requests add /v1/messages"),
            ("groq", "https://h/openai/v1", "/openai/v1: requests add /openai/v1/chat/completions"),
            ("openai", "https://h/chat", None),
            ("openai-compatible", "http://h/v1", None),
            ("openai-compatible", "http://h/chat/completions/v1", None),
            ("anthropic", "https://h/anthropic", None),
            ("azure", "https://h/openai/v1", None),
        ],
    )
    def test_a_base_url_with_the_path_of_requests_is_refused(
        self, folder: Folder, provider: str, url: str, problem: str | None
    ) -> None:
        source = UPSTREAM.replace("openai", provider) + f'base_url = "{url}"'
        if problem is None:
            assert folder.read(source).settings.upstreams["main"].base_url == url
        else:
            assert folder.problems(source) == [f"gai-fast.toml:4: `base_url` in [[upstream]] must not end in {problem}"]


class TestPrecedence:
    def test_a_flag_wins_over_the_environment_and_that_over_the_file(self, folder: Folder) -> None:
        text, environ = "[server]\nport = 1\n", {"GAI_FAST_PORT": "2"}
        assert folder.read(text).settings.server.port == 1
        assert folder.read(text, environ).settings.server.port == 2
        assert folder.read(text, environ, port=3).settings.server.port == 3
        assert folder.read(text, environ, port=None).settings.server.port == 2

    def test_each_value_tells_its_origin(self, folder: Folder) -> None:
        environ = {"GAI_FAST_PORT": "2", "GAI_FAST_STREAM__USAGE": "always"}
        loaded = folder.read("[server]\ndemo = true\n", environ, host="127.0.0.2")
        assert loaded.server["port"].origin == "GAI_FAST_PORT"
        assert loaded.server["host"].origin == "--host"
        assert loaded.server["demo"].origin == f"{folder.file}:2"
        assert loaded.stream["usage"].origin == "GAI_FAST_STREAM__USAGE"


class TestBindingOpenly:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gateway.internal", "::ffff:10.0.0.1"])
    def test_an_address_that_is_not_loopback_is_refused(self, folder: Folder, host: str) -> None:
        [message] = folder.problems(f'[server]\nhost = "{host}"')
        assert message.startswith(f"gai-fast.toml:2: {host} is open to other machines")
        assert "insecure = true" in message
        assert folder.problems("", host=host)[0].startswith("--host: ")

    def test_a_key_allows_it(self, folder: Folder) -> None:
        settings = folder.read(f'[server]\nhost = "0.0.0.0"\n{KEY}').settings
        assert [key.name for key in settings.keys] == ["alice"]
        [message] = folder.problems('[server]\nhost = "0.0.0.0"\n[[key]]\nname = "a"\nsecret = "env:NONE"')
        assert message == "gai-fast.toml:5: `secret`: the environment variable NONE is not set", (
            "and nothing of the host"
        )

    def test_insecure_allows_it(self, folder: Folder) -> None:
        assert folder.read('[server]\nhost = "0.0.0.0"\ninsecure = true').settings.server.insecure

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1", "[::1]"])
    def test_loopback_is_allowed(self, folder: Folder, host: str) -> None:
        host_in_force = folder.read(f'[server]\nhost = "{host}"').settings.server.host
        assert is_loopback(host_in_force)


class TestFront:
    """TLS to clients, and proxies."""

    def test_a_flag_is_named_as_it_is_written(self, folder: Folder) -> None:
        [message] = folder.problems("", tls_cert="c")
        assert message.startswith("--tls-cert: `tls_cert` in [server] needs `tls_key`")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                'tls_cert = "c"',
                "gai-fast.toml:2: `tls_cert` in [server] needs `tls_key`: TLS takes a certificate and its key",
            ),
            (
                'tls_key = "c"',
                "gai-fast.toml:2: `tls_key` in [server] needs `tls_cert`: TLS takes a certificate and its key",
            ),
            (
                "proxy_protocol = true",
                "gai-fast.toml:2: `proxy_protocol` in [server] needs `forwarded_allow_ips`: the proxies that send the "
                "header",
            ),
        ],
    )
    def test_what_belongs_together_is_asked_for(self, folder: Folder, text: str, message: str) -> None:
        assert folder.problems(f"[server]\n{text}") == [message]

    @pytest.mark.parametrize("name", ["", "proxy.example", "10.0.0.1/8", "10.0.0.0/33", "*", "unix", "1.2.3.4:80"])
    def test_a_proxy_is_named_by_its_address(self, folder: Folder, name: str) -> None:
        (message,) = folder.problems(f'[server]\nforwarded_allow_ips = ["{name}"]')
        assert "`forwarded_allow_ips` in [server] must be a list of addresses, networks such as" in message


class TestLimits:
    def test_each_is_a_total_that_can_be_set(self, folder: Folder) -> None:
        text = "[limits]\nstreams = 1\nstreams_per_caller = 2\nconnections = 3\nmemory_high_water = 67108864"
        assert folder.read(text).settings.limits == LimitSettings(1, 2, 3, memory_high_water=67108864)
        set_by = folder.read(text, {"GAI_FAST_LIMITS__STREAMS": "9"})
        assert set_by.settings.limits.streams == 9
        assert set_by.limits["streams"].origin == "GAI_FAST_LIMITS__STREAMS"

    def test_none_is_no_limit(self, folder: Folder) -> None:
        for line in ("streams = 0", "streams_per_caller = -1", "connections = true", "memory_high_water = 1000"):
            [message] = folder.problems(f"[limits]\n{line}")
            assert message.startswith(f"gai-fast.toml:2: `{line.partition(' ')[0]}` in [limits] must be a whole number")


class TestCallers:
    def key(self, name: str, secret: str) -> str:
        return f'[[key]]\nname = "{name}"\nsecret = {secret}\n'

    def test_a_secret_comes_from_the_environment_a_file_or_its_digest(self, folder: Folder) -> None:
        (folder.path / "bob").write_text("sk-bob-0123456789\n")
        digest = sha256(b"sk-carol-0123456789").hexdigest()
        text = self.key("alice", '"env:ALICE"') + self.key("bob", '"file:bob"')
        text += self.key("carol", f'"sha256:{digest.upper()}"')
        settings = folder.read(text, {"ALICE": "sk-alice-0123456789"}).settings
        names = {key.digests[0]: key.name for key in settings.keys}
        assert names == {key_digest(f"sk-{name}-0123456789"): name for name in ("alice", "bob", "carol")}
        assert "sk-" not in repr(settings)

    @pytest.mark.parametrize(
        ("text", "environ", "said"),
        [
            ('name = "a"', {}, "1: `secret` is missing in [[key]]"),
            ('secret = "env:K"', {"K": "x" * 8}, "1: `name` is missing in [[key]]"),
            *(
                (
                    f'name = "{name}"\nsecret = "env:K"',
                    {"K": "x" * 8},
                    "2: `name` in [[key]] must be 1 to 64 characters",
                )
                for name in ("a b", "é", "-a", "a/b", "a:b", "a" * 65)
            ),
            ('name = ""\nsecret = "env:K"', {"K": "x" * 8}, "2: `name` in [[key]] must be a string that is not empty"),
            ('name = "anonymous"\nsecret = "env:K"', {"K": "x" * 8}, "2: `name` in [[key]] must not be anonymous"),
            ('name = "a"\nsecret = "env:K"', {}, "3: `secret`: the environment variable K is not set"),
            ('name = "a"\nsecret = "env:K"', {"K": "hidden!"}, "3: `secret`: what env:K holds must have 8 to 1024"),
            ('name = "a"\nsecret = "env:K"', {"K": "hidden" * 200}, "each one that is sent is hashed"),
            ('name = "a"\nsecret = "env:K"', {"K": "hidden key"}, "what env:K holds is no key: one printable ASCII"),
            ('name = "a"\nsecret = "env:K"', {"K": '"hidden-01"'}, "what env:K holds keeps its quotes"),
            ('name = "a"\nsecret = "file:none"', {}, "cannot be read: No such file"),
            *(
                (f'name = "a"\nsecret = "{secret}"', {}, '3: `secret` in [[key]] must be "env:NAME", "file:PATH" or')
                for secret in ("hidden-012345", "sha256:hidden", f"sha256:{'a1' * 31}", f"sha512:{'a1' * 32}")
            ),
            (f'name = "a"\nsecret = "sha256:{sha256().hexdigest()}"', {}, "the digest of an empty secret"),
            (
                'name = "a"\nsecret = ["env:K", "env:L"]',
                {"K": "x" * 8},
                "3: `secret`: the environment variable L is not",
            ),
            ('name = "a"\nsecret = []', {}, "3: `secret` in [[key]] as a list must have 1 to 8 entries"),
            (
                'name = "a"\nsecret = ["env:K", 7]',
                {"K": "x" * 8},
                "3: `secret` in [[key]] must be a string that is not",
            ),
            ('name = "a"\nsecret = 7', {}, "3: `secret` in [[key]] must be a string that is not empty"),
            *(
                (
                    f'name = "a"\nsecret = "env:K"\n{line}',
                    {"K": "x" * 8},
                    f"4: `{line.partition(' ')[0]}` in [[key]] {said}",
                )
                for line, said in (
                    ("expires = 1", "must be a date such as 2030-01-31"),
                    ("expires = 2030-01-31T00:00:00", "must have a time zone: add Z"),
                    ("expires = 00:00:00", "must be a date such as"),
                    ('role = "root"', "must be user, admin or metrics, not 'root'"),
                    ('models = "fast"', "must be a list of strings"),
                    ('models = [""]', "must be a list of names of models, or of patterns"),
                    *(
                        (f"{limit} = {value}", "must be a whole number, 0 to 1000000000")
                        for limit in ("requests_per_minute", "tokens_per_minute", "streams")
                        for value in ("-1", "1.5", "nan", "inf", "1_000_000_001", "true", '"1"')
                    ),
                    *(
                        (f"spend = {value}", "must be a table of amount and period")
                        for value in ("5", "{}", "{amount = 1}")
                    ),
                    ('spend = {amount = 1, peroid = "day"}', "has an unknown key 'peroid'; did you mean period?"),
                    *(
                        (f"spend = {{amount = {amount}, period = 'day'}}", "must have an amount from 0 to 9000000")
                        for amount in ("-0.01", "nan", "inf", "9_000_001", "1e300", "true", '"1"')
                    ),
                    ("spend = {amount = 1, period = 'year'}", "must have a period of day, month, total"),
                    ("spend = {amount = 1, period = ['day']}", "must have a period of day, month, total"),
                )
            ),
            ('name = "a"\nsecrets = "env:K"', {}, "did you mean secret?"),
        ],
    )
    def test_what_cannot_be_one_is_reported_with_its_line(
        self, folder: Folder, text: str, environ: dict[str, str], said: str
    ) -> None:
        [message] = folder.problems(f"[[key]]\n{text}", environ)
        assert said in message
        assert message.startswith("gai-fast.toml:")
        assert "hidden" not in message

    def test_names_and_secrets_are_of_one_caller_each(self, folder: Folder) -> None:
        digest = sha256(b"sk-alice-0123456789").hexdigest()
        text = self.key("a", '"env:K"') + self.key("b", f'"sha256:{digest}"') + self.key("a", '"env:L"')
        same_secret, same_name = sorted(folder.problems(text, {"K": "sk-alice-0123456789", "L": "x" * 8}))
        assert same_secret == "gai-fast.toml:6: `secret` in [[key]] is also that of 'a', at gai-fast.toml:3"
        assert same_name == "gai-fast.toml:8: a second [[key]] is named 'a', as at gai-fast.toml:2"

    def test_all_secrets_of_a_list_are_the_callers(self, folder: Folder) -> None:
        old, new = "sk-old-0123456789", "sk-new-0123456789"
        text = self.key("a", f'["env:OLD", "sha256:{sha256(new.encode()).hexdigest()}", "env:OLD"]')
        [key] = folder.read(text, {"OLD": old}).settings.keys
        assert key.digests == (key_digest(old), key_digest(new))
        [message] = folder.problems(text + self.key("b", '["env:OTHER", "env:OLD"]'), {"OLD": old, "OTHER": "x" * 8})
        assert message == "gai-fast.toml:6: `secret` in [[key]] is also that of 'a', at gai-fast.toml:3"

    def test_a_key_has_the_defaults_that_it_does_not_set(self, folder: Folder) -> None:
        text = (
            """
            [key_defaults]
            models = ["demo"]
            expires = 2030-01-31
            requests_per_minute = 10
            spend = {amount = 0.1, period = "month"}
        """
            + self.key("plain", '"env:K"')
            + self.key("own", '"env:L"')
        )
        text += """
            models = ["*"]
            role = "admin"
            expires = "2031-01-31T01:00:00+01:00"
            requests_per_minute = 0
            tokens_per_minute = 5
            streams = 1000000000
            spend = {amount = 9000000, period = "total"}
        """
        secrets = {"K": "k" * 8, "L": "l" * 8}
        plain, own = folder.read(text, secrets).settings.keys
        month = KeyLimits(requests_per_minute=10, spend=SpendLimit(10**11, "month"))
        assert plain == KeySettings("plain", plain.digests, ("demo",), "user", datetime(2030, 1, 31, tzinfo=UTC), month)
        total = KeyLimits(0, 5, 10**9, SpendLimit(9_000_000 * 10**12, "total"))
        assert own == KeySettings("own", own.digests, ("*",), "admin", datetime(2031, 1, 31, tzinfo=UTC), total)
        variables = {
            "GAI_FAST_KEY_DEFAULTS__SPEND": "{amount = 7, period = 'day'}",
            "GAI_FAST_KEY_DEFAULTS__MODELS": "demo, x*",
        }
        plain, own = folder.read(text, secrets | variables).settings.keys
        assert (plain.limits.spend, plain.models) == (SpendLimit(7 * 10**12, "day"), ("demo", "x*"))
        assert own.limits == total
        [message] = folder.problems(text, secrets | {"GAI_FAST_KEY_DEFAULTS__SPEND": "7"})
        assert message.startswith(
            "GAI_FAST_KEY_DEFAULTS__SPEND: `spend` in [key_defaults] must be a table of amount and"
        )

    def test_a_key_without_defaults_may_do_all_but_operate(self, folder: Folder) -> None:
        [key] = folder.read(self.key("a", '"env:K"'), {"K": "k" * 8}).settings.keys
        assert key == KeySettings("a", key.digests)
        assert (key.models, key.role, key.expires, key.limits) == (("*",), "user", None, KeyLimits())

    def test_a_key_for_the_figures_has_nothing_of_models(self, folder: Folder) -> None:
        text = f'{self.key("scraper", chr(34) + "env:K" + chr(34))}role = "metrics"\n'
        defaults = '[key_defaults]\nmodels = ["demo"]\nstreams = 3\n'
        [key] = folder.read(f"{text}{defaults}", {"K": "k" * 8}).settings.keys
        assert key == KeySettings("scraper", key.digests, (), "metrics")
        [message] = folder.problems(f"{text}streams = 3\n", {"K": "k" * 8})
        assert message.startswith("gai-fast.toml:5: `streams` in [[key]] has no meaning for the role metrics")

    def test_the_defaults_name_no_caller(self, folder: Folder) -> None:
        for name in ("name", "secret"):
            [message] = folder.problems(f'[key_defaults]\n{name} = "a"')
            assert message.startswith(f"gai-fast.toml:2: unknown key '{name}' in [key_defaults]")

    def test_a_model_of_a_key_is_there_unless_a_pattern_names_it(self, folder: Folder) -> None:
        start = UPSTREAM + MODEL
        for models in ('["fast", "main/any", "demo", "slow*", "*"]', "[]"):
            assert folder.read(f"{start}[key_defaults]\nmodels = {models}")
        for table in ("[key_defaults]\n", self.key("a", '"env:K"')):
            [message] = folder.problems(f'{start}{table}models = ["fsat"]', {"K": "k" * 8})
            assert message.endswith("`models` of a key: no model is named 'fsat'; did you mean fast?")

    def test_the_upstreams_of_a_keys_lane_are_there_and_offer_paths(self, folder: Folder) -> None:
        offers = f'{UPSTREAM}lane = ["/v1/embeddings", "DELETE /v1/x"]\n'
        settings = folder.read(
            f'{offers}{self.key("a", chr(34) + "env:K" + chr(34))}lane = ["main"]', {"K": "k" * 8}
        ).settings
        assert settings.upstreams["main"].pass_paths == ("/v1/embeddings", "DELETE /v1/x")
        assert settings.keys[0].pass_upstreams == ("main",)
        [message] = folder.problems(f'{offers}[key_defaults]\nlane = ["mian"]')
        assert message.endswith("`lane` of a key: no [[upstream]] is named 'mian'; did you mean main?")
        [message] = folder.problems(f'{UPSTREAM}[key_defaults]\nlane = ["main"]')
        assert message.endswith("`lane` of a key: [[upstream]] 'main' offers no path: give it a `lane`")

    def test_a_path_of_a_lane_has_the_form_in_which_it_is_matched(self, folder: Folder) -> None:
        for path in ("v1/x", "/v1//x", "/v1/../x", "/v1/x?y", "/v1/%2e", "TRACE /v1/x"):
            [message] = folder.problems(f'{UPSTREAM}lane = ["{path}"]')
            assert 'must be paths such as "/v1/embeddings"' in message

    def test_callers_stand_in_the_file_only(self, folder: Folder) -> None:
        [message] = folder.problems("", {"GAI_FAST_KEY__NAME": "a"})
        assert message == "GAI_FAST_KEY__NAME: [[key]] is set in the file only"
        [message] = folder.problems("[key]\nname = 'a'")
        assert message == "gai-fast.toml:1: [key] must be [[key]]: there may be several"


class TestZeroConfiguration:
    def test_a_file_says_all_there_is(self, folder: Folder) -> None:
        assert not folder.read("", {"OPENAI_API_KEY": "sk"}).settings.upstreams

    def test_a_file_of_the_usual_name_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert find(None) is None
        (tmp_path / "gai-fast.toml").touch()
        assert find(None) == Path("gai-fast.toml")
        assert find(Path("other.toml")) == Path("other.toml")


class TestTLS:
    """`ca_file`, `client_cert` and `client_key` in [[upstream]]."""

    def test_the_files_are_those_of_the_configurations_folder(self, folder: Folder, authority: Authority) -> None:
        for name in ("ca.pem", "good.pem", "good.key"):
            (folder.path / name).write_bytes((authority.folder / name).read_bytes())
        keys = 'ca_file = "ca.pem"\nclient_cert = "good.pem"\nclient_key = "good.key"\n'
        upstream = folder.read(UPSTREAM + keys).settings.upstreams["main"]
        files = [str(folder.path / name) for name in ("ca.pem", "good.pem", "good.key")]
        assert [upstream.ca_file, upstream.client_cert, upstream.client_key] == files
        bare = folder.read(UPSTREAM).settings.upstreams["main"]
        assert bare.ca_file is bare.client_cert is bare.client_key is None

    @pytest.mark.parametrize(
        ("keys", "problem"),
        [
            ('ca_file = "none.pem"', "`ca_file`: the file none.pem cannot be read: No such file or directory"),
            ('ca_file = "gai-fast.toml"', "`ca_file`: the file gai-fast.toml holds no certificate in PEM"),
            ('client_cert = "none.pem"', "`client_cert`: the file none.pem cannot be read: No such file or directory"),
            ('client_key = "none.pem"', "`client_key` needs client_cert"),
            ('ca_file = "x"\nbase_url = "http://h"', "`ca_file` needs a base_url that begins with https://"),
        ],
    )  # fmt: skip
    def test_a_file_that_is_of_no_use_is_a_mistake(self, folder: Folder, keys: str, problem: str) -> None:
        (line,) = folder.problems(f"{UPSTREAM}{keys}\n")
        assert line == f"gai-fast.toml:4: {problem}"


# ---- [otel] ----------------------------------------------------------------------------------------------------------

OTEL = '[otel]\nendpoint = "http://collector:4318/"\n'


def test_without_an_endpoint_nothing_is_exported(folder: Folder) -> None:
    assert folder.read("").settings.otel is None
    assert folder.read("[otel]\nsample = 0.5").settings.otel is None


def test_the_receiver_its_headers_and_opentelemetrys_variables(folder: Folder) -> None:
    (folder.path / "key").write_text("Basic Zm9v=\n")
    environ = {
        "AUTH": "Bearer sk-canary",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        "OTEL_RESOURCE_ATTRIBUTES": "team=search%20one, service.name=other,",
        "OTEL_SERVICE_NAME": "gateway",
        "GAI_FAST_OTEL__SAMPLE": "0.25",
    }
    headers = 'headers = { authorization = "env:AUTH", x-key = "file:key", x-team = "search" }'
    otel = folder.read(f"{OTEL}{headers}", environ).settings.otel
    assert otel is not None
    assert (otel.endpoint, otel.sample, otel.content) == ("http://collector:4318", 0.25, False)
    assert (otel.span_delay, otel.metric_interval) == (0.1, 60.0)
    assert {name: value.reveal() for name, value in otel.headers.items()} == {
        "authorization": "Bearer sk-canary",
        "x-key": "Basic Zm9v=",
        "x-team": "search",
    }
    assert otel.resource == {"team": "search one", "service.name": "gateway"}
    assert "canary" not in repr(otel)
    assert otel == folder.read(f"{OTEL}{headers}", environ).settings.otel, "a reload changes nothing"


@pytest.mark.parametrize(
    ("text", "environ", "problem"),
    [
        (
            '[otel]\nendpoint = "ftp://x"',
            {},
            "gai-fast.toml:2: `endpoint` in [otel] must begin with http:// or https://",
        ),
        (f"{OTEL}sample = 1.5", {}, "gai-fast.toml:3: `sample` in [otel] must be a number from 0 to 1, not 1.5"),
        (f"{OTEL}sample = true", {}, "gai-fast.toml:3: `sample` in [otel] must be a number from 0 to 1, not true"),
        (
            f'{OTEL}headers = {{ a = "env:NONE" }}',
            {},
            "gai-fast.toml:3: `headers`: the environment variable NONE is not set",
        ),
        (
            f'{OTEL}headers = {{ a = "env:BAD" }}',
            {"BAD": "a\r\nevil: 1"},
            "gai-fast.toml:3: `headers`: what env:BAD holds is no header value: printable ASCII",
        ),
        (OTEL, {"OTEL_BSP_SCHEDULE_DELAY": "0"}, "OTEL_BSP_SCHEDULE_DELAY: must be milliseconds, more than 0"),
        (OTEL, {"OTEL_METRIC_EXPORT_INTERVAL": "5s"}, "OTEL_METRIC_EXPORT_INTERVAL: must be milliseconds, more than 0"),
        (OTEL, {"OTEL_RESOURCE_ATTRIBUTES": "x"}, "OTEL_RESOURCE_ATTRIBUTES: must be of the form key=value,key=value"),
    ],
)
def test_an_otel_table_that_cannot_be_used_says_why(
    folder: Folder, text: str, environ: dict[str, str], problem: str
) -> None:
    assert folder.problems(text, environ) == [problem]
