#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
#
# What every lab machine does: for each way of reading VMs, start demo VMs and the daemon, look at the
# VMs' statistics files, scrape, look again, kill a VMM, scrape again. It judges nothing: what it sees
# goes into files, and the files out over the console; checks.py on the host judges. Where something
# does not come in its time the scenario goes on, and the files show what there was.
#
# Arguments: the ways, e.g. statsfd handoff bpf.
out=/tmp/results
url=http://127.0.0.1:10177
mkdir -p $out

say() {
    echo "lab: $*"
}

# Polls a command for at most so many seconds; what is slow here is the emulation.
within() {
    limit=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$limit" ] || {
            say "in vain: $*"
            tail -n 5 "$out/$way/daemon.log"
            return 1
        }
        sleep 0.1
    done
}

fetch() {
    timeout 20 wget -q -O "$@"
}

says() {
    fetch - $url/metrics 2>/dev/null | grep -q "$@"
}

# start NAME VARIABLE=VALUE… OPTION…: a demo VM, once it runs; its pid in $out/$way/NAME.pid
start() {
    name=$1
    shift
    env "$@" --name "$name" --vcpus 2 --rate 50 >"$out/$way/$name.log" 2>&1 &
    within 30 grep -q "^ready 1" "$out/$way/$name.log"
    sed -n 's/^vm .* //p' "$out/$way/$name.log" >"$out/$way/$name.pid"
}

scrape() {
    fetch "$out/$way/$1.prometheus" $url/metrics
    fetch "$out/$way/$1.openmetrics" --header "Accept: application/openmetrics-text; version=1.0.0" \
        $url/metrics
    fetch "$out/$way/$1.vms" $url/api/v1/vms
}

destroyed() {
    grep -q "^destroy $1 " $out/uevents
}

fresher() {
    sampled=$(fetch - $url/metrics | sed -n 's/^kvm_vm_last_sample_timestamp_seconds{vm="kept".*} \([0-9]*\).*/\1/p')
    [ -n "$sampled" ] && [ "$sampled" -gt "$1" ]
}

run() {
    way=$1
    mkdir -p "$out/$way"
    say "$way: VMs"
    set -- kvmstatd-demo-vm
    [ "$way" = handoff ] && set -- LD_PRELOAD=/lib/libkvmstatd-preload.so kvmstatd-demo-vm
    start kept "$@" --stats-fds keep
    start killed "$@" --stats-fds keep
    start bare "$@" --stats-fds none

    say "$way: daemon"
    cat >/tmp/kvmstatd.yaml <<CONFIG
sampling: {interval: 100ms}
discovery: {sources: [$way]}
metrics: {histograms: vcpu}
recorder: {memory: 0}
web: {listen: ["127.0.0.1:10177"]}
CONFIG
    kvmstatd --config /tmp/kvmstatd.yaml >"$out/$way/daemon.log" 2>&1 &
    daemon=$!
    kept=$(cat "$out/$way/kept.pid")
    killed=$(cat "$out/$way/killed.pid")
    within 30 says "vm=\"kept\",vcpu=\"1\""
    within 30 says "vm=\"killed\",vcpu=\"1\""
    [ "$way" = statsfd ] || within 30 says "vm=\"bare\",vcpu=\"1\""

    say "$way: reading"
    peek "$kept" "$out/$way/before"
    within 30 fresher "$(date +%s)"
    scrape alive
    peek "$kept" "$out/$way/after"

    say "$way: killing"
    kill -KILL "$killed"
    within 30 destroyed "$killed" && echo "$killed" >"$out/$way/destroyed"
    scrape killed
    fetch "$out/$way/page" $url/
    kill -TERM $daemon
    wait $daemon
    echo $? >"$out/$way/status"
    kill -TERM "$kept" "$(cat "$out/$way/bare.pid")"
    wait
    # The listener for uevents is a child of init's, not ours: wait does not wait for it.
}

# shellcheck disable=SC2016 # the variables are each event's
(uevent sh -c '[ "$DEVNAME" = kvm ] && echo "$EVENT $PID $COUNT"' >$out/uevents 2>&1 &)
uname -a >$out/uname
sed -n 's/^KernelPageSize: *\([0-9]*\) kB/\1/p' /proc/self/smaps | head -n 1 >$out/page_kib
ls /sys/kernel/btf >$out/btf 2>/dev/null
mkdir -p /run/kvmstatd
for way; do
    run "$way"
done
say "results"
tar -C $out -c . | gzip -9 | base64 >/tmp/packed
cat /tmp/packed
say "results end $(crc32 /tmp/packed 2>/dev/null | cut -d ' ' -f 1)"
