# SPDX-License-Identifier: Apache-2.0
"""The handoff socket and those who mean ill, on the running daemon."""

import contextlib
import fcntl
import os
import resource
import signal
import socket
import struct

import kvmfd
import lab
import tap
import watcher
from exposed import row, series
from handing import CLIENT, FAST, HANDOFF, KvmHere, connected, demo_under_shim, header, place, \
    send, socket_config, whole

t = tap.Tests()

REASONS = {3: "malformed", 5: "not_stats_fd", 6: "fds", 7: "unknown_vm", 8: "exists", 9: "limit",
           10: "not_yours"}


def answer(client):
    """"accepted", or the reason of a refusal."""
    message = client.socket.recv(4096)
    kind = struct.unpack_from(CLIENT["HEADER"], message)[3]
    return "accepted" if kind == CLIENT["ACCEPTED"] else REASONS[
        struct.unpack_from("=I", message, 16)[0]]


@t.test("what comes close to a stats file is none: O_PATH, copies, other KVM files, others' files")
def _():
    # Whether a process holds what it gives takes CAP_SYS_PTRACE, which handoff alone does not keep.
    config = HANDOFF.replace("[handoff]", "[handoff, bpf]")
    with place() as folder, lab.Daemon(config + FAST + socket_config(folder)) as daemon, \
            KvmHere() as kvm:
        vm = kvm.vm()
        vcpu = kvm.vcpu(vm, 0)
        stats = fcntl.ioctl(vm, kvmfd.KVM_GET_STATS_FD, 0)
        vcpu_stats = kvm.own(fcntl.ioctl(vcpu, kvmfd.KVM_GET_STATS_FD, 0))
        path = os.open(f"/proc/self/fd/{stats}", os.O_PATH)
        vm_path = os.open(f"/proc/self/fd/{vm}", os.O_PATH)
        tap.equal(os.readlink(f"/proc/self/fd/{path}"), "anon_inode:kvm-vm-stats")
        copy = os.memfd_create("anon_inode:kvm-vm-stats")
        os.write(copy, os.pread(stats, 1 << 20, 0))

        def give(*fds, number=1, kind=2, vcpu_id=0):
            client = CLIENT["Handoff"](f"{folder}/handoff.sock")
            body = struct.pack("=Qii", number, -1, -1) if kind == 2 else struct.pack(
                "=QIi", number, vcpu_id, -1)
            send(client.socket, header(kind, 32) + body, fds)
            return client
        for fds in ((path,), (copy,), (vm,), (vcpu,), (kvm.kvm,), (vcpu_stats,), (path, vm),
                    (stats, vm_path), (stats, stats), (vm, vm), (stats, copy), (stats, vcpu)):
            tap.equal(answer(give(*fds)), "not_stats_fd", f"{fds}")
        for fds, number in (((stats,), 0), ((vcpu_stats,), 1), ((vcpu,), 0), ((vm,), 0)):
            tap.equal(answer(give(*fds, kind=3, vcpu_id=number)), "not_stats_fd", f"{fds}")
        os.close(path)
        os.close(vm_path)
        # The daemon looks when we have closed it: then it is not ours.
        daemon.freeze()
        others = os.dup(stats)
        os.close(stats)
        client = CLIENT["Handoff"].__new__(CLIENT["Handoff"])
        client.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.socket.connect(f"{folder}/handoff.sock")
        send(client.socket, header(1, 16))
        send(client.socket, header(2, 32) + struct.pack("=Qii", 1, -1, -1), (others,))
        send(client.socket, header(2, 32) + struct.pack("=Qii", 2, others, vm), (others, vm))
        os.close(others)
        daemon.kill(signal.SIGCONT)
        client.socket.recv(4096)  # WELCOME
        tap.equal(answer(client), "not_yours")
        tap.equal(answer(client), "accepted")  # by the VM's own file
        tap.wait_for(lambda: row(daemon, os.getpid()).get("vm_scope_read"),
                     what="the VM")


