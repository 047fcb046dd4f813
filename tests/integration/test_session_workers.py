"""Sessions and callers' credentials over several processes of one server."""

from __future__ import annotations

import signal
from pathlib import Path

from gai_fast.model.settings import key_digest
from tests.integration.gateway import CHAT, MESSAGES, Net, Peer
from tests.integration.processes import Server, serving
from tests.integration.test_balance import HELLO, Target
from tests.integration.test_credentials import BENS, KEY, MINE, Upstream, bearer
from tests.integration.test_workers import connections
from tests.waiting import until

NAMES = [f"conversation-{number}" for number in range(12)]
KEYS = ("first-key", "second-key", "third-key")


def configure(folder: Path, urls: list[str], keys: tuple[str, ...] = KEYS) -> None:
    """Writes a configuration whose model `m` has these upstreams, each with these keys."""
    for key in keys:
        (folder / key).write_text(key)
    listed = ", ".join([f'"file:{key}"' for key in keys])
    upstreams = [
        f'[[upstream]]\nname = "t{at}"\nprovider = "openai-compatible"\nbase_url = "{url}/v1"\napi_key = [{listed}]\n'
        for at, url in enumerate(urls)
    ]
    targets = ", ".join([f'{{upstream = "t{at}", id = "mock"}}' for at in range(len(urls))])
    text = "".join(upstreams) + f'[[model]]\nname = "m"\ntargets = [{targets}]\n'
    (folder / "gai-fast.toml").write_text("[server]\nport = 0\n" + text)


async def homes(server: Server, targets: list[Target]) -> dict[str, set[tuple[int, str]]]:
    """Returns the targets and keys of each session, asked on a connection to each of two workers."""
    found: dict[str, set[tuple[int, str]]] = {}
    for name in NAMES:
        for client in await connections(server):
            for target in targets:
                target.keys.clear()
            body = {"model": "m", "messages": MESSAGES, "stream": True}
            response = await client.ask("POST", CHAT, body, {"x-session-id": name})
            assert response.status == 200
            client.close()
            (place,) = [(at, key) for at, target in enumerate(targets) for key in target.keys]
            found.setdefault(name, set()).add(place)
    return found


async def test_workers_agree_on_homes_and_a_removed_key_moves_its_sessions_alone(net: Net, tmp_path: Path) -> None:
    targets = [Target(), Target()]
    urls = [(await net.upstream(target)).url for target in targets]
    configure(tmp_path, urls)

    async def reload(keys: tuple[str, ...]) -> None:
        configure(tmp_path, urls, keys)
        server.signal(signal.SIGHUP)
        await server.said("the configuration has been reloaded")

    async with serving(net, tmp_path, "--workers", "2") as server:
        before = await homes(server, targets)
        assert {len(places) for places in before.values()} == {1}, "each session has one home on both workers"
        assert len(set.union(*before.values())) > 2
        (gone,) = {key for _, key in before[NAMES[0]]}
        await reload(tuple(key for key in KEYS if key != gone))
        during = await homes(server, targets)
        moved = {name for name in NAMES if during[name] != before[name]}
        assert moved == {name for name in NAMES if {key for _, key in before[name]} == {gone}}
        assert all({at for at, _ in during[name]} == {at for at, _ in before[name]} for name in NAMES)
        await reload(KEYS)
        assert await homes(server, targets) == before, "they come back"
    async with serving(net, tmp_path, "--workers", "2") as server:
        assert await homes(server, targets) == before, "after a restart, too"


class Held(Upstream):
    """Sends the first half of its answer, and the rest when `goes_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = False

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        self.heads.append({"head": peer.head.decode("latin-1")})
        half = HELLO.index(b"\r\n\r\n") + 4
        await peer.send(HELLO[:half])
        await until(lambda: self.goes_on)
        await peer.send(HELLO[half:])
        await peer.until_gone()


async def test_a_credential_stays_in_the_memory_of_the_worker_that_asks(net: Net, tmp_path: Path) -> None:
    """A durable stream is followed and resumed on another worker, by a caller that sends another credential."""
    upstream = Held()
    url = (await net.upstream(upstream)).url
    (tmp_path / "gai-fast.toml").write_text(
        f'[server]\nport = 0\nlog_level = "debug"\n[[key]]\nname = "anna"\nsecret = "sha256:{key_digest(KEY).hex()}"\n'
        f'[[upstream]]\nname = "up"\nprovider = "openai-compatible"\nbase_url = "{url}/v1"\napi_key = "caller"\n'
        '[[model]]\nname = "m"\nupstream = "up"\n'
    )
    with (tmp_path / "log").open("wb") as log:
        async with serving(
            net, tmp_path, "--workers", "2", "--store", "sqlite:///streams.db", stderr=log.fileno()
        ) as server:
            here, there = await connections(server)
            body = {"model": "m", "messages": MESSAGES, "resumable": True, "stream": True}
            here.request("POST", "/api/v1/stream", body, {"x-gai-key": KEY, "authorization": bearer(MINE)})
            response = await here.response()
            path = f"/api/v1/streams/{response.headers['x-gai-stream-id']}"
            there.request("GET", path, headers={"x-gai-key": KEY, "authorization": bearer(BENS)})
            followed = await there.response()
            assert followed.status == 200
            upstream.goes_on = True
            for each in (response, followed):
                await each.rest()
                assert each.types[-1] == "done"
            assert followed.body == response.body
    assert [head["head"].count(bearer(MINE)) for head in upstream.heads] == [1]
    planted = {MINE.encode(), BENS.encode()}
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.name for file in written} >= {"log", "streams.db"}
    assert [file.name for file in written if any(each in file.read_bytes() for each in planted)] == []
