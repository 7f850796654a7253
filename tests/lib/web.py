# SPDX-License-Identifier: Apache-2.0
"""A daemon with a web configuration, and a client that speaks TLS and knows passwords."""

import base64
import contextlib
import http.client
import os
import socket
import ssl
import tempfile

import lab
import pki
import tap

# A client that is refused sees one of these, by how far it had come.
REFUSED = (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected, BrokenPipeError)


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def n_sockets(daemon):
    """What is not of the VMs that other tests run on this host."""
    return sum(link.startswith("socket:") for link in lab.fd_links(daemon.pid))


class Web(lab.Daemon):
    """kvmstatd with a web configuration: `web` is its text, `folder` where its certificates are.

    There also is a Unix socket, `unix`, which is never TLS. `user` are the headers of who asks by
    by_unix() and by_tcp().
    """

    def __init__(self, web, folder, config="", args=(), user=None, **kwargs):
        self.pki_folder = folder
        self.web_path = os.path.join(folder, "web.yaml")
        self.unix = os.path.join(folder, "http.sock")
        self.user = user
        self.changes = 0
        self.write_web(web)
        super().__init__(config, ["--web.config.file", self.web_path, "--web.listen-address",
                                  f"unix:{self.unix}", *args], **kwargs)

    def write_web(self, text):
        """Replace the file by another one, as editors and certificate tools do."""
        self.tls = "tls_server_config" in text
        with open(self.web_path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(self.web_path + ".new", self.web_path)

    def put_in_force(self, text):
        """The same, and waits until it is what all that comes is held to.

        The daemon looks at its files when something comes, and not at every time. So an answer that
        is as expected may still be that of what was in force before. But it says each change once,
        when it is in force.
        """
        self.changes += 1
        said = f"{self.web_path}: web configuration read again"
        before = self.errors().count(said)
        self.write_web(f"{text}\n# change {self.changes}\n")

        def look():
            with contextlib.suppress(OSError, http.client.HTTPException):
                lab.fetch(f"unix:{self.unix}:/-/healthy", timeout_s=5)
            return self.errors().count(said) > before
        tap.wait_for(look, lab.TIMEOUT_S, 0.02, f"the log's word on {text!r}")

    def _is_ready(self):
        # Whatever it answers, it does: those tests that ask more have their own users.
        if not self.running():
            raise AssertionError(f"it exited with {self.child.returncode}: {self.errors()}")
        try:
            lab.fetch(f"unix:{self.unix}:/-/ready", headers=self.user, timeout_s=5)
            return True
        except (OSError, http.client.HTTPException):
            return False

    def context(self, cert=None, ca="ca", version=None, ciphers=None):
        context = ssl.create_default_context(cafile=os.path.join(self.pki_folder, f"{ca}.crt"))
        if cert:
            path = os.path.join(self.pki_folder, cert)
            context.load_cert_chain(f"{path}.crt", f"{path}.key")
        if ciphers:
            context.set_ciphers(ciphers)
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def connect(self, **kwargs):
        """A TLS connection; raises one of REFUSED, here or when something is asked (TLS 1.3)."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=lab.TIMEOUT_S)
        # As all clients do; else it waits for an acknowledgement after the handshake.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return self.context(**kwargs).wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise

    def https(self, path="/-/healthy", headers=None, method="GET", **kwargs):
        """One request over TLS."""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=lab.TIMEOUT_S)
        with contextlib.closing(connection):
            connection.sock = self.connect(**kwargs)
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return lab.Response(answer.status, answer.msg, answer.read())

    def outcome(self, path="/-/healthy", headers=None, **kwargs):
        """The status, or "refused" where there was no answer at all."""
        try:
            return self.https(path, headers, **kwargs).status
        except REFUSED:
            return "refused"

    def by_unix(self, path):
        return lab.fetch(f"unix:{self.unix}:{path}", headers=self.user)

    def by_tcp(self, path):
        """By TLS where the web configuration says so."""
        return self.https(path, self.user) if self.tls else self.get(path, headers=self.user)

    def serial(self):
        """The serial number of the certificate that a new connection is shown."""
        with self.connect() as s:
            return s.getpeercert()["serialNumber"]


@contextlib.contextmanager
def place():
    """A folder with a CA, and the certificate `server` by it."""
    with tempfile.TemporaryDirectory(prefix="kvmstatd-web-") as folder:
        made = pki.Pki(folder)
        made.server()
        yield made


def refusal(web, folder, config=""):
    """What a daemon that does not start says; the same as --check-config says, and both exit by 2."""
    said = []
    for args in ([], ["--check-config"]):
        with Web(web, folder, config, args=args, wait=False) as daemon:
            tap.equal(daemon.wait(), 2, f"exit status for {web!r}; {daemon.errors()}")
            said.append(daemon.errors().strip())
    tap.equal(said[0], said[1], "what --check-config says")
    return said[0]
