/* SPDX-License-Identifier: Apache-2.0 */
/* The composition root: who is made of what, starts in which order, and stops in reverse. */
#pragma once

#include "config.h"

struct app;

/* Makes everything, starts nothing. Returns 0 or -errno; what failed has been logged. */
MUST_USE int app_new(struct config *config, struct app **ret_app);
/* Starts the threads and listeners. Returns 0 or -errno; what failed has been logged. */
MUST_USE int app_start(struct app *app);
/* Takes a new configuration into force and logs which changes want a restart. */
void app_reload(struct app *app, struct config *config);
/* Counts a reload that failed. */
void app_reload_failed(struct app *app);
/* Stops what was started, in reverse. */
void app_free(struct app *app);
DEFINE_CLEANUP(struct app *, app_free)

/*
 * --once, instead of app_start(): looks, reads every VM once, writes the exposition to standard
 * output. Returns the number of VMs that were read, or -errno.
 */
MUST_USE int app_once(struct app *app);
