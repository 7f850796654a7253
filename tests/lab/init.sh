#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
#
# The first process of a lab machine: makes it what a host of VMs is, runs /payload, says how that
# ended, and switches the machine off.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t bpf bpf /sys/fs/bpf 2>/dev/null
ip link set lo up
dmesg -n 3
stty -F /dev/console raw -echo 2>/dev/null

while read -r module; do
    insmod "/modules/$module" || echo "lab: $module: not loaded"
done </modules/order
[ -c /dev/kvm ] || echo "lab: no /dev/kvm"

echo "lab: begin $(uname -r) $(uname -m)"
cd /root || echo "lab: no /root"
eval "set -- $(cat /payload.args)"
/payload "$@" </dev/null
echo "lab: status $?"
echo "lab: end"
poweroff -f
