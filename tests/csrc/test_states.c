/* states.h: in this build, a sanitizer's, the calls of the table are followed and all others end the process. */
#include <setjmp.h>

#include "check.h"

/* Here it does not end the process: one for each call would take 0.25 s under qemu, which copies a sanitizer's maps. */
static jmp_buf before_the_call;
#define abort() longjmp(before_the_call, 1)
#include "states.h"

static int ends_the_process(uint8_t state, int call) {
    if (setjmp(before_the_call) == 0) {
        gai_move(&state, call);
        return 0;
    }
    return 1;
}

int main(void) {
    static const int fast[] = {GAI_LOOK_AT, GAI_LEND, GAI_TAKE_CHUNK, GAI_UNLOAD, GAI_LOOK_AT, GAI_LEND, GAI_KEEP,
                               GAI_UNLOAD, GAI_TAKE_COPIED, GAI_LOOK_AT, GAI_LEND, GAI_UNLOAD};
    uint8_t state = GAI_EMPTY;
    int legal = 0;
    CHECK(GAI_CHECKED, "this is no sanitizer build");
    for (size_t i = 0; i < LENGTH(fast); i++) {
        gai_move(&state, fast[i]);
    }
    CHECK(state == GAI_EMPTY, "%d", state);
    for (state = GAI_EMPTY; state < GAI_STATES; state++) {
        for (int call = 0; call < GAI_CALLS; call++) {
            int is_legal = GAI_MOVES[state][call] != GAI_ILLEGAL;
            CHECK(ends_the_process(state, call) == !is_legal, "call %d in state %d", call, state);
            legal += is_legal;
        }
    }
    CHECK(legal == 13, "%d", legal);
    return 0;
}
