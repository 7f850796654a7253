# SPDX-License-Identifier: Apache-2.0
# 64 bits, big-endian.
set(triplet s390x-linux-gnu)
set(processor s390x)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
