/* Skips JSON: each function accepts the bytes of one value, as a parser would, and moves *in to their end.
 *
 * The functions return GAI_COPY_DONE; GAI_COPY_MORE if the bytes end before the value does; GAI_COPY_MISS if a parser
 * would refuse the bytes, or if readers read them differently.
 */
#ifndef GAI_SKIP_H
#define GAI_SKIP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "copy.h"

enum {
    GAI_LEVELS = 32, /* the most levels of a skipped value */
};

/* Moves over ASCII characters without an escape in a string, eight bytes at a time. */
static inline const uint8_t *gai_skip_plain(const uint8_t *at, const uint8_t *end) {
    while (end - at >= 8) {
        uint64_t x = gai_load8(at);
        uint64_t odd = gai_escape_mask(x) | (x & 0x80 * GAI_ONES);
        if (odd) {
            return GAI_LITTLE_ENDIAN ? at + __builtin_ctzll(odd) / 8 : at;
        }
        at += 8;
    }
    return at;
}

/* Skips a string of ASCII without escapes, up to its closing quote. */
static inline int gai_skip_string(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = gai_skip_plain(*in, end);
    for (; at < end; at++) {
        if (*at == '"') {
            *in = at;
            return GAI_COPY_DONE;
        }
        if (*at < 0x20 || *at >= 0x80 || *at == '\\') {
            return GAI_COPY_MISS;
        }
    }
    return GAI_COPY_MORE;
}

static inline const uint8_t *gai_skip_digits(const uint8_t *at, const uint8_t *end) {
    while (at < end && (uint8_t)(*at - '0') < 10) {
        at++;
    }
    return at;
}

/* Skips the digits of a whole number (RFC 8259 §6), at most `most`. The byte after the digits must have come. */
static inline int gai_skip_whole(const uint8_t **in, const uint8_t *end, ptrdiff_t most) {
    const uint8_t *at = gai_skip_digits(*in, end);
    if (at == end) {
        return GAI_COPY_MORE;
    }
    if (at == *in || at - *in > most || (**in == '0' && at - *in > 1)) {
        return GAI_COPY_MISS;
    }
    *in = at;
    return GAI_COPY_DONE;
}

/* Skips an integer of up to eighteen digits, which always fit in 64 bits. */
static inline int gai_skip_number(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in + (*in < end && **in == '-');
    int status = gai_skip_whole(&at, end, 18);
    *in = status == GAI_COPY_DONE ? at : *in;
    return status;
}

/* Skips a count: a whole number below 2**53, which all readers read the same. */
static inline int gai_skip_count(const uint8_t **in, const uint8_t *end) { return gai_skip_whole(in, end, 15); }

/* Skips a count that is not zero: some adapters leave zeros of usage out. */
static inline int gai_skip_some(const uint8_t **in, const uint8_t *end) {
    return *in < end && **in == '0' ? GAI_COPY_MISS : gai_skip_count(in, end);
}

/* Skips a number with a fraction or an exponent, far from the limits of a double. */
static inline int gai_skip_decimal(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in + (*in < end && **in == '-');
    const uint8_t *digits;
    int status = gai_skip_whole(&at, end, 15);
    int whole = 1;
    if (status != GAI_COPY_DONE) {
        return status;
    }
    if (*at == '.') {
        digits = ++at;
        at = gai_skip_digits(at, end);
        if (at == end) {
            return GAI_COPY_MORE;
        }
        if (at == digits || at - digits > 30) {
            return GAI_COPY_MISS;
        }
        whole = 0;
    }
    if ((*at | 0x20) == 'e') {
        at++;
        at += at < end && (*at == '+' || *at == '-');
        digits = at;
        at = gai_skip_digits(at, end);
        if (at == end) {
            return GAI_COPY_MORE;
        }
        if (at == digits || at - digits > 2) {
            return GAI_COPY_MISS;
        }
        whole = 0;
    }
    if (whole) {
        return GAI_COPY_MISS;
    }
    *in = at;
    return GAI_COPY_DONE;
}

/* Returns whether no reader reads a decimal as a whole number: it has no sign, and lies between two whole numbers by
 * more than the rounding of doubles. Adapters count 5.0 and do not count 5.5, so a hole must hold only one of the two
 * kinds. */
static inline int gai_is_fraction(const uint8_t *at, const uint8_t *end) {
    const uint8_t *dot = gai_skip_digits(at, end), *stop;
    int zeros = 1, nines = 1;
    if (dot == at) {
        return 0; /* a sign */
    }
    if (dot < end && *dot == '.') {
        stop = gai_skip_digits(dot + 1, end);
        /* Sixteen digits are exact; the last one may be rounded. */
        for (const uint8_t *digit = dot + 1; digit < stop && digit - at <= 15; digit++) {
            zeros &= *digit == '0';
            nines &= *digit == '9';
        }
        if (stop == end || (*stop | 0x20) != 'e') {
            return !zeros && !nines;
        }
    } else {
        stop = dot;
    }
    /* d.ddde-NN, the first digit not zero, NN at least 2: above zero and far below one. */
    if (dot != at + 1 || *at == '0' || end - stop < 3 || stop[1] != '-') {
        return 0;
    }
    return end - stop == 3 ? stop[2] >= '2' : stop[2] != '0' || stop[3] >= '2';
}

