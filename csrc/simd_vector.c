/* The loops on vectors of 16 bytes: one algorithm, and its operations for each architecture.
 *
 * x86-64 needs SSE4.1 and POPCNT, for which the import of the kernels checks; AArch64 always has the instructions.
 */
#include "simd.h"
#include "utf8.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define GAI_HAS_VECTORS 1
#define GAI_VECTOR_NAME "sse"
#define GAI_VECTOR __attribute__((target("sse4.1,popcnt")))
#include <smmintrin.h>

typedef __m128i gai_v;

#define GAI_V static inline GAI_VECTOR __attribute__((always_inline))

GAI_V gai_v gai_v_load(const void *at) { return _mm_loadu_si128((const __m128i *)at); }
GAI_V void gai_v_store(void *at, gai_v x) { _mm_storeu_si128((__m128i *)at, x); }
GAI_V gai_v gai_v_8(uint8_t c) { return _mm_set1_epi8((char)c); }
GAI_V gai_v gai_v_or(gai_v a, gai_v b) { return _mm_or_si128(a, b); }
GAI_V gai_v gai_v_and(gai_v a, gai_v b) { return _mm_and_si128(a, b); }
GAI_V gai_v gai_v_xor(gai_v a, gai_v b) { return _mm_xor_si128(a, b); }
GAI_V gai_v gai_v_equal(gai_v a, gai_v b) { return _mm_cmpeq_epi8(a, b); }
GAI_V gai_v gai_v_below(gai_v a, uint8_t c) { return _mm_cmpeq_epi8(_mm_min_epu8(a, gai_v_8(c - 1)), a); }
GAI_V gai_v gai_v_minus(gai_v a, uint8_t c) { return _mm_subs_epu8(a, gai_v_8(c)); }
GAI_V gai_v gai_v_high(gai_v a) { return _mm_and_si128(_mm_srli_epi16(a, 4), gai_v_8(15)); }
GAI_V gai_v gai_v_pick(gai_v table, gai_v at) { return _mm_shuffle_epi8(table, at); } /* at >= 0x80: zero */
#define gai_v_before(x, n) _mm_slli_si128(x, n) /* the bytes n places before, zeros at the beginning */
GAI_V gai_v gai_v_low_pairs(gai_v a, gai_v b) { return _mm_unpacklo_epi8(a, b); } /* the first bytes of both in turn */
GAI_V gai_v gai_v_high_pairs(gai_v a, gai_v b) { return _mm_unpackhi_epi8(a, b); }
/* Returns the highest bits of all bytes. */
GAI_V uint32_t gai_v_bits(gai_v a) { return (uint32_t)_mm_movemask_epi8(a); }
GAI_V uint32_t gai_v_count(uint32_t bits) { return (uint32_t)_mm_popcnt_u32(bits); }

/* Lanes of two and of four bytes, in the same vectors. */
GAI_V gai_v gai_v_16(uint16_t c) { return _mm_set1_epi16((short)c); }
GAI_V gai_v gai_v_equal16(gai_v a, gai_v b) { return _mm_cmpeq_epi16(a, b); }
#define gai_v_left16(a, n) _mm_slli_epi16(a, n)
#define gai_v_right16(a, n) _mm_srli_epi16(a, n)
GAI_V gai_v gai_v_narrow16(gai_v a, gai_v b) { return _mm_packus_epi16(a, b); } /* of lanes below 0x100 */
GAI_V gai_v gai_v_narrow32(gai_v a, gai_v b) { return _mm_packus_epi32(a, b); } /* of lanes below 0x10000 */
GAI_V gai_v gai_v_narrow_mask16(gai_v a) { return _mm_packs_epi16(a, a); }
GAI_V gai_v gai_v_low8(gai_v a) { return _mm_cvtepu8_epi16(a); }
GAI_V gai_v gai_v_high8(gai_v a) { return _mm_unpackhi_epi8(a, _mm_setzero_si128()); }
GAI_V int gai_v_none(gai_v a) { return _mm_testz_si128(a, a); }
GAI_V gai_v gai_v_32(uint32_t c) { return _mm_set1_epi32((int)c); }
GAI_V gai_v gai_v_equal32(gai_v a, gai_v b) { return _mm_cmpeq_epi32(a, b); }
GAI_V gai_v gai_v_above32(gai_v a, uint32_t c) { return _mm_cmpgt_epi32(a, gai_v_32(c)); }
#define gai_v_left32(a, n) _mm_slli_epi32(a, n)
#define gai_v_right32(a, n) _mm_srli_epi32(a, n)
GAI_V uint32_t gai_v_bits32(gai_v a) { return (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(a)); }
GAI_V gai_v gai_v_choose(gai_v mask, gai_v yes, gai_v no) { return _mm_blendv_epi8(no, yes, mask); }

