"""`config/checks.py`: what a text or a table of the configuration must be."""

from __future__ import annotations

import sys

import pytest

from gai_fast.core import compression
from tests.unit.config.folders import UPSTREAM, Folder


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

    def test_the_scheme_is_read_in_any_case(self, folder: Folder) -> None:
        """The keys of TLS were refused beside it."""
        upstream = folder.read(f'{UPSTREAM}base_url = "HTTPS://API.example.com/V1/"').settings.upstreams["main"]
        assert upstream.base_url == "https://API.example.com/V1"

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
            f"http://{'x' * 64}.example",
            "http://exa_mple..com",
        ],
    )
    def test_what_must_not_be_asked_is_refused_without_repeating_it(self, folder: Folder, url: str) -> None:
        [message] = folder.problems(f'{UPSTREAM}base_url = "{url}"')
        assert message.startswith("gai-fast.toml:4: `base_url` in [[upstream]] must ")
        assert "secret" not in message


class TestHeaders:
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
        [message] = folder.problems(f"{UPSTREAM}headers = {headers}")
        assert message.startswith("gai-fast.toml:4: `headers` in [[upstream]] must ")
        assert "very-secret" not in message


class TestStore:
    def test_a_server_needs_its_extra(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "redis", None)
        assert folder.problems('[store]\nurl = "redis://h"') == [
            "gai-fast.toml:2: `url` in [store] needs the package redis: pip install '.[redis]' in a clone of gai-fast"
        ]

    def test_sealing_needs_its_extra(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cryptography", None)
        assert folder.problems('[store.encryption]\ncommand = ["keys"]') == [
            "gai-fast.toml:1: `encryption` in [store] needs the package cryptography: "
            "pip install '.[seal]' in a clone of gai-fast"
        ]
        assert not folder.read("[store.encryption]\nkeys = []").settings.store.encryption.has_keys

    @pytest.mark.parametrize("url", ["memory://", "redis://:secret@h/0", "rediss://h"])
    def test_the_address_of_a_server_is_kept_as_it_is(self, folder: Folder, url: str) -> None:
        assert folder.read(f'[store]\nurl = "{url}"').settings.store.url == url

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ('url = "memory"', 'must be "memory://": the memory has no address'),
            ('url = "memory://x"', 'must be "memory://": the memory has no address'),
            (
                'url = "memroy://:secret@h"',
                'must be the address of a store, such as "memory://", "sqlite:///gai-fast.db", "redis://127.0.0.1:6379/0"',
            ),
            ('url = "sqlite://secret.db"', 'must name a file: "sqlite:///relative.db" or "sqlite:////absolute.db"'),
            (
                'url = "redis://:secret@h:none"',
                'must be "redis://[user[:password]@]host[:port][/database]", such as "redis://127.0.0.1:6379/0"',
            ),
            ("ttl = -1", "must be seconds, 0 or more, at most 10000000, not -1"),
            ("max_bytes = 65535", "must be a whole number, at least 65536, not 65535"),
            ("max_stream_bytes = 4095", "must be a whole number, at least 4096, not 4095"),
            ('sync = "always"', "must be batched or before_send, not 'always'"),
        ],
    )
    def test_a_mistake_in_the_store_is_reported_without_a_password(
        self, folder: Folder, line: str, problem: str
    ) -> None:
        key = line.partition(" ")[0]
        assert folder.problems(f"[store]\n{line}") == [f"gai-fast.toml:2: `{key}` in [store] {problem}"]


class TestCompression:
    def test_codings_are_read_in_their_order(self, folder: Folder) -> None:
        assert folder.read('[stream]\ncompression = ["br", "gzip"]').settings.stream.compression == ("br", "gzip")

    @pytest.mark.parametrize("value", ['"gzip"', '["deflate"]', '["gzip", "gzip"]', "[1]", "[[]]", "true", "{}"])
    def test_anything_else_is_refused(self, folder: Folder, value: str) -> None:
        [message] = folder.problems(f"[stream]\ncompression = {value}")
        assert "must be a list of zstd, gzip, br, each at most once" in message

    def test_a_coding_whose_library_is_missing_names_the_extra(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(compression._LIBRARIES, "br", "gai_fast.no_such_library")
        [message] = folder.problems('[stream]\ncompression = ["gzip", "br"]')
        assert message == (
            "gai-fast.toml:2: `compression` in [stream] has br, which needs a package: "
            "pip install '.[compression]' in a clone of gai-fast"
        )
