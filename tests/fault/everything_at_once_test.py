#!/usr/bin/env python3
"""Changes all that can change under a server at once, and holds each answer against that of the version and precision it names.

usage: everything_at_once_test.py OCTET
"""

import collections
import itertools
import shutil
import threading
import time

import grpc
import numpy
import server_test_case
import small_models
from reload_test import Asking
from server_test_case import ServerTestCase
from small_models import EXTENT, Caller

CLIENTS = 32
CHANGES = 10
PRECISIONS = ["fp32", "fp16", "bf16", "int8"]
# The guard of fp16 cannot be kept to: whoever is answered by it moves to the others a second after the last load.
ROUTING = """
routing:
  default: fp32
  split: {{fp32: {fp32}, fp16: 2, bf16: {bf16}, int8: 3}}
  sticky: {{parameter: user}}
  shadow: {{precision: int8, against: fp32, percent: 100}}
  guard: {{fp16: {{p99_us: 1, window_seconds: 1, min_samples: 10, recover_windows: 0, action: fall_back}}}}
capture: {{percent: 100, max_bytes: 1048576}}
"""


def factor(version, precision):
    """What the file multiplies by: exact in bf16, and another one for each file."""
    return 8 * int(version) + PRECISIONS.index(precision)


class AskingFiles(Asking):
    """Clients without a pause; each answer is checked when it comes."""

    def __init__(self, target):
        super().__init__(target, "net", CLIENTS)
        self.wrong = []
        self.seen = collections.Counter()  # by (version, precision)
        self.moment = threading.Event()  # set: answers are counted in `late`, too
        self.late = collections.Counter()
        self.numbers = itertools.count()

    def _ask(self, target, model):
        caller = Caller(target)
        client = next(self.numbers)
        for number in itertools.count():
            if self.stopped.is_set():
                return
            x = numpy.full(EXTENT, 1 + (client + number) % 2, numpy.float32)
            request = caller.request(model)
            request.raw_input_contents[0] = x.tobytes()
            if number % 3 == 0:
                request.parameters["user"].string_param = f"user {client}"
            late = self.moment.is_set()
            try:
                response = caller.stub.ModelInfer(request, timeout=30)
            except grpc.RpcError as error:
                self.errors.append(str(error))
                return
            name = (response.model_version, response.parameters["precision"].string_param)
            if not numpy.array_equal(numpy.frombuffer(response.raw_output_contents[0], numpy.float32), x * factor(*name)):
                self.wrong.append((name, x, response))
            self.seen[name] += 1
            if late:
                self.late[name] += 1


class EverythingAtOnceTest(ServerTestCase):
    def write_version(self, version):
        """The folder appears as a whole."""
        hidden = self.models / f"net/.{version}"
        for precision in PRECISIONS:
            small_models.write_heavy(hidden / f"{precision}.onnx", factor(version, precision), 256)
        hidden.rename(self.models / f"net/{version}")

    def write_routing(self, number):
        part = self.models / "net/.model.yaml"
        part.write_text(ROUTING.format(fp32=1 + number, bf16=1 + CHANGES - number))
        part.rename(self.models / "net/model.yaml")

    def look(self, running, caller):
        """What dashboards and operators ask for all the time."""
        self.assertEqual({state for state, _ in caller.index().values()} - {"READY", "LOADING", "UNAVAILABLE", "UNLOADING"}, set())
        caller.stub.ModelStatistics(caller.messages.ModelStatisticsRequest(name="net"), timeout=10)
        self.assertIn("octet_requests_total", self.metrics(running))

    def test_nothing_is_lost_and_nothing_is_wrong(self):
        (self.models / "net").mkdir()
        self.write_version(1)
        self.write_routing(0)
        captures = self.folder / "captures"
        captures.mkdir(mode=0o700)
        running = self.start(f"capture: {{path: {captures}}}\n")
        caller = Caller(running.grpc)
        with AskingFiles(running.grpc) as asking:
            for number in range(1, CHANGES + 1):
                self.write_routing(number)
                caller.load("net")
                self.look(running, caller)
                self.write_version(number + 1)
                caller.load("net")
                shutil.rmtree(self.models / f"net/{number}")
                self.look(running, caller)
                time.sleep(0.2)
            until = time.monotonic() + 60
            last = CHANGES + 1
            tripped = f'octet_guard_tripped{{model="net",version="{last}",precision="fp16"}} 1'
            while tripped not in self.metrics(running):
                self.assertLess(time.monotonic(), until, "the guard did not fall back")
                self.look(running, caller)
                time.sleep(0.1)
            time.sleep(0.2)
            asking.moment.set()
            while sum(asking.late.values()) < 400:
                self.assertLess(time.monotonic(), until, asking.late)
                time.sleep(0.1)
        self.assertEqual(asking.errors, [])
        self.assertEqual(asking.wrong, [])
        print(sum(asking.seen.values()), "answers,", len(asking.seen), "files", dict(asking.late))
        self.assertEqual({version for version, _ in asking.seen}, {str(version) for version in range(1, last + 1)})
        self.assertEqual({precision for _, precision in asking.seen}, set(PRECISIONS))
        self.assertEqual({precision for _, precision in asking.late}, {"fp32", "bf16", "int8"}, "fp16 has fallen back")
        metrics = self.metrics(running)
        self.assertNotRegex(metrics, r'octet_shadow_failed_requests_total\{[^}]*\} [1-9]')
        self.assertRegex(metrics, r'octet_shadow_compared_requests_total\{[^}]*\} [1-9]')
        running.stop()
        self.assertIn("all_answered=true", running.log.read_text())
        self.assertTrue(list(captures.glob("net/*/*.npz")), "nothing was captured")


if __name__ == "__main__":
    server_test_case.main()
