/* The loops with AVX-512 (VBMI2), which do not stop at escapes of two bytes.
 *
 * Characters → UTF-8, sixteen at a time, whatever they are: each is written in a lane of four bytes, right-aligned, with
 * zeros before it; what is zero is squeezed out. So there is one way for ASCII, for every other script, for what is
 * mixed, and for ends shorter than a block.
 *
 * How far a loop has come it learns by branches where it can: the next load waits for what is computed, but not for what
 * is predicted.
 */
#include "simd.h"
#include "utf8.h"

#if defined(__x86_64__) && defined(__GNUC__) && (!defined(__clang__) || __clang_major__ >= 6)
#define GAI_HAS_AVX512 1
#define GAI_AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")))
#include <immintrin.h>

#define GAI_Z static inline GAI_AVX512 __attribute__((always_inline))

/* By the low nibble: the one character that has an escape of two bytes, and the letter of that. \f is no such character
 * here: it has the nibble of the backslash. */
static const uint8_t gai_z_named[16] = {[2] = '"', [8] = '\b', '\t', '\n', [12] = '\\', '\r'};
static const uint8_t gai_z_letters[16] = {[2] = '"', [8] = 'b', 't', 'n', [12] = '\\', 'r'};

/* By the number of leading zeros: what turns the bits of a character, six in each byte and the last ones in the last,
 * into UTF-8. ASCII gets back its bit 6. U+0000 (32, which is taken for 0) becomes any byte that has no short escape. */
static const uint32_t gai_z_leads[32] = {
    [11] = 0x808080F0, 0x808080F0, 0x808080F0, 0x808080F0, 0x808080F0,
    [16] = 0x8080E000, 0x8080E000, 0x8080E000, 0x8080E000, 0x8080E000,
    [21] = 0x80C00000, 0x80C00000, 0x80C00000, 0x80C00000,
    [25] = 0x40010000, [0] = 0x01000000,
};

/* A constant that stays in its register: compilers would make it anew for each block. */
#define GAI_Z_CONSTANT(NAME, VALUE) __m512i NAME = VALUE; __asm__("" : "+v"(NAME))

/* Sixteen bytes in each quarter, for _mm512_shuffle_epi8. */
GAI_Z __m512i gai_z_table(const uint8_t *table) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
}

