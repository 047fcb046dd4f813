"""Imports what servers import as they start, in the process that `forked.py` forks them from.

The garbage collector leaves all of it alone. Otherwise each server imports the formats and the providers, and searches
all modules for garbage: together two thirds of the CPU time of a start.
"""

from __future__ import annotations

import gc
from importlib import import_module

from gai_fast.formats import FORMATS
from gai_fast.providers import PROVIDERS

SERVER = ("cli.serve", "runtime.tuning", "server.serving", "server.workers.supervisor", "server.workers.worker")

for name in ("uvloop", *(f"gai_fast.{name}" for name in SERVER), *FORMATS.values(), *PROVIDERS.values()):
    import_module(name)
gc.collect()
gc.freeze()
