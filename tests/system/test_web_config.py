# SPDX-License-Identifier: Apache-2.0
"""The web configuration, in exporter-toolkit's format: TLS, client certificates, users, headers, a rate
limit, and what happens when its files change."""

import http.client
import os
import select
import shutil
import socket
import ssl
import subprocess
import time
import warnings

import lab
import pki
import tap
import web
from web import Web, basic

t = tap.Tests()
warnings.simplefilter("ignore", DeprecationWarning)  # old TLS versions are what is tested

TLS = """tls_server_config:
  cert_file: server.crt
  key_file: server.key
"""
ALICE = pki.bcrypt("wonder land:1")
USERS = f"basic_auth_users:\n  alice: {ALICE}\n"
AS_ALICE = basic("alice", "wonder land:1")


def indented(path):
    with open(path, encoding="ascii") as f:
        return "".join("    " + line for line in f)


@t.test("configurations as exporters share them are taken as they are")
def _():
    with web.place() as made:
        made.server("rsa", "rsa")
        server = {"ec": "server", "rsa": "rsa"}

        def tls(kind="ec", more=""):
            return (f'tls_server_config:\n  cert_file: "{server[kind]}.crt"\n'
                    f'  key_file: "{server[kind]}.key"\n{more}')
        hashes = "".join(f"  user{kind[2]}: {pki.bcrypt('x', 10, kind)}\n"
                         for kind in ("$2a$", "$2b$", "$2y$"))
        suites = "".join(f"  - {name}\n" for name in (
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256",
            "TLS_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
            "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"))
        inline = (f"tls_server_config:\n  cert: |\n{indented(made.path('server.crt'))}"
                  f"  key: |\n{indented(made.path('server.key'))}")
        cases = [
            tls(),
            tls("rsa"),
            "# A comment\n" + tls() + "\nbasic_auth_users:\n" + hashes +
            '\nrate_limit:\n  interval: "1s" # between two requests\n  burst: 20\n',
            tls(more=f"  cipher_suites:\n{suites}  client_auth_type: \"VerifyClientCertIfGiven\"\n"),
            tls("rsa", f"  cipher_suites:\n{suites}  prefer_server_cipher_suites: false\n"),
            tls(more="  curve_preferences:\n  - CurveP256\n  - CurveP384\n  - CurveP521\n  - X25519\n"),
            tls(more="  min_version: TLS12\n  max_version: TLS13\n") +
            "http_server_config:\n  http2: true\n",
            tls(more="  client_auth_type: RequestClientCert\n  client_ca_file: ca.crt\n"),
            inline,
            inline.replace("tls_server_config:", "http_server_config:\n  http2: false\n"
                           "tls_server_config:"),
        ]
        for case in cases:
            with Web(case, made.folder, user=basic("usera", "x")) as daemon:
                tap.equal(daemon.outcome(headers=basic("userb", "x")), 200, case)
        # Without TLS.
        for case in ("", "basic_auth_users:\n" + hashes, "rate_limit:\n  interval: 0\n  burst: 0\n"):
            with Web(case, made.folder) as daemon:
                tap.equal(daemon.get("/-/healthy", headers=basic("usery", "x")).status, 200, case)
        check = subprocess.run([lab.program("kvmstatd"), "--check-config", "--config", os.devnull,
                                "--web.config.file", daemon.web_path], capture_output=True,
                               check=False)
        tap.equal(check.returncode, 0, check.stderr)


