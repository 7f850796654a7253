/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every libcheck binary shares: TAP on standard output, and one random source whose seed is
 * printed and can be given back (KVMSTATD_TEST_SEED=N).
 */
#pragma once

#include <check.h>
#include <stdint.h>

/* Runs the suites (NULL-terminated), prints TAP, returns the exit status for main(). */
int testing_run(Suite *first, ...) __attribute__((sentinel));

/*
 * Ends the running test as skipped: `# SKIP reason` in the TAP output. Call it at the top of a
 * test. With KVMSTATD_REQUIRE_KVM=1 it fails instead.
 */
void testing_skip(const char *reason) __attribute__((noreturn));

/* xorshift64*, seeded once a process. */
uint64_t testing_random(void);
/* A number in [0, below). */
uint64_t testing_random_below(uint64_t below);
