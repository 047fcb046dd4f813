/* The loops that pay for vector instructions, and which of their two forms is in use.
 *
 * Each takes as much as it can in whole blocks from the beginning of its input and returns how much that was; what it
 * leaves (a character that needs an escape, the rest of a block) is the caller's, one at a time. So the scalar form of
 * most of them is to take nothing, and both forms give the same bytes.
 *
 * One table for all modules, chosen once by `_native/simd.pyx`; each module is given a pointer to it when it is
 * imported.
 */
#ifndef GAI_SIMD_H
#define GAI_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *name;
    /* Copies UTF-8 that is known to be valid up to a character that needs an escape it does not write; not beyond
     * `end`. */
    size_t (*escape)(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length);
    /* Copies valid UTF-8, and escapes that stay as they are if it knows them, up to a character that needs an escape or is
     * invalid, and adds their code points. Writes up to 64 bytes behind what it took. */
    size_t (*copy_utf8)(uint8_t *out, const uint8_t *text, size_t length, size_t *characters);
    /* Encode CPython's characters as UTF-8, up to a surrogate or one that needs an escape that they do not write; not
     * beyond `end`. */
    size_t (*encode_ucs1)(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length);
    size_t (*encode_ucs2)(uint8_t **out, const uint8_t *end, const uint16_t *text, size_t length);
    size_t (*encode_ucs4)(uint8_t **out, const uint8_t *end, const uint32_t *text, size_t length);
    /* How many bytes at the beginning are no CR and no LF, in whole blocks. */
    size_t (*skip_line)(const uint8_t *data, size_t length);
} gai_simd;

#define GAI_ONES 0x0101010101010101u
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define GAI_LITTLE_ENDIAN 1
#else
#define GAI_LITTLE_ENDIAN 0
#endif

/* Which of eight bytes need an escape: bit 7 of each; only the lowest set bit is exact, and zero is exact. */
static inline uint64_t gai_escape_mask(uint64_t x) {
    uint64_t control = x - 0x20 * GAI_ONES;
    uint64_t quote = (x ^ '"' * GAI_ONES) - GAI_ONES;
    uint64_t backslash = (x ^ '\\' * GAI_ONES) - GAI_ONES;
    return (control | quote | backslash) & ~x & 0x80 * GAI_ONES;
}

/* Which of eight bytes are CR or LF, likewise. */
static inline uint64_t gai_line_end_mask(uint64_t x) {
    uint64_t lf = x ^ '\n' * GAI_ONES;
    uint64_t cr = x ^ '\r' * GAI_ONES;
    return (((lf - GAI_ONES) & ~lf) | ((cr - GAI_ONES) & ~cr)) & 0x80 * GAI_ONES;
}

/* ---- the scalar form ------------------------------------------------------------------------------------------- */

static inline uint64_t gai_load8(const uint8_t *at) {
    uint64_t x;
    memcpy(&x, at, 8);
    return x;
}

static inline size_t gai_scalar_escape(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length) {
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

static inline size_t gai_scalar_skip_line(const uint8_t *data, size_t length) {
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

/* What this module uses. */
static const gai_simd *gai_loops = &GAI_SCALAR;

static inline void gai_use_loops(const gai_simd *loops) { gai_loops = loops; }

#endif
