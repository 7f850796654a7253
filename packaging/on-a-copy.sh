#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What check-deb and check-rpm share: a copy of this system to install packages on, which is thrown
# away, and what they have left in it. To be sourced.

# on_a_copy PACKAGES WORK SCRIPT: in a mount name space of one's own, runs `SCRIPT --on-the-copy` as the
# root of an overlay over this system, where the folder PACKAGES is /packages. WORK is an empty folder.
on_a_copy() {
    local packages=$1 work=$2 script=$3
    mount -t tmpfs -o size=1g tmpfs "$work"
    mkdir "$work/upper" "$work/work" "$work/copy"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/copy"
    mount -t tmpfs tmpfs "$work/copy/tmp"
    mount -t tmpfs tmpfs "$work/copy/run"
    mount -t proc proc "$work/copy/proc"
    mount --rbind /dev "$work/copy/dev"
    mkdir -p "$work/copy/packages"
    mount --bind "$packages" "$work/copy/packages"
    cp "$script" "${BASH_SOURCE[0]}" "$work/copy/tmp/"
    chroot "$work/copy" /bin/bash "/tmp/${script##*/}" --on-the-copy
}

# leftovers WORK: what of ours is still in the copy, by name or by content; the package managers' own
# books may know of it.
leftovers() {
    cd "$1/upper" || return
    find . \( -path ./var/lib/dpkg -o -path ./var/lib/rpm -o -path ./var/log -o -path ./packages \) \
        -prune -o ! -type c -name '*kvmstat*' -print
    # But the former versions that useradd and its like keep.
    { grep -rlIs kvmstat . --exclude-dir=dpkg --exclude-dir=rpm --exclude-dir=log \
        --exclude-dir=packages || true; } | { grep -v '^\./etc/[a-z]*-$' || true; }
    cd "$1/copy/run" && find . -name '*kvmstat*'
}
