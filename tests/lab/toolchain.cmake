# SPDX-License-Identifier: Apache-2.0
# Debian's compiler for another architecture, and a folder with packages of that architecture:
#   -DKVMSTATD_TRIPLET=aarch64-linux-gnu -DKVMSTATD_PROCESSOR=aarch64 -DCMAKE_SYSROOT=FOLDER
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${KVMSTATD_PROCESSOR})
set(CMAKE_C_COMPILER ${KVMSTATD_TRIPLET}-gcc)
# CMake tries the compiler in projects of their own, which have to know as much.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES KVMSTATD_TRIPLET KVMSTATD_PROCESSOR)

# A cross compiler has a libc of its own to link with. It may be older than the one that the folder's
# libraries were linked with, which is also the one that the programs will run with.
set(CMAKE_EXE_LINKER_FLAGS_INIT -Wl,--allow-shlib-undefined)

set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_SYSROOT})
set(ENV{PKG_CONFIG_LIBDIR}
  ${CMAKE_SYSROOT}/usr/lib/${KVMSTATD_TRIPLET}/pkgconfig:${CMAKE_SYSROOT}/usr/share/pkgconfig)
