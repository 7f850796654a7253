/* SPDX-License-Identifier: Apache-2.0 */
#include "kernelview.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "log.h"

enum {
    /* An attempt takes 50 ms: it reads the kernel's BTF or makes a VM. */
    RETRY_FIRST_MS = 5000,
    RETRY_LAST_MS = 60000,
};

struct kernelview {
    struct broker *broker;
    struct store *store;
    bool opens, works;
    bool in_vain;     /* for as long as the kernel and we run */
    int64_t tried_ns; /* the last attempt that failed; 0: none has since one went well */
    int64_t again_ns, delay_ns;
    struct bpf_error why_not, said;
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

/* What neither a module that is loaded later nor time can change. */
static bool is_for_good(int r)
{
    return r == -EPERM || r == -EOPNOTSUPP || r == -ENOTTY || r == -EBADMSG;
}

static void note_failure(struct kernelview *view, int r)
{
    view->tried_ns = clock_now_ns();
    view->delay_ns = view->delay_ns ? MIN_OF(2 * view->delay_ns, RETRY_LAST_MS * NSEC_PER_MSEC)
                                    : RETRY_FIRST_MS * NSEC_PER_MSEC;
    view->again_ns = view->tried_ns + view->delay_ns;
    view->in_vain = is_for_good(r);
    if (strcmp(view->said.message, view->why_not.message) != 0)
        log_warn("discovery", "VMs cannot be read by BPF: %s%s", view->why_not.message,
                 view->in_vain ? "" : "; trying again while there are VMs");
    view->said = view->why_not;
}

static void note_success(struct kernelview *view)
{
    view->tried_ns = view->delay_ns = 0;
    view->why_not.message[0] = '\0';
}

static bool may_try(const struct kernelview *view)
{
    return !view->in_vain && (!view->tried_ns || clock_now_ns() >= view->again_ns);
}

bool kernelview_is_due(const struct kernelview *view)
{
    return view->tried_ns && may_try(view);
}

void kernelview_hurry(struct kernelview *view)
{
    view->delay_ns = 0;
    view->again_ns = MIN_OF(view->again_ns, view->tried_ns + RETRY_FIRST_MS * NSEC_PER_MSEC);
}

bool kernelview_opens(struct kernelview *view)
{
    if (view->opens || !may_try(view))
        return view->opens;
    int r = broker_bpf_open(view->broker, &view->why_not);
    view->opens = r == 0;
    if (view->opens)
        note_success(view);
    else
        note_failure(view, r);
    return view->opens;
}

bool kernelview_works(struct kernelview *view)
{
    if (view->works || !kernelview_opens(view) || !may_try(view))
        return view->works;
    int r = broker_schemas(view->broker, &view->store->schemas, view->schemas, &view->why_not);
    view->works = r == 0;
    if (view->works) {
        note_success(view);
        log_info("discovery", "BPF works: VMs can be read without any change to their VMM");
    } else {
        note_failure(view, r);
    }
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
