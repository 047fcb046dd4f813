"""`gai_fast/core/result.py`: a result is a value of a program's, which may copy and keep it."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from gai_fast.core.result import Result, ToolCallResult
from gai_fast.model.errors import Timeout

WHOLE = Result(text="a", tool_calls=[ToolCallResult("c1", "look", {"n": 1}, '{"n":1}')], usage={"input_tokens": 1})


def test_a_result_is_copied_and_kept() -> None:
    assert copy.deepcopy(WHOLE) == pickle.loads(pickle.dumps(WHOLE)) == WHOLE  # our own bytes
    assert dataclasses.replace(WHOLE, text="b").tool_calls == WHOLE.tool_calls


def test_results_share_nothing() -> None:
    first, second = Result(), Result()
    first.message["content"].append("a")
    assert (second.message["content"], second.messages) == ([], [{"role": "assistant", "content": []}])


def test_a_failure_is_raised_on_demand() -> None:
    assert WHOLE.raise_for_error() is WHOLE
    with pytest.raises(Timeout):
        dataclasses.replace(WHOLE, error=Timeout(message="slow")).raise_for_error()
