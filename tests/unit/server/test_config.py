"""`server/config.py`: what may stand where, which source wins, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gai_fast.cli.config import toml
from gai_fast.limits import LIMITS
from gai_fast.processors import PROCESSORS, parameters
from gai_fast.server.config import (
    DEFAULTS,
    FLAGS,
    LATER,
    LISTS,
    SECTIONS,
    ConfigError,
    Loaded,
    find,
    is_loopback,
    line_numbers,
    load,
    read,
    wants_color,
)
from gai_fast.settings import BreakerSettings, ServerSettings, StoreSettings, StreamSettings, UpstreamSettings

UPSTREAM = '[[upstream]]\nname = "main"\nprovider = "openai"\n'
BATCH = '[[processor]]\nuse = "batch"\ncharacters = 3\n'
MODEL = '[[model]]\nname = "fast"\nupstream = "main"\n'


class Folder:
    """A folder with a configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "gai-fast.toml"

    def read(self, text: str | bytes, environ: dict[str, str] | None = None, **flags: Any) -> Loaded:
        self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(self.file, environ=environ or {}, flags=flags)

    def problems(self, text: str | bytes, environ: dict[str, str] | None = None, **flags: Any) -> list[str]:
        """Every problem, with the folder left out."""
        with pytest.raises(ConfigError) as caught:
            self.read(text, environ, **flags)
        return [problem.replace(f"{self.path}/", "") for problem in caught.value.problems]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


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
demo = false
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
        text = '[store]\nurl = "memory://"\nttl = 1\nmax_bytes = 65536\nmax_stream_bytes = 4096'
        assert folder.read(text).settings.store == StoreSettings("memory://", 1.0, 65536, 4096)
        assert folder.read("").settings.store == StoreSettings()
        assert folder.read("", {"GAI_FAST_STORE__TTL": "5"}).settings.store == StoreSettings(ttl=5.0)

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
            ("retries = -1", "must be a whole number, 0 to 10"),
            ("breaker = true", "must be false or a table of failures, window, open"),
            ("breaker = { fails = 1 }", "must be false or a table of failures, window, open"),
            ("breaker = { failures = 0 }", "each of which must be a whole number, 1 to 1000"),
            ("breaker = { open = 0 }", "each of which must be seconds, more than 0"),
        ],
    )
    def test_when_an_upstream_is_left_alone_is_checked(self, folder: Folder, line: str, problem: str) -> None:
        [told] = folder.problems(f'[[upstream]]\nname = "a"\nprovider = "openai"\n{line}')
        assert told.startswith(f"gai-fast.toml:4: `{line.partition(' ')[0]}` in [[upstream]] ")
        assert problem in told

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
        [told] = folder.problems(f'[[upstream]]\nname = "a"\nprovider = "openai"\n{models}')
        assert told.startswith(f"gai-fast.toml:10: {problem}")

    @pytest.mark.parametrize("url", ["sqlite:///a.db", "sqlite:////var/a.db", "redis://:secret@h/0", "rediss://h"])
    def test_a_store_whose_time_has_not_come_is_not_supported_yet(self, folder: Folder, url: str) -> None:
        [told] = folder.problems(f'[store]\nurl = "{url}"')
        scheme = url.partition(":")[0]
        assert told == f"gai-fast.toml:2: `url` in [store] names a store, {scheme}, that is not supported yet"

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ('url = "memory"', 'must be "memory://"'),
            ('url = "memory://x"', 'must be "memory://"'),
            ('url = "memroy://:secret@h"', 'must be "memory://"'),
            ("ttl = -1", "must be seconds, 0 or more, at most 10000000, not -1"),
            ("max_bytes = 65535", "must be a whole number, at least 65536, not 65535"),
            ("max_stream_bytes = 4095", "must be a whole number, at least 4096, not 4095"),
            ('sync = "batched"', "is not supported yet"),
        ],
    )
    def test_a_mistake_in_the_store_is_told_without_a_password(self, folder: Folder, line: str, problem: str) -> None:
        key = line.partition(" ")[0]
        assert folder.problems(f"[store]\n{line}") == [f"gai-fast.toml:2: `{key}` in [store] {problem}"]

    def test_every_key_has_its_default_in_the_settings(self) -> None:
        for section in ("server", "stream", "store"):
            assert set(SECTIONS[section]) <= set(DEFAULTS[section])

    def test_no_key_is_both_supported_and_refused(self) -> None:
        for section, later in LATER.items():
            assert not later & set(SECTIONS.get(section, SECTIONS))

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

    def test_windows_line_ends_and_a_byte_order_mark_are_taken(self, folder: Folder) -> None:
        assert folder.read(b"\xef\xbb\xbf[server]\r\nport = 1\r\n").settings.server.port == 1


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[server]\nprot = 1", "gai-fast.toml:2: unknown key 'prot' in [server]; did you mean port?"),
            ("[stream]\n\nhearbeat = 1", "gai-fast.toml:3: unknown key 'hearbeat' in [stream]; did you mean heartbeat"),
            (UPSTREAM + "bse_url = 1", "gai-fast.toml:4: unknown key 'bse_url' in [[upstream]]; did you mean base_url"),
            (UPSTREAM + MODEL + "idd = 1", "gai-fast.toml:7: unknown key 'idd' in [[model]]; did you mean id?"),
            ('[[upstream]]\nname = "x"\nprovidr = "openai"', "unknown key 'providr' in [[upstream]]; did you mean"),
            (UPSTREAM + MODEL + "model = 1", "gai-fast.toml:7: unknown key 'model' in [[model]]; did you mean id?"),
            (UPSTREAM + "url = 1", "gai-fast.toml:4: unknown key 'url' in [[upstream]]; did you mean base_url?"),
            ('[[upstream]]\nname = "x"\ntype = "openai"', "unknown key 'type' in [[upstream]]; did you mean provider?"),
            ("[servr]", "gai-fast.toml:1: unknown section 'servr'; did you mean [server]?"),
            ("[modle]", "gai-fast.toml:1: unknown section 'modle'; did you mean [[model]]?"),
            ("port = 1", "gai-fast.toml:1: `port` belongs under [server]"),
            ("heartbeat = 1", "gai-fast.toml:1: `heartbeat` belongs under [stream]"),
            ("server = 1", "gai-fast.toml:1: 'server' must be one table, [server]"),
            ("[[server]]", "gai-fast.toml:1: 'server' must be one table, [server]"),
            ("[upstream]\nname = 1", "gai-fast.toml:1: [upstream] must be [[upstream]]: there may be several"),
            ("[server]\nport = 65536", "gai-fast.toml:2: `port` in [server] must be a whole number, 0 to 65535, not 6"),
            ("[server]\nport = true", "`port` in [server] must be a whole number, 0 to 65535, not true"),
            ('[server]\ndemo = "no"', "gai-fast.toml:2: `demo` in [server] must be true or false, not 'no'"),
            ("[server]\nmax_body = 0", "`max_body` in [server] must be a whole number, at least 1, not 0"),
            ('[server]\nlog_level = "trace"', "debug or info or warning or error, not 'trace'"),
            ("[server]\nheader_timeout = 0", "must be seconds, more than 0"),
            ("[server]\nbody_timeout = nan", "must be seconds, more than 0"),
            (f"[server]\nbody_timeout = 1{'0' * 400}", "must be seconds, more than 0"),
            (f"[server]\nmax_body = 1{'0' * 400}", "must be a whole number, at least 1"),
            ("[stream]\nheartbeat = -1", "must be seconds, 0 or more"),
            ("[stream]\ncommit_after = inf", "must be seconds, 0 or more"),
            ("[stream]\nflush_interval = 1e9", "at most 10000000"),
            ('[stream]\nenvelope = "big"', "must be compact or full"),
            ("[server]\nworkers = 2", "gai-fast.toml:2: `workers` = 2 is not supported yet: only 1"),
            ('[server]\nhost = "http://x"', "must be an address or a host name, without scheme or port"),
            ('[server]\nhost = ""', "must be a string that is not empty"),
            ('[server]\ncors_origins = "https://a.b"', "must be a list of strings"),
            ('[server]\ncors_origins = ["*"]', "must be whole origins"),
            ('[server]\ncors_origins = ["https://a.b/"]', "must be whole origins"),
            ('[server]\ncors_origins = ["null"]', "must be whole origins"),
            ('[server]\ncors_origins = ["https://a.b:443"]', "must be whole origins"),
            ('[server]\ncors_origins = ["ftp://a.b"]', "must be whole origins"),
            ('[server]\ncors_origins = ["https://u@a.b"]', "must be whole origins"),
            ('[server]\nallowed_hosts = ["a.b:80/x"]', "must be an address or a host name"),
            ('[server]\ndefault_model = "fst"\n' + UPSTREAM + MODEL, "no model is named 'fst'; did you mean fast?"),
            ('[server]\ndefault_model = "mian/gpt"\n' + UPSTREAM, "no model is named 'mian/gpt'"),
            ('[[upstream]]\nprovider = "openai"', "gai-fast.toml:1: `name` is missing in [[upstream]]"),
            ('[[upstream]]\nname = "x"', "gai-fast.toml:1: `provider` is missing in [[upstream]]"),
            ('[[model]]\nname = "x"', "gai-fast.toml:1: `upstream` is missing in [[model]]"),
            ('[[upstream]]\nname = "a/b"\nprovider = "openai"', "must be 1 to 64 characters"),
            ('[[upstream]]\nname = "x"\nprovider = "opnai"', "unknown provider 'opnai'; did you mean 'openai'?"),
            ('[[upstream]]\nname = "x"\nprovider = "azure"', "gai-fast.toml:1: `base_url` is missing in [[upstream]]"),
            (UPSTREAM + UPSTREAM, "gai-fast.toml:5: a second [[upstream]] is named 'main', as at"),
            (UPSTREAM + MODEL + MODEL, "gai-fast.toml:8: a second [[model]] is named 'fast', as at"),
            (UPSTREAM + MODEL.replace("main", "mian"), "toml:6: no [[upstream]] is named 'mian'; did you mean main"),
            (MODEL, "no [[upstream]] is named 'main': there is no [[upstream]]"),
            (UPSTREAM + MODEL.replace("fast", "a\\u0007b"), "must not contain control characters"),
            (UPSTREAM + MODEL.replace("fast", "a\\r\\nb"), "must not contain control characters"),
            (UPSTREAM + MODEL.replace("fast", "x" * 257), "must have at most 256 characters"),
            (UPSTREAM + MODEL + 'id = "a\\u0000"', "must not contain control characters"),
            ('[[processor]]\nuse = "fliter"', "toml:2: [[processor]]: unknown processor 'fliter'; did you mean"),
            ('[[processor]]\nkeep = []', "toml:1: [[processor]]: a processor needs `use`, one of: json_stream,"),
            (BATCH + BATCH + "charcters = 1", "toml:7: [[processor]]: processor 'batch' has no parameter 'charcter"),
            (BATCH + "milliseconds = 0", "gai-fast.toml:4: [[processor]]: processor 'batch', parameter 'mill"),
            ('[[processor]]\nuse = "batch"', "toml:1: [[processor]]: processor 'batch': needs `characters` or `mill"),
            ('[processor]\nuse = "batch"', "gai-fast.toml:1: [processor] must be [[processor]]: there may be several"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_told_with_its_line_and_what_to_write(self, folder: Folder, text: str, problem: str) -> None:
        [told] = folder.problems(text)
        assert problem in told

    @pytest.mark.parametrize("value", ['"a\\nb\\u001b[31m"', f'"{"x" * 10_000}"', "[{}]", "1979-05-27"])
    def test_a_mistake_in_a_processor_is_one_short_line(self, folder: Folder, value: str) -> None:
        texts = f"use = {value}", f'use = "json_stream"\non_invalid = {value}', f'use = "filter"\ndrop = [{value}]'
        for text in texts:
            [told] = folder.problems(f"[[processor]]\n{text}")
            assert told.isprintable()
            assert len(told) < 800

    @pytest.mark.parametrize("section", ["key", "idempotency", "limits"])
    def test_a_section_whose_time_has_not_come_is_not_supported_yet(self, folder: Folder, section: str) -> None:
        [told] = folder.problems(f"[[{section}]]" if section == "key" else f"[{section}]")
        assert told.startswith("gai-fast.toml:1: ")
        assert told.endswith("is not supported yet")

    @pytest.mark.parametrize(
        ("section", "key"), [(section, key) for section in SECTIONS for key in sorted(LATER[section])]
    )
    def test_a_key_whose_time_has_not_come_is_not_supported_yet(self, folder: Folder, section: str, key: str) -> None:
        start = {"upstream": UPSTREAM, "model": UPSTREAM + MODEL}.get(section, f"[{section}]\n")
        [told] = folder.problems(f"{start}{key} = 1")
        assert told.endswith("is not supported yet")
        assert f"`{key}`" in told
        assert f"gai-fast.toml:{start.count(chr(10)) + 1}: " in told

    def test_all_mistakes_are_told_at_once(self, folder: Folder) -> None:
        told = folder.problems(
            "[server]\nprot = 1\nport = -1\n[stream]\nretry = 1\n[foo]\n", {"GAI_FAST_SERVER__X": "1"}
        )
        assert [line.partition(": ")[0] for line in told] == [
            "gai-fast.toml:2",
            "gai-fast.toml:3",
            "gai-fast.toml:5",
            "gai-fast.toml:6",
            "GAI_FAST_SERVER__X",
        ]

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"[server\nport = 1", "gai-fast.toml:1:8: "),
            (b"a = 1\nb = ", "gai-fast.toml:2: "),
            (b"a = 1\n\xff", "gai-fast.toml:2: not UTF-8"),
            (b"a = " + b"[" * 20000, "gai-fast.toml: nested too deep"),
            (b"a = " + b"1" * 10000, "gai-fast.toml: "),
            (b"#" * (LIMITS.config_file + 1), "larger than"),
        ],
    )
    def test_what_is_no_toml_is_told_with_its_place(self, folder: Folder, content: bytes, problem: str) -> None:
        [told] = folder.problems(content)
        assert problem in told

    def test_a_file_that_is_not_there_or_no_file_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
            load(tmp_path / "none.toml", environ={})
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            load(tmp_path, environ={})


