# SPDX-License-Identifier: Apache-2.0
"""Programs of a build that may be for another architecture."""

import os

BUILD = os.environ.get("KVMSTATD_BUILD", "build")
EMULATED = bool(os.environ.get("KVMSTATD_EMULATOR"))  # and many times slower


def command(*path):
    """The start of a command line that runs BUILD/path..., by an emulator where that is needed."""
    return [*os.environ.get("KVMSTATD_EMULATOR", "").split(), os.path.join(BUILD, *path)]
