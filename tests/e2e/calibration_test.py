#!/usr/bin/env python3
"""What `octet quantize` learns from data: kept in a file, merged, gone on with; and every form that data come in.

usage: calibration_test.py OCTET
"""

import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import demo_model
import octet_process
from demo_model import FP32, MAP, mapped
from octet_process import answer, octet, peak_of, start
from small_disk import can_mount, on_small_disk

# A fifth of the demo's images: what is held here are bits, not how well they answer.
_folder = tempfile.TemporaryDirectory()
CALIBRATION = pathlib.Path(_folder.name, "calibration.npz")
with np.load(demo_model.CALIBRATION) as _arrays:
    np.savez(CALIBRATION, inputs=_arrays["inputs"][::5])
DATA = ("--calibration", CALIBRATION, "--map", MAP)
FIXED = ("--method", "percentile")
HALF = 32  # of the images, about
WORDS, WIDTH = 50, 16


def write_picture_model(path):
    """image [n, 3, 64, 64] -> a convolution of 8 by 8 and its mean -> scores [n, 8]: next to no work for 49 KB of a sample."""
    weights = numpy_helper.from_array(np.random.default_rng(4).standard_normal((8, 3, 8, 8), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["patches"], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["patches"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 64, 64])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 8])]
    graph = helper.make_graph(nodes, "pictures", inputs, outputs, [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def write_token_model(path):
    """ids [n, length] -> embeddings -> a product and its mean over the sequence -> scores [n, 4]."""
    random = np.random.default_rng(5)
    constants = {
        "table": random.standard_normal((WORDS, WIDTH), np.float32),
        "inner": random.standard_normal((WIDTH, WIDTH), np.float32),
        "outer": random.standard_normal((WIDTH, 4), np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "inner"], ["product"]),
        helper.make_node("Relu", ["product"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "outer"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, "tokens", inputs, outputs, [numpy_helper.from_array(a, name) for name, a in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


class CalibrationTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.made = 0

    def quantized(self, *words, model=FP32):
        """Returns what the verb prints about the int8 file, and the file's bytes."""
        self.made += 1
        (made,) = answer("quantize", model, "--to", "int8", "--out", self.folder / str(self.made), *words)
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
        recipes = [("--method", method) for method in ("min-max", "moving-average", "mse", "entropy")]
        recipes += [(*FIXED, *more) for more in (("--activations", "s8"), ("--no-equalize", "--per-tensor"), ("--no-compensate",))]
        for recipe in recipes:
            with self.subTest(recipe=recipe):
                _, from_data = self.quantized(*DATA, *recipe)
                _, from_file = self.quantized("--calibration-file", file, *recipe)
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
        np.savez(few, inputs=self.images()[:8])
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

    def interrupted_behind_a_line(self, *words):
        """Returns how a verb ends that is interrupted (SIGINT) between its first line of progress and its second, and what it says.

        There is no room for the second line, so that it waits for the signal however late that comes."""
        reader, writer = os.pipe()
        filled = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096) - 40
        os.write(writer, b"\n" * filled)
        command = [octet_process.executable(), *map(str, words)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writer) as process, open(reader, encoding="utf-8") as said:
            os.close(writer)
            until = time.monotonic() + 120
            while int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder) == filled:
                self.assertLess(time.monotonic(), until)
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            rest = said.read().lstrip()
            return process.wait(120), rest

    def test_what_was_interrupted_goes_on_to_the_same_files(self):
        whole = self.folder / "whole.npz"
        _, uninterrupted = self.quantized(*DATA, "--save-calibration", whole, *FIXED)
        parts = self.folder / "parts.npz"
        words = ("quantize", FP32, "--to", "int8", "--out", self.folder / "stopped", *DATA, "--save-calibration", parts, *FIXED)
        status, rest = self.interrupted_behind_a_line(*words)
        self.assertEqual(status, 1, rest)
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
            for first in range(0, len(images), 25):
                write(folder / f"{first:06}", images[first : first + 25])
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

    def test_memory_does_not_grow_with_the_samples(self):
        """250 samples against 2,000, which are 98 MB of FP32: read in place, and copied to disk where they are compressed."""
        model = self.folder / "pictures.onnx"
        write_picture_model(model)
        images = self.images().repeat(2, axis=2).repeat(2, axis=3)
        forms = {
            "FP32": lambda path, rows: np.savez(path, image=mapped(rows, MAP)),
            "compressed UINT8": lambda path, rows: np.savez_compressed(path, inputs=rows),
        }
        for name, write in forms.items():
            with self.subTest(name):
                peaks = []
                for count in 250, 2000:
                    path = self.folder / f"{count}.npz"
                    write(path, images[np.arange(count) % len(images)])
                    words = ("--calibration", path, *(() if name == "FP32" else ("--map", MAP)))
                    _, peak = peak_of("quantize", model, "--to", "int8", "--out", self.folder / "peak", *FIXED, *words)
                    peaks.append(peak)
                self.assertLess(peaks[1], 1.1 * peaks[0])

    def test_files_are_one_set_however_they_are_stored(self):
        """The same bits: of samples in one array, compressed, in the model's own type, and in several files."""
        images = self.images()
        np.savez_compressed(self.folder / "compressed.npz", inputs=images)
        np.savez(self.folder / "reals.npz", image=mapped(images, MAP))
        np.save(self.folder / "array.npy", images)
        np.savez(self.folder / "a.npz", inputs=images[:HALF])
        np.savez(self.folder / "b.npz", inputs=images[HALF:])
        several = ("--calibration", self.folder / "a.npz", "--calibration", self.folder / "b.npz", "--map", MAP)
        forms = {
            "compressed": ("--calibration", self.folder / "compressed.npz", "--map", MAP),
            "reals": ("--calibration", self.folder / "reals.npz"),
            "array": ("--calibration", self.folder / "array.npy", "--map", MAP),
            "several": several,
        }
        for recipe in FIXED, ():
            _, expected = self.quantized(*DATA, *recipe)
            for name, words in forms.items():
                with self.subTest(name, recipe=recipe):
                    self.assertEqual(self.quantized(*words, *recipe)[1], expected)
        np.savez(self.folder / "b.npz", inputs=images[HALF:], labels=np.zeros(len(images) - HALF, np.int64))
        self.assertIn(f"b.npz: an array 'labels': the {HALF} samples before it have none, expected all or none", self.refused(*several))
        np.savez(self.folder / "a.npz", inputs=images[:HALF], labels=np.zeros(HALF, np.int64))
        np.savez(self.folder / "b.npz", inputs=images[HALF:])
        self.assertIn(f"b.npz: no array 'labels': the {HALF} samples before it have theirs, expected all or none", self.refused(*several))

    def test_samples_of_several_shapes(self):
        model = self.folder / "tokens.onnx"
        write_token_model(model)
        folder = self.folder / "requests"
        folder.mkdir()
        random = np.random.default_rng(6)
        lengths = [5, 9, 12, 5, 30, 9, 17, 12]
        for i, length in enumerate(lengths):
            np.savez(folder / f"{i}.npz", ids=random.integers(0, WORDS, (8, length)))
        file = self.folder / "statistics.npz"
        words = ("--calibration", folder, "--save-calibration", file)
        _, fixed = self.quantized(*words, *FIXED, model=model)
        statistics = np.load(file)
        self.assertEqual(statistics["samples"].tolist(), [8 * len(lengths)] * 2)
        names = statistics["histograms/names"].tolist()
        counts = statistics["histograms/counts"].reshape(len(names), -1).sum(axis=1)
        self.assertEqual(counts[names.index(b"embedded")], 8 * sum(lengths) * WIDTH)
        _, again = self.quantized("--calibration-file", file, *FIXED, model=model)
        self.assertEqual(again, fixed)
        listed = [word for i in range(len(lengths)) for word in ("--calibration", folder / f"{i}.npz")]
        self.assertEqual(self.quantized(*listed, *FIXED, model=model)[1], fixed)
        for recipe in (), ("--min-sqnr-db", 15):
            with self.subTest(recipe=recipe):
                made, _ = self.quantized("--calibration", folder, *recipe, model=model)
                np.savez(self.folder / "eval.npz", ids=random.integers(0, WORDS, (64, 21)))
                result = answer("eval", made["file"], "--data", self.folder / "eval.npz", "--reference", model)
                self.assertGreater(result["sqnr_db"], 25)
        np.savez(folder / "8.npz", ids=random.integers(0, WORDS, (8, 7)).astype(np.int32))
        line = self.refused("--calibration", folder, model=model)
        for word in ("8.npz", "INT32", "0.npz"):
            self.assertIn(word, line)
        (folder / "8.npz").unlink()
        np.savez(folder / "8.npz", ids=np.zeros((8, 7, 1), np.int64))
        self.assertIn("8.npz", self.refused("--calibration", folder, model=model))

    def test_a_damaged_file_is_refused(self):
        path = self.folder / "damaged.npz"
        np.savez(path, inputs=self.images())
        content = bytearray(path.read_bytes())
        content[5000] ^= 1
        path.write_bytes(content)
        line = self.refused("--calibration", path, "--map", MAP)
        self.assertIn(str(path), line)
        self.assertIn("CRC", line)

    @unittest.skipUnless(can_mount(), "mounts a file system")
    def test_a_full_disk_for_compressed_samples(self):
        path = self.folder / "compressed.npz"
        images = self.images()
        np.savez_compressed(path, inputs=images[np.arange(2000) % len(images)])
        disk = self.folder / "disk"
        disk.mkdir()
        with mock.patch.dict(os.environ, {"TMPDIR": str(disk)}):
            done = on_small_disk(disk, "quantize", FP32, "--to", "int8", "--calibration", path, "--map", MAP, "--out", self.folder / "out")
        self.assertEqual(done.returncode, 1, done.stderr)
        line = done.stderr.splitlines()[-1]
        for word in ("octet: ", "TMPDIR", str(disk), "No space left on device"):
            self.assertIn(word, line)
        self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    octet_process.main()
