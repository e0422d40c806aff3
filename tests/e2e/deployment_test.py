#!/usr/bin/env python3
"""Holds deploy/kubernetes, deploy/systemd and deploy/haproxy against the program: its options, ports, probes and grace.

usage: deployment_test.py OCTET
"""

import configparser
import pathlib
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

import grpc
import served_glyphs
import served_models
import yaml
from served_glyphs import Served

OCTET = ""
DEPLOY = served_models.ROOT / "deploy"
DEFAULTS = yaml.safe_load((served_models.ROOT / "config/octet.yaml").read_text())
GRACE = DEFAULTS["shutdown"]["grace_seconds"]
ALONE = "routing: {default: fp32}\n"


def setUpModule():
    served_glyphs.set_up()


def tearDownModule():
    served_glyphs.tear_down()


def check_configuration(words, text):
    """Runs `octet serve WORDS --check-config` with the configuration in the place of the file that the words name."""
    with tempfile.TemporaryDirectory() as folder:
        models = pathlib.Path(folder) / "models"
        models.mkdir()
        file = pathlib.Path(folder) / "octet.yaml"
        file.write_text(text)
        words = [str(file) if word == "/etc/octet/octet.yaml" else word for word in words]
        command = [OCTET, *words, "--repository", models, "--check-config"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class KubernetesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        documents = list(yaml.safe_load_all((DEPLOY / "kubernetes/octet.yaml").read_text()))
        cls.by_kind = {document["kind"]: document for document in documents}
        cls.pod = cls.by_kind["Deployment"]["spec"]["template"]["spec"]
        (cls.container,) = cls.pod["containers"]
        cls.config = cls.by_kind["ConfigMap"]["data"]["octet.yaml"]

    def test_the_program_takes_arguments_and_configuration(self):
        done = check_configuration(self.container["args"], self.config)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_ports_are_the_programs(self):
        expected = {name: DEFAULTS["listen"][f"{name}_port"] for name in ("http", "grpc", "metrics")}
        self.assertEqual({port["name"]: port["containerPort"] for port in self.container["ports"]}, expected)
        service = self.by_kind["Service"]["spec"]
        self.assertEqual({port["name"]: port["port"] for port in service["ports"]}, expected)
        self.assertEqual({port["targetPort"] for port in service["ports"]}, set(expected))

    def test_everything_selects_the_same_pods(self):
        labels = self.by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(self.by_kind["Deployment"]["spec"]["selector"]["matchLabels"], labels)
        self.assertEqual(self.by_kind["Service"]["spec"]["selector"], labels)
        self.assertEqual(self.by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"], labels)

    def test_it_is_killed_after_its_grace_only(self):
        grace = yaml.safe_load(self.config)["shutdown"]["grace_seconds"]
        self.assertGreater(self.pod["terminationGracePeriodSeconds"], grace)

    def test_mounts_have_volumes(self):
        self.assertEqual({mount["name"] for mount in self.container["volumeMounts"]}, {volume["name"] for volume in self.pod["volumes"]})

    def test_probes_are_answered(self):
        with Served(OCTET, ALONE) as served:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                request = self.container[probe]["httpGet"]
                self.assertEqual(request["port"], "http")
                with urllib.request.urlopen(f"http://{served.server.http}{request['path']}", timeout=10) as answer:
                    self.assertEqual(answer.status, 200)


class SystemdTest(unittest.TestCase):
    def test_the_unit_fits_the_program(self):
        unit = configparser.ConfigParser(strict=True, interpolation=None)
        unit.optionxform = str
        unit.read(DEPLOY / "systemd/octet.service")
        service = unit["Service"]
        self.assertGreater(int(service["TimeoutStopSec"]), GRACE)
        # Nothing before it that one model's mistake could fail, and with it the service of all others.
        self.assertNotIn("ExecStartPre", service)
        program, *words = shlex.split(service["ExecStart"])
        self.assertEqual(program, "/usr/bin/octet")
        done = check_configuration(words, "")
        self.assertEqual(done.returncode, 0, done.stderr)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HaproxyTest(unittest.TestCase):
    """Two servers behind the shipped configuration, names and ports replaced by loopback ones."""

    def test_a_server_goes_and_comes_back_and_no_request_is_lost(self):
        with Served(OCTET, ALONE) as first, Served(OCTET, ALONE) as second, tempfile.TemporaryDirectory() as folder:
            port = free_port()
            text = (DEPLOY / "haproxy/haproxy.cfg").read_text()
            for name, served in (("octet1", first), ("octet2", second)):
                http = served.server.http.rsplit(":", 1)[1]
                text = text.replace(f"server {name} {name}:8001", f"server {name} {served.server.grpc} port {http}")
                text = text.replace(f"server {name} {name}:8000", f"server {name} {served.server.http}")
            text = text.replace("bind :8001", f"bind 127.0.0.1:{port}").replace("bind :8000", f"bind 127.0.0.1:{free_port()}")
            file = pathlib.Path(folder) / "haproxy.cfg"
            file.write_text(text)
            checked = subprocess.run(["haproxy", "-c", "-f", file], capture_output=True, text=True, timeout=30, check=False)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
            self.assertNotRegex(checked.stdout + checked.stderr, "(?i)warning")
            with subprocess.Popen(["haproxy", "-db", "-f", file], stderr=subprocess.DEVNULL) as proxy:
                try:
                    self._ask_while_the_first_one_drains(port, first)
                finally:
                    proxy.terminate()
                    proxy.wait(timeout=20)

    def _ask_while_the_first_one_drains(self, port, first):
        answered, failures = [], []
        stop = threading.Event()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
            stub = served_glyphs.services.GRPCInferenceServiceStub(channel)

            def ask():
                number = 0
                while not stop.is_set():
                    try:
                        stub.ModelInfer(first.request(number), timeout=20)
                        answered.append(time.monotonic())
                    except grpc.RpcError as error:
                        # What a draining server refuses was not begun: a client tries again, and so does this one.
                        if error.code() != grpc.StatusCode.UNAVAILABLE:
                            failures.append(str(error))
                    number += 1

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            before = len(answered)
            first.server.process.terminate()
            first.server.process.wait(timeout=60)
            gone = time.monotonic()
            time.sleep(2)
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(before, 0)
        self.assertGreater(sum(moment > gone for moment in answered), 20, "the other one answers")
        self.assertRegex(first.server.log.read_text(), r"event=stopped all_answered=true")


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
