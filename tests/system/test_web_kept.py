# SPDX-License-Identifier: Apache-2.0
"""Connections that are kept open while the web configuration changes: what it asks of new ones it asks
of them, too, at their next request."""

import contextlib
import http.client

import lab
import tap
import web
from web import Web

t = tap.Tests()

TLS = """tls_server_config:
  cert_file: server.crt
  key_file: server.key
"""


def asks(san):
    return TLS + ("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
                  f"  client_allowed_sans: [{san}]\n")


def keep(connection):
    """One that stays the same connection, or says so by an error."""
    connection.connect()
    connection.auto_open = 0
    return contextlib.closing(connection)


def status(connection):
    """The status of one more request, or "closed"."""
    try:
        connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (*web.REFUSED, http.client.HTTPException):
        return "closed"


@t.test("a plain connection ends where TLS is wanted now; one over a Unix socket goes on")
def _():
    with web.place() as made, Web("", made.folder) as daemon, \
            keep(http.client.HTTPConnection("127.0.0.1", daemon.port,
                                              timeout=lab.TIMEOUT_S)) as plain, \
            keep(lab.UnixConnection(daemon.unix, lab.TIMEOUT_S)) as local:
        tap.equal((status(plain), status(local)), (200, 200), "before")
        daemon.write_web(TLS)
        tap.wait_for(lambda: daemon.outcome() == 200, what="TLS")
        tap.equal((status(plain), status(local)), ("closed", 200), "after")


@t.test("a client whose certificate is not good enough any more ends, others go on")
def _():
    with web.place() as made:
        made.signed("one", "DNS:one.example.org")
        made.signed("two", "DNS:two.example.org")
        with Web(asks("one.example.org, two.example.org"), made.folder) as daemon:
            def client(cert):
                return keep(http.client.HTTPSConnection("localhost", daemon.port, timeout=lab.TIMEOUT_S,
                                                        context=daemon.context(cert=cert)))
            with client("one") as one, client("two") as two:
                tap.equal((status(one), status(two)), (200, 200), "before")
                daemon.write_web(asks("two.example.org"))
                tap.wait_for(lambda: daemon.outcome(cert="one") == "refused", what="the change")
                tap.equal((status(one), status(two)), ("closed", 200), "after")
                tap.equal(status(two), 200, "once more")
            # Who was asked for none has none to show.
            daemon.write_web(TLS)
            tap.wait_for(lambda: daemon.outcome() == 200, what="nobody to be asked")
            with client(None) as nobody:
                tap.equal(status(nobody), 200, "before")
                daemon.write_web(asks("two.example.org"))
                tap.wait_for(lambda: daemon.outcome() == "refused", what="the change")
                tap.equal(status(nobody), "closed", "after")
                tap.equal(daemon.outcome(cert="two"), 200)


t.main()
