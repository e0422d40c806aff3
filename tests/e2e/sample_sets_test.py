#!/usr/bin/env python3
"""Sets of samples that are larger than what a verb may hold: its memory does not grow with them, and it says the same.

usage: sample_sets_test.py OCTET
"""

import json
import pathlib
import shutil
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import octet_process
from octet_process import answer, octet, peak_of

SIDE, PATCH, CLASSES = 64, 8, 5
DISTINCT = 50  # Images; the others are these again.
SCALE, ZERO_POINT = 1 / 64, 128
FEW, MANY, TRAINED = 400, 6000, 3000  # 3,000 are 37 MB of bytes and 147 MB of reals.


class SampleSetsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        random = np.random.default_rng(64)
        cls.constants = {
            "kernel": random.standard_normal((8, 3, PATCH, PATCH), np.float32) / PATCH,
            "weights": random.standard_normal((CLASSES, 8), np.float32),
            "bias": random.standard_normal(CLASSES, np.float32) / 8,
        }
        blocks = random.integers(0, 256, (DISTINCT, 3, SIDE // PATCH, SIDE // PATCH), np.uint8)
        cls.images = blocks.repeat(PATCH, axis=2).repeat(PATCH, axis=3)
        cls.version = cls.folder / "1"
        cls.version.mkdir()
        cls.model = cls.version / "fp32.onnx"
        cls.write_model(cls.model)
        cls.map = cls.folder / "model.yaml"
        cls.map.write_text(f"inputs:\n  x:\n    wire: {{datatype: UINT8, scale: [{SCALE}], zero_point: [{ZERO_POINT}]}}\n")

    @classmethod
    def write_model(cls, path):
        """x [n, 3, 64, 64] -> a convolution of patches, its mean over the image -> scores [n, 5]."""
        nodes = [
            helper.make_node("Conv", ["x", "kernel"], ["patches"], strides=[PATCH, PATCH]),
            helper.make_node("Relu", ["patches"], ["active"]),
            helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["scores"], transB=1),
        ]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])]
        outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", CLASSES])]
        constants = [numpy_helper.from_array(array, name) for name, array in cls.constants.items()]
        graph = helper.make_graph(nodes, "patches", inputs, outputs, constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)

    def rows(self, count):
        return np.arange(count) * 7 % DISTINCT

    def labels(self, count):
        """Of every fourth image another class than the model's."""
        x = SCALE * (self.images.astype(np.float32) - ZERO_POINT)
        patches = x.reshape(DISTINCT, 3, SIDE // PATCH, PATCH, SIDE // PATCH, PATCH)
        active = np.maximum(np.einsum("nciyjx,ocyx->noij", patches, self.constants["kernel"], optimize=True), 0)
        classes = (active.mean(axis=(2, 3)) @ self.constants["weights"].T + self.constants["bias"]).argmax(axis=1)
        classes[::4] = (classes[::4] + 1) % CLASSES
        return classes[self.rows(count)]

    def sets(self, count):
        """Yields each form of one set with its path."""
        arrays = {"inputs": self.images[self.rows(count)], "labels": self.labels(count)}
        path = self.folder / "set.npz"
        np.savez(path, **arrays)
        yield "stored", path
        np.savez_compressed(path, **arrays)
        yield "compressed", path
        path.unlink()
        parts = self.folder / "parts"
        parts.mkdir()
        for first in range(0, count, 1000):
            np.savez(parts / f"{first:06}.npz", **{name: array[first : first + 1000] for name, array in arrays.items()})
        yield "folder", parts
        shutil.rmtree(parts)

    def expect_bounded(self, few, many):
        """Peaks of a verb by the form of its set."""
        for form, peak in many.items():
            self.assertLess(peak, 1.15 * few[form], f"{form}: {few} KiB of few samples, {many} of many")

    def test_eval(self):
        words = ("eval", self.model, "--map", self.map, "--reference", self.model, "--layers", "--json", "--data")
        peaks = {}
        for count in FEW, MANY:
            peaks[count] = {}
            results = []
            for form, path in self.sets(count):
                printed, peaks[count][form] = peak_of(*words, path)
                result = json.loads(printed)
                del result["items_per_second"]
                results.append(result)
            self.assertEqual(results, results[:1] * 3)
            self.assertEqual((results[0]["count"], results[0]["agreement"], results[0]["non_finite"]), (count, 100, 0))
            self.assertAlmostEqual(results[0]["top1"], 100 * np.mean(self.rows(count) % 4 != 0), places=6)
        self.expect_bounded(peaks[FEW], peaks[MANY])

    def test_qat(self):
        out = self.folder / "int8.onnx"
        words = ("qat", self.model, "--map", self.map, "--epochs", 1, "--labels", "--out", out, "--json", "--data")
        peaks = {}
        for count in FEW, TRAINED:
            peaks[count] = {}
            made = []
            for form, path in self.sets(count):
                _, peaks[count][form] = peak_of(*words, path)
                made.append(out.read_bytes())
            self.assertEqual(len(set(made)), 1)
        self.expect_bounded(peaks[FEW], peaks[TRAINED])

    def test_qat_by_the_fp32_model(self):
        out = self.folder / "taught.onnx"
        made = []
        for _, path in self.sets(FEW):
            answer("qat", self.model, "--map", self.map, "--epochs", 1, "--out", out, "--data", path)
            made.append(out.read_bytes())
        self.assertEqual(len(set(made)), 1)

    def test_golden_and_report(self):
        answer("quantize", self.model, "--to", "bf16", "--out", self.version)
        golden = ("golden", self.version, "--map", self.map, "--data")
        report = ("report", self.version, "--map", self.map, "--rounds", 1, "--seconds", 0.02, "--out", self.folder / "report.html", "--data")
        peaks = {"golden": {}, "report": {}}
        for count in FEW, MANY:
            for name, words in (("golden", golden), ("report", report)):
                peaks[name][count] = {form: peak_of(*words, path)[1] for form, path in self.sets(count)}
        (self.version / "golden.npz").unlink()
        for of_verb in peaks.values():
            self.expect_bounded(of_verb[FEW], of_verb[MANY])

    def test_an_array_by_itself(self):
        path = self.folder / "images.npy"
        np.save(path, self.images)
        result = answer("eval", self.model, "--data", path, "--map", self.map, "--reference", self.model)
        self.assertEqual((result["count"], result["top1"], result["agreement"]), (DISTINCT, None, 100))

    def test_a_file_that_ends_too_early(self):
        path = self.folder / "cut.npz"
        np.savez(path, inputs=self.images)
        content = bytearray(path.read_bytes())
        content[20000] ^= 1
        path.write_bytes(content)
        for words in (("eval", self.model), ("qat", self.model, "--out", self.folder / "refused.onnx"), ("golden", self.version)):
            done = octet(*words, "--data", path, "--map", self.map)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"{path}, member 'inputs.npy': CRC error", done.stderr)
        np.save(self.folder / "cut.npy", self.images)
        content = (self.folder / "cut.npy").read_bytes()
        (self.folder / "cut.npy").write_bytes(content[:-5])
        done = octet("eval", self.model, "--data", self.folder / "cut.npy", "--map", self.map)
        self.assertEqual(done.returncode, 1)
        size = self.images.nbytes
        self.assertIn(f"cut.npy: truncated or corrupt array: its header says {size} bytes of elements, {size - 5} are there", done.stderr)


