/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelview.h"

#include <stdio.h>
#include <string.h>

#include "log.h"

struct kernelview {
    struct broker *broker;
    struct store *store;
    bool opening_tried, opens;
    bool tried, works;
    struct bpf_error why_not;
    const struct schema *schemas[2]; /* by enum scope */
    size_t n;
    struct bpf_kvm_file *files; /* of the last pass, by VM, then vCPU */
};

int kernelview_new(struct broker *broker, struct store *store, struct kernelview **ret_view)
{
    struct kernelview *view = calloc(1, sizeof *view);
    if (!view)
        return -ENOMEM;
    view->broker = broker;
    view->store = store;
    *ret_view = view;
    return 0;
}

void kernelview_free(struct kernelview *view)
{
    if (!view)
        return;
    free(view->files);
    free(view);
}

static void say_why_not(const struct kernelview *view)
{
    log_warn("discovery", "VMs cannot be read by BPF: %s", view->why_not.message);
}

bool kernelview_opens(struct kernelview *view)
{
    if (view->opening_tried)
        return view->opens;
    view->opening_tried = true;
    view->opens = broker_bpf_open(view->broker, &view->why_not) == 0;
    if (!view->opens)
        say_why_not(view);
    return view->opens;
}

bool kernelview_works(struct kernelview *view)
{
    if (view->tried || !kernelview_opens(view))
        return view->works;
    view->tried = true;
    view->works =
        broker_schemas(view->broker, &view->store->schemas, view->schemas, &view->why_not) == 0;
    if (view->works)
        log_info("discovery", "BPF works: VMs can be read without any change to their VMM");
    else
        say_why_not(view);
    return view->works;
}

const char *kernelview_why_not(const struct kernelview *view)
{
    return view->why_not.message;
}

static int file_compare(const void *a, const void *b)
{
    const struct bpf_kvm_file *x = a, *y = b;
    if (x->kvm != y->kvm)
        return x->kvm < y->kvm ? -1 : 1;
    return (x->vcpu_id > y->vcpu_id) - (x->vcpu_id < y->vcpu_id);
}

int kernelview_refresh(struct kernelview *view)
{
    free(view->files);
    view->files = NULL;
    view->n = 0;
    int r = broker_bpf_list(view->broker, &view->files, &view->n);
    if (r < 0)
        return r;
    if (view->n)
        qsort(view->files, view->n, sizeof *view->files, file_compare);
    return 0;
}

int kernelview_find(const struct kernelview *view, pid_t pid, int fd, uint64_t *ret_kvm)
{
    for (size_t i = 0; i < view->n; i++) {
        if ((pid_t)view->files[i].tgid == pid && view->files[i].fd == fd) {
            *ret_kvm = view->files[i].kvm;
            return 0;
        }
    }
    return -ENOENT;
}

const struct bpf_kvm_file *kernelview_files(const struct kernelview *view, size_t *ret_n)
{
    *ret_n = view->n;
    return view->files;
}

/* The first file of a VM in the sorted pass, or n. */
static size_t first_of(const struct kernelview *view, uint64_t kvm)
{
    size_t low = 0, high = view->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (view->files[middle].kvm < kvm)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int kernelview_blocks(const struct kernelview *view, uint64_t kvm, struct kernel_block **ret_blocks,
                      size_t *ret_n)
{
    size_t first = first_of(view, kvm), end = first, n = 0;
    while (end < view->n && view->files[end].kvm == kvm)
        end++;
    if (end == first)
        return -ENOENT;
    struct kernel_block *blocks = calloc(end - first + 1, sizeof *blocks);
    if (!blocks)
        return -ENOMEM;
    blocks[n] = (struct kernel_block){
        .vcpu = -1,
        .address = broker_bpf_block(view->broker, SCOPE_VM, &view->files[first]),
    };
    broker_bpf_wanted(view->broker, SCOPE_VM, &view->files[first], &blocks[n++].wanted);
    for (size_t i = first; i < end; i++) {
        const struct bpf_kvm_file *file = &view->files[i];
        if (file->vcpu == 0 || file->vcpu_id == blocks[n - 1].vcpu)
            continue; /* the VM's own, or one more file of a vCPU */
        blocks[n] = (struct kernel_block){
            .vcpu = file->vcpu_id,
            .tid = file->vcpu_tid,
            .address = broker_bpf_block(view->broker, SCOPE_VCPU, file),
        };
        broker_bpf_wanted(view->broker, SCOPE_VCPU, file, &blocks[n++].wanted);
    }
    *ret_blocks = blocks;
    *ret_n = n;
    return 0;
}

const struct schema *kernelview_schema(const struct kernelview *view, enum scope scope)
{
    return view->schemas[scope];
}
