"""`[responses]`: what is kept of `/v1/responses`, from the file and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from gai_fast.config import ConfigError, load
from gai_fast.model.settings import ResponsesSettings


def test_each_key_is_read_from_the_file_and_the_environment(tmp_path: Path) -> None:
    assert load(None, environ={}).responses == ResponsesSettings() == ResponsesSettings(True, 604_800.0, None, None)
    file = tmp_path / "gai-fast.toml"
    file.write_text("[responses]\nstore = false\nttl = 1\nmax_bytes = 16384\nmax_bytes_per_caller = 20000\n")
    assert load(file, environ={}).responses == ResponsesSettings(False, 1.0, 16_384, 20_000)
    environ = {"GAI_FAST_RESPONSES__STORE": "true", "GAI_FAST_RESPONSES__TTL": "10000000"}
    environ |= {"GAI_FAST_RESPONSES__MAX_BYTES": "268435456", "GAI_FAST_RESPONSES__MAX_BYTES_PER_CALLER": "16384"}
    assert load(file, environ=environ).responses == ResponsesSettings(True, 10_000_000.0, 268_435_456, 16_384)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('store = "no"', "`store` in [responses] must be true or false"),
        ("ttl = 0", "`ttl` in [responses] must be seconds, 1 or more, at most 10000000"),
        ("ttl = 0.5", "`ttl` in [responses] must be seconds, 1 or more, at most 10000000"),
        ("ttl = 10000001", "`ttl` in [responses] must be seconds, 1 or more, at most 10000000"),
        ("ttl = true", "`ttl` in [responses] must be seconds, 1 or more, at most 10000000"),
        ("ttl = nan", "`ttl` in [responses] must be seconds, 1 or more, at most 10000000"),
        ("max_bytes = 16383", "`max_bytes` in [responses] must be a whole number, at least 16384"),
        ("max_bytes = 1e9", "`max_bytes` in [responses] must be a whole number, at least 16384"),
        ("max_bytes_per_caller = 0", "`max_bytes_per_caller` in [responses] must be a whole number, at least 16384"),
        ("max_size = 5", "unknown key"),
    ],
)
def test_a_bad_value_is_named_with_its_bounds(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "gai-fast.toml"
    file.write_text(f"[responses]\n{line}\n")
    with pytest.raises(ConfigError) as refused:
        load(file, environ={})
    assert problem in str(refused.value)
