#!/usr/bin/env python3
"""Runs the bench of quantizing briefly on the demo's model. Says nothing about speed.

usage: quantizing_test.py OCTET
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def bench(*words):
    command = [sys.executable, HERE / "quantizing.py", "--octet", OCTET, "--rounds", 1, "--threads", 1, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, check=False)


class QuantizingTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_both_sides_and_an_epoch(self):
        done = bench("--models", "glyphs", "--out", self.folder)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = json.loads((self.folder / "results.json").read_text())["rows"]
        self.assertEqual([row["unit"] for row in rows], ["s", "MB", "s", "MB", "s"])
        for row in rows:
            self.assertGreater(row["value"], 0)
        self.assertIn("met", rows[1])
        self.assertEqual(done.stdout, (self.folder / "table.md").read_text())

    def test_a_model_that_is_not_there_is_named(self):
        done = bench("--models", "nosuch", "--no-peer", "--out", self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nosuch", done.stderr)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main(verbosity=2)
