"""The files of `deploy/`: programs check those that they can, and all agree with each other and with the server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gai_fast.cli import main
from gai_fast.model.settings import ServerSettings, UpstreamSettings
from gai_fast.server.observe.metrics import GAUGES
from gai_fast.server.routes.table import ROUTES

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = sorted(DEPLOY.glob("kubernetes/*.yaml"))
CONFIGURATION = tomllib.loads((DEPLOY / "gai-fast.toml").read_text())
GRACE = CONFIGURATION["server"]["grace"]
PORT = CONFIGURATION["server"]["port"]
PATHS = {route.path for route in ROUTES}


def program(name: str) -> str:
    """Returns the program; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (ci/system-deps.sh does it)")
    return found


def run(*command: str) -> str:
    """Returns the output of a command that must succeed."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def kubernetes(kind: str) -> dict[str, Any]:
    """Returns the manifest of a kind."""
    [found] = [result for path in KUBERNETES if (result := yaml.safe_load(path.read_text()))["kind"] == kind]
    return dict(found)


def unit(name: str) -> dict[str, list[str]]:
    """Returns the values of each key of a unit of systemd."""
    values: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values.setdefault(key, []).append(value)
    return values


class TestConfiguration:
    def test_it_is_valid_and_needs_nothing_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GAI_FAST_CONFIG", raising=False)
        result = CliRunner().invoke(main, ["check", "-c", str(DEPLOY / "gai-fast.toml")])
        assert result.exit_code == 0, result.output

    def test_that_of_kubernetes_is_the_same_one(self) -> None:
        mapped = tomllib.loads(kubernetes("ConfigMap")["data"]["gai-fast.toml"])
        assert mapped == CONFIGURATION

    def test_other_machines_reach_it_only_with_a_key(self) -> None:
        assert CONFIGURATION["server"]["host"] == "0.0.0.0"
        assert "insecure" not in CONFIGURATION["server"]
        assert [key["name"] for key in CONFIGURATION["key"]] == ["nobody"]

    def test_a_drain_takes_as_long_as_a_model_may_think(self) -> None:
        assert UpstreamSettings("u", "p", "b").peer.idle_timeout == GRACE
        assert ServerSettings().grace == 30


class TestSystemd:
    def test_the_units_are_right(self) -> None:
        said = run(
            program("systemd-analyze"), "verify", *(str(DEPLOY / f"gai-fast.{end}") for end in ("service", "socket"))
        )
        assert said == ""

    def test_the_service_is_exposed_to_little(self) -> None:
        said = run(program("systemd-analyze"), "security", "--offline=true", str(DEPLOY / "gai-fast.service"))
        [level] = re.findall(r"exposure level for gai-fast\.service: ([0-9.]+)", said)
        assert float(level) <= 2.0

    def test_it_takes_the_socket_and_has_time_to_drain(self) -> None:
        service, socket = unit("gai-fast.service"), unit("gai-fast.socket")
        assert socket["ListenStream"] == [str(PORT)]
        assert service["Requires"] == ["gai-fast.socket"]
        [start] = service["ExecStart"]
        assert start.startswith("/usr/bin/env gai-fast serve ")
        assert start.endswith(" --fd 3")
        assert int(service["TimeoutStopSec"][0]) >= GRACE + 10
        assert service["KillMode"] == ["mixed"]  # a supervisor tells its workers itself


class TestImage:
    TEXT = (DEPLOY / "Dockerfile").read_text()

    def test_the_last_stage_has_no_compiler_and_no_root(self) -> None:
        build, last = re.split(r"^FROM (?!.* AS )", self.TEXT, flags=re.M)
        assert "gcc" in build
        assert "apt-get" not in last
        assert "USER 10001:10001" in last
        assert f"EXPOSE {PORT}" in last

    def test_it_has_what_a_server_with_secrets_and_several_machines_needs_unless_it_is_told(self) -> None:
        [default] = re.findall(r"^ARG EXTRAS=(.+)$", self.TEXT, re.M)
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert set(default.split(",")) == {"redis", "compression", "jwt", "seal"} <= {*extras}
        assert 'pip install --no-cache-dir ".[$EXTRAS]"' in self.TEXT
        assert self.TEXT.index("ARG EXTRAS") > self.TEXT.index("FROM "), "an argument before the stage is not in it"

    def test_what_it_copies_is_there_and_is_not_ignored(self) -> None:
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        names = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", self.TEXT, re.M) for name in line.split()]
        assert {"gai_fast", "csrc", "deploy/gai-fast.toml"} <= set(names)
        for name in names:
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored

    def test_the_health_check_asks_a_route_on_the_port(self) -> None:
        [check] = re.findall(r"HEALTHCHECK .*\\\n +CMD (\[.*\])", self.TEXT)
        program, flag, code = json.loads(check)
        assert (program, flag) == ("python", "-c")
        compile(code, "HEALTHCHECK", "exec")
        [(port, path)] = re.findall(r"'http://127\.0\.0\.1:(\d+)(/\w+)'", code)
        assert (int(port), path in PATHS) == (PORT, True)

    def test_its_command_is_one_of_the_command_line(self) -> None:
        [command] = re.findall(r"^CMD (\[.*\])", self.TEXT, re.M)
        assert json.loads(command) == ["serve", "-c", "/etc/gai-fast/gai-fast.toml"]


class TestCompose:
    SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]

    def test_the_files_that_it_mounts_are_there(self) -> None:
        mounted = [each for service in self.SERVICES.values() for each in service.get("volumes", ())]
        files = [each.partition(":")[0] for each in mounted if each.startswith(".")]
        assert len(files) >= 4
        for file in files:
            assert (DEPLOY / file).exists()
        assert (ROOT / self.SERVICES["gateway"]["build"]["dockerfile"]).exists()

    def test_the_gateway_is_read_only_and_has_time_to_drain(self) -> None:
        gateway = self.SERVICES["gateway"]
        assert gateway["read_only"] is True
        assert gateway["tmpfs"] == ["/tmp"]
        assert gateway["cap_drop"] == ["ALL"]
        assert int(gateway["stop_grace_period"].removesuffix("s")) >= GRACE + 10
        assert f"127.0.0.1:{PORT}:{PORT}" in gateway["ports"]

    def test_its_store_is_redis(self) -> None:
        assert self.SERVICES["gateway"]["environment"] == {"GAI_FAST_STORE__URL": "redis://redis:6379/0"}
        assert "redis" in self.SERVICES

    def test_prometheus_scrapes_the_gateway_and_grafana_asks_prometheus(self) -> None:
        scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
        assert [each["targets"] for job in scraped for each in job["static_configs"]] == [[f"localhost:{PORT}"]]
        assert self.SERVICES["prometheus"]["network_mode"] == "service:gateway"
        [source] = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
            "datasources"
        ]
        assert source["url"] == "http://gateway:9090"

    def test_the_scrape_sends_a_key_that_is_not_in_the_repository(self) -> None:
        [job] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
        file = job["authorization"]["credentials_file"]
        assert f"deploy/prometheus/{file}" in (ROOT / ".gitignore").read_text().splitlines()

    def test_the_dashboard_names_the_source_that_grafana_has(self) -> None:
        [source] = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())[
            "datasources"
        ]
        command = self.SERVICES["grafana"]["entrypoint"][-1].replace("$$", "$")
        [(old, new)] = re.findall(r"sed 's/(.+?)/(.+?)/g'", command)
        dashboard = (DEPLOY / "grafana/gai-fast.json").read_text()
        assert dashboard.count(old) > 10
        assert new == source["uid"]
        [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/gai-fast.yaml").read_text())["providers"]
        assert provider["options"]["path"] in command


class TestKubernetes:
    CONTAINER: dict[str, Any] = kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0]

    def test_every_manifest_is_applied(self) -> None:
        applied = kubernetes("Kustomization")["resources"]
        assert sorted(applied) == sorted(path.name for path in KUBERNETES if path.name != "kustomization.yaml")

    def test_all_select_the_same_pods(self) -> None:
        pods = kubernetes("Deployment")["spec"]["template"]["metadata"]["labels"]
        assert kubernetes("Deployment")["spec"]["selector"]["matchLabels"] == pods
        assert kubernetes("Service")["spec"]["selector"] == pods
        assert kubernetes("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == pods

    def test_probes_ask_routes_on_the_port(self) -> None:
        [port] = self.CONTAINER["ports"]
        assert port == {"name": "http", "containerPort": PORT}
        asked = {name: self.CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert {each["port"] for each in asked.values()} == {"http"}
        assert {name: each["path"] for name, each in asked.items()} == {
            "startup": "/healthz",
            "liveness": "/healthz",
            "readiness": "/readyz",
        }
        assert {each["path"] for each in asked.values()} <= PATHS

    def test_a_pod_has_time_to_drain(self) -> None:
        command, seconds = self.CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        pod = kubernetes("Deployment")["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > int(seconds) + GRACE

    def test_no_variable_that_is_made_of_the_services_name_configures_the_gateway(self) -> None:
        """For a Service `gai-fast` a pod gets `GAI_FAST_PORT=tcp://…`, with which the server would not start."""
        assert kubernetes("Service")["metadata"]["name"] == "gai-fast"
        assert kubernetes("Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False

    def test_a_pod_is_not_root_and_writes_only_to_tmp(self) -> None:
        pod = kubernetes("Deployment")["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert self.CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
        writable = [mount["mountPath"] for mount in self.CONTAINER["volumeMounts"] if not mount.get("readOnly")]
        assert writable == ["/tmp"]

    def test_pods_are_spread_over_machines_and_zones_and_start_all_the_same(self) -> None:
        pods = kubernetes("Deployment")["spec"]["template"]
        spread = pods["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for each in spread:
            assert each["labelSelector"]["matchLabels"] == pods["metadata"]["labels"]
            assert (each["maxSkew"], each["whenUnsatisfiable"]) == (1, "ScheduleAnyway")

    def test_the_operators_prometheus_scrapes_the_service_with_a_key(self) -> None:
        monitor = yaml.safe_load((DEPLOY / "kubernetes/operator/servicemonitor.yaml").read_text())
        service = kubernetes("Service")
        assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "ServiceMonitor")
        assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
        [endpoint] = monitor["spec"]["endpoints"]
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        assert endpoint["path"] in PATHS
        assert {*endpoint["authorization"]["credentials"]} == {"name", "key"}
        job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        assert f'job="{job}"' in (DEPLOY / "prometheus/rules.yml").read_text()

    def test_it_scales_on_a_metric_of_the_server(self) -> None:
        [metric] = kubernetes("HorizontalPodAutoscaler")["spec"]["metrics"]
        name = metric["pods"]["metric"]["name"]
        assert name == "gai_fast_active_streams"
        assert name.removeprefix("gai_fast_") in GAUGES
        assert kubernetes("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "gai-fast"