@t.test("what is wrong is refused with its line and column")
def _():
    with web.place() as made:
        made.server("other")
        with open(made.path("junk.crt"), "w", encoding="ascii") as f:
            f.write("junk\n")
        subprocess.run(["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", "server.key",
                        "-out", "locked.key"], cwd=made.folder, check=True, capture_output=True)
        cases = [
            ("tls_server_config:\n  cert_filse: a\n", "2:3:", "cert_file?"),
            ("certificate: a\n", "1:1:", "tls_server_config"),
            ("junk\n", "1:1:", "keys belong here"),
            ("tls_server_config:\n  cert_file: server.crt\n", "2:3:", "key_file is missing"),
            ("tls_server_config:\n  min_version: TLS13\n", "2:3:", "cert_file is missing"),
            ("tls_server_config:\n  cert_file: ''\n  key_file: server.key\n", "2:14:", "empty"),
            (TLS.replace("server.crt", "none.crt"), "2:14:", "No such file"),
            (TLS.replace("server.crt", "."), "2:14:", "directory"),
            (TLS.replace("server.crt", "junk.crt"), "2:14:", "no certificate"),
            (TLS.replace("server.key", "junk.crt"), "3:13:", "no private key"),
            (TLS.replace("server.key", "locked.key"), "3:13:", "passphrase"),
            (TLS.replace("server.key", "other.key"), "3:13:", "not that of the certificate"),
            (TLS + "  cert: junk\n", "4:9:", "not PEM"),
            (TLS + "  client_auth_type: Always\n", "4:21:", "RequireAndVerifyClientCert"),
            (TLS + "  client_ca_file: ca.crt\n", "4:19:", "client_auth_type"),
            (TLS + "  client_allowed_sans: [a]\n", "4:24:", "client_auth_type"),
            (TLS + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: junk.crt\n",
             "5:19:", "no certificate"),
            (TLS + "  min_version: TLS111\n", "4:16:", "TLS11"),
            (TLS + "  min_version: TLS13\n  max_version: TLS12\n", "4:16:", "above the maximum"),
            (TLS + "  cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]\n", "4:19:", "not a choice"),
            (TLS + "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"
             "  max_version: TLS12\n", "4:18:", "ECDSA"),
            (TLS + "  curve_preferences: [CurveP257]\n", "4:23:", "CurveP256"),
            (TLS + TLS, "4:1:", "twice"),
            ("http_server_config:\n  headers:\n    X-Frame-Options: foo\n", "3:22:", "sameorigin"),
            ("http_server_config:\n  headers:\n    Content-Type: foo\n", "3:5:", "no key"),
            ("http_server_config:\n  headers:\n    X-XSS-Protection: |\n      a\n      b: c\n",
             "3:23:", "one line"),
            ("http_server_config:\n  http2: perhaps\n", "2:10:", "true"),
            ("rate_limit:\n  interval: 5\n", "2:13:", "unit"),
            ("rate_limit:\n  burst: -1\n", "2:10:", "whole number"),
            ("basic_auth_users:\n  john: hunter2\n", "2:3:", "bcrypt"),
            (f"basic_auth_users:\n  john: {ALICE.replace('$04$', '$19$')}\n", "2:3:", "cost 19"),
            (f"basic_auth_users:\n  john: {ALICE}\n  john: {ALICE}\n", "3:3:", "twice"),
            (f"basic_auth_users:\n  'a:b': {ALICE}\n", "2:3:", "colon"),
            ("basic_auth_users: [a]\n", "1:19:", "names and values"),
        ]
        for text, place, words in cases:
            said = web.refusal(text, made.folder)
            tap.check(said.startswith(f"{made.path('web.yaml')}:{place} "), f"{text!r}: {said}")
            tap.check(words in said and "\n" not in said, f"{text!r}: {said}")
            tap.check("hunter2" not in said, f"what may be a password is shown: {said}")
        os.unlink(made.path("web.yaml"))
        with lab.Daemon(args=["--web.config.file", made.path("web.yaml")], wait=False) as daemon:
            tap.equal(daemon.wait(), 2, "exit status without the file")
            tap.check("web.yaml" in daemon.errors(), daemon.errors())


def tls_config(auth, ca="ca", more=""):
    text = TLS + f"  client_auth_type: {auth}\n"
    return text + (f"  client_ca_file: {ca}.crt\n" if ca else "") + more