#elif defined(__aarch64__) && defined(__GNUC__) && GAI_LITTLE_ENDIAN
#define GAI_HAS_VECTORS 1
#define GAI_VECTOR_NAME "neon"
#define GAI_VECTOR
#include <arm_neon.h>

typedef uint8x16_t gai_v;

#define GAI_V static inline __attribute__((always_inline))

GAI_V gai_v gai_v_load(const void *at) { return vld1q_u8((const uint8_t *)at); }
GAI_V void gai_v_store(void *at, gai_v x) { vst1q_u8((uint8_t *)at, x); }
GAI_V gai_v gai_v_8(uint8_t c) { return vdupq_n_u8(c); }
GAI_V gai_v gai_v_or(gai_v a, gai_v b) { return vorrq_u8(a, b); }
GAI_V gai_v gai_v_and(gai_v a, gai_v b) { return vandq_u8(a, b); }
GAI_V gai_v gai_v_xor(gai_v a, gai_v b) { return veorq_u8(a, b); }
GAI_V gai_v gai_v_equal(gai_v a, gai_v b) { return vceqq_u8(a, b); }
GAI_V gai_v gai_v_below(gai_v a, uint8_t c) { return vcltq_u8(a, gai_v_8(c)); }
GAI_V gai_v gai_v_minus(gai_v a, uint8_t c) { return vqsubq_u8(a, gai_v_8(c)); }
GAI_V gai_v gai_v_high(gai_v a) { return vshrq_n_u8(a, 4); }
GAI_V gai_v gai_v_pick(gai_v table, gai_v at) { return vqtbl1q_u8(table, at); } /* at >= 16: zero */
#define gai_v_before(x, n) vextq_u8(vdupq_n_u8(0), x, 16 - (n))
GAI_V gai_v gai_v_low_pairs(gai_v a, gai_v b) { return vzip1q_u8(a, b); }
GAI_V gai_v gai_v_high_pairs(gai_v a, gai_v b) { return vzip2q_u8(a, b); }
GAI_V uint32_t gai_v_bits(gai_v a) {
    static const uint8_t places[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    gai_v set = vandq_u8(vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(a), 7)), vld1q_u8(places));
    return vaddv_u8(vget_low_u8(set)) | (uint32_t)vaddv_u8(vget_high_u8(set)) << 8;
}
GAI_V uint32_t gai_v_count(uint32_t bits) { return (uint32_t)__builtin_popcount(bits); }

