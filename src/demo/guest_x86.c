/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The x86 guest runs in 32-bit protected mode, flat and without paging: the one mode in which a few
 * instructions reach the local APIC (above 1 MiB) and which every KVM runs, be it on VMX with or
 * without "unrestricted guest", on SVM, or paravirtual.
 *
 * Its local APIC is the kernel's, so halts block in the kernel and a timer needs no help from us.
 * The other interrupt controllers stay away ("split irqchip"): no device would use them, and a VM
 * without them is created faster.
 *
 * The code holds no address: all it needs is in registers, which guest_prepare_vcpu() sets.
 *   esi  LOAD_* actions, and SELF_WAKE      ebx  this vCPU's slot: its count of halts
 *   edi  an address with no memory behind   esp  the end of the slot
 *   ebp  the local APIC                     edx  timer's initial count, 0: no timer
 *   ecx  rounds left, 0: no end
 *
 * Interrupts are on in the halt alone, so the handler need not return: it drops its frame and goes
 * on behind the halt. That spares an IRET, which KVM's emulator doesn't know in protected mode, and
 * a paravirtual KVM runs all of this by its emulator. The timer is armed for one shot each round: a
 * periodic one would want a CPUID set.
 *
 * Nothing may interrupt between STI and HLT, but an emulated SVM forgets that now and then, when
 * the host leaves the guest just there. The guest then halts anew, so that it counts real halts
 * only.
 */
#if defined(__x86_64__)

#include "guest.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>

#include "load.h"

/* Guest physical addresses. */
#define GDT_ADDR   0x0000
#define IDT_ADDR   0x0100
#define CODE_ADDR  0x0800
#define SLOTS_ADDR 0x1000
#define SLOT_SIZE  64 /* 4 bytes of count; an interrupt's frame takes 12 at the other end */
#define APIC_ADDR  0xfee00000
#define HOLE_ADDR  0xd0000000
/* Pages that VMX without unrestricted guest wants for itself, out of everybody's way. */
#define IDENTITY_MAP_ADDR 0xfffbc000
#define TSS_ADDR          0xfffbd000

#define CODE_SELECTOR 0x08
#define DATA_SELECTOR 0x10
#define VECTOR        0x30

#define PORT_STARTED 0x10
#define PORT_IO      0x11
#define SELF_WAKE    (1 << 3)

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

_Static_assert(LOAD_IO == 1 && LOAD_MMIO == 2 && LOAD_HALT == 4, "the guest tests these bits");

/* clang-format off */
__asm__(".pushsection .rodata\n"
        ".code32\n"
        ".globl guest_code, guest_code_interrupt, guest_code_end\n"
        ".hidden guest_code, guest_code_interrupt, guest_code_end\n"
        "guest_code:\n"
        "    movl $0x1ff, 0xf0(%ebp)\n"               /* APIC on; spurious vector */
        "    movl $0xb, 0x3e0(%ebp)\n"                /* timer: divide by 1 */
        "    movl $" STRING(VECTOR) ", 0x320(%ebp)\n" /* timer: once, at our vector */
        "    outb %al, $" STRING(PORT_STARTED) "\n"
        "    testl %esi, %esi\n"
        "    jz 6f\n"
        "1:  movl %edx, 0x380(%ebp)\n"                /* timer: go (0: stay off) */
        "    testl $1, %esi\n"
        "    jz 2f\n"
        "    outb %al, $" STRING(PORT_IO) "\n"
        "2:  testl $2, %esi\n"
        "    jz 3f\n"
        "    movl %eax, (%edi)\n"
        "3:  testl $4, %esi\n"
        "    jz 5f\n"
        "    testl $8, %esi\n"
        "    jz 4f\n"
        "    movl $0x40000 + " STRING(VECTOR) ", 0x300(%ebp)\n" /* interrupt myself */
        "4:  sti\n"                                   /* takes effect once the halt has begun */
        "    hlt\n"
        "    jmp 4b\n"
        "guest_code_interrupt:\n"
        "    movl $0, 0xb0(%ebp)\n"                   /* end of interrupt */
        "    popl %eax\n"                             /* where it interrupted */
        "    addl $8, %esp\n"
        "    cmpb $0xf4, (%eax)\n"
        "    jne 4f\n"
        "    movl %edx, 0x380(%ebp)\n"               /* at the HLT, not behind it: once more */
        "    jmp 3b\n"
        "4:  incl (%ebx)\n"
        "5:  jecxz 1b\n"
        "    decl %ecx\n"
        "    jnz 1b\n"
        "6:  cli\n"
        "    hlt\n"
        "    jmp 6b\n"
        "guest_code_end:\n"
        ".code64\n"
        ".popsection\n");
/* clang-format on */

