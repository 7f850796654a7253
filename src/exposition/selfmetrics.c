/* SPDX-License-Identifier: Apache-2.0 */
#include "selfmetrics.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "clock.h"
#include "own.h"

static const struct own_family build = {
    "kvmstatd_build", OWN_INFO, NULL, "Version and source revision that kvmstatd was built from."};
static const struct own_family vms = {"kvmstatd_vms", OWN_GAUGE, NULL, "VMs that are read now."};
static const struct own_family kernel_vms = {
    "kvmstatd_kernel_vms", OWN_GAUGE, NULL, "VMs that are alive on this host, as the kernel says."};
static const struct own_family unreadable = {
    "kvmstatd_vms_unreadable", OWN_GAUGE, NULL,
    "VMs that are known but cannot be read, by reason; /api/v1/vms names them."};
static const struct own_family targets = {"kvmstatd_targets", OWN_GAUGE, NULL,
                                          "VMs and vCPUs whose statistics are read at every tick."};
static const struct own_family discovery = {"kvmstatd_discovery_seconds", OWN_HISTOGRAM, "seconds",
                                            "Time from the creation of a VM to its first sample."};
static const struct own_family release = {
    "kvmstatd_release_seconds", OWN_HISTOGRAM, "seconds",
    "Time from the exit of a VMM until all file descriptors of its VMs were closed."};
static const struct own_family sweep = {
    "kvmstatd_sweep_duration_seconds", OWN_HISTOGRAM, "seconds",
    "Time that one tick's reading of all targets of an interval took."};
static const struct own_family lateness = {"kvmstatd_tick_lateness_seconds", OWN_HISTOGRAM,
                                           "seconds", "How much later than planned a tick began."};
static const struct own_family ticks = {"kvmstatd_ticks", OWN_COUNTER, NULL,
                                        "Ticks at which statistics were read."};
static const struct own_family ticks_missed = {
    "kvmstatd_ticks_missed", OWN_COUNTER, NULL,
    "Ticks that passed unused because the one before took too long or the host was too busy."};
static const struct own_family read_errors = {
    "kvmstatd_read_errors", OWN_COUNTER, NULL,
    "Reads of a target that failed; its series are absent until it can be read again."};
static const struct own_family rejected = {
    "kvmstatd_handoff_rejected", OWN_COUNTER, NULL,
    "Messages and file descriptors refused at the handoff socket."};
static const struct own_family recorder_memory = {
    "kvmstatd_recorder_memory_bytes", OWN_GAUGE, "bytes",
    "Memory that recorded ticks take, of what recorder.memory allows."};
static const struct own_family recorder_reach = {
    "kvmstatd_recorder_reach_seconds", OWN_GAUGE, "seconds",
    "How far back the recorder has every tick of every VM that was there then."};
static const struct own_family dumps = {
    "kvmstatd_dumps", OWN_COUNTER, NULL,
    "Recordings of VMs that were written to files, or should have been."};
static const struct own_family render = {"kvmstatd_render_duration_seconds", OWN_GAUGE, "seconds",
                                         "Time that rendering the last scrape took."};
static const struct own_family reload_ok = {
    "kvmstatd_config_last_reload_successful", OWN_GAUGE, NULL,
    "Whether the last attempt to load the configuration succeeded (1) or not (0)."};
static const struct own_family reload_time = {
    "kvmstatd_config_last_reload_success_timestamp_seconds", OWN_GAUGE, "seconds",
    "When the configuration in force was loaded, in seconds since the epoch."};

static const struct own_family cpu_seconds = {"process_cpu_seconds", OWN_COUNTER, "seconds",
                                              "CPU time that kvmstatd used, user and system."};
static const struct own_family resident = {"process_resident_memory_bytes", OWN_GAUGE, "bytes",
                                           "Resident memory of kvmstatd."};
static const struct own_family virtual = {"process_virtual_memory_bytes", OWN_GAUGE, "bytes",
                                          "Virtual memory of kvmstatd."};
static const struct own_family threads = {"process_threads", OWN_GAUGE, NULL,
                                          "Threads of kvmstatd."};
static const struct own_family open_fds = {"process_open_fds", OWN_GAUGE, NULL,
                                           "File descriptors that kvmstatd has open."};
static const struct own_family max_fds = {"process_max_fds", OWN_GAUGE, NULL,
                                          "File descriptors that kvmstatd may have open."};
static const struct own_family start_time = {
    "process_start_time_seconds", OWN_GAUGE, "seconds",
    "When kvmstatd was started, in seconds since the epoch."};

static void put_u64(struct own *own, const struct own_family *f, uint64_t value)
{
    own_single(own, f, own_exact(value, 0));
}

static void put_ns(struct own *own, const struct own_family *f, int64_t value_ns)
{
    own_single(own, f, own_exact((uint64_t)value_ns, -9));
}

static void put_reason(struct own *own, const char *reason, uint64_t value)
{
    const struct own_label label = {"reason", reason};
    own_sample(own, &label, 1, own_exact(value, 0));
}

static void put_targets(struct own *own, enum scope scope, enum target_source source,
                        const struct roster *roster)
{
    const struct own_label labels[] = {
        {"scope", scope == SCOPE_VM ? "vm" : "vcpu"},
        {"source", target_source_name(source)},
    };
    own_sample(own, labels, ARRAY_LEN(labels), own_exact(roster->targets[scope][source], 0));
}

