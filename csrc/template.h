/* One learned frame of a stream: literals, and holes between them for what varies from frame to frame.
 *
 * `gai_learn` finds the holes of a frame whose JSON the full path has just read; it need not judge the text, only never
 * to leave it. `gai_match` tells whether the bytes of a later frame are the literals, and its holes what a JSON parser
 * would take; where anything differs it is a GAI_COPY_MISS, and the full path decides.
 */
#ifndef GAI_TEMPLATE_H
#define GAI_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "copy.h"

enum {
    GAI_HOLES = 24, /* of one frame: the text, a number of Responses, a usage object of Gemini with fifteen counts */
    GAI_KEPT = 2,   /* objects that are kept; no provider sends two */
    GAI_LEVELS = 32, /* of a value that is ignored */
};

typedef enum {
    GAI_HOLE_TEXT,
    GAI_HOLE_STRING,
    GAI_HOLE_NUMBER,
    GAI_HOLE_VALUE,
    /* Those that change with nearly every frame: */
    GAI_HOLE_SAME, /* the text again, byte for byte */
    GAI_HOLE_COUNT,
    GAI_HOLE_DECIMAL,
    GAI_HOLE_BLANKS,
} gai_hole;

/* An object of which the last one counts. */
typedef struct {
    int name;          /* which of the names */
    int first, last;   /* the literals in which it begins and ends */
    size_t begin, end; /* where in the learned frame */
} gai_kept;

typedef struct {
    const uint8_t *frame; /* the literals lie in it */
    int count;            /* holes; one literal more */
    int text;             /* which hole is the text */
    int kept_count;
    int ends_line_only; /* the frame ends with CR LF, and the CR alone would have ended it */
    int has_steady_lead, has_steady_tail; /* what is before the text, and behind it, may be the same in all frames */
    gai_hole kinds[GAI_HOLES];
    size_t begins[GAI_HOLES + 1]; /* of the literals, within the frame */
    size_t ends[GAI_HOLES + 1];
    gai_kept kept[GAI_KEPT];
} gai_template;

typedef enum {
    GAI_NAME_OTHER,
    GAI_NAME_TEXT,
    GAI_NAME_IGNORED,
    GAI_NAME_LABEL, /* ignored where it is a string at the top */
    GAI_NAME_KEPT,
} gai_role;

typedef struct {
    const uint8_t *data;
    size_t size;
    gai_role role;
} gai_name;

/* ---- holes: each returns a status and moves *in behind what it took -------------------------------------------- */

/* Moves over what stands for itself in a string and is ASCII, eight bytes at a time. */
static inline const uint8_t *gai_skip_plain(const uint8_t *at, const uint8_t *end) {
    while (end - at >= 8) {
        uint64_t x = gai_load8(at);
        if (gai_escape_mask(x) | (x & 0x80 * GAI_ONES)) {
            break;
        }
        at += 8;
    }
    return at;
}

/* A string of ASCII without escapes, up to its closing quote. */
static inline int gai_skip_string(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = gai_skip_plain(*in, end);
    for (; at < end; at++) {
        if (*at == '"') {
            *in = at;
            return GAI_COPY_DONE;
        }
        if (*at < 0x20 || *at >= 0x80 || *at == '\\') {
            return GAI_COPY_MISS;
        }
    }
    return GAI_COPY_MORE;
}

static inline const uint8_t *gai_skip_digits(const uint8_t *at, const uint8_t *end) {
    while (at < end && (uint8_t)(*at - '0') < 10) {
        at++;
    }
    return at;
}

/* Digits as JSON writes a whole number (RFC 8259 §6), at most `most`; what ends them must be there. */
static inline int gai_skip_whole(const uint8_t **in, const uint8_t *end, ptrdiff_t most) {
    const uint8_t *at = gai_skip_digits(*in, end);
    if (at == end) {
        return GAI_COPY_MORE;
    }
    if (at == *in || at - *in > most || (**in == '0' && at - *in > 1)) {
        return GAI_COPY_MISS;
    }
    *in = at;
    return GAI_COPY_DONE;
}