extern const unsigned char guest_code[], guest_code_interrupt[], guest_code_end[];

size_t guest_memory_size(unsigned n_vcpus)
{
    size_t bytes = SLOTS_ADDR + (size_t)n_vcpus * SLOT_SIZE;
    return (bytes + 0xfff) & ~(size_t)0xfff;
}

/* A descriptor of the GDT: base 0, limit 4 GiB, 32 bits, present; `type` as in the manuals. */
static uint64_t flat_descriptor(unsigned type)
{
    return UINT64_C(0x00cf90000000ffff) | (uint64_t)type << 40;
}

/* A 32-bit interrupt gate: interrupts are off in the handler. */
static uint64_t interrupt_gate(uint32_t handler)
{
    return (handler & 0xffff) | (uint64_t)CODE_SELECTOR << 16 | UINT64_C(0x8e00) << 32 |
           (uint64_t)(handler >> 16) << 48;
}

static int use_kernel_apic(int vm_fd)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {0}};
    if (ioctl(vm_fd, KVM_ENABLE_CAP, &split) == 0 || ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) == 0)
        return 0;
    return -errno;
}

int guest_prepare_vm(int vm_fd, void *memory, const char **ret_step)
{
    uint64_t identity_map = IDENTITY_MAP_ADDR;
    *ret_step = "KVM_SET_IDENTITY_MAP_ADDR";
    if (ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return -errno;
    *ret_step = "KVM_SET_TSS_ADDR";
    if (ioctl(vm_fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_ADDR) < 0)
        return -errno;
    *ret_step = "in-kernel interrupt controller";
    int r = use_kernel_apic(vm_fd);
    if (r < 0)
        return r;

    unsigned char *bytes = memory;
    uint64_t *gdt = (uint64_t *)(bytes + GDT_ADDR);
    uint64_t *idt = (uint64_t *)(bytes + IDT_ADDR);
    gdt[CODE_SELECTOR / 8] = flat_descriptor(0xb); /* execute, read, accessed */
    gdt[DATA_SELECTOR / 8] = flat_descriptor(0x3); /* read, write, accessed */
    idt[VECTOR] = interrupt_gate(CODE_ADDR + (uint32_t)(guest_code_interrupt - guest_code));
    memcpy(bytes + CODE_ADDR, guest_code, (size_t)(guest_code_end - guest_code));
    return 0;
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){
        .limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .db = 1,
        .s = 1,
        .g = 1,
    };
}

static int enter_protected_mode(int vcpu_fd)
{
    struct kvm_sregs sregs;
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return -errno;
    sregs.cs = flat_segment(CODE_SELECTOR, 0xb);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat_segment(DATA_SELECTOR, 0x3);
    sregs.gdt = (struct kvm_dtable){.base = GDT_ADDR, .limit = 3 * 8 - 1};
    sregs.idt = (struct kvm_dtable){.base = IDT_ADDR, .limit = (VECTOR + 1) * 8 - 1};
    sregs.cr0 = 0x11; /* protection on, paging and the reset state's "no caches" off */
    return ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0 ? -errno : 0;
}

int guest_prepare_vcpu(int vm_fd, int vcpu_fd, unsigned index, const struct guest_plan *plan,
                       const char **ret_step)
{
    (void)vm_fd;
    uint32_t slot = SLOTS_ADDR + index * SLOT_SIZE;
    bool halts = plan->actions & LOAD_HALT;
    struct kvm_regs regs = {
        .rip = CODE_ADDR,
        .rflags = 0x2, /* the bit that is always set; interrupts off */
        .rsi = plan->actions | (halts && !plan->timer_hz ? SELF_WAKE : 0),
        .rbx = slot,
        .rdi = HOLE_ADDR,
        .rsp = slot + SLOT_SIZE,
        .rbp = APIC_ADDR,
        .rdx = halts && plan->timer_hz ? 1000000000 / plan->timer_hz : 0, /* KVM's APIC: 1 GHz */
        .rcx = plan->rounds,
    };
    *ret_step = "KVM_SET_SREGS";
    int r = enter_protected_mode(vcpu_fd);
    if (r < 0)
        return r;
    *ret_step = "KVM_SET_REGS";
    if (ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return -errno;
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
    if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_STARTED)
        return GUEST_EXIT_STARTED;
    if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_IO)
        return GUEST_EXIT_IO;
    if (run->exit_reason == KVM_EXIT_MMIO && run->mmio.phys_addr == HOLE_ADDR)
        return GUEST_EXIT_MMIO;
    return GUEST_EXIT_UNEXPECTED;
}

uint32_t guest_halts(const void *memory, unsigned index)
{
    return *(const volatile uint32_t *)((const char *)memory + SLOTS_ADDR +
                                        (size_t)index * SLOT_SIZE);
}

#endif
