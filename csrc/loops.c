/* Linked into each extension that uses the loops. The import of the extension sets the pointer. */
#include "simd.h"

const gai_simd *gai_loops;
