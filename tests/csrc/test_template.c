/* learn.c and match.h: which holes a frame has, and which frames match it, however they are cut. run.h: a run of frames
 * becomes what each of them becomes by itself. */
#include "check.h"
#include "copy.h"
#include "learn.h"
#include "match.h"
#include "run.h"

static const gai_name NAMES[] = {
    {(const uint8_t *)"content", 7, GAI_NAME_TEXT},
    {(const uint8_t *)"created", 7, GAI_NAME_IGNORED},
    {(const uint8_t *)"p", 1, GAI_NAME_IGNORED},
    {(const uint8_t *)"usage", 5, GAI_NAME_KEPT},
    {(const uint8_t *)"id", 2, GAI_NAME_LABEL},
};

static int learns(gai_template *learned, const uint8_t *frame, size_t size, int lines, const char *text) {
    uint8_t *scratch = (uint8_t *)malloc(size + GAI_COPY_ROOM), *said = exactly(text, strlen(text));
    CHECK(scratch != NULL, "no memory");
    int found = gai_learn(learned, frame, size, lines, NAMES, LENGTH(NAMES), said, strlen(text), scratch);
    free(scratch);
    free(said);
    return found;
}

/* The frame with a sign in place of each hole. */
static void drawn(const gai_template *learned, char *to) {
    for (int i = 0; i <= learned->count; i++) {
        size_t size = learned->ends[i] - learned->begins[i];
        memcpy(to, learned->frame + learned->begins[i], size);
        to += size;
        if (i < learned->count) {
            *to++ = "@$#*=+./"[learned->kinds[i]];
        }
    }
    *to = 0;
}

/* Frames whose text is "Hi"; NULL: not learned. Text @, the same again =, string $, number #, value *, count +, fraction .,
 * blanks /. */
static const struct {
    const char *frame, *holes;
} LEARNED[] = {
    {"data: {\"content\":\"Hi\"}\n\n", "data: {\"content\":\"@\"/}\n\n"},
    {"data: {\"content\":\"\\u0048i\"  }\r\n\r\n", "data: {\"content\":\"@\"/}\r\n\r\n"},
    {"event: x\ndata:{\"id\":\"a\",\"created\":17,\"x\":17,\"content\":\"Hi\"}\n\n",
     "event: x\ndata:{\"id\":\"$\",\"created\":#,\"x\":17,\"content\":\"@\"/}\n\n"},
    {"data: {\"x\":{\"id\":\"a\"},\"p\":null,\"created\":[1,{}],\"a\":[{\"content\":\"Hi\"},{\"content\":\"Hi\"}]}\n\n",
     "data: {\"x\":{\"id\":\"a\"},\"p\":*,\"created\":*,\"a\":[{\"content\":\"@\"},{\"content\":\"=\"}]/}\n\n"},
    {"data: {\"content\":\"Hi\",\"usage\":{\"a\":1,\"b\":0,\"c\":1.5,\"d\":2.0,\"e\":{\"f\":-1}}}\n\n",
     "data: {\"content\":\"@\",\"usage\":{\"a\":+,\"b\":0,\"c\":.,\"d\":2.0,\"e\":{\"f\":-1}}/}\n\n"},
    {"data: {\"content\":\"Hi\",\"x\":{\"usage\":{\"a\":1}}}\n\n", "data: {\"content\":\"@\",\"x\":{\"usage\":{\"a\":1}}/}\n\n"},
    {"data: {\"content\":\"Hi\",\"p\":\"Hi\"}\n\n", "data: {\"content\":\"@\",\"p\":\"$\"/}\n\n"},
    {"data: {\"content\":\"Hi\",\"x\":\"Hi\"}\n\n", NULL},
    {"data: {\"content\":\"Hi\",\"x\":[\"\\u0048\\u0069\"]}\n\n", NULL},
    {"data: {\"content\":\"Hi\",\"c\\u006fntent\":\"a\"}\n\n", NULL},
    {"data: {\"content\":\"Hi\",\"usage\":null,\"usage\":{\"a\":1}}\n\n", NULL},
    {"data: {\"x\":\"Hi\"}\n\n", NULL},
    {"data: {\"content\":\"Ho\"}\n\n", NULL},
    {"data: {\"content\":\"Hi\"}\ndata: 1\n\n", NULL},
    {"data: {\"content\":\"Hi\"\n\n", NULL},
    {"data: [\"content\",\"Hi\"]\n\n", NULL},
    {"data: {\"usage\":{\"content\":\"Hi\"}}\n\n", NULL},
    {"data: {\"content\":\"Hi\"}\n", NULL},
    {"\xef\xbb\xbf" "data: {\"content\":\"Hi\"}\n\n", NULL},
};

static const char KNOWN[] = "data: {\"created\":170,\"content\":\"Hi\",\"usage\":{\"n\":5,\"c\":0.5},\"p\":\"x\"}\n\n";

