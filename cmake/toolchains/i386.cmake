# SPDX-License-Identifier: Apache-2.0
# 32 bits, little-endian; 64-bit values stand at multiples of 4.
set(triplet i686-linux-gnu)
set(processor i686)
# Where 64-bit atomics stand in a structure has changed in GCC 11, which it tells at each.
set(CMAKE_C_FLAGS_INIT -Wno-psabi)
# A child that was forked by a program with a shared C library hangs in this one of QEMU's emulators.
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
