/* The inside of a JSON string in UTF-8 → the same string with our escapes, in one pass.
 *
 * Reads up to the closing quote and writes the bytes that a JSON parser followed by our encoder would write. Plain
 * characters and our own escapes are copied; `\/` and \uXXXX become the character or our escape of it. If a parser
 * would refuse the input, or would not decode it to whole characters (raw controls, invalid UTF-8, half a surrogate
 * pair, an unknown escape), the result is GAI_COPY_MISS, and the full path decides.
 *
 * No character grows, so the output needs the room of the input, and 64 bytes more because vectors overhang.
 */
#ifndef GAI_COPY_H
#define GAI_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "escape.h"
#include "simd.h"
#include "utf8.h"

#define GAI_COPY_ROOM 64

enum {
    GAI_COPY_DONE = 0, /* *in is at the closing quote */
    GAI_COPY_MORE = 1, /* the input ended before the closing quote */
    GAI_COPY_MISS = 2,
};

/* Reads \uXXXX at `in`. Returns GAI_COPY_MORE if `in` holds only its beginning. */
static inline int gai_read_unit(const uint8_t *in, const uint8_t *end, uint32_t *value) {
    uint32_t v = 0;
    for (int i = 0; i < 6; i++) {
        if (in + i == end) {
            return GAI_COPY_MORE;
        }
        uint8_t c = in[i];
        if (i < 2) {
            if (c != "\\u"[i]) {
                return GAI_COPY_MISS;
            }
        } else if ((uint8_t)(c - '0') < 10) {
            v = v << 4 | (uint32_t)(c - '0');
        } else if ((uint8_t)((c | 0x20) - 'a') < 6) {
            v = v << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        } else {
            return GAI_COPY_MISS;
        }
    }
    *value = v;
    return GAI_COPY_DONE;
}

/* Returns the length of the UTF-8 sequence at `in` (RFC 3629 §4): 0 if it is invalid, -1 if it is incomplete. */
static inline int gai_utf8_length(const uint8_t *in, const uint8_t *end) {
    uint8_t lead = in[0];
    uint8_t low = 0x80, high = 0xBF;
    int length;
    if (lead < 0xC2) {
        return 0;
    }
    if (lead < 0xE0) {
        length = 2;
    } else if (lead < 0xF0) {
        length = 3;
        low = lead == 0xE0 ? 0xA0 : 0x80;
        high = lead == 0xED ? 0x9F : 0xBF;
    } else if (lead < 0xF5) {
        length = 4;
        low = lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xF4 ? 0x8F : 0xBF;
    } else {
        return 0;
    }
    for (int i = 1; i < length; i++) {
        if (in + i == end) {
            return -1;
        }
        if (in[i] < low || in[i] > high) {
            return 0;
        }
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

/* Copies one escape; `in` is at the backslash. */
static inline int gai_copy_escape(const uint8_t **in, const uint8_t *end, uint8_t **out) {
    const uint8_t *at = *in;
    uint32_t c, low;
    if (end - at < 2) {
        return GAI_COPY_MORE;
    }
    switch (at[1]) {
    case '"': case '\\': case 'b': case 'f': case 'n': case 'r': case 't':
        (*out)[0] = '\\';
        (*out)[1] = at[1];
        *out += 2;
        *in = at + 2;
        return GAI_COPY_DONE;
    case '/':
        *(*out)++ = '/';
        *in = at + 2;
        return GAI_COPY_DONE;
    case 'u':
        break;
    default:
        return GAI_COPY_MISS;
    }
    int status = gai_read_unit(at, end, &c);
    if (status != GAI_COPY_DONE) {
        return status;
    }
    at += 6;
    if (gai_is_low_surrogate(c)) {
        return GAI_COPY_MISS;
    }
    if (gai_is_high_surrogate(c)) {
        status = gai_read_unit(at, end, &low);
        if (status != GAI_COPY_DONE) {
            return status;
        }
        if (!gai_is_low_surrogate(low)) {
            return GAI_COPY_MISS;
        }
        c = 0x10000u + ((c & 0x3FFu) << 10) + (low & 0x3FFu);
        at += 6;
    }
    *out = c < 0x80 ? gai_put_ascii(*out, c) : gai_put_utf8(*out, c);
    *in = at;
    return GAI_COPY_DONE;
}

/* Copies from any character on, up to the closing quote; returns the place in the input at which it stopped. */
__attribute__((noinline, unused)) static const uint8_t *gai_copy_rest(const uint8_t *at, const uint8_t *end, uint8_t **out,
                                                                      size_t *characters, int *status) {
    uint8_t *to = *out;
    size_t count = 0;
    *status = GAI_COPY_MORE;
    for (;;) {
        if (end - at >= 16 && *at != '\\' && *at != '"') {
            size_t taken = gai_loops->copy_utf8(to, at, (size_t)(end - at), &count);
            at += taken;
            to += taken;
        }
        /* The rest of a block, an escape, or the end. */
        for (int n = 0; n < 16; n++) {
            if (at == end) {
                return at;
            }
            uint8_t c = *at;
            if (c == '"') {
                *out = to;
                *characters += count;
                *status = GAI_COPY_DONE;
                return at;
            }
            count++;
            if (c == '\\') {
                int escape = gai_copy_escape(&at, end, &to);
                if (escape != GAI_COPY_DONE) {
                    *status = escape;
                    return at;
                }
                break;
            }
            if (c >= 0x80) {
                int length = gai_utf8_length(at, end);
                if (length <= 0) {
                    *status = length ? GAI_COPY_MORE : GAI_COPY_MISS;
                    return at;
                }
                memcpy(to, at, (size_t)length);
                at += length;
                to += length;
            } else if (c < 0x20) {
                *status = GAI_COPY_MISS;
                return at;
            } else {
                *to++ = c;
                at++;
            }
        }
    }
}

/* Copies up to the closing quote. `*characters` grows by the code points copied. */
static inline int gai_copy_string(const uint8_t **in, const uint8_t *end, uint8_t **out, size_t *characters) {
    const uint8_t *at = *in;
    uint8_t *to = *out;
    /* Most pieces of a model's text are short: two steps of eight bytes cost half of a call to the vector loop. */
    for (int n = 0; GAI_LITTLE_ENDIAN && n < 2 && end - at >= 8; n++) {
        uint64_t x = gai_load8(at), odd = gai_escape_mask(x) | (x & 0x80 * GAI_ONES);
        size_t plain = odd ? (size_t)__builtin_ctzll(odd) / 8 : 8;
        memcpy(to, at, 8);
        at += plain;
        to += plain;
        if (odd) {
            break; /* mostly the closing quote */
        }
    }
    size_t count = (size_t)(at - *in);
    int status = GAI_COPY_DONE;
    if (at == end || *at != '"') {
        uint8_t *behind = to;
        size_t rest = 0;
        at = gai_copy_rest(at, end, &behind, &rest, &status);
        if (status != GAI_COPY_DONE) {
            return status;
        }
        to = behind;
        count += rest;
    }
    *in = at;
    *out = to;
    *characters += count;
    return GAI_COPY_DONE;
}

#endif
