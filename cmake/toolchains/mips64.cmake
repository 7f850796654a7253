# SPDX-License-Identifier: Apache-2.0
# 64 bits, big-endian; accesses have to be aligned.
set(triplet mips64-linux-gnuabi64)
set(processor mips64)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
