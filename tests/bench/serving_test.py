#!/usr/bin/env python3
"""Runs the serving bench briefly on models that it makes itself. Says nothing about speed.

usage: serving_test.py OCTET EMPTY_SERVER
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import serving
import serving_sides

HERE = pathlib.Path(__file__).resolve().parent
IDLE = 40


class EmptyServerTest(unittest.TestCase):
    def test_answers_as_many_requests_as_were_sent_and_uses_processor_time(self):
        with serving_sides.empty(EMPTY, {"net": ("UINT8", (3, 4), 1000)}) as side:
            used = side.cpu_seconds()
            run = serving_sides.Loader(OCTET, 0.3).ask(side, "net", "--concurrency", 4)
            self.assertGreater(run["requests"], 4)
            self.assertGreater(run["server_cpu_seconds"], 0)
            # What a run says is a difference of two readings: rounding it may end above the two readings around it.
            self.assertGreaterEqual(side.cpu_seconds() - used, run["server_cpu_seconds"] - 1e-9)
            self.assertGreater(side.resident_bytes(), 1 << 20)
            with self.assertRaisesRegex(serving_sides.LoadError, "no such model"):
                serving_sides.Loader(OCTET, 0.1).ask(side, "other")

    def test_spends_the_time_of_a_model_before_it_answers(self):
        work = 5000  # microseconds
        with serving_sides.empty(EMPTY, {"net": ("UINT8", (3, 4), 1000, work)}) as side:
            run = serving_sides.Loader(OCTET, 0.3).ask(side, "net")
        self.assertGreaterEqual(run["server_cpu_seconds"], run["requests"] * work / 1e6)
        self.assertGreaterEqual(run["p50_us"], work)

    def test_refuses_words_that_are_no_model(self):
        endings = ("", ":3", ":3:x", ":3:8x", ":3:-8", ":3:8:soon", ":3:8:5x", ":3:8:-5", ":3:8:", ":3:8:5:5", ":3x:8", ":3,4:8")
        for words in ("net", *(f"net:UINT8{ending}" for ending in endings)):
            done = subprocess.run([EMPTY, words], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(words.encode(), done.stderr)

    def test_takes_turns_in_every_round(self):
        with serving_sides.empty(EMPTY, {"a": ("FP32", (4,), 16), "b": ("FP32", (4,), 16)}) as side:
            runs = serving_sides.Loader(OCTET, 0.05).take_turns(3, [(side, "a"), (side, "b")])
        self.assertEqual([len(of_one) for of_one in runs], [3, 3])
        for of_one, model in zip(runs, "ab", strict=True):
            self.assertEqual({run["series"][0]["model"] for run in of_one}, {model})


class BenchTest(unittest.TestCase):
    def test_parts_that_need_no_model(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        words = ["--parts", "identity,http,idle,fairness", "--rounds", "2", "--seconds", "0.1", "--idle-connections", IDLE]
        command = [sys.executable, HERE / "serving.py", "--octet", OCTET, "--empty-server", EMPTY, "--out", folder, *words]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = json.loads((folder / "results.json").read_text())["rows"]
        self.assertEqual({row["part"] for row in rows}, {"identity", "http", "idle", "fairness"})
        goals = {row["what"]: row["goal"] for row in rows if "goal" in row}
        self.assertEqual(goals["4 kB: what Octet adds"], "<= 40")
        self.assertEqual(goals["602 kB: what Octet adds"], "<= 100")
        self.assertEqual(goals["4 kB: Octet's over the empty service's"], "<= 1.5")
        self.assertEqual(goals["4 kB: processor time, 16 clients"], "<= 46.8")
        by_name = {row["what"]: row["value"] for row in rows}
        for side in ("Octet", "the empty service"):
            self.assertGreater(by_name[f"4 kB: p50 of {side}, 1 client"], 0)
        for size in ("4 kB", "602 kB"):
            self.assertGreater(by_name[f"{size}: answers, 16 clients"], 0)
        self.assertIn(f"memory of each of {IDLE} connections", by_name)
        self.assertGreater(by_name["least requests of one of 256 clients"], 0)
        self.assertEqual(done.stdout, (folder / "table.md").read_text())

    def test_an_unknown_part_is_named(self):
        command = [sys.executable, HERE / "serving.py", "--octet", OCTET, "--parts", "identity,speed"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("unknown parts speed", done.stderr)


class TableTest(unittest.TestCase):
    def test_a_goal_is_met_or_missed(self):
        rows = [
            {"part": "p", "what": "a", "value": 12.345678, "unit": "us", "goal": "<= 20", "met": True},
            {"part": "p", "what": "b", "value": 12345.6, "unit": "1/s", "goal": ">= 99999", "met": False},
            {"part": "p", "what": "c", "value": 1, "unit": "MB"},
        ]
        lines = serving.table(rows).splitlines()[2:]
        self.assertEqual(lines[0], "| p | a | 12.35 | us | <= 20 | met |")
        self.assertEqual(lines[1], "| p | b | 12346 | 1/s | >= 99999 | missed |")
        self.assertEqual(lines[2], "| p | c | 1 | MB |  |  |")


if __name__ == "__main__":
    EMPTY = sys.argv.pop(2)
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
