"""A real Prometheus scrapes a gateway with two workers: the rules, the dashboard, the sums of all workers."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientError, ClientSession

from gai_fast.cli.mock.command import Mock
from gai_fast.model.settings import LimitSettings
from gai_fast.server.admission.server_limits import ServerLimits
from tests.integration.gateway import QUERY, Net
from tests.integration.processes import Server, configure, serving
from tests.ports import free_port
from tests.waiting import SECONDS, until_answered

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "gai-fast.json").read_text())
ROOT = "sk-root-0123456789"
PRICE = "price = {input = 1, output = 2}\n"
COMPARISON = re.compile(r" (<|>) [\d.]+$")
"""The end of an expression that has a value only if something is wrong."""


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None or shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (ci/system-deps.sh does it)")
    return found


@pytest.mark.parametrize(
    ("kind", "file"),
    [("check rules", "rules.yml"), ("check config", "prometheus.yml"), ("test rules", "rules.test.yml")],
)
def test_promtool_finds_no_fault(promtool: str, kind: str, file: str, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "prometheus", tmp_path, dirs_exist_ok=True)
    (tmp_path / "scrape.key").write_text(ROOT)
    done = subprocess.run(
        [promtool, *kind.split(), file],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_alert_is_tested_and_says_what_is_wrong() -> None:
    tested = (DEPLOY / "prometheus" / "rules.test.yml").read_text()
    for rule in rules():
        if "alert" in rule:
            assert rule["alert"] in tested
            assert COMPARISON.search(rule["expr"]), "its expression has a value only where something is wrong"
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert {*rule["annotations"]} == {"summary", "description"}


def test_the_alert_of_an_overload_names_every_limit_of_the_server() -> None:
    """`streams_per_caller` and `reads` are a caller's own; what a key may is not the server's."""
    [rule] = [rule for rule in rules() if rule.get("alert") == "GaiFastOverloaded"]
    [named] = re.findall(r'limit=~"([^"]+)"', rule["expr"])
    assert {*named.split("|")} == {*ServerLimits(LimitSettings()).refused} - {"streams_per_caller", "reads"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def test_the_dashboard_has_the_form_that_grafana_imports() -> None:
    assert DASHBOARD["id"] is None
    assert (DASHBOARD["uid"], DASHBOARD["schemaVersion"]) == ("gai-fast", 38)
    assert [given["name"] for given in DASHBOARD["__inputs"]] == ["DS_PROMETHEUS"]
    types = {each["id"] for each in DASHBOARD["__requires"] if each["type"] == "panel"}
    assert types == {panel["type"] for panel in panels()}
    source = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
    for panel in panels():
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"])
        for target in panel["targets"]:
            assert "rate(" not in target["expr"] or "[$__rate_interval]" in target["expr"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used == {*variables, "__rate_interval"}
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    for height, width, x, y in places:
        overlaps = [
            other
            for other in places
            if x < other[2] + other[1] and other[2] < x + width and y < other[3] + other[0] and other[3] < y + height
        ]
        assert len(overlaps) == 1, "nothing but itself"


def filled(expression: str) -> str:
    """Returns a query of the dashboard, as Grafana sends it if all is chosen."""
    return re.sub(r"\$(job|instance|provider|model)", ".*", expression.replace("$__rate_interval", "30s"))


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self.url = url
        self.session = session

    async def values(self, query: str) -> list[float]:
        """Returns the numbers that a query gives now."""
        async with self.session.get(f"{self.url}/api/v1/query", params={"query": query}) as response:
            answer = await response.json()
        assert answer["status"] == "success", (query, answer)
        return [value for each in answer["data"]["result"] if not math.isnan(value := float(each["value"][1]))]

    async def labels(self, query: str) -> list[str]:
        """Returns the values of a label, for a `label_values(metric, label)` of the dashboard."""
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found is not None
        params = {"match[]": filled(found[1])}
        async with self.session.get(f"{self.url}/api/v1/label/{found[2]}/values", params=params) as response:
            values: list[str] = (await response.json())["data"]
            return values


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Runs Prometheus with the configuration of the repository, but for its intervals and its target."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    (folder / "prometheus.yml").write_text(text.replace("15s", "500ms").replace("localhost:8080", target))
    shutil.copy(RULES, folder / "rules.yml")
    (folder / "scrape.key").write_text(f"{ROOT}\n")
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        "prometheus", f"--web.listen-address={address}", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
        cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with ClientSession() as session:
            server = Prometheus(f"http://{address}", session)

            async def is_up() -> bool:
                with suppress(ClientError, AssertionError):
                    return bool(await server.values("up > 0"))
                return False

            await until_answered(is_up)
            yield server
    finally:
        process.terminate()
        await process.wait()


async def load(server: Server) -> int:
    """Asks for some streams, and for one of a model that is not there; returns how many requests that were."""
    answers = [await server.stream({**QUERY, "model": "m"}) for _ in range(4)]
    for client, response in answers:
        await response.rest()
        client.close()
    assert (await server.ask("POST", "/api/v1/stream", {**QUERY, "model": "none"})).status == 404
    return len(answers) + 1


async def test_every_query_of_the_dashboard_and_every_rule_has_data(promtool: str, net: Net, tmp_path: Path) -> None:
    async with Mock(deltas=5, rate=0) as mock:
        configure(tmp_path, mock, more=PRICE)
        async with serving(net, tmp_path, "--workers", "2") as server, prometheus(tmp_path, server.host) as prom:
            queries = [filled(target["expr"]) for panel in panels() for target in panel["targets"]]
            restarts = DASHBOARD["annotations"]["list"][1]["expr"]
            queries += [COMPARISON.sub("", each) for each in [filled(restarts), *(rule["expr"] for rule in rules())]]
            queries += [rule["record"] for rule in rules() if "record" in rule]
            requests = 0

            async def lacks_none() -> bool:
                nonlocal requests
                requests += await load(server)
                queries[:] = [query for query in queries if not await prom.values(query)]
                return not queries

            try:
                await until_answered(lacks_none)
            except TimeoutError:
                pytest.fail("no data: " + "\n".join(queries))
            for variable in DASHBOARD["templating"]["list"]:
                assert await prom.labels(variable["definition"])

            async def is_exact() -> bool:  # with the next scrape
                return await prom.values("sum(gai_fast_requests_total)") == [requests]

            await until_answered(is_exact)
            assert await prom.values("sum(gai_fast_cost_total) > 0")


async def test_with_keys_the_scrape_of_deploy_is_answered_and_one_without_a_key_is_not(
    promtool: str, net: Net, tmp_path: Path
) -> None:
    key = f'[[key]]\nname = "scraper"\nrole = "metrics"\nsecret = "sha256:{sha256(ROOT.encode()).hexdigest()}"\n'
    async with Mock(deltas=5, rate=0) as mock:
        configure(tmp_path, mock, more=key)
        async with serving(net, tmp_path) as server:
            scraper = {"x-api-key": ROOT}
            assert (await server.ask("GET", "/v1/models", headers=scraper)).status == 403
            for headers, status in (({}, 401), ({"authorization": f"Bearer {ROOT}"}, 200)):
                assert (await server.ask("GET", "/metrics", headers=headers)).status == status
            async with prometheus(tmp_path, server.host) as prom:  # waits until a scrape is answered
                assert await prom.values("gai_fast_build_info")
