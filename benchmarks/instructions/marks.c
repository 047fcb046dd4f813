/* Callgrind's client requests, for ctypes. Outside of valgrind they do nothing. */
#include <valgrind/callgrind.h>

void gai_count_from_here(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void gai_dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