class TestUpstreamAddress:
    @pytest.mark.parametrize(
        "url",
        [
            "https://api.example.com",
            "http://localhost:11434/v1",
            "http://127.0.0.1:9/",
            "http://10.0.0.1/v1",
            "http://192.168.1.1",
            "http://[::1]:8000/v1",
            "http://[fd00::1]",
        ],
    )
    def test_public_loopback_and_private_addresses_are_allowed(self, folder: Folder, url: str) -> None:
        upstream = folder.read(f'{UPSTREAM}base_url = "{url}"').settings.upstreams["main"]
        assert upstream.base_url == url.rstrip("/")

    @pytest.mark.parametrize(
        "url",
        [
            "http://169.254.169.254",
            "http://169.254.1.2:80/latest/meta-data",
            "http://[fe80::1]",
            "http://[fe80::1%25eth0]/",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
            "http://0xA9FEA9FE/",
            "http://169.16689662/",
            "http://0251.0376.0251.0376/",
            "file:///etc/passwd",
            "gopher://example.com",
            "ftp://example.com",
            "example.com/v1",
            "//example.com",
            "http://",
            "http:///v1",
            "http://user@example.com",
            "http://user:secret@example.com",
            "http://@example.com",
            "http://example.com?x=1",
            "http://example.com/v1?",
            "http://example.com/#f",
            "http://example.com:99999",
            "http://example.com:x",
            "http://exa mple.com",
            "http://example.com\\\\@169.254.169.254",
            "http://exämple.com",
            "http://example.com/\\n",
            "http://[::1",
        ],
    )
    def test_what_must_not_be_asked_is_refused_without_repeating_it(self, folder: Folder, url: str) -> None:
        [told] = folder.problems(f'{UPSTREAM}base_url = "{url}"')
        assert told.startswith("gai-fast.toml:4: `base_url` in [[upstream]] must ")
        assert "secret" not in told


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
        [told] = folder.problems(f'{UPSTREAM}api_key = "{reference}"', environ)
        assert told.startswith("gai-fast.toml:4: ")
        assert problem in told
        assert "very-secret" not in told

    def test_no_text_of_the_settings_shows_a_secret(self, folder: Folder) -> None:
        text = UPSTREAM + 'api_key = "env:K"\nheaders = { authorization = "Bearer hidden" }'
        loaded = folder.read(text, {"K": "sk-hidden"})
        assert "hidden" not in repr(loaded.settings)
        assert "hidden" not in f"{loaded.settings.upstreams['main'].api_key}"

    def test_the_usual_variable_is_used_only_for_the_providers_own_address(self, folder: Folder) -> None:
        environ = {"OPENAI_API_KEY": "sk-1"}
        key = folder.read(UPSTREAM, environ).settings.upstreams["main"].api_key
        assert key is not None
        elsewhere = folder.read(UPSTREAM + 'base_url = "http://127.0.0.1:9"', environ)
        assert elsewhere.settings.upstreams["main"].api_key is None

    @pytest.mark.parametrize(
        "headers",
        [
            '{ "transfer-encoding" = "chunked" }',
            '{ Host = "x" }',
            '{ Connection = "close" }',
            '{ "x y" = "1" }',
            '{ "" = "1" }',
            '{ x = "very-secret\\r\\ny: z" }',
            '{ x = "very-secret\\u0000" }',
            '{ x = "very-secret…" }',
            "{ x = 1 }",
            '{ x = "1", X = "2" }',
            '["x"]',
        ],
    )
    def test_headers_that_would_break_a_request_are_refused(self, folder: Folder, headers: str) -> None:
        [told] = folder.problems(f"{UPSTREAM}headers = {headers}")
        assert told.startswith("gai-fast.toml:4: `headers` in [[upstream]] must ")
        assert "very-secret" not in told


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

    @pytest.mark.parametrize("name", FLAGS)
    def test_a_flag_has_a_variable_of_only_the_keys_name(self, folder: Folder, name: str) -> None:
        text = {"host": "127.0.0.5"}.get(name, "1")
        for variable in (f"GAI_FAST_{name.upper()}", f"GAI_FAST_SERVER__{name.upper()}"):
            settings = folder.read("", {variable: text}).settings
            assert str(getattr(settings.server, name)) == text

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

    def test_an_empty_variable_counts_as_unset(self, folder: Folder) -> None:
        assert folder.read("[server]\nport = 1", {"GAI_FAST_PORT": ""}).settings.server.port == 1

    @pytest.mark.parametrize(
        ("variable", "problem"),
        [
            ("GAI_FAST_SERVER__PROT", "no such setting; did you mean GAI_FAST_SERVER__PORT?"),
            ("GAI_FAST_STREEM__USAGE", "no such setting; did you mean GAI_FAST_STREAM__USAGE?"),
            ("GAI_FAST_STREAM__RETRY", "not supported yet"),
            ("GAI_FAST_STORE__URL", '`url` in [store] must be "memory://"'),
            ("GAI_FAST_IDEMPOTENCY__TTL", "not supported yet"),
            ("GAI_FAST_UPSTREAM__NAME", "[[upstream]] is set in the file only"),
            ("GAI_FAST_SERVER__PORT", "`port` in [server] must be a whole number, 0 to 65535, not '1e3'"),
        ],
    )
    def test_a_variable_that_sets_nothing_is_an_error(self, folder: Folder, variable: str, problem: str) -> None:
        assert folder.problems("", {variable: "1e3"}) == [f"{variable}: {problem}"]

    @pytest.mark.parametrize("variable", ["GAI_FAST_BUILD", "GAI_FAST_MOCK_PORT", "OTHER__X", "GAI_FASTER__X"])
    def test_other_variables_are_left_alone(self, folder: Folder, variable: str) -> None:
        assert folder.read("", {variable: "x"}).settings.server == ServerSettings()


