# SPDX-License-Identifier: Apache-2.0
"""The tests inside the booted system, in their order: each leaves the service installed, running and
as shipped, but for the last, which remove it."""

import machine
import installing  # pylint: disable=unused-import
import reading  # pylint: disable=unused-import
import restarts  # pylint: disable=unused-import
import ways  # pylint: disable=unused-import
import conditions  # pylint: disable=unused-import
import removing  # pylint: disable=unused-import

if __name__ == "__main__":
    machine.t.main()
