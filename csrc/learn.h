#ifndef GAI_LEARN_H
#define GAI_LEARN_H

#include <stddef.h>
#include <stdint.h>

#include "template.h"

/* Learns a frame, which a JSON parser has read.
 *
 *   lines     NDJSON; otherwise SSE
 *   names     the names of the adapter's members, each once, at most GAI_NAMES
 *   text      the text of the frame's delta, with the escapes that gai_copy_string writes
 *   scratch   memory of size + GAI_COPY_ROOM bytes
 *
 * The holes are: the text, which must be the string of a member with a text's name, and no other string; the values of
 * ignored members; the strings of labels at the top level; the numbers in kept objects, which must be at the top level;
 * the blanks before the last brace.
 *
 * Returns 1 if the frame was learned. Returns 0 if it is not clear which string is the text, or if the frame is too
 * different from frames that repeat. */
int gai_learn(gai_template *learned, const uint8_t *frame, size_t size, int lines, const gai_name *names,
              size_t name_count, const uint8_t *text, size_t text_size, uint8_t *scratch);

#endif
