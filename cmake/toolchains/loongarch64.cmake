# SPDX-License-Identifier: Apache-2.0
# 64 bits, little-endian.
set(triplet loongarch64-linux-gnu)
set(processor loongarch64)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