/* An integer; 64 bits hold eighteen digits for sure. */
static inline int gai_skip_number(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in + (*in < end && **in == '-');
    int status = gai_skip_whole(&at, end, 18);
    *in = status == GAI_COPY_DONE ? at : *in;
    return status;
}

/* A count: every reader takes it for the same whole number (below 2**53). */
static inline int gai_skip_count(const uint8_t **in, const uint8_t *end) { return gai_skip_whole(in, end, 15); }

/* A number with a fraction or an exponent, far from the ends of what a double holds. */
static inline int gai_skip_decimal(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in + (*in < end && **in == '-');
    const uint8_t *digits;
    int status = gai_skip_whole(&at, end, 15);
    int whole = 1;
    if (status != GAI_COPY_DONE) {
        return status;
    }
    if (*at == '.') {
        digits = ++at;
        at = gai_skip_digits(at, end);
        if (at == end) {
            return GAI_COPY_MORE;
        }
        if (at == digits || at - digits > 30) {
            return GAI_COPY_MISS;
        }
        whole = 0;
    }
    if ((*at | 0x20) == 'e') {
        at++;
        at += at < end && (*at == '+' || *at == '-');
        digits = at;
        at = gai_skip_digits(at, end);
        if (at == end) {
            return GAI_COPY_MORE;
        }
        if (at == digits || at - digits > 2) {
            return GAI_COPY_MISS;
        }
        whole = 0;
    }
    if (whole) {
        return GAI_COPY_MISS;
    }
    *in = at;
    return GAI_COPY_DONE;
}

static inline int gai_skip_blanks(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in;
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    *in = at;
    return at == end ? GAI_COPY_MORE : GAI_COPY_DONE;
}

/* A string up to its closing quote, escapes and UTF-8 included; halves of surrogate pairs are the full path's. */
static inline int gai_skip_text(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = gai_skip_plain(*in, end);
    while (at < end) {
        uint8_t c = *at;
        if (c == '"') {
            *in = at;
            return GAI_COPY_DONE;
        }
        if (c == '\\') {
            uint8_t escape[8], *to = escape;
            int status = gai_copy_escape(&at, end, &to);
            if (status != GAI_COPY_DONE) {
                return status;
            }
            at = gai_skip_plain(at, end);
        } else if (c >= 0x80) {
            int length = gai_utf8_length(at, end);
            if (length <= 0) {
                return length ? GAI_COPY_MORE : GAI_COPY_MISS;
            }
            at += length;
        } else if (c < 0x20) {
            return GAI_COPY_MISS;
        } else {
            at++;
        }
    }
    return GAI_COPY_MORE;
}

static inline int gai_skip_word(const uint8_t **in, const uint8_t *end, const char *word, size_t size) {
    size_t left = (size_t)(end - *in);
    if (memcmp(*in, word, left < size ? left : size) != 0) {
        return GAI_COPY_MISS;
    }
    *in += left < size ? 0 : size;
    return left < size ? GAI_COPY_MORE : GAI_COPY_DONE;
}

/* A value that is no array and no object. */
static inline int gai_skip_scalar(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in;
    int status;
    switch (*at) {
    case 'n': return gai_skip_word(in, end, "null", 4);
    case 't': return gai_skip_word(in, end, "true", 4);
    case 'f': return gai_skip_word(in, end, "false", 5);
    case '"':
        at++;
        status = gai_skip_text(&at, end);
        *in = status == GAI_COPY_DONE ? at + 1 : *in;
        return status;
    }
    status = gai_skip_number(&at, end);
    if (status == GAI_COPY_DONE && (*at == '.' || (*at | 0x20) == 'e')) {
        at = *in;
        status = gai_skip_decimal(&at, end);
    }
    *in = status == GAI_COPY_DONE ? at : *in;
    return status;
}

