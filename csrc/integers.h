/* Integers → decimal digits. */
#ifndef GAI_INTEGERS_H
#define GAI_INTEGERS_H

#include <stdint.h>
#include <string.h>

#define GAI_INTEGER_ROOM 20 /* -9223372036854775808 and 18446744073709551615; all of it may be written */

static const char GAI_PAIRS[] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/* The value of a hexadecimal digit, plus one; 0 for any other byte. */
static const uint8_t GAI_HEX_DIGITS[256] = {
    ['0'] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ['A'] = 11, 12, 13, 14, 15, 16, ['a'] = 11, 12, 13, 14, 15, 16,
};

/* Writes the digits of a number with more than four digits. */
__attribute__((noinline, unused)) static uint8_t *gai_put_large(uint8_t *at, uint64_t value) {
    uint8_t digits[2 * GAI_INTEGER_ROOM];
    size_t begin = GAI_INTEGER_ROOM;
    while (value >= 100) {
        begin -= 2;
        memcpy(digits + begin, GAI_PAIRS + 2 * (value % 100), 2);
        value /= 100;
    }
    begin -= 2;
    memcpy(digits + begin, GAI_PAIRS + 2 * value, 2);
    begin += value < 10;
    memcpy(at, digits + begin, GAI_INTEGER_ROOM);
    return at + (GAI_INTEGER_ROOM - begin);
}

/* Writes the digits; returns their end. */
static inline uint8_t *gai_put_unsigned(uint8_t *at, uint64_t value) {
    /* The numbers of events are small: they need no loop. */
    if (value < 100) {
        *at = (uint8_t)('0' + value);
        if (value < 10) {
            return at + 1;
        }
        memcpy(at, GAI_PAIRS + 2 * value, 2);
        return at + 2;
    }
    if (value < 10000) {
        unsigned high = (unsigned)value / 100, low = (unsigned)value % 100, one = high < 10;
        memcpy(at, GAI_PAIRS + 2 * high + one, 2);
        memcpy(at + 2 - one, GAI_PAIRS + 2 * low, 2);
        return at + 4 - one;
    }
    return gai_put_large(at, value);
}

static inline uint8_t *gai_put_integer(uint8_t *at, int64_t value) {
    if (value < 0) {
        uint8_t digits[GAI_INTEGER_ROOM];
        size_t size = (size_t)(gai_put_unsigned(digits, 0 - (uint64_t)value) - digits);
        *at++ = '-';
        memcpy(at, digits, size);
        return at + size;
    }
    return gai_put_unsigned(at, (uint64_t)value);
}

#endif
