"""The recorded answers of real providers and their judge.

They stay outside the repository: `GAI_FAST_CORPUS` names their folder. Where it is missing the tests that need it are
skipped, or fail where everything is required.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gai_fast.providers import get_provider, provider_names
from tests.kernels import is_set

ROOT = Path(__file__).parents[2]
CORPUS = Path(os.environ.get("GAI_FAST_CORPUS") or ROOT / "../shared/streams").resolve()

SECONDS = 7200 if is_set("GAI_FAST_EXHAUSTIVE") else 1500
"""Seconds that a test of all recordings may take."""

RECORDED = [
    name for name in provider_names() if not get_provider(name).recording and not get_provider(name).calls_function
]
"""The names of APIs whose answers may have been recorded."""

# The APIs that are built; the others come with their providers.
APIS = (
    "openai.chat",
    "openai.responses",
    "openai.completions",
    "anthropic.messages",
    "gemini.streamGenerateContent",
    "cohere.v2.chat",
    "ollama.chat",
    "ollama.generate",
)


def judge() -> Path:
    """Returns the judge's path; without the corpus the test is skipped."""
    path = CORPUS / "score.py"
    if not path.is_file():
        pytest.skip(f"no recordings: {path} is missing (GAI_FAST_CORPUS names their folder)")
    return path


@cache
def judge_module() -> ModuleType:
    """Returns the judge, to be asked in this process."""
    spec = importlib.util.spec_from_file_location("recordings_judge", judge())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@cache
def recordings() -> tuple[Any, ...]:
    """Returns all recordings in scope, as the judge reads them: `name provider api status headers body`."""
    return tuple(judge_module().recordings(CORPUS, CORPUS / "expected.json", set(), None))


def name_of(recording: Any) -> str:
    """Returns the provider's name for `decode`: `name` or `name:api`."""
    name: str = judge_module().name_of(recording.provider, recording.api)
    return name


def recordings_of(provider: str) -> list[Any]:
    """Returns the recordings in all APIs of one of our providers; a loop over none would prove nothing."""
    found = [recording for recording in recordings() if name_of(recording).partition(":")[0] == provider]
    assert found, f"no recording of {provider} is in {CORPUS}"
    return found
