/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: parsed, validated, immutable. Only config.c's neighbours see yaml.h. The keys
 * and their defaults are documented in conf/kvmstatd.yaml, which a test holds against
 * config_defaults().
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cleanup.h"
#include "log.h"

/* Where something stands in a file. Both 1-based; a column is a character. */
struct place {
    size_t line, column;
};

/* A list of strings (globs, names, addresses). */
struct string_list {
    size_t n;
    char **items;
};

enum config_source {
    CONFIG_SOURCE_HANDOFF,
    CONFIG_SOURCE_STATSFD,
    CONFIG_SOURCE_BPF,
    CONFIG_SOURCES,
};

enum config_histograms {
    CONFIG_HISTOGRAMS_VCPU,
    CONFIG_HISTOGRAMS_VM,
    CONFIG_HISTOGRAMS_OFF,
};

enum config_scope {
    CONFIG_SCOPE_VM,
    CONFIG_SCOPE_VCPU,
};

enum {
    /* A rate group costs a timer and a set of frames; the store has RINGS_MAX rings, twice as many.
     */
    CONFIG_INTERVALS_MAX = 32,
    CONFIG_RULES_MAX = 1024,
    CONFIG_FILE_MAX_BYTES = 1 << 20,
};

/* Globs as fnmatch(3) has them; NULL matches everything. */
struct config_rule {
    char *vm, *uuid, *vmm, *unit;
    bool enabled;        /* default true */
    int64_t interval_ns; /* 0: sampling.interval */
};

struct config {
    atomic_uint refs;
    bool of_file; /* read from one; false: the defaults */
    struct {
        int64_t interval_ns;
        size_t n_cpus; /* cpu_affinity; 0: inherited */
        int *cpus;
        size_t n_rules;
        struct config_rule *rules;
    } sampling;
    struct {
        size_t n_sources;
        enum config_source sources[CONFIG_SOURCES]; /* best first, each at most once */
        int64_t rescan_ns;
        bool unsafe_kernel_allow;
    } discovery;
    struct {
        char *socket;
        struct string_list allow_users;
    } handoff;
    struct {
        struct string_list include, exclude;
        bool vcpu;
        enum config_histograms histograms;
    } metrics;
    struct {
        size_t n_windows;
        int64_t *windows_ns;
        struct string_list stats, distribution;
        enum config_scope scope;
    } bursts;
    struct {
        int64_t interval_ns; /* 0: off */
    } scheduler;
    struct {
        uint64_t memory_bytes; /* 0: off */
        char *directory;
        bool dump_on_vmm_killed, dump_on_signal;
    } recorder;
    struct {
        struct string_list listen;
        char *config_file; /* "": none */
        uint32_t max_requests;
        int64_t timeout_ns;
    } web;
    struct {
        uint32_t max_vms;
        uint32_t max_vcpus_per_vm;
    } limits;
    enum log_level log_level;
};

/* One line: "FILE:LINE:COLUMN: what is wrong, what would be right", or "FILE: …" without a place.
 */
struct config_error {
    char message[512];
};

/* The built-in defaults. Returns 0 or -ENOMEM. */
MUST_USE int config_defaults(struct config **ret_config);
/*
 * `name` is how messages call the text. Returns 0, -EINVAL with *ret_error filled, or -ENOMEM.
 * Never reads beyond CONFIG_FILE_MAX_BYTES.
 */
MUST_USE int config_parse(const char *name, const char *text, size_t len,
                          struct config **ret_config, struct config_error *ret_error);
/*
 * The same from a file; -ENOENT and other errnos of opening it come with *ret_error filled too.
 * `regular`: what is no regular file is refused (-EINVAL), else a pipe may be waited for.
 */
MUST_USE int config_load(const char *path, bool regular, struct config **ret_config,
                         struct config_error *ret_error);
struct config *config_ref(struct config *config);
void config_unref(struct config *config);
DEFINE_CLEANUP(struct config *, config_unref)

/*
 * Replaces web.listen by copies, for an argument that wins over the file. Only before the
 * configuration is shared. Returns 0 or -ENOMEM (then web.listen is as it was).
 */
MUST_USE int config_set_listen(struct config *config, const struct string_list *addresses);

/* Whether the two mean the same. */
bool config_equal(const struct config *a, const struct config *b);

struct config_verdict {
    bool enabled;
    int64_t interval_ns;
};
/* The first rule that matches, else the defaults. Strings may be "" but not NULL. */
struct config_verdict config_match(const struct config *config, const char *vm, const char *uuid,
                                   const char *vmm, const char *unit);

/* A statistic's kernel name is wanted: some include matches and no exclude. */
bool config_wants_stat(const struct config *config, const char *name);
/* The same of bursts.stats and bursts.distribution. */
bool config_wants_peak(const struct config *config, const char *name);
bool config_wants_distribution(const struct config *config, const char *name);

/* "100ms", "5s", "1h": a decimal number and ns|us|ms|s|m|h. Returns 0, -EINVAL or -ERANGE. */
MUST_USE int config_parse_duration(const char *text, int64_t *ret_ns);

/* An address of web.listen: HOST:PORT, [V6]:PORT, :PORT, unix:PATH. */
struct listen_address {
    char host[256]; /* "": every address; for a Unix socket its path */
    uint16_t port;
    bool is_unix, is_v6;
};
/* Returns 0 or -EINVAL with a message (what would be right) in *ret_error. */
MUST_USE int config_parse_listen(const char *text, struct listen_address *ret_address,
                                 struct config_error *ret_error);
