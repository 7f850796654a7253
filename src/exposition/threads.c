/* SPDX-License-Identifier: Apache-2.0 */
#include "threads.h"

#include "bursts.h"
#include "number.h"

enum {
    THREADS_CPU,
    THREADS_WAIT,
    THREADS_PEAK,
    THREADS_FAMILIES,
};

const struct own_family own_vcpu_families[THREADS_FAMILIES + 1] = {
    [THREADS_CPU] = {"kvm_vcpu_cpu_seconds", OWN_COUNTER, "seconds",
                     "Time the vCPU's thread ran on a CPU, in the guest or for it."},
    [THREADS_WAIT] = {"kvm_vcpu_runqueue_wait_seconds", OWN_COUNTER, "seconds",
                      "Time the vCPU's thread was ready to run and waited for a CPU: steal, as the "
                      "host sees it."},
    [THREADS_PEAK] = {"kvm_vcpu_runqueue_wait_peak_ratio", OWN_GAUGE, NULL,
                      "Highest share of any one reading's interval in the window that vCPU threads "
                      "waited for a CPU; a wait counts when it ends."},
};

/* What is being gone through. */
struct walk {
    const struct cputimes *times;
    bool by_vcpu;
    size_t family;
    threads_sample_fn *sample;
    void *ctx;
};

static void each_total(const struct walk *walk, const struct vm_identity *id,
                       const struct cputimes_vm *vm)
{
    struct threads_sample sample = {.vm = id, .vcpu = -1};
    bool cpu = walk->family == THREADS_CPU;
    if (!walk->by_vcpu) {
        sample.value_nano = cpu ? vm->run_ns : vm->wait_ns;
        if (vm->whole)
            walk->sample(walk->ctx, &sample);
        return;
    }
    for (uint32_t i = 0; i < vm->n_vcpus; i++) {
        const struct cputimes_vcpu *vcpu = &walk->times->vcpus[vm->first_vcpu + i];
        sample.vcpu = vcpu->vcpu;
        sample.value_nano = cpu ? vcpu->run_ns : vcpu->wait_ns;
        walk->sample(walk->ctx, &sample);
    }
}

static void each_window(const struct walk *walk, struct threads_sample sample, size_t index)
{
    const struct cputimes *times = walk->times;
    char window[BURST_WINDOW_LABEL_BYTES];
    sample.window = window;
    for (size_t w = 0; w < times->n_windows; w++) {
        sample.value_nano = times->peaks[index * times->n_windows + w];
        if (sample.value_nano == CPUTIMES_NO_PEAK)
            continue;
        burst_window_label(times->windows_ns[w], window);
        walk->sample(walk->ctx, &sample);
    }
}

static void each_peak(const struct walk *walk, const struct vm_identity *id,
                      const struct cputimes_vm *vm)
{
    const struct cputimes *times = walk->times;
    struct threads_sample sample = {.vm = id, .vcpu = -1};
    if (!times->peaks_by_vcpu) {
        if (vm->whole)
            each_window(walk, sample, (size_t)(vm - times->vms));
        return;
    }
    for (uint32_t i = 0; i < vm->n_vcpus; i++) {
        sample.vcpu = times->vcpus[vm->first_vcpu + i].vcpu;
        each_window(walk, sample, vm->first_vcpu + i);
    }
}

void threads_each(const struct view *view, const struct cputimes *times,
                  const struct config *config, size_t family, threads_sample_fn *sample, void *ctx)
{
    const struct walk walk = {
        .times = times,
        .by_vcpu = config->metrics.vcpu,
        .family = family,
        .sample = sample,
        .ctx = ctx,
    };
    for (size_t i = 0; times && i < view->n_vms; i++) {
        const struct layout_vm *shown = view->vms[i].vm;
        const struct cputimes_vm *vm = cputimes_find(times, shown->vm->id);
        if (vm && family == THREADS_PEAK)
            each_peak(&walk, shown->identity, vm);
        else if (vm)
            each_total(&walk, shown->identity, vm);
    }
}

/* --- the exposition --- */

struct output {
    struct own *own;
    const struct own_family *family;
    bool begun;
};

static void put_sample(void *ctx, const struct threads_sample *sample)
{
    struct output *output = ctx;
    struct own_label labels[3] = {{"vm", sample->vm->vm}};
    char vcpu[NUMBER_U64_BYTES + NUMBER_OVERRUN];
    size_t n = 1;
    if (!output->begun)
        own_begin(output->own, output->family);
    output->begun = true;
    if (sample->vcpu >= 0) {
        *number_put_u64(vcpu, (uint64_t)sample->vcpu) = '\0';
        labels[n++] = (struct own_label){"vcpu", vcpu};
    }
    if (sample->window)
        labels[n++] = (struct own_label){"window", sample->window};
    own_sample(output->own, labels, n, own_exact(sample->value_nano, -9));
}

void threads_put(struct own *own, const struct view *view, const struct cputimes *times,
                 const struct config *config)
{
    for (size_t i = 0; i < THREADS_FAMILIES; i++) {
        struct output output = {.own = own, .family = &own_vcpu_families[i]};
        threads_each(view, times, config, i, put_sample, &output);
        if (output.begun)
            own_end(own);
    }
}
