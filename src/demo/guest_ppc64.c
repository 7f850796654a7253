/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ppc64 guest runs on KVM's hypervisor kind (HV; POWER9 and later, radix), in its real mode: no
 * translation of its own, as a partition's firmware starts.
 *
 * It halts by the hypercall H_CEDE, which turns interrupts on and sleeps until one comes: that of
 * the decrementer, the CPU's own timer, for which no interrupt controller is needed. They are on in
 * the halt alone, so its handler need not return: it goes on behind the halt.
 *
 * The code holds no address but its own: all it needs is in registers, which guest_prepare_vcpu()
 * sets.
 *   r14  this vCPU's slot: its count of halts   r17  decrementer's period
 *   r15  LOAD_* actions                         r18  registers of a device that is us
 *   r16  rounds left, 0: no end                 r19  an address with no memory behind
 *
 * A decrementer of 32 bits comes to its end after 4 s at the latest: a guest that is halted for
 * good then halts anew.
 */
#if defined(__powerpc64__)

#include "guest_mmio.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/platform/ppc.h>
#include <unistd.h>

#include "load.h"

/* Guest physical addresses. */
#define VECTOR_ADDR 0x900 /* the decrementer's interrupt */
#define CODE_ADDR   0x1000
#define SLOTS_ADDR  0x2000
#define SLOT_SIZE   128
#define DEVICE_ADDR 0x10000000
#define HOLE_ADDR   0x20000000

#define MSR_SF   (UINT64_C(1) << 63) /* 64 bits */
#define MSR_ME   (UINT64_C(1) << 12)
#define MSR_LE   UINT64_C(1)
#define LPCR_ILE (UINT64_C(1) << 25) /* interrupts are taken in little-endian mode */

_Static_assert(LOAD_IO == 1 && LOAD_MMIO == 2 && LOAD_HALT == 4, "the guest tests these bits");

/* clang-format off */
__asm__(".pushsection .rodata\n"
        ".balign 8\n"
        ".globl guest_code, guest_code_end\n"
        ".hidden guest_code, guest_code_end\n"
        "guest_code:\n"                /* stands at the vector */
        "    cmpldi 15, 0\n"
        "    beq 6f\n"
        "    b 8f\n"
        ".org guest_code + 0x700\n"    /* CODE_ADDR */
        "    li 9, 0\n"
        "    stw 9, 0(18)\n"           /* started */
        "    cmpldi 15, 0\n"
        "    beq 6f\n"
        "1:  andi. 9, 15, 4\n"
        "    beq 2f\n"
        "    mtdec 17\n"               /* timer: go */
        "2:  andi. 9, 15, 1\n"
        "    beq 3f\n"
        "    stw 9, 8(18)\n"
        "3:  andi. 9, 15, 2\n"
        "    beq 4f\n"
        "    stw 9, 0(19)\n"
        "4:  andi. 9, 15, 4\n"
        "    beq 5f\n"
        "7:  li 3, 0xe0\n"             /* H_CEDE */
        "    sc 1\n"
        "    b 7b\n"                   /* ended, but not by an interrupt */
        "8:  lwz 9, 0(14)\n"
        "    addi 9, 9, 1\n"
        "    stw 9, 0(14)\n"
        "5:  cmpldi 16, 0\n"
        "    beq 1b\n"
        "    addi 16, 16, -1\n"
        "    cmpldi 16, 0\n"
        "    bne 1b\n"
        "6:  li 15, 0\n"               /* for the handler: there is nothing more to do */
        "    lis 9, 0x7fff\n"
        "    mtdec 9\n"
        "9:  li 3, 0xe0\n"
        "    sc 1\n"
        "    b 9b\n"
        "guest_code_end:\n"
        ".popsection\n");
/* clang-format on */

extern const unsigned char guest_code[], guest_code_end[];

_Static_assert(CODE_ADDR - VECTOR_ADDR == 0x700, "as the code has it");

size_t guest_memory_size(unsigned n_vcpus)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (SLOTS_ADDR + (size_t)n_vcpus * SLOT_SIZE + page - 1) & ~(page - 1);
}

int guest_prepare_vm(int vm_fd, void *memory, const char **ret_step)
{
    (void)vm_fd;
    *ret_step = "guest memory";
    memcpy((char *)memory + VECTOR_ADDR, guest_code, (size_t)(guest_code_end - guest_code));
    return 0;
}

/* Interrupts are taken in the byte order that the guest's code has been built for: ours. */
static int use_our_byte_order(int vcpu_fd)
{
    uint64_t lpcr;
    struct kvm_one_reg reg = {.id = KVM_REG_PPC_LPCR_64, .addr = (uintptr_t)&lpcr};
    if (ioctl(vcpu_fd, KVM_GET_ONE_REG, &reg) < 0)
        return -errno;
    lpcr = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? lpcr | LPCR_ILE : lpcr & ~LPCR_ILE;
    return ioctl(vcpu_fd, KVM_SET_ONE_REG, &reg) < 0 ? -errno : 0;
}

int guest_prepare_vcpu(int vm_fd, int vcpu_fd, unsigned index, const struct guest_plan *plan,
                       const char **ret_step)
{
    uint32_t hz = plan->timer_hz ? plan->timer_hz : GUEST_TIMER_HZ_MAX;
    struct kvm_regs regs = {
        .pc = CODE_ADDR,
        .msr = MSR_SF | MSR_ME | (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? MSR_LE : 0),
    };
    (void)vm_fd;
    regs.gpr[14] = SLOTS_ADDR + index * SLOT_SIZE;
    regs.gpr[15] = plan->actions;
    regs.gpr[16] = plan->rounds;
    regs.gpr[17] = __ppc_get_timebase_freq() / hz;
    regs.gpr[18] = DEVICE_ADDR;
    regs.gpr[19] = HOLE_ADDR;
    /* Of the hypervisor kind there are no others; else KVM_RUN says EINVAL. */
    struct kvm_enable_cap papr = {.cap = KVM_CAP_PPC_PAPR};
    *ret_step = "KVM_CAP_PPC_PAPR";
    if (ioctl(vcpu_fd, KVM_ENABLE_CAP, &papr) < 0)
        return -errno;
    *ret_step = "LPCR";
    int r = use_our_byte_order(vcpu_fd);
    if (r < 0)
        return r;
    *ret_step = "KVM_SET_REGS";
    return ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0 ? -errno : 0;
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