/* Any value (RFC 8259), of not too many levels. */
static inline int gai_skip_value(const uint8_t **in, const uint8_t *end) {
    const uint8_t *at = *in;
    uint8_t closing[GAI_LEVELS];
    int depth = 0;
    enum { VALUE, VALUE_OR_END, NAME, NAME_OR_END, COLON, COMMA_OR_END } next = VALUE;
    for (;;) {
        int status = gai_skip_blanks(&at, end);
        if (status != GAI_COPY_DONE) {
            return status;
        }
        uint8_t c = *at;
        if (next == COLON) {
            if (c != ':') {
                return GAI_COPY_MISS;
            }
            at++;
            next = VALUE;
            continue;
        }
        if (next == COMMA_OR_END && c == ',') {
            at++;
            next = closing[depth - 1] == '}' ? NAME : VALUE;
            continue;
        }
        if (next == VALUE_OR_END || next == NAME_OR_END || next == COMMA_OR_END) {
            if (c == closing[depth - 1]) {
                at++;
                depth--;
            } else if (next == COMMA_OR_END) {
                return GAI_COPY_MISS;
            } else {
                next = next == NAME_OR_END ? NAME : VALUE;
                continue;
            }
        } else if (next == NAME || (c != '{' && c != '[')) {
            if (next == NAME && c != '"') {
                return GAI_COPY_MISS;
            }
            status = gai_skip_scalar(&at, end);
            if (status != GAI_COPY_DONE) {
                return status;
            }
            if (next == NAME) {
                next = COLON;
                continue;
            }
        } else {
            if (depth == GAI_LEVELS) {
                return GAI_COPY_MISS;
            }
            closing[depth++] = c == '{' ? '}' : ']';
            at++;
            next = c == '{' ? NAME_OR_END : VALUE_OR_END;
            continue;
        }
        if (!depth) {
            *in = at;
            return GAI_COPY_DONE;
        }
        next = COMMA_OR_END;
    }
}

/* ---- a frame against a template -------------------------------------------------------------------------------- */

/* From literal `from` on, up to the text hole or, behind it, to the end of the frame. `places[i]` becomes where
 * literal i begins; `said` is the frame's text as it came, once it is known. GAI_COPY_MORE: as far as the bytes go they
 * match. Inlined whatever the compiler thinks: it is 5 % of what copying a frame costs. */
__attribute__((always_inline)) static inline int gai_match(const gai_template *learned, int from, const uint8_t **in,
                                                           const uint8_t *end, const uint8_t **places,
                                                           const uint8_t *said, size_t said_size) {
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
            /* The framer does not wait for the LF behind the CR that ends an event. */
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
        /* Most ids, times and nulls are what they were: the same bytes, and behind them the same next one. */
        size = learned->begins[i + 1] - learned->ends[i];
        if (learned->kinds[i] <= GAI_HOLE_VALUE && (size_t)(end - at) > size &&
            memcmp(at, learned->frame + learned->ends[i], size + 1) == 0) {
            at += size;
            continue;
        }
        switch (learned->kinds[i]) {
        case GAI_HOLE_STRING: status = gai_skip_string(&at, end); break;
        case GAI_HOLE_NUMBER: status = gai_skip_number(&at, end); break;
        case GAI_HOLE_COUNT: status = gai_skip_count(&at, end); break;
        case GAI_HOLE_DECIMAL: status = gai_skip_decimal(&at, end); break;
        case GAI_HOLE_VALUE: status = gai_skip_value(&at, end); break;
        case GAI_HOLE_SAME: status = gai_skip_word(&at, end, (const char *)said, said_size); break;
        default: status = gai_skip_blanks(&at, end); break;
        }
        if (status != GAI_COPY_DONE) {
            return status;
        }
    }
}

/* What is before the text, and behind it: in most frames it is what it was, byte for byte. Where a frame that matches has
 * other values in its holes, the next ones will have, too. */
