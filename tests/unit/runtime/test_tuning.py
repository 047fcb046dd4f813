"""A tuned process works."""

from __future__ import annotations

import subprocess
import sys


def test_tuning_leaves_a_process_that_works() -> None:
    code = (
        "import gc, gai_fast.runtime.tuning as tuning; tuning.tune_process()\n"
        "print(gc.get_freeze_count() > 0, len(bytes(10**7)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=True)
    assert done.stdout.split() == ["True", "10000000"]
