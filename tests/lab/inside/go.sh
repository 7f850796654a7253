#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs the tests inside the booted system, as its root, and says how that ended.
stty -F /dev/ttyS1 raw -echo
cd /root || exit 1
echo "lab: begin $(uname -r), systemd $(systemctl --version | sed -n '1s/.*(\(.*\))/\1/p'), up $(cut -d ' ' -f 1 /proc/uptime) s"
export KVMSTATD_BUILD=/usr KVMSTATD_REQUIRE_KVM=1 KVMSTATD_TEST_TIMEOUT=120 HOME=/root LC_ALL=C.UTF-8
# shellcheck disable=SC2046 # words to choose tests by
eval "set -- $(cat /opt/words)"
PYTHONPATH=/opt/kvmstatd/tests/lib /usr/bin/python3 -B /opt/kvmstatd/tests/lab/inside/main.py "$@"
status=$?
if [ $status != 0 ]; then
    journalctl --no-pager --boot --lines 200 --unit 'kvmstatd*' | sed 's/^/# /'
fi
echo "lab: status $status"
echo "lab: end"
