/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The riscv64 guest runs in supervisor mode without paging. The timer is set by a call of the
 * supervisor binary interface (SBI), which KVM answers itself; so a round with a halt makes an
 * ecall exit, too.
 *
 * It takes no interrupt, so it has no trap vector: interrupts are off as a whole, the timer's alone
 * is enabled, and that ends a WFI when it becomes pending.
 *
 * The code holds no address: all it needs is in registers, which guest_prepare_vcpu() sets.
 *   s0  this vCPU's slot: its count of halts   s3  timer's period in its ticks
 *   s1  LOAD_* actions                         s4  registers of a device that is us
 *   s2  rounds left, 0: no end                 s5  an address with no memory behind
 *
 * A WFI that KVM ends for a signal of the host is entered again: the clock tells. (What is pending
 * would, too, but that is not seen in all emulators of the machine.)
 */
#if defined(__riscv) && __riscv_xlen == 64

#include "guest_mmio.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "load.h"

/* Guest physical addresses. */
#define CODE_ADDR   0x0000
#define SLOTS_ADDR  0x1000
#define SLOT_SIZE   64
#define DEVICE_ADDR 0x10000000
#define HOLE_ADDR   0x20000000

_Static_assert(LOAD_IO == 1 && LOAD_MMIO == 2 && LOAD_HALT == 4, "the guest tests these bits");

/* clang-format off */
__asm__(".pushsection .rodata\n"
        ".option push\n"
        ".option norvc\n"
        ".balign 4\n"
        ".globl guest_code, guest_code_end\n"
        ".hidden guest_code, guest_code_end\n"
        "guest_code:\n"
        "    sw zero, 0(s4)\n"       /* started */
        "    beqz s1, 6f\n"
        "    li t0, 0x20\n"          /* the supervisor's timer */
        "    csrw sie, t0\n"
        "1:  andi t0, s1, 4\n"
        "    beqz t0, 2f\n"
        "    rdtime a0\n"
        "    add a0, a0, s3\n"
        "    mv s6, a0\n"
        "    li a6, 0\n"
        "    li a7, 0x54494d45\n"    /* SBI: set the timer, once, and forget the last */
        "    ecall\n"
        "2:  andi t0, s1, 1\n"
        "    beqz t0, 3f\n"
        "    sw zero, 8(s4)\n"
        "3:  andi t0, s1, 2\n"
        "    beqz t0, 4f\n"
        "    sw zero, 0(s5)\n"
        "4:  andi t0, s1, 4\n"
        "    beqz t0, 5f\n"
        "    wfi\n"
        "    rdtime t0\n"
        "    bltu t0, s6, 4b\n"     /* its time has not come */
        "    lw t0, 0(s0)\n"
        "    addi t0, t0, 1\n"
        "    sw t0, 0(s0)\n"
        "5:  beqz s2, 1b\n"
        "    addi s2, s2, -1\n"
        "    bnez s2, 1b\n"
        "6:  li a0, -1\n"         /* no timer any more */
        "    li a6, 0\n"
        "    li a7, 0x54494d45\n"
        "    ecall\n"
        "7:  wfi\n"
        "    j 7b\n"
        "guest_code_end:\n"
        ".option pop\n"
        ".popsection\n");
/* clang-format on */

extern const unsigned char guest_code[], guest_code_end[];

size_t guest_memory_size(unsigned n_vcpus)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (SLOTS_ADDR + (size_t)n_vcpus * SLOT_SIZE + page - 1) & ~(page - 1);
}

int guest_prepare_vm(int vm_fd, void *memory, const char **ret_step)
{
    (void)vm_fd;
    *ret_step = "guest memory";
    memcpy((char *)memory + CODE_ADDR, guest_code, (size_t)(guest_code_end - guest_code));
    return 0;
}

#define REGISTER(kind) (KVM_REG_RISCV | KVM_REG_SIZE_U64 | (kind))
#define CORE(field)    REGISTER(KVM_REG_RISCV_CORE | KVM_REG_RISCV_CORE_REG(field))
#define TIMER(field)   REGISTER(KVM_REG_RISCV_TIMER | KVM_REG_RISCV_TIMER_REG(field))

static int set_registers(int vcpu_fd, unsigned index, const struct guest_plan *plan)
{
    uint64_t hz;
    struct kvm_one_reg frequency = {.id = TIMER(frequency), .addr = (uintptr_t)&hz};
    if (ioctl(vcpu_fd, KVM_GET_ONE_REG, &frequency) < 0)
        return -errno;
    const uint64_t registers[][2] = {
        {CORE(regs.pc), CODE_ADDR},
        {CORE(regs.s0), SLOTS_ADDR + index * SLOT_SIZE},
        {CORE(regs.s1), plan->actions},
        {CORE(regs.s2), plan->rounds},
        {CORE(regs.s3), hz / (plan->timer_hz ? plan->timer_hz : GUEST_TIMER_HZ_MAX)},
        {CORE(regs.s4), DEVICE_ADDR},
        {CORE(regs.s5), HOLE_ADDR},
    };
    for (size_t i = 0; i < ARRAY_LEN(registers); i++) {
        struct kvm_one_reg reg = {.id = registers[i][0], .addr = (uintptr_t)&registers[i][1]};
        if (ioctl(vcpu_fd, KVM_SET_ONE_REG, &reg) < 0)
            return -errno;
    }
    return 0;
}

int guest_prepare_vcpu(int vm_fd, int vcpu_fd, unsigned index, const struct guest_plan *plan,
                       const char **ret_step)
{
    (void)vm_fd;
    *ret_step = "KVM_SET_ONE_REG";
    int r = set_registers(vcpu_fd, index, plan);
    if (r < 0)
        return r;
    /* All but the first would wait for the first to start them. */
    struct kvm_mp_state state = {.mp_state = KVM_MP_STATE_RUNNABLE};
    *ret_step = "KVM_SET_MP_STATE";
    return ioctl(vcpu_fd, KVM_SET_MP_STATE, &state) < 0 ? -errno : 0;
}

int guest_complete_vm(int vm_fd, unsigned n_vcpus, const char **ret_step)
{
    (void)vm_fd;
    (void)n_vcpus;
    (void)ret_step;
    return 0;
}

enum guest_exit guest_classify(const struct kvm_run *run)
{
    return guest_mmio_classify(run, DEVICE_ADDR, HOLE_ADDR);
}

uint32_t guest_halts(const void *memory, unsigned index)
{
    return guest_mmio_halts(memory, SLOTS_ADDR + (size_t)index * SLOT_SIZE);
}

#endif
