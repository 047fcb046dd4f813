"""Instructions and allocations of the compiled code, counted by `valgrind --tool=callgrind`.

Time on a shared machine varies by tens of per cent, counts do not. `baseline.json` holds those of the kernels,
`path_baseline.json` those of whole requests; both are compared within 3 %:

* instructions in our kernels an event: the difference between n and 2n events, by n. What the interpreter and libc do
  for them is left out: it belongs to other versions than ours.
* calls of malloc, realloc and calloc by our kernels an event, on any machine: they depend on no compiler.
* the growth from n to 2n events: more than 2.1 times is more than linear. JSON answers that are followed as they stream
  are pure Python: of them only the growth is judged, in all instructions of the process.
* instructions of a server's process a request, and for an event that comes alone (`path.py`): kernels, modules that
  mypyc compiled, interpreter and loop; all but libc. Between the events of an answer no part of its request is counted.

Instructions are compared where the baseline has an entry for the same architecture, compiler, Cython, Python and its
flags; of whole requests, for the same libraries as well. Elsewhere `check` says so and compares the rest, and fails
where `GAI_FAST_REQUIRE_ALL` is set.

    python -m benchmarks.instructions check      # tables; exit code 1 if a figure differs by more than 3 %
    python -m benchmarks.instructions accept     # writes the present counts into the baselines; after make install
    python -m benchmarks.instructions sealed     # durable events, sealed and plain; exit code 1 beyond `MOST`
    python -m benchmarks.instructions durable    # of dialects' routes, beside the native one; exit code 1 beyond 2 %
    python -m benchmarks.instructions state      # kept responses, chains, sockets; exit code 1 beyond their bounds
                                                 # `state chains` counts these alone, as do `kept` and `sockets`
    python -m benchmarks.instructions sessions   # a session's target and key; exit code 1 beyond 2 %
    python -m benchmarks.instructions runs       # streams beside tools, texts of runs, the way to the next turn; exit
                                                 # code 1 beyond their bounds; `runs without`, `texts`, `turns`
    python -m benchmarks.instructions guards     # what guards add; exit code 1 beyond their bounds
"""
