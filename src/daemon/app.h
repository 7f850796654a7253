/* SPDX-License-Identifier: Apache-2.0 */
/* The composition root: who is made of what, starts in which order, and stops in reverse. */
#pragma once

#include "config.h"
#include "passed.h"
#include "service.h"

struct app;

/* Makes everything, starts nothing. Returns 0 or -errno; what failed has been logged. */
MUST_USE int app_new(struct config *config, struct app **ret_app);
/* Before the start: takes those that are for it. */
void app_take_passed(struct app *app, struct passed_fds *passed);
/* Starts the threads and listeners. Returns 0 or -errno; what failed has been logged. */
MUST_USE int app_start(struct app *app);
/*
 * Takes a new configuration into force: all of it, or none and *ret_error says why. Returns 0 or
 * -errno.
 */
MUST_USE int app_reload(struct app *app, struct config *config, struct config_error *ret_error);
/* The configuration in force, borrowed: until the next app_reload(). */
const struct config *app_config(const struct app *app);
/* Writes the recordings of all VMs to a file, where recorder.dump_on wants it. */
void app_dump(struct app *app);
/* Counts a reload that failed. */
void app_reload_failed(struct app *app);
/* What there is to tell systemd. `app` is borrowed by it. */
struct service_source app_service_source(struct app *app);
/* Stops what was started, in reverse. */
void app_free(struct app *app);
DEFINE_CLEANUP(struct app *, app_free)

/*
 * --once, instead of app_start(): looks, reads every VM once, writes the exposition to standard
 * output. Returns the number of VMs that were read, or -errno.
 */
MUST_USE int app_once(struct app *app);
