#!/usr/bin/env python3
"""Changes, breaks and replaces models under a server that is answering.

usage: reload_test.py OCTET
"""

import re
import shutil
import threading
import time

import grpc
import numpy
import server_test_case
import small_models
from server_test_case import ServerTestCase
from small_models import Caller

CLIENTS = 4
POLL = "repository: {poll_seconds: 1}\n"
RELOADS = 1000
EACH = 5  # of which memory is looked at
SETTLED = 200  # reloads until plans, caches and the allocator have what they keep
EXTENT = 256  # 512 KiB of weights
MOST_GROWTH = 5  # kB a reload
RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


class Asking:
    """Clients that ask one model without end, and what they were told."""

    def __init__(self, target, model, clients=CLIENTS, pause=0):
        """`pause`: seconds between an answer and the next request of a client."""
        self.answers, self.errors, self.asked = set(), [], 0
        self.pause = pause
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(target, model)) for _ in range(clients)]

    def _ask(self, target, model):
        caller = Caller(target)
        while not self.stopped.wait(self.pause):
            try:
                self.answers.add(caller.ask(model))
                self.asked += 1
            except grpc.RpcError as error:
                self.errors.append(str(error))
                return

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


class ReloadTest(ServerTestCase):
    def wait_for(self, condition, what):
        until = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), until, what)
            time.sleep(0.05)

    def test_a_changed_file_is_followed_and_no_request_is_lost(self):
        file = self.models / "net/1/fp32.onnx"
        small_models.write_heavy(file, 1)
        running = self.start(POLL)
        with Asking(running.grpc, "net") as asking:
            for factor in (2, 3, 4):
                small_models.write_heavy(file, factor)
                self.wait_for(lambda f=factor: f in asking.answers or asking.errors, f"factor {factor}")
        self.assertEqual(asking.errors, [])
        self.assertEqual(asking.answers, {1, 2, 3, 4})
        self.assertGreater(asking.asked, 100)
        running.stop()

    def test_versions_models_and_splits_come_without_a_restart(self):
        small_models.write_scaling(self.models / "net/1/fp32.onnx", 1)
        small_models.write_scaling(self.models / "net/1/bf16.onnx", 7)
        (self.models / "net/model.yaml").write_text("routing: {split: {fp32: 1, bf16: 0}}\n")
        running = self.start(POLL)
        caller = Caller(running.grpc)
        self.assertEqual({caller.ask("net") for _ in range(50)}, {1})
        loads = re.search(r"^octet_model_loads_total (\d+)$", running.metrics_page(), re.MULTILINE).group(1)
        with Asking(running.grpc, "net") as asking:
            (self.models / "net/model.yaml").write_text("routing: {split: {fp32: 0, bf16: 1}}\n")
            self.wait_for(lambda: 7 in asking.answers or asking.errors, "the other precision")
        self.assertEqual(asking.errors, [])
        self.assertEqual({caller.ask("net") for _ in range(50)}, {7})
        self.assertIn(f"\noctet_model_loads_total {loads}\n", running.metrics_page())
        small_models.write_scaling(self.models / "net/2/bf16.onnx", 9)
        small_models.write_scaling(self.models / "new/1/fp32.onnx", 5)
        self.wait_for(lambda: caller.ask("net") == 9, "version 2")
        self.wait_for(lambda: ("new", "1") in caller.index(), "a new model")
        self.wait_for(lambda: caller.index()["new", "1"][0] == "READY", "a new model that is ready")
        self.assertEqual(caller.ask("new"), 5)
        running.stop()

    def test_what_is_broken_leaves_the_rest(self):
        small_models.write_scaling(self.models / "good/1/fp32.onnx", 2)
        small_models.write_scaling(self.models / "half/1/fp32.onnx", 3)
        (self.models / "half/1/int8.onnx").write_bytes(b"\xff" * 100)
        small_models.write_scaling(self.models / "missing/1/fp32.onnx", 3)
        (self.models / "missing/model.yaml").write_text("precisions: [int8]\n")
        (self.models / "garbage/1").mkdir(parents=True)
        (self.models / "garbage/1/fp32.onnx").write_bytes(b"\xff" * 100)
        small_models.write_scaling(self.models / "typo/1/fp32.onnx", 3)
        (self.models / "typo/model.yaml").write_text("colour: red\n")
        running = self.start()
        caller = Caller(running.grpc)
        self.assertEqual(caller.ask("good"), 2)
        self.assertEqual(caller.ask("half"), 3)
        index = caller.index()
        self.assertEqual(index["good", "1"], ("READY", ""))
        self.assertEqual(index["half", "1"][0], "READY")
        self.assertIn("half/1/int8.onnx", index["half", "1"][1])
        for key, reason in {
            ("missing", "1"): "missing/1/int8.onnx",
            ("garbage", "1"): "garbage/1/fp32.onnx",
            ("typo", ""): "model.yaml:1:1: colour",
        }.items():
            self.assertEqual(index[key][0], "UNAVAILABLE", key)
            self.assertIn(reason, index[key][1])
            with self.assertRaises(grpc.RpcError) as refused:
                caller.ask(key[0])
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertIn(reason, refused.exception.details())
            with self.assertRaises(grpc.RpcError):
                caller.load(key[0])
        small_models.write_scaling(self.models / "garbage/1/fp32.onnx", 6)
        caller.load("garbage")
        self.assertEqual(caller.ask("garbage"), 6)
        running.stop()

    def test_a_thousand_reloads_keep_memory_flat(self):
        file = self.models / "net/1/fp32.onnx"
        for factor in (1, 2):
            small_models.write_heavy(self.folder / f"{factor}.onnx", factor, EXTENT)
        small_models.write_heavy(file, 1, EXTENT)
        (self.models / "net/model.yaml").write_text("batching: {max_batch: 2}\n")
        running = self.start()
        caller = Caller(running.grpc)
        resident = []
        with Asking(running.grpc, "net", pause=0.01) as asking:
            for i in range(1, RELOADS + 1):
                shutil.copy(self.folder / f"{1 + i % 2}.onnx", self.folder / "next.onnx")
                (self.folder / "next.onnx").rename(file)
                caller.load("net")
                self.assertEqual(caller.ask("net"), 1 + i % 2)
                if i % EACH == 0:
                    resident.append(float(RESIDENT.search(running.metrics_page()).group(1)) / 1024)
        self.assertEqual(asking.errors, [])
        self.assertEqual(asking.answers, {1, 2})
        self.assertIn(f"\noctet_model_loads_total {1 + RELOADS}\n", running.metrics_page())
        at = numpy.arange(EACH, RELOADS + 1, EACH)
        settled = at > SETTLED
        growth, _ = numpy.polyfit(at[settled], numpy.array(resident)[settled], 1)
        print(f"resident from {resident[0]:.0f} kB to {resident[-1]:.0f} kB, at last {growth:.2f} kB a reload; {asking.asked} answers")
        self.assertLess(growth, MOST_GROWTH)
        running.stop()


if __name__ == "__main__":
    server_test_case.main()
