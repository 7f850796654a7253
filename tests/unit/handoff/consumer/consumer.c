/* SPDX-License-Identifier: Apache-2.0 */
/* The same program, in the C that it is written in as well, without GNU extensions. */
#include <stdbool.h>
static void expect(bool good, const char *what);
#include "consumer.cpp"
