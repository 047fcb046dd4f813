/* skip.h: what a parser would take is taken, however it is cut; nothing else is, and nothing behind the bytes is read. */
#include "check.h"
#include "skip.h"

typedef int (*skip)(const uint8_t **in, const uint8_t *end);

static int status_of(skip function, const char *text, size_t size, size_t *taken) {
    uint8_t *bytes = exactly(text, size);
    const uint8_t *at = bytes;
    int status = function(&at, bytes + size);
    *taken = (size_t)(at - bytes);
    free(bytes);
    return status;
}

/* A value, and behind it a byte that ends it. */
static void takes(skip function, const char *value, char behind) {
    size_t size = strlen(value), taken;
    char *text = (char *)malloc(size + 2);
    CHECK(text != NULL, "no memory");
    memcpy(text, value, size);
    text[size] = behind;
    CHECK(status_of(function, text, size + 1, &taken) == GAI_COPY_DONE, "%s", value);
    CHECK(taken == size, "%s: %zu bytes", value, taken);
    for (size_t cut = 1; cut < size; cut++) {
        int status = status_of(function, text, cut, &taken);
        CHECK(status != GAI_COPY_MISS, "the first %zu bytes of %s", cut, value);
    }
    free(text);
}

static void refuses(skip function, const char *text) {
    size_t taken, size = strlen(text);
    CHECK(status_of(function, text, size, &taken) == GAI_COPY_MISS, "%s", text);
    CHECK(taken == 0, "%s: %zu bytes", text, taken);
}

static const char *const VALUES[] = {
    "null", "true", "false", "0", "-1", "12", "-1.5e-05", "1E+2", "0.25", "\"\"", "\"a\"", "\"\\\"\\\\\\/\\u00e9\\ud83d\\ude00 \xc3\xa9\"",
    "{}", "[]", "[ 1 , [ ] ]", "{\"a\":1,\"b\":{\"c\":[null,true]}}", "[\"\xf0\x9f\x98\x80\",{\"\":-0.5}]",
};
static const char *const NO_VALUES[] = {
    "nul,", "tru ", "01,", "-,", "1.,", ".5,", "1e,", "+1,", "\"\\x\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\t\"", "\"\xff\"", "\"\xed\xa0\x80\"",
    "[1,]", "[,1]", "[1 2]", "{1:2}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "[}", "]", "NaN", "[\n]", "{\"a\":1 \"b\":2}", ",", "1e999,",
};
static const char *const FRACTIONS[] = {"0.5", "1.5", "0.25e-05", "1.5e-5", "7e-12", "0.30000000000000004", "123456.789", "0.000012"};
static const char *const NO_FRACTIONS[] = {
    "5.0,", "0.0,", "5,", "10e-1,", "1e1,", "1.5e1,", "9.99999999999999999e-1,", "1.00000000000000000001,", "0.99999999999999999999,",
    "6.99999999999999999999,", "0e-5,", "-1.5,", "123456789012345.5,", "1.5e-00,", "1e+2,", "15e-1,",
};
static const char *const COUNTS[] = {"1", "10", "999999999999999"};
static const char *const NO_COUNTS[] = {"0,", "01,", "-1,", "1234567890123456,", ",", " ", "x"};

int main(void) {
    gai_use_loops(gai_scalar_loops());
    for (size_t i = 0; i < LENGTH(VALUES); i++) {
        takes(gai_skip_value, VALUES[i], ',');
        takes(gai_skip_value, VALUES[i], '}');
    }
    for (size_t i = 0; i < LENGTH(NO_VALUES); i++) {
        refuses(gai_skip_value, NO_VALUES[i]);
    }
    for (size_t i = 0; i < LENGTH(FRACTIONS); i++) {
        takes(gai_skip_decimal, FRACTIONS[i], ',');
        size_t taken, size = strlen(FRACTIONS[i]);
        char text[64];
        snprintf(text, sizeof text, "%s,", FRACTIONS[i]);
        int is_one = gai_is_fraction((const uint8_t *)text, (const uint8_t *)text + size);
        CHECK(is_one == (status_of(gai_skip_fraction, text, size + 1, &taken) == GAI_COPY_DONE), "%s", text);
        CHECK(is_one == (FRACTIONS[i][0] != '0' || strchr(FRACTIONS[i], 'e') == NULL), "%s", text);
    }
    for (size_t i = 0; i < LENGTH(NO_FRACTIONS); i++) {
        refuses(gai_skip_fraction, NO_FRACTIONS[i]);
    }
    for (size_t i = 0; i < LENGTH(COUNTS); i++) {
        takes(gai_skip_some, COUNTS[i], ',');
        takes(gai_skip_count, COUNTS[i], '}');
    }
    for (size_t i = 0; i < LENGTH(NO_COUNTS); i++) {
        refuses(gai_skip_some, NO_COUNTS[i]);
    }
    char deep[2 * GAI_LEVELS + 3];
    memset(deep, '[', GAI_LEVELS + 1);
    memset(deep + GAI_LEVELS + 1, ']', GAI_LEVELS + 1);
    deep[2 * GAI_LEVELS + 2] = 0;
    refuses(gai_skip_value, deep);
    memmove(deep, deep + 1, 2 * GAI_LEVELS);
    deep[2 * GAI_LEVELS] = 0;
    takes(gai_skip_value, deep, ',');
    return 0;
}
