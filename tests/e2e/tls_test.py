#!/usr/bin/env python3
"""TLS on gRPC's port: who is answered and who is not, certificates that change under a running server, wrong files, the verbs that call it.

usage: tls_test.py OCTET
"""

import json
import os
import pathlib
import re
import socket
import ssl
import tempfile
import threading
import time
import types
import unittest
import urllib.request

import grpc
import numpy
import octet_process
import onnx
import yaml
from certificates import Authority, listen, openssl
from deployment_test import Haproxy
from octet_process import ROOT, executable, octet
from onnx import TensorProto, helper
from served_client import ServedClient

SECONDS = 60


def write_model(path):
    """Writes y = Relu(x), x float [?, 4]."""
    path.parent.mkdir(parents=True)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


class TlsCase(unittest.TestCase):
    """A server under TLS, with a certificate of `authority`, and clients of it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.authority, cls.stranger = (Authority(cls.folder / name) for name in ("authority", "stranger"))
        cls.own = cls.authority.issue("server")
        cls.client = cls.authority.issue("client")
        cls.served = ServedClient(executable(), {"net": write_model}, listen=cls.listen())
        cls.addClassCleanup(cls.served.close)

    @classmethod
    def listen(cls):
        return listen(cls.own)

    def open(self, trusted, pair=None):
        """Returns a stub of a client that trusts an authority and shows a certificate, if there is one."""
        shown = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(trusted.certificate.read_bytes(), *shown)
        # Connections of their own.
        channel = grpc.secure_channel(self.served.server.grpc, credentials, [("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(channel.close)
        return type(self.served.stub)(channel)

    def ask(self, stub, seconds=20):
        """Asks the model, and looks at what it answers."""
        request = self.served.messages.ModelInferRequest(model_name="net")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        request.raw_input_contents.append(numpy.array([-1, 2, -3, 4], numpy.float32).tobytes())
        answer = stub.ModelInfer(request, timeout=seconds)
        self.assertEqual(numpy.frombuffer(answer.raw_output_contents[0], numpy.float32).tolist(), [0, 2, 0, 4])

    def assert_refused(self, stub):
        with self.assertRaises(grpc.RpcError) as refused:
            self.ask(stub)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE, refused.exception)

    def load(self, *words):
        return octet("load", "--target", self.served.server.grpc, "--model", "net", "--seconds", 0.3, *words)

    def log(self):
        return self.served.server.log.read_text()

    def not_after(self):
        """Returns what the server's metric says of its certificate."""
        (value,) = re.findall(r"(?m)^octet_tls_certificate_not_after_seconds (\S+)$", self.served.server.metrics_page())
        return float(value)


