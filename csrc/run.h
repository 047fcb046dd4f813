/* Copies a run of frames that equal the learned frame byte for byte, except for their text. In most streams nearly all
 * frames do.
 *
 * The loop is out of line, so that its variables stay in registers.
 */
#ifndef GAI_RUN_H
#define GAI_RUN_H

#include "head.h"
#include "match.h"
#include "trail.h"

enum {
    GAI_BRIEF = 16, /* bytes copied at once after a number or a text: most pieces are no longer */
    GAI_RUN_DIGITS = 8, /* the most digits of a run's numbers, which are incremented as text, in a register */
    GAI_RUN_END = 99999999,
    GAI_LAST_TEXTS = 64, /* the last texts of a run that are remembered; a power of two */
};

/* The text of a frame: the inside of a JSON string. */
typedef struct {
    const uint8_t *begin, *end;
} gai_text;

/* Copies a piece as gai_put_piece does; for pieces that are mostly brief. */
static inline uint8_t *gai_put_brief(uint8_t *to, const uint8_t *from, size_t size) {
    if (size > GAI_BRIEF) {
        return gai_put_piece(to, from, size);
    }
    memcpy(to, from, GAI_BRIEF);
    return to + size;
}

/* Returns whether frames may equal the learned frame byte for byte: no different frame has come yet. */
static inline int gai_may_run(const gai_template *learned) {
    return learned->lead_size != SIZE_MAX && learned->tail_size != SIZE_MAX;
}

/* Copies frames as long as they equal the learned frame, if `gai_may_run`; returns their number. `*out` moves to the
 * end of their output, `*in` to the end of the frames, and `*characters` grows by the code points of their texts. The
 * caller handles all other frames: an empty text, a frame of more than `limit` bytes, a frame that may not fit in the
 * room before `stop`, an incomplete frame.
 *
 * head: the output around each text; NULL: no output is written, and `out` is room for one text.
 * span: the bytes of a text for which there must be room, if so many are left.
 * number: the number of the first frame's event.
 * last: gets the last texts; the text of frame n is at n % GAI_LAST_TEXTS. NULL: they are not needed. */
static inline __attribute__((always_inline)) size_t gai_copy_frames(const gai_template *learned, const gai_head *head,
                                                                    const uint8_t **in, const uint8_t *end,
                                                                    uint8_t **out, const uint8_t *stop, size_t span,
                                                                    size_t limit, uint64_t number, uint64_t time,
                                                                    size_t *characters, gai_text *last) {
    const size_t lead = learned->lead_size, tail = learned->tail_size;
    if (number > GAI_RUN_END) {
        return 0;
    }
    const uint8_t *const ahead = learned->frame, *const behind = ahead + learned->begins[learned->text + 1];
    const size_t room = (head == NULL ? 0 : head->room) + GAI_COPY_ROOM;
    const uint8_t *frame = *in;
    uint8_t *to = *out;
    size_t frames = 0, count = 0;
    uint8_t clock[GAI_INTEGER_ROOM], decimal[GAI_INTEGER_ROOM] = {0};
    size_t clock_size = (size_t)(gai_put_unsigned(clock, time) - clock);
    size_t digits = (size_t)(gai_put_unsigned(decimal, number) - decimal);
    int until_carry = 10 - (int)(number % 10);
    uint64_t text_of_number;
    memcpy(&text_of_number, decimal, GAI_RUN_DIGITS);
    while ((size_t)(end - frame) > lead && memcmp(frame, ahead, lead) == 0) {
        const uint8_t *at = frame + lead;
        const size_t left = (size_t)(end - at), most = span < left ? span : left;
        size_t more = 0;
        uint8_t *text = to;
        if ((size_t)(stop - to) < room + most) {
            break;
        }
        if (head != NULL) {
            text = gai_put_piece(text, head->bytes, head->sizes[0]);
            for (int i = 0; i < head->numbers; i++) {
                if (head->is_time[i]) {
                    memcpy(text, clock, GAI_INTEGER_ROOM);
                    text += clock_size;
                } else {
                    memcpy(text, &text_of_number, GAI_RUN_DIGITS);
                    text += digits;
                }
                text = gai_put_brief(text, head->bytes + head->begins[i + 1], head->sizes[i + 1]);
            }
        }
        if (gai_copy_string(&at, at + most, &text, &more) != GAI_COPY_DONE || !more ||
            (size_t)(end - at) < tail || memcmp(at, behind, tail) != 0 || (size_t)(at + tail - frame) > limit) {
            break;
        }
        if (last != NULL) {
            last[frames % GAI_LAST_TEXTS] = (gai_text){frame + lead, at};
        }
        frame = at + tail;
        if (head != NULL) {
            to = gai_put_brief(text, head->tail, head->tail_size);
        }
        count += more;
        frames++;
        number++;
        if (GAI_LITTLE_ENDIAN && --until_carry) {
            text_of_number += (uint64_t)1 << (8 * (digits - 1));
        } else if (number > GAI_RUN_END) {
            break;
        } else {
            digits = (size_t)(gai_put_unsigned(decimal, number) - decimal);
            until_carry = 10;
            memcpy(&text_of_number, decimal, GAI_RUN_DIGITS);
        }
    }
    *in = frame;
    *out = to;
    *characters += count;
    return frames;
}

/* Also adds the last texts to `trail`. A function of its own, because remembering them takes 5 instructions a frame. */
__attribute__((noinline, unused)) static size_t gai_copy_trailed_run(const gai_template *learned, const gai_head *head,
                                                                     const uint8_t **in, const uint8_t *end,
                                                                     uint8_t **out, const uint8_t *stop, size_t span,
                                                                     size_t limit, uint64_t number, uint64_t time,
                                                                     size_t *characters, gai_trail *trail) {
    gai_text last[GAI_LAST_TEXTS];
    size_t frames = gai_copy_frames(learned, head, in, end, out, stop, span, limit, number, time, characters, last);
    size_t first = frames > GAI_LAST_TEXTS ? frames - GAI_LAST_TEXTS : 0, size = 0;
    for (size_t i = first; i < frames; i++) {
        size += (size_t)(last[i % GAI_LAST_TEXTS].end - last[i % GAI_LAST_TEXTS].begin);
    }
    if (first) {
        gai_clear_trail(trail);
    }
    if (gai_reserve_trail(trail, size)) {
        for (size_t i = first; i < frames; i++) {
            const gai_text *text = &last[i % GAI_LAST_TEXTS];
            gai_put(&trail->pieces, text->begin, (size_t)(text->end - text->begin));
        }
        gai_trim_trail(trail);
    }
    return frames;
}

/* As gai_copy_frames. trail: gets the last texts; NULL: they are not needed. */
__attribute__((noinline, unused)) static size_t gai_copy_run(const gai_template *learned, const gai_head *head,
                                                             const uint8_t **in, const uint8_t *end, uint8_t **out,
                                                             const uint8_t *stop, size_t span, size_t limit,
                                                             uint64_t number, uint64_t time, size_t *characters,
                                                             gai_trail *trail) {
    if (trail != NULL) {
        return gai_copy_trailed_run(learned, head, in, end, out, stop, span, limit, number, time, characters, trail);
    }
    return gai_copy_frames(learned, head, in, end, out, stop, span, limit, number, time, characters, NULL);
}

#endif
