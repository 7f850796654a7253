# SPDX-License-Identifier: Apache-2.0
# libkvmstats as others use it: its header in strict C11 and C++11, its shared library, its symbols,
# and what is installed of it.
set(consumer ${folder}/consumer)
set(consumer_flags "")
if(KVMSTATD_SANITIZE)
  set(consumer_flags -fsanitize=${KVMSTATD_SANITIZE})
endif()

add_executable(unit-kvmstats-c11 ${consumer}/consumer.c)
set_target_properties(unit-kvmstats-c11 PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF)
add_executable(unit-kvmstats-cxx ${consumer}/consumer.cpp)
set_target_properties(unit-kvmstats-cxx PROPERTIES CXX_STANDARD 11 CXX_EXTENSIONS OFF)
foreach(test unit-kvmstats-c11 unit-kvmstats-cxx)
  target_compile_options(${test} PRIVATE
    -Wall -Wextra -Wpedantic -pedantic-errors -Werror ${consumer_flags})
  target_link_options(${test} PRIVATE ${consumer_flags})
  target_link_libraries(${test} PRIVATE kvmstats)
  set_target_properties(${test} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${test} COMMAND ${test})
endforeach()

add_test(NAME unit-kvmstats-symbols
  COMMAND /usr/bin/python3 ${consumer}/symbols.py
    ${CMAKE_SOURCE_DIR}/include/kvmstats/kvmstats.h $<TARGET_FILE:kvmstats>)
add_test(NAME unit-kvmstats-install
  COMMAND /usr/bin/python3 ${consumer}/install.py ${CMAKE_COMMAND} ${CMAKE_BINARY_DIR} ${consumer}
    ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER} ${consumer_flags})
set_tests_properties(unit-kvmstats-c11 unit-kvmstats-cxx unit-kvmstats-symbols unit-kvmstats-install
  PROPERTIES LABELS unit TIMEOUT 120)
