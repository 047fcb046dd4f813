"""Model servers on this machine, as `gai-fast config init` finds them."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gai_fast.cli import local_upstreams
from gai_fast.cli.local_upstreams import LocalPlace, find_local_upstreams, usual_places
from gai_fast.config import load
from gai_fast.providers import get_provider
from tests.conftest import ChangeLimits
from tests.ports import free_port
from tests.unit.cli.checks.test_doctor import upstream

from .conftest import Run


def place(monkeypatch: pytest.MonkeyPatch, is_own: bool = False, **servers: str) -> None:
    """The only addresses at which servers are looked for."""
    api = get_provider("openai-compatible")
    places = [LocalPlace(api, name, url, is_own) for name, url in servers.items()]
    monkeypatch.setattr(local_upstreams, "usual_places", lambda: places)


def find(known: tuple[str, ...] = ()) -> list[dict[str, str]]:
    found = asyncio.run(find_local_upstreams(known))
    return [{name: value.value for name, value in table.items()} for table in found]


def test_the_usual_ports_of_local_servers_are_known() -> None:
    places = {place.name: (place.api.provider, place.url, place.is_own) for place in usual_places()}
    assert places == {
        "ollama": ("ollama", "http://127.0.0.1:11434", True),
        "lm-studio": ("openai-compatible", "http://127.0.0.1:1234/v1", False),
        "vllm": ("openai-compatible", "http://127.0.0.1:8000/v1", False),
    }


def test_a_server_that_lists_models_is_written(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with upstream(200) as (url, _):
        place(monkeypatch, vllm=url)
        result = run("config", "init")
    assert result.output == "wrote gai-fast.toml, with vllm\n"
    settings = load(folder / "gai-fast.toml", environ={}).upstreams["vllm"]
    assert (settings.provider, settings.base_url) == ("openai-compatible", url)


def test_one_that_is_configured_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with upstream() as (url, asked):
        place(monkeypatch, vllm=url)
        assert find(known=("vllm",)) == []
        assert asked == []


@pytest.mark.parametrize(("status", "own", "found"), [(404, False, 0), (404, True, 1), (302, False, 0), (503, True, 0)])
def test_another_program_on_the_port_is_none(
    monkeypatch: pytest.MonkeyPatch, status: int, own: bool, found: int
) -> None:
    with upstream(status) as (url, _):
        place(monkeypatch, own, ollama=url)
        assert len(find()) == found


def test_a_port_that_is_closed_or_silent_is_none(monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits) -> None:
    change_limits(local_server=0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody answers
        hangs = f"http://127.0.0.1:{silent.getsockname()[1]}"
        place(monkeypatch, hangs=hangs, closed=f"http://127.0.0.1:{free_port()}")
        assert find() == []