#define GAI_16(x) vreinterpretq_u16_u8(x)
#define GAI_32(x) vreinterpretq_u32_u8(x)
#define GAI_FROM_16(x) vreinterpretq_u8_u16(x)
#define GAI_FROM_32(x) vreinterpretq_u8_u32(x)
GAI_V gai_v gai_v_16(uint16_t c) { return GAI_FROM_16(vdupq_n_u16(c)); }
GAI_V gai_v gai_v_equal16(gai_v a, gai_v b) { return GAI_FROM_16(vceqq_u16(GAI_16(a), GAI_16(b))); }
#define gai_v_left16(a, n) GAI_FROM_16(vshlq_n_u16(GAI_16(a), n))
#define gai_v_right16(a, n) GAI_FROM_16(vshrq_n_u16(GAI_16(a), n))
GAI_V gai_v gai_v_narrow16(gai_v a, gai_v b) { return vcombine_u8(vmovn_u16(GAI_16(a)), vmovn_u16(GAI_16(b))); }
GAI_V gai_v gai_v_narrow32(gai_v a, gai_v b) {
    return GAI_FROM_16(vcombine_u16(vmovn_u32(GAI_32(a)), vmovn_u32(GAI_32(b))));
}
GAI_V gai_v gai_v_narrow_mask16(gai_v a) { return gai_v_narrow16(a, a); }
GAI_V gai_v gai_v_low8(gai_v a) { return GAI_FROM_16(vmovl_u8(vget_low_u8(a))); }
GAI_V gai_v gai_v_high8(gai_v a) { return GAI_FROM_16(vmovl_u8(vget_high_u8(a))); }
GAI_V int gai_v_none(gai_v a) { return !vmaxvq_u8(a); }
GAI_V gai_v gai_v_32(uint32_t c) { return GAI_FROM_32(vdupq_n_u32(c)); }
GAI_V gai_v gai_v_equal32(gai_v a, gai_v b) { return GAI_FROM_32(vceqq_u32(GAI_32(a), GAI_32(b))); }
GAI_V gai_v gai_v_above32(gai_v a, uint32_t c) { return GAI_FROM_32(vcgtq_u32(GAI_32(a), vdupq_n_u32(c))); }
#define gai_v_left32(a, n) GAI_FROM_32(vshlq_n_u32(GAI_32(a), n))
#define gai_v_right32(a, n) GAI_FROM_32(vshrq_n_u32(GAI_32(a), n))
GAI_V uint32_t gai_v_bits32(gai_v a) {
    static const uint32_t places[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(GAI_32(a), vld1q_u32(places)));
}
GAI_V gai_v gai_v_choose(gai_v mask, gai_v yes, gai_v no) { return vbslq_u8(mask, yes, no); }
#endif

#if defined(GAI_HAS_VECTORS)

GAI_V gai_v gai_v_escaped(gai_v x) {
    gai_v named = gai_v_or(gai_v_equal(x, gai_v_8('"')), gai_v_equal(x, gai_v_8('\\')));
    return gai_v_or(gai_v_below(x, 0x20), named);
}

/* Every character is encoded in a place of its own; then a shuffle drops the unused bytes of each place. These are the
 * shuffles. For eight places of two bytes, the index says which characters have two bytes. For four places of three or
 * four bytes, bits 0 to 3 say which characters have two bytes or more, bits 4 to 7 which have three or more. In a
 * place of four bytes, the second bit without the first means four bytes. */
static uint8_t gai_packing2[256][16], gai_packing3[256][16], gai_packing4[256][16];

static void gai_fill_packing(uint8_t *packing, int index, int places, int width) {
    int to = 0;
    memset(packing, 0xFF, 16);
    for (int place = 0; place < places; place++) {
        int two = index >> place & 1, three = places == 4 && index >> (place + 4) & 1;
        int size = two ? 2 + three : three ? 4 : 1;
        for (int i = 0; i < size && to < 16; i++) {
            packing[to++] = (uint8_t)(width * place + i);
        }
    }
}

static void gai_fill_packings(void) {
    for (int index = 0; index < 256; index++) {
        gai_fill_packing(gai_packing2[index], index, 8, 2);
        gai_fill_packing(gai_packing3[index], index, 4, 3);
        gai_fill_packing(gai_packing4[index], index, 4, 4);
    }
}

/* By the low nibble: the only character with an escape of two bytes, and the letter of this escape. \f is not among
 * them, because it shares its nibble with the backslash; U+0000 has no such escape. */
