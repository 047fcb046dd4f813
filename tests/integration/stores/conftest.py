"""The stores outside the process: a file, and a redis-server for the whole run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from gai_fast.stores.backend import Backend
from gai_fast.stores.redis import RedisBackend
from gai_fast.stores.sqlite import SQLiteBackend
from tests.integration.stores.servers import NAMED, PROGRAM, RedisServer

MakeServer = Callable[..., RedisServer]
MakeBackend = Callable[[], Backend]


@pytest.fixture(scope="session")
def needs_redis(unavailable: Callable[[str], NoReturn]) -> None:
    assert PROGRAM is not None or not NAMED, f"GAI_FAST_REDIS_SERVER names {NAMED}, which is no program"
    if PROGRAM is None:
        unavailable("redis-server or valkey-server")
    if find_spec("redis") is None:
        unavailable("the extra redis")


@pytest.fixture(scope="session")
def shared_server(needs_redis: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_server(shared_server: RedisServer) -> RedisServer:
    """Returns the server of the run, empty."""
    shared_server.command("FLUSHALL")
    return shared_server


@pytest.fixture
def make_server(needs_redis: None, tmp_path: Path) -> Iterator[MakeServer]:
    """Makes servers for one test, which may end them."""
    made: list[RedisServer] = []

    def make(*options: str, watched: RedisServer | None = None) -> RedisServer:
        folder = tmp_path / f"redis{len(made)}"
        folder.mkdir()
        made.append(RedisServer(folder, *options, watched=watched))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the URL of an empty store, one of each kind."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture(params=["memory", "sqlite", "redis", "sealed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the table `[store]` of a server's configuration in `tmp_path`, one of each kind."""
    url, more = f"sqlite:///{tmp_path}/store.db", ""
    if request.param == "memory":
        url = "memory://"
    elif request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url
    elif request.param == "sealed":
        (tmp_path / "seal").write_text("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=")
        more = '[store.encryption]\nkeys = ["file:seal"]\n'
    return f'[store]\nurl = "{url}"\n{more}'


@pytest.fixture
async def make_backend(url: str) -> AsyncIterator[MakeBackend]:
    """Makes backends over one store, each as another process would have it."""
    made: list[Backend] = []

    def make() -> Backend:
        if url.startswith("sqlite"):
            made.append(SQLiteBackend(Path(url.removeprefix("sqlite:///"))))
        else:
            made.append(RedisBackend(url))
        return made[-1]

    yield make
    for backend in made:
        await backend.close()


@pytest.fixture
async def backend(make_backend: MakeBackend) -> Backend:
    made = make_backend()
    await made.open()
    return made
