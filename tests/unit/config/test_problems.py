"""`config/problems.py`: how mistakes are worded: all at once, one line each, with the nearest name."""

from __future__ import annotations

import pytest

from tests.unit.config.folders import BATCH, MODEL, UPSTREAM, Folder


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[server]\nprot = 1", "gai-fast.toml:2: unknown key 'prot' in [server]; did you mean port?"),
            *(
                (f"[server]\n{name} = ':80'", f"toml:2: unknown key '{name}' in [server]; did you mean host and port?")
                for name in ("listen", "bind", "address", "addr")
            ),
            (UPSTREAM + "listen = 1", "gai-fast.toml:4: unknown key 'listen' in [[upstream]]; known: "),
            ("[SERVER]\nport = 1", "gai-fast.toml:1: unknown section 'SERVER'; did you mean [server]?"),
            (
                '[[upstream]]\nname = "a"\nprovider = "OpenAI"',
                "gai-fast.toml:3: `provider` in [[upstream]] cannot be used: unknown provider 'OpenAI'; "
                "did you mean 'openai'?",
            ),
            ("[stream]\n\nhearbeat = 1", "gai-fast.toml:3: unknown key 'hearbeat' in [stream]; did you mean heartbeat"),
            (UPSTREAM + "bse_url = 1", "gai-fast.toml:4: unknown key 'bse_url' in [[upstream]]; did you mean base_url"),
            (UPSTREAM + MODEL + "idd = 1", "gai-fast.toml:7: unknown key 'idd' in [[model]]; did you mean id?"),
            ('[[upstream]]\nname = "x"\nprovidr = "openai"', "unknown key 'providr' in [[upstream]]; did you mean"),
            (UPSTREAM + MODEL + "model = 1", "gai-fast.toml:7: unknown key 'model' in [[model]]; did you mean id?"),
            (UPSTREAM + "url = 1", "gai-fast.toml:4: unknown key 'url' in [[upstream]]; did you mean base_url?"),
            ('[[upstream]]\nname = "x"\ntype = "openai"', "unknown key 'type' in [[upstream]]; did you mean provider?"),
            ('[[key]]\nname = "x"\nkey = "k"', "unknown key 'key' in [[key]]; did you mean secret?"),
            ('[[key]]\nname = "x"\ntoken = "k"', "unknown key 'token' in [[key]]; did you mean secret?"),
            (UPSTREAM + "keys = []", "gai-fast.toml:4: unknown key 'keys' in [[upstream]]; did you mean api_key?"),
            (UPSTREAM + MODEL + 'key = "k"', "unknown key 'key' in [[model]]; known: "),
            *(
                (
                    f"{UPSTREAM}{model}{name} = 60",
                    f"unknown key '{name}' in [[{section}]]; [[upstream]] has connect_timeout, first_event_timeout, "
                    "idle_timeout, total_timeout",
                )
                for section, model in (("upstream", ""), ("model", MODEL))
                for name in ("timeout", "request_timeout", "read_timeout", "stream_timeout")
            ),
            ("[server]\ntimeout = 60", "unknown key 'timeout' in [server]; [server] has header_timeout, body_timeout"),
            ("[servr]", "gai-fast.toml:1: unknown section 'servr'; did you mean [server]?"),
            ("[modle]", "gai-fast.toml:1: unknown section 'modle'; did you mean [[model]]?"),
            ("port = 1", "gai-fast.toml:1: `port` belongs under [server]"),
            ("prot = 1", "gai-fast.toml:1: unknown key 'prot'; did you mean port, under [server]?"),
            (
                UPSTREAM + '[[model]]\nname = "m"\nupstream = "main"\nprovder = "openai"',
                "unknown key 'provder' in [[model]]; did you mean provider, under [[upstream]]?",
            ),
            (UPSTREAM + MODEL + 'provider = "openai"', "'provider' in [[model]]; it belongs under [[upstream]]"),
            (UPSTREAM + "price = 1", "toml:4: unknown key 'price' in [[upstream]]; it belongs under [[model]]"),
            (UPSTREAM + MODEL + "connect_timeout = 1", "'connect_timeout' in [[model]]; it belongs under [[upstream]]"),
            (
                UPSTREAM + MODEL + "max_tokens = 5",
                "unknown key 'max_tokens' in [[model]]; a request's field is set by defaults = {max_tokens = …}",
            ),
            (UPSTREAM + MODEL + "max_token = 1", "a request's field is set by defaults = {max_tokens = …}"),
            (UPSTREAM + MODEL + "max_step = 1", "unknown key 'max_step' in [[model]]; did you mean max_steps?"),
            ('[store]\npath = "a.db"', "gai-fast.toml:2: unknown key 'path' in [store]; known: "),
            ('[[models]]\nname = "m"', "gai-fast.toml:1: unknown section 'models'; did you mean [[model]]?"),
            ('[[price]]\ninput = 1', "gai-fast.toml:1: unknown section 'price'; did you mean [prices]?"),
            ('[key_defaults]\nsecret = "a"', "unknown key 'secret' in [key_defaults]; it belongs under [[key]]"),
            ("heartbeat = 1", "gai-fast.toml:1: `heartbeat` belongs under [stream]"),
            ("[server]\nheartbeat = 1", "toml:2: `heartbeat` belongs under [stream], not under [server]"),
            (UPSTREAM + "max_body = 1", "toml:4: `max_body` belongs under [server], not under [[upstream]]"),
            ("[server]\ntls_crt = 1", "toml:2: unknown key 'tls_crt' in [server]; did you mean tls_cert?"),
            ("[stor]", "toml:1: unknown section 'stor'; did you mean [store]?"),
            ("server = 1", "gai-fast.toml:1: 'server' must be one table, [server]"),
            ("[[server]]", "gai-fast.toml:1: 'server' must be one table, [server]"),
            ("[upstream]\nname = 1", "gai-fast.toml:1: [upstream] must be [[upstream]]: there may be several"),
            ("[server]\nport = 65536", "gai-fast.toml:2: `port` in [server] must be a whole number, 0 to 65535, not 6"),
            ("[server]\nport = true", "`port` in [server] must be a whole number, 0 to 65535, not true"),
            ('[server]\ndemo = "no"', "gai-fast.toml:2: `demo` in [server] must be true or false, not 'no'"),
            ("[server]\nmax_body = 0", "`max_body` in [server] must be a whole number, at least 1, not 0"),
            ('[server]\nlog_level = "trace"', "debug, info, warning or error, not 'trace'"),
            ('[server]\nfast_lane = "on"', "gai-fast.toml:2: `fast_lane` in [server] must be auto or off, not 'on'"),
            ("[server]\nfast_lane = true", "gai-fast.toml:2: `fast_lane` in [server] must be auto or off, not true"),
            ('[server]\nfastlane = "off"', "unknown key 'fastlane' in [server]; did you mean fast_lane?"),
            ('[server]\napp = "shop"', "toml:2: `app` in [server] must be \"module:function\", such as"),
            ('[server]\napp = "shop.py:f"\napp_ = 1', "toml:3: unknown key 'app_' in [server]; did you mean app?"),
            ('[server]\napp = "a:b:c"', "gai-fast.toml:2: `app` in [server] must be"),
            ("[server]\nheader_timeout = 0", "must be seconds, more than 0"),
            ("[server]\nbody_timeout = nan", "must be seconds, more than 0"),
            (f"[server]\nbody_timeout = 1{'0' * 400}", "must be seconds, more than 0"),
            (f"[server]\nmax_body = 1{'0' * 400}", "must be a whole number, at least 1"),
            ("[stream]\nheartbeat = -1", "must be seconds, 0 or more"),
            ("[stream]\ncommit_after = inf", "must be seconds, 0 or more"),
            ("[stream]\nflush_interval = 1e9", "at most 10000000"),
            ('[stream]\nenvelope = "big"', "must be compact or full"),
            ("[server]\nworkers = 0", "gai-fast.toml:2: `workers` in [server] must be a whole number, 1 to 256, not 0"),
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
            ('[[upstream]]\nprovider = "openai"', "toml:1: `name` is missing in [[upstream]]: what models call"),
            ('[[upstream]]\nname = "x"', "`provider` is missing in [[upstream]]: one of openai, anthropic,"),
            ('[[model]]\nname = "x"', "`upstream` is missing in [[model]]: the name of an [[upstream]]; or"),
            ('[[upstream]]\nname = "a/b"\nprovider = "openai"', "must be 1 to 64 characters"),
            ('[[upstream]]\nname = "x"\nprovider = "opnai"', "unknown provider 'opnai'; did you mean 'openai'?"),
            ('[[upstream]]\nname = "x"\nprovider = "azure"', "`base_url` is missing in [[upstream]]: azure has no"),
            ('[[upstream]]\nname = "x"\nprovider = "azure"', 'base_url = "https://NAME.openai.azure.com"'),
            ('[[upstream]]\nname = "x"\nprovider = "openai-compatible"', 'base_url = "https://HOST/v1"'),
            ('[[upstream]]\nname = "x"\nprovider = "azure"\nbase_ulr = "https://a"', "toml:4: unknown key 'base_ulr'"),
            ('[[upstream]]\nname = "x"\nprovider = "azure"\nurl = "https://a.b"', "did you mean base_url?"),
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
    def test_a_mistake_is_reported_with_its_line_and_what_to_write(
        self, folder: Folder, text: str, problem: str
    ) -> None:
        [message] = folder.problems(text)
        assert problem in message

    @pytest.mark.parametrize("value", ['"a\\nb\\u001b[31m"', f'"{"x" * 10_000}"', "[{}]", "1979-05-27"])
    def test_a_mistake_in_a_processor_is_one_short_line(self, folder: Folder, value: str) -> None:
        texts = f"use = {value}", f'use = "json_stream"\non_invalid = {value}', f'use = "filter"\ndrop = [{value}]'
        for text in texts:
            [message] = folder.problems(f"[[processor]]\n{text}")
            assert message.isprintable()
            assert len(message) < 800

    def test_all_mistakes_are_reported_at_once(self, folder: Folder) -> None:
        message = folder.problems(
            "[server]\nprot = 1\nport = -1\n[stream]\ncompression = 1\n[foo]\n", {"GAI_FAST_SERVER__X": "1"}
        )
        assert [line.partition(": ")[0] for line in message] == [
            "gai-fast.toml:2",
            "gai-fast.toml:3",
            "gai-fast.toml:5",
            "gai-fast.toml:6",
            "GAI_FAST_SERVER__X",
        ]
