"""`gai_fast/stores/__init__.py`: a store is found by the scheme of its URL; of a wrong one nothing is repeated."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from gai_fast.model.settings import StoreSettings
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import STORES, check_url, open_store
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.sealed import SealedBackend
from gai_fast.stores.sqlite import SQLiteBackend

FOLDER = Path("/etc/gai-fast")


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://", type(None)),
        ("sqlite:////var/lib/logs.db", SQLiteBackend),
        ("redis://localhost", RedisBackend),
        ("rediss://user:secret@redis.example.com:6380/3", RedisBackend),
    ],
)
async def test_a_store_is_found_by_its_scheme(url: str, kind: type, timers: TimerWheel) -> None:
    store = open_store(StoreSettings(check_url(url, FOLDER)), timers, claim_ttl=60)
    backend = store._backend
    assert type(backend._inner if isinstance(backend, SealedBackend) else backend) is kind
    await store.close()


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("memory://", "memory://"),
        ("sqlite:///logs.db", "sqlite:////etc/gai-fast/logs.db"),
        ("sqlite:///../data/my logs.db", "sqlite:////etc/gai-fast/../data/my logs.db"),
        ("sqlite:////var/logs.db", "sqlite:////var/logs.db"),
        ("redis://:p%40ss@[::1]:7000/15", "redis://:p%40ss@[::1]:7000/15"),
        ("rediss://h?ssl_ca_certs=/etc/ca.pem", "rediss://h?ssl_ca_certs=/etc/ca.pem"),
        ("redis://h:26379/1?sentinel=main", "redis://h:26379/1?sentinel=main"),
    ],
)
def test_a_file_is_relative_to_the_folder_of_the_configuration(url: str, used: str) -> None:
    assert check_url(url, FOLDER) == used


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        *((url, "must be the address of a store, such as") for url in ("", "nosuch://x", "postgres://h/db")),
        *((url, 'must be "memory://"') for url in ("memory", "memory://x", "memory:///")),
        *(
            (url, "must name a file")
            for url in (
                "sqlite://",
                "sqlite:///",
                "sqlite://logs.db",
                "sqlite:///:memory:",
                "sqlite:///logs/",
                "sqlite:///..",
            )
        ),
        *(
            (url, 'must be "redis://')
            for url in (
                "redis://",
                "redis:///0",
                "redis://secret@:6379",
                "redis://h:99999",
                "redis://h:secret",
                "redis://h:0",
                "redis://h/secret",
                "redis://h/0/1",
                "redis://h#secret",
                "redis://[secret/0",
                "redis://h h",
                "redis://h\u00e9",
            )
        ),
        *(
            (url, "must have no parameters but")
            for url in (
                "redis://h?db=1",
                "rediss://h?ssl_cert_reqs=none",
                "redis://h?ssl_ca_certs=/x",
                "rediss://h?secret",
                "redis://h:1?sentinel=",
            )
        ),
        ("redis://h?sentinel=main", "must name the port of the Sentinel"),
    ],
)
def test_a_wrong_address_is_reported_and_not_repeated(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match="must") as result:
        check_url(url, FOLDER)
    assert str(result.value).startswith(problem)
    assert "secret" not in str(result.value)


def test_the_settings_do_not_show_the_address() -> None:
    assert "secret" not in repr(StoreSettings("redis://:secret@h"))


def test_every_store_has_an_example_that_is_right() -> None:
    for scheme, module in STORES.items():
        example: str = import_module(module).URL
        assert scheme.startswith(example.partition("://")[0])
        check_url(example, FOLDER)
