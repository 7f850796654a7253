# SPDX-License-Identifier: Apache-2.0
target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/lib/stage.c)
target_link_libraries(${name} PRIVATE m)