static void put_roster(struct own *own, const struct roster *roster)
{
    put_u64(own, &vms, roster->read);
    if (roster->kernel_vms >= 0)
        put_u64(own, &kernel_vms, (uint64_t)roster->kernel_vms);
    own_begin(own, &unreadable);
    for (enum unreadable_reason r = UNREADABLE_NOT + 1; r < UNREADABLE_REASONS; r++) {
        if (r != UNREADABLE_DISABLED)
            put_reason(own, roster_reason_name(r), roster->unreadable[r]);
    }
    own_end(own);
    own_begin(own, &targets);
    for (unsigned source = 0; source < TARGET_SOURCES; source++) {
        put_targets(own, SCOPE_VM, (enum target_source)source, roster);
        put_targets(own, SCOPE_VCPU, (enum target_source)source, roster);
    }
    own_end(own);
}

#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)

static void put_self(struct own *own, const struct selfstats *self, int64_t render_begin_ns)
{
    own_selfhist(own, &discovery, &self->discovery);
    own_selfhist(own, &release, &self->release);
    own_selfhist(own, &sweep, &self->sweep_duration);
    own_selfhist(own, &lateness, &self->tick_lateness);
    put_u64(own, &ticks, LOAD(self->ticks));
    put_u64(own, &ticks_missed, LOAD(self->ticks_missed));
    own_begin(own, &read_errors);
    for (enum read_error e = 0; e < READ_ERRORS; e++)
        put_reason(own, read_error_name(e), LOAD(self->read_errors[e]));
    own_end(own);
    own_begin(own, &rejected);
    for (enum handoff_reject r = 0; r < HANDOFF_REJECTS; r++)
        put_reason(own, handoff_reject_name(r), LOAD(self->handoff_rejected[r]));
    own_end(own);

    int64_t since_ns = LOAD(self->recorder_since_ns);
    if (since_ns) {
        put_u64(own, &recorder_memory, LOAD(self->recorder_bytes));
        put_ns(own, &recorder_reach, MAX_OF(clock_now_ns() - since_ns, (int64_t)0));
    }
    own_begin(own, &dumps);
    for (enum dump_result r = 0; r < DUMP_RESULTS; r++) {
        const struct own_label label = {"result", dump_result_name(r)};
        own_sample(own, &label, 1, own_exact(LOAD(self->dumps[r]), 0));
    }
    own_end(own);

    /* The first scrape has none before it: it tells of itself, up to here. */
    int64_t render_ns = LOAD(self->render_duration_ns);
    put_ns(own, &render, render_ns > 0 ? render_ns : clock_now_ns() - render_begin_ns);
    put_u64(own, &reload_ok, LOAD(self->config_reload_ok) && !LOAD(self->web_config_refused));
    int64_t reload_ns = LOAD(self->config_reload_ok_wall_ns);
    if (reload_ns > 0)
        put_ns(own, &reload_time, reload_ns);
}

/* What /proc/self/stat says: proc(5). */
struct self_stat {
    unsigned long n_threads;
    unsigned long long start_ticks; /* since boot */
    unsigned long long virtual_bytes;
    long long resident_pages;
};

static int self_stat_read(struct self_stat *ret_stat)
{
    struct self_stat s;
    char text[1024];
    CLEANUP_FD int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, sizeof text - 1);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    /* The name in parentheses may hold anything, parentheses too. */
    const char *after_name = strrchr(text, ')');
    if (!after_name ||
        sscanf(after_name,
               ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %lu %*d %llu "
               "%llu %lld",
               &s.n_threads, &s.start_ticks, &s.virtual_bytes, &s.resident_pages) != 4)
        return -EBADMSG;
    *ret_stat = s;
    return 0;
}

int64_t selfmetrics_start_wall_ns(void)
{
    struct self_stat s;
    long ticks_per_second = sysconf(_SC_CLK_TCK);
    if (self_stat_read(&s) < 0 || ticks_per_second <= 0)
        return 0;
    int64_t boot_wall_ns = clock_read_ns(CLOCK_REALTIME) - clock_read_ns(CLOCK_BOOTTIME);
    return boot_wall_ns + (int64_t)s.start_ticks * (NSEC_PER_SEC / ticks_per_second);
}

/* Returns -errno, or how many fds this process has open. */
static long count_open_fds(void)
{
    struct stat st;
    /* Since Linux 6.2 the size of the folder is the number of fds; before, it is 0. */
    if (stat("/proc/self/fd", &st) == 0 && st.st_size > 0)
        return st.st_size;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return -errno;
    long n = -3; /* ".", ".." and the one that reads the folder */
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n;
}

static void put_process(struct own *own, int64_t start_wall_ns)
{
    struct self_stat s;
    struct rlimit limit;
    long fds = count_open_fds();
    put_ns(own, &cpu_seconds, clock_read_ns(CLOCK_PROCESS_CPUTIME_ID));
    if (self_stat_read(&s) == 0) {
        put_u64(own, &resident, (uint64_t)s.resident_pages * (uint64_t)getpagesize());
        put_u64(own, &virtual, s.virtual_bytes);
        put_u64(own, &threads, s.n_threads);
    }
    if (fds >= 0)
        put_u64(own, &open_fds, (uint64_t)fds);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        put_u64(own, &max_fds, limit.rlim_cur);
    if (start_wall_ns > 0)
        put_ns(own, &start_time, start_wall_ns);
}

void selfmetrics_put(struct own *own, const struct store *store, const struct roster *roster,
                     const struct exposition_process *process, int64_t process_start_wall_ns,
                     int64_t render_begin_ns)
{
    const struct own_label labels[] = {
        {"version", process->version},
        {"revision", process->revision},
    };
    own_begin(own, &build);
    own_sample(own, labels, ARRAY_LEN(labels), own_exact(1, 0));
    own_end(own);
    if (roster)
        put_roster(own, roster);
    put_self(own, &store->self, render_begin_ns);
    put_process(own, process_start_wall_ns);
}