@t.test("client certificates are verified, and who has none or a wrong one gets nothing")
def _():
    with web.place() as made:
        made.signed("good", "DNS:prometheus.example.org", usage="clientAuth")
        made.signed("plain", "DNS:prometheus.example.org")
        made.signed("purpose", "DNS:prometheus.example.org", usage="serverAuth")
        made.signed("expired", "DNS:prometheus.example.org", days="-1")
        made.self_signed("rogue", "DNS:prometheus.example.org")
        made.authority("otherca")
        made.signed("foreign", "DNS:prometheus.example.org", ca="otherca")
        clients = (None, "good", "plain", "purpose", "expired", "rogue", "foreign")
        modes = {
            "RequestClientCert": set(clients),
            "RequireAnyClientCert": set(clients) - {None},
            "RequireClientCert": set(clients) - {None},
            "VerifyClientCertIfGiven": {None, "good", "plain"},
            "RequireAndVerifyClientCert": {"good", "plain"},
        }
        with Web(TLS, made.folder) as daemon:
            for mode, allowed in modes.items():
                daemon.put_in_force(tls_config(mode))
                for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                    for client in clients:
                        tap.equal(daemon.outcome(cert=client, version=version),
                                  200 if client in allowed else "refused",
                                  f"{mode}, {client}, {version}")
            # A self-signed certificate may be its own CA.
            daemon.put_in_force(tls_config("RequireAndVerifyClientCert", "rogue"))
            tap.equal(daemon.outcome(cert="rogue"), 200, "its own CA")
            tap.equal(daemon.outcome(cert="good"), "refused", "of another CA")
            tap.equal(lab.fetch(f"unix:{daemon.unix}:/-/healthy").status, 200, "a Unix socket")


@t.test("allowed SANs are those of a name, an address, an e-mail or a URI, exactly")
def _():
    with web.place() as made:
        made.signed("client", "DNS:one.example,IP:10.1.2.3,IP:2001:db8::1,email:a@b.example,"
                              "URI:spiffe://example/x")
        made.signed("bare", "DNS:other.example")
        cases = {"one.example": True, "10.1.2.3": True, "2001:0db8::0001": True,
                 "a@b.example": True, "spiffe://example/x": True, "client": False,
                 "ONE.example": False, "one.exampl": False, "one.example.org": False,
                 "10.1.2.30": False, "2001:db8::2": False, "*": False}
        with Web(TLS, made.folder) as daemon:
            for san, allowed in cases.items():
                for auth in ("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"):
                    daemon.put_in_force(tls_config(
                        auth, more=f'  client_allowed_sans: ["no.example", "{san}"]\n'))
                    tap.equal(daemon.outcome(cert="client"), 200 if allowed else "refused",
                              f"{auth}, {san}")
                    tap.equal(daemon.outcome(cert="bare"), "refused", f"{auth}, {san}")


def negotiated(daemon, **kwargs):
    """(version, cipher) of a connection that is answered, or None."""
    try:
        with daemon.connect(**kwargs) as s:
            s.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
            tap.check(s.recv(12) == b"HTTP/1.1 200" or s.version() is None, "the answer")
            return s.version(), s.cipher()[0]
    except web.REFUSED:
        return None