static const uint8_t gai_escaped_characters[16] = {1, [2] = '"', [8] = '\b', '\t', '\n', [12] = '\\', '\r'};
static const uint8_t gai_escape_letters[16] = {[2] = '"', [8] = 'b', 't', 'n', [12] = '\\', 'r'};

/* Writes sixteen characters, with an escape of two bytes for each character whose bit is set. `first` holds a backslash
 * for these characters, `second` their letters. Writes up to 32 bytes; returns how many of them are output. */
GAI_V size_t gai_v_put_escapes(uint8_t *out, gai_v first, gai_v second, uint32_t bits) {
    gai_v low = gai_v_load(gai_packing2[bits & 0xFF]), high = gai_v_load(gai_packing2[bits >> 8]);
    size_t size = 8 + gai_v_count(bits & 0xFF);
    gai_v_store(out, gai_v_pick(gai_v_low_pairs(first, second), low));
    gai_v_store(out + size, gai_v_pick(gai_v_high_pairs(first, second), high));
    return size + 8 + gai_v_count(bits >> 8);
}

/* Escapes whole blocks, beginning with a block that needs an escape; stops at a block with an escape of six bytes, or
 * \f. Inside gai_vector_escape this code would cost an event of short pieces 2 %. */
static __attribute__((noinline)) GAI_VECTOR size_t gai_vector_write_escapes(uint8_t **out, const uint8_t *end,
                                                                            const uint8_t *text, size_t length) {
    uint8_t *to = *out;
    size_t i = 0;
    while (length - i >= 16 && end - to >= 32) {
        gai_v x = gai_v_load(text + i), nibble = gai_v_and(x, gai_v_8(15));
        gai_v escaped = gai_v_equal(x, gai_v_pick(gai_v_load(gai_escaped_characters), nibble));
        uint32_t needed = gai_v_bits(gai_v_escaped(x)), bits = gai_v_bits(escaped);
        if (!needed) {
            gai_v_store(to, x);
            to += 16;
        } else if (bits == needed) {
            gai_v first = gai_v_choose(escaped, gai_v_8('\\'), x);
            to += gai_v_put_escapes(to, first, gai_v_pick(gai_v_load(gai_escape_letters), nibble), bits);
        } else {
            break;
        }
        i += 16;
    }
    *out = to;
    return i;
}

static GAI_VECTOR size_t gai_vector_escape(uint8_t **out, const uint8_t *end, const uint8_t *text, size_t length) {
    uint8_t *to = *out;
    size_t i = 0, most = (size_t)(end - to) < length ? (size_t)(end - to) : length;
    while (most - i >= 16) {
        gai_v x = gai_v_load(text + i);
        uint32_t bits = gai_v_bits(gai_v_escaped(x));
        gai_v_store(to + i, x);
        if (bits) {
            *out = to + i;
            size_t taken = gai_vector_write_escapes(out, end, text + i, length - i);
            if (!taken) {
                taken = (size_t)__builtin_ctz(bits);
                *out += taken;
            }
            return i + taken;
        }
        i += 16;
    }
    *out = to + i;
    return i;
}

static GAI_VECTOR size_t gai_vector_skip_line(const uint8_t *data, size_t length) {
    size_t i = 0;
    while (length - i >= 16) {
        gai_v x = gai_v_load(data + i);
        uint32_t bits = gai_v_bits(gai_v_or(gai_v_equal(x, gai_v_8('\n')), gai_v_equal(x, gai_v_8('\r'))));
        if (bits) {
            return i + (size_t)__builtin_ctz(bits);
        }
        i += 16;
    }
    return i;
}

/* ---- UTF-8 ----------------------------------------------------------------------------------------------------- */

/* Returns non-zero bytes where the input is not UTF-8, if its first byte begins a character. An incomplete character at
 * the end of the vector is not an error. Uses the tables of utf8.h. */
