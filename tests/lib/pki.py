# SPDX-License-Identifier: Apache-2.0
"""Certificates and passwords for tests, made when they are needed and gone with their folder."""

import os
import subprocess
import warnings

import tap

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import crypt

DAYS = "2"


def bcrypt(password, cost=4, kind="$2b$"):
    """A hash as htpasswd -B makes it; the lowest cost, for tests have many."""
    salt = crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=1 << cost)
    return crypt.crypt(password, kind + salt[4:])


class Pki:
    """A folder with a CA and what it has signed. `path()` names a file in it."""

    def __init__(self, folder):
        self.openssl = tap.require_tool("openssl")
        self.folder = folder
        self.authority("ca")

    def path(self, name):
        return os.path.join(self.folder, name)

    def _run(self, *args):
        made = subprocess.run([self.openssl, *args], cwd=self.folder, capture_output=True,
                              check=False)
        tap.equal(made.returncode, 0, f"openssl {args}: {made.stderr}")

    @staticmethod
    def _key(kind):
        return ["-newkey", "rsa:2048"] if kind == "rsa" else \
            ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]

    def authority(self, name, kind="ec"):
        self._run("req", "-x509", *self._key(kind), "-nodes", "-keyout", f"{name}.key", "-out",
                  f"{name}.crt", "-days", DAYS, "-subj", f"/CN={name}")

    def self_signed(self, name, sans, kind="ec"):
        self._run("req", "-x509", *self._key(kind), "-nodes", "-keyout", f"{name}.key", "-out",
                  f"{name}.crt", "-days", DAYS, "-subj", f"/CN={name}", "-addext",
                  f"subjectAltName={sans}")

    def signed(self, name, sans, kind="ec", ca="ca", usage=None, days=DAYS):
        """NAME.key and NAME.crt, by a CA of this folder."""
        with open(self.path(f"{name}.ext"), "w", encoding="ascii") as f:
            f.write(f"subjectAltName={sans}\n")
            if usage:
                f.write(f"extendedKeyUsage={usage}\n")
        self._run("req", *self._key(kind), "-nodes", "-keyout", f"{name}.key", "-out",
                  f"{name}.csr", "-subj", f"/CN={name}")
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key",
                  "-CAcreateserial", "-days", days, "-extfile", f"{name}.ext", "-out",
                  f"{name}.crt")

    def server(self, name="server", kind="ec"):
        self.signed(name, "DNS:localhost,IP:127.0.0.1", kind)