@t.test("versions, cipher suites and curves are those that were written")
def _():
    v = ssl.TLSVersion
    with web.place() as made:
        made.server("rsa", "rsa")
        rsa = TLS.replace("server.", "rsa.")
        low = "ALL:@SECLEVEL=0"

        def versions(more, name):
            with Web(more, made.folder) as daemon:
                found = {x.name for x in (v.TLSv1, v.TLSv1_1, v.TLSv1_2, v.TLSv1_3)
                         if negotiated(daemon, version=x, ciphers=low)}
                tap.equal(found, name, more)
        versions(TLS, {"TLSv1_2", "TLSv1_3"})
        versions(TLS + "  min_version: TLS13\n", {"TLSv1_3"})
        versions(TLS + "  max_version: TLS12\n", {"TLSv1_2"})
        versions(rsa + "  min_version: TLS11\n  max_version: TLS12\n", {"TLSv1_1", "TLSv1_2"})
        versions(rsa + "  min_version: TLS10\n", {"TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"})

        gcm = "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\n"
        with Web(rsa + gcm, made.folder) as daemon:
            tap.equal(negotiated(daemon, version=v.TLSv1_2),
                      ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384"), "what is listed")
            for other in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305",
                          "ECDHE-RSA-AES256-SHA", "AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384"):
                tap.equal(negotiated(daemon, version=v.TLSv1_2, ciphers=other), None, other)
            tap.equal(negotiated(daemon, version=v.TLSv1_3), ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
                      "of 1.3")
        # Without a list: nothing without forward secrecy.
        with Web(rsa, made.folder) as daemon:
            for other in ("AES256-GCM-SHA384", "AES128-SHA", "DHE-RSA-AES256-GCM-SHA384"):
                tap.equal(negotiated(daemon, version=v.TLSv1_2, ciphers=other), None, other)
            tap.check(negotiated(daemon, version=v.TLSv1_2, ciphers="ECDHE-RSA-AES128-SHA"), "CBC")
        both = ("  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n")
        theirs = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"
        for prefer, cipher in (("true", "ECDHE-RSA-AES256-GCM-SHA384"),
                               ("false", "ECDHE-RSA-AES128-GCM-SHA256")):
            with Web(rsa + both + f"  prefer_server_cipher_suites: {prefer}\n",
                     made.folder) as daemon:
                tap.equal(negotiated(daemon, version=v.TLSv1_2, ciphers=theirs),
                          ("TLSv1.2", cipher), f"prefer_server_cipher_suites: {prefer}")

        with Web(rsa + "  curve_preferences: [CurveP521]\n", made.folder) as daemon:
            for group, works in (("P-521", True), ("P-256", False), ("X25519", False)):
                for version in ("-tls1_2", "-tls1_3"):
                    done = subprocess.run(
                        [tap.require_tool("openssl"), "s_client", version, "-groups", group,
                         "-connect", f"127.0.0.1:{daemon.port}", "-CAfile", made.path("ca.crt"),
                         "-verify_return_error"], input=b"", capture_output=True, check=False)
                    tap.equal(done.returncode == 0, works, f"{group} {version} {done.stderr}")


@t.test("users: every path wants a right password, on every listener")
def _():
    headers = [None, {"Authorization": ""}, {"Authorization": "Basic"},
               {"Authorization": "Basic !!!!"}, {"Authorization": "Bearer YWJj"},
               {"Authorization": "Basic YWxpY2U="}, basic("alice", ""), basic("", "wonder land:1"),
               basic("alice", "wonder land:2"), basic("Alice", "wonder land:1"),
               basic("alice", "wonder land:1\0x"), basic("alice\0x", "wonder land:1"),
               basic("bob", "wonder land:1"), basic("alice", ALICE), basic("a" * 4000, "x"),
               basic("alice", "x" * 4000), basic("alice", "wonder land:1 ")]
    with web.place() as made, Web(TLS + USERS, made.folder) as daemon:
        for path in ("/", "/metrics", "/-/healthy", "/-/ready", "/api/v1/vms", "/nothing"):
            for get in (daemon.https, lambda p, headers: lab.fetch(f"unix:{daemon.unix}:{p}",
                                                                   headers=headers)):
                for method in (None, basic("alice", "no")):
                    answer = get(path, headers=method)
                    tap.equal(answer.status, 401, f"{path} {method}")
                    tap.check(answer.headers["WWW-Authenticate"].startswith("Basic realm="), path)
                    tap.check("kvm" not in answer.text, "a 401 says nothing")
                tap.equal(get(path, headers=AS_ALICE).status, {"/nothing": 404}.get(path, 200), path)
        for wrong in headers * 2:  # the second time from what is remembered
            tap.equal(daemon.outcome(headers=wrong), 401, repr(wrong))
            tap.equal(daemon.outcome(headers=AS_ALICE), 200, f"after {wrong!r}")
        tap.equal(daemon.https("/metrics", method="DELETE").status, 401, "DELETE, by nobody")
        tap.equal(daemon.https("/metrics", AS_ALICE, "DELETE").status, 405, "DELETE, by alice")
        text = daemon.errors()
        tap.check("wonder" not in text and ALICE not in text, "secrets in the log")