GAI_V gai_v gai_v_utf8_errors(gai_v x) {
    gai_v before = gai_v_before(x, 1);
    gai_v errors = gai_v_and(
        gai_v_and(gai_v_pick(gai_v_load(gai_utf8_table(GAI_FIRST_HIGH)), gai_v_high(before)),
                  gai_v_pick(gai_v_load(gai_utf8_table(GAI_FIRST_LOW)), gai_v_and(before, gai_v_8(15)))),
        gai_v_pick(gai_v_load(gai_utf8_table(GAI_SECOND_HIGH)), gai_v_high(x)));
    gai_v long_lead = gai_v_or(gai_v_minus(gai_v_before(x, 2), 0xE0 - 0x80), gai_v_minus(gai_v_before(x, 3), 0xF0 - 0x80));
    return gai_v_xor(gai_v_and(long_lead, gai_v_8(0x80)), errors);
}

/* Returns which bytes are the letter of an escape that is copied unchanged: one of " \ b f n r t. `highs` has a bit for
 * each high nibble, `lows` the bits of the high nibbles that each low nibble may follow. */
GAI_V uint32_t gai_v_copied_letters(gai_v x) {
    static const uint8_t highs[16] = {[2] = 1, [5] = 2, [6] = 4, [7] = 8};
    static const uint8_t lows[16] = {[2] = 1 | 4 | 8, [4] = 8, [6] = 4, [12] = 2, [14] = 4};
    gai_v found = gai_v_and(gai_v_pick(gai_v_load(highs), gai_v_high(x)),
                            gai_v_pick(gai_v_load(lows), gai_v_and(x, gai_v_8(15))));
    return ~gai_v_bits(gai_v_equal(found, gai_v_8(0))) & 0xFFFF;
}

static GAI_VECTOR size_t gai_vector_copy_utf8(uint8_t *out, const uint8_t *text, size_t length, size_t *characters) {
    size_t i = 0, count = 0, taken = 16;
    /* If less than 13 bytes of a block were copied, the copy ends there. */
    while (taken > 12 && length - i >= 16) {
        gai_v x = gai_v_load(text + i);
        uint32_t stop = gai_v_bits(gai_v_escaped(x)), wide = gai_v_bits(x), silent = 0;
        gai_v_store(out + i, x);
        if (!(stop | wide)) {
            i += 16;
            count += 16;
            continue;
        }
        uint32_t backslash = stop ? gai_v_bits(gai_v_equal(x, gai_v_8('\\'))) : 0;
        if (backslash) {
            /* In a row of backslashes every other one begins an escape: the subtraction carries through the row. */
            uint32_t either = ((backslash << 1 | 0xAAAAAAAA) - backslash) ^ 0xAAAAAAAA;
            uint32_t letter = either ^ backslash;
            silent = either & backslash;
            stop &= ~(backslash | letter);
            stop |= (letter & ~gai_v_copied_letters(x) & 0xFFFF) >> 1 | (silent & 0x8000);
        }
        taken = stop ? (size_t)__builtin_ctz(stop) : 16;
        if (wide & ((1u << taken) - 1)) {
            uint32_t fine = gai_v_bits(gai_v_equal(gai_v_utf8_errors(x), gai_v_8(0)));
            /* Errors after the character that ends the run do not count, but a lead right before it is incomplete. */
            if (~fine & ((2u << taken) - 1) & 0xFFFF) {
                break;
            }
            if (taken == 16) {
                taken -= text[i + 15] >= 0xC0 ? 1 : text[i + 14] >= 0xE0 ? 2 : text[i + 13] >= 0xF0 ? 3 : 0;
            }
            silent |= wide & gai_v_bits(gai_v_below(x, 0xC0)); /* continuations are 80..BF */
        }
        i += taken;
        count += taken - gai_v_count(silent & ((1u << taken) - 1));
    }
    *characters += count;
    return i;
}