static inline int gai_match_lead(gai_template *learned, const uint8_t **in, const uint8_t *end, const uint8_t **places) {
    size_t size = learned->ends[learned->text];
    if (learned->has_steady_lead && (size_t)(end - *in) >= size && memcmp(*in, learned->frame, size) == 0) {
        *in += size;
        return GAI_COPY_DONE;
    }
    int status = gai_match(learned, 0, in, end, places, NULL, 0);
    learned->has_steady_lead = learned->has_steady_lead && status != GAI_COPY_DONE;
    return status;
}

static inline int gai_match_tail(gai_template *learned, const uint8_t **in, const uint8_t *end, const uint8_t **places,
                                 const uint8_t *said, size_t said_size) {
    size_t begin = learned->begins[learned->text + 1], size = learned->ends[learned->count] - begin;
    if (learned->has_steady_tail && (size_t)(end - *in) >= size && memcmp(*in, learned->frame + begin, size) == 0) {
        *in += size;
        return GAI_COPY_DONE;
    }
    int status = gai_match(learned, learned->text + 1, in, end, places, said, said_size);
    learned->has_steady_tail = learned->has_steady_tail && status != GAI_COPY_DONE;
    return status;
}

/* Learns a frame that is like one of another stream, with other values in its holes; nothing of it is kept. Its size, or
 * 0 where it is another one, or not whole. Nothing is matched where it was found then: the holes may have other sizes. */
static inline size_t gai_recall(gai_template *learned, const gai_template *known, const uint8_t *frame,
                                const uint8_t *end) {
    const uint8_t *places[GAI_HOLES + 1];
    const uint8_t *at = frame;
    if (gai_match(known, 0, &at, end, places, NULL, 0) != GAI_COPY_DONE) {
        return 0;
    }
    const uint8_t *said = at;
    if (gai_skip_text(&at, end) != GAI_COPY_DONE ||
        gai_match(known, known->text + 1, &at, end, places, said, (size_t)(at - said)) != GAI_COPY_DONE) {
        return 0;
    }
    *learned = *known;
    learned->frame = frame;
    for (int i = 0; i <= known->count; i++) {
        learned->begins[i] = (size_t)(places[i] - frame);
        learned->ends[i] = learned->begins[i] + (known->ends[i] - known->begins[i]);
    }
    return (size_t)(at - frame);
}

/* ---- learning -------------------------------------------------------------------------------------------------- */

static inline int gai_is_blank(uint8_t c) { return c == ' ' || c == '\t'; }

static inline int gai_is_line_end(uint8_t c) { return c == '\n' || c == '\r'; }

/* The JSON text of a frame: the value of its one `data:` line, or the line. 0 where it has another shape, and where
 * the frame would not end by itself. */
static inline int gai_find_json(const uint8_t *frame, size_t size, int lines, size_t *begin, size_t *end) {
    size_t at = 0;
    int found = 0;
    if (!size || frame[0] == 0xEF) {
        return 0; /* a byte order mark means something else at any other place */
    }
    if (lines) {
        if (frame[size - 1] != '\n') {
            return 0;
        }
        *begin = 0;
        *end = size - 1;
        while (*end && frame[*end - 1] == '\r') {
            --*end;
        }
        return 1;
    }
    if (frame[0] == '\n') {
        /* The LF of a CRLF that came late. Frames begin so all the time only where they end at the CR, too. */
        if (frame[size - 1] != '\r') {
            return 0;
        }
        at = 1;
    }
    while (at < size) {
        size_t line = at;
        while (at < size && !gai_is_line_end(frame[at])) {
            at++;
        }
        size_t stop = at;
        if (at == size) {
            return 0;
        }
        at += frame[at] == '\r' && at + 1 < size && frame[at + 1] == '\n' ? 2 : 1;
        if (line == stop) {
            return found && at == size;
        }
        if (stop - line >= 4 && memcmp(frame + line, "data", 4) == 0 && (stop - line == 4 || frame[line + 4] == ':')) {
            if (found || stop - line == 4) {
                return 0;
            }
            found = 1;
            *begin = line + 5;
            *end = stop;
        }
    }
    return 0;
}

