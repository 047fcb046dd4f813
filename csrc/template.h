/* One learned frame of a stream: literals, with holes between them for the values that vary from frame to frame.
 *
 * learn.h finds the holes of a frame whose JSON the full path has just parsed. match.h compares a later frame with the
 * template: literals must be equal, and holes must hold values that a JSON parser accepts (skip.h). If anything
 * differs, the full path handles the frame.
 */
#ifndef GAI_TEMPLATE_H
#define GAI_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

enum {
    GAI_HOLES = 24, /* of one frame: the text, some values of OpenAI's Responses, Gemini's usage with fifteen counts */
    GAI_NAMES = 32, /* member names of an adapter; each has a bit */
    GAI_KEPT = 2,   /* kept objects of one frame; no provider sends two */
};

typedef enum {
    GAI_HOLE_TEXT,
    GAI_HOLE_STRING,
    GAI_HOLE_NUMBER,
    GAI_HOLE_VALUE,
    /* The values of the following kinds change with nearly every frame. */
    GAI_HOLE_SAME, /* the text again, byte for byte */
    GAI_HOLE_COUNT,    /* of usage: a whole number that is not zero */
    GAI_HOLE_FRACTION, /* of usage: a number that is not whole */
    GAI_HOLE_BLANKS,
} gai_hole;

/* A kept object. */
typedef struct {
    int name;          /* index of its name */
    int first, last;   /* indexes of the literals in which it begins and ends */
    size_t begin, end; /* its place in the learned frame */
} gai_kept;

typedef struct {
    const uint8_t *frame; /* holds the literals */
    int count;            /* number of holes; there is one literal more */
    int text;             /* index of the hole for the text */
    int kept_count;
    int ends_line_only; /* the frame ends with CR LF, and the CR alone would have ended it */
    size_t lead_size, tail_size; /* sizes of the parts before and after the text; SIZE_MAX if frames differ in them */
    gai_hole kinds[GAI_HOLES];
    size_t begins[GAI_HOLES + 1]; /* offsets of the literals in the frame */
    size_t ends[GAI_HOLES + 1];
    gai_kept kept[GAI_KEPT];
} gai_template;

/* Sets whether the parts before and after the text may be the same in all frames. */
static inline void gai_set_steady(gai_template *learned, int lead, int tail) {
    learned->lead_size = lead ? learned->ends[learned->text] : SIZE_MAX;
    learned->tail_size = tail ? learned->ends[learned->count] - learned->begins[learned->text + 1] : SIZE_MAX;
}

typedef enum {
    GAI_NAME_OTHER,
    GAI_NAME_TEXT,
    GAI_NAME_IGNORED,
    GAI_NAME_LABEL, /* ignored if its value is a string at the top level */
    GAI_NAME_KEPT,
} gai_role;

typedef struct {
    const uint8_t *data;
    size_t size;
    gai_role role;
} gai_name;

#endif
