#!/usr/bin/env python3
"""Changes, breaks and replaces models under a server that is answering.

usage: reload_test.py OCTET
"""

import contextlib
import re
import threading
import time

import grpc
import server_test_case
import small_models
from server_test_case import ServerTestCase
from small_models import Caller

CLIENTS = 4
POLL = "repository: {poll_seconds: 1}\n"
RELOADS = 200
EXTENT = 512  # 2 MiB of weights
RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


class Asking:
    """Clients that ask one model without end, and what they were told."""

    def __init__(self, target, model, clients=CLIENTS):
        self.answers, self.errors, self.asked = set(), [], 0
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(target, model)) for _ in range(clients)]

    def _ask(self, target, model):
        caller = Caller(target)
        while not self.stopped.is_set():
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
        loads = re.search(r"^octet_model_loads_total (\d+)$", self.metrics(running), re.MULTILINE).group(1)
        with Asking(running.grpc, "net") as asking:
            (self.models / "net/model.yaml").write_text("routing: {split: {fp32: 0, bf16: 1}}\n")
            self.wait_for(lambda: 7 in asking.answers or asking.errors, "the other precision")
        self.assertEqual(asking.errors, [])
        self.assertEqual({caller.ask("net") for _ in range(50)}, {7})
        self.assertIn(f"\noctet_model_loads_total {loads}\n", self.metrics(running))
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

    def test_reloads_keep_memory_flat(self):
        file = self.models / "net/1/fp32.onnx"
        small_models.write_heavy(file, 1, EXTENT)
        (self.models / "net/model.yaml").write_text("batching: {max_batch: 2}\n")
        running = self.start()
        caller = Caller(running.grpc)
        resident = []
        with contextlib.ExitStack() as stack:
            asking = stack.enter_context(Asking(running.grpc, "net", clients=1))
            for i in range(1, RELOADS + 1):
                small_models.write_heavy(file, 1 + i % 2, EXTENT)
                caller.load("net")
                resident.append(float(RESIDENT.search(self.metrics(running)).group(1)) / 2**20)
        self.assertEqual(asking.errors, [])
        self.assertEqual(asking.answers, {1, 2})
        early, late = max(resident[20:60]), max(resident[-40:])
        print(f"resident MiB: first {resident[0]:.1f}, reloads 20-60 at most {early:.1f}, last 40 at most {late:.1f}")
        # One copy of the weights that was kept by each reload would be 2 MiB x 140.
        self.assertLess(late, early + 24)
        running.stop()


if __name__ == "__main__":
    server_test_case.main()
