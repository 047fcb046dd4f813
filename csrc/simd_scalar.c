/* The loops without vectors: they handle eight bytes at a time, or leave all bytes to the caller's loop. */
#include "simd.h"

static size_t gai_scalar_escape(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length) {
    size_t i = 0;
    length = (size_t)(end - *out) < length ? (size_t)(end - *out) : length;
    for (; length - i >= 8; i += 8) {
        uint64_t x = gai_load8(text + i);
        if (gai_escape_mask(x)) {
            break;
        }
        memcpy(*out + i, &x, 8);
    }
    *out += i;
    return i;
}

static size_t gai_scalar_skip_line(const uint8_t *data, size_t length) {
    size_t i = 0;
    while (length - i >= 8 && !gai_line_end_mask(gai_load8(data + i))) {
        i += 8;
    }
    return i;
}

static size_t gai_no_utf8(uint8_t *out, const uint8_t *text, size_t length, size_t *characters) {
    return (void)out, (void)text, (void)length, (void)characters, (size_t)0;
}

#define GAI_NONE_ENCODED(NAME, TYPE)                                                                           \
    static size_t NAME(uint8_t **out, const uint8_t *end, const TYPE *text, size_t length) {                   \
        return (void)out, (void)end, (void)text, (void)length, (size_t)0;                                      \
    }

GAI_NONE_ENCODED(gai_no_ucs1, uint8_t)
GAI_NONE_ENCODED(gai_no_ucs2, uint16_t)
GAI_NONE_ENCODED(gai_no_ucs4, uint32_t)

static const gai_simd GAI_SCALAR = {
    "scalar", gai_scalar_escape, gai_no_utf8, gai_no_ucs1, gai_no_ucs2, gai_no_ucs4, gai_scalar_skip_line,
};

const gai_simd *gai_scalar_loops(void) { return &GAI_SCALAR; }
