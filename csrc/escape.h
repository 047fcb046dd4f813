/* Characters → the inside of a JSON string in UTF-8.
 *
 * The escapes are \" \\ \b \t \n \f \r, and \u00xx in lower case for other C0 controls; nothing else is escaped.
 * Adjacent surrogate halves are joined, a lone half becomes U+FFFD (gai_fast/kernels/_pure/jsontext.py, `well_formed`).
 *
 * There is one function for each width of CPython's strings. It writes characters while at least GAI_ESCAPE_ROOM bytes
 * are left before `end`, moves *at and returns the number of characters. The caller then makes room and calls again. No
 * byte beyond `end` is written.
 */
#ifndef GAI_ESCAPE_H
#define GAI_ESCAPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "simd.h"
#include "utf8.h"

#define GAI_ESCAPE_ROOM 8 /* the longest step is an escape: six bytes */

/* 0: no escape; 'u': \u00xx; otherwise the letter after the backslash. */
static const uint8_t GAI_ESCAPES[256] = {
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

/* Writes up to sixteen bytes without a loop, because most pieces of a model's text are short. Returns 0 if a byte needs
 * an escape or there are more than sixteen bytes; then the written bytes are void. Writes only `length` bytes. */
static inline int gai_put_short(uint8_t *out, const uint8_t *text, size_t length) {
    if (length >= 8 && length <= 16) {
        uint64_t head = gai_load8(text), tail = gai_load8(text + length - 8);
        memcpy(out, &head, 8);
        memcpy(out + length - 8, &tail, 8);
        return !(gai_escape_mask(head) | gai_escape_mask(tail));
    }
    if (length >= 4 && length < 8) {
        uint32_t head, tail;
        memcpy(&head, text, 4);
        memcpy(&tail, text + length - 4, 4);
        memcpy(out, &head, 4);
        memcpy(out + length - 4, &tail, 4);
        return !gai_escape_mask((uint64_t)tail << 32 | head);
    }
    if (length > 3) {
        return 0;
    }
    for (size_t i = 0; i < length; i++) {
        if (GAI_ESCAPES[text[i]]) {
            return 0;
        }
        out[i] = text[i];
    }
    return 1;
}

/* For ASCII, or UTF-8 that is known to be valid. */
static inline size_t gai_escape_utf8(uint8_t **at, const uint8_t *end, const uint8_t *text, size_t length) {
    uint8_t *out = *at;
    size_t i = 0;
    while (i < length && end - out >= GAI_ESCAPE_ROOM) {
        i += gai_loops->escape(&out, end, text + i, length - i);
        size_t left = length - i;
        if ((size_t)(end - out) >= left && gai_put_short(out, text + i, left)) {
            out += left;
            i = length;
            break;
        }
        /* A piece with an escape. */
        for (int n = 0; n < 16 && i < length && end - out >= GAI_ESCAPE_ROOM; n++) {
            uint32_t c = text[i++];
            out = gai_put_ascii(out, c);
            if (GAI_ESCAPES[c]) {
                break; /* the next characters are plain again */
            }
        }
    }
    *at = out;
    return i;
}

/* For the other widths, one character at a time. Before each group of characters a vector loop handles what it can. */
#define GAI_ESCAPE_WIDE(NAME, TYPE, VECTORS)                                                                   \
    static inline size_t NAME(uint8_t **at, const uint8_t *end, const TYPE *text, size_t length) {             \
        uint8_t *out = *at;                                                                                    \
        size_t i = 0;                                                                                          \
        while (i < length && end - out >= GAI_ESCAPE_ROOM) {                                                   \
            i += gai_loops->VECTORS(&out, end, text + i, length - i);                                          \
            for (int n = 0; n < 16 && i < length && end - out >= GAI_ESCAPE_ROOM; n++) {                       \
                uint32_t c = text[i++];                                                                        \
                if (c < 0x80) {                                                                                \
                    out = gai_put_ascii(out, c);                                                               \
                    if (GAI_ESCAPES[c]) {                                                                      \
                        break;                                                                                 \
                    }                                                                                          \
                    continue;                                                                                  \
                }                                                                                              \
                if (gai_is_surrogate(c)) {                                                                     \
                    if (gai_is_high_surrogate(c) && i < length && gai_is_low_surrogate(text[i])) {             \
                        c = 0x10000u + ((c & 0x3FFu) << 10) + ((uint32_t)text[i++] & 0x3FFu);                  \
                    } else {                                                                                   \
                        c = GAI_REPLACEMENT;                                                                   \
                    }                                                                                          \
                    n = 16; /* the next characters may be plain */                                             \
                }                                                                                              \
                out = gai_put_utf8(out, c);                                                                    \
            }                                                                                                  \
        }                                                                                                      \
        *at = out;                                                                                             \
        return i;                                                                                              \
    }

GAI_ESCAPE_WIDE(gai_escape_ucs1, uint8_t, encode_ucs1)
GAI_ESCAPE_WIDE(gai_escape_ucs2, uint16_t, encode_ucs2)
GAI_ESCAPE_WIDE(gai_escape_ucs4, uint32_t, encode_ucs4)

#endif
