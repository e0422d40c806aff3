"""Certificates of an authority that a test makes, and the server's configuration for them."""

import ssl
import subprocess

SECONDS = 60
NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
DAYS = 2


def openssl(*words):
    """Returns what it writes."""
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, timeout=SECONDS, check=True).stdout


class Pair:
    """A certificate and its key: paths of PEM files."""

    def __init__(self, folder):
        folder.mkdir()
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"

    def words(self):
        """The options by which octet's verbs show it."""
        return ["--tls-certificate", self.certificate, "--tls-key", self.key]

    def der(self):
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text())

    def not_after(self):
        """Returns the last second of the certificate, since the epoch."""
        told = openssl("x509", "-in", self.certificate, "-noout", "-enddate").strip()
        return ssl.cert_time_to_seconds(told.removeprefix("notAfter="))


class Authority:
    """An authority of its own; `certificate` is the path of a PEM file."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        self.certificate, self.key = folder / "ca.crt", folder / "ca.key"
        openssl("req", "-x509", *EC, "-nodes", "-days", DAYS, "-subj", f"/CN={folder.name}", "-keyout", self.key, "-out", self.certificate)

    def issue(self, name, days=DAYS):
        """Returns a Pair for localhost."""
        pair = Pair(self.folder / name)
        request = self.folder / f"{name}.csr"
        openssl("req", "-new", *EC, "-nodes", "-subj", f"/CN={name}", "-addext", NAMES, "-keyout", pair.key, "-out", request)
        signer = ["-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial"]
        openssl("x509", "-req", "-in", request, *signer, "-copy_extensions", "copy", "-days", days, "-out", pair.certificate)
        return pair


def listen(pair, client_ca=None):
    """Returns the keys of a server's section `listen` for this certificate."""
    more = f', client_ca: "{client_ca.certificate}"' if client_ca else ""
    return f'grpc_tls: {{certificate: "{pair.certificate}", key: "{pair.key}"{more}}}'
