/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What systemd is told; without systemd (no NOTIFY_SOCKET) all of it does nothing. None of it waits
 * for long, whoever is at the other end. THREADS: main.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "passed.h"

struct service {
    int64_t beat_ns;                    /* how often the watchdog is fed; 0: there is none */
    int64_t beat_due_ns, status_due_ns; /* INT64_MAX: never */
    char status[128];                   /* as told last */
    bool ready_owed;                    /* it could not be told yet */
};

/*
 * The fds that came with the start (sd_listen_fds_with_names(3)): close-on-exec, without the
 * environment that told of them. Returns 0 or -errno.
 */
MUST_USE int service_take_passed(struct passed_fds *ret_passed);

/* What is asked for by the environment. */
void service_init(struct service *service);

void service_ready(struct service *service);
void service_reloading(void);
void service_stopping(void);

/* When service_tend() wants to be called next; INT64_MAX: never. */
int64_t service_due_ns(const struct service *service);

/* Where signs of life and what is to be told come from. */
struct service_source {
    void *ctx;
    /*
     * Whether the last question of ask() has been answered. Without an answer the watchdog gets
     * nothing, and when its time is up systemd kills us.
     */
    bool (*answered)(void *ctx);
    void (*ask)(void *ctx);
    void (*describe)(void *ctx, char *text, size_t size);
};
/* Does what is due. */
void service_tend(struct service *service, const struct service_source *source);
