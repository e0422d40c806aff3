#!/usr/bin/env python3
"""Shares traffic out between the versions of a model, and brings one in by a ramp.

usage: traffic_test.py OCTET
"""

import collections
import json
import subprocess
import time
import urllib.request

import server_test_case
from server_test_case import ServerTestCase, octet
from small_models import Caller, write_scaling


class TrafficTest(ServerTestCase):
    def setUp(self):
        super().setUp()
        for version in (3, 4):
            write_scaling(self.models / f"net/{version}/fp32.onnx", version)

    def configure(self, text):
        (self.models / "net/model.yaml").write_text(text)

    def answers(self, caller, count, key=None, version=""):
        """Returns how many requests each version answers."""
        seen = collections.Counter()
        for i in range(count):
            request = caller.request("net")
            request.model_version = version
            if key is not None:
                request.parameters["user"].string_param = key(i)
            response = caller.stub.ModelInfer(request, timeout=30)
            factor = int(caller.factor(response))
            self.assertEqual(response.model_version, str(factor))
            seen[factor] += 1
        return seen

    def test_versions_share_the_traffic(self):
        self.configure("routing: {versions: {3: 80, 4: 20}, sticky: {parameter: user}}\n")
        running = self.start()
        caller = Caller(running.grpc)
        drawn = self.answers(caller, 500)
        self.assertEqual(sum(drawn.values()), 500)
        # Binomial: 20 % of 500 is 100, and five standard deviations are 45.
        self.assertTrue(55 <= drawn[4] <= 145, drawn)
        keyed = self.answers(caller, 500, lambda i: f"user-{i}")
        self.assertTrue(60 <= keyed[4] <= 140, keyed)
        for user in ("a", "b", "c", "d", "e", "f"):
            self.assertEqual(len(self.answers(caller, 10, lambda _, user=user: user)), 1)
        self.assertEqual(self.answers(caller, 20, version="4"), {4: 20})
        text = running.metrics_page()
        self.assertRegex(text, r'octet_routed_requests_total\{model="net",version="3",precision="fp32",reason="default"\} [1-9]')
        self.assertRegex(text, r'octet_routed_requests_total\{model="net",version="4",precision="fp32",reason="default"\} [1-9]')
        self.assert_they_are_compared(running, drawn)
        # Nothing of 4 answers any more: 3 does in its place.
        (self.models / "net/4/fp32.onnx").unlink()
        caller.load("net")
        self.assertEqual(self.answers(caller, 50), {3: 50})
        running.stop()

    def assert_they_are_compared(self, running, drawn):
        with urllib.request.urlopen(f"http://{running.http}/v2/experiments", timeout=10) as answer:
            (split,) = json.load(answer)["version_splits"]
        self.assertEqual((split["model"], split["baseline"]), ("net", "3"))
        arms = {int(arm["version"]): arm for arm in split["versions"]}
        self.assertEqual({version: arm["drawn"] for version, arm in arms.items()}, drawn)
        self.assertEqual({version: arm["weight"] for version, arm in arms.items()}, {3: 80, 4: 20})
        self.assertEqual(sum(arm["sticky"] for arm in arms.values()), 560)
        self.assertEqual(sum(arm["latency_us"]["count"] for arm in arms.values()), 1080)
        over = arms[4]["over_baseline_us"]
        self.assertLess(over["low"], over["mean"])
        self.assertLess(over["mean"], over["high"])
        self.assertIsNone(arms[3]["over_baseline_us"])
        self.assertGreater(split["sample_ratio"]["p_value"], 1e-9)
        command = [octet(), "experiments", "--server", running.http]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        self.assertIn("net, shared out between its versions, baseline 3\n", shown)
        self.assertIn(f" {drawn[4]} ", shown)

    def test_a_ramp_brings_a_version_in_and_survives_a_restart(self):
        self.configure(
            "routing:\n  versions: {3: 1}\n  guard: {fp32: {error_percent: 1, window_seconds: 1, min_samples: 1}}\n"
            "  ramp: {version: 4, steps: [50, 95], hold_seconds: 15}\n"
        )
        running = self.start()
        caller = Caller(running.grpc)
        first = self.answers(caller, 200)
        self.assertTrue(60 <= first[4] <= 140, first)
        end = time.monotonic() + 120
        while 'octet_ramp_actions_total{model="net",version="4",precision="fp32",action="forward"} 1' not in running.metrics_page():
            self.assertLess(time.monotonic(), end)
            self.answers(caller, 20)
        self.assertIn('octet_ramp_share{model="net",version="4",precision="fp32"} 0.95', running.metrics_page())
        running.stop()
        self.assertRegex(running.log.read_text(), r'event=ramp_action model=net ramped="version 4" action=forward reason="95 % of the traffic')
        running = self.start()
        self.assertRegex(running.log.read_text(), r'event=ramp_resumed model=net ramped="version 4" share=0\.95')
        again = self.answers(Caller(running.grpc), 400)
        self.assertTrue(340 <= again[4] < 400, again)
        running.stop()


if __name__ == "__main__":
    server_test_case.main()
