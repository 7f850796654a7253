/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "testing.h"

Suite *replay_suite(void);
