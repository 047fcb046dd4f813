"""The release: what `.github/workflows/release.yml` builds, and that what it names is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github/workflows/release.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEELS = PROJECT["tool"]["cibuildwheel"]
# The kinds of machines, by the names that their hosts give them.
MACHINES = {
    "linux-x86_64": "ubuntu-24.04",
    "linux-aarch64": "ubuntu-24.04-arm",
    "macos-x86_64": "macos-15-intel",
    "macos-arm64": "macos-15",
}
SYSTEMS = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64", "musllinux_1_2_x86_64", "musllinux_1_2_aarch64")
SYSTEMS += ("macosx_10_13_x86_64", "macosx_11_0_arm64")


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    result: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    return result


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def commands() -> list[str]:
    """Returns the commands of the workflow and of cibuildwheel."""
    result = [step["run"] for step in steps(yaml.safe_load(WORKFLOW.read_text())) if "run" in step]
    return [*result, WHEELS["test-command"].replace("{project}/", "")]


def test_it_runs_when_a_version_is_tagged(workflow: dict[Any, Any]) -> None:
    # YAML 1.1 reads the key `on` as true.
    assert workflow[True] == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}
    assert workflow["permissions"] == {"contents": "read"}
    used = {step["uses"].partition("@")[0] for step in steps(workflow) if "uses" in step}
    assert used <= {
        "actions/checkout",
        "actions/setup-python",
        "actions/upload-artifact",
        "actions/download-artifact",
        "pypa/cibuildwheel",
        "actions/attest-build-provenance",
        "pypa/gh-action-pypi-publish",
    }


def test_only_a_tagged_version_that_was_checked_is_signed_and_published(workflow: dict[Any, Any]) -> None:
    assert not re.search(r"twine upload|publish\b", "\n".join(commands()))
    assert "secrets." not in WORKFLOW.read_text()  # the registry trusts the workflow itself
    job = workflow["jobs"]["publish"]
    assert job["needs"] == "check"
    assert job["if"] == "github.event_name == 'push'"
    assert job["environment"] == "pypi"
    assert job["permissions"] == {"id-token": "write", "attestations": "write", "contents": "read"}
    assert [step["uses"].partition("@")[0] for step in job["steps"]] == [
        "actions/download-artifact",
        "actions/attest-build-provenance",
        "pypa/gh-action-pypi-publish",
    ]
    assert [name for name, job in workflow["jobs"].items() if "permissions" in job] == ["publish"]


def test_wheels_are_built_on_a_machine_of_each_kind(workflow: dict[Any, Any]) -> None:
    job = workflow["jobs"]["wheels"]
    assert {each["kind"]: each["machine"] for each in job["strategy"]["matrix"]["include"]} == MACHINES
    assert job["runs-on"] == "${{ matrix.machine }}"
    # Each machine builds for itself alone, and tests what it has built.
    assert WHEELS["archs"] == ["auto64"]
    assert "skip" not in WHEELS
    images = {name: image for name, image in WHEELS.items() if name.endswith("-image")}
    assert images == {
        f"{libc}-{machine}-image": f"{libc}_{version}"
        for libc, version in (("manylinux", "2_28"), ("musllinux", "1_2"))
        for machine in ("x86_64", "aarch64")
    }
    assert WHEELS["environment"] == {"GAI_FAST_BUILD": "native"}


def test_there_is_a_wheel_for_each_python_that_the_package_names() -> None:
    named = [name.rpartition(" :: ")[2] for name in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert WHEELS["build"].split() == [f"cp{name.replace('.', '')}-*" for name in named]
    assert re.findall(r"cp3\d+", (ROOT / "ci/release-files.sh").read_text()) == [
        f"cp{n.replace('.', '')}" for n in named
    ]


def test_each_wheel_is_tested_with_what_its_tests_need() -> None:
    assert "gai-fast version" in WHEELS["test-command"]
    assert "ci/kernels.sh" in WHEELS["test-command"]
    # The same releases as of the extra `test`, whose other packages the kernels' tests do not need.
    assert set(WHEELS["test-requires"]) <= set(PROJECT["project"]["optional-dependencies"]["test"])


@pytest.mark.parametrize("command", commands())
def test_every_script_and_target_is_there(command: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    for line in re.split(r"&&|\n", command):
        words = [word for word in shlex.split(line) if not re.match(r"[A-Z]+=", word)]
        if words[0] == "make":
            assert set(words[1:]) <= targets
        elif words[0].startswith("ci/"):
            assert (ROOT / words[0]).stat().st_mode & 0o111, f"{words[0]} cannot be run"
        else:
            assert words[0] in ("python", "gai-fast")


def test_a_wheel_that_is_missing_is_named(tmp_path: Path) -> None:
    names = [f"gai_fast-1.0-cp3{n}-cp3{n}-{system}.whl" for n in (11, 12, 13, 14) for system in SYSTEMS]
    for name in (*names, "gai_fast-1.0.tar.gz"):
        (tmp_path / name).touch()

    def check() -> subprocess.CompletedProcess[str]:
        command = [ROOT / "ci/release-files.sh", tmp_path]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert check().returncode == 0
    for name in (names[0], names[-1], "gai_fast-1.0.tar.gz"):
        (tmp_path / name).unlink()
    result = check()
    assert result.returncode == 1
    assert [line.split()[2] for line in result.stderr.splitlines()] == [
        "gai_fast-*.tar.gz",
        "gai_fast-*-cp311-cp311-*manylinux*_x86_64.whl",
        "gai_fast-*-cp314-cp314-macosx_*_arm64.whl",
    ]
