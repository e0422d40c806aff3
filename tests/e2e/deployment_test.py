#!/usr/bin/env python3
"""Holds deploy/kubernetes, deploy/systemd and deploy/haproxy against the program: its options, ports, probes and grace.

usage: deployment_test.py OCTET
"""

import configparser
import contextlib
import json
import pathlib
import re
import shlex
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

import grpc
import served_glyphs
import served_models
import yaml
from served_glyphs import Served
from stateful_models import write_sum

OCTET = ""
DEPLOY = served_models.ROOT / "deploy"
DEFAULTS = yaml.safe_load((served_models.ROOT / "config/octet.yaml").read_text())
SHUTDOWN = DEFAULTS["shutdown"]
ALONE = "routing: {default: fp32}\n"
SEQUENCES = [f"sequence-{number}" for number in range(12)]
STEPS = 5


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
        shutdown = yaml.safe_load(self.config)["shutdown"]
        self.assertGreaterEqual(shutdown["delay_seconds"], 5)
        self.assertGreater(self.pod["terminationGracePeriodSeconds"], shutdown["delay_seconds"] + shutdown["grace_seconds"])

    def test_what_clients_send_at_once_leaves_memory_for_models(self):
        config = yaml.safe_load(self.config)
        memory = self.container["resources"]["limits"]["memory"]
        self.assertRegex(memory, r"^\d+Gi$")
        limits = {**DEFAULTS["limits"], **config["limits"]}
        threads = {**DEFAULTS["listen"], **config.get("listen", {})}["http_threads"]
        # A body of JSON, "1," and so on, and its tensors of FP32.
        over_http = threads * 3 * limits["max_message_bytes"]
        self.assertGreater(limits["max_receive_bytes"], 0, "0 is 1 GiB and more")
        self.assertLessEqual(limits["max_receive_bytes"] + over_http, (int(memory[:-2]) << 30) * 5 // 8)

    def test_nodes_that_cannot_run_the_image_are_left_out(self):
        self.assertEqual(self.pod["nodeSelector"], {"kubernetes.io/arch": "amd64"})

    def test_mounts_have_volumes(self):
        self.assertEqual({mount["name"] for mount in self.container["volumeMounts"]}, {volume["name"] for volume in self.pod["volumes"]})

    def test_an_image_that_the_node_has_is_taken(self):
        # For the tag `latest` the policy would be Always otherwise.
        self.assertEqual((self.container["image"], self.container["imagePullPolicy"]), ("octet:latest", "IfNotPresent"))

    def test_the_readme_says_what_the_claim_is(self):
        (claim,) = [volume["persistentVolumeClaim"]["claimName"] for volume in self.pod["volumes"] if "persistentVolumeClaim" in volume]
        section = (DEPLOY / "README.md").read_text().partition("## Kubernetes\n")[2].partition("\n## ")[0]
        self.assertIn(f"claim `{claim}`", section)
        self.assertRegex(section, rf"\buser {self.pod['securityContext']['runAsUser']}\b")
        self.assertGreater(self.by_kind["Deployment"]["spec"]["replicas"], 1)
        self.assertIn("ReadOnlyMany", section)

    def test_probes_are_answered(self):
        with Served(OCTET, ALONE) as served:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                request = self.container[probe]["httpGet"]
                self.assertEqual(request["port"], "http")
                with urllib.request.urlopen(f"http://{served.server.http}{request['path']}", timeout=10) as answer:
                    self.assertEqual(answer.status, 200)


class SystemdTest(unittest.TestCase):
    def setUp(self):
        self.unit = configparser.ConfigParser(strict=True, interpolation=None)
        self.unit.optionxform = str
        self.unit.read(DEPLOY / "systemd/octet.service")

    def test_an_installation_has_what_the_unit_names(self):
        with tempfile.TemporaryDirectory() as root:
            command = ["cmake", "--install", pathlib.Path(OCTET).parent, "--prefix", f"{root}/usr"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            program = shlex.split(self.unit["Service"]["ExecStart"])[0]
            documentation = self.unit["Unit"]["Documentation"].removeprefix("file://")
            for path in (program, documentation, "/usr/lib/systemd/system/octet.service", "/usr/share/doc/octet/octet.yaml"):
                self.assertTrue(pathlib.Path(root + path).is_file(), path)

    def state_folders(self):
        return {f"/var/lib/{name}" for name in self.unit["Service"]["StateDirectory"].split()}

    def test_the_steps_build_with_the_packages_that_they_install(self):
        readme = (DEPLOY / "README.md").read_text()
        (packages,) = re.findall(r"(?m)^ {4}sed 's/#\.\*//' (\S+) \| xargs apt-get install -y --no-install-recommends$", readme)
        self.assertEqual(served_models.ROOT / packages, DEPLOY / "toolbox/packages/build")
        (configure,) = re.findall(r"(?m)^ {4}(cmake -B .*)$", readme)
        words = shlex.split(configure)
        folder = words[words.index("-B") + 1]
        for step in (f"cmake --build {folder}", f"cmake --install {folder} --prefix /usr"):
            self.assertRegex(readme, rf"(?m)^ {{4}}{step}$")
        with tempfile.TemporaryDirectory() as build:
            words[words.index("-B") + 1] = build
            # As on a machine that lacks what only the tests need.
            words.append("-DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON")
            done = subprocess.run(words, cwd=served_models.ROOT, capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            made = pathlib.Path(build, "build.ninja").read_text()
        self.assertRegex(made, r"(?m)^build octet: ")
        self.assertNotIn("unit_tests", made)

    def test_another_kind_of_cpu_is_named_before_anything_is_compiled(self):
        with tempfile.TemporaryDirectory() as build:
            other = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"]
            command = ["cmake", "-B", build, "-G", "Ninja", *other, "-DOCTET_TESTS=OFF"]
            done = subprocess.run(command, cwd=served_models.ROOT, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("Octet runs on x86-64 alone, got aarch64", done.stderr)

    def test_captures_have_a_folder_that_the_service_may_write(self):
        (shown,) = re.findall(r"`(capture: \{path: .*?\})`", (DEPLOY / "README.md").read_text())
        self.assertIn(yaml.safe_load(shown)["capture"]["path"], self.state_folders())
        done = check_configuration(shlex.split(self.unit["Service"]["ExecStart"])[1:], f"{shown}\n")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_steps_name_a_repository_that_the_service_makes(self):
        (step,) = re.findall(r"(?m)^ {4}(sed -i .*) /etc/octet/octet\.yaml$", (DEPLOY / "README.md").read_text())
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "octet.yaml")
            file.write_text((served_models.ROOT / "config/octet.yaml").read_text())
            subprocess.run([*shlex.split(step), file], timeout=60, check=True)
            changed = yaml.safe_load(file.read_text())
        path = changed["repository"]["path"]
        self.assertIn(path, self.state_folders())
        self.assertEqual(changed, {**DEFAULTS, "repository": {**DEFAULTS["repository"], "path": path, "poll_seconds": 10}})

    def test_the_unit_fits_the_program(self):
        service = self.unit["Service"]
        self.assertGreater(int(service["TimeoutStopSec"]), SHUTDOWN["delay_seconds"] + SHUTDOWN["grace_seconds"])
        # What sighup_test.py sends.
        self.assertEqual(service["ExecReload"], "/bin/kill -HUP $MAINPID")
        # Nothing before it that one model's mistake could fail, and with it the service of all others.
        self.assertNotIn("ExecStartPre", service)
        program, *words = shlex.split(service["ExecStart"])
        self.assertEqual(program, "/usr/bin/octet")
        done = check_configuration(words, "")
        self.assertEqual(done.returncode, 0, done.stderr)


def retry_policy():
    """Returns the service config for clients that deploy/README.md shows."""
    (shown,) = re.findall(r"^ {4}(\{.*retryPolicy.*\})$", (DEPLOY / "README.md").read_text(), flags=re.MULTILINE)
    return shown


def sum_request(name, step):
    """Returns the request of a sequence's step to the model that adds up: 1, 2, 4, ..."""
    request = served_glyphs.messages.ModelInferRequest(model_name="sum")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<f", 2**step))
    request.parameters["sequence_id"].string_param = name
    request.parameters["sequence_start"].bool_param = step == 0
    request.parameters["sequence_end"].bool_param = step == STEPS - 1
    return request


def total_of(response):
    names = [output.name for output in response.outputs]
    return struct.unpack("<f", response.raw_output_contents[names.index("y")])[0]


class Haproxy:
    """The shipped configuration in front of servers, names and ports replaced by loopback ones.

    grpc and http are its addresses, HOST:PORT; `interval` takes the place of that between two probes; `change` makes of its text
    what is started.
    """

    def __init__(self, folder, servers, interval="500ms", change=lambda text: text):
        text = change((DEPLOY / "haproxy/haproxy.cfg").read_text()).replace("inter 500ms", f"inter {interval}")
        for number, served in enumerate(servers, start=1):
            port = served.server.http.rsplit(":", 1)[1]
            text = re.sub(rf"octet{number}:8001$", f"{served.server.grpc} port {port}", text, flags=re.MULTILINE)
            text = text.replace(f"octet{number}:8001", served.server.grpc).replace(f"octet{number}:8000", served.server.http)
        assert not re.search(r"octet\d:", text), text
        # Bound here and inherited, so that nobody takes the ports meanwhile.
        self.listening = [socket.socket(), socket.socket()]
        for port, each in zip((8001, 8000), self.listening, strict=True):
            each.bind(("127.0.0.1", 0))
            text = text.replace(f"bind :{port}", f"bind fd@{each.fileno()}")
        self.grpc, self.http = (f"127.0.0.1:{each.getsockname()[1]}" for each in self.listening)
        self.file = pathlib.Path(folder) / "haproxy.cfg"
        self.file.write_text(text)

    def _start(self, *words, **options):
        inherited = [each.fileno() for each in self.listening]
        return subprocess.Popen(["haproxy", *words, "-f", self.file], pass_fds=inherited, **options)

    def check(self):
        """Returns the exit code of haproxy's own check of the configuration, and what it says."""
        process = self._start("-c", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said, _ = process.communicate(timeout=30)
        return process.returncode, said

    def __enter__(self):
        self.process = self._start("-db", stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, kind, error, trace):
        self.process.terminate()
        self.process.wait(timeout=20)
        for each in self.listening:
            each.close()


@contextlib.contextmanager
def open_stub(proxy, *options):
    """Yields a stub over one connection to the balancer."""
    with grpc.insecure_channel(proxy.grpc, options) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        yield served_glyphs.services.GRPCInferenceServiceStub(channel)


class HaproxyTest(unittest.TestCase):
    """Two servers behind the shipped configuration."""

    def start(self, interval="500ms", configuration=""):
        """Returns the balancer and both servers, which end with the test."""
        servers = [self.enterContext(Served(OCTET, ALONE, configuration=configuration)) for _ in range(2)]
        return self.enterContext(Haproxy(self.enterContext(tempfile.TemporaryDirectory()), servers, interval)), servers

    def test_names_that_do_not_resolve_do_not_keep_it_from_starting(self):
        command = ["haproxy", "-c", "-f", DEPLOY / "haproxy/haproxy.cfg"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_server_goes_and_no_request_is_lost(self):
        proxy, (first, _) = self.start()
        status, said = proxy.check()
        self.assertEqual(status, 0, said)
        self.assertNotRegex(said, "(?i)warning")
        # What a server refuses because it goes, until the balancer has seen it, gRPC's own clients send again.
        self.end_one_under_load(first, self.enterContext(open_stub(proxy, ("grpc.service_config", retry_policy()))))

    def test_a_server_that_says_it_goes_costs_clients_without_retries_nothing(self):
        (shown,) = re.findall(r"`(shutdown: \{delay_seconds: \d+\})`", (DEPLOY / "README.md").read_text())
        proxy, (first, _) = self.start(configuration=f"{shown}\n")
        self.end_one_under_load(first, self.enterContext(open_stub(proxy, ("grpc.enable_retries", 0))))

    def end_one_under_load(self, first, stub):
        """Asks in four threads, ends the first of the two servers, and holds that no request failed."""
        answered, failures, stop = [], [], threading.Event()

        def ask(number):
            while not stop.is_set():
                try:
                    stub.ModelInfer(first.request(number), timeout=20)
                    answered.append(time.monotonic())
                except grpc.RpcError as error:
                    failures.append(f"{error.code()}: {error.details()}")
                number += 4

        threads = [threading.Thread(target=ask, args=[number]) for number in range(4)]
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

    def test_a_server_that_ended_costs_no_request_that_comes_after(self):
        # Without a probe that would say so, and without a client that tries again.
        proxy, (first, second) = self.start(interval="1h")
        stub = self.enterContext(open_stub(proxy))
        for number in range(8):
            stub.ModelInfer(first.request(number), timeout=20)
        for served in (first, second):
            self.assertGreater(served.variant("octet_rows_total", "fp32"), 0)
        first.server.process.terminate()
        first.server.process.wait(timeout=20)
        for number in range(8):
            stub.ModelInfer(first.request(number), timeout=20)


class HaproxyTlsTest(unittest.TestCase):
    """The lines of deploy/README.md for clients from outside, with a certificate of their own authority."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=localhost", "-addext", names, "-keyout", cls.folder / "key.pem", "-out", cls.folder / "cert.pem"]
        subprocess.run(command, capture_output=True, timeout=60, check=True)
        (cls.folder / "octet.pem").write_bytes((cls.folder / "cert.pem").read_bytes() + (cls.folder / "key.pem").read_bytes())
        servers = [cls.enterClassContext(Served(OCTET, ALONE)) for _ in range(2)]
        cls.proxy = Haproxy(cls.folder, servers, change=cls.with_the_lines_of_the_readme)
        status, said = cls.proxy.check()
        assert status == 0 and "warning" not in said.lower(), said
        cls.enterClassContext(cls.proxy)
        cls.wait_until_it_listens()
        cls.request = servers[0].request(0)
        cls.context = ssl.create_default_context(cafile=cls.folder / "cert.pem")

    @classmethod
    def wait_until_it_listens(cls):
        host, port = cls.proxy.http.split(":")
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=20).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < until, "haproxy does not listen"
                time.sleep(0.02)

    @classmethod
    def with_the_lines_of_the_readme(cls, text):
        section = (DEPLOY / "README.md").read_text().partition("## Who may call\n")[2]
        for bind in ("    bind :8001 proto h2\n", "    bind :8000\n"):
            (lines,) = re.findall(rf"(?m)^{bind.split(' proto')[0].rstrip()} ssl .*\n {{4}}http-request deny .*\n", section)
            assert text.count(bind) == 1
            text = text.replace(bind, lines)
        return text.replace("/etc/haproxy/octet.pem", str(cls.folder / "octet.pem"))

    def ask(self, method, path):
        """Returns the status of a call over HTTP."""
        request = urllib.request.Request(f"https://{self.proxy.http}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=20, context=self.context) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def test_grpc_clients_may_infer_and_no_more(self):
        credentials = grpc.ssl_channel_credentials((self.folder / "cert.pem").read_bytes())
        options = [("grpc.ssl_target_name_override", "localhost")]
        with grpc.secure_channel(self.proxy.grpc, credentials, options) as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
            stub = served_glyphs.services.GRPCInferenceServiceStub(channel)
            self.assertTrue(stub.ModelInfer(self.request, timeout=20).outputs)
            messages = served_glyphs.messages
            for call, request in (
                (stub.RepositoryIndex, messages.RepositoryIndexRequest()),
                (stub.RepositoryModelUnload, messages.RepositoryModelUnloadRequest(model_name="glyphs")),
                (stub.SystemSharedMemoryStatus, messages.SystemSharedMemoryStatusRequest()),
                (stub.TraceSetting, messages.TraceSettingRequest()),
                (stub.LogSettings, messages.LogSettingsRequest()),
            ):
                with self.assertRaises(grpc.RpcError) as refused:
                    call(request, timeout=20)
                self.assertEqual(refused.exception.code(), grpc.StatusCode.PERMISSION_DENIED)

    def test_http_clients_may_ask_and_no_more(self):
        for path in ("/v2/health/ready", "/v2/models/glyphs"):
            self.assertEqual(self.ask("GET", path), 200, path)
        for path in ("/v2/repository/index", "/v2/repository/models/glyphs/unload", "/v2/%72epository/models/glyphs/unload"):
            self.assertEqual(self.ask("POST", path), 403, path)
        for path in ("/v2/logging", "/v2/trace/setting", "/v2/models/glyphs/trace/setting", "/v2/systemsharedmemory/status"):
            self.assertEqual(self.ask("GET", path), 403, path)
        # Octet reads %uXXXX as one character, and leaves alone what is no escape; haproxy decodes no such path.
        for path in ("/v2/%u006cogging", "/v2/trace/settin%u0067", "/v2/systemsharedmemory/region/%zz/status"):
            self.assertEqual(self.ask("GET", path), 403, path)


class HaproxySequencesTest(unittest.TestCase):
    """Two servers behind the shipped configuration, with a model that adds up a sequence's inputs."""

    @classmethod
    def setUpClass(cls):
        def add_model(version):
            write_sum(version.parents[1] / "sum/1/fp32.onnx")

        cls.servers = [cls.enterClassContext(Served(OCTET, ALONE, add_model)) for _ in range(2)]
        cls.proxy = cls.enterClassContext(Haproxy(cls.enterClassContext(tempfile.TemporaryDirectory()), cls.servers))
        cls.stub = cls.enterClassContext(open_stub(cls.proxy))

    def started(self):
        """Returns how many sequences each server has seen begin."""
        name = "octet_sequences_started_total", 'model="sum",version="1",precision="fp32"'
        return [served.metrics()[name] for served in self.servers]

    def setUp(self):
        self.before = self.started()

    def assert_both_have_sequences(self):
        for now, before in zip(self.started(), self.before, strict=True):
            self.assertGreater(now, before)

    def test_the_header_keeps_a_sequence_in_one_server(self):
        for step in range(STEPS):
            for name in SEQUENCES:
                answer = self.stub.ModelInfer(sum_request(name, step), metadata=[("x-octet-sequence", name)], timeout=20)
                self.assertEqual(total_of(answer), 2 ** (step + 1) - 1, name)
        self.assert_both_have_sequences()

    def test_the_header_keeps_a_sequence_in_one_server_over_http(self):
        for step in range(STEPS):
            for name in SEQUENCES:
                tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [2**step]}
                given = {"sequence_id": name, "sequence_start": step == 0, "sequence_end": step == STEPS - 1}
                body = json.dumps({"inputs": [tensor], "parameters": given}).encode()
                headers = {"x-octet-sequence": name}
                request = urllib.request.Request(f"http://{self.proxy.http}/v2/models/sum/infer", data=body, headers=headers)
                with urllib.request.urlopen(request, timeout=20) as answer:
                    (total,) = [output for output in json.load(answer)["outputs"] if output["name"] == "y"]
                self.assertEqual(total["data"], [2 ** (step + 1) - 1], name)
        self.assert_both_have_sequences()

    def test_a_stream_keeps_a_sequence_in_one_server(self):
        for name in SEQUENCES:
            answers = list(self.stub.ModelStreamInfer(iter([sum_request(name, step) for step in range(STEPS)]), timeout=20))
            self.assertEqual([total_of(answer.infer_response) for answer in answers], [2 ** (step + 1) - 1 for step in range(STEPS)])
        self.assert_both_have_sequences()

    def test_without_either_a_sequence_is_torn_apart(self):
        with self.assertRaises(grpc.RpcError) as refused:
            for name in SEQUENCES:
                for step in range(STEPS):
                    self.stub.ModelInfer(sum_request(name, step), timeout=20)
        self.assertIn("START flag", refused.exception.details())


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
