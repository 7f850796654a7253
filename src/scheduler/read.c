/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading, and what is made of it.
 *
 * Counters. A vCPU's are what its threads had while they were its: those that have ended, and the
 * present one. They go up only.
 *
 * Peaks. An interval is observed when its length is known well. Where we ourselves had to wait in
 * the middle of a reading, or one follows too closely on another (a VM that is read at once, when
 * it is new), none is observed: the next one then covers this time as well, and its rate is the
 * mean over both. So our own delays make no spikes.
 */
#include "internal.h"

/* What times 10^9 a share is counted in. */
#define SHARE_ONE UINT64_C(1000000000)

enum {
    NOTHING_MAX = 3, /* readings of nothing in a row, after which the kernel does not count */
};

struct times read_total(const struct sched_vcpu *vcpu)
{
    return (struct times){
        .run_ns = vcpu->former.run_ns + (vcpu->last.run_ns - vcpu->base.run_ns),
        .wait_ns = vcpu->former.wait_ns + (vcpu->last.wait_ns - vcpu->base.wait_ns),
    };
}

static void take_times(struct sched_vcpu *vcpu, struct times times, int64_t boot_ns)
{
    if (times.run_ns < vcpu->last.run_ns || times.wait_ns < vcpu->last.wait_ns) {
        /* No thread's times fall: by its number, which is all we have of it, it is another. */
        vcpu->former = read_total(vcpu);
        vcpu->base = (struct times){0};
        vcpu->observed_ns = 0;
    }
    vcpu->last = times;
    vcpu->read_boot_ns = boot_ns;
    vcpu->nothing_read = 0;
    vcpu->fresh = vcpu->known = true;
}

static void read_vcpu(struct scheduler *s, struct sched_vm *vm, struct sched_vcpu *vcpu,
                      int64_t boot_ns)
{
    struct times times;
    vcpu->fresh = false;
    int r = vcpu->fd >= 0 ? schedstat_read(vcpu->fd, &times)
                          : schedstat_read_once(s->proc, vm->pid, vcpu->tid, &times);
    if (r == 0) {
        take_times(vcpu, times, boot_ns);
    } else if (r == SCHEDSTAT_NOTHING) {
        if (++vcpu->nothing_read == NOTHING_MAX)
            scheduler_say(s, SCHEDULER_NO_SCHEDSTAT, 0);
    } else if (r == -ESRCH) {
        bind_release(vcpu);
        vm->look_due_ns = 0;
    } else if (r == -EACCES || r == -EPERM) {
        scheduler_say(s, SCHEDULER_FORBIDDEN, r);
    }
}

/* --- peaks --- */

static void free_peaks(const struct scheduler *s, struct windows ***peaks)
{
    for (size_t w = 0; *peaks && w < s->n_windows; w++)
        windows_free((*peaks)[w]);
    free(*peaks);
    *peaks = NULL;
}

/* Without memory nothing is observed, and the next observation tries again. */
static bool make_peaks(const struct scheduler *s, struct windows ***peaks)
{
    bool made = true;
    if (*peaks)
        return true;
    *peaks = calloc(s->n_windows, sizeof **peaks);
    for (size_t w = 0; *peaks && w < s->n_windows; w++)
        made = windows_new(s->windows_ns[w], 1, &(*peaks)[w]) == 0 && made;
    if (!made)
        free_peaks(s, peaks);
    return *peaks != NULL;
}

static void observe(const struct scheduler *s, struct windows ***peaks, int64_t now_ns,
                    uint64_t share)
{
    if (!make_peaks(s, peaks))
        return;
    for (size_t w = 0; w < s->n_windows; w++) {
        windows_age((*peaks)[w], now_ns, now_ns);
        windows_add((*peaks)[w], 0, window_key_of_high(share));
    }
}

void read_drop_peaks(const struct scheduler *s, struct sched_vm *vm)
{
    free_peaks(s, &vm->peaks);
    for (uint32_t i = 0; i < vm->n; i++) {
        free_peaks(s, &vm->vcpus[i].peaks);
        vm->vcpus[i].observed_ns = 0;
    }
}

/* The share of the interval that ends now; false: none does. */
static bool end_interval(const struct scheduler *s, struct sched_vcpu *vcpu, int64_t now_ns,
                         uint64_t *ret_share)
{
    uint64_t wait_ns = read_total(vcpu).wait_ns;
    int64_t since_ns = vcpu->observed_ns;
    if (since_ns && now_ns - since_ns < s->interval_ns / 2)
        return false;
    uint64_t waited_ns = wait_ns - vcpu->observed_wait_ns;
    vcpu->observed_ns = now_ns;
    vcpu->observed_wait_ns = wait_ns;
    if (!since_ns)
        return false;
    /* Some 18 s of waiting times 10^9 still fit 64 bits, an interval of an hour's do not. */
    *ret_share =
        (uint64_t)((unsigned __int128)waited_ns * SHARE_ONE / (uint64_t)(now_ns - since_ns));
    return true;
}

