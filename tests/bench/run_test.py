#!/usr/bin/env python3
"""Runs the benchmark briefly on the demo's model. Says nothing about speed.

usage: run_test.py OCTET
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import catalog
import peer_library

HERE = pathlib.Path(__file__).resolve().parent
PEER = (peer_library.HEADERS / "onnxruntime_cxx_api.h").is_file() and peer_library.from_debian() is not None
QUICK = ["--models", "glyphs", "--rounds", "2", "--seconds", "0.02"]


def bench(*words):
    command = [sys.executable, HERE / "run.py", "--octet", OCTET, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200, check=False)


class RunTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def measure(self, *words):
        done = bench(*QUICK, "--out", self.folder, *words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = json.loads((self.folder / "results.json").read_text())
        self.assertEqual(done.stdout.strip(), (self.folder / "table.md").read_text().strip())
        return result, done

    def check_octet(self, row):
        self.assertLessEqual(row["octet"]["min_ms"], row["octet"]["median_ms"])
        self.assertAlmostEqual(row["whole_to_primitives"], row["octet"]["min_ms"] / row["primitive_sum_ms"])
        self.assertGreater(row["whole_to_primitives_in_place"], 0)
        self.assertGreater(row["octet"]["peak_bytes"], 1 << 20)

    def test_octet_alone(self):
        result, done = self.measure("--precisions", "fp32", "--batch", "1,4", "--peer", "none")
        self.assertEqual([(row["model"], row["batch"]) for row in result["rows"]], [("glyphs", 1), ("glyphs", 4)])
        for row in result["rows"]:
            self.check_octet(row)
            self.assertNotIn("ratio", row)
            self.assertGreater(row["cosine"]["octet"], 0.9999)
        self.assertIn("fp32, batch 4, 1 thread", done.stdout)
        self.assertFalse((self.folder / "ratios.svg").exists())

    @unittest.skipUnless(PEER, "libonnxruntime-dev is not installed: ./dev bench installs it")
    def test_both_take_turns(self):
        result, done = self.measure("--precisions", "fp32,bf16,int8", "--peer", "debian")
        self.assertEqual([row["precision"] for row in result["rows"]], ["fp32", "bf16", "int8"])
        self.assertRegex(result["peer"], r"^1\.\d+\.\d+$")
        for row in result["rows"]:
            self.check_octet(row)
            self.assertEqual(len(row["ratio"]["rounds"]), 2)
            self.assertGreater(row["cosine"]["octet"], 0.99)
            self.assertGreater(row["cosine"]["peer"], 0.99)
        self.assertIn("Geometric mean of 1 ratios", done.stdout)
        self.assertIn("glyphs", (self.folder / "ratios.svg").read_text())

    def test_rows_are_kept_when_asked(self):
        self.measure("--precisions", "fp32", "--peer", "none")
        result, _ = self.measure("--precisions", "bf16", "--peer", "none", "--keep")
        self.assertEqual([row["precision"] for row in result["rows"]], ["fp32", "bf16"])
        result, _ = self.measure("--precisions", "bf16", "--peer", "none")
        self.assertEqual([row["precision"] for row in result["rows"]], ["bf16"])

    def test_unknown_models_are_named(self):
        done = bench("--models", "glyphs,no-such-net", "--out", self.folder, "--peer", "none")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no model is called 'no-such-net'", done.stderr)


class OctetRoundsTest(unittest.TestCase):
    """The lines that take turns: octet bench --rounds."""

    def setUp(self):
        self.model = catalog.ROOT / "demo/models/glyphs/1/fp32.onnx"
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def rounds(self, *words, lines=""):
        command = [OCTET, "bench", self.model, "--rounds", *words]
        return subprocess.run(list(map(str, command)), input=lines, capture_output=True, text=True, timeout=60, check=False)

    def archive(self, **arrays):
        path = pathlib.Path(self.folder, "in.npz")
        catalog.np.savez(path, **arrays)
        return path

    def test_a_line_is_a_round(self):
        done = self.rounds("--batch", "2", lines="0.01\n0.02\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        ready, *measured = map(json.loads, done.stdout.splitlines())
        ((_, answer),) = ready["outputs"].items()
        self.assertEqual(len(answer), 2 * 32)
        self.assertEqual([row["batch"] for row in measured], [2, 2])

    def test_what_is_no_length_ends_it(self):
        for line in ("soon", "0", "-1", "nan", "1e9"):
            done = self.rounds(lines=f"{line}\n")
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (1, 1), line)
            self.assertIn(f"'{line}'", done.stderr)

    def test_inputs_come_from_the_archive(self):
        name, _, extents = catalog.inputs_of(self.model)[0]
        array = catalog.np.zeros([3, *extents[1:]], catalog.np.float32)
        done = self.rounds("--inputs", self.archive(**{name: array}), lines="0.01\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        ready, row = map(json.loads, done.stdout.splitlines())
        ((_, answer),) = ready["outputs"].items()
        self.assertEqual(row["batch"], 3)
        self.assertEqual(answer[:32], answer[32:64])

    def test_an_archive_that_does_not_fit_is_refused(self):
        name, _, extents = catalog.inputs_of(self.model)[0]
        missing = self.rounds("--inputs", self.archive(other=catalog.np.zeros(3, catalog.np.float32)))
        self.assertEqual(missing.returncode, 1)
        self.assertIn(f"no array for input '{name}'", missing.stderr)
        typed = self.rounds("--inputs", self.archive(**{name: catalog.np.zeros([1, *extents[1:]], catalog.np.uint8)}))
        self.assertEqual(typed.returncode, 1)
        self.assertRegex(typed.stderr, rf"'{name}' of another element type: expected \w+, got \w+")

    def test_several_configurations_cannot_take_turns(self):
        done = self.rounds("--threads", "1,2")
        self.assertEqual(done.returncode, 1)
        self.assertIn("one number of threads", done.stderr)


if __name__ == "__main__":
    OCTET = sys.argv.pop(1)
    unittest.main()
