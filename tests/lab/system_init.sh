#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
#
# The first process of the lab's Debian system, as an initial file system has it: makes the disk
# available, puts onto it what this run has brought along, and gives way to systemd.
/bin/busybox mkdir -p /proc /dev /root
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
while read -r module; do
    insmod "/modules/$module" || echo "lab: $module: not loaded"
done </modules/order
until [ -b /dev/vda ]; do
    sleep 0.1
done
mount -t ext4 -o noatime /dev/vda /root || echo "lab: no root"
cp -a /payload/. /root/
mount --move /dev /root/dev
umount /proc
exec switch_root /root /sbin/init