@t.test("a check of a password holds nobody up, and only so many may wait")
def _():
    # Sixteen checks of this cost take seconds, and nothing here says how many.
    slow = pki.bcrypt("slow", 13)
    users = f"basic_auth_users:\n  alice: {ALICE}\n  slow: {slow}\n"
    with web.place() as made, Web(users, made.folder) as daemon:
        tap.equal(daemon.get("/-/healthy", headers=AS_ALICE).status, 200, "alice becomes known")
        waiting = []
        for i in range(40):
            s = socket.create_connection(("127.0.0.1", daemon.port), timeout=lab.TIMEOUT_S)
            line = basic("slow", f"wrong{i}")["Authorization"]
            s.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {line}\r\n\r\n".encode())
            waiting.append(s)
        for _ in range(10):
            tap.equal(daemon.get("/metrics", headers=AS_ALICE).status, 200, "alice, meanwhile")
        early = select.select(waiting, [], [], 0)[0]
        statuses = [s.recv(4096) for s in waiting]
        late = [a for s, a in zip(waiting, statuses) if s not in early]
        tap.check(late, "ten scrapes were answered before all who waited were")
        busy = [a for a in statuses if a.startswith(b"HTTP/1.1 503")]
        tap.check(busy and all(b"Retry-After: " in a for a in busy), "those beyond are told so")
        denied = [a for a in statuses if a.startswith(b"HTTP/1.1 401")]
        tap.equal(len(busy) + len(denied), len(waiting), "answers")
        tap.check(denied, "those who waited are answered")
        for s in waiting:
            s.close()
        tap.equal(daemon.get("/-/healthy", headers=basic("slow", "slow")).status, 200, "slow")
        s = socket.create_connection(("127.0.0.1", daemon.port))
        s.sendall(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: "
                  f"{basic('slow', 'last')['Authorization']}\r\n\r\n".encode())
        tap.equal(daemon.stop(), 0, "exit status with a check in progress")
        s.close()


@t.test("headers and the rate limit")
def _():
    text = """http_server_config:
  headers:
    X-Frame-Options: sameorigin
    Strict-Transport-Security: max-age=31536000; includeSubDomains
    X-Content-Type-Options: nosniff
    X-XSS-Protection: 1
    Content-Security-Policy: "default-src 'self'"
"""
    with web.place() as made, Web(text, made.folder) as daemon:
        for path in ("/", "/metrics", "/nothing"):
            answer = daemon.get(path)
            for name, value in (("X-Frame-Options", "sameorigin"), ("X-XSS-Protection", "1"),
                                ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
                                ("X-Content-Type-Options", "nosniff"),
                                ("Content-Security-Policy", "default-src 'self'")):
                tap.equal(answer.headers.get_all(name), [value], f"{path} {name}")
        daemon.put_in_force("rate_limit: {interval: 1h, burst: 3}\n" + USERS)
        while (status := daemon.get("/-/healthy").status) != 429:
            tap.equal(status, 401, "before the limit")
        for get in (daemon.get, lambda p, headers: lab.fetch(f"unix:{daemon.unix}:{p}",
                                                             headers=headers)):
            tap.equal(get("/metrics", headers=AS_ALICE).status, 429, "the limit is everybody's")


