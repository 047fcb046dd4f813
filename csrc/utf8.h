/* Code points → UTF-8, and the tables that find invalid UTF-8. */
#ifndef GAI_UTF8_H
#define GAI_UTF8_H

#include <stdint.h>

#define GAI_REPLACEMENT 0xFFFDu

static inline int gai_is_high_surrogate(uint32_t c) { return (c & 0xFFFFFC00u) == 0xD800u; }
static inline int gai_is_low_surrogate(uint32_t c) { return (c & 0xFFFFFC00u) == 0xDC00u; }
static inline int gai_is_surrogate(uint32_t c) { return (c & 0xFFFFF800u) == 0xD800u; }

/* Writes a code point of 0x80 or more that is not a surrogate: 2 to 4 bytes. */
static inline uint8_t *gai_put_utf8(uint8_t *at, uint32_t c) {
    if (c < 0x800) {
        *at++ = (uint8_t)(0xC0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *at++ = (uint8_t)(0xE0 | c >> 12);
        } else {
            *at++ = (uint8_t)(0xF0 | c >> 18);
            *at++ = (uint8_t)(0x80 | (c >> 12 & 0x3F));
        }
        *at++ = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    }
    *at++ = (uint8_t)(0x80 | (c & 0x3F));
    return at;
}

/* The tables with which the vector loops find errors.
 *
 * Keiser and Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte" (2021), §6: the high nibble of a byte,
 * its low nibble, and the high nibble of the next byte show each error. There is a table for each of the three; an
 * error is a bit that is set in all three. The caller handles the continuations of a lead of three or four bytes. */
enum { GAI_FIRST_HIGH, GAI_FIRST_LOW, GAI_SECOND_HIGH };

static inline const uint8_t *gai_utf8_table(int nibble) {
    enum {
        TOO_SHORT = 1,    /* a lead, then no continuation */
        TOO_LONG = 2,     /* ASCII, then a continuation */
        OVERLONG_3 = 4,   /* E0 80..9F */
        TOO_LARGE = 8,    /* F4 90..BF, F5.. */
        SURROGATE = 16,   /* ED A0..BF */
        OVERLONG_2 = 32,  /* C0, C1 */
        TOO_LARGE_8 = 64, /* F5.. 80..8F; the same bit as F0 80..8F, which is overlong */
        OVERLONG_4 = 64,
        TWO = 128, /* two continuations: an error unless a lead before them needs both */
        ANY = TOO_SHORT | TOO_LONG | TWO,
        LARGE = ANY | TOO_LARGE | TOO_LARGE_8,
    };
    static const uint8_t tables[][16] = {
        [GAI_FIRST_HIGH] = {
            TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TWO, TWO, TWO, TWO,
            TOO_SHORT | OVERLONG_2, TOO_SHORT, TOO_SHORT | OVERLONG_3 | SURROGATE,
            TOO_SHORT | TOO_LARGE | TOO_LARGE_8 | OVERLONG_4,
        },
        [GAI_FIRST_LOW] = {
            ANY | OVERLONG_3 | OVERLONG_2 | OVERLONG_4, ANY | OVERLONG_2, ANY, ANY, ANY | TOO_LARGE,
            LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE | SURROGATE, LARGE, LARGE,
        },
        [GAI_SECOND_HIGH] = {
            TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT,
            TOO_LONG | OVERLONG_2 | TWO | OVERLONG_3 | TOO_LARGE_8 | OVERLONG_4,
            TOO_LONG | OVERLONG_2 | TWO | OVERLONG_3 | TOO_LARGE,
            TOO_LONG | OVERLONG_2 | TWO | SURROGATE | TOO_LARGE, TOO_LONG | OVERLONG_2 | TWO | SURROGATE | TOO_LARGE,
            TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT,
        },
    };
    return tables[nibble];
}

#endif
