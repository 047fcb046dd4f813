/* Searches in bytes that have come from outside. */
#ifndef GAI_SCAN_H
#define GAI_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Where the first CR or LF is; `length` where there is none. */
static inline size_t gai_find_line_end(const uint8_t *data, size_t length) {
    size_t i = 0;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t ones = 0x0101010101010101u;
    for (; length - i >= 8; i += 8) {
        uint64_t x, lf, cr, mask;
        memcpy(&x, data + i, 8);
        lf = x ^ '\n' * ones;
        cr = x ^ '\r' * ones;
        mask = (((lf - ones) & ~lf) | ((cr - ones) & ~cr)) & 0x80 * ones;
        if (mask) {
            return i + (size_t)__builtin_ctzll(mask) / 8;
        }
    }
#endif
    for (; i < length; i++) {
        if (data[i] == '\n' || data[i] == '\r') {
            break;
        }
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
