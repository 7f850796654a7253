/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arm64 guest runs at EL1 with its MMU and caches on, by one page of tables that map all
 * addresses to themselves: with them off its writes would go past the host's caches, and we could
 * not read its counts.
 *
 * It halts by WFI, which the virtual timer's interrupt ends, by way of the kernel's interrupt
 * controller. Interrupts are masked all the time: a WFI ends all the same when one is pending, and
 * where no interrupt is taken no vectors are needed. The guest acknowledges it by hand.
 *
 * The code holds no address: all it needs is in registers, which guest_prepare_vcpu() sets.
 *   x0  this vCPU's slot: its count of halts   x3  timer's interrupts a second
 *   x1  LOAD_* actions                         x4  registers of a device that is us
 *   x2  rounds left, 0: no end                 x5  an address with no memory behind
 *
 * A WFI that KVM ends for a signal of the host is entered again: the timer tells whether it was it.
 */
#if defined(__aarch64__)

#include "guest_mmio.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "load.h"

/* Guest physical addresses. Memory is below 1 GiB, devices are above. */
#define TABLE_ADDR  0x0000
#define CODE_ADDR   0x1000
#define SLOTS_ADDR  0x2000
#define SLOT_SIZE   64
#define DEVICE_ADDR 0x40000000
#define HOLE_ADDR   0x50000000
#define GICD_ADDR   0x60000000 /* the interrupt controller's distributor, 64 KiB */
#define GICR_ADDR   0x60010000 /* its redistributors, 128 KiB a vCPU */

#define GICD_CTLR       0
#define GICR_ISENABLER0 0x10100
#define TIMER_INTERRUPT 27 /* of the virtual timer, of each vCPU */

_Static_assert(LOAD_IO == 1 && LOAD_MMIO == 2 && LOAD_HALT == 4, "the guest tests these bits");

/* clang-format off */
__asm__(".pushsection .rodata\n"
        ".balign 4\n"
        ".globl guest_code, guest_code_end\n"
        ".hidden guest_code, guest_code_end\n"
        "guest_code:\n"
        "    mov x7, #0xff\n"
        "    msr S3_0_C4_C6_0, x7\n"      /* ICC_PMR_EL1: interrupts of all priorities */
        "    mov x7, #1\n"
        "    msr S3_0_C12_C12_7, x7\n"    /* ICC_IGRPEN1_EL1: those of group 1 */
        "    str wzr, [x4]\n"             /* started */
        "    cbz x1, 6f\n"
        "    mrs x6, cntfrq_el0\n"
        "    udiv x6, x6, x3\n"            /* the timer's period */
        "1:  tbz x1, #2, 2f\n"
        "    msr cntv_tval_el0, x6\n"      /* timer: once, so far from now */
        "    mov x7, #1\n"
        "    msr cntv_ctl_el0, x7\n"
        "    isb\n"
        "2:  tbz x1, #0, 3f\n"
        "    str wzr, [x4, #8]\n"
        "3:  tbz x1, #1, 4f\n"
        "    str wzr, [x5]\n"
        "4:  tbz x1, #2, 5f\n"
        "    wfi\n"
        "    isb\n"
        "    mrs x7, cntv_ctl_el0\n"
        "    tbz x7, #2, 4b\n"             /* its time has not come */
        "    msr cntv_ctl_el0, xzr\n"
        "    isb\n"
        "    mrs x7, S3_0_C12_C12_0\n"    /* ICC_IAR1_EL1: acknowledge */
        "    msr S3_0_C12_C12_1, x7\n"    /* ICC_EOIR1_EL1: and done */
        "    isb\n"
        "    ldr w7, [x0]\n"
        "    add w7, w7, #1\n"
        "    str w7, [x0]\n"
        "5:  cbz x2, 1b\n"
        "    subs x2, x2, #1\n"
        "    b.ne 1b\n"
        "6:  msr cntv_ctl_el0, xzr\n"
        "    isb\n"
        "7:  wfi\n"
        "    b 7b\n"
        "guest_code_end:\n"
        ".popsection\n");
/* clang-format on */

extern const unsigned char guest_code[], guest_code_end[];

size_t guest_memory_size(unsigned n_vcpus)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (SLOTS_ADDR + (size_t)n_vcpus * SLOT_SIZE + page - 1) & ~(page - 1);
}

/* Blocks of 1 GiB, in a table of the first level of 39-bit addresses (Arm ARM, D8.3). */
#define BLOCK_VALID         UINT64_C(0x1)
#define BLOCK_NORMAL        (UINT64_C(0) << 2) /* index into MAIR_EL1 */
#define BLOCK_DEVICE        (UINT64_C(1) << 2)
#define BLOCK_SHARED        (UINT64_C(3) << 8)
#define BLOCK_ACCESSED      (UINT64_C(1) << 10)
#define BLOCK_NEVER_EXECUTE (UINT64_C(3) << 53)

#define MAIR_VALUE   UINT64_C(0x04ff)   /* 0: cached, write-back; 1: device */
#define TCR_VALUE    UINT64_C(0x803519) /* 39 bits, 4 KiB pages, cached and shared walks; no TTBR1 */
#define SCTLR_ENABLE UINT64_C(0x1005)   /* MMU, data and instruction caches */

