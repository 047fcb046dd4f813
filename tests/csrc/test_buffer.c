/* buffer.h, head.h, integers.h and trail.h: what is written is there, in memory that is large enough. */
#include <inttypes.h>

#include "buffer.h"
#include "check.h"
#include "head.h"
#include "integers.h"
#include "trail.h"

static void an_integer(int64_t value) {
    char expected[32];
    uint8_t *to = (uint8_t *)malloc(2 * GAI_INTEGER_ROOM);
    CHECK(to != NULL, "no memory");
    int size = snprintf(expected, sizeof expected, "%" PRId64, value);
    CHECK(gai_put_integer(to, value) == to + size && !memcmp(to, expected, (size_t)size), "%s", expected);
    free(to);
    to = (uint8_t *)malloc(GAI_INTEGER_ROOM);
    CHECK(to != NULL, "no memory");
    size = snprintf(expected, sizeof expected, "%" PRIu64, (uint64_t)value);
    CHECK(gai_put_unsigned(to, (uint64_t)value) == to + size && !memcmp(to, expected, (size_t)size), "%s", expected);
    free(to);
}

static void a_buffer_that_grows(size_t borrowed) {
    gai_buffer buffer;
    uint8_t *memory = exactly("", 0);
    memory = (uint8_t *)realloc(memory, borrowed ? borrowed : 1);
    gai_borrow(&buffer, memory, borrowed);
    for (unsigned i = 0; i < 5000; i++) {
        uint8_t octet = (uint8_t)i;
        CHECK(gai_append(&buffer, &octet, 1) == 0, "%u", i);
    }
    for (unsigned i = 0; i < 5000; i++) {
        CHECK(buffer.data[i] == (uint8_t)i, "%u", i);
    }
    CHECK(gai_reserve(&buffer, SIZE_MAX) < 0 && gai_reserve(&buffer, SIZE_MAX / 2) < 0, "more than there is");
    CHECK(buffer.size == 5000 && buffer.data[4999] == (uint8_t)4999, "what was there is there");
    gai_clear(&buffer, 16);
    CHECK(buffer.size == 0 && buffer.capacity <= 16 * 16, "%zu", buffer.capacity);
    gai_release(&buffer);
    free(memory);
}

static void the_end_of_a_text(size_t longest) {
    gai_trail trail = {0};
    gai_borrow(&trail.pieces, NULL, 0);
    uint8_t text[100000];
    size_t size = 0;
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = (uint8_t)(i * 7);
    }
    for (size_t i = 0; size + longest < sizeof text; i++) {
        size_t more = 1 + i * 31 % longest;
        uint8_t *piece = exactly(text + size, more);
        gai_add_to_trail(&trail, piece, more);
        free(piece);
        size += more;
        const gai_buffer *kept = &trail.pieces;
        CHECK(kept->size >= (size < GAI_TRAIL ? size : GAI_TRAIL) && kept->size <= size, "%zu of %zu", kept->size, size);
        CHECK(kept->size < 2 * GAI_TRAIL + longest, "%zu of pieces of %zu", kept->size, longest);
        CHECK(memcmp(kept->data, text + size - kept->size, kept->size) == 0, "%zu of %zu", kept->size, size);
    }
    gai_clear_trail(&trail);
    gai_add_to_trail(&trail, text, 1);
    CHECK(trail.pieces.size == 1, "%zu", trail.pieces.size);
    gai_release(&trail.pieces);
}

static void a_head(size_t piece, int numbers) {
    uint8_t text[1024], expected[2048], *to = expected;
    size_t cuts[GAI_NUMBERS];
    uint8_t is_time[GAI_NUMBERS];
    gai_head head = {0};
    memset(text, 'h', sizeof text);
    for (int i = 0; i < numbers; i++) {
        cuts[i] = piece * (size_t)(i + 1);
        is_time[i] = i % 2;
    }
    uint8_t *tail = exactly("tail", 4), *exact = exactly(text, piece * (size_t)(numbers + 1));
    CHECK(gai_make_head(&head, exact, piece * (size_t)(numbers + 1), cuts, is_time, numbers, tail, 4) == 0, "no memory");
    uint8_t *written = (uint8_t *)malloc(head.room);
    CHECK(written != NULL, "no memory");
    uint8_t *end = gai_put_tail(gai_put_head(written, &head, 12345678901234567890u, 7), &head);
    for (int i = 0; i <= numbers; i++) {
        memset(to, 'h', piece);
        to += piece;
        if (i < numbers) {
            to += sprintf((char *)to, i % 2 ? "7" : "12345678901234567890");
        }
    }
    memcpy(to, "tail", 4);
    to += 4;
    CHECK(end - written == to - expected && !memcmp(written, expected, (size_t)(to - expected)), "%zu, %d", piece, numbers);
    gai_drop_head(&head);
    free(written);
    free(tail);
    free(exact);
}

int main(void) {
    for (int64_t value = 1; value > 0 && value < INT64_MAX / 10; value *= 10) {
        for (int64_t near = value - 2; near <= value + 2; near++) {
            an_integer(near);
            an_integer(-near);
        }
    }
    an_integer(INT64_MAX);
    an_integer(INT64_MIN);
    a_buffer_that_grows(0);
    a_buffer_that_grows(100);
    the_end_of_a_text(1);
    the_end_of_a_text(9);
    the_end_of_a_text(3 * GAI_TRAIL);
    for (size_t piece = 0; piece < 200; piece += 1 + piece / 8) {
        for (int numbers = 0; numbers <= GAI_NUMBERS; numbers++) {
            a_head(piece, numbers);
        }
    }
    return 0;
}
