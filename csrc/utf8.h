/* Code points → UTF-8. */
#ifndef GAI_UTF8_H
#define GAI_UTF8_H

#include <stdint.h>

#define GAI_REPLACEMENT 0xFFFDu

static inline int gai_is_high_surrogate(uint32_t c) { return (c & 0xFFFFFC00u) == 0xD800u; }
static inline int gai_is_low_surrogate(uint32_t c) { return (c & 0xFFFFFC00u) == 0xDC00u; }
static inline int gai_is_surrogate(uint32_t c) { return (c & 0xFFFFF800u) == 0xD800u; }

/* Writes a scalar value of 0x80 or more (the caller has taken ASCII and surrogates out); 2 to 4 bytes. */
static inline uint8_t *gai_put_utf8(uint8_t *at, uint32_t c) {
    if (c < 0x800) {
        *at++ = (uint8_t)(0xC0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *at++ = (uint8_t)(0xE0 | c >> 12);
        } else {
            *at++ = (uint8_t)(0xF0 | c >> 18);
            *at++ = (uint8_t)(0x80 | (c >> 12 & 0x3F));
        }
        *at++ = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    }
    *at++ = (uint8_t)(0x80 | (c & 0x3F));
    return at;
}

#endif