@t.test("a burst is as many requests as was written")
def _():
    with web.place() as made:
        for burst in (0, 1, 5):
            with Web(f"rate_limit: {{interval: 1h, burst: {burst}}}\n", made.folder) as daemon:
                # Readiness took one, where there was one.
                statuses = [daemon.get("/-/healthy").status for _ in range(burst + 3)]
                tap.equal(statuses.count(200), max(0, burst - 1), f"burst of {burst}: {statuses}")


@t.test("new certificates and users are in force at once, and connections go on")
def _():
    with web.place() as made, Web(TLS + USERS, made.folder, user=AS_ALICE) as daemon:
        keep = http.client.HTTPSConnection("localhost", daemon.port, timeout=lab.TIMEOUT_S,
                                           context=daemon.context())
        keep.request("GET", "/-/healthy", headers=AS_ALICE)
        tap.equal(keep.getresponse().read(), b"kvmstatd is alive.\n", "before")
        old = daemon.serial()
        made.server("next", "rsa")
        sockets = web.n_sockets(daemon)
        # One after the other: what is between is a pair that does not fit, and changes nothing.
        shutil.copy(made.path("next.crt"), made.path("server.crt"))
        tap.wait_for(lambda: daemon.serial() == old and "not that of the certificate"
                     in daemon.errors(), lab.TIMEOUT_S, what="the refusal of half a pair")
        shutil.copy(made.path("next.key"), made.path("server.key"))
        tap.wait_for(lambda: daemon.serial() != old, lab.TIMEOUT_S, what="the new certificate")
        keep.request("GET", "/-/healthy", headers=AS_ALICE)
        tap.equal(keep.getresponse().read(), b"kvmstatd is alive.\n", "on the old connection")

        daemon.put_in_force(TLS + USERS.replace("alice", "bob"))
        tap.equal(daemon.outcome(headers=AS_ALICE), 401, "alice is nobody")
        tap.equal(daemon.outcome(headers=basic("bob", "wonder land:1")), 200, "bob")
        keep.request("GET", "/-/healthy", headers=AS_ALICE)
        answer = keep.getresponse()
        answer.read()
        tap.equal(answer.status, 401, "alice on the old connection")
        # A password is changed: what was remembered of the old one is worth nothing.
        daemon.put_in_force(TLS + f"basic_auth_users:\n  bob: {pki.bcrypt('new')}\n")
        tap.equal(daemon.outcome(headers=basic("bob", "new")), 200, "the new password")
        tap.equal(daemon.outcome(headers=basic("bob", "wonder land:1")), 401, "the old password")
        keep.close()
        tap.wait_for(lambda: web.n_sockets(daemon) <= sockets, lab.TIMEOUT_S,
                     what="sockets to be closed")


@t.test("a broken file keeps the last good one in force, and is said once")
def _():
    with web.place() as made, Web(TLS + USERS, made.folder, user=AS_ALICE) as daemon:
        for text, place in ((TLS + USERS + "junk: 1\n", ":6:1: "), (USERS + "rate_limit: 7\n", ":3:13: ")):
            daemon.write_web(text)
            said = daemon.web_path + place
            tap.wait_for(lambda: daemon.outcome(headers=AS_ALICE) == 200 and said in daemon.errors(),
                         lab.TIMEOUT_S, what=said)
            for _ in range(10):
                tap.equal(daemon.outcome(headers=AS_ALICE), 200, "the last good one")
                tap.equal(daemon.outcome(), 401, "the last good one")
                os.utime(daemon.web_path)
            tap.equal(daemon.errors().count(said), 1, daemon.errors())
            tap.check("\nkvmstatd_config_last_reload_successful 0\n" in
                      daemon.by_unix("/metrics").text, "the metric tells")
        os.unlink(daemon.web_path)
        tap.wait_for(lambda: daemon.outcome(headers=AS_ALICE) == 200 and "No such file"
                     in daemon.errors(), lab.TIMEOUT_S, what="that it is gone")
        daemon.put_in_force(TLS)
        tap.equal(daemon.outcome(), 200, "the repaired one")
        tap.check("\nkvmstatd_config_last_reload_successful 1\n" in
                  daemon.by_unix("/metrics").text, "the metric tells that as well")
        # A file that is named before it is there: nothing else changes when it comes.
        daemon.write_web(TLS.replace("server.", "later."))
        tap.wait_for(lambda: daemon.outcome() == 200 and "later.crt" in daemon.errors(),
                     lab.TIMEOUT_S, what="that a certificate is not there")
        old = daemon.serial()
        made.server("later")
        tap.wait_for(lambda: daemon.serial() != old, lab.TIMEOUT_S, what="the late certificate")
        # TLS goes and comes with the file, too.
        daemon.put_in_force("")
        tap.equal(daemon.outcome(), "refused", "TLS")
        tap.equal(daemon.get("/-/healthy").status, 200, "plain HTTP")
        daemon.put_in_force(TLS)
        tap.equal(daemon.outcome(), 200, "TLS again")