/* Frames beside KNOWN. */
static const struct {
    const char *frame;
    int matches;
} BESIDE[] = {
    {"data: {\"created\":170,\"content\":\"Hi\",\"usage\":{\"n\":5,\"c\":0.5},\"p\":\"x\"}\n\n", 1},
    {"data: {\"created\":9,\"content\":\"\xc3\xa9\\n\",\"usage\":{\"n\":123,\"c\":12.75},\"p\":\"\"   }\n\n", 1},
    {"data: {\"created\":9,\"content\":\"\",\"usage\":{\"n\":1,\"c\":0.1},\"p\":\"abc\"}\n\n", 1},
    {"data: {\"created\":   ,\"content\":\"Hi\",\"usage\":{\"n\":5,\"c\":0.5},\"p\":\"x\"}\n\n", 0},
    {"data: {\"created\":1.5,\"content\":\"Hi\",\"usage\":{\"n\":5,\"c\":0.5},\"p\":\"x\"}\n\n", 0},
    {"data: {\"created\":170,\"content\":\"Hi\",\"usage\":{\"n\":0,\"c\":0.5},\"p\":\"x\"}\n\n", 0},
    {"data: {\"created\":170,\"content\":\"Hi\",\"usage\":{\"n\":5,\"c\":1.0},\"p\":\"x\"}\n\n", 0},
    {"data: {\"created\":170,\"content\":\"Hi\",\"usage\":{\"n\":5,\"c\":0.5},\"p\":\"\\n\"}\n\n", 0},
    {"data: {\"created\":170,\"content\":\"\\ud83d\",\"usage\":{\"n\":5,\"c\":0.5},\"p\":\"x\"}\n\n", 0},
    {"data: {\"created\":170,\"content\":\"Hi\",\"usage\":{\"n\":5,\"c\":0.5},\"p\":\"x\"}}\n", 0},
};

/* As DeltaCopier goes through a frame. */
static int status_of(gai_template *learned, const uint8_t *frame, const uint8_t *end, size_t *size) {
    const uint8_t *places[GAI_HOLES + 1];
    uint8_t *out = (uint8_t *)malloc((size_t)(end - frame) + GAI_COPY_ROOM), *to = out;
    size_t characters = 0;
    CHECK(out != NULL, "no memory");
    int status;
    const uint8_t *at = gai_match_lead(learned, frame, end, places, &status);
    const uint8_t *said = at;
    if (status == GAI_COPY_DONE) {
        status = gai_copy_string(&at, end, &to, &characters);
    }
    if (status == GAI_COPY_DONE) {
        at = gai_match_tail(learned, at, end, places, said, &status);
    }
    *size = (size_t)(at - frame);
    free(out);
    return status;
}

static void each_beside(int blanked) {
    gai_template known, learned;
    size_t size;
    uint8_t *frame = exactly(KNOWN, strlen(KNOWN));
    CHECK(learns(&known, frame, strlen(KNOWN), 0, "Hi"), "%s", KNOWN);
    if (blanked) {
        for (int i = 0; i < known.count; i++) {
            memset(frame + known.ends[i], ' ', known.begins[i + 1] - known.ends[i]);
        }
    }
    for (size_t i = 0; i < LENGTH(BESIDE); i++) {
        size_t whole = strlen(BESIDE[i].frame);
        for (size_t cut = 0; cut <= whole; cut++) {
            uint8_t *bytes = exactly(BESIDE[i].frame, cut);
            if (blanked) {
                size = gai_recall(&learned, &known, bytes, bytes + cut);
                CHECK(size == (cut == whole && BESIDE[i].matches ? whole : 0), "%zu of %s", cut, BESIDE[i].frame);
                CHECK(!size || status_of(&learned, bytes, bytes + cut, &size) == GAI_COPY_DONE, "%s", BESIDE[i].frame);
            } else {
                learned = known;
                int status = status_of(&learned, bytes, bytes + cut, &size);
                CHECK((status == GAI_COPY_DONE) == (cut == whole && BESIDE[i].matches), "%zu of %s", cut, BESIDE[i].frame);
                CHECK(status != GAI_COPY_MISS || !BESIDE[i].matches, "%zu of %s", cut, BESIDE[i].frame);
                CHECK(status != GAI_COPY_DONE || size == whole, "%s", BESIDE[i].frame);
            }
            free(bytes);
        }
    }
    free(frame);
}

/* Anything at all: learned or not, nothing behind the bytes is read. */
static void spoilt_frames(void) {
    static const char octets[] = "\"\\{}[]:, \n\r0.eu\xff\xc3@";
    uint64_t random = 1;
    for (int round = 0; round < 20000; round++) {
        const char *made = LEARNED[next_random(&random) % LENGTH(LEARNED)].frame;
        size_t size = strlen(made), found;
        uint8_t *frame = exactly(made, size), *other = exactly(made, size);
        gai_template learned;
        for (uint32_t n = next_random(&random) % 4; n; n--) {
            frame[next_random(&random) % size] = (uint8_t)octets[next_random(&random) % (sizeof octets - 1)];
        }
        other[next_random(&random) % size] = (uint8_t)octets[next_random(&random) % (sizeof octets - 1)];
        if (learns(&learned, frame, size, (int)(next_random(&random) % 2), "Hi")) {
            CHECK(status_of(&learned, frame, frame + size, &found) == GAI_COPY_DONE, "%.*s", (int)size, frame);
            CHECK(found == size, "%.*s", (int)size, frame);
            status_of(&learned, other, other + size, &found);
        }
        free(frame);
        free(other);
    }
}

