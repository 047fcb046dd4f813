/* What the tests of csrc/ share: a check that names its place, and bytes with nothing behind them. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(CONDITION, ...)                                                                                  \
    do {                                                                                                       \
        if (!(CONDITION)) {                                                                                    \
            fprintf(stderr, "%s:%d: not so: %s: ", __FILE__, __LINE__, #CONDITION);                            \
            fprintf(stderr, __VA_ARGS__);                                                                      \
            fprintf(stderr, "\n");                                                                             \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

#define LENGTH(TABLE) (sizeof(TABLE) / sizeof *(TABLE))

/* A copy of exactly these bytes: a sanitizer sees whoever reads behind it. To be freed. */
static inline uint8_t *exactly(const void *bytes, size_t size) {
    uint8_t *copy = (uint8_t *)malloc(size ? size : 1);
    CHECK(copy != NULL, "no memory");
    memcpy(copy, bytes, size);
    return copy;
}

/* The same numbers in every run. */
static inline uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

#endif