@t.test("half a file, with the client's certificate not yet in it, lets nobody in")
def _():
    with web.place() as made:
        made.signed("good", "DNS:prometheus.example.org", usage="clientAuth")
        whole = tls_config("RequireAndVerifyClientCert")
        with Web(whole, made.folder) as daemon:
            tap.equal((daemon.outcome(), daemon.outcome(cert="good")), ("refused", 200))
            for half in (TLS, tls_config("RequestClientCert"), tls_config("VerifyClientCertIfGiven")):
                with open(daemon.web_path, "w", encoding="ascii") as f:  # as an editor in place
                    f.write(half)
                while daemon.outcome() == "refused":
                    pass
                age_s = time.time() - os.stat(daemon.web_path).st_ctime
                tap.check(age_s > 0.1, f"in force after {age_s} s: {half}")
                daemon.put_in_force(whole)
                tap.equal(daemon.outcome(), "refused", "the whole file again")


def listening(*addresses):
    return "web:\n  listen: [" + ", ".join(f'"{a}"' for a in addresses) + "]\n"


def keep_open(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=lab.TIMEOUT_S)
    connection.request("GET", "/-/healthy")
    tap.equal(connection.getresponse().read(), b"kvmstatd is alive.\n", "first")
    return connection


def again(connection):
    connection.auto_open = 0  # the same connection, or an error
    connection.request("GET", "/-/healthy")
    tap.equal(connection.getresponse().read(), b"kvmstatd is alive.\n", "again")


def answers(port):
    try:
        return lab.fetch(f"http://127.0.0.1:{port}/-/healthy").status
    except ConnectionError:
        return None


