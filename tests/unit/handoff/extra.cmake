# SPDX-License-Identifier: Apache-2.0
# libkvmstatd-handoff as others use it: its headers in strict C11 and C++11, its shared library, its
# symbols, and what is installed of it.
if(SECCOMP_FOUND AND NOT KVMSTATD_SANITIZE AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  target_link_libraries(${name} PRIVATE PkgConfig::SECCOMP)
  target_compile_definitions(${name} PRIVATE WITH_SECCOMP)
endif()

set(consumer ${folder}/consumer)
set(consumer_flags "")
if(KVMSTATD_SANITIZE)
  set(consumer_flags -fsanitize=${KVMSTATD_SANITIZE})
endif()

add_executable(unit-handoff-c11 ${consumer}/consumer.c)
set_target_properties(unit-handoff-c11 PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF)
add_executable(unit-handoff-cxx ${consumer}/consumer.cpp)
set_target_properties(unit-handoff-cxx PROPERTIES CXX_STANDARD 11 CXX_EXTENSIONS OFF)
foreach(test unit-handoff-c11 unit-handoff-cxx)
  target_compile_options(${test} PRIVATE
    -Wall -Wextra -Wpedantic -pedantic-errors -Werror ${consumer_flags})
  target_link_options(${test} PRIVATE ${consumer_flags})
  target_link_libraries(${test} PRIVATE kvmstatd-handoff)
  set_target_properties(${test} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${test} COMMAND ${test})
endforeach()

add_test(NAME unit-handoff-installed
  COMMAND /usr/bin/python3 ${consumer}/installed.py ${CMAKE_COMMAND} ${CMAKE_BINARY_DIR}
    ${consumer} ${CMAKE_SOURCE_DIR}/include/kvmstats/handoff.h $<TARGET_FILE:kvmstatd-handoff>
    $<TARGET_FILE:kvmstatd-preload> ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER} ${consumer_flags})
set_tests_properties(unit-handoff-c11 unit-handoff-cxx unit-handoff-installed
  PROPERTIES LABELS unit TIMEOUT 120)
