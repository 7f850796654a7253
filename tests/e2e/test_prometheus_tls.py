# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus scrapes over TLS, with a password and with a client certificate; and curl with the
wrong ones gets nothing."""

import os
import re
import subprocess

import lab
import pki
import tap
import web
from web import Web

t = tap.Tests()

TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
CLIENTS = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"


def curl(daemon, made, *args):
    """(exit status, HTTP status) of curl's."""
    done = subprocess.run([tap.require_tool("curl"), "-s", "-o", os.devnull, "-w", "%{http_code}",
                           "--max-time", str(int(lab.TIMEOUT_S)), "--cacert", made.path("ca.crt"),
                           *args, f"https://localhost:{daemon.port}/metrics"],
                          capture_output=True, check=False)
    return done.returncode == 0, int(done.stdout)


def scraped(daemon, jobs):
    """By job: whether a Prometheus of this configuration gets its scrapes, and what it says of them."""
    with lab.Prometheus([f"localhost:{daemon.port}"], interval="2s", jobs={
            name: {"scheme": "https", **config} for name, config in jobs.items()}) as prometheus:
        def verdicts():
            # A scrape that took too long on a busy machine says nothing.
            found = {target["labels"]["job"]: target for target in prometheus.targets()
                     if target["health"] != "unknown" and "deadline" not in target["lastError"]}
            return found if len(found) == len(jobs) else None

        found = tap.wait_for(verdicts, lab.TIMEOUT_S, what="a scrape by each job")
        for job, target in found.items():
            if target["health"] == "up":
                tap.wait_for(lambda job=job: prometheus.query(f'kvmstatd_build_info{{job="{job}"}}'),
                             lab.TIMEOUT_S, what=f"samples of {job}")
        return {job: (target["health"], target["lastError"]) for job, target in found.items()}


def is_down(verdict, word):
    tap.check(verdict[0] == "down" and word in verdict[1], f"expected {word}: {verdict}")


def is_shut_out(verdict):
    """Refused for its certificate: by TLS 1.3 a client learns of that when it has sent its request
    already, and may see no more of it than the connection's end."""
    tap.check(verdict[0] == "down" and
              re.search("certificate|broken pipe|connection reset|EOF", verdict[1]), verdict)


@t.test("with a password over TLS")
def _():
    tap.require_tool("prometheus")
    users = f"basic_auth_users:\n  prometheus: {pki.bcrypt('a pass:word', 10)}\n"
    with web.place() as made, Web(TLS + users, made.folder) as daemon:
        tls = {"tls_config": {"ca_file": made.path("ca.crt")}}
        right = {"username": "prometheus", "password": "a pass:word"}
        found = scraped(daemon, {
            "right": {**tls, "basic_auth": right},
            "wrong": {**tls, "basic_auth": {**right, "password": "x"}},
            "unknown CA": {"basic_auth": right}})
        tap.equal(found["right"], ("up", ""))
        is_down(found["wrong"], "401")
        is_down(found["unknown CA"], "certificate")
        tap.equal(curl(daemon, made), (True, 401), "curl without a password")
        tap.equal(curl(daemon, made, "-u", "prometheus:wrong"), (True, 401), "curl, a wrong one")
        tap.equal(curl(daemon, made, "-u", "nobody:a pass:word"), (True, 401), "curl, nobody")
        tap.equal(curl(daemon, made, "-u", "prometheus:a pass:word"), (True, 200), "curl")


@t.test("with a client certificate")
def _():
    tap.require_tool("prometheus")
    with web.place() as made:
        made.signed("prometheus", "DNS:prometheus.example.org", usage="clientAuth")
        made.signed("other", "DNS:other.example.org", usage="clientAuth")
        made.self_signed("rogue", "DNS:prometheus.example.org")
        text = TLS + CLIENTS + "  client_allowed_sans: [prometheus.example.org]\n"
        with Web(text, made.folder) as daemon:
            def files(name):
                return {"tls_config": {"ca_file": made.path("ca.crt"),
                                       "cert_file": made.path(f"{name}.crt"),
                                       "key_file": made.path(f"{name}.key")}}

            def with_cert(name):
                return curl(daemon, made, "--cert", made.path(f"{name}.crt"), "--key",
                            made.path(f"{name}.key"))
            found = scraped(daemon, {name: files(name) for name in ("prometheus", "rogue", "other")})
            tap.equal(found["prometheus"], ("up", ""))
            for name in ("rogue", "other"):
                is_shut_out(found[name])
                tap.equal(with_cert(name), (False, 0), f"curl with {name}")
            tap.equal(curl(daemon, made), (False, 0), "curl without a certificate")
            tap.equal(with_cert("prometheus"), (True, 200), "curl")


@t.test("with both at once: neither does without the other")
def _():
    tap.require_tool("prometheus")
    users = f"basic_auth_users:\n  prometheus: {pki.bcrypt('a pass:word', 10)}\n"
    with web.place() as made:
        made.signed("prometheus", "DNS:prometheus.example.org", usage="clientAuth")
        made.self_signed("rogue", "DNS:prometheus.example.org")
        with Web(TLS + CLIENTS + users, made.folder) as daemon:
            def asking(cert, password):
                tls = {"ca_file": made.path("ca.crt")}
                if cert:
                    tls.update(cert_file=made.path(f"{cert}.crt"), key_file=made.path(f"{cert}.key"))
                return {"tls_config": tls,
                        "basic_auth": {"username": "prometheus", "password": password}}

            def by_curl(cert, password):
                files = ["--cert", made.path(f"{cert}.crt"), "--key", made.path(f"{cert}.key")]
                return curl(daemon, made, "-u", f"prometheus:{password}", *(files if cert else ()))
            right = "a pass:word"
            found = scraped(daemon, {"both": asking("prometheus", right),
                                     "password": asking("prometheus", "x"),
                                     "none": asking(None, right), "rogue": asking("rogue", right)})
            tap.equal(found["both"], ("up", ""))
            is_down(found["password"], "401")
            is_shut_out(found["none"])
            is_shut_out(found["rogue"])
            for cert in (None, "rogue"):
                tap.equal(by_curl(cert, right), (False, 0), f"curl with {cert}")
            tap.equal(by_curl("prometheus", "x"), (True, 401), "curl, a wrong password")
            tap.equal(by_curl("prometheus", right), (True, 200), "curl")


t.main()
