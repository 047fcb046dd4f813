"""Instructions and allocations per event of the native kernels, counted by `valgrind --tool=callgrind`.

Time on a shared machine varies by tens of per cent, counts do not: the same build gives the same ones to the digit.
What is compared with `baseline.json` (±3 %):

* instructions executed in our own extension modules, per event: the difference between n and 2n events, by n. What the
  interpreter and libc do for them is left out: it belongs to other versions than ours.
* calls of malloc, realloc and calloc by our modules, per event, on any machine: they depend on no compiler.
* the growth from n to 2n events: more than 2.1 times is more than linear. JSON answers that are followed as they stream
  are pure Python: of them only the growth is judged, in all instructions of the process.

Instructions are compared where the baseline has an entry for the same architecture, compiler, Cython, Python and its
flags; on any other, `check` says so and compares the rest.

    python -m benchmarks.instructions check      # a table; 1 where something is worse or better by more than 3 %
    python -m benchmarks.instructions accept     # writes what is measured now into baseline.json
"""