class ServerCertificateTest(TlsCase):
    def test_a_client_that_trusts_the_authority_is_answered(self):
        self.ask(self.open(self.authority))

    def test_a_client_that_trusts_another_one_is_not(self):
        self.assert_refused(self.open(self.stranger))

    def test_others_disturb_nobody(self):
        answered, done = [], threading.Event()
        stub = self.open(self.authority)

        def go_on():
            while not done.is_set():
                self.ask(stub)
                answered.append(time.monotonic())

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            host, port = self.served.server.grpc.split(":")
            for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(1000)):
                stranger = self.enterContext(socket.create_connection((host, int(port)), timeout=20))
                stranger.sendall(sent)
            self.assert_refused(self.served.stub)  # gRPC without TLS
            self.assert_refused(self.open(self.stranger))
            self.ask(self.open(self.authority))
            before = len(answered)
            until = time.monotonic() + SECONDS
            while len(answered) < before + 5 and thread.is_alive():
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)
        finally:
            done.set()
            thread.join()
        self.assertGreaterEqual(len(answered), before + 5)

    def test_http_and_metrics_are_plain(self):
        self.assertEqual(self.served.ask("GET", "/v2/health/ready")[0], 200)
        self.assertIn("octet_server_ready 1", self.served.server.metrics_page())

    def test_it_is_told_how_long_the_certificate_is_valid(self):
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.own.not_after()))
        self.assertIn(f"event=tls_loaded certificate={self.own.certificate} not_after={end} client_certificates=false", self.log())
        self.assertEqual(self.not_after(), self.own.not_after())

    def test_load_and_replay_speak_it(self):
        done = self.load("--tls-ca", self.authority.certificate, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        (row,) = json.loads(done.stdout)
        self.assertEqual(row["errors"], 0)
        self.assertGreater(row["requests"], 0)
        samples = self.folder / "samples.npz"
        numpy.savez(samples, x=numpy.ones((3, 4), numpy.float32))
        words = ["replay", samples, "--server", self.served.server.grpc, "--model", "net"]
        done = octet(*words, "--tls-ca", self.authority.certificate, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["rows"], 3)
        self.assertEqual(octet(*words).returncode, 1)

    def test_load_is_refused_without_the_right_authority(self):
        self.assertEqual(self.load().returncode, 1)
        self.assertEqual(self.load("--tls-ca", self.stranger.certificate).returncode, 1)

    def test_load_names_files_that_it_cannot_use(self):
        trusted = ["--tls-ca", self.authority.certificate]
        for words, text in (
            (["--tls-ca", self.folder / "none.crt"], "none.crt: No such file"),
            (["--tls-ca", self.own.key], f"expected a certificate in PEM, got none: {self.own.key}"),
            ([*trusted, "--tls-certificate", self.client.certificate, "--tls-key", self.own.key], f"the private key in {self.own.key} is not that of"),
        ):
            done = self.load(*words)
            self.assertEqual((done.returncode, done.stdout), (1, ""), words)
            self.assertIn(text, done.stderr)
        for words in (self.client.words(), [*trusted, "--tls-key", self.client.key], [*trusted, "--tls-certificate", self.client.certificate]):
            self.assertEqual(self.load(*words).returncode, 2, words)


class ClientCertificateTest(TlsCase):
    @classmethod
    def listen(cls):
        return listen(cls.own, cls.authority)

    def test_a_client_shows_a_certificate_of_the_authority(self):
        self.ask(self.open(self.authority, self.client))

    def test_one_without_is_refused(self):
        self.assert_refused(self.open(self.authority))

    def test_one_of_another_authority_is_refused(self):
        self.assert_refused(self.open(self.authority, self.stranger.issue("client")))

    def test_load_shows_one(self):
        trusted = ["--tls-ca", self.authority.certificate]
        done = self.load(*trusted, *self.client.words())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.load(*trusted).returncode, 1)


