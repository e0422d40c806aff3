#!/usr/bin/env python3
"""Changes, breaks and drowns the shadow of a model whose answers somebody waits for.

usage: shadow_test.py OCTET
"""

import re
import time

import server_test_case
import small_models
from reload_test import Asking
from server_test_case import ServerTestCase
from small_models import Caller

POLL = "repository: {poll_seconds: 1}\n"
WAITING = 16  # copies at most
SHADOW = f"""
batching: {{max_batch: 1}}
routing: {{default: fp32, shadow: {{precision: bf16, against: fp32, percent: 100, max_queue_requests: {WAITING}}}}}
"""
COUNT = re.compile(r'^octet_shadow_(\w+)_requests_total\{[^}]*?(?:reason="(\w+)")?\} (\d+)$', re.MULTILINE)


class ShadowTest(ServerTestCase):
    def setUp(self):
        super().setUp()
        small_models.write_heavy(self.models / "net/1/fp32.onnx", 3)
        (self.models / "net/model.yaml").write_text(SHADOW)
        self.file = self.models / "net/1/bf16.onnx"

    def copies(self, running):
        """Returns {compared, failed, and reasons of drops: count}."""
        return {reason or what: int(count) for what, reason, count in COUNT.findall(running.metrics_page())}

    def wait_for(self, condition, what):
        until = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), until, what())
            time.sleep(0.05)

    def test_a_shadow_that_changes_goes_and_comes_back_loses_no_answer(self):
        small_models.write_heavy(self.file, 3)
        running = self.start(POLL)
        with Asking(running.grpc, "net") as asking:
            for factor in (4, 5):
                before = self.copies(running)
                small_models.write_heavy(self.file, factor)
                loaded = f"octet_model_loads_total {factor - 1}\n"
                self.wait_for(lambda text=loaded: text in running.metrics_page(), lambda: "the file is not followed")
                self.wait_for(lambda b=before: self.copies(running)["compared"] > b["compared"] + 5, lambda: self.copies(running))
            self.file.rename(self.folder / "elsewhere.onnx")
            self.wait_for(lambda: self.copies(running)["not_ready"] > 5, lambda: self.copies(running))
            (self.folder / "elsewhere.onnx").rename(self.file)
            before = self.copies(running)
            self.wait_for(lambda: self.copies(running)["compared"] > before["compared"] + 5, lambda: self.copies(running))
            self.file.write_bytes(b"\xff" * 1000)
            self.wait_for(lambda: "event=variant_refused" in running.log.read_text(), lambda: "the file is not refused")
        self.assertEqual(asking.errors, [])
        self.assertEqual(asking.answers, {3})
        self.assertGreater(asking.asked, 100)
        self.assertEqual(self.copies(running)["failed"], 0)
        running.stop()

    def fill(self, running, caller):
        """Lets copies wait that take seconds; returns the seconds that one takes."""
        started = time.monotonic()
        self.assertEqual(caller.ask("net"), 3)
        self.wait_for(lambda: self.copies(running)["compared"] == 1, lambda: self.copies(running))
        one = time.monotonic() - started
        for _ in range(WAITING):
            self.assertEqual(caller.ask("net"), 3)
        return one

    def assert_did_not_wait(self, since, one):
        self.assertLess(time.monotonic() - since, 2 + WAITING / 2 * one, f"{WAITING} copies wait, each takes {one:.2f} s")

    def test_unloading_does_not_wait_for_copies(self):
        small_models.write_slow(self.file, 8)
        running = self.start()
        caller = Caller(running.grpc)
        one = self.fill(running, caller)
        started = time.monotonic()
        caller.stub.RepositoryModelUnload(caller.messages.RepositoryModelUnloadRequest(model_name="net"), timeout=10)
        # What runs ends; what waits is let go, and then there is nobody left.
        self.wait_for(lambda: caller.index()["net", "1"] == ("UNAVAILABLE", "unloaded"), caller.index)
        self.assert_did_not_wait(started, one)
        caller.load("net")
        self.assertEqual(caller.ask("net"), 3)
        running.stop()

    def test_copies_for_a_file_that_was_replaced_are_dropped(self):
        small_models.write_slow(self.file, 8)
        running = self.start()
        caller = Caller(running.grpc)
        self.fill(running, caller)
        small_models.write_heavy(self.file, 3)
        caller.load("net")
        self.wait_for(lambda: self.copies(running)["unloaded"] >= WAITING / 2, lambda: self.copies(running))
        before = self.copies(running)["compared"]
        self.assertEqual(caller.ask("net"), 3)
        self.wait_for(lambda: self.copies(running)["compared"] > before, lambda: self.copies(running))
        running.stop()

    def test_copies_that_are_too_many_are_dropped_and_nobody_is_refused(self):
        small_models.write_slow(self.file, 2)
        running = self.start()
        with Asking(running.grpc, "net") as asking:
            self.wait_for(lambda: self.copies(running)["queue_full"] > 20, lambda: self.copies(running))
        self.assertEqual(asking.errors, [])
        self.assertEqual(asking.answers, {3})
        running.stop()

    def test_sigterm_does_not_wait_for_copies(self):
        small_models.write_slow(self.file, 8)
        running = self.start()
        caller = Caller(running.grpc)
        one = self.fill(running, caller)
        started = time.monotonic()
        running.stop()
        self.assert_did_not_wait(started, one)
        self.assertIn("event=stopped all_answered=true", running.log.read_text())


if __name__ == "__main__":
    server_test_case.main()
