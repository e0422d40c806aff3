#!/usr/bin/env python3
"""What `octet experiments` and `octet top` show of a server that is asked.

usage: experiments_test.py OCTET
"""

import json
import subprocess
import sys
import tempfile
import time
import unittest

import served_glyphs
import served_models
from rollout_case import Traffic
from served_glyphs import Served, spoil
from stand_in import StandIn

OCTET = ""


def setUpModule():
    served_glyphs.set_up()


def tearDownModule():
    served_glyphs.tear_down()


class ExperimentsTest(unittest.TestCase):
    def test_a_split_is_shown_with_its_differences(self):
        with Served(OCTET, "routing: {split: {fp32: 1, int8: 1}}\n") as served:
            served.ask_all(200)
            done = subprocess.run(
                [OCTET, "experiments", "--server", served.server.http, "--json"], capture_output=True, text=True, timeout=60, check=True
            )
            (experiment,) = json.loads(done.stdout)["experiments"]
            self.assertEqual(experiment["baseline"], "fp32")
            arms = {arm["precision"]: arm for arm in experiment["precisions"]}
            self.assertEqual(sum(arm["drawn"] for arm in arms.values()), 200)
            self.assertGreater(experiment["sample_ratio"]["p_value"], 0)
            over = arms["int8"]["over_baseline_us"]
            self.assertLess(over["low"], over["mean"])
            self.assertLess(over["mean"], over["high"])
            shown = subprocess.run(
                [OCTET, "experiments", "glyphs", "--server", served.server.http], capture_output=True, text=True, timeout=60, check=True
            )
            self.assertIn("glyphs version 1, baseline fp32", shown.stdout)
            print(shown.stdout)

    def test_a_terminal_shows_what_is_answered_now(self):
        with Served(OCTET, "routing: {default: fp32}\n") as served, Traffic(served):
            command = [OCTET, "top", "--server", served.server.http, "--seconds", "1", "--count", "3"]
            shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
            looks = shown.split("glyphs version 1\n")[1:]
            self.assertEqual(len(looks), 3)
            for look in looks[1:]:
                fp32, int8 = (line.split() for line in look.splitlines()[1:3])
                self.assertEqual((fp32[0], int8[0]), ("fp32", "int8"))
                self.assertEqual((fp32[2], int8[2]), ("100.0", "0.0"))
                self.assertGreater(float(fp32[3]), 0)
                self.assertGreater(float(fp32[4]), 0)
                self.assertEqual(float(int8[3]), 0)
                self.assertRegex(look, r"(?m)^  certificate int8: \d+ layers, multiply-adds: .*int8 \d+\.\d %")
            print(looks[-1])

    def test_a_terminal_goes_on_when_the_server_was_away(self):
        with Served(OCTET, "routing: {default: fp32}\n") as served, StandIn(served.server.http) as relay:
            command = [OCTET, "top", "--server", relay.address, "--seconds", "0.2"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                self.wait_for(process, "glyphs version 1")
                relay.target = None
                self.wait_for(process, "no answer: ")
                with tempfile.TemporaryDirectory() as folder:
                    with served_models.server.Server(OCTET, served.models, folder) as again:
                        relay.target = again.http
                        self.wait_for(process, "glyphs version 1")
                        self.assertIsNone(process.poll())
                        relay.target = None
                        again.stop()
                process.kill()
            # Nobody at the end, and nobody at the beginning.
            relay.target = served.server.http
            with subprocess.Popen([*command, "--count", "20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                self.wait_for(process, "glyphs version 1")
                relay.target = None
                process.stdout.read()
                self.assertIn("no answer from", process.stderr.read())
                self.assertEqual(process.wait(), 1)
            self.assertEqual(subprocess.run(command, capture_output=True, timeout=60, check=False).returncode, 1)

    def test_another_servers_answer_is_named(self):
        answers = {"body": b'{"experiments": [{"model": "x"}], "index": []}'}
        with Served(OCTET, "routing: {default: fp32}\n") as served:
            with StandIn(served.server.http, change=lambda path, body: answers["body"] or body) as relay:
                for body in (answers["body"], b"[1]", b'{"models": []}'):
                    answers["body"] = body
                    for words in (["experiments"], ["experiments", "glyphs"], ["experiments", "--json"], ["top", "--count", "2"]):
                        with self.subTest(body=body, words=words):
                            command = [OCTET, *words, "--server", relay.address]
                            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
                            self.assertEqual((done.returncode, done.stdout), (1, ""))
                            self.assertRegex(done.stderr, r"^octet: what answers /v2/\S+ is no octet server of this version: ")
                answers["body"] = None
                command = [OCTET, "top", "--server", relay.address, "--seconds", "0.2"]
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                    self.wait_for(process, "glyphs version 1")
                    answers["body"] = b"[1]"
                    self.wait_for(process, "no answer: what answers /v2/experiments")
                    answers["body"] = None
                    self.wait_for(process, "glyphs version 1")
                    process.kill()

    def wait_for(self, process, beginning):
        while not (line := process.stdout.readline()).startswith(beginning):
            self.assertNotEqual(line, "", f"it ended before {beginning}")

    def test_a_terminal_shows_what_a_guard_shifted(self):
        routing = """routing:
  split: {fp32: 1, int8: 1}
  shadow: {precision: int8, against: fp32, percent: 100}
  guard: {int8: {agreement_percent: 99, window_seconds: 1, min_samples: 5, action: shift}}
"""
        shifts = ("octet_guard_actions_total", 'model="glyphs",version="1",precision="int8",action="shift"')
        with Served(OCTET, routing, lambda version: spoil(version / "int8.onnx")) as served, Traffic(served):
            end = time.monotonic() + 60
            while served.metrics()[shifts] == 0:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.1)
            for verb in (["top", "--count", "2", "--seconds", "0.5"], ["experiments"]):
                command = [OCTET, *verb, "--server", served.server.http]
                shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
                int8 = [line for line in shown.splitlines() if line.startswith("  int8 ")][-1]
                self.assertRegex(int8, r" \d+\.\d % of its weight: agreement \d+\.\d+ % < 99 %$")
                self.assertLess(float(int8.split()[2]), 40)
                self.assertRegex(shown, r"(?m)^  shadow int8 against fp32: \d+ compared, \d+ dropped, 0 failed, agreement \d")
                if verb[0] == "top":
                    self.assertRegex(shown, r"(?m)^  \S+Z glyphs/1/int8 guard shift: agreement ")
                print(shown)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
