/* Every form of the loops: what it takes is what the scalar functions make of it, and nothing behind the bytes is read.
 * Prints the forms. */
#include "check.h"
#include "copy.h"
#include "escape.h"
#include "scan.h"

enum { ROUNDS = 4000, LONGEST = 200 };

static const uint32_t CHARACTERS[] = {'a', 'b', ' ', '"', '\\', '\n', 0, 0x1F, 0x7F, 0x80, 0xE9, 0x7FF, 0x800, 0xD7FF, 0xD800, 0xDC00,
                                      0xE000, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF};

/* Mostly plain ones, so that whole vectors are. */
static uint32_t character(uint64_t *random, uint32_t below) {
    uint32_t c = next_random(random) % 6 ? 'a' + next_random(random) % 26 : CHARACTERS[next_random(random) % LENGTH(CHARACTERS)];
    return c < below ? c : 'z';
}

#define ENCODED(NAME, TYPE, ESCAPE, BELOW)                                                                     \
    static void NAME(const gai_simd *form, uint64_t *random) {                                                 \
        TYPE text[LONGEST];                                                                                    \
        size_t length = next_random(random) % LONGEST, sizes[2], room = 6 * length + GAI_ESCAPE_ROOM;          \
        uint8_t *written[2];                                                                                   \
        for (size_t i = 0; i < length; i++) {                                                                  \
            text[i] = (TYPE)character(random, BELOW);                                                          \
        }                                                                                                      \
        TYPE *exact = (TYPE *)(void *)exactly(text, length * sizeof(TYPE));                                    \
        for (int which = 0; which < 2; which++) {                                                              \
            uint8_t *to = written[which] = (uint8_t *)malloc(room);                                            \
            CHECK(to != NULL, "no memory");                                                                    \
            gai_use_loops(which ? form : gai_scalar_loops());                                                  \
            CHECK(ESCAPE(&to, written[which] + room, exact, length) == length, "%s", form->name);              \
            sizes[which] = (size_t)(to - written[which]);                                                      \
        }                                                                                                      \
        CHECK(sizes[0] == sizes[1] && !memcmp(written[0], written[1], sizes[0]), "%s", form->name);            \
        free(written[0]);                                                                                      \
        free(written[1]);                                                                                      \
        free(exact);                                                                                           \
    }

ENCODED(utf8_is_escaped, uint8_t, gai_escape_utf8, 0x80)
ENCODED(latin_is_encoded, uint8_t, gai_escape_ucs1, 0x100)
ENCODED(two_bytes_are_encoded, uint16_t, gai_escape_ucs2, 0x10000)
ENCODED(four_bytes_are_encoded, uint32_t, gai_escape_ucs4, 0x110000)

/* The inside of a JSON string, spoilt now and then. */
static void strings_are_copied(const gai_simd *form, uint64_t *random) {
    static const char *const escapes[] = {"\\n", "\\\"", "\\\\", "\\u0041", "\\/", "\\ud83d\\ude00", "\\ud83d", "\\x", "\xff", "\xed\xa0\x80"};
    uint8_t text[8 * LONGEST], *to = text;
    for (uint32_t n = next_random(random) % LONGEST; n; n--) {
        uint32_t which = next_random(random) % 40, c = character(random, 0x110000);
        if (which < LENGTH(escapes) && (which < 6 || next_random(random) % 20 == 0)) {
            size_t size = strlen(escapes[which]);
            memcpy(to, escapes[which], size);
            to += size;
        } else if (c >= 0x80) {
            to = gai_is_surrogate(c) ? to : gai_put_utf8(to, c);
        } else {
            *to++ = (uint8_t)(c < 0x20 || c == '"' || c == '\\' ? 'q' : c);
        }
    }
    *to++ = '"';
    size_t size = (size_t)(to - text), cut = next_random(random) % 3 ? size : next_random(random) % (size + 1);
    uint8_t *exact = exactly(text, cut), *written[2];
    size_t sizes[2], characters[2] = {0, 0};
    int statuses[2];
    for (int which = 0; which < 2; which++) {
        const uint8_t *at = exact;
        uint8_t *out = written[which] = (uint8_t *)malloc(cut + GAI_COPY_ROOM);
        CHECK(out != NULL, "no memory");
        gai_use_loops(which ? form : gai_scalar_loops());
        statuses[which] = gai_copy_string(&at, exact + cut, &out, &characters[which]);
        sizes[which] = (size_t)(out - written[which]);
    }
    CHECK(statuses[0] == statuses[1] && characters[0] == characters[1], "%s: %.*s", form->name, (int)cut, exact);
    CHECK(sizes[0] == sizes[1] && !memcmp(written[0], written[1], sizes[0]), "%s: %.*s", form->name, (int)cut, exact);
    free(written[0]);
    free(written[1]);
    free(exact);
}

static void line_ends_are_found(const gai_simd *form, uint64_t *random) {
    uint8_t text[LONGEST];
    size_t length = next_random(random) % LONGEST, end = next_random(random) % LONGEST;
    memset(text, 'x', sizeof text);
    text[end] = next_random(random) % 2 ? '\n' : '\r';
    uint8_t *exact = exactly(text, length);
    gai_use_loops(form);
    CHECK(gai_find_line_end(exact, length) == (end < length ? end : length), "%s", form->name);
    free(exact);
}

int main(void) {
    const gai_simd *forms[] = {gai_scalar_loops(), gai_vector_loops()};
    for (size_t i = 0; i < LENGTH(forms) && forms[i] != NULL; i++) {
        uint64_t random = 1;
        for (int round = 0; round < ROUNDS; round++) {
            utf8_is_escaped(forms[i], &random);
            latin_is_encoded(forms[i], &random);
            two_bytes_are_encoded(forms[i], &random);
            four_bytes_are_encoded(forms[i], &random);
            strings_are_copied(forms[i], &random);
            line_ends_are_found(forms[i], &random);
        }
        printf("%s\n", forms[i]->name);
    }
    return 0;
}