static void observe_vm(const struct scheduler *s, struct sched_vm *vm, int64_t now_ns)
{
    uint64_t sum = 0;
    bool any = false;
    for (uint32_t i = 0; i < vm->n; i++) {
        struct sched_vcpu *vcpu = &vm->vcpus[i];
        uint64_t share;
        if (!vcpu->fresh || !end_interval(s, vcpu, now_ns, &share))
            continue;
        any = true;
        sum += share;
        if (s->peaks_by_vcpu)
            observe(s, &vcpu->peaks, now_ns, share);
    }
    if (any && !s->peaks_by_vcpu)
        observe(s, &vm->peaks, now_ns, sum);
}

void read_vm(struct scheduler *s, struct sched_vm *vm, int64_t boot_ns)
{
    int64_t begin_ns = s->now_ns();
    for (uint32_t i = 0; i < vm->n; i++) {
        if (vm->vcpus[i].tid)
            read_vcpu(s, vm, &vm->vcpus[i], boot_ns);
    }
    vm->just_bound = false;
    if (s->n_windows && s->now_ns() - begin_ns < s->interval_ns / 4)
        observe_vm(s, vm, begin_ns);
}

/* --- publishing --- */

/*
 * Whether the VM's sums have all in them that they should: of each vCPU the time of its threads, or
 * the certainty that it has none (QEMU keeps a vCPU that was unplugged, without a thread).
 */
static bool is_whole(const struct sched_vm *vm)
{
    uint32_t n_wanted = 0;
    for (uint32_t i = 0; i < vm->n; i++) {
        const struct sched_vcpu *vcpu = &vm->vcpus[i];
        n_wanted += vcpu->wanted;
        if (vcpu->wanted && !vcpu->known && (vcpu->tid || !vm->all_named_bound))
            return false;
    }
    return n_wanted > 0 && n_wanted >= vm->vm_vcpus;
}

static void put_peaks(const struct scheduler *s, struct cputimes *times, size_t index,
                      struct windows *const *peaks, int64_t now_ns)
{
    for (size_t w = 0; w < s->n_windows; w++) {
        uint64_t key = WINDOW_NOTHING;
        if (peaks) {
            windows_age(peaks[w], now_ns, now_ns);
            key = windows_read(peaks[w], 0, now_ns);
        }
        times->peaks[index * s->n_windows + w] =
            key == WINDOW_NOTHING ? CPUTIMES_NO_PEAK : window_high_of_key(key);
    }
}

static void put_vm(const struct scheduler *s, struct cputimes *times, const struct sched_vm *vm,
                   int64_t now_ns)
{
    size_t index = times->n_vms++;
    struct cputimes_vm *to = &times->vms[index];
    *to = (struct cputimes_vm){
        .id = vm->id,
        .first_vcpu = (uint32_t)times->n_vcpus,
        .whole = is_whole(vm),
    };
    for (uint32_t i = 0; i < vm->n; i++) {
        const struct sched_vcpu *vcpu = &vm->vcpus[i];
        struct times total = read_total(vcpu);
        to->run_ns += total.run_ns;
        to->wait_ns += total.wait_ns;
        if (!vcpu->fresh)
            continue;
        if (s->peaks_by_vcpu)
            put_peaks(s, times, times->n_vcpus, vcpu->peaks, now_ns);
        times->vcpus[times->n_vcpus++] = (struct cputimes_vcpu){
            .vcpu = vcpu->id,
            .run_ns = total.run_ns,
            .wait_ns = total.wait_ns,
        };
    }
    to->n_vcpus = (uint32_t)times->n_vcpus - to->first_vcpu;
    if (!s->peaks_by_vcpu)
        put_peaks(s, times, index, vm->peaks, now_ns);
}

void read_publish(struct scheduler *s)
{
    struct cputimes *times;
    int64_t now_ns = s->now_ns();
    size_t n_vcpus = 0;
    bool lost = false;
    for (size_t i = 0; i < s->n_vms; i++) {
        for (uint32_t v = 0; v < s->vms[i]->n; v++) {
            const struct sched_vcpu *vcpu = &s->vms[i]->vcpus[v];
            n_vcpus += vcpu->fresh;
            lost = lost || (vcpu->wanted && vcpu->known && !vcpu->tid);
        }
    }
    atomic_store_explicit(&s->lost_threads, lost, memory_order_relaxed);
    if (cputimes_new(s->n_vms, n_vcpus, s->n_windows, s->peaks_by_vcpu, &times) < 0)
        return;
    for (size_t w = 0; w < s->n_windows; w++)
        times->windows_ns[w] = s->windows_ns[w];
    for (size_t i = 0; i < s->n_vms; i++)
        put_vm(s, times, s->vms[i], now_ns);
    cputimes_publish(&s->store->cputimes, times);
}
