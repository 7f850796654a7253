/* SPDX-License-Identifier: Apache-2.0 */
#include "privileges.h"

#include <stdio.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/utsname.h>

#define BIT(cap) (UINT64_C(1) << (cap))

/*
 * Whoever has it, by a drop-in of the unit say, has it for web.listen, and a reload may open port
 * 443. It is good for nothing else, so all threads may have it.
 */
#define OF_ANYBODY BIT(CAP_NET_BIND_SERVICE)

/*
 * Root who starts the daemon by hand goes on as root, whom files obey: this keeps no secret from
 * him. What he expects of his own paths he keeps, too: /run/kvmstatd may be the service's.
 */
#define OF_ROOT BIT(CAP_DAC_OVERRIDE)

static const struct {
    cap_value_t cap;
    const char *name;
} named[] = {
    {CAP_SYS_PTRACE, "CAP_SYS_PTRACE"},
    {CAP_BPF, "CAP_BPF"},
    {CAP_PERFMON, "CAP_PERFMON"},
};

DEFINE_CLEANUP(cap_t, cap_free)

static bool wants(const struct config *config, enum config_source source)
{
    for (size_t i = 0; i < config->discovery.n_sources; i++) {
        if (config->discovery.sources[i] == source)
            return true;
    }
    return false;
}

uint64_t privileges_of_sources(const struct config *config)
{
    uint64_t set = 0;
    if (wants(config, CONFIG_SOURCE_STATSFD))
        set |= BIT(CAP_SYS_PTRACE);
    if (wants(config, CONFIG_SOURCE_BPF)) /* VMs are held by their borrowed files */
        set |= BIT(CAP_SYS_PTRACE) | BIT(CAP_BPF) | BIT(CAP_PERFMON);
    return set;
}

uint64_t privileges_of_lookers(const struct config *config)
{
    return privileges_of_sources(config) & BIT(CAP_SYS_PTRACE);
}

/*
 * Where kernel.unprivileged_bpf_disabled is set, Linux before 5.19 (c8644cd0efe7) asked for CAP_BPF
 * at every use of bpf(), not only when something is loaded.
 */
uint64_t privileges_of_sampler(const struct config *config)
{
    struct utsname name;
    int major = 0, minor = 0;
    if (!wants(config, CONFIG_SOURCE_BPF))
        return 0;
    if (uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
        (major > 5 || (major == 5 && minor >= 19)))
        return 0;
    return BIT(CAP_BPF);
}

/* Returns the set, or 0 where it cannot be told. */
static uint64_t permitted(void)
{
    uint64_t set = 0;
    CLEANUP(cleanup_cap_free) cap_t caps = cap_get_proc();
    for (cap_value_t cap = 0; caps && cap < 64; cap++) {
        cap_flag_value_t value;
        if (cap_get_flag(caps, cap, CAP_PERMITTED, &value) == 0 && value == CAP_SET)
            set |= BIT(cap);
    }
    return set;
}

/* What execve() could give; takes CAP_SETPCAP, and is of no use to us without. */
static void drop_bounding(uint64_t kept)
{
    for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++) {
        if (cap >= 64 || !(kept & BIT(cap)))
            (void)cap_drop_bound(cap);
    }
}

int privileges_keep(uint64_t wanted)
{
    uint64_t had = permitted();
    uint64_t kept = had & (wanted | OF_ANYBODY | (geteuid() == 0 ? OF_ROOT : 0));
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (had == 0)
        return 0; /* a sandbox may forbid the call, where there is nothing to drop */
    (void)cap_reset_ambient();
    if (had & BIT(CAP_SETPCAP))
        drop_bounding(kept);
    CLEANUP(cleanup_cap_free) cap_t caps = cap_init(); /* all of it clear, inheritable too */
    if (!caps)
        return -ENOMEM;
    for (cap_value_t cap = 0; cap < 64; cap++) {
        if ((kept & BIT(cap)) && (cap_set_flag(caps, CAP_PERMITTED, 1, &cap, CAP_SET) < 0 ||
                                  cap_set_flag(caps, CAP_EFFECTIVE, 1, &cap, CAP_SET) < 0))
            return -errno;
    }
    return cap_set_proc(caps) < 0 ? -errno : 0;
}

uint64_t privileges_missing(uint64_t wanted)
{
    return wanted & ~permitted();
}

void privileges_name(uint64_t set, char *ret_text, size_t size)
{
    size_t at = 0;
    ret_text[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(named); i++) {
        if ((set & BIT(named[i].cap)) && at < size)
            at += (size_t)snprintf(ret_text + at, size - at, "%s%s", at ? ", " : "", named[i].name);
    }
}
