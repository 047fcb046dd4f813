/* The end of a text that comes in pieces, the insides of JSON strings: at least its last 64 characters, or all of them.
 *
 * A piece is kept whole, since a cut could hit an escape. So memory is bounded by two trails and one piece.
 */
#ifndef GAI_TRAIL_H
#define GAI_TRAIL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "buffer.h"

enum { GAI_TRAIL = 64 * 12 }; /* bytes of 64 characters, if each is an escape of two surrogates */

typedef struct {
    gai_buffer pieces;
    size_t before; /* the end of the pieces that are dropped as soon as enough bytes have followed them */
} gai_trail;

/* Forgets the pieces. Those that follow are the end again. */
static inline void gai_clear_trail(gai_trail *trail) {
    trail->pieces.size = trail->before = 0;
}

/* Makes room for pieces; forgets the earlier ones if there is no memory. Returns whether there is room. */
static inline int gai_reserve_trail(gai_trail *trail, size_t size) {
    if (gai_reserve(&trail->pieces, size) == 0) {
        return 1;
    }
    gai_clear_trail(trail);
    return 0;
}

/* Drops pieces, if enough have followed. */
static inline void gai_trim_trail(gai_trail *trail) {
    gai_buffer *pieces = &trail->pieces;
    if (pieces->size - trail->before >= GAI_TRAIL) {
        pieces->size -= trail->before;
        memmove(pieces->data, pieces->data + trail->before, pieces->size);
        trail->before = pieces->size;
    }
}

static inline void gai_add_to_trail(gai_trail *trail, const uint8_t *piece, size_t size) {
    if (gai_reserve_trail(trail, size)) {
        gai_put(&trail->pieces, piece, size);
        gai_trim_trail(trail);
    }
}

#endif
