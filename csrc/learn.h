#ifndef GAI_LEARN_H
#define GAI_LEARN_H

#include <stddef.h>
#include <stdint.h>

#include "template.h"

/* Learns a frame, which a JSON parser has read.
 *
 *   lines     NDJSON; otherwise SSE
 *   names     the members that mean something, each once, at most GAI_NAMES
 *   text      the text of the frame's delta, escaped as gai_copy_string does
 *   scratch   size + GAI_COPY_ROOM bytes
 *
 * Holes are: the text, which must stand in a string member of a text's name and in no other string; the values of
 * ignored members; the strings of labels at the top of the object; the numbers in kept objects, which must stand at the
 * top; the blanks before the last brace.
 *
 * 1: learned. 0: it is not clear which string is the text, or the frame is too unlike those that repeat. */
int gai_learn(gai_template *learned, const uint8_t *frame, size_t size, int lines, const gai_name *names,
              size_t name_count, const uint8_t *text, size_t text_size, uint8_t *scratch);

#endif
