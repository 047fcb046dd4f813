"""The definition of each figure of a stream."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from gai_fast.model.metrics import StreamMetrics


def test_every_figure_is_explained() -> None:
    explained = re.findall(r"^    (\w+): ", inspect.cleandoc(StreamMetrics.__doc__ or ""), re.M)
    assert explained == [each.name for each in fields(StreamMetrics)]