class RotationTest(TlsCase):
    """Files that are replaced as Kubernetes does: ..data leads to another folder from one moment to the next."""

    @classmethod
    def listen(cls):
        cls.secret = cls.folder / "secret"
        cls.secret.mkdir()
        cls.publish(cls.own.certificate, cls.own.key)
        mounted = types.SimpleNamespace(certificate=cls.secret / "tls.crt", key=cls.secret / "tls.key")
        for path in (mounted.certificate, mounted.key):
            path.symlink_to(f"..data/{path.name}")
        return listen(mounted)

    @classmethod
    def publish(cls, certificate, key):
        version = cls.secret / f"..{time.monotonic_ns()}"
        version.mkdir()
        (version / "tls.crt").write_bytes(certificate.read_bytes())
        (version / "tls.key").write_bytes(key.read_bytes())
        (cls.secret / "..new").symlink_to(version.name)
        os.replace(cls.secret / "..new", cls.secret / "..data")

    def shown(self):
        """Returns the certificate that a new connection is shown."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        host, port = self.served.server.grpc.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as plain, context.wrap_socket(plain) as connection:
            return connection.getpeercert(binary_form=True)

    def wait_for(self, condition, what):
        until = time.monotonic() + SECONDS
        while not condition():
            self.assertLess(time.monotonic(), until, what)
            time.sleep(0.05)

    def test_new_files_are_taken_up_under_a_stream_of_requests_and_wrong_ones_are_not(self):
        done, errors, asked = threading.Event(), [], []
        old = self.open(self.authority)
        self.ask(old)

        def go_on():
            while not done.is_set():
                try:
                    self.ask(old)
                    asked.append(True)
                except Exception as error:  # noqa: BLE001
                    errors.append(error)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            self.assertEqual(self.shown(), self.own.der())
            renewed = self.stranger.issue("server", days=7)
            self.publish(renewed.certificate, renewed.key)
            self.wait_for(lambda: self.shown() == renewed.der(), "the new certificate is not shown")
            self.ask(self.open(self.stranger))
            self.assert_refused(self.open(self.authority))
            self.assertEqual(self.log().count("event=tls_loaded"), 2)
            self.assertEqual(self.not_after(), renewed.not_after())
            # A key of another certificate: what there is stays.
            self.publish(self.own.certificate, renewed.key)
            self.wait_for(lambda: "event=tls_refused" in self.log(), "the wrong key is not logged")
            self.assertRegex(self.log(), r"level=warn event=tls_refused certificate=\S+ error=\"the private key in \S+ is not that of the certificate in ")
            self.ask(self.open(self.stranger))
            (self.secret / "..data").unlink()
            self.wait_for(lambda: "cannot open" in self.log(), "missing files are not logged")
            time.sleep(2.5)  # Two looks, and gRPC's own: nothing happens.
            self.ask(self.open(self.stranger))
            self.assertEqual(self.log().count("event=tls_refused"), 2, "once each")
            self.assertEqual(self.not_after(), renewed.not_after(), "of the one that is shown")
            self.publish(self.own.certificate, self.own.key)
            self.wait_for(lambda: self.shown() == self.own.der(), "the last certificate is not shown")
            self.ask(self.open(self.authority))
        finally:
            done.set()
            thread.join()
        self.assertEqual(errors, [], "connections that are there stay")
        self.assertGreater(len(asked), 10)


class WrongFilesTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.authority = Authority(self.folder / "authority")
        self.pair = self.authority.issue("server")
        (self.folder / "models").mkdir()

    def serve(self, text, *words):
        file = self.folder / "octet.yaml"
        file.write_text(text)
        return octet("serve", "--repository", self.folder / "models", "--config", file, *words)

    def test_the_server_does_not_start_and_says_why(self):
        other = self.authority.issue("other")
        locked = self.folder / "locked.key"
        openssl("pkey", "-in", self.pair.key, "-aes256", "-passout", "pass:secret", "-out", locked)
        no_pem = self.folder / "no.pem"
        no_pem.write_bytes(bytes(range(256)))
        certificate, key = self.pair.certificate, self.pair.key
        for wrong_certificate, wrong_key, text in (
            (self.folder / "none.crt", key, f"cannot open {self.folder / 'none.crt'}: No such file or directory"),
            (certificate, self.folder, f"expected a file in PEM, got a folder, a device or a pipe: {self.folder}"),
            (no_pem, key, f"expected a certificate in PEM, got none: {no_pem}"),
            (certificate, no_pem, f"expected a private key in PEM without a passphrase, got none: {no_pem}"),
            (certificate, locked, f"expected a private key in PEM without a passphrase, got none: {locked}"),
            (certificate, other.key, f"the private key in {other.key} is not that of the certificate in {certificate}"),
        ):
            section = f'listen: {{address: 127.0.0.1, grpc_port: 0, http_port: 0, metrics_port: 0, grpc_tls: {{certificate: "{wrong_certificate}", key: "{wrong_key}"}}}}\n'
            for words in ((), ("--check-config",)):
                done = self.serve(section, *words)
                self.assertEqual(done.returncode, 1, text)
                self.assertIn(f"octet: listen.grpc_tls: {text}\n", done.stderr)

    def test_files_that_fit_are_a_valid_configuration(self):
        done = self.serve(f"listen: {{{listen(self.pair, self.authority)}}}\n", "--check-config")
        self.assertEqual(done.returncode, 0, done.stderr)


class DocumentedTest(TlsCase):
    """The configuration and the calls of deploy/README.md."""

    section = (ROOT / "deploy/README.md").read_text().partition("\n## TLS\n")[2].partition("\n## ")[0]

    @classmethod
    def listen(cls):
        (shown,) = re.findall(r"(?m)^ {4}(listen:\n(?: {6}.*\n)+)", cls.section)
        keys = yaml.safe_load(shown)["listen"]
        paths = {"certificate": cls.own.certificate, "key": cls.own.key, "client_ca": cls.authority.certificate}
        assert set(keys["grpc_tls"]) == set(paths)
        keys["grpc_tls"] = {key: str(path) for key, path in paths.items()}
        assert keys.pop("grpc_address") == "0.0.0.0"
        keys["metrics_address"] = "127.0.0.2"
        return json.dumps(keys)[1:-1]

    def test_each_port_is_where_it_is_to_be(self):
        self.assertTrue(self.served.server.http.startswith("127.0.0.1:"))
        self.assertTrue(self.served.server.metrics.startswith("127.0.0.2:"))
        with urllib.request.urlopen(f"http://{self.served.server.metrics}/metrics", timeout=20) as page:
            self.assertEqual(page.status, 200)
        self.ask(self.open(self.authority, self.client))

    def test_the_call_of_load(self):
        (shown,) = re.findall(r"`octet load (--target [^`]*)`", self.section)
        places = {"HOST:8001": self.served.server.grpc, "ca.crt": self.authority.certificate, "client.crt": self.client.certificate}
        places |= {"client.key": self.client.key, "NAME": "net"}
        words = [places.get(word, word) for word in shown.split()]
        self.assertEqual(len(set(places.values()) & set(words)), len(places))
        done = octet("load", *words, "--seconds", 0.3)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_call_of_a_client_in_python(self):
        (shown,) = re.findall(r"`(grpc\.secure_channel\([^`]*\))`", self.section)
        for name, path in (("ca.crt", self.authority.certificate), ("client.key", self.client.key), ("client.crt", self.client.certificate)):
            self.assertEqual(shown.count(f'"{name}"'), 1)
            shown = shown.replace(f'"{name}"', f'"{path}"')
        shown = shown.replace("HOST:8001", self.served.server.grpc)
        channel = eval(shown, {"grpc": grpc, "read": lambda path: pathlib.Path(path).read_bytes()})  # noqa: S307
        self.addCleanup(channel.close)
        self.ask(type(self.served.stub)(channel))

    def test_haproxy_in_front(self):
        (shown,) = re.findall(r"`(ssl verify required ca-file [^`]*)`", self.section)
        pair = self.folder / "client.pem"
        pair.write_bytes(self.client.certificate.read_bytes() + self.client.key.read_bytes())
        for name, path in (("/etc/haproxy/ca.crt", self.authority.certificate), ("/etc/haproxy/client.pem", pair)):
            self.assertEqual(shown.count(name), 1)
            shown = shown.replace(name, str(path))

        def change(text):
            self.assertEqual(text.count("default-server proto h2"), 2)
            return text.replace("default-server proto h2", f"default-server {shown}")

        with Haproxy(self.enterContext(tempfile.TemporaryDirectory()), [self.served] * 2, change=change) as proxy:
            channel = self.enterContext(grpc.insecure_channel(proxy.grpc))
            grpc.channel_ready_future(channel).result(timeout=20)
            stub = type(self.served.stub)(channel)
            # Longer than three probes take: they find the servers ready, over plain HTTP.
            until = time.monotonic() + 1.6
            while time.monotonic() < until:
                self.ask(stub)


if __name__ == "__main__":
    octet_process.main()
