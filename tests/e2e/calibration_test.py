#!/usr/bin/env python3
"""What `octet quantize` learns from data: kept in a file, merged, gone on with; and every form that data come in.

usage: calibration_test.py OCTET
"""

import os
import pathlib
import re
import signal
import tempfile
import unittest

import numpy as np
import onnx
from onnx import numpy_helper

import octet_process
from demo_model import CALIBRATION, FP32, MAP, mapped
from octet_process import answer, octet, start

DATA = ("--calibration", CALIBRATION, "--map", MAP)
FIXED = ("--method", "percentile")


class CalibrationTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.made = 0

    def quantized(self, *words):
        """Returns what the verb prints about the int8 file, and the file's bytes."""
        self.made += 1
        (made,) = answer("quantize", FP32, "--to", "int8", "--out", self.folder / str(self.made), *words)
        return made, pathlib.Path(made["file"]).read_bytes()

    def refused(self, *words, model=FP32):
        """Returns the line that the verb ends with."""
        done = octet("quantize", model, "--to", "int8", "--out", self.folder / "refused", *words)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertFalse(list((self.folder / "refused").glob("*")))
        return done.stderr.splitlines()[-1]

    def images(self):
        return np.load(CALIBRATION)["inputs"]

    def parts(self):
        """Calibration files of the first third of the images and of the rest."""
        images = self.images()
        files = []
        for name, rows in (("a", images[: len(images) // 3]), ("b", images[len(images) // 3 :])):
            np.savez(self.folder / f"{name}.npz", inputs=rows)
            files.append(self.folder / f"{name}-statistics.npz")
            self.quantized("--calibration", self.folder / f"{name}.npz", "--map", MAP, "--save-calibration", files[-1], *FIXED)
        return files

    def test_a_file_takes_the_place_of_the_data(self):
        file = self.folder / "statistics.npz"
        _, saved = self.quantized(*DATA, "--save-calibration", file, *FIXED)
        _, direct = self.quantized(*DATA, *FIXED)
        self.assertEqual(saved, direct)
        for method in ("min-max", "moving-average", "percentile", "mse", "entropy"):
            for more in ((), ("--activations", "s8"), ("--no-equalize", "--per-tensor"), ("--no-compensate",)):
                with self.subTest(method=method, more=more):
                    _, from_data = self.quantized(*DATA, "--method", method, *more)
                    _, from_file = self.quantized("--calibration-file", file, "--method", method, *more)
                    self.assertEqual(from_data, from_file)

    def test_numpy_reads_the_file(self):
        file = self.folder / "statistics.npz"
        self.quantized(*DATA, "--save-calibration", file, *FIXED)
        arrays = np.load(file)
        count = len(self.images())
        self.assertEqual(arrays["version"].tolist(), [3])
        self.assertEqual(arrays["samples"].tolist(), [count, count])
        self.assertIn(b"image", arrays["histograms/names"].tolist())
        counts = arrays["histograms/counts"].reshape(len(arrays["histograms/names"]), -1)
        images = arrays["histograms/names"].tolist().index(b"image")
        self.assertEqual(counts[images].sum(), self.images().size)
        self.assertEqual(arrays["moving/samples"][images], count)
        # Of equal weights it would be the mean of the images' largest elements; later ones weigh more.
        weights = 0.99 ** np.arange(count)[::-1]
        largest = mapped(self.images(), MAP).reshape(count, -1).max(axis=1)
        self.assertAlmostEqual(arrays["moving/sums"][2 * images + 1], weights @ largest, delta=1e-3)

    def test_outputs_choose_with_a_file_and_samples(self):
        file = self.folder / "statistics.npz"
        self.quantized(*DATA, "--save-calibration", file)
        made, _ = self.quantized("--calibration-file", file, *DATA)
        self.assertGreaterEqual(sum(record["what"] == "tried" for record in made["records"]), 5)
        self.assertIn("seen", [record["what"] for record in made["records"]])
        few = self.folder / "few.npz"
        np.savez(few, inputs=self.images()[:40])
        others, _ = self.quantized("--calibration-file", file, "--calibration", few, "--map", MAP)
        self.assertNotIn("seen", [record["what"] for record in others["records"]])
        self.assertIn("takes samples", self.refused("--calibration-file", file))
        self.assertIn("takes samples", self.refused("--calibration-file", file, "--min-sqnr-db", 10))
        floored, _ = self.quantized("--calibration-file", file, *DATA, "--min-sqnr-db", 10)
        self.assertTrue(floored["mixed"]["points"])

    def test_files_merge(self):
        first, second = self.parts()
        merged = self.folder / "merged.npz"
        _, of_two = self.quantized("--calibration-file", f"{first},{second}", "--save-calibration", merged, "--method", "min-max")
        _, of_one = self.quantized("--calibration-file", merged, "--method", "min-max")
        self.assertEqual(of_two, of_one)
        whole, a, b = (np.load(file)["histograms/counts"].sum() for file in (merged, first, second))
        self.assertEqual(whole, a + b)
        self.assertIn("the same samples", self.refused("--calibration-file", f"{first},{first}", *FIXED))
        self.assertIn("the same samples", self.refused("--calibration-file", f"{merged},{first}", *FIXED))
        data = (self.folder / "a.npz").read_bytes()
        line = self.refused("--calibration-file", f"{first},{second}", "--save-calibration", self.folder / "a.npz", *FIXED)
        self.assertIn("not a calibration file", line)
        self.assertEqual((self.folder / "a.npz").read_bytes(), data)

    def test_keeping_statistics_leaves_the_choice_alone(self):
        _, alone = self.quantized(*DATA)
        _, kept = self.quantized(*DATA, "--save-calibration", self.folder / "statistics.npz")
        self.assertEqual(alone, kept)

    def test_a_file_of_another_model_is_refused(self):
        file = self.folder / "statistics.npz"
        self.quantized(*DATA, "--save-calibration", file, *FIXED)
        model = onnx.load(FP32)
        weights = next(w for w in model.graph.initializer if len(w.dims) == 4)
        weights.CopyFrom(numpy_helper.from_array(1.001 * numpy_helper.to_array(weights), weights.name))
        onnx.save(model, self.folder / "other.onnx")
        line = self.refused("--calibration-file", file, *FIXED, model=self.folder / "other.onnx")
        self.assertIn("another model", line)
        self.assertIn(str(file), line)
        self.assertIn("not a calibration file", self.refused("--calibration-file", CALIBRATION, *FIXED))
        self.assertIn("no such file", self.refused("--calibration-file", self.folder / "none.npz", *FIXED))

    def test_a_file_that_is_there_is_gone_on_with_or_refused(self):
        file = self.folder / "statistics.npz"
        self.quantized(*DATA, "--save-calibration", file, *FIXED)
        before = file.read_bytes()
        self.quantized(*DATA, "--save-calibration", file, *FIXED)
        self.assertEqual(file.read_bytes(), before)
        np.savez(self.folder / "few.npz", inputs=self.images()[:8])
        line = self.refused("--calibration", self.folder / "few.npz", "--map", MAP, "--save-calibration", file, *FIXED)
        self.assertIn("other samples", line)

    def test_what_was_interrupted_goes_on_to_the_same_files(self):
        whole = self.folder / "whole.npz"
        _, uninterrupted = self.quantized(*DATA, "--save-calibration", whole, *FIXED)
        parts = self.folder / "parts.npz"
        process = start("quantize", FP32, "--to", "int8", "--out", self.folder / "stopped", *DATA, "--save-calibration", parts, *FIXED)
        process.stderr.readline()  # the first quarter
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 1, rest)
        message = re.search("([0-9]+) of ([0-9]+) samples are kept in .*: calibration was stopped", rest)
        self.assertTrue(message, rest)
        self.assertEqual(np.load(parts)["samples"].tolist(), [int(message[1]), int(message[2])])
        self.assertLess(int(message[1]), int(message[2]))
        self.assertFalse(list((self.folder / "stopped").glob("*")))
        self.assertIn("stopped after", self.refused("--calibration-file", parts, *FIXED))
        _, resumed = self.quantized(*DATA, "--save-calibration", parts, *FIXED)
        self.assertEqual(resumed, uninterrupted)
        kept, expected = np.load(parts), np.load(whole)
        self.assertEqual(kept.files, expected.files)
        for array in kept.files:
            np.testing.assert_array_equal(kept[array], expected[array], array)

    def test_an_interrupt_where_no_data_are_passed(self):
        file = self.folder / "statistics.npz"
        self.quantized(*DATA, "--save-calibration", file, *FIXED)
        slow = self.folder / "slow.yaml"  # which is read when Ctrl-C is a value already
        os.mkfifo(slow)
        out = self.folder / "stopped"
        data = ("--calibration", CALIBRATION, "--map", slow, "--calibration-file", file)
        process = start("quantize", FP32, "--to", "int8", "--out", out, *data, *FIXED)
        with open(slow, "w", encoding="utf-8") as write:
            process.send_signal(signal.SIGINT)
            write.write(pathlib.Path(MAP).read_text(encoding="utf-8"))
        _, rest = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 1, rest)
        self.assertIn("was stopped", rest.splitlines()[-1])
        self.assertFalse(list(out.glob("*")))

    def test_a_folder_of_arrays(self):
        _, expected = self.quantized(*DATA, *FIXED)
        images = self.images()
        forms = {
            "captures": lambda at, rows: np.savez(at.with_suffix(".npz"), inputs=rows),
            "batches": lambda at, rows: np.save(at.with_suffix(".npy"), rows),
        }
        for name, write in forms.items():
            folder = self.folder / name
            folder.mkdir()
            for first in range(0, len(images), 50):
                write(folder / f"{first:06}", images[first : first + 50])
            (folder / "notes.txt").write_text("left alone")
            with self.subTest(name):
                self.assertEqual(self.quantized("--calibration", folder, "--map", MAP, *FIXED)[1], expected)
        one_each = self.folder / "one-each"
        one_each.mkdir()
        for i, image in enumerate(images):
            np.save(one_each / f"{i:06}.npy", image)
        self.assertEqual(self.quantized("--calibration", one_each, "--map", MAP, *FIXED)[1], expected)
        np.save(one_each / "zz.npy", images[0].astype(np.float64))
        line = self.refused("--calibration", one_each, "--map", MAP)
        for word in ("zz.npy", "FP64", "000000.npy"):
            self.assertIn(word, line)
        (one_each / "zz.npy").write_bytes(b"no array")
        self.assertIn("zz.npy", self.refused("--calibration", one_each, "--map", MAP))
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertIn("no .npz or .npy file", self.refused("--calibration", empty, "--map", MAP))


if __name__ == "__main__":
    octet_process.main()