class TestBindingOpenly:
    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gateway.internal", "::ffff:10.0.0.1"])
    def test_an_address_that_is_not_loopback_is_refused(self, folder: Folder, host: str) -> None:
        [told] = folder.problems(f'[server]\nhost = "{host}"')
        assert told.startswith(f"gai-fast.toml:2: {host} is open to other machines")
        assert "insecure = true" in told
        assert folder.problems("", host=host)[0].startswith("--host: ")

    def test_insecure_allows_it(self, folder: Folder) -> None:
        assert folder.read('[server]\nhost = "0.0.0.0"\ninsecure = true').settings.server.insecure

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1", "[::1]"])
    def test_loopback_is_allowed(self, folder: Folder, host: str) -> None:
        host_in_force = folder.read(f'[server]\nhost = "{host}"').settings.server.host
        assert is_loopback(host_in_force)


class TestZeroConfiguration:
    def test_each_key_in_the_environment_configures_its_provider(self) -> None:
        environ = {"OPENAI_API_KEY": "sk-o", "ANTHROPIC_API_KEY": "sk-a", "GROQ_API_KEY": ""}
        settings = load(None, environ=environ)
        assert list(settings.upstreams) == ["openai", "anthropic"]
        key = settings.upstreams["anthropic"].api_key
        assert key is not None
        assert key.reveal() == "sk-a"
        assert list(settings.models) == ["demo"]
        model = settings.model("anthropic/claude")
        assert model is not None
        assert model.id == "claude"

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

    def test_a_file_says_all_there_is(self, folder: Folder) -> None:
        assert not folder.read("", {"OPENAI_API_KEY": "sk"}).settings.upstreams

    def test_the_process_environment_is_read_where_none_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GAI_FAST_PORT", "4711")
        assert load(None).server.port == 4711

    def test_a_file_of_the_usual_name_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert find(None) is None
        (tmp_path / "gai-fast.toml").touch()
        assert find(None) == Path("gai-fast.toml")
        assert find(Path("other.toml")) == Path("other.toml")


