/* The oldest compiler that the kernels are built with.
 *
 * GCC 8 is the compiler of the oldest systems with a wheel (manylinux_2_28). Older systems offer a newer GCC besides
 * their own. Clang reports itself as GCC 4, so its version is not checked.
 */
#ifndef GAI_COMPILER_H
#define GAI_COMPILER_H

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 8
#error "gai-fast needs GCC 8 or newer, or Clang: name one with CC=, or build with GAI_FAST_BUILD=pure, which compiles nothing"
#endif

#endif