int guest_prepare_vm(int vm_fd, void *memory, const char **ret_step)
{
    unsigned char *bytes = memory;
    uint64_t *table = (uint64_t *)(bytes + TABLE_ADDR);
    (void)vm_fd;
    *ret_step = "guest memory";
    table[0] = BLOCK_VALID | BLOCK_NORMAL | BLOCK_SHARED | BLOCK_ACCESSED;
    table[1] =
        (uint64_t)1 << 30 | BLOCK_VALID | BLOCK_DEVICE | BLOCK_ACCESSED | BLOCK_NEVER_EXECUTE;
    memcpy(bytes + CODE_ADDR, guest_code, (size_t)(guest_code_end - guest_code));
    return 0;
}

static int set_register(int vcpu_fd, uint64_t id, uint64_t value)
{
    struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)&value};
    return ioctl(vcpu_fd, KVM_SET_ONE_REG, &reg) < 0 ? -errno : 0;
}

#define CORE(field) \
    (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(field))
#define X(n)      (CORE(regs.regs[0]) + (n) * (sizeof(uint64_t) / sizeof(uint32_t)))
#define SCTLR_EL1 ARM64_SYS_REG(3, 0, 1, 0, 0)
#define TTBR0_EL1 ARM64_SYS_REG(3, 0, 2, 0, 0)
#define TCR_EL1   ARM64_SYS_REG(3, 0, 2, 0, 2)
#define MAIR_EL1  ARM64_SYS_REG(3, 0, 10, 2, 0)

static int set_registers(int vcpu_fd, unsigned index, const struct guest_plan *plan)
{
    uint64_t sctlr;
    struct kvm_one_reg reg = {.id = SCTLR_EL1, .addr = (uintptr_t)&sctlr};
    if (ioctl(vcpu_fd, KVM_GET_ONE_REG, &reg) < 0)
        return -errno;
    const uint64_t registers[][2] = {
        {MAIR_EL1, MAIR_VALUE},
        {TCR_EL1, TCR_VALUE},
        {TTBR0_EL1, TABLE_ADDR},
        {SCTLR_EL1, sctlr | SCTLR_ENABLE},
        {CORE(regs.pc), CODE_ADDR},
        {X(0), SLOTS_ADDR + index * SLOT_SIZE},
        {X(1), plan->actions},
        {X(2), plan->rounds},
        {X(3), plan->timer_hz ? plan->timer_hz : GUEST_TIMER_HZ_MAX},
        {X(4), DEVICE_ADDR},
        {X(5), HOLE_ADDR},
    };
    for (size_t i = 0; i < ARRAY_LEN(registers); i++) {
        int r = set_register(vcpu_fd, registers[i][0], registers[i][1]);
        if (r < 0)
            return r;
    }
    return 0;
}

int guest_prepare_vcpu(int vm_fd, int vcpu_fd, unsigned index, const struct guest_plan *plan,
                       const char **ret_step)
{
    struct kvm_vcpu_init init;
    *ret_step = "KVM_ARM_PREFERRED_TARGET";
    if (ioctl(vm_fd, KVM_ARM_PREFERRED_TARGET, &init) < 0)
        return -errno;
    *ret_step = "KVM_ARM_VCPU_INIT";
    if (ioctl(vcpu_fd, KVM_ARM_VCPU_INIT, &init) < 0)
        return -errno;
    *ret_step = "KVM_SET_ONE_REG";
    return set_registers(vcpu_fd, index, plan);
}

/* `value`: 32 or 64 bits, as the group has it (Documentation/virt/kvm/devices/arm-vgic-v3.rst). */
static int set_attribute(int device_fd, uint32_t group, uint64_t attribute, const void *value)
{
    struct kvm_device_attr attr = {.group = group, .attr = attribute, .addr = (uintptr_t)value};
    return ioctl(device_fd, KVM_SET_DEVICE_ATTR, &attr) < 0 ? -errno : 0;
}

/* What a vCPU is called by the controller: its affinities, as KVM makes them of its id. */
static uint64_t affinity_of(unsigned index)
{
    return (index & 0xf) | (uint64_t)(index >> 4 & 0xff) << 8 | (uint64_t)(index >> 12) << 16;
}

/* Does what a guest would have to do at its start, each vCPU in search of its own redistributor. */
static int enable_timer_interrupt(int gic_fd, unsigned n_vcpus)
{
    const uint32_t group_1 = 1 << 1, timer = 1u << TIMER_INTERRUPT;
    int r = set_attribute(gic_fd, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_CTLR, &group_1);
    for (unsigned i = 0; r == 0 && i < n_vcpus; i++)
        r = set_attribute(gic_fd, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
                          affinity_of(i) << 32 | GICR_ISENABLER0, &timer);
    return r;
}

/* It counts the vCPUs when it is initialised, and none may be added then. */
int guest_complete_vm(int vm_fd, unsigned n_vcpus, const char **ret_step)
{
    const uint64_t distributor = GICD_ADDR, redistributors = GICR_ADDR;
    struct kvm_create_device gic = {.type = KVM_DEV_TYPE_ARM_VGIC_V3};
    *ret_step = "in-kernel interrupt controller (GICv3)";
    if (ioctl(vm_fd, KVM_CREATE_DEVICE, &gic) < 0)
        return -errno;
    CLEANUP_FD int fd = (int)gic.fd;
    *ret_step = "addresses of the interrupt controller";
    int r = set_attribute(fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &distributor);
    if (r == 0)
        r = set_attribute(fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST,
                          &redistributors);
    if (r < 0)
        return r;
    *ret_step = "KVM_DEV_ARM_VGIC_CTRL_INIT";
    r = set_attribute(fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
    if (r < 0)
        return r;
    *ret_step = "registers of the interrupt controller";
    return enable_timer_interrupt(fd, n_vcpus);
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
