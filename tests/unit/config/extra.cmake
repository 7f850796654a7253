# SPDX-License-Identifier: Apache-2.0
# The tests of exhausted memory let the n-th allocation of our own code fail (memory.c).
foreach(function malloc calloc realloc reallocarray strdup)
  target_link_options(${name} PRIVATE -Wl,--wrap=${function})
endforeach()
