/* Characters → the inside of a JSON string in UTF-8.
 *
 * The escapes are those of CONTRACT §5: \" \\ \b \t \n \f \r, other C0 controls as \u00xx in lower case, nothing else.
 * Surrogate halves that meet are joined, a lone one becomes U+FFFD (gai_fast/_pure/jsontext.py, `well_formed`).
 *
 * One function per width of CPython's strings. Each takes characters while at least GAI_ESCAPE_ROOM bytes are left
 * before `end`, moves *at behind what it wrote and returns how many characters it took: the caller makes room and calls
 * again. They write no byte behind the one they end at that they have not reserved in this sense.
 */
#ifndef GAI_ESCAPE_H
#define GAI_ESCAPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "utf8.h"

#define GAI_ESCAPE_ROOM 8 /* the longest step: eight plain characters at once */

/* 0: as it is; 'u': \u00xx; else the letter behind the backslash. */
static const uint8_t GAI_ESCAPES[128] = {
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u', 'u',
    'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
    ['"'] = '"', ['\\'] = '\\',
};

static inline uint8_t *gai_put_ascii(uint8_t *at, uint32_t c) {
    uint8_t letter = GAI_ESCAPES[c];
    if (!letter) {
        *at++ = (uint8_t)c;
        return at;
    }
    *at++ = '\\';
    *at++ = letter;
    if (letter == 'u') {
        *at++ = '0';
        *at++ = '0';
        *at++ = (uint8_t)('0' + (c >> 4));
        *at++ = (uint8_t)"0123456789abcdef"[c & 15];
    }
    return at;
}

#define GAI_ONES 0x0101010101010101u

/* Which of eight ASCII bytes need an escape: bit 7 of each; only the lowest set bit is exact, and zero is exact. */
static inline uint64_t gai_escape_mask(uint64_t x) {
    uint64_t control = x - 0x20 * GAI_ONES;
    uint64_t quote = (x ^ '"' * GAI_ONES) - GAI_ONES;
    uint64_t backslash = (x ^ '\\' * GAI_ONES) - GAI_ONES;
    return (control | quote | backslash) & ~x & 0x80 * GAI_ONES;
}

static inline size_t gai_escape_ascii(uint8_t **at, const uint8_t *end, const uint8_t *text, size_t length) {
    uint8_t *out = *at;
    size_t i = 0;
    while (i < length && end - out >= GAI_ESCAPE_ROOM) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        if (length - i >= 8) {
            uint64_t x;
            memcpy(&x, text + i, 8);
            uint64_t mask = gai_escape_mask(x);
            memcpy(out, &x, 8);
            if (!mask) {
                out += 8;
                i += 8;
                continue;
            }
            /* What stands behind the first escape is written again: each character left takes a byte or more. */
            size_t plain = (size_t)__builtin_ctzll(mask) / 8;
            out += plain;
            i += plain;
            if (end - out < GAI_ESCAPE_ROOM) {
                break;
            }
        }
#endif
        out = gai_put_ascii(out, text[i++]);
    }
    *at = out;
    return i;
}

/* Latin-1: no surrogates. */
static inline size_t gai_escape_ucs1(uint8_t **at, const uint8_t *end, const uint8_t *text, size_t length) {
    uint8_t *out = *at;
    size_t i = 0;
    for (; i < length && end - out >= GAI_ESCAPE_ROOM; i++) {
        uint32_t c = text[i];
        out = c < 0x80 ? gai_put_ascii(out, c) : gai_put_utf8(out, c);
    }
    *at = out;
    return i;
}

#define GAI_ESCAPE_WIDE(NAME, TYPE)                                                                            \
    static inline size_t NAME(uint8_t **at, const uint8_t *end, const TYPE *text, size_t length) {             \
        uint8_t *out = *at;                                                                                    \
        size_t i = 0;                                                                                          \
        while (i < length && end - out >= GAI_ESCAPE_ROOM) {                                                   \
            uint32_t c = text[i++];                                                                            \
            if (c < 0x80) {                                                                                    \
                out = gai_put_ascii(out, c);                                                                   \
                continue;                                                                                      \
            }                                                                                                  \
            if (gai_is_surrogate(c)) {                                                                         \
                if (gai_is_high_surrogate(c) && i < length && gai_is_low_surrogate(text[i])) {                 \
                    c = 0x10000u + ((c & 0x3FFu) << 10) + ((uint32_t)text[i++] & 0x3FFu);                      \
                } else {                                                                                       \
                    c = GAI_REPLACEMENT;                                                                       \
                }                                                                                              \
            }                                                                                                  \
            out = gai_put_utf8(out, c);                                                                        \
        }                                                                                                      \
        *at = out;                                                                                             \
        return i;                                                                                              \
    }

GAI_ESCAPE_WIDE(gai_escape_ucs2, uint16_t)
GAI_ESCAPE_WIDE(gai_escape_ucs4, uint32_t)

#endif
