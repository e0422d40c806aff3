#!/usr/bin/env python3
"""Asks more than a server can answer, with `octet load`.

usage: overload_test.py OCTET
"""

import json
import re
import shutil
import subprocess

import server_test_case
from server_test_case import ServerTestCase, octet
from small_models import ROOT

GLYPHS = ROOT / "demo/models/glyphs"
TEST_SET = ROOT / "demo/data/test.npz"
RESOURCE_EXHAUSTED = "8"


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
        one = re.search(r'^octet_batch_rows_bucket\{.*precision="fp32",le="1"\} (\d+)$', self.metrics(running), re.MULTILINE)
        every = re.search(r'^octet_batch_rows_count\{.*precision="fp32"\} (\d+)$', self.metrics(running), re.MULTILINE)
        self.assertGreater(int(every.group(1)), int(one.group(1)), "no batch had more than one row")
        running.stop()

    def test_load_asks_for_a_precision_and_converts_by_a_map(self):
        running = self.start()
        words = ("--model", "glyphs", "--seconds", 0.3, "--data", TEST_SET)
        (row,) = load(running.grpc, *words, "--precision", "fp32", "--map", GLYPHS / "model.yaml", "--rows", 4)
        self.assertEqual((row["errors"], [series["precision"] for series in row["series"]]), (0, ["fp32"]))
        (row,) = load(running.grpc, "--model", "glyphs", "--seconds", 0.3)
        self.assertEqual(row["errors"], 0)
        (row,) = load(running.grpc, *words, "--precision", "int8")
        self.assertGreater(row["errors"], 0)
        self.assertTrue(all(error.startswith("5: ") for error in row["errors_by_code"]), row["errors_by_code"])
        running.stop()

    def test_a_server_that_is_not_there(self):
        command = [octet(), "load", "--target", "127.0.0.1:1", "--model", "glyphs", "--seconds", "0.1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stderr.startswith("octet: "), done.stderr)

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
        # Whoever is let in waits for 8 requests at most, and what runs: no share of the 3 s that the pressure lasts.
        self.assertLess(row["p99_us"], 1e6)
        text = self.metrics(running)
        self.assertRegex(text, r'octet_requests_total\{.*code="RESOURCE_EXHAUSTED"\} [1-9]')
        running.stop()


if __name__ == "__main__":
    server_test_case.main()
