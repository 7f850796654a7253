# SPDX-License-Identifier: Apache-2.0
# What the toolchain files of this folder share: they set `triplet` and `processor`, and include
# this. tests/lab/cross uses them; each needs
#   KVMSTATD_SYSROOT    where libcheck and libyaml of that architecture were installed
#   KVMSTATD_EMULATOR   QEMU's emulator of its user programs
#   KVMSTATD_TOOLCHAIN  (optional) a folder with the compiler, where it is not in PATH
#   KVMSTATD_LIBC       (optional) a folder with lib/ld.so and the C library, else Debian's place
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ${processor})
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES
  KVMSTATD_SYSROOT KVMSTATD_EMULATOR KVMSTATD_TOOLCHAIN KVMSTATD_LIBC)

find_program(cross_compiler ${triplet}-gcc HINTS "${KVMSTATD_TOOLCHAIN}" REQUIRED NO_CACHE)
set(CMAKE_C_COMPILER ${cross_compiler})
if(NOT KVMSTATD_LIBC)
  set(KVMSTATD_LIBC /usr/${triplet})
endif()
set(CMAKE_CROSSCOMPILING_EMULATOR ${KVMSTATD_EMULATOR} -L ${KVMSTATD_LIBC})

set(CMAKE_C_STANDARD_LIBRARIES -lm) # libcheck's, which it keeps to itself

# Headers and libraries of this machine are for another one.
set(CMAKE_FIND_ROOT_PATH ${KVMSTATD_SYSROOT} /usr/${triplet})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${KVMSTATD_SYSROOT}/lib/pkgconfig)