@t.test("a reload changes the listeners, and those that stay do not notice")
def _():
    a, b, c = lab.free_ports(3)
    with web.place() as made, socket.socket() as other:
        unix = made.path("s")
        config = listening(f"127.0.0.1:{a}", f"unix:{unix}")
        with lab.Daemon(config, listen=False, wait=False) as daemon:
            tap.wait_for(lambda: os.path.exists(unix) and answers(a), lab.TIMEOUT_S, what="start")
            sockets = web.n_sockets(daemon)
            kept, inode = keep_open(a), os.stat(unix).st_ino

            def reloaded(text, good=True):
                before = daemon.errors().count("configuration reloaded")
                failed = daemon.errors().count("configuration in force stays")
                daemon.reload(text)
                tap.wait_for(lambda: daemon.errors().count("configuration reloaded") > before if good
                             else daemon.errors().count("configuration in force stays") > failed,
                             lab.TIMEOUT_S, what="the reload")
            reloaded(listening(f"127.0.0.1:{a}", f"unix:{unix}", f"127.0.0.1:{b}"))
            tap.equal([answers(p) for p in (a, b, c)], [200, 200, None], "one more")
            again(kept)
            tap.equal(os.stat(unix).st_ino, inode, "the Unix socket is the same")

            # One that cannot be had: nothing changes, not even what could be.
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            reloaded(listening(f"127.0.0.1:{c}", f"127.0.0.1:{taken}"), good=False)
            tap.check(f"127.0.0.1:{taken}: " in daemon.errors(), daemon.errors())
            tap.equal([answers(p) for p in (a, b, c)], [200, 200, None], "after what failed")
            tap.check("kvmstatd_config_last_reload_successful 0" in
                      lab.fetch(f"http://127.0.0.1:{a}/metrics").text, "the metric")
            again(kept)

            # From one address to all, on the same port: the new socket is there before the old goes.
            reloaded(listening(f":{b}"))
            tap.equal([answers(p) for p in (a, b, c)], [None, 200, None], "all addresses")
            tap.equal(lab.fetch(f"http://127.0.0.2:{b}/-/healthy").status, 200, "another address")
            tap.check(not os.path.exists(unix), "the Unix socket's file stays behind")
            again(kept)  # its listener is gone, it is not
            tap.check("kvmstatd_config_last_reload_successful 1" in
                      lab.fetch(f"http://127.0.0.1:{b}/metrics").text, "the metric")
            # Nobody else of this user can share the port with us.
            with lab.Daemon(listening(f"127.0.0.1:{b}"), listen=False, wait=False) as second:
                tap.check(second.wait() != 0 and "in use" in second.errors(), second.errors())

            reloaded(config)
            tap.equal([answers(p) for p in (a, b, c)], [200, None, None], "as it was")
            kept.close()
            tap.wait_for(lambda: web.n_sockets(daemon) <= sockets, lab.TIMEOUT_S,
                         what="sockets to be closed")


@t.test("a reload changes limits, metrics, and the web configuration's file")
def _():
    with web.place() as made:
        path = made.path("web.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(TLS)
        unix = made.path("s")
        base = "web:\n  listen: [\"unix:@U@\", \"127.0.0.1:@P@\"]\n".replace("@U@", unix)
        base = base.replace("@P@", str(lab.free_port()))
        port = int(base.rsplit(":", 1)[1].split('"')[0])
        with lab.Daemon(base, listen=False, wait=False) as daemon:
            tap.wait_for(lambda: os.path.exists(unix) and answers(port), lab.TIMEOUT_S, what="start")

            def reloaded(text, words):
                daemon.reload(base + text)
                tap.wait_for(lambda: daemon.errors().count(words), lab.TIMEOUT_S, what=words)
            reloaded(f"  config_file: {path}\n", "configuration reloaded")
            tap.wait_for(lambda: answers_tls(made, port), lab.TIMEOUT_S, what="TLS")
            reloaded(f"  config_file: {path}x\n", "web.yamlx: cannot be opened")
            tap.check(answers_tls(made, port), "TLS stays")
            daemon.reload(base)
            tap.wait_for(lambda: plain(port), lab.TIMEOUT_S, what="plain HTTP")

            def reloads():
                return daemon.errors().count("configuration reloaded")

            tap.check("kvmstatd_build_info" in lab.fetch(f"unix:{unix}:/metrics").text, "metrics")
            before = reloads()
            daemon.reload(base + "  timeout: 1s\n  max_requests: 1\n")
            tap.wait_for(lambda: reloads() > before, lab.TIMEOUT_S, what="the reload")
            with socket.create_connection(("127.0.0.1", port), timeout=lab.TIMEOUT_S) as s:
                tap.equal(s.recv(1), b"", "the new timeout, not the minutes of the old one")


def plain(port):
    try:
        return lab.fetch(f"http://127.0.0.1:{port}/-/healthy").status == 200
    except (OSError, http.client.HTTPException):
        return False


def answers_tls(made, port):
    try:
        context = ssl.create_default_context(cafile=made.path("ca.crt"))
        connection = http.client.HTTPSConnection("localhost", port, timeout=lab.TIMEOUT_S,
                                                 context=context)
        connection.request("GET", "/-/healthy")
        return connection.getresponse().status == 200
    except web.REFUSED:
        return False


t.main()
