# SPDX-License-Identifier: Apache-2.0
# Reading VMs by BPF wants libbpf to load the programs, and clang and bpftool to build them.

pkg_check_modules(LIBBPF QUIET IMPORTED_TARGET libbpf)
find_program(KVMSTATD_CLANG NAMES clang clang-19 clang-16 clang-14)
find_program(KVMSTATD_BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin)
mark_as_advanced(KVMSTATD_CLANG KVMSTATD_BPFTOOL)

set(missing "")
if(NOT LIBBPF_FOUND)
  list(APPEND missing libbpf)
endif()
if(NOT KVMSTATD_CLANG)
  list(APPEND missing clang)
endif()
if(NOT KVMSTATD_BPFTOOL)
  list(APPEND missing bpftool)
endif()

if(missing)
  set(default OFF)
else()
  set(default ON)
endif()
option(KVMSTATD_BPF "Read VMs by BPF, with no change to their VMM" ${default})
if(KVMSTATD_BPF AND missing)
  message(FATAL_ERROR "KVMSTATD_BPF=ON, but not found: ${missing}")
elseif(KVMSTATD_BPF)
  message(STATUS "BPF source: on")
else()
  message(STATUS "BPF source: off${missing}")
endif()

# asm/types.h stands in the multiarch folder, where clang does not look when it builds for BPF.
set(KVMSTATD_MULTIARCH_INCLUDE
  ${CMAKE_SYSROOT}/usr/include/${CMAKE_C_LIBRARY_ARCHITECTURE})
