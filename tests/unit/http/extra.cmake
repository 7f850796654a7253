# SPDX-License-Identifier: Apache-2.0
# The tests unpack and parse what the server made, and make hashes.
target_link_libraries(${name} PRIVATE PkgConfig::DEFLATE PkgConfig::JSONC PkgConfig::CRYPT PkgConfig::GNUTLS)
