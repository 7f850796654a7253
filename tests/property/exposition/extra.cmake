# SPDX-License-Identifier: Apache-2.0
target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/lib/stage.c)

# What tests/property/test_architectures.py drives.
add_executable(exposition-blobs ${folder}/helper/blobs.c ${CMAKE_SOURCE_DIR}/tests/lib/stage.c)
target_include_directories(exposition-blobs PRIVATE ${CMAKE_SOURCE_DIR}/tests/lib)
target_link_libraries(exposition-blobs PRIVATE exposition kvmstatd_options)
set_target_properties(exposition-blobs PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
