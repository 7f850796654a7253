/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prometheus text 0.0.4, OpenMetrics 1.0.0 and protobuf from a view of frames: pure, frames in,
 * bytes out. Families come from the kernel's descriptors alone; see the contract in README.md
 * ("Metrics").
 */
#pragma once

#include "buffer.h"
#include "config.h"
#include "view.h"

enum exposition_format {
    EXPOSITION_TEXT,        /* Prometheus text 0.0.4 */
    EXPOSITION_OPENMETRICS, /* 1.0.0 */
    EXPOSITION_PROTOBUF,    /* io.prometheus.client.MetricFamily messages, each after its length */
};
/* The Content-Type header of a format. Static. */
const char *exposition_content_type(enum exposition_format format);

/*
 * Which format an Accept header asks for. NULL or "" is no preference: text. Total: any bytes give
 * an answer (what cannot be parsed is skipped; nothing acceptable: text).
 */
enum exposition_format exposition_negotiate(const char *accept);
/* Whether an Accept-Encoding header allows gzip (q > 0; "*" counts unless gzip is excluded). */
bool exposition_accepts_gzip(const char *accept_encoding);

/* What the exposition says of the daemon besides the store: facts of the process. */
struct exposition_process {
    const char *version, *revision;
};

struct exposition;
/*
 * Keeps a reference to `config` (metrics.* is used) and remembers the families of each schema it
 * meets, so it serves views of one store. Returns 0 or -ENOMEM. THREADS: one exposition serves any
 * number of threads.
 */
MUST_USE int exposition_new(struct config *config, const struct exposition_process *process,
                            struct exposition **ret_exposition);
void exposition_free(struct exposition *exposition);
DEFINE_CLEANUP(struct exposition *, exposition_free)

/*
 * Where rendered bytes go. Called with each full piece (some 256 KiB, text cut at a line end) and
 * the last one; what it does with them (keep, compress) is the caller's. Returns 0 or -errno, which
 * ends the rendering with that error.
 */
struct exposition_sink {
    int (*piece)(void *ctx, const char *bytes, size_t len);
    void *ctx;
};

/*
 * Renders everything: VM and vCPU families, the info and sample-time families, kvmstatd_* and
 * process_*. `roster` may be NULL. Also sets store->self.render_duration_ns when done.
 * Returns 0 or -errno.
 */
MUST_USE int exposition_render(struct exposition *exposition, const struct view *view,
                               const struct roster *roster, enum exposition_format format,
                               const struct exposition_sink *sink);

/* Log lines for statistics whose names clash are wanted once: called back when a schema is first
 * met. */
typedef void exposition_notice_fn(const char *line);
void exposition_set_notice(struct exposition *exposition, exposition_notice_fn *notice);
