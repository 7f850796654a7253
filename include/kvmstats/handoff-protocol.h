/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages by which a VMM hands the statistics files of its VMs to kvmstatd. What they mean and
 * the rules of the conversation are in docs/handoff-protocol.md; this header gives their layout to
 * C and C++. A VMM that links libkvmstatd-handoff needs <kvmstats/handoff.h> alone.
 *
 * All integers have the byte order of the machine: both ends are on it. All messages are multiples
 * of nothing in particular; fixed parts are multiples of 8 bytes without padding, attributes follow
 * them without any.
 */
#ifndef KVMSTATS_HANDOFF_PROTOCOL_H
#define KVMSTATS_HANDOFF_PROTOCOL_H

#include <stdint.h>

/* Where the daemon listens unless its configuration says otherwise: AF_UNIX, SOCK_SEQPACKET. */
#define KVMSTATD_HANDOFF_SOCKET "/run/kvmstatd/handoff.sock"

/* First in each message. In another byte order it is another number. */
#define KVMSTATD_HANDOFF_MAGIC 0x4b56484fu

#define KVMSTATD_HANDOFF_MAJOR 1
#define KVMSTATD_HANDOFF_MINOR 0

/* Longest message, with header and attributes, and most fds in one. */
#define KVMSTATD_HANDOFF_MESSAGE_BYTES_MAX 4096
#define KVMSTATD_HANDOFF_FDS_MAX           2

/* kvmstatd_handoff_header.type */
enum kvmstatd_handoff_type {
    /* VMM to daemon */
    KVMSTATD_HANDOFF_HELLO = 1,
    KVMSTATD_HANDOFF_VM = 2,        /* with the VM's stats fd, and perhaps the VM's fd */
    KVMSTATD_HANDOFF_VCPU = 3,      /* with the vCPU's stats fd */
    KVMSTATD_HANDOFF_VM_GONE = 4,   /* and all its vCPUs */
    KVMSTATD_HANDOFF_VCPU_GONE = 5, /* that one alone */
    /* A daemon that does not know such a type ignores the message and its fds, without an answer.
     */
    KVMSTATD_HANDOFF_IGNORABLE = 0x4000,
    KVMSTATD_HANDOFF_ALL_GIVEN = 0x4000, /* again, too: what is missing was taken back */
    /* daemon to VMM */
    KVMSTATD_HANDOFF_WELCOME = 0x8001,
    KVMSTATD_HANDOFF_ACCEPTED = 0x8002,
    KVMSTATD_HANDOFF_REFUSED = 0x8003,
};

/* kvmstatd_handoff_refused.reason; after those marked (*) the daemon closes the connection. */
enum kvmstatd_handoff_reason {
    KVMSTATD_HANDOFF_REASON_NONE = 0,
    KVMSTATD_HANDOFF_REASON_VERSION = 1,      /* (*) another major version */
    KVMSTATD_HANDOFF_REASON_PEER = 2,         /* (*) this user may not hand over */
    KVMSTATD_HANDOFF_REASON_MALFORMED = 3,    /* (*) not a message as the document has it */
    KVMSTATD_HANDOFF_REASON_TYPE = 4,         /* a type that the daemon does not know */
    KVMSTATD_HANDOFF_REASON_NOT_STATS_FD = 5, /* (*) an fd that is not the KVM file it must be */
    KVMSTATD_HANDOFF_REASON_FDS = 6,          /* (*) too many fds, or too few */
    KVMSTATD_HANDOFF_REASON_UNKNOWN_VM = 7,   /* no such VM (or vCPU) was given here */
    KVMSTATD_HANDOFF_REASON_EXISTS = 8,       /* that VM or vCPU was given already */
    KVMSTATD_HANDOFF_REASON_LIMIT = 9,        /* a limit of the daemon is reached */
    KVMSTATD_HANDOFF_REASON_NOT_YOURS = 10,   /* the sender does not hold that file itself */
    KVMSTATD_HANDOFF_REASON_UNREADABLE = 11,  /* the file is not as the kernel documents it */
};

struct kvmstatd_handoff_header {
    uint32_t magic;
    uint8_t major, minor;
    uint16_t type;
    uint32_t length; /* of the whole message, this header included */
    uint32_t serial; /* chosen by the VMM; an answer repeats it */
};

struct kvmstatd_handoff_hello {
    struct kvmstatd_handoff_header header; /* minor: the highest that the VMM knows */
    /* attributes */
};

struct kvmstatd_handoff_vm {
    struct kvmstatd_handoff_header header;
    uint64_t vm; /* chosen by the VMM, one number for one VM of a connection */
    /* The numbers that the files have in the VMM, which save the daemon a search; -1: unknown. */
    int32_t stats_fd;
    int32_t vm_fd; /* -1 also when no such fd is sent */
    /* attributes */
};

struct kvmstatd_handoff_vcpu {
    struct kvmstatd_handoff_header header;
    uint64_t vm;
    uint32_t vcpu; /* KVM's vcpu_id: the argument of KVM_CREATE_VCPU */
    int32_t stats_fd;
    /* attributes */
};

struct kvmstatd_handoff_vm_gone {
    struct kvmstatd_handoff_header header;
    uint64_t vm;
    /* attributes */
};

struct kvmstatd_handoff_vcpu_gone {
    struct kvmstatd_handoff_header header;
    uint64_t vm;
    uint32_t vcpu;
    uint32_t zero;
    /* attributes */
};

struct kvmstatd_handoff_welcome {
    struct kvmstatd_handoff_header header; /* minor: the lower of both sides' */
    uint32_t max_vms, max_vcpus_per_vm;    /* what this daemon takes on one connection */
    /* attributes */
};

struct kvmstatd_handoff_accepted {
    struct kvmstatd_handoff_header header;
    /* attributes */
};

struct kvmstatd_handoff_refused {
    struct kvmstatd_handoff_header header;
    uint32_t reason;
    uint32_t zero;
    /* attributes */
};

/* An attribute: this, then `length` bytes. The next one follows without padding. */
struct kvmstatd_handoff_attribute {
    uint16_t type;
    uint16_t length; /* of the value */
};

/* kvmstatd_handoff_attribute.type; others are passed over. None stands twice in a message. */
enum kvmstatd_handoff_attribute_type {
    KVMSTATD_HANDOFF_NAME = 1, /* of a VM: 1 to 1024 bytes, any but NUL */
    KVMSTATD_HANDOFF_UUID = 2, /* of a VM: 36 characters, 8-4-4-4-12 hexadecimal digits */
};

#define KVMSTATD_HANDOFF_NAME_BYTES_MAX 1024
#define KVMSTATD_HANDOFF_UUID_BYTES     36

#endif
