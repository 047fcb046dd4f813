/* The output around the text of a delta: constant pieces and numbers before the text, one piece after it.
 *
 * A head is made once for a stream or a learned frame, and written for each delta. Every piece begins at a multiple of
 * GAI_STEP bytes and is copied in steps of this size, without a call of memcpy for a few bytes.
 */
#ifndef GAI_HEAD_H
#define GAI_HEAD_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "integers.h"

enum {
    GAI_NUMBERS = 4, /* the event's number and time, and the number again in the event's id */
    GAI_STEP = 64, /* nearly every piece needs one step */
};

typedef struct {
    uint8_t *bytes; /* owned; NULL if the head has not been made yet */
    size_t room;    /* needed for the output, including the overhang */
    const uint8_t *tail;
    size_t tail_size;
    size_t sizes[GAI_NUMBERS + 1];
    size_t begins[GAI_NUMBERS + 1]; /* offsets in `bytes` */
    uint8_t is_time[GAI_NUMBERS];
    int numbers;
} gai_head;

static inline void gai_drop_head(gai_head *head) {
    if (head->bytes != NULL) {
        free(head->bytes);
        *head = (gai_head){0};
    }
}

static inline size_t gai_whole_steps(size_t size) { return (size + GAI_STEP - 1) / GAI_STEP * GAI_STEP; }

/* At least one step, so that a copy need not check for the first step. */
static inline size_t gai_piece_room(size_t size) { return size ? gai_whole_steps(size) : GAI_STEP; }

/* Makes a head from a text, with a number at each of the offsets `cuts`, in ascending order; `tail` follows the delta's
 * text. Returns -1 if there is no memory. */
static inline int gai_make_head(gai_head *head, const uint8_t *text, size_t size, const size_t *cuts,
                                const uint8_t *is_time, int numbers, const uint8_t *tail, size_t tail_size) {
    size_t begin = 0, room = GAI_STEP + gai_whole_steps(tail_size);
    for (int i = 0; i <= numbers; i++) {
        size_t end = i < numbers ? cuts[i] : size;
        head->sizes[i] = end - begin;
        room += gai_piece_room(end - begin) + GAI_INTEGER_ROOM;
        begin = end;
    }
    uint8_t *to = (uint8_t *)calloc(1, room);
    if (to == NULL) {
        return -1;
    }
    head->bytes = to;
    head->room = room;
    head->numbers = numbers;
    for (int i = 0; i <= numbers; i++) {
        memcpy(to, text, head->sizes[i]);
        head->begins[i] = (size_t)(to - head->bytes);
        text += head->sizes[i];
        to += gai_piece_room(head->sizes[i]);
        if (i < numbers) {
            head->is_time[i] = is_time[i];
        }
    }
    if (tail_size) {
        memcpy(to, tail, tail_size);
    }
    head->tail = to;
    head->tail_size = tail_size;
    return 0;
}

/* Copies a piece; returns its end. */
static inline uint8_t *gai_put_piece(uint8_t *to, const uint8_t *from, size_t size) {
    memcpy(to, from, GAI_STEP);
    for (size_t at = GAI_STEP; at < size; at += GAI_STEP) {
        memcpy(to + at, from + at, GAI_STEP);
    }
    return to + size;
}

/* Writes the head, for which there must be `head->room` bytes; returns its end. */
static inline uint8_t *gai_put_head(uint8_t *to, const gai_head *head, uint64_t number, uint64_t time) {
    to = gai_put_piece(to, head->bytes, head->sizes[0]);
    for (int i = 0; i < head->numbers; i++) {
        to = gai_put_unsigned(to, head->is_time[i] ? time : number);
        to = gai_put_piece(to, head->bytes + head->begins[i + 1], head->sizes[i + 1]);
    }
    return to;
}

/* Writes the tail, for which `head->room` includes the room; returns its end. */
static inline uint8_t *gai_put_tail(uint8_t *to, const gai_head *head) {
    return head->tail_size ? gai_put_piece(to, head->tail, head->tail_size) : to;
}

#endif