/* ---- characters → UTF-8 ---------------------------------------------------------------------------------------- */

/* Encodes four code points that are not surrogates. Writes 16 bytes; returns how many of them are output. */
GAI_V size_t gai_v_encode4(uint8_t *out, gai_v c) {
    if (gai_v_none(gai_v_right32(c, 7))) {
        gai_v_store(out, gai_v_narrow16(gai_v_narrow32(c, c), c));
        return 4;
    }
    gai_v low = gai_v_32(0x3F), lead = gai_v_32(0x80);
    gai_v two = gai_v_above32(c, 0x7F), three = gai_v_above32(c, 0x7FF), four = gai_v_above32(c, 0xFFFF);
    gai_v last = gai_v_or(gai_v_and(c, low), lead);
    gai_v middle = gai_v_or(gai_v_and(gai_v_right32(c, 6), low), lead);
    gai_v in2 = gai_v_or(gai_v_or(gai_v_right32(c, 6), gai_v_32(0xC0)), gai_v_left32(last, 8));
    gai_v in3 = gai_v_or(gai_v_or(gai_v_right32(c, 12), gai_v_32(0xE0)),
                         gai_v_or(gai_v_left32(middle, 8), gai_v_left32(last, 16)));
    gai_v bytes = gai_v_choose(three, in3, gai_v_choose(two, in2, c));
    uint32_t ones = gai_v_bits32(two), twos = gai_v_bits32(three), threes = gai_v_bits32(four);
    if (threes) {
        gai_v second = gai_v_or(gai_v_and(gai_v_right32(c, 12), low), lead);
        gai_v in4 = gai_v_or(gai_v_or(gai_v_right32(c, 18), gai_v_32(0xF0)), gai_v_left32(second, 8));
        in4 = gai_v_or(in4, gai_v_or(gai_v_left32(middle, 16), gai_v_left32(last, 24)));
        bytes = gai_v_choose(four, in4, bytes);
    }
    gai_v_store(out, gai_v_pick(bytes, gai_v_load(gai_packing4[(ones ^ threes) | twos << 4])));
    return 4 + gai_v_count(ones | twos << 4 | threes << 8);
}

/* Encodes eight characters below 0x800. Writes 16 bytes; returns how many of them are output. */
GAI_V size_t gai_v_encode8_short(uint8_t *out, gai_v c) {
    gai_v one = gai_v_equal16(gai_v_right16(c, 7), gai_v_16(0));
    gai_v last = gai_v_left16(gai_v_and(c, gai_v_16(0x3F)), 8);
    gai_v two = gai_v_or(gai_v_or(gai_v_right16(c, 6), last), gai_v_16(0x80C0));
    uint32_t twos = ~gai_v_bits(gai_v_narrow_mask16(one)) & 0xFF;
    gai_v_store(out, gai_v_pick(gai_v_choose(one, c, two), gai_v_load(gai_packing2[twos])));
    return 8 + gai_v_count(twos);
}

/* Writes four characters, the first or second `half`: two bytes are in each lane of `pairs`, the third in `thirds`. */
GAI_V size_t gai_v_put4(uint8_t *out, gai_v pairs, gai_v thirds, int half, uint32_t index) {
    static const uint8_t at_pairs[2][16] = {{0, 1, 255, 2, 3, 255, 4, 5, 255, 6, 7, 255, 255, 255, 255, 255},
                                            {8, 9, 255, 10, 11, 255, 12, 13, 255, 14, 15, 255, 255, 255, 255, 255}};
    static const uint8_t at_thirds[2][16] = {{255, 255, 0, 255, 255, 1, 255, 255, 2, 255, 255, 3, 255, 255, 255, 255},
                                             {255, 255, 4, 255, 255, 5, 255, 255, 6, 255, 255, 7, 255, 255, 255, 255}};
    gai_v bytes = gai_v_or(gai_v_pick(pairs, gai_v_load(at_pairs[half])), gai_v_pick(thirds, gai_v_load(at_thirds[half])));
    gai_v_store(out, index == 0xFF ? bytes : gai_v_pick(bytes, gai_v_load(gai_packing3[index])));
    return 4 + gai_v_count(index);
}

