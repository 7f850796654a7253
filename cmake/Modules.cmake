# SPDX-License-Identifier: Apache-2.0
# A module is a folder under src/: a static library whose headers only those can include that name it
# among what they know. A forbidden include fails to build because its folder is not on the path.

add_library(kvmstatd_options INTERFACE)
target_compile_definitions(kvmstatd_options INTERFACE _GNU_SOURCE)
# Offsets and times of 64 bits, on machines of 32 bits too.
target_compile_definitions(kvmstatd_options INTERFACE _FILE_OFFSET_BITS=64 _TIME_BITS=64)
target_compile_options(kvmstatd_options INTERFACE
  -Wall -Wextra -Wshadow -Wformat=2 -Wundef -Wvla -Wpointer-arith -Wcast-qual -Wnull-dereference
  $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes -Wswitch-enum>
  -fno-common -fstack-protector-strong)
target_link_libraries(kvmstatd_options INTERFACE Threads::Threads)
# Compilers of some architectures (riscv64 before GCC 13) leave exchanges of bytes to a library; it is
# linked statically, so that programs need no package for it.
include(CheckCSourceCompiles)
check_c_source_compiles("
  #include <stdatomic.h>
  #include <stdbool.h>
  atomic_bool flag;
  int main(void) { return atomic_exchange(&flag, true); }" KVMSTATD_ATOMICS_INLINE)
if(NOT KVMSTATD_ATOMICS_INLINE)
  target_link_libraries(kvmstatd_options INTERFACE -Wl,--push-state,-Bstatic -latomic -Wl,--pop-state)
endif()
if(KVMSTATD_WERROR)
  target_compile_options(kvmstatd_options INTERFACE -Werror)
endif()
if(KVMSTATD_FUZZ)
  # What is fuzzed is in the modules: they tell the fuzzer where it has been.
  target_compile_options(kvmstatd_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(KVMSTATD_SANITIZE)
  target_compile_options(kvmstatd_options INTERFACE
    -fsanitize=${KVMSTATD_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(kvmstatd_options INTERFACE -fsanitize=${KVMSTATD_SANITIZE})
elseif(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_options(kvmstatd_options INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
  target_link_options(kvmstatd_options INTERFACE -Wl,-z,relro,-z,now)
endif()

# kvmstatd_module(NAME SOURCES a.c … [KNOWS module …] [LIBS PkgConfig::X …])
function(kvmstatd_module name)
  cmake_parse_arguments(M "" "" "SOURCES;KNOWS;LIBS" ${ARGN})
  add_library(${name} STATIC ${M_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${M_KNOWS} PRIVATE ${M_LIBS} kvmstatd_options)
endfunction()