def in_a_child(function, *args):
    """One process has few connections: so an attacker has many processes."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*args)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def attack(folder, stats_copy):
    """Everything that a peer can do."""
    vm = header(2, 32) + struct.pack("=Qii", 1, -1, -1)
    vcpu = header(3, 32) + struct.pack("=QIi", 1, 0, -1)
    fifo = os.path.join(folder, "fifo")
    if not os.path.exists(fifo):
        os.mkfifo(fifo)
    files = [os.memfd_create("anon_inode:kvm-vm-stats"), os.open(folder, os.O_PATH),
             os.open("/", os.O_RDONLY | os.O_DIRECTORY), socket.socket(socket.AF_UNIX).detach(),
             os.open(fifo, os.O_RDWR | os.O_NONBLOCK), os.eventfd(1), *os.pipe()]
    os.write(files[0], stats_copy)
    try:
        sent = [(message, [fd]) for fd in files for message in (vm, vcpu)]
        sent += [(vm, files[:1] * 253)] + [(vm[:cut], files[:1]) for cut in range(len(vm))]
        for message, fds in sent:
            client = connected(folder)
            if client:
                send(client.socket, message, fds)
                client.socket.close()
    finally:
        for fd in files:
            os.close(fd)


def lingering():
    """A TCP socket whose last close() waits for minutes: for a peer that reads nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        sock = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(1 << 20))
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
    return sock, peer


@t.test("a file whose close() hangs is refused, and VMs that end are let go all the same")
def _():
    with place() as folder, lab.Daemon(HANDOFF + FAST + socket_config(folder)) as daemon, \
            kvmfd.Uevents() as events, demo_under_shim(folder, vcpus=2, name="ends") as demo:
        [(vm, pid)] = demo.vms
        whole(daemon, vm, pid, 2)
        hangs, peer = lingering()
        with peer:
            client = CLIENT["Handoff"](f"{folder}/handoff.sock")
            daemon.freeze()  # ours is closed before the daemon's
            send(client.socket, header(2, 32) + struct.pack("=Qii", 1, -1, -1), (hangs.fileno(),))
            os.close(hangs.detach())
            daemon.kill(signal.SIGCONT)
            tap.equal(answer(client), "not_stats_fd")
            demo.kill()
            events.wait("destroy", [pid])
            tap.equal(daemon.get("/-/healthy").status, 200)


def give_unpinned(client, vm, number):
    """The same VM as often as one likes: each such file is another one. "accepted" or why not."""
    stats = fcntl.ioctl(vm, kvmfd.KVM_GET_STATS_FD, 0)
    send(client.socket, header(2, 32) + struct.pack("=Qii", number, stats, -1), (stats,))
    said = answer(client)
    os.close(stats)
    return said


NOBODY = 65534


def is_taken_from_nobody(folder):
    """Whether another user's VM is taken."""
    pid = os.fork()
    if pid == 0:
        taken = False
        try:
            kvm = KvmHere()
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            taken = kvm.client(folder).vm(1, kvm.vm()) == CLIENT["ACCEPTED"]
        finally:
            os._exit(not taken)
    return os.waitpid(pid, 0)[1] == 0


def given_until_refused(daemon, folder, kvm):
    """How many VMs one user could give; then the other one's turn comes."""
    vm = kvm.vm()
    client = kvm.client(folder)
    tap.equal(client.vm(0, vm), CLIENT["ACCEPTED"])
    said, n = "accepted", 0
    while said == "accepted":
        n += 1
        said = give_unpinned(client, vm, n)
    tap.equal(said, "limit", f"after {n}")
    tap.check(is_taken_from_nobody(folder), f"there is no room for others: {daemon.errors()}")
    return n


@t.test("one user who gives without end leaves VMs and file descriptors to the others")
def _():
    with place() as folder:
        os.chmod(folder, 0o755)
        config = HANDOFF + FAST + socket_config(folder, f"[0, {NOBODY}]")
        with lab.Daemon(config + "limits: {max_vms: 16}\n") as daemon, KvmHere() as kvm:
            tap.equal(given_until_refused(daemon, folder, kvm), 14)
        with lab.Daemon(config) as daemon, KvmHere() as kvm:
            _, most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (2000, most))
            n = given_until_refused(daemon, folder, kvm)
            tap.check(n > 400, f"only {n} were taken")