class TestLineNumbers:
    def test_strings_and_comments_hold_no_keys(self) -> None:
        source = '''# [server]
a = """
b = 1
# c = 2
"""
d = \'\'\'
[e]
\'\'\' # f = "
"g h" = "# not a comment"
[[i]]
j = { k = 1 }
[i.l]
m = 1
[[i]]
n.o = 1
'''
        assert line_numbers(source) == {
            ("a",): 2,
            ("d",): 6,
            ("g h",): 9,
            ("i",): 10,
            ("i", 0): 10,
            ("i", 0, "j"): 11,
            ("i", 0, "l"): 12,
            ("i", 0, "l", "m"): 13,
            ("i", 1): 14,
            ("i", 1, "n"): 15,
            ("i", 1, "n", "o"): 15,
        }


_NAMES = st.sampled_from([*SECTIONS["server"], *SECTIONS["upstream"], *SECTIONS["model"], *LATER["stream"], "other"])
_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20) | _NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)
_TABLES = st.dictionaries(_NAMES | st.text(max_size=6), _VALUES, max_size=6)
_SECTIONS = st.sampled_from([*SECTIONS, *LATER[""]]) | st.text(max_size=6)
_DOCUMENTS = st.dictionaries(_SECTIONS, _TABLES | st.lists(_TABLES, max_size=3) | _VALUES, max_size=4)


