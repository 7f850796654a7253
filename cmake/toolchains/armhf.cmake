# SPDX-License-Identifier: Apache-2.0
# 32 bits, little-endian; 64-bit values stand at multiples of 8.
set(triplet arm-linux-gnueabihf)
set(processor armv7l)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
