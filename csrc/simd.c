/* Which forms of the loops this machine has. */
#include "simd.h"

int gai_find_forms(const gai_simd *forms[GAI_FORMS]) {
    const gai_simd *all[GAI_FORMS] = {gai_scalar_loops(), gai_vector_loops(), gai_avx2_loops(), gai_avx512_loops()};
    int count = 0;
    for (int i = 0; i < GAI_FORMS; i++) {
        if (all[i] != NULL) {
            forms[count++] = all[i];
        }
    }
    return count;
}
