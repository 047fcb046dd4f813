/* The states of a DeltaCopier, and the calls that are allowed in each state.
 *
 *             look_at   lend   keep      take_chunk  take_copied  abandon   unload
 *   EMPTY     LOOKING                                EMPTY        EMPTY     EMPTY
 *   LOOKING   LOOKING   LENT                         LOOKING      LOOKING   EMPTY
 *   LENT                       LOOKING   LOOKING                  LOOKING   EMPTY
 *
 * EMPTY: the copier has no bytes. LOOKING: it copies frames from its bytes. LENT: as LOOKING, but it writes to memory
 * that a fast path has lent, which must not be kept. `abandon` follows an exception.
 *
 * In a sanitizer build a call that is not in the table aborts the process; other builds do not check calls.
 */
#ifndef GAI_STATES_H
#define GAI_STATES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define GAI_CHECKED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GAI_CHECKED 1
#endif
#endif
#if !defined(GAI_CHECKED)
#define GAI_CHECKED 0
#endif

enum { GAI_ILLEGAL, GAI_EMPTY, GAI_LOOKING, GAI_LENT, GAI_STATES };

enum { GAI_LOOK_AT, GAI_LEND, GAI_KEEP, GAI_TAKE_CHUNK, GAI_TAKE_COPIED, GAI_ABANDON, GAI_UNLOAD, GAI_CALLS };

static const uint8_t GAI_MOVES[GAI_STATES][GAI_CALLS] = {
    [GAI_EMPTY] = {[GAI_LOOK_AT] = GAI_LOOKING, [GAI_TAKE_COPIED] = GAI_EMPTY, [GAI_ABANDON] = GAI_EMPTY,
                   [GAI_UNLOAD] = GAI_EMPTY},
    [GAI_LOOKING] = {[GAI_LOOK_AT] = GAI_LOOKING, [GAI_LEND] = GAI_LENT, [GAI_TAKE_COPIED] = GAI_LOOKING,
                     [GAI_ABANDON] = GAI_LOOKING, [GAI_UNLOAD] = GAI_EMPTY},
    [GAI_LENT] = {[GAI_KEEP] = GAI_LOOKING, [GAI_TAKE_CHUNK] = GAI_LOOKING, [GAI_ABANDON] = GAI_LOOKING,
                  [GAI_UNLOAD] = GAI_EMPTY},
};

static inline void gai_move(uint8_t *state, int call) {
    if (GAI_CHECKED) {
        uint8_t next = GAI_MOVES[*state][call];
        if (next == GAI_ILLEGAL) {
            fprintf(stderr, "DeltaCopier: call %d in state %d\n", call, *state);
            abort();
        }
        *state = next;
    }
}

#endif
