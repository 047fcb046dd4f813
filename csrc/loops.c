/* Linked into each extension, which sets it when it is imported. */
#include "simd.h"

const gai_simd *gai_loops;
