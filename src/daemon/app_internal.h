/* SPDX-License-Identifier: Apache-2.0 */
/* What making (app.c) and reloading (reload.c) share. */
#pragma once

#include "app.h"
#include "broker.h"
#include "discovery.h"
#include "dumper.h"
#include "exposition.h"
#include "http.h"
#include "planner.h"
#include "proc.h"
#include "reaper.h"
#include "recorder.h"
#include "sampler.h"
#include "scheduler.h"

struct app {
    struct config *config; /* in force */
    struct proc proc;
    struct store *store;
    struct reaper *reaper;
    struct dumper *dumper;
    struct sampler *sampler;
    struct planner *planner;
    struct scheduler *scheduler;
    struct broker *broker;
    struct discovery *discovery;
    struct exposition *exposition;
    struct http *http;
    uint64_t dropped; /* capabilities that no configuration was to need, and that are gone */
};

MUST_USE int app_make_exposition(struct config *config, struct exposition **ret_exposition);
/* Another memory, or none (NULL): what was recorded in the former one goes with it. */
void app_use_recorder(struct app *app, struct recorder *recorder);
/* Consumes the directory's name. */
void app_use_dump_options(struct app *app, const struct config *config, char *directory);
