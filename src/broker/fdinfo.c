/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the links in /proc/PID/fd of another user's process takes more than CAP_SYS_PTRACE: the
 * folder is its owner's alone, so it takes CAP_DAC_READ_SEARCH as well, with which every file of
 * the host could be read. Where that is missing, /proc/PID/fdinfo, which CAP_SYS_PTRACE does open
 * (Linux 5.14, proc_fdinfo_access_allowed()), tells of each fd which inode it is. All anonymous
 * files share one; those of the commonest kinds say by a line of their own what they are; and what
 * is then left is borrowed for a moment and looked at by our own /proc/self/fd. Files that are not
 * anonymous are never touched: closing a duplicate can have an effect there (FUSE and NFS flush).
 */
#include "fdinfo.h"

#include <string.h>

/* What files that KVM does not make say of themselves; QEMU has dozens of the first. */
static const char *const other_kinds[] = {
    "\neventfd-count:", "\ntfd:",       "\nclockid:",  "\nsigmask:",   "\ninotify ",
    "\nPid:",           "\nprog_type:", "\nmap_type:", "\nlink_type:", "\nSqMask:",
    "\nSQMask:",        "\nSqThread:",  "\npending:",  "\nfanotify ",
};

bool fdinfo_may_be_kvm(const char *text, uint64_t anonymous_inode)
{
    const char *line = strstr(text, "\nino:");
    if (!line || strtoull(line + strlen("\nino:"), NULL, 10) != anonymous_inode)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(other_kinds); i++) {
        if (strstr(line, other_kinds[i]))
            return false;
    }
    return true;
}
