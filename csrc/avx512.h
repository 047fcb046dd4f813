/* Characters → UTF-8 with AVX-512 (VBMI2): sixteen at a time, whatever they are, escapes of two bytes included.
 *
 * Each character is written in a lane of four bytes, right-aligned, with zeros before it; what is zero is squeezed out.
 * So there is one way for ASCII, for every other script, for what is mixed, and for ends shorter than a block.
 */
#ifndef GAI_AVX512_H
#define GAI_AVX512_H

#include "simd.h"

#if defined(__x86_64__) && defined(__GNUC__) && (defined(__clang__) ? __clang_major__ >= 6 : __GNUC__ >= 8)
#define GAI_HAS_AVX512 1
#define GAI_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")))
#include <immintrin.h>

#define GAI_Z static inline GAI_AVX512 __attribute__((always_inline))

/* The letters of the escapes for 0 to 15; 0 where it has none of two bytes. */
static const uint8_t gai_z_letters[16] = {0, 0, 0, 0, 0, 0, 0, 0, 'b', 't', 'n', 0, 'f', 'r', 0, 0};

/* A constant that stays in its register: compilers would make it anew for each block. */
#define GAI_Z_CONSTANT(NAME, VALUE) __m512i NAME = VALUE; __asm__("" : "+v"(NAME))

/* Writes 64 bytes, of which as many count as it returns. Where a character is a surrogate or needs six bytes, *taken
 * becomes how many came before: by a branch, so that the next load waits for nothing. `widest`: of all there can be. */
#define GAI_Z_ENCODE(NAME, TYPE, LOAD, WIDEST)                                                                 \
    static GAI_AVX512 size_t NAME(uint8_t **out, const uint8_t *end, const TYPE *text, size_t length) {        \
        GAI_Z_CONSTANT(fields, _mm512_set1_epi64(0x20262C3200060C12));                                         \
        GAI_Z_CONSTANT(six, _mm512_set1_epi8(0x3F));                                                           \
        GAI_Z_CONSTANT(lead2, _mm512_set1_epi32((int)0x80C00000));                                             \
        GAI_Z_CONSTANT(lead3, _mm512_set1_epi32((int)0x8080E000));                                             \
        GAI_Z_CONSTANT(lead4, _mm512_set1_epi32((int)0x808080F0));                                             \
        GAI_Z_CONSTANT(last1, _mm512_set1_epi32(0x7F));                                                        \
        GAI_Z_CONSTANT(last2, _mm512_set1_epi32(0x7FF));                                                       \
        GAI_Z_CONSTANT(last3, _mm512_set1_epi32(0xFFFF));                                                      \
        GAI_Z_CONSTANT(surrogate, _mm512_set1_epi32(0xD800 >> 11));                                            \
        GAI_Z_CONSTANT(space, _mm512_set1_epi32(' '));                                                         \
        GAI_Z_CONSTANT(quote, _mm512_set1_epi32('"'));                                                         \
        GAI_Z_CONSTANT(backslash, _mm512_set1_epi32('\\'));                                                    \
        uint8_t *to = *out;                                                                                    \
        size_t i = 0;                                                                                          \
        while (i < length && end - to >= 64) {                                                                 \
            size_t wanted = length - i < 16 ? length - i : 16, taken = wanted;                                 \
            __mmask16 lanes = (__mmask16)_bzhi_u32(0xFFFF, (unsigned)wanted);                                  \
            __m512i c = LOAD(text + i, lanes), lead = lead2;                                                   \
            __mmask16 control = _mm512_mask_cmplt_epu32_mask(lanes, c, space);                                 \
            __mmask16 named = _mm512_cmpeq_epi32_mask(c, quote) | _mm512_cmpeq_epi32_mask(c, backslash);       \
            __mmask16 bad = _mm512_cmpeq_epi32_mask(_mm512_srli_epi32(c, 11), surrogate);                      \
            lead = _mm512_mask_mov_epi32(lead, _mm512_cmpgt_epu32_mask(c, last2), lead3);                      \
            if (WIDEST > 0xFFFF) {                                                                             \
                lead = _mm512_mask_mov_epi32(lead, _mm512_cmpgt_epu32_mask(c, last3), lead4);                  \
            }                                                                                                  \
            /* Six bits in each byte, the last ones in the last, and (a & b) | c; ASCII stands there whole. */ \
            __m512i wide = _mm512_ternarylogic_epi64(_mm512_multishift_epi64_epi8(fields, c), six, lead, 0xEA); \
            __m512i bytes = _mm512_mask_mov_epi32(_mm512_slli_epi32(c, 24),                                    \
                                                  _mm512_cmpgt_epu32_mask(c, last1), wide);                    \
            if (control | named) {                                                                             \
                __m512i letters = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)gai_z_letters));       \
                __m512i letter = _mm512_maskz_permutexvar_epi32(                                               \
                    _mm512_cmplt_epu32_mask(c, _mm512_set1_epi32(16)), c, letters);                            \
                bad |= control & _mm512_testn_epi32_mask(letter, letter);                                      \
                bytes = _mm512_mask_slli_epi32(bytes, control, letter, 24);                                    \
                bytes = _mm512_mask_or_epi32(bytes, control | named, bytes, _mm512_slli_epi32(backslash, 16)); \
            }                                                                                                  \
            uint64_t kept = 0x8888888888888888u | _mm512_test_epi8_mask(bytes, bytes);                         \
            if (__builtin_expect(bad, 0)) {                                                                    \
                taken = (size_t)__builtin_ctz(bad);                                                            \
            }                                                                                                  \
            kept = _bzhi_u64(kept, (unsigned)(4 * taken));                                                     \
            _mm512_storeu_si512(to, _mm512_maskz_compress_epi8(kept, bytes));                                  \
            to += _mm_popcnt_u64(kept);                                                                        \
            i += taken;                                                                                        \
            if (taken < wanted) {                                                                              \
                break;                                                                                         \
            }                                                                                                  \
        }                                                                                                      \
        *out = to;                                                                                             \
        return i;                                                                                              \
    }

