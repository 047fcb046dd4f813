"""Relays as whole processes: CPU per event, latency, memory per stream, events from memory.

`upstream.c` is the fake provider, `load.c` the client that checks every byte; `scenarios.py` says what is measured,
`running.py` how a process is run and accounted for, `environments.py` where contenders are installed.
"""
