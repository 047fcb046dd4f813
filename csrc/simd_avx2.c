/* The loops with AVX2, on blocks of 32 bytes: those that copy bytes or search in them.
 *
 * Beside vectors of 16 bytes a page of 1 KiB takes half the time (escape 17 ns instead of 37, copy of mixed scripts 96
 * instead of 180, the search for a line's end 11 instead of 21), and a token the same within 1 ns. Characters → UTF-8
 * stays with the vectors of 16 bytes: there AVX2's instructions made long text of one script 3 to 5 % faster, and mixed
 * text two thirds slower.
 */
#include "simd.h"
#include "utf8.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define GAI_HAS_AVX2 1
#define GAI_AVX2 __attribute__((target("avx2,popcnt")))
#include <immintrin.h>

#define GAI_Y static inline GAI_AVX2 __attribute__((always_inline))

static const gai_simd *gai_y_narrower;

GAI_Y __m256i gai_y_load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }
GAI_Y uint32_t gai_y_bits(__m256i a) { return (uint32_t)_mm256_movemask_epi8(a); }
GAI_Y __m256i gai_y_equal(__m256i a, char c) { return _mm256_cmpeq_epi8(a, _mm256_set1_epi8(c)); }
GAI_Y __m256i gai_y_below(__m256i a, uint8_t c) {
    return _mm256_cmpeq_epi8(_mm256_min_epu8(a, _mm256_set1_epi8((char)(c - 1))), a);
}

GAI_Y uint32_t gai_y_escaped(__m256i x) {
    __m256i named = _mm256_or_si256(gai_y_equal(x, '"'), gai_y_equal(x, '\\'));
    return gai_y_bits(_mm256_or_si256(gai_y_below(x, 0x20), named));
}

static GAI_AVX2 size_t gai_y_escape(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length) {
    uint8_t *to = *out;
    size_t i = 0;
    uint32_t bits = 0;
    length = (size_t)(end - to) < length ? (size_t)(end - to) : length;
    for (; !bits && length - i >= 32; i += bits ? (size_t)__builtin_ctz(bits) : 32) {
        __m256i x = gai_y_load(text + i);
        bits = gai_y_escaped(x);
        _mm256_storeu_si256((__m256i *)(to + i), x);
    }
    /* Most pieces of a model's text are shorter than a block, and a call of the narrower loop would cost them 1 ns. */
    if (!bits && length - i >= 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(text + i));
        __m128i named = _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('"')), _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1F)), x);
        bits = (uint32_t)_mm_movemask_epi8(_mm_or_si128(control, named));
        _mm_storeu_si128((__m128i *)(to + i), x);
        i += bits ? (size_t)__builtin_ctz(bits) : 16;
    }
    *out = to + i;
    return i;
}

static GAI_AVX2 size_t gai_y_skip_line(const uint8_t *data, size_t length) {
    size_t i = 0;
    while (length - i >= 32) {
        __m256i x = gai_y_load(data + i);
        uint32_t bits = gai_y_bits(_mm256_or_si256(gai_y_equal(x, '\n'), gai_y_equal(x, '\r')));
        if (bits) {
            return i + (size_t)__builtin_ctz(bits);
        }
        i += 32;
    }
    return i + gai_y_narrower->skip_line(data + i, length - i);
}

/* ---- UTF-8 that is copied -------------------------------------------------------------------------------------- */

/* The bytes n places before, zeros at the beginning; `low` is the lower half in the upper one. */
#define gai_y_before(x, low, n) _mm256_alignr_epi8(x, low, 16 - (n))

/* The table twice, for _mm256_shuffle_epi8. */
GAI_Y __m256i gai_y_table(const uint8_t *table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
}

/* As gai_v_utf8_errors: a bit for each byte. */
GAI_Y uint32_t gai_y_utf8_errors(__m256i x) {
    __m256i low = _mm256_permute2x128_si256(x, x, 0x08), nibble = _mm256_set1_epi8(15);
    __m256i before = gai_y_before(x, low, 1);
    __m256i errors = _mm256_and_si256(
        _mm256_and_si256(_mm256_shuffle_epi8(gai_y_table(gai_utf8_table(GAI_FIRST_HIGH)),
                                             _mm256_and_si256(_mm256_srli_epi16(before, 4), nibble)),
                         _mm256_shuffle_epi8(gai_y_table(gai_utf8_table(GAI_FIRST_LOW)), _mm256_and_si256(before, nibble))),
        _mm256_shuffle_epi8(gai_y_table(gai_utf8_table(GAI_SECOND_HIGH)), _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble)));
    __m256i long_lead = _mm256_or_si256(_mm256_subs_epu8(gai_y_before(x, low, 2), _mm256_set1_epi8(0xE0 - 0x80)),
                                        _mm256_subs_epu8(gai_y_before(x, low, 3), _mm256_set1_epi8(0xF0 - 0x80)));
    long_lead = _mm256_and_si256(long_lead, _mm256_set1_epi8((char)0x80));
    return ~gai_y_bits(_mm256_cmpeq_epi8(long_lead, errors));
}

static GAI_AVX2 size_t gai_y_copy_utf8(uint8_t *out, const uint8_t *text, size_t length, size_t *characters) {
    size_t i = 0;
    while (length - i >= 32) {
        __m256i x = gai_y_load(text + i);
        uint32_t escaped = gai_y_escaped(x), wide = gai_y_bits(x);
        size_t taken = escaped ? (size_t)__builtin_ctz(escaped) : 32;
        size_t count = taken;
        uint32_t run = (uint32_t)((1ull << taken) - 1);
        if (wide & run) {
            /* What is behind the character that ends the run is another matter, but a lead before it is cut short. */
            if (gai_y_utf8_errors(x) & (run << 1 | 1)) {
                return i;
            }
            if (taken == 32) {
                const uint8_t *last = text + i + 31;
                taken -= last[0] >= 0xC0 ? 1 : last[-1] >= 0xE0 ? 2 : last[-2] >= 0xF0 ? 3 : 0;
                run = (uint32_t)((1ull << taken) - 1);
            }
            /* Continuations are 80..BF. */
            count = taken - (size_t)_mm_popcnt_u32(wide & gai_y_bits(gai_y_below(x, 0xC0)) & run);
        }
        _mm256_storeu_si256((__m256i *)(out + i), x);
        *characters += count;
        i += taken;
        if (escaped) {
            return i;
        }
    }
    return i + gai_y_narrower->copy_utf8(out + i, text + i, length - i, characters);
}
#endif

const gai_simd *gai_avx2_loops(void) {
#if defined(GAI_HAS_AVX2)
    static gai_simd loops;
    gai_y_narrower = gai_vector_loops();
    if (gai_y_narrower == NULL || !__builtin_cpu_supports("avx2")) {
        return NULL;
    }
    loops = *gai_y_narrower;
    loops.name = "avx2";
    loops.escape = gai_y_escape;
    loops.copy_utf8 = gai_y_copy_utf8;
    loops.skip_line = gai_y_skip_line;
    return &loops;
#else
    return NULL;
#endif
}
