/* Integers → decimal digits. */
#ifndef GAI_INTEGERS_H
#define GAI_INTEGERS_H

#include <stdint.h>
#include <string.h>

#define GAI_INTEGER_ROOM 20 /* -9223372036854775808 and 18446744073709551615 */

/* Writes the digits; returns where they end. */
static inline uint8_t *gai_put_unsigned(uint8_t *at, uint64_t value) {
    uint8_t digits[GAI_INTEGER_ROOM];
    size_t begin = sizeof digits;
    do {
        digits[--begin] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value);
    memcpy(at, digits + begin, sizeof digits - begin);
    return at + (sizeof digits - begin);
}

static inline uint8_t *gai_put_integer(uint8_t *at, int64_t value) {
    if (value < 0) {
        *at++ = '-';
        return gai_put_unsigned(at, 0 - (uint64_t)value);
    }
    return gai_put_unsigned(at, (uint64_t)value);
}

#endif