#define GAI_LOAD2(at, lanes) _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, at))
#define GAI_LOAD4(at, lanes) _mm512_maskz_loadu_epi32(lanes, at)

GAI_Z_ENCODE(gai_z_ucs2, uint16_t, GAI_LOAD2, 0xFFFF)
GAI_Z_ENCODE(gai_z_ucs4, uint32_t, GAI_LOAD4, 0x10FFFF)

/* The same with lanes of two bytes: for UTF-8, which stays as it is, and for Latin-1. */
GAI_Z size_t gai_z_bytes(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length, int latin) {
    const __m256i letters = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)gai_z_letters));
    uint8_t *to = *out;
    size_t i = 0;
    while (i < length && end - to >= 64) {
        size_t wanted = length - i < 32 ? length - i : 32, taken = wanted;
        __mmask32 lanes = _bzhi_u32(~0u, (unsigned)wanted);
        __m256i x = _mm256_maskz_loadu_epi8(lanes, text + i);
        __mmask32 control = _mm256_mask_cmplt_epu8_mask(lanes, x, _mm256_set1_epi8(0x20));
        __mmask32 named = _mm256_cmpeq_epi8_mask(x, _mm256_set1_epi8('"')) |
                          _mm256_cmpeq_epi8_mask(x, _mm256_set1_epi8('\\'));
        __mmask32 wide = latin ? _mm256_movepi8_mask(x) : 0;
        if (!(control | named | wide)) {
            _mm256_storeu_si256((__m256i *)to, x);
            to += wanted;
            i += wanted;
            continue;
        }
        __m256i letter = _mm256_mask_shuffle_epi8(x, control, letters, x);
        __mmask32 bad = control & (_mm256_cmpgt_epu8_mask(x, _mm256_set1_epi8(15)) |
                                   _mm256_testn_epi8_mask(letter, letter));
        __m512i c = _mm512_cvtepu8_epi16(letter), bytes = _mm512_slli_epi16(c, 8);
        bytes = _mm512_mask_add_epi16(bytes, control | named, bytes, _mm512_set1_epi16('\\'));
        if (latin) {
            __m512i both = _mm512_or_si512(_mm512_srli_epi16(c, 6), _mm512_set1_epi16((short)0x80C0));
            both = _mm512_or_si512(both, _mm512_and_si512(bytes, _mm512_set1_epi16(0x3F00)));
            bytes = _mm512_mask_mov_epi16(bytes, wide, both);
        }
        uint64_t kept = 0xAAAAAAAAAAAAAAAAu | _mm512_test_epi8_mask(bytes, bytes);
        if (__builtin_expect(bad, 0)) {
            taken = (size_t)__builtin_ctz(bad);
        }
        kept = _bzhi_u64(kept, (unsigned)(2 * taken));
        _mm512_storeu_si512(to, _mm512_maskz_compress_epi8(kept, bytes));
        to += _mm_popcnt_u64(kept);
        i += taken;
        if (taken < wanted) {
            break;
        }
    }
    *out = to;
    return i;
}

static GAI_AVX512 size_t gai_z_escape(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length) {
    return gai_z_bytes(out, end, text, length, 0);
}

static GAI_AVX512 size_t gai_z_ucs1(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length) {
    return gai_z_bytes(out, end, text, length, 1);
}
#endif

/* The loops of `base`, and in place of some of them these; 0 where this machine has none. */
static int gai_find_avx512(gai_simd *loops, const gai_simd *base) {
#if defined(GAI_HAS_AVX512)
    if (base == NULL || !__builtin_cpu_supports("avx512vbmi2") || !__builtin_cpu_supports("avx512vbmi") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("bmi2")) {
        return 0;
    }
    *loops = *base;
    loops->name = "avx512";
    loops->escape = gai_z_escape;
    loops->encode_ucs1 = gai_z_ucs1;
    loops->encode_ucs2 = gai_z_ucs2;
    loops->encode_ucs4 = gai_z_ucs4;
    return 1;
#else
    return (void)loops, (void)base, 0;
#endif
}

#endif
