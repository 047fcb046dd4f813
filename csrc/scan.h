/* Searches in bytes from the network. */
#ifndef GAI_SCAN_H
#define GAI_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "simd.h"

/* Returns the offset of the first CR or LF; `length` if there is none. */
static inline size_t gai_find_line_end(const uint8_t *data, size_t length) {
    size_t i = gai_loops->skip_line(data, length);
    while (i < length && data[i] != '\n' && data[i] != '\r') {
        i++;
    }
    return i;
}

/* Returns whether there are `run` digits in a row. Reads every run-th byte, and the bytes around digits. */
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

/* Facts about the bytes outside of the strings of a JSON text. They are correct only for valid texts. */
typedef struct {
    size_t depth;    /* levels of brackets */
    int long_digits; /* whether there are `run` digits in a row */
    int blanks;
} gai_outline;

static inline gai_outline gai_outline_json(const uint8_t *data, size_t length, size_t run) {
    gai_outline seen = {0, 0, 0};
    size_t depth = 0, digits = 0;
    for (size_t i = 0; i < length; i++) {
        uint8_t c = data[i];
        if ((uint8_t)(c - '0') < 10) {
            seen.long_digits |= ++digits == run;
            continue;
        }
        digits = 0;
        if (c == '"') {
            for (i++; i < length && data[i] != '"'; i++) {
                while (length - i > 8 && !gai_escape_mask(gai_load8(data + i))) {
                    i += 8;
                }
                if (data[i] == '"') {
                    break;
                }
                i += data[i] == '\\';
            }
        } else if ((c | 0x20) == '{') {
            depth++;
            seen.depth = depth > seen.depth ? depth : seen.depth;
        } else if ((c | 0x20) == '}') {
            depth -= depth > 0;
        } else if (c <= ' ') {
            seen.blanks = 1;
        }
    }
    return seen;
}

/* Returns the number of opening brackets, including those in strings: an upper bound of the text's levels. */
static inline size_t gai_count_opening(const uint8_t *data, size_t length) {
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        count += (data[i] | 0x20) == '{';
    }
    return count;
}

#endif
