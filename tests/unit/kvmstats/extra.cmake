# SPDX-License-Identifier: Apache-2.0
# libkvmstats as others use it: its header in strict C11 and C++11, its shared library, its symbols,
# and what is installed of it. Cross-compiled there is no C++, and nothing to install for.
set(consumer ${folder}/consumer)
set(consumer_flags "")
if(KVMSTATD_SANITIZE)
  set(consumer_flags -fsanitize=${KVMSTATD_SANITIZE})
endif()

add_executable(unit-kvmstats-c11 ${consumer}/consumer.c)
set_target_properties(unit-kvmstats-c11 PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF)
set(consumers unit-kvmstats-c11)
if(NOT CMAKE_CROSSCOMPILING)
  add_executable(unit-kvmstats-cxx ${consumer}/consumer.cpp)
  set_target_properties(unit-kvmstats-cxx PROPERTIES CXX_STANDARD 11 CXX_EXTENSIONS OFF)
  list(APPEND consumers unit-kvmstats-cxx)
endif()
foreach(test ${consumers})
  target_compile_options(${test} PRIVATE
    -Wall -Wextra -Wpedantic -pedantic-errors -Werror ${consumer_flags})
  target_link_options(${test} PRIVATE ${consumer_flags})
  if(CMAKE_EXE_LINKER_FLAGS MATCHES "-static")
    target_link_libraries(${test} PRIVATE kvmstats_static)
  else()
    target_link_libraries(${test} PRIVATE kvmstats)
  endif()
  set_target_properties(${test} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${test} COMMAND ${test})
endforeach()

add_test(NAME unit-kvmstats-symbols
  COMMAND /usr/bin/python3 ${consumer}/symbols.py
    ${CMAKE_SOURCE_DIR}/include/kvmstats/kvmstats.h $<TARGET_FILE:kvmstats>)
set(consumer_tests ${consumers} unit-kvmstats-symbols)
if(NOT CMAKE_CROSSCOMPILING)
  add_test(NAME unit-kvmstats-install
    COMMAND /usr/bin/python3 ${consumer}/install.py ${CMAKE_COMMAND} ${CMAKE_BINARY_DIR}
      ${consumer} ${CMAKE_C_COMPILER} ${CMAKE_CXX_COMPILER} ${consumer_flags})
  list(APPEND consumer_tests unit-kvmstats-install)
endif()
set_tests_properties(${consumer_tests} PROPERTIES LABELS unit TIMEOUT 120)