class WholeInputsTest(unittest.TestCase):
    """A model of a waveform of any length and a state [2, 1, 3], whose samples nothing stacks: each file of a folder is one."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.version = cls.folder / "1"
        cls.samples = cls.folder / "samples"
        for made in cls.version, cls.samples:
            made.mkdir()
        random = np.random.default_rng(65)
        shapes = {"w1": (8, 1, 9), "w2": (4, 8, 1), "w3": (3, 4)}
        constants = [numpy_helper.from_array(random.standard_normal(shape, np.float32) / 3, name) for name, shape in shapes.items()]
        constants.append(numpy_helper.from_array(np.array([0, 1]), "axes"))
        nodes = [
            helper.make_node("Unsqueeze", ["wave", "axes"], ["image"]),
            helper.make_node("Conv", ["image", "w1"], ["a"], pads=[4, 4]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2"], ["c"]),
            helper.make_node("GlobalAveragePool", ["c"], ["d"]),
            helper.make_node("Flatten", ["d"], ["scores"]),
            helper.make_node("MatMul", ["state", "w3"], ["next"]),
        ]
        sizes = {"wave": ["samples"], "state": [2, 1, 3], "scores": [1, 4], "next": [2, 1, 4]}
        inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes[name]) for name in names] for names in (("wave", "state"), ("scores", "next")))
        graph = helper.make_graph(nodes, "waves", inputs, outputs, constants)
        cls.model = cls.version / "fp32.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), cls.model)
        for i in range(40):
            wave = random.standard_normal(200 + i % 3, np.float32)
            np.savez(cls.samples / f"{i:03}.npz", wave=wave, state=random.standard_normal((2, 1, 3), np.float32), labels=i % 4)

    def test_quantize_eval_and_report(self):
        for words in (), ("--min-sqnr-db", 20):
            made = answer("quantize", self.model, "--to", "int8", "--calibration", self.samples, "--out", self.version, *words)
            self.assertEqual(made[0]["precision"], "int8")
            result = answer("eval", self.version / "int8.onnx", "--data", self.samples, "--reference", self.model, "--layers")
            self.assertEqual(result["count"], 40)
            self.assertGreater(result["sqnr_db"], 20)
            self.assertIsNotNone(result["top1"])
        peak_of("report", self.version, "--data", self.samples, "--rounds", 1, "--seconds", 0.02, "--out", self.folder / "report.html")
        self.assertIn("int8", (self.folder / "report.html").read_text())

    def test_calibration_files(self):
        kept = self.folder / "kept.npz"
        answer("quantize", self.model, "--to", "int8", "--calibration", self.samples, "--save-calibration", kept, "--method", "min-max", "--out", self.folder / "a")
        answer("quantize", self.model, "--to", "int8", "--calibration-file", kept, "--method", "min-max", "--out", self.folder / "b")
        self.assertEqual((self.folder / "a/int8.onnx").read_bytes(), (self.folder / "b/int8.onnx").read_bytes())

    def test_golden_holds_the_first_sample(self):
        peak_of("golden", self.version, "--data", self.samples)
        with np.load(self.version / "golden.npz") as golden, np.load(self.samples / "000.npz") as first:
            np.testing.assert_array_equal(golden["wave"], first["wave"])
            np.testing.assert_array_equal(golden["state"], first["state"])
            self.assertEqual(golden["scores"].shape, (1, 4))

    def test_training_says_that_it_stacks_samples(self):
        refused = octet("qat", self.model, "--data", self.samples, "--out", self.folder / "trained.onnx")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("training stacks samples along axis 0", refused.stderr)


if __name__ == "__main__":
    octet_process.main()