/* Encodes eight characters below 0x10000 that are not surrogates. Writes up to 28 bytes; returns the output's size. */
GAI_V size_t gai_v_encode8(uint8_t *out, gai_v c) {
    gai_v upto2 = gai_v_equal16(gai_v_right16(c, 11), gai_v_16(0));
    uint32_t threes = ~gai_v_bits(gai_v_narrow_mask16(upto2)) & 0xFF;
    if (!threes) {
        return gai_v_encode8_short(out, c);
    }
    gai_v upto1 = gai_v_equal16(gai_v_right16(c, 7), gai_v_16(0));
    uint32_t twos = ~gai_v_bits(gai_v_narrow_mask16(upto1)) & 0xFF;
    gai_v low = gai_v_16(0x3F), lead = gai_v_16(0x80);
    gai_v last = gai_v_or(gai_v_and(c, low), lead);
    gai_v shifted = gai_v_right16(c, 6);
    gai_v in3 = gai_v_or(gai_v_right16(c, 12), gai_v_16(0xE0));
    gai_v first = gai_v_choose(upto2, gai_v_choose(upto1, c, gai_v_or(shifted, gai_v_16(0xC0))), in3);
    gai_v second = gai_v_choose(upto2, last, gai_v_or(gai_v_and(shifted, low), lead));
    gai_v pairs = gai_v_or(first, gai_v_left16(second, 8)), thirds = gai_v_narrow16(last, last);
    size_t size = gai_v_put4(out, pairs, thirds, 0, (twos & 15) | (threes & 15) << 4);
    return size + gai_v_put4(out + size, pairs, thirds, 1, twos >> 4 | (threes & 0xF0));
}

/* Returns which characters need an escape or are surrogates. */
GAI_V gai_v gai_v_bad16(gai_v c) {
    return gai_v_or(gai_v_or(gai_v_equal16(c, gai_v_16('"')), gai_v_equal16(c, gai_v_16('\\'))),
                    gai_v_or(gai_v_equal16(gai_v_right16(c, 5), gai_v_16(0)),
                             gai_v_equal16(gai_v_right16(c, 11), gai_v_16(0xD800 >> 11))));
}

/* Encodes up to sixteen characters below 0x10000, at once if they are ASCII. */
GAI_V size_t gai_v_encode16(uint8_t *out, gai_v first, gai_v second, size_t *taken) {
    if (gai_v_none(gai_v_right16(gai_v_or(first, second), 7))) {
        gai_v x = gai_v_narrow16(first, second);
        uint32_t bits = gai_v_bits(gai_v_escaped(x));
        gai_v_store(out, x);
        return *taken = bits ? (size_t)__builtin_ctz(bits) : 16;
    }
    if (gai_v_none(gai_v_or(gai_v_bad16(first), gai_v_bad16(second)))) {
        size_t size = gai_v_encode8(out, first);
        return size + gai_v_encode8(out + size, second);
    }
    *taken = gai_v_none(gai_v_bad16(first)) ? 8 : 0;
    return *taken ? gai_v_encode8(out, first) : 0;
}

GAI_V gai_v gai_v_bad32(gai_v c) {
    return gai_v_or(gai_v_or(gai_v_equal32(c, gai_v_32('"')), gai_v_equal32(c, gai_v_32('\\'))),
                    gai_v_or(gai_v_equal32(gai_v_right32(c, 5), gai_v_32(0)),
                             gai_v_equal32(gai_v_right32(c, 11), gai_v_32(0xD800 >> 11))));
}

