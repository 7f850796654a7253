// SPDX-License-Identifier: Apache-2.0
// A C++11 program that uses the headers and the shared library as a stranger would. The same file
// is compiled as strict C11 by way of consumer.c, and against the installed library by
// installed.py.
#include <kvmstats/handoff-protocol.h>
#include <kvmstats/handoff.h>

#include <stdio.h>
#include <string.h>

static int tests, failures;

static void expect(bool good, const char *what)
{
    tests++;
    failures += !good;
    printf("%s %d - %s\n", good ? "ok" : "not ok", tests, what);
}

int main(void)
{
    struct kvmstatd_handoff *handoff = NULL;
    struct kvmstatd_handoff_status status;
    uint64_t vm = 0;
    expect(kvmstatd_handoff_connect("/nonexistent/handoff.sock", &handoff) == 0, "connect");
    expect(kvmstatd_handoff_vm_stats(handoff, 0, 0, "a", NULL, &vm) == 0 && vm != 0, "a VM");
    expect(kvmstatd_handoff_vcpu_stats(handoff, vm, 0, 0) == 0, "a vCPU");
    expect(kvmstatd_handoff_get_status(handoff, &status) == 0 && status.given == 2 &&
               !status.connected && status.last_reason == KVMSTATD_HANDOFF_REASON_NONE,
           "the status");
    expect(kvmstatd_handoff_vcpu_gone(handoff, vm, 0) == 0, "the vCPU gone");
    expect(kvmstatd_handoff_vm_gone(handoff, vm) == 0, "the VM gone");
    kvmstatd_handoff_close(handoff);
    expect(sizeof(struct kvmstatd_handoff_vm) == 32, "the protocol's layout");
    printf("1..%d\n", tests);
    return failures != 0;
}