/* Writes 64 bytes, of which as many count as it returns, up to a surrogate or a character that needs six bytes. */
#define GAI_Z_ENCODE(NAME, TYPE, LOAD)                                                                         \
    static GAI_AVX512 size_t NAME(uint8_t **out, const uint8_t *end, const TYPE *text, size_t length) {        \
        GAI_Z_CONSTANT(fields, _mm512_set1_epi64(0x20262C3200060C12));                                         \
        GAI_Z_CONSTANT(six, _mm512_set1_epi8(0x3F));                                                           \
        GAI_Z_CONSTANT(leads_below_16, _mm512_loadu_si512(gai_z_leads));                                       \
        GAI_Z_CONSTANT(leads, _mm512_loadu_si512(gai_z_leads + 16));                                           \
        GAI_Z_CONSTANT(named, gai_z_table(gai_z_named));                                                       \
        GAI_Z_CONSTANT(letters, gai_z_table(gai_z_letters));                                                   \
        GAI_Z_CONSTANT(backslash, _mm512_set1_epi32('\\' << 16));                                              \
        GAI_Z_CONSTANT(surrogate, _mm512_set1_epi32(0xD800 >> 11));                                            \
        GAI_Z_CONSTANT(space, _mm512_set1_epi32(' '));                                                         \
        uint8_t *to = *out;                                                                                    \
        size_t i = 0;                                                                                          \
        while (i < length && end - to >= 64) {                                                                 \
            size_t wanted = length - i < 16 ? length - i : 16, taken = wanted;                                 \
            __mmask16 lanes = (__mmask16)_bzhi_u32(0xFFFF, (unsigned)wanted);                                  \
            /* A mask on every load would cost an eighth of the speed. */                                      \
            __m512i c = wanted == 16 ? LOAD(text + i, (__mmask16)0xFFFF) : LOAD(text + i, lanes);              \
            __m512i lead = _mm512_permutex2var_epi32(leads_below_16, _mm512_lzcnt_epi32(c), leads);            \
            __m512i bytes = _mm512_multishift_epi64_epi8(fields, c);                                           \
            bytes = _mm512_ternarylogic_epi64(bytes, six, lead, 0x6A); /* (a & b) ^ c */                       \
            /* Bytes of 0x80 and more pick a zero, and zeros stay. */                                          \
            __mmask16 escaped = _mm512_cmpeq_epi32_mask(bytes, _mm512_shuffle_epi8(named, bytes));             \
            __mmask16 control = _mm512_mask_cmplt_epu32_mask(lanes, c, space);                                 \
            __mmask16 bad = _mm512_cmpeq_epi32_mask(_mm512_srli_epi32(c, 11), surrogate);                      \
            bad |= control & ~escaped;                                                                         \
            bytes = _mm512_mask_or_epi32(bytes, escaped, _mm512_shuffle_epi8(letters, bytes), backslash);      \
            uint64_t kept = _mm512_test_epi8_mask(bytes, bytes);                                               \
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

GAI_Z_ENCODE(gai_z_ucs2, uint16_t, GAI_LOAD2)
GAI_Z_ENCODE(gai_z_ucs4, uint32_t, GAI_LOAD4)

/* The same with lanes of two bytes: for UTF-8, which stays as it is, and for Latin-1. */
GAI_Z size_t gai_z_bytes(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length, int latin) {
    const __m256i named = _mm512_castsi512_si256(gai_z_table(gai_z_named));
    const __m256i letters = _mm512_castsi512_si256(gai_z_table(gai_z_letters));
    uint8_t *to = *out;
    size_t i = 0;
    while (i < length && end - to >= 64) {
        size_t wanted = length - i < 32 ? length - i : 32, taken = wanted;
        __mmask32 lanes = _bzhi_u32(~0u, (unsigned)wanted);
        __m256i x = _mm256_maskz_loadu_epi8(lanes, text + i);
        __mmask32 control = _mm256_mask_cmplt_epu8_mask(lanes, x, _mm256_set1_epi8(0x20));
        __mmask32 escaped = _mm256_mask_cmpeq_epi8_mask(lanes, x, _mm256_shuffle_epi8(named, x));
        __mmask32 wide = latin ? _mm256_movepi8_mask(x) : 0;
        if (!(control | escaped | wide)) {
            _mm256_storeu_si256((__m256i *)to, x);
            to += wanted;
            i += wanted;
            continue;
        }
        __mmask32 bad = (control & ~escaped) | _mm256_mask_testn_epi8_mask(lanes, x, x);
        __m512i c = _mm512_cvtepu8_epi16(_mm256_mask_shuffle_epi8(x, escaped, letters, x));
        __m512i bytes = _mm512_slli_epi16(c, 8);
        bytes = _mm512_mask_add_epi16(bytes, escaped, bytes, _mm512_set1_epi16('\\'));
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

/* ---- UTF-8 that is copied -------------------------------------------------------------------------------------- */

/* As gai_v_utf8_errors: a bit for each byte. */
GAI_Z uint64_t gai_z_utf8_errors(__m512i x) {
    static const uint8_t places[64] = {
        0,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,
        15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
        31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46,
        47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
    };
    __m512i previous = _mm512_loadu_si512(places), low = _mm512_set1_epi8(15);
    __m512i before = _mm512_maskz_permutexvar_epi8(~1ull, previous, x);
    __m512i before2 = _mm512_maskz_permutexvar_epi8(~1ull, previous, before);
    __m512i before3 = _mm512_maskz_permutexvar_epi8(~1ull, previous, before2);
    __m512i errors = _mm512_and_si512(
        _mm512_and_si512(_mm512_shuffle_epi8(gai_z_table(gai_utf8_table(GAI_FIRST_HIGH)),
                                             _mm512_and_si512(_mm512_srli_epi16(before, 4), low)),
                         _mm512_shuffle_epi8(gai_z_table(gai_utf8_table(GAI_FIRST_LOW)), _mm512_and_si512(before, low))),
        _mm512_shuffle_epi8(gai_z_table(gai_utf8_table(GAI_SECOND_HIGH)), _mm512_and_si512(_mm512_srli_epi16(x, 4), low)));
    __m512i long_lead = _mm512_or_si512(_mm512_subs_epu8(before2, _mm512_set1_epi8(0xE0 - 0x80)),
                                        _mm512_subs_epu8(before3, _mm512_set1_epi8(0xF0 - 0x80)));
    long_lead = _mm512_and_si512(long_lead, _mm512_set1_epi8((char)0x80));
    return _mm512_cmpneq_epi8_mask(long_lead, errors);
}

/* The escapes that are copied as they are, by their letters. */
static const uint8_t gai_z_copied[128] = {
    ['"'] = 0x80, ['\\'] = 0x80, ['b'] = 0x80, ['f'] = 0x80, ['n'] = 0x80, ['r'] = 0x80, ['t'] = 0x80,
};

static GAI_AVX512 size_t gai_z_copy_utf8(uint8_t *out, const uint8_t *text, size_t length, size_t *characters) {
    size_t i = 0, taken = 64;
    /* Less than 61 of a block: there the copy ends. */
    for (; taken > 60 && i < length; i += taken) {
        __mmask64 lanes = _bzhi_u64(~0ull, length - i < 64 ? (unsigned)(length - i) : 64);
        __m512i x = _mm512_maskz_loadu_epi8(lanes, text + i); /* zeros behind the end: they stop the copy */
        uint64_t wide = _mm512_movepi8_mask(x), silent = 0;
        uint64_t control = _mm512_cmplt_epu8_mask(x, _mm512_set1_epi8(0x20));
        uint64_t quote = _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8('"'));
        uint64_t backslash = _mm512_cmpeq_epi8_mask(x, _mm512_set1_epi8('\\'));
        uint64_t stop = control | quote;
        if (backslash) {
            /* Of backslashes in a row every other one begins an escape; the subtraction carries that through the row. */
            const uint64_t odd = 0xAAAAAAAAAAAAAAAAu;
            uint64_t either = ((backslash << 1 | odd) - backslash) ^ odd;
            uint64_t escape = either & backslash, letter = either ^ backslash;
            __m512i copied = _mm512_permutex2var_epi8(_mm512_loadu_si512(gai_z_copied), x,
                                                      _mm512_loadu_si512(gai_z_copied + 64));
            uint64_t unknown = letter & (~_mm512_movepi8_mask(copied) | wide);
            stop = control | (quote & ~letter) | unknown >> 1 | (escape & 1ull << 63);
            silent = escape;
        }
        taken = 64;
        if (stop) {
            taken = (size_t)__builtin_ctzll(stop);
            __asm__("" : "+r"(taken)); /* a branch: twice as fast as what compilers make of it without this */
        }
        if (_bzhi_u64(wide, (unsigned)taken)) {
            /* What is behind the character that ends the run is another matter, but a lead before it is cut short. */
            if (_bzhi_u64(gai_z_utf8_errors(x), (unsigned)taken + 1)) {
                break;
            }
            if (taken == 64) {
                const uint8_t *last = text + i + 63;
                taken -= last[0] >= 0xC0 ? 1 : last[-1] >= 0xE0 ? 2 : last[-2] >= 0xF0 ? 3 : 0;
            }
            silent |= wide & _mm512_cmplt_epu8_mask(x, _mm512_set1_epi8((char)0xC0)); /* continuations */
        }
        _mm512_storeu_si512(out + i, x);
        *characters += taken - (size_t)_mm_popcnt_u64(_bzhi_u64(silent, (unsigned)taken));
    }
    return i;
}
#endif

const gai_simd *gai_avx512_loops(void) {
#if defined(GAI_HAS_AVX512)
    static gai_simd loops;
    const gai_simd *narrower = gai_avx2_loops(); /* for what does not pay here */
    if (narrower == NULL || !__builtin_cpu_supports("avx512vbmi2") || !__builtin_cpu_supports("avx512vbmi") ||
        !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512cd") || !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("bmi2")) {
        return NULL;
    }
    loops = *narrower;
    loops.name = "avx512";
    loops.escape = gai_z_escape;
    loops.copy_utf8 = gai_z_copy_utf8;
    loops.encode_ucs1 = gai_z_ucs1;
    loops.encode_ucs2 = gai_z_ucs2;
    loops.encode_ucs4 = gai_z_ucs4;
    return &loops;
#else
    return NULL;
#endif
}
