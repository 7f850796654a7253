# SPDX-License-Identifier: Apache-2.0
# What tests/property/test_decimal.py drives.
add_executable(kvmstats-decimals ${folder}/helper/decimals.c)
target_link_libraries(kvmstats-decimals PRIVATE kvmstats_static kvmstatd_options)
set_target_properties(kvmstats-decimals PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
