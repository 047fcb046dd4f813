/* The oldest compiler that the kernels are built with.
 *
 * GCC 8 is that of the oldest systems with a wheel (manylinux_2_28). Older systems have a newer one beside their own.
 * Clang calls itself GCC 4, and is not judged by that.
 */
#ifndef GAI_COMPILER_H
#define GAI_COMPILER_H

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 8
#error "gai-fast needs GCC 8 or newer, or Clang: name one with CC=, or build with GAI_FAST_BUILD=pure, which compiles nothing"
#endif

#endif
