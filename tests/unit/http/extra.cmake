# SPDX-License-Identifier: Apache-2.0
# The tests unpack and parse what the server made.
target_link_libraries(${name} PRIVATE PkgConfig::DEFLATE PkgConfig::JSONC)
