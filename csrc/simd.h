/* The loops that use vector instructions, and the choice between their two forms.
 *
 * A loop handles as many whole blocks from the beginning of its input as it can, and returns the amount that it
 * handled. The caller handles the rest character by character: a character that needs an escape, the end of a block. So
 * the scalar form of most loops does nothing, and both forms give the same bytes.
 *
 * An architecture has at most one vector form (simd_vector.c). The import of the kernels chooses it if the machine can
 * run it, otherwise the scalar form (simd_scalar.c), and points `gai_loops` of every extension at it (loops.c).
 */
#ifndef GAI_SIMD_H
#define GAI_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

typedef struct {
    const char *name;
    /* Copies UTF-8 that is known to be valid, up to a character whose escape the loop does not write. Writes nothing
     * beyond `end`. */
    size_t (*escape)(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length);
    /* Copies valid UTF-8, and known escapes that stay unchanged, up to a character that needs an escape or is invalid;
     * adds the number of code points. Writes up to 64 bytes beyond the copied bytes. */
    size_t (*copy_utf8)(uint8_t *out, const uint8_t *text, size_t length, size_t *characters);
    /* Encode CPython's characters as UTF-8, up to a surrogate or a character whose escape they do not write. Write
     * nothing beyond `end`. */
    size_t (*encode_ucs1)(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length);
    size_t (*encode_ucs2)(uint8_t **out, const uint8_t *end, const uint16_t *text, size_t length);
    size_t (*encode_ucs4)(uint8_t **out, const uint8_t *end, const uint32_t *text, size_t length);
    /* Returns the number of bytes before the first CR or LF, in whole blocks. */
    size_t (*skip_line)(const uint8_t *data, size_t length);
} gai_simd;

/* The loops in use. */
extern __attribute__((visibility("hidden"))) const gai_simd *gai_loops;

static inline void gai_use_loops(const gai_simd *loops) { gai_loops = loops; }

const gai_simd *gai_scalar_loops(void);
/* SSE4.1 or NEON, vectors of 16 bytes; NULL if the compiler or this machine has neither. */
const gai_simd *gai_vector_loops(void);

#define GAI_ONES 0x0101010101010101u
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define GAI_LITTLE_ENDIAN 1
#else
#define GAI_LITTLE_ENDIAN 0
#endif

/* Returns bit 7 of each of eight bytes that need an escape. Only the lowest set bit is exact; zero is exact. */
static inline uint64_t gai_escape_mask(uint64_t x) {
    uint64_t control = x - 0x20 * GAI_ONES;
    uint64_t quote = (x ^ '"' * GAI_ONES) - GAI_ONES;
    uint64_t backslash = (x ^ '\\' * GAI_ONES) - GAI_ONES;
    return (control | quote | backslash) & ~x & 0x80 * GAI_ONES;
}

/* Returns bit 7 of each of eight bytes that are CR or LF. Only the lowest set bit is exact; zero is exact. */
static inline uint64_t gai_line_end_mask(uint64_t x) {
    uint64_t lf = x ^ '\n' * GAI_ONES;
    uint64_t cr = x ^ '\r' * GAI_ONES;
    return (((lf - GAI_ONES) & ~lf) | ((cr - GAI_ONES) & ~cr)) & 0x80 * GAI_ONES;
}

static inline uint64_t gai_load8(const uint8_t *at) {
    uint64_t x;
    memcpy(&x, at, 8);
    return x;
}

#endif