def as_file(document: dict[str, Any]) -> bytes:
    return "\n".join(f"{toml(name)} = {toml(value)}" for name, value in document.items()).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=60) | _DOCUMENTS.map(as_file))
def test_any_file_is_read_or_refused_with_one_line_for_each_problem(shared_folder: Path, content: bytes) -> None:
    """Never another exception, and no line of a problem can be taken for two."""
    problems: tuple[str, ...] = ()
    try:
        Folder(shared_folder).read(content)
    except ConfigError as refused:
        problems = refused.problems or ("a refusal without a reason",)
    for line in problems:
        assert line.startswith(str(shared_folder))
        assert line.isprintable()


def test_no_color_means_no_colors() -> None:
    assert wants_color({})
    assert wants_color({"NO_COLOR": ""})
    assert not wants_color({"NO_COLOR": "1"})


@pytest.mark.parametrize("section", SECTIONS)
def test_the_manual_has_every_key_with_its_default(section: str) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    title = f"### `[[{section}]]`" if section in LISTS else f"### `[{section}]`"
    part = manual.partition(title)[2].partition("\n### ")[0]
    for name in SECTIONS[section]:
        if section == "model" and name in SECTIONS["stream"]:
            continue
        default = DEFAULTS[section].get(name)
        shown = "" if default is None else f"`{toml(default)}` "
        assert f"| `{name}` | {shown}" in part


@pytest.mark.parametrize("use", PROCESSORS)
def test_the_manual_has_every_parameter_with_its_default(use: str) -> None:
    manual = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
    part = manual.partition(f'`use = "{use}"`: ')[2].partition("`use =")[0].partition("\n### ")[0]
    for field in msgspec.structs.fields(parameters(use)):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        shown = "required " if field.required else "" if default is None else f"`{toml(default)}` "
        assert f"| `{field.name}` | {shown}" in part
