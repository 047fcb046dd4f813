"""Nanoseconds and allocations per event, inside one process, on both implementations: `pytest benchmarks/micro`.

Each case checks what it made before it is timed. The process is pinned to one core and collects no garbage meanwhile;
the figure is the fastest of many rounds, since a shared machine only ever adds. Where recera/gai (Go) has published a
figure for the same work it stands beside ours.
"""