/* Encodes eight code points. */
GAI_V size_t gai_v_encode8_of_32(uint8_t *out, gai_v a, gai_v b) {
    if (gai_v_none(gai_v_right32(gai_v_or(a, b), 16))) {
        return gai_v_encode8(out, gai_v_narrow32(a, b));
    }
    size_t size = gai_v_encode4(out, a);
    return size + gai_v_encode4(out + size, b);
}

/* Encodes up to sixteen code points. */
GAI_V size_t gai_v_encode_astral(uint8_t *out, gai_v a, gai_v b, gai_v c, gai_v d, size_t *taken) {
    if (!gai_v_none(gai_v_or(gai_v_bad32(a), gai_v_bad32(b)))) {
        return *taken = 0;
    }
    size_t size = gai_v_encode8_of_32(out, a, b);
    *taken = gai_v_none(gai_v_or(gai_v_bad32(c), gai_v_bad32(d))) ? 16 : 8;
    return *taken == 8 ? size : size + gai_v_encode8_of_32(out + size, c, d);
}

GAI_V size_t gai_v_step1(uint8_t *out, const uint8_t *text, size_t *taken) {
    gai_v x = gai_v_load(text);
    uint32_t escaped = gai_v_bits(gai_v_escaped(x));
    if (!gai_v_bits(x)) {
        gai_v_store(out, x);
        return *taken = escaped ? (size_t)__builtin_ctz(escaped) : 16;
    }
    if (escaped & 0xFF) {
        return *taken = 0;
    }
    size_t size = gai_v_encode8_short(out, gai_v_low8(x));
    *taken = escaped ? 8 : 16;
    return escaped ? size : size + gai_v_encode8_short(out + size, gai_v_high8(x));
}

GAI_V size_t gai_v_step2(uint8_t *out, const uint16_t *text, size_t *taken) {
    return gai_v_encode16(out, gai_v_load(text), gai_v_load(text + 8), taken);
}

GAI_V size_t gai_v_step4(uint8_t *out, const uint32_t *text, size_t *taken) {
    gai_v a = gai_v_load(text), b = gai_v_load(text + 4), c = gai_v_load(text + 8), d = gai_v_load(text + 12);
    if (gai_v_none(gai_v_right32(gai_v_or(gai_v_or(a, b), gai_v_or(c, d)), 16))) {
        return gai_v_encode16(out, gai_v_narrow32(a, b), gai_v_narrow32(c, d), taken);
    }
    return gai_v_encode_astral(out, a, b, c, d, taken);
}

#define GAI_ENCODE(NAME, TYPE, STEP)                                                                           \
    static GAI_VECTOR size_t NAME(uint8_t **out, const uint8_t *end, const TYPE *text, size_t length) {        \
        uint8_t *to = *out;                                                                                    \
        size_t i = 0, taken = 16;                                                                              \
        while (taken == 16 && length - i >= 16 && end - to >= 64) {                                            \
            to += STEP(to, text + i, &taken);                                                                  \
            i += taken;                                                                                        \
        }                                                                                                      \
        *out = to;                                                                                             \
        return i;                                                                                              \
    }

GAI_ENCODE(gai_vector_ucs1, uint8_t, gai_v_step1)
GAI_ENCODE(gai_vector_ucs2, uint16_t, gai_v_step2)
GAI_ENCODE(gai_vector_ucs4, uint32_t, gai_v_step4)

static const gai_simd GAI_VECTORS = {
    GAI_VECTOR_NAME, gai_vector_escape, gai_vector_copy_utf8, gai_vector_ucs1, gai_vector_ucs2, gai_vector_ucs4,
    gai_vector_skip_line,
};

#endif

const gai_simd *gai_vector_loops(void) {
#if defined(GAI_HAS_VECTORS)
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("sse4.1") || !__builtin_cpu_supports("popcnt")) {
        return NULL;
    }
#endif
    gai_fill_packings();
    return &GAI_VECTORS;
#else
    return NULL;
#endif
}