static inline const gai_name *gai_named(const gai_name *names, size_t count, const uint8_t *name, size_t size) {
    for (size_t i = 0; i < count; i++) {
        if (names[i].size == size && memcmp(names[i].data, name, size) == 0) {
            return &names[i];
        }
    }
    return NULL;
}

static inline int gai_is_number(uint8_t c) {
    return (uint8_t)(c - '0') < 10 || c == '.' || c == '-' || c == '+' || (c | 0x20) == 'e';
}

/* What hole a number may be: an integer, or within a kept object any number; -1: it is a literal. */
static inline int gai_number_hole(const uint8_t *at, const uint8_t *end, int within_kept) {
    const uint8_t *number = at;
    int hole = within_kept ? GAI_HOLE_COUNT : GAI_HOLE_NUMBER;
    int status = within_kept ? gai_skip_count(&number, end) : gai_skip_number(&number, end);
    if (within_kept && (status != GAI_COPY_DONE || gai_is_number(*number))) {
        number = at;
        hole = GAI_HOLE_DECIMAL;
        status = gai_skip_decimal(&number, end);
    }
    return status == GAI_COPY_DONE && !gai_is_number(*number) ? hole : -1;
}

/* Whether the inside of a string says the text, which is given in our own escapes. `scratch` has room for it. */
static inline int gai_says(const uint8_t *begin, const uint8_t *end, const uint8_t *text, size_t size, uint8_t *scratch) {
    uint8_t *to = scratch;
    size_t characters = 0;
    if ((size_t)(end - begin) < size) {
        return 0; /* our escapes are the shortest */
    }
    return gai_copy_string(&begin, end + 1, &to, &characters) == GAI_COPY_DONE && (size_t)(to - scratch) == size &&
           memcmp(scratch, text, size) == 0;
}

static inline int gai_add_hole(gai_template *learned, gai_hole kind, size_t begin, size_t end) {
    if (learned->count == GAI_HOLES) {
        return 0;
    }
    learned->kinds[learned->count] = kind;
    learned->ends[learned->count++] = begin;
    learned->begins[learned->count] = end;
    return 1;
}

/* Learns a frame.
 *
 *   lines     NDJSON; otherwise SSE
 *   names     the members that mean something, each once
 *   text      what the frame's delta says, escaped as gai_copy_string does
 *   scratch   size + GAI_COPY_ROOM bytes
 *
 * 1: learned. 0: it is not clear which string is the text, or the frame is too unlike those that repeat. */