@t.test("a VM that is given under another number of the same connection takes no other place")
def _():
    with place() as folder, lab.Daemon(HANDOFF + FAST + socket_config(folder)) as daemon, \
            KvmHere() as kvm:
        vm = kvm.vm()
        stats = kvm.own(fcntl.ioctl(vm, kvmfd.KVM_GET_STATS_FD, 0))
        other = kvm.own(fcntl.ioctl(vm, kvmfd.KVM_GET_STATS_FD, 0))
        client = kvm.client(folder)
        for number, fds, said in ((1, (stats, vm), "accepted"), (2, (other, vm), "exists"),
                                  (3, (stats,), "exists")):
            send(client.socket, header(2, 32) + struct.pack("=Qii", number, -1, -1), fds)
            tap.equal(answer(client), said)
        tap.equal(client.vcpu(1, 0, kvm.vcpu(vm, 0)), CLIENT["ACCEPTED"])
        tap.wait_for(lambda: row(daemon, os.getpid()).get("vcpus_read") == 1, what="its vCPU")


@t.test("a process has so many searches for its files, however often it connects")
def _():
    # Only who may list them searches.
    config = HANDOFF.replace("[handoff]", "[handoff, statsfd]")
    with place() as folder, lab.Daemon(config + FAST + socket_config(folder)) as daemon, \
            KvmHere() as kvm:
        vm = kvm.vm()
        stats = kvm.own(fcntl.ioctl(kvm.vcpu(vm, 0), kvmfd.KVM_GET_STATS_FD, 0))
        found = []
        for _ in range(2):
            client = kvm.client(folder)
            tap.equal(client.vm(1, vm), CLIENT["ACCEPTED"])
            said, n = "exists", 0
            while said in ("accepted", "exists"):
                send(client.socket, header(3, 32) + struct.pack("=QIi", 1, 0, -1), (stats,))
                said, n = answer(client), n + 1
            tap.equal(said, "not_yours", daemon.errors())
            found.append(n)
        tap.check(found[0] > 64 > 2 * found[1], found)


@t.test("under attack: the ticks go on, nothing of it is read or kept, others are served")
def _():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    config = ("sampling: {interval: 100ms}\n" +
              "discovery: {sources: [handoff, statsfd], rescan: 500ms}\n")
    with place() as folder, lab.DemoVms(vms=10, vcpus=2, name="calm") as calm, \
            lab.Daemon(config + socket_config(folder)) as daemon:
        for vm, pid in calm.vms:
            whole(daemon, vm, pid, 2)
        [number] = {fd for n, fd in kvmfd.stats_fds(calm.vms[0][1]).items() if n == -1}
        with kvmfd.StatsFile(calm.vms[0][1], number) as stats:
            copy = os.pread(stats.fd, 1 << 20, 0)
        fds, before = daemon.n_fds(), series(daemon)
        ticks = watcher.Ticks(daemon, daemon.metrics)
        silent = []
        for _ in range(10000):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            with contextlib.suppress(BlockingIOError):
                sock.connect(f"{folder}/handoff.sock")
            silent.append(sock)
            if len(silent) % 1000 == 0:
                in_a_child(attack, folder, copy)
        for sock in silent:
            sock.close()
        never_reads = tap.wait_for(lambda: connected(folder), what="a connection")
        for _ in range(5000):
            send(never_reads.socket, header(4, 24) + struct.pack("=Q", 1))
        with demo_under_shim(folder, vcpus=2, name="served") as demo:
            whole(daemon, "served", demo.vms[0][1], 2)
        never_reads.socket.close()
        after = series(daemon)
        for reason in ("not_stats_fd", "too_many_fds", "bad_message", "limit"):
            key = f'kvmstatd_handoff_rejected_total{{reason="{reason}"}}'
            tap.check(after[key] > before[key], f"none was counted as {reason}")
        ticks.check()
        tap.wait_for(lambda: daemon.n_fds() <= fds, what="all fds to be closed")
        tap.check(daemon.running(), daemon.errors())
        tap.check(daemon.errors().count("\n") < 400, "the log is flooded")


if __name__ == "__main__":
    t.main()
