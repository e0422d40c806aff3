#!/usr/bin/env python3
"""Ends servers that are busy, and starts servers that cannot serve.

usage: shutdown_test.py OCTET
"""

import concurrent.futures
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import grpc
import server_test_case
import small_models
from server_test_case import ServerTestCase, octet
from small_models import Caller

CLIENTS = 16
PORTS = {"--grpc-port": 0, "--http-port": 0, "--metrics-port": 0}
# Asks once, and keeps its connection.
SLEEPER = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from small_models import Caller
caller = Caller(sys.argv[1])
caller.ask("net")
print("asked", flush=True)
time.sleep(100)
"""
NEVER_ACCEPTED = ("shutting down", "draining", "connect", "refused", "GOAWAY")


def serve_command(*words, ports=None):
    """Returns the command of a server on free loopback ports but for those given."""
    options = [str(word) for option in (PORTS | (ports or {})).items() for word in option]
    return [octet(), "serve", "--address", "127.0.0.1", *options, *map(str, words)]


def serve_briefly(*words, ports=None):
    """Returns the finished process of a server that is expected to end by itself."""
    command = serve_command(*words, ports=ports)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class DrainTest(ServerTestCase):
    def ask_until_refused(self, target, counts, lock):
        """Asks without end; returns what ended it."""
        caller = Caller(target)
        while True:
            try:
                answer = caller.ask("heavy")
            except grpc.RpcError as error:
                return error
            self.assertEqual(answer, 3)
            with lock:
                counts["answered"] += 1

    def test_sigterm_under_load_answers_everything_accepted(self):
        small_models.write_heavy(self.models / "heavy/1/fp32.onnx", 3)
        running = self.start()
        counts, lock = {"answered": 0}, threading.Lock()
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            runs = [pool.submit(self.ask_until_refused, running.grpc, counts, lock) for _ in range(CLIENTS)]
            while counts["answered"] < 20 * CLIENTS and not any(run.done() for run in runs):
                time.sleep(0.01)
            running.stop()
            ends = [run.result(60) for run in runs]
        self.assertGreaterEqual(counts["answered"], 20 * CLIENTS)
        for error in ends:
            # A call that was accepted and lost ends otherwise: its connection is closed under it.
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE, error)
            self.assertTrue(any(text in error.details() for text in NEVER_ACCEPTED), error.details())
        log = running.log.read_text()
        self.assertIn("event=stopping", log)
        self.assertIn("event=stopped all_answered=true", log)

    def is_ready(self, running):
        try:
            with urllib.request.urlopen(f"http://{running.http}/v2/health/ready", timeout=10) as page:
                return page.status == 200
        except urllib.error.HTTPError as error:
            self.assertEqual(error.code, 503)
            return False

    def connection_header(self, connection):
        connection.request("GET", "/v2")
        with connection.getresponse() as answer:
            self.assertEqual(answer.status, 200)
            answer.read()
            return answer.getheader("Connection")

    def test_with_a_delay_it_is_not_ready_and_answers_on(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        running = self.start("shutdown: {delay_seconds: 6}\n")
        caller = Caller(running.grpc)
        self.assertTrue(self.is_ready(running))
        self.wait_for_metric(running, "octet_server_ready 1")
        kept = http.client.HTTPConnection(running.http, timeout=10)
        self.addCleanup(kept.close)
        self.assertNotEqual(self.connection_header(kept), "close")
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        while self.is_ready(running):
            self.assertLess(time.monotonic() - began, 3)
        self.assertEqual(self.connection_header(kept), "close", "its next request may go to another server")
        self.assertIsNone(kept.sock)
        self.assertEqual(self.connection_header(kept), "close", "and it may come back")
        self.wait_for_metric(running, "octet_server_ready 0")
        while time.monotonic() - began < 3:
            self.assertEqual(caller.ask("net"), 2)
        self.assertEqual(running.process.wait(20), 0)
        self.assertGreaterEqual(time.monotonic() - began, 6)
        self.assertIn("event=stopped all_answered=true", running.log.read_text())

    def test_who_is_asleep_is_not_waited_for(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        running = self.start("shutdown: {grace_seconds: 60}\n")
        client = subprocess.Popen([sys.executable, "-c", SLEEPER, running.grpc], stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(client.stdout.readline(), "asked\n")
            client.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            running.stop()
            self.assertLess(time.monotonic() - began, 30)
        finally:
            client.kill()
            client.wait()
            client.stdout.close()
        self.assertIn("event=stopped all_answered=true", running.log.read_text())

    def test_a_batch_that_waits_for_more_runs_at_once(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        (self.models / "net/model.yaml").write_text("batching: {max_batch: 8, max_queue_delay_us: 25000000}\n")
        running = self.start("shutdown: {grace_seconds: 10}\n")
        caller = Caller(running.grpc)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(caller.ask, "net", timeout=60)
            self.wait_for_metric(running, 'octet_queue_depth{model="net",version="1",precision="fp32"} 1')
            running.stop()
            self.assertEqual(asked.result(10), 2)

    def test_what_is_left_after_the_grace_time_is_refused(self):
        small_models.write_slow(self.models / "slow/1/fp32.onnx", 8)
        (self.models / "slow/model.yaml").write_text("batching: {max_batch: 1}\n")
        running = self.start("shutdown: {grace_seconds: 0}\nworkers: {count: 1, threads: 1}\n")
        caller = Caller(running.grpc)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(caller.ask, "slow") for _ in range(2)]
            self.wait_for_metric(running, 'octet_queue_depth{model="slow",version="1",precision="fp32"} 1')
            running.process.send_signal(signal.SIGTERM)
            self.assertEqual(running.process.wait(60), 1)
            codes = {run.exception(10).code() for run in asked if run.exception(10)}
        self.assertTrue(codes and codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}, codes)
        self.assertIn("event=drain_timed_out", running.log.read_text())

    def test_a_second_signal_ends_it_at_once(self):
        small_models.write_slow(self.models / "slow/1/fp32.onnx", 30)
        (self.models / "slow/model.yaml").write_text("batching: {max_batch: 1}\n")
        running = self.start("workers: {count: 1, threads: 1}\n")
        caller = Caller(running.grpc)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(caller.ask, "slow")
            self.wait_for_metric(running, 'octet_in_flight_requests{model="slow",version="1",precision="fp32"} 1')
            running.process.send_signal(signal.SIGINT)
            self.wait_for_log(running, "event=stopping signal=SIGINT")
            running.process.send_signal(signal.SIGINT)
            self.assertEqual(running.process.wait(20), 1)
            self.assertIsInstance(asked.exception(10), grpc.RpcError)
        self.assertIn("event=aborted", running.log.read_text())

    def wait_for_log(self, running, text):
        until = time.monotonic() + 20
        while text not in running.log.read_text():
            self.assertLess(time.monotonic(), until, text)
            time.sleep(0.02)

    def test_captures_are_written_before_anybody_is_waited_for(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        (self.models / "net/model.yaml").write_text("capture: {percent: 100}\n")
        captures = self.folder / "captures"
        captures.mkdir()
        configuration = f"shutdown: {{grace_seconds: 20}}\ncapture: {{path: '{captures}', write_seconds: 3600}}\n"
        running = self.start(configuration)
        caller = Caller(running.grpc)
        self.assertEqual(caller.ask("net"), 2)
        # Behind the answer.
        self.wait_for_metric(running, 'octet_captured_requests_total{model="net",version="1"} 1')
        never = threading.Event()
        # A call whose request does not come: the server waits for it as long as it may.
        call = caller.channel.stream_unary("/inference.GRPCInferenceService/ModelInfer").future(iter(never.wait, True))
        # Of a connection's calls it has read the first when it answers a later one.
        caller.index()
        running.process.send_signal(signal.SIGTERM)
        self.wait_for_capture(captures)
        self.assertIsNone(running.process.poll(), "it still waits")
        never.set()
        call.cancel()
        self.assertEqual(running.process.wait(60), 0)

    def test_sigterm_while_models_load_ends_it(self):
        for i in range(40):
            small_models.write_heavy(self.models / f"net{i}/1/fp32.onnx", 1)
        command = serve_command("--repository", self.models)
        # Its log waits for this reader long before the last model.
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pipesize=4096) as process:
            for line in process.stderr:
                if "event=variant_loaded" in line:
                    break
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            self.assertEqual(process.wait(60), 0)
        self.assertNotIn("event=serving", rest)


class HealthTest(ServerTestCase):
    def get(self, running, path):
        try:
            with urllib.request.urlopen(f"http://{running.http}{path}", timeout=10) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def test_health_over_http(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        running = self.start()
        self.assertEqual(self.get(running, "/v2/health/live"), (200, '{"live":true}'))
        self.assertEqual(self.get(running, "/v2/health/ready"), (200, '{"ready":true}'))
        code, body = self.get(running, "/nothing")
        self.assertEqual(code, 404)
        self.assertIn('"error"', body)
        running.stop()


class CannotServeTest(ServerTestCase):
    def test_a_port_in_use_is_named(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for option in ("--grpc-port", "--http-port", "--metrics-port"):
                with self.subTest(option):
                    done = serve_briefly("--repository", self.models, ports={option: port})
                    self.assertEqual(done.returncode, 1, done.stderr)
                    self.assertIn(f"127.0.0.1:{port}", done.stderr)

    def test_two_servers_do_not_share_a_port(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        running = self.start()
        for option, address in (("--grpc-port", running.grpc), ("--http-port", running.http), ("--metrics-port", running.metrics)):
            with self.subTest(option):
                done = serve_briefly("--repository", self.models, ports={option: address.rpartition(":")[2]})
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(address, done.stderr)
        running.stop()

    def test_no_repository(self):
        done = serve_briefly("--repository", self.folder / "nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nowhere", done.stderr)
        done = serve_briefly()
        self.assertEqual(done.returncode, 1)
        self.assertIn("--repository", done.stderr)

    def test_strict_refuses_a_broken_model(self):
        (self.models / "bad/1").mkdir(parents=True)
        (self.models / "bad/1/fp32.onnx").write_bytes(b"\xff" * 100)
        done = serve_briefly("--repository", self.models, "--strict")
        self.assertEqual(done.returncode, 1)
        self.assertIn("bad/1/fp32.onnx", done.stderr)


class CheckConfigTest(ServerTestCase):
    def check(self, config="", *words):
        file = self.folder / "octet.yaml"
        file.write_text(config)
        command = [octet(), "serve", "--check-config", "--config", file, "--repository", self.models, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_a_valid_configuration(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        (self.models / "net/model.yaml").write_text("batching: {max_batch: 4}\n")
        done = self.check("listen: {grpc_port: 1}\n")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_every_mistake_has_its_place(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        done = self.check("listen:\n  grpc_prot: 1\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("octet.yaml:2:3: listen.grpc_prot", done.stderr)
        (self.models / "net/model.yaml").write_text("batching:\n  max_batch: zero\n")
        (self.models / "other").mkdir()
        (self.models / "other/model.yaml").write_text("colour: red\n")
        done = self.check()
        self.assertEqual(done.returncode, 1)
        self.assertIn("net/model.yaml:2:14: batching.max_batch", done.stderr)
        self.assertIn("other/model.yaml:1:1: colour", done.stderr)

    def test_a_file_that_model_yaml_names_must_exist(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 2)
        (self.models / "net/model.yaml").write_text("routing: {split: {fp32: 1, int8: 1}}\n")
        done = self.check()
        self.assertEqual(done.returncode, 1)
        self.assertIn("net/1/int8.onnx", done.stderr)

    def test_an_unknown_pass_is_refused(self):
        done = self.check("engine: {disabled_passes: [no_such_pass]}\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no_such_pass", done.stderr)

    def test_the_command_line_wins_over_the_file(self):
        done = self.check("repository: {path: /nonexistent}\n")
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    server_test_case.main()
