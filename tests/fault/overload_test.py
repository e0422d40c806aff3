#!/usr/bin/env python3
"""Asks more than a server can answer, with `octet load`.

usage: overload_test.py OCTET
"""

import concurrent.futures
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import server_test_case
from server_test_case import ServerTestCase, octet
from small_models import ROOT, Caller, write_slow

GLYPHS = ROOT / "demo/models/glyphs"
TEST_SET = ROOT / "demo/data/test.npz"
RESOURCE_EXHAUSTED = "8"
# Left to themselves such clients would wait for a minute.
PATIENT = {
    "maxAttempts": 5,
    "initialBackoff": "60s",
    "maxBackoff": "60s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
}


def load(target, *words):
    """Returns what `octet load --json` measures."""
    command = [octet(), "load", "--target", target, *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise AssertionError(f"octet load ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


class OverloadTest(ServerTestCase):
    def setUp(self):
        super().setUp()
        shutil.copytree(GLYPHS, self.models / "glyphs")

    def test_load_measures_every_concurrency(self):
        with (self.models / "glyphs/model.yaml").open("a") as file:
            file.write("routing: {split: {fp32: 1, bf16: 1}}\n")
        shutil.copy(GLYPHS / "1/fp32.onnx", self.models / "glyphs/1/bf16.onnx")
        running = self.start()
        rows = load(running.grpc, "--model", "glyphs", "--data", TEST_SET, "--concurrency", "1,4,16", "--seconds", 1)
        self.assertEqual([row["concurrency"] for row in rows], [1, 4, 16])
        for row in rows:
            self.assertEqual(row["errors"], 0, row)
            self.assertGreater(row["throughput"], 0)
            self.assertGreaterEqual(row["p99_us"], row["p50_us"])
            self.assertEqual({series["precision"] for series in row["series"]}, {"fp32", "bf16"})
        one = re.search(r'^octet_batch_rows_bucket\{.*precision="fp32",le="1"\} (\d+)$', running.metrics_page(), re.MULTILINE)
        every = re.search(r'^octet_batch_rows_count\{.*precision="fp32"\} (\d+)$', running.metrics_page(), re.MULTILINE)
        self.assertGreater(int(every.group(1)), int(one.group(1)), "no batch had more than one row")
        running.stop()

    def test_load_asks_for_a_precision_and_converts_by_a_map(self):
        running = self.start()
        words = ("--model", "glyphs", "--seconds", 0.3, "--data", TEST_SET)
        (row,) = load(running.grpc, *words, "--precision", "fp32", "--map", GLYPHS / "model.yaml", "--rows", 4)
        self.assertEqual((row["errors"], [series["precision"] for series in row["series"]]), (0, ["fp32"]))
        (row,) = load(running.grpc, "--model", "glyphs", "--seconds", 0.3)
        self.assertEqual(row["errors"], 0)
        command = [octet(), "load", "--target", running.grpc, *map(str, words), "--precision", "int8", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("was answered", done.stderr)
        (row,) = json.loads(done.stdout)
        self.assertGreater(row["errors"], 0)
        self.assertTrue(all(error.startswith("5: ") for error in row["errors_by_code"]), row["errors_by_code"])
        running.stop()

    def test_a_server_that_is_not_there(self):
        command = [octet(), "load", "--target", "127.0.0.1:1", "--model", "glyphs", "--seconds", "0.1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stderr.startswith("octet: "), done.stderr)

    def test_who_is_refused_hears_when_to_try_again(self):
        write_slow(self.models / "slow/1/fp32.onnx", 8)
        (self.models / "slow/model.yaml").write_text("batching: {max_batch: 1, max_queue_requests: 1}\n")
        running = self.start("workers: {count: 1, threads: 1}\n")
        plain = Caller(running.grpc)
        service_config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": PATIENT}]})
        patient = Caller(running.grpc, [("grpc.service_config", service_config)])
        plain.ask("slow")  # how long it takes is known now
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            asked = []
            for waiting in range(2):  # one that runs, then one that waits
                asked.append(pool.submit(plain.ask, "slow", timeout=60))
                self.wait_for_metrics(running, waiting + 1, waiting)
            with self.assertRaises(grpc.RpcError) as refused:
                plain.ask("slow")
            self.assertEqual(refused.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            pushback = int(dict(refused.exception.trailing_metadata())["grpc-retry-pushback-ms"])
            self.assertGreater(pushback, 10)
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 1, 1, 1]}
            body = json.dumps({"inputs": [tensor]}).encode()
            with self.assertRaises(urllib.error.HTTPError) as over_http:
                urllib.request.urlopen(f"http://{running.http}/v2/models/slow/infer", data=body, timeout=20)
            with over_http.exception as error:
                self.assertEqual(error.code, 429)
                self.assertGreaterEqual(int(error.headers["Retry-After"]), 1)
            began = time.monotonic()
            asked.append(pool.submit(patient.ask, "slow", timeout=50))
            for each in asked:
                each.result(60)
            self.assertLess(time.monotonic() - began, 45)

    def wait_for_metrics(self, running, in_flight, waiting):
        labels = '{model="slow",version="1",precision="fp32"}'
        wanted = {f"octet_in_flight_requests{labels} {in_flight}", f"octet_queue_depth{labels} {waiting}"}
        until = time.monotonic() + 20
        while not wanted <= set(running.metrics_page().splitlines()):
            self.assertLess(time.monotonic(), until)

    def test_overload_is_refused_and_nothing_else(self):
        with (self.models / "glyphs/model.yaml").open("a") as file:
            file.write("batching: {max_queue_requests: 8}\n")
        running = self.start()
        (row,) = load(running.grpc, "--model", "glyphs", "--data", TEST_SET, "--concurrency", 64, "--seconds", 3)
        self.assertGreater(row["throughput"], 0)
        self.assertGreater(row["errors"], 0)
        for error in row["errors_by_code"]:
            self.assertEqual(error.partition(":")[0], RESOURCE_EXHAUSTED, error)
        print(f"accepted {row['throughput']:.0f}/s, p50 {row['p50_us']:.0f} us, p99 {row['p99_us']:.0f} us, refused {row['errors']}")
        # Whoever is let in waits for 8 requests at most, and what runs: no share of the 3 s that the pressure lasts. Most of them: the
        # machine may have stood still meanwhile.
        self.assertLess(row["p50_us"], 1e6)
        text = running.metrics_page()
        self.assertRegex(text, r'octet_requests_total\{.*code="RESOURCE_EXHAUSTED"\} [1-9]')
        running.stop()

    def durations(self, running):
        """Returns (upper bounds in seconds, how many of the model's requests took at most each) as the server has measured it."""
        found = re.findall(r'^octet_request_duration_seconds_bucket\{model="slow",.*le="(.*)"\} (\d+)$', running.metrics_page(), re.MULTILINE)
        return [float(bound) for bound, _ in found], [int(count) for _, count in found]

    def test_with_a_target_the_surplus_is_refused_and_the_rest_is_on_time(self):
        write_slow(self.models / "slow/1/fp32.onnx", rounds=1, extent=768)
        configuration = self.models / "slow/model.yaml"
        configuration.write_text("batching: {max_batch: 1}\n")
        running = self.start()
        (without,) = load(running.grpc, "--model", "slow", "--concurrency", 48, "--seconds", 3)
        bounds, counts = self.durations(running)
        running.stop()
        self.assertEqual(without["errors"], 0)
        # A bound of the server's histogram, so that who is late can be counted. Half of those without a target take longer than the next.
        target = bounds[next(i for i, count in enumerate(counts) if count > counts[-1] / 2) - 2]
        configuration.write_text(f"batching: {{max_batch: 1, p99_target_ms: {1000 * target}}}\n")
        running = self.start()
        # Not by clients that ask on at once when they are refused: they would keep the processors from those who are let in.
        (row,) = load(running.grpc, "--model", "slow", "--rate", 5 * without["throughput"], "--seconds", 4)
        bounds, counts = self.durations(running)
        text = running.metrics_page()
        running.stop()
        early, on_time, nearly = (counts[bounds.index(target) + i] / counts[-1] for i in (-1, 0, 1))
        print(f"of {1e6 * target:.0f} us: {100 * early:.1f} % in 5/9 of it, {100 * on_time:.1f} % on time, {100 * nearly:.1f} % in 9/5 of it;")
        print(f"answered {row['throughput']:.0f}/s, refused {row['errors']}; without it {without['throughput']:.0f}/s, p50 {without['p50_us']:.0f} us")
        # Who is let in is expected at 3/4 of the target, so that is where the queue stands all the time. Late were, measured: 1 to
        # 7 % where little else ran, up to 32 % beside busy loops that come and go (times change, and those who wait are
        # late until the policy has followed); 72 % where the policy aims at 1.2 times the target, 92 % at 1.5 times, 99 % without.
        self.assertGreater(on_time, 1 / 2)
        self.assertGreater(nearly, 4 / 5)
        # Who refuses more than that keeps every promise, and answers before the time: 99 % where it aims at a third as much.
        self.assertLess(early, 9 / 10)
        self.assertGreater(row["errors"], 0)
        for error in row["errors_by_code"]:
            self.assertEqual(error.partition(":")[0], RESOURCE_EXHAUSTED, error)
        self.assertRegex(text, r'octet_refused_requests_total\{.*reason="p99_target"\} [1-9]')
        self.assertRegex(text, r'octet_batch_expected_seconds\{.*rows="1"\} 0\.[0-9]*[1-9]')

    def test_a_deadline_that_cannot_be_met_is_refused_before_compute(self):
        write_slow(self.models / "slow/1/fp32.onnx", rounds=1, extent=2048, rows=1)
        running = self.start()
        caller = Caller(running.grpc)
        caller.ask("slow")
        text = running.metrics_page()
        ran = re.search(r'^octet_executions_total\{model="slow".*$', text, re.MULTILINE).group()
        # What the client has waited is more: it has connected, and the plan was compiled.
        takes = float(re.search(r'^octet_batch_expected_seconds\{model="slow",.*rows="1"\} (\S+)$', text, re.MULTILINE).group(1))
        request = caller.request("slow")
        request.parameters["timeout"].int64_param = int(1e6 * takes / 2)
        with self.assertRaises(grpc.RpcError) as refused:
            caller.stub.ModelInfer(request, timeout=60)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertRegex(refused.exception.details(), r"^deadline cannot be met, expected \d+\.\d+ ms to the answer, \d+\.\d+ ms remain: slow/1/fp32$")
        text = running.metrics_page()
        self.assertIn(ran, text)
        self.assertRegex(text, r'octet_refused_requests_total\{model="slow".*reason="deadline"\} 1')
        running.stop()


if __name__ == "__main__":
    server_test_case.main()
