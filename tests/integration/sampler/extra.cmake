# SPDX-License-Identifier: Apache-2.0
target_sources(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit/sampler/rig.c)
target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit/sampler)
target_link_libraries(${name} PRIVATE kvmtest)
