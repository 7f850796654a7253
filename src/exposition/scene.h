/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A view turned into what the render loops run over: for each scope a flat list of series (where
 * the values are, which labels they carry), in runs of one schema. Made once a scrape, so that each
 * family is one tight loop that asks nothing about VMs, status or configuration any more.
 */
#pragma once

#include "families.h"
#include "view.h"

struct series {
    const uint8_t *block; /* a data block of the run's schema */
    /*
     * Text: `{vm="…"` or `{vm="…",vcpu="…"`. Protobuf: the encoded labels, and in the head_len
     * bytes before them tag and length of the metric that they make with a counter or a gauge.
     * WRITER_OVERRUN bytes may be read past them.
     */
    const char *labels;
    uint32_t labels_len;
    uint32_t head_len;
};

struct series_run {
    const struct schema *schema;
    size_t first, n;
    size_t label_bytes; /* of all its series, heads included */
};

struct series_list {
    struct series *items;
    size_t n;
    struct series_run *runs;
    size_t n_runs;
};

struct scene {
    struct series_list vm;         /* of the VM scope, read in this tick */
    struct series_list vcpu;       /* vCPUs that were read in this tick */
    struct series_list sums;       /* sums over vCPUs: cumulative values and histograms */
    struct series_list sums_fresh; /* those with at least one vCPU read in this tick: gauges */
    char *labels;                  /* arena */
    uint8_t *sum_blocks;           /* arena */
};

/*
 * `with_sums`: sums are wanted. Labels are in the language of `format`. The view must outlive the
 * scene. Returns 0 or -ENOMEM.
 */
MUST_USE int scene_make(const struct view *view, const struct family_table *table,
                        enum exposition_format format, bool with_sums, struct scene *ret_scene);
void scene_deinit(struct scene *scene);
#define CLEANUP_SCENE CLEANUP(scene_deinit)
