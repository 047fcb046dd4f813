"""Relays as whole processes: CPU per event, latency, memory per stream, events from memory.

`upstream.c` is the fake provider, `load.c` the client that checks every byte; `scenarios.py` has the
loads, `running.py` runs processes and accounts for them, `environments.py` installs contenders.
"""
