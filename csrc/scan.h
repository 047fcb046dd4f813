/* Searches in bytes that have come from outside. */
#ifndef GAI_SCAN_H
#define GAI_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "simd.h"

/* Where the first CR or LF is; `length` where there is none. */
static inline size_t gai_find_line_end(const uint8_t *data, size_t length) {
    size_t i = gai_loops->skip_line(data, length);
    while (i < length && data[i] != '\n' && data[i] != '\r') {
        i++;
    }
    return i;
}

/* Whether `run` digits stand in a row. Looks at every run-th byte, and around those that are digits. */
static inline int gai_has_digits(const uint8_t *data, size_t length, size_t run) {
    size_t at = run;
    while (at <= length) {
        size_t begin = at;
        while (begin > at - run && (uint8_t)(data[begin - 1] - '0') < 10) {
            begin--;
        }
        if (begin == at - run) {
            return 1;
        }
        at = begin + run;
    }
    return 0;
}

/* How many brackets a JSON text opens, those in strings included: an upper bound of its depth. */
static inline size_t gai_count_opening(const uint8_t *data, size_t length) {
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        count += (data[i] | 0x20) == '{';
    }
    return count;
}

#endif