static inline int gai_learn(gai_template *learned, const uint8_t *frame, size_t size, int lines, const gai_name *names,
                     size_t name_count, const uint8_t *text, size_t text_size, uint8_t *scratch) {
    const gai_name *name = NULL; /* of the member whose value comes next */
    size_t begin = 0, stop = 0, depth = 0, kept_depth = 0, last_brace = 0;
    int within_kept = 0;
    if (!gai_find_json(frame, size, lines, &begin, &stop)) {
        return 0;
    }
    const uint8_t *at = frame + begin, *end = frame + stop;
    *learned = (gai_template){.frame = frame, .text = -1};
    learned->ends_line_only = !lines && size >= 2 && frame[size - 2] == '\r' && frame[size - 1] == '\n';
    while (at < end) {
        const uint8_t *token = at;
        uint8_t c = *at++;
        if (name && name->role == GAI_NAME_IGNORED && !within_kept && strchr("{[ntf", c)) {
            at = token;
            if (gai_skip_value(&at, end) != GAI_COPY_DONE ||
                !gai_add_hole(learned, GAI_HOLE_VALUE, (size_t)(token - frame), (size_t)(at - frame))) {
                return 0;
            }
        } else if (c == '"') {
            int plain = gai_skip_string(&at, end) == GAI_COPY_DONE;
            while (at < end && *at != '"') {
                at += *at == '\\' ? 2 : 1;
            }
            if (at >= end) {
                return 0;
            }
            const uint8_t *quote = at++;
            const uint8_t *colon = at;
            while (colon < end && gai_is_blank(*colon)) {
                colon++;
            }
            if (colon < end && *colon == ':') {
                name = gai_named(names, name_count, token + 1, (size_t)(quote - token - 1));
                at = colon + 1;
                while (at < end && gai_is_blank(*at)) {
                    at++;
                }
                continue;
            }
            gai_role role = name ? name->role : GAI_NAME_OTHER;
            size_t inside = (size_t)(token + 1 - frame), outside = (size_t)(quote - frame);
            if (role == GAI_NAME_TEXT && gai_says(token + 1, quote, text, text_size, scratch)) {
                int first = learned->text, again = first >= 0;
                if (again) {
                    size_t told = learned->ends[first], told_size = learned->begins[first + 1] - told;
                    if (outside - inside != told_size || memcmp(frame + inside, frame + told, told_size) != 0) {
                        return 0;
                    }
                } else {
                    learned->text = learned->count;
                }
                if (within_kept || !gai_add_hole(learned, again ? GAI_HOLE_SAME : GAI_HOLE_TEXT, inside, outside)) {
                    return 0;
                }
            } else if ((role == GAI_NAME_IGNORED || (role == GAI_NAME_LABEL && depth == 1)) && plain && !within_kept) {
                if (!gai_add_hole(learned, GAI_HOLE_STRING, inside, outside)) {
                    return 0;
                }
            }
        } else if (gai_is_number(c) && c != 'e' && c != 'E') {
            if (within_kept || (name && name->role == GAI_NAME_IGNORED)) {
                int hole = gai_number_hole(token, end, within_kept);
                while (at < end && gai_is_number(*at)) {
                    at++;
                }
                if (hole >= 0 &&
                    !gai_add_hole(learned, (gai_hole)hole, (size_t)(token - frame), (size_t)(at - frame))) {
                    return 0;
                }
            }
        } else if (c == '{' || c == '[') {
            depth++;
            if (c == '{' && name && name->role == GAI_NAME_KEPT) {
                if (within_kept || learned->kept_count == GAI_KEPT) {
                    return 0;
                }
                within_kept = 1;
                kept_depth = depth;
                if (learned->kept_count && learned->kept[0].name == (int)(name - names)) {
                    return 0;
                }
                learned->kept[learned->kept_count].name = (int)(name - names);
                learned->kept[learned->kept_count].first = learned->count;
                learned->kept[learned->kept_count].begin = (size_t)(token - frame);
            }
        } else if (c == '}' || c == ']') {
            if (!depth) {
                return 0;
            }
            if (within_kept && depth == kept_depth) {
                within_kept = 0;
                learned->kept[learned->kept_count].last = learned->count;
                learned->kept[learned->kept_count++].end = (size_t)(at - frame);
            }
            depth--;
            last_brace = c == '}' ? (size_t)(token - frame) : 0;
        } else if (c >= 0x80 || (c < 0x20 && c != '\t')) {
            return 0;
        }
        name = NULL;
    }
    while (stop > begin && gai_is_blank(frame[stop - 1])) {
        stop--;
    }
    if (learned->text < 0 || depth || !last_brace || last_brace + 1 != stop) {
        return 0;
    }
    /* Anthropic pads its frames with blanks before the last brace. */
    size_t blanks = last_brace;
    while (gai_is_blank(frame[blanks - 1])) {
        blanks--;
    }
    if (!gai_add_hole(learned, GAI_HOLE_BLANKS, blanks, last_brace)) {
        return 0;
    }
    learned->ends[learned->count] = size;
    /* Who keeps an object must know where it stands. */
    learned->has_steady_lead = learned->has_steady_tail = !learned->kept_count;
    for (int i = learned->text; i < learned->count; i++) {
        learned->has_steady_tail = learned->has_steady_tail && learned->kinds[i] != GAI_HOLE_SAME;
    }
    return 1;
}

#endif
