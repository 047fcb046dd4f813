/* Compares a frame with a template. */
#ifndef GAI_MATCH_H
#define GAI_MATCH_H

#include "skip.h"
#include "template.h"

/* Compares from literal `from` on, up to the text hole, or from there to the end of the frame. Sets `places[i]` to the
 * beginning of literal i. `said` is the frame's text as received, once it is known. Returns GAI_COPY_MORE if the bytes
 * match and end too early. `has_values`: the template's frame has values in its holes, and most frames have the same
 * values. Always inlined, which saves 5 % of the cost of copying a frame. */
__attribute__((always_inline)) static inline int gai_match(const gai_template *learned, int has_values, int from,
                                                           const uint8_t **in, const uint8_t *end,
                                                           const uint8_t **places, const uint8_t *said,
                                                           size_t said_size) {
    const uint8_t *at = *in;
    for (int i = from;; i++) {
        const uint8_t *literal = learned->frame + learned->begins[i];
        size_t size = learned->ends[i] - learned->begins[i];
        size_t left = (size_t)(end - at);
        int status;
        if (left < size) {
            if (memcmp(at, literal, left) != 0) {
                return GAI_COPY_MISS;
            }
            /* The framer does not wait for the LF after the CR that ends an event. */
            return learned->ends_line_only && i == learned->count && left + 1 == size ? GAI_COPY_MISS : GAI_COPY_MORE;
        }
        if (memcmp(at, literal, size) != 0) {
            return GAI_COPY_MISS;
        }
        places[i] = at;
        at += size;
        *in = at;
        if (i == learned->count) {
            return GAI_COPY_DONE;
        }
        if (learned->kinds[i] == GAI_HOLE_TEXT) {
            return GAI_COPY_DONE;
        }
        /* Most ids, times and nulls do not change: compare the value's bytes, and the byte after them. */
        size = learned->begins[i + 1] - learned->ends[i];
        if (has_values && learned->kinds[i] <= GAI_HOLE_VALUE && (size_t)(end - at) > size &&
            memcmp(at, learned->frame + learned->ends[i], size + 1) == 0) {
            at += size;
            continue;
        }
        switch (learned->kinds[i]) {
        case GAI_HOLE_STRING: status = gai_skip_string(&at, end); break;
        case GAI_HOLE_NUMBER: status = gai_skip_number(&at, end); break;
        case GAI_HOLE_COUNT: status = gai_skip_some(&at, end); break;
        case GAI_HOLE_FRACTION: status = gai_skip_fraction(&at, end); break;
        case GAI_HOLE_VALUE: status = gai_skip_value(&at, end); break;
        case GAI_HOLE_SAME: status = gai_skip_word(&at, end, (const char *)said, said_size); break;
        default: status = gai_skip_blanks(&at, end); break;
        }
        if (status != GAI_COPY_DONE) {
            return status;
        }
    }
}

/* Out of line, because the variables for other frames would use the registers for frames with the same parts: in a
 * single loop a frame cost 70 instructions more. */
__attribute__((noinline, unused)) static const uint8_t *gai_match_other_lead(gai_template *learned, const uint8_t *in,
                                                                             const uint8_t *end, const uint8_t **places,
                                                                             int *status) {
    *status = gai_match(learned, 1, 0, &in, end, places, NULL, 0);
    learned->lead_size = *status == GAI_COPY_DONE ? SIZE_MAX : learned->lead_size;
    return in;
}

__attribute__((noinline, unused)) static const uint8_t *gai_match_other_tail(gai_template *learned, const uint8_t *in,
                                                                             const uint8_t *end, const uint8_t **places,
                                                                             const uint8_t *said, int *status) {
    *status = gai_match(learned, 1, learned->text + 1, &in, end, places, said, (size_t)(in - said));
    learned->tail_size = *status == GAI_COPY_DONE ? SIZE_MAX : learned->tail_size;
    return in;
}

/* Compare the part before the text, and the part after it; return the end of the part. In most streams these parts are
 * the same in all frames, byte for byte. If a matching frame has other values in its holes, later frames will, too. */
static inline const uint8_t *gai_match_lead(gai_template *learned, const uint8_t *in, const uint8_t *end,
                                            const uint8_t **places, int *status) {
    size_t size = learned->lead_size;
    if ((size_t)(end - in) >= size && memcmp(in, learned->frame, size) == 0) {
        *status = GAI_COPY_DONE;
        return in + size;
    }
    int other;
    in = gai_match_other_lead(learned, in, end, places, &other);
    *status = other;
    return in;
}

/* `said` is the frame's text as received, which ends at `in`. */
static inline const uint8_t *gai_match_tail(gai_template *learned, const uint8_t *in, const uint8_t *end,
                                            const uint8_t **places, const uint8_t *said, int *status) {
    size_t size = learned->tail_size;
    if ((size_t)(end - in) >= size && memcmp(in, learned->frame + learned->begins[learned->text + 1], size) == 0) {
        *status = GAI_COPY_DONE;
        return in + size;
    }
    int other;
    in = gai_match_other_tail(learned, in, end, places, said, &other);
    *status = other;
    return in;
}

/* Learns a frame that matches a frame of another stream, whose holes are blank. Returns the frame's size; 0 if the
 * frame does not match or is incomplete. */
static inline size_t gai_recall(gai_template *learned, const gai_template *known, const uint8_t *frame,
                                const uint8_t *end) {
    const uint8_t *places[GAI_HOLES + 1];
    const uint8_t *at = frame;
    if (gai_match(known, 0, 0, &at, end, places, NULL, 0) != GAI_COPY_DONE) {
        return 0;
    }
    const uint8_t *said = at;
    if (gai_skip_text(&at, end) != GAI_COPY_DONE ||
        gai_match(known, 0, known->text + 1, &at, end, places, said, (size_t)(at - said)) != GAI_COPY_DONE) {
        return 0;
    }
    *learned = *known;
    learned->frame = frame;
    for (int i = 0; i <= known->count; i++) {
        learned->begins[i] = (size_t)(places[i] - frame);
        learned->ends[i] = learned->begins[i] + (known->ends[i] - known->begins[i]);
    }
    gai_set_steady(learned, known->lead_size != SIZE_MAX, known->tail_size != SIZE_MAX);
    return (size_t)(at - frame);
}

#endif