/* Skips a decimal that is not a whole number. */
static inline int gai_skip_fraction(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in;
    int status = gai_skip_decimal(&at, end);
    if (status == GAI_COPY_DONE && !gai_is_fraction(*in, at)) {
        return GAI_COPY_MISS;
    }
    *in = status == GAI_COPY_DONE ? at : *in;
    return status;
}

static inline int gai_skip_blanks(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in;
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    *in = at;
    return at == end ? GAI_COPY_MORE : GAI_COPY_DONE;
}

/* Skips a string up to its closing quote, including escapes and UTF-8. Half a surrogate pair is a GAI_COPY_MISS. */
static inline int gai_skip_text(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = gai_skip_plain(*in, end);
    while (at < end) {
        uint8_t c = *at;
        if (c == '"') {
            *in = at;
            return GAI_COPY_DONE;
        }
        if (c == '\\') {
            uint8_t escape[8], *to = escape;
            int status = gai_copy_escape(&at, end, &to);
            if (status != GAI_COPY_DONE) {
                return status;
            }
            at = gai_skip_plain(at, end);
        } else if (c >= 0x80) {
            int length = gai_utf8_length(at, end);
            if (length <= 0) {
                return length ? GAI_COPY_MORE : GAI_COPY_MISS;
            }
            at += length;
        } else if (c < 0x20) {
            return GAI_COPY_MISS;
        } else {
            at++;
        }
    }
    return GAI_COPY_MORE;
}

static inline int gai_skip_word(const uint8_t **in, const uint8_t *end, const char *word, size_t size) {
    size_t left = (size_t)(end - *in);
    if (memcmp(*in, word, left < size ? left : size) != 0) {
        return GAI_COPY_MISS;
    }
    *in += left < size ? 0 : size;
    return left < size ? GAI_COPY_MORE : GAI_COPY_DONE;
}

/* Skips a value that is neither an array nor an object. */
static inline int gai_skip_scalar(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in;
    int status;
    switch (*at) {
    case 'n': return gai_skip_word(in, end, "null", 4);
    case 't': return gai_skip_word(in, end, "true", 4);
    case 'f': return gai_skip_word(in, end, "false", 5);
    case '"':
        at++;
        status = gai_skip_text(&at, end);
        *in = status == GAI_COPY_DONE ? at + 1 : *in;
        return status;
    }
    status = gai_skip_number(&at, end);
    if (status == GAI_COPY_DONE && (*at == '.' || (*at | 0x20) == 'e')) {
        at = *in;
        status = gai_skip_decimal(&at, end);
    }
    *in = status == GAI_COPY_DONE ? at : *in;
    return status;
}

/* Skips any value (RFC 8259) of at most GAI_LEVELS levels. */
static inline int gai_skip_value(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in;
    uint8_t closing[GAI_LEVELS];
    int depth = 0;
    enum { VALUE, VALUE_OR_END, NAME, NAME_OR_END, COLON, COMMA_OR_END } next = VALUE;
    for (;;) {
        int status = gai_skip_blanks(&at, end);
        if (status != GAI_COPY_DONE) {
            return status;
        }
        uint8_t c = *at;
        if (next == COLON) {
            if (c != ':') {
                return GAI_COPY_MISS;
            }
            at++;
            next = VALUE;
            continue;
        }
        if (next == COMMA_OR_END && c == ',') {
            at++;
            next = closing[depth - 1] == '}' ? NAME : VALUE;
            continue;
        }
        if (next == VALUE_OR_END || next == NAME_OR_END || next == COMMA_OR_END) {
            if (c == closing[depth - 1]) {
                at++;
                depth--;
            } else if (next == COMMA_OR_END) {
                return GAI_COPY_MISS;
            } else {
                next = next == NAME_OR_END ? NAME : VALUE;
                continue;
            }
        } else if (next == NAME || (c != '{' && c != '[')) {
            if (next == NAME && c != '"') {
                return GAI_COPY_MISS;
            }
            status = gai_skip_scalar(&at, end);
            if (status != GAI_COPY_DONE) {
                return status;
            }
            if (next == NAME) {
                next = COLON;
                continue;
            }
        } else {
            if (depth == GAI_LEVELS) {
                return GAI_COPY_MISS;
            }
            closing[depth++] = c == '{' ? '}' : ']';
            at++;
            next = c == '{' ? NAME_OR_END : VALUE_OR_END;
            continue;
        }
        if (!depth) {
            *in = at;
            return GAI_COPY_DONE;
        }
        next = COMMA_OR_END;
    }
}

#endif