/* Frames beginning at these numbers, so that their digits become more on the way, in rooms of many sizes. */
static const uint64_t NUMBERS[] = {0, 7, 95, 9995, 99999, 99999990, 99999999, 100000000, UINT64_MAX - 40};
static const size_t TAILS[] = {0, 3, 16, 17, 64, 65};
enum { FRAMES = 12, TIME = 1700000 };

static void each_run(int numbers, size_t tail_size, uint64_t number) {
    static const char *texts[] = {"a", "Hello", "x\\n\xc3\xa9", "seventeen letters", "[16 characters.]"};
    const char *lead = "data: {\"content\":\"", *tail = "\"}\n\n";
    char made[1024] = "", *to = made;
    uint8_t filler[GAI_STEP * 2];
    size_t cuts[] = {2, 4, 30}, expected_size[FRAMES + 1] = {0};
    const uint8_t is_time[] = {0, 1, 0};
    uint8_t expected[FRAMES * 512], *out_of_one = expected;
    gai_template learned;
    gai_head head = {0};
    memset(filler, '.', sizeof filler);
    CHECK(gai_make_head(&head, filler, 60, cuts, is_time, numbers, filler, tail_size) == 0, "no memory");
    for (int i = 0; i < FRAMES; i++) {
        size_t characters = 0;
        to += sprintf(to, "%s", lead);
        const uint8_t *text = (const uint8_t *)to;
        to += sprintf(to, "%s%s", texts[i % LENGTH(texts)], tail);
        out_of_one = gai_put_head(out_of_one, &head, number + (uint64_t)i, TIME);
        CHECK(gai_copy_string(&text, (const uint8_t *)to, &out_of_one, &characters) == GAI_COPY_DONE, "%s", made);
        out_of_one = gai_put_tail(out_of_one, &head);
        expected_size[i + 1] = (size_t)(out_of_one - expected);
    }
    size_t size = (size_t)(to - made), one = strlen(lead) + strlen(tail) + 2;
    size_t enough = expected_size[FRAMES] + head.room + GAI_COPY_ROOM + size;
    uint8_t *frame = exactly("data: {\"content\":\"Hi\"}\n\n", one), *in = exactly(made, size);
    CHECK(learns(&learned, frame, one, 0, "Hi") && gai_may_run(&learned), "%s", (const char *)frame);
    for (size_t less = 0; less <= enough; less += 29) {
        size_t room = enough - less;
        uint8_t *out = (uint8_t *)malloc(room ? room : 1), *end = out;
        const uint8_t *at = in;
        size_t characters = 0;
        gai_text last[GAI_LAST_TEXTS];
        CHECK(out != NULL, "no memory");
        size_t frames =
            gai_copy_frames(&learned, &head, &at, in + size, &end, out + room, size, size, number, TIME, &characters, last);
        CHECK(frames <= FRAMES && (size_t)(end - out) == expected_size[frames], "%zu in %zu", frames, room);
        CHECK(memcmp(out, expected, expected_size[frames]) == 0, "%.*s", (int)(end - out), (const char *)out);
        CHECK(less || frames == FRAMES || number + frames > GAI_RUN_END, "%zu", frames);
        for (size_t i = frames > GAI_LAST_TEXTS ? frames - GAI_LAST_TEXTS : 0; i < frames; i++) {
            const char *text = texts[i % LENGTH(texts)];
            const gai_text *found = &last[i % GAI_LAST_TEXTS];
            CHECK((size_t)(found->end - found->begin) == strlen(text), "%zu", i);
            CHECK(memcmp(found->begin, text, strlen(text)) == 0, "%s", text);
        }
        free(out);
    }
    free(frame);
    free(in);
    gai_drop_head(&head);
}

int main(void) {
    gai_use_loops(gai_scalar_loops());
    for (size_t i = 0; i < LENGTH(LEARNED); i++) {
        gai_template learned;
        char holes[512];
        size_t size = strlen(LEARNED[i].frame);
        uint8_t *frame = exactly(LEARNED[i].frame, size);
        int found = learns(&learned, frame, size, 0, "Hi");
        CHECK(found == (LEARNED[i].holes != NULL), "%s", LEARNED[i].frame);
        if (found) {
            drawn(&learned, holes);
            CHECK(strcmp(holes, LEARNED[i].holes) == 0, "%s", holes);
        }
        free(frame);
    }
    each_beside(0);
    each_beside(1);
    spoilt_frames();
    for (size_t i = 0; i < LENGTH(NUMBERS) * LENGTH(TAILS); i++) {
        for (int numbers = 0; numbers <= 3; numbers++) {
            each_run(numbers, TAILS[i / LENGTH(NUMBERS)], NUMBERS[i % LENGTH(NUMBERS)]);
        }
    }
    return 0;
}
