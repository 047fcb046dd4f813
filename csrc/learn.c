#include "learn.h"

#include <string.h>

#include "skip.h"

static int gai_is_blank(uint8_t c) { return c == ' ' || c == '\t'; }

static int gai_is_line_end(uint8_t c) { return c == '\n' || c == '\r'; }

/* Finds the JSON text of a frame: the value of its only `data:` line, or the line. Returns 0 if the frame has another
 * shape, or its last bytes do not end it. */
static int gai_find_json(const uint8_t *frame, size_t size, int lines, size_t *begin, size_t *end) {
    size_t at = 0;
    int found = 0;
    if (!size || frame[0] == 0xEF) {
        return 0; /* a byte order mark is dropped only at the start of the stream */
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
        /* The late LF of a CRLF. Later frames begin with a LF, too, only if this frame ends with the CR. */
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

static const gai_name *gai_named(const gai_name *names, size_t count, const uint8_t *name, size_t size) {
    for (size_t i = 0; i < count; i++) {
        if (names[i].size == size && memcmp(names[i].data, name, size) == 0) {
            return &names[i];
        }
    }
    return NULL;
}

static int gai_is_number(uint8_t c) {
    return (uint8_t)(c - '0') < 10 || c == '.' || c == '-' || c == '+' || (c | 0x20) == 'e';
}

/* Returns the kind of hole for a number: an integer; within a kept object a count or a fraction. -1 for a literal. */
static int gai_number_hole(const uint8_t *at, const uint8_t *end, int within_kept) {
    const uint8_t *number = at;
    int hole = within_kept ? GAI_HOLE_COUNT : GAI_HOLE_NUMBER;
    int status = within_kept ? gai_skip_some(&number, end) : gai_skip_number(&number, end);
    if (within_kept && (status != GAI_COPY_DONE || gai_is_number(*number))) {
        number = at;
        hole = GAI_HOLE_FRACTION;
        status = gai_skip_fraction(&number, end);
    }
    return status == GAI_COPY_DONE && !gai_is_number(*number) ? hole : -1;
}

/* Returns whether the inside of a string is the text, which has our own escapes. `scratch` has room for the string. */
static int gai_is_text(const uint8_t *begin, const uint8_t *end, const uint8_t *text, size_t size, uint8_t *scratch) {
    uint8_t *to = scratch;
    size_t characters = 0;
    size_t length = (size_t)(end - begin);
    if (length < size || length / 6 > size) {
        return 0; /* our escapes are the shortest form; the longest form, \uXXXX, needs six bytes for one */
    }
    if (size && *begin != *text && *begin != '\\') {
        return 0;
    }
    return gai_copy_string(&begin, end + 1, &to, &characters) == GAI_COPY_DONE && (size_t)(to - scratch) == size &&
           memcmp(scratch, text, size) == 0;
}

static int gai_add_hole(gai_template *learned, gai_hole kind, size_t begin, size_t end) {
    if (learned->count == GAI_HOLES) {
        return 0;
    }
    learned->kinds[learned->count] = kind;
    learned->ends[learned->count++] = begin;
    learned->begins[learned->count] = end;
    return 1;
}

int gai_learn(gai_template *learned, const uint8_t *frame, size_t size, int lines, const gai_name *names,
              size_t name_count, const uint8_t *text, size_t text_size, uint8_t *scratch) {
    const gai_name *name = NULL; /* the name of the member whose value comes next */
    size_t begin = 0, stop = 0, depth = 0, kept_depth = 0, last_brace = 0;
    int within_kept = 0;
    uint32_t kept_names = 0; /* a bit for each kept name that has come */
    if (!gai_find_json(frame, size, lines, &begin, &stop)) {
        return 0;
    }
    const uint8_t *at = frame + begin, *end = frame + stop;
    *learned = (gai_template){.frame = frame, .text = -1};
    learned->ends_line_only = !lines && size >= 2 && frame[size - 2] == '\r' && frame[size - 1] == '\n';
    while (at < end) {
        const uint8_t *token = at;
        uint8_t c = *at++;
        if (name && name->role == GAI_NAME_KEPT && depth == 1) {
            uint32_t bit = 1u << (name - names);
            if (kept_names & bit) {
                return 0; /* if a name comes twice, a parser uses the last value */
            }
            kept_names |= bit;
        }
        if (name && name->role == GAI_NAME_IGNORED && !within_kept &&
            (c == '{' || c == '[' || c == 'n' || c == 't' || c == 'f')) {
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
                if (!plain && memchr(token, '\\', (size_t)(quote - token))) {
                    return 0; /* with its escapes decoded it may be one of the names */
                }
                name = gai_named(names, name_count, token + 1, (size_t)(quote - token - 1));
                at = colon + 1;
                while (at < end && gai_is_blank(*at)) {
                    at++;
                }
                continue;
            }
            gai_role role = name ? name->role : GAI_NAME_OTHER;
            size_t inside = (size_t)(token + 1 - frame), outside = (size_t)(quote - frame);
            if (role == GAI_NAME_TEXT && gai_is_text(token + 1, quote, text, text_size, scratch)) {
                int first = learned->text, again = first >= 0;
                if (again) {
                    size_t known = learned->ends[first], known_size = learned->begins[first + 1] - known;
                    if (outside - inside != known_size || memcmp(frame + inside, frame + known, known_size) != 0) {
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
            } else if (role != GAI_NAME_IGNORED && gai_is_text(token + 1, quote, text, text_size, scratch)) {
                return 0; /* the adapter may have read the text from this member, which is not a hole */
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
            if (c == '{' && name && name->role == GAI_NAME_KEPT && depth == 2) {
                if (learned->kept_count == GAI_KEPT) {
                    return 0;
                }
                within_kept = 1;
                kept_depth = depth;
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
    /* Kept objects need the places of their literals, which only a full comparison sets. */
    int is_steady = !learned->kept_count, has_steady_tail = is_steady;
    for (int i = learned->text; i < learned->count; i++) {
        has_steady_tail = has_steady_tail && learned->kinds[i] != GAI_HOLE_SAME;
    }
    gai_set_steady(learned, is_steady, has_steady_tail);
    return 1;
}
