#!/usr/bin/env python3
"""Real trained models: golden outputs, accuracy of every precision, certificates, resident weights.

usage: real_models_test.py OCTET

Skipped in one line where ../shared is not there. Expected figures: ../shared/models/README.md.
"""

import functools
import pathlib
import tempfile
import unittest

import octet_process
import real_models
from beside_onnxruntime import BesideOnnxRuntime, real_samples
from octet_process import answer, octet
from real_models import MODELS, SHARED

# Per model: fp32's top-1, the best agreement with fp32 and the best SQNR that ONNX Runtime's int8 files reach, the shipped one
# included.
EXPECTED = {
    "resnet20-cifar10": (91.56, 99.22, 29.4),
    "ic-resnet8-large": (91.42, 99.24, 28.8),
    "squeezenet1.1": (58.00, 94.00, 23.9),
    "mobilenetv2": (69.33, 99.33, 25.7),
    "vww-mobilenetv1": (75.33, 98.67, 28.3),
    "kws-dscnn": (89.88, 99.50, 30.6),
}
ROUNDED = 0.005  # How far these may be from what was measured.
CIFAR10 = ("resnet20-cifar10", "ic-resnet8-large")
ONLY_FP32 = {"mnist-8": 98.30, "kwt1": 93.50}
SHIPPED = ("mobilenetv2", "shufflenetv2", "ic-resnet8-large", "vww-mobilenetv1", "kws-dscnn")
LARGE = "mobilenetv2"
HAS_BF16 = "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text()


@functools.cache
def evaluated(model, file, *more):
    return answer("eval", file, "--data", model.eval_data, "--map", model.map, *more)


class GoldenTest(unittest.TestCase):
    def check(self, file, golden, *tolerances):
        with self.subTest(file=file):
            done = octet("check", file, "--golden", golden, *tolerances)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_fp32(self):
        files = sorted((SHARED / "models").glob("*/1/fp32.onnx"))
        self.assertGreaterEqual(len(files), 9)
        for file in files:
            golden = file.parents[1] / "golden"
            if (golden / "fp32").is_dir():
                golden /= "fp32"
            if list(golden.glob("test_data_set_*")):  # mobilenetv2 has them for int8 alone
                self.check(file, golden, "--rtol", "1e-3", "--atol", "1e-4")

    def test_shipped_int8_within_two_steps(self):
        files = sorted((SHARED / "models").glob("*/1/int8.onnx"))
        self.assertGreaterEqual(len(files), 6)
        for file in files:
            self.check(file, file.parents[1] / "golden" / "int8", "--steps", "2")


class MadeTest(BesideOnnxRuntime):
    """What `octet quantize` makes with its default recipe."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.made = {}
        for name in (*EXPECTED, "kwt1"):
            model = MODELS[name]
            out = pathlib.Path(cls.folder.name) / name
            variants = answer("quantize", model.fp32, "--calibration", model.calibration_data, "--map", model.map, "--out", out)
            cls.made[name] = {variant["precision"]: variant for variant in variants}

    def file(self, name, precision):
        return self.made[name][precision]["file"]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_fp32_is_as_accurate_as_onnxruntime(self):
        top1 = {name: expected[0] for name, expected in EXPECTED.items()} | ONLY_FP32
        for name, expected in top1.items():
            with self.subTest(name):
                result = evaluated(MODELS[name], MODELS[name].fp32)
                self.assertAlmostEqual(result["top1"], expected, delta=100 / result["count"] + 0.005)

    def test_sixteen_bits_cost_next_to_nothing(self):
        for name, (top1, *_) in EXPECTED.items():
            for precision in ("fp16", "bf16"):
                with self.subTest(model=name, precision=precision):
                    result = evaluated(MODELS[name], self.file(name, precision))
                    allowed = max(0.15, 200 / result["count"]) + 0.005
                    self.assertAlmostEqual(result["top1"], top1, delta=allowed)

    def test_int8_agrees_with_fp32_like_the_best_of_onnxruntime(self):
        for name, (_, agreement, sqnr_db) in EXPECTED.items():
            with self.subTest(name):
                model = MODELS[name]
                result = evaluated(model, self.file(name, "int8"), "--reference", model.fp32)
                self.assertGreaterEqual(result["agreement"], agreement - ROUNDED)
                self.assertGreaterEqual(result["sqnr_db"], sqnr_db)

    def test_int8_is_as_accurate_as_fp32(self):
        """On the sets that have enough samples to tell: a sample of the others weighs more than the bar."""
        for name in CIFAR10:
            with self.subTest(name):
                model = MODELS[name]
                top1 = evaluated(model, self.file(name, "int8"), "--reference", model.fp32)["top1"]
                self.assertAlmostEqual(top1, evaluated(model, model.fp32)["top1"], delta=0.15 + 1e-6)

    def test_onnxruntime_answers_alike(self):
        for name, variants in self.made.items():
            self.assertEqual(len(variants), 4)
            samples = real_samples(MODELS[name])
            for precision, variant in variants.items():
                with self.subTest(model=name, precision=precision):
                    self.compare(MODELS[name], precision, variant["file"], samples)

    def certified(self, file):
        certificate = answer("inspect", file)
        self.assertEqual(certificate["precision"], "int8")
        self.assertGreaterEqual(certificate["mac_share"]["int8"], 0.97)
        slow = [layer for layer in certificate["layers"] if layer["impl"].startswith("ref")]
        self.assertFalse(slow)

    def test_int8_runs_in_int8_and_nothing_by_reference(self):
        for name in SHIPPED:
            with self.subTest(shipped=name):
                self.certified(SHARED / "models" / name / "1" / "int8.onnx")
        for name in EXPECTED:
            with self.subTest(made=name):
                self.certified(self.file(name, "int8"))

    @unittest.skipUnless(HAS_BF16, "this processor has no bf16 arithmetic")
    def test_bf16_runs_on_bf16_kernels(self):
        for name in EXPECTED:
            with self.subTest(name):
                layers = answer("inspect", self.file(name, "bf16"))["layers"]
                self.assertFalse([layer for layer in layers if layer["macs"] and layer["runs"] != "bf16"])
                # Kernels of our own are named by the vectors that they run on: one row of a product, and depthwise convolutions.
                kernels = ("bf16", "octet:gemv", "octet:depthwise")
                others = [layer for layer in layers if layer["macs"] and not any(k in layer["impl"] for k in kernels)]
                self.assertFalse(others)

    def test_what_int8_breaks_stays_in_float(self):
        """A spectrum and its logarithm fill more powers of two than eight bits hold; all else of this model is int8."""
        made = self.made["kwt1"]["int8"]
        self.assertGreaterEqual(evaluated(MODELS["kwt1"], made["file"])["top1"], 93.0 - 0.005)
        self.assertGreaterEqual(answer("inspect", made["file"])["mac_share"]["int8"], 0.70)
        self.assertEqual(octet("inspect", made["file"], "--require-int8", "70").returncode, 0)
        refused = octet("inspect", made["file"], "--require-int8", "90")
        self.assertNotEqual(refused.returncode, 0)
        chosen = [point for point in made["mixed"]["points"] if point["chosen"]]
        self.assertEqual(len(chosen), 1)
        self.assertTrue(chosen[0]["holds"])
        self.assertFalse(made["mixed"]["measured_times"])
        layers = made["mixed"]["layers"]
        self.assertEqual(chosen[0]["float_layers"], sum(layer["precision"] == "f32" for layer in layers))
        self.assertEqual(chosen[0]["bf16_layers"], 0)

    def test_a_floor_is_held_by_the_fastest_mixture(self):
        """In int8, bf16 and f32 by measured times; the certificate is that of the table's row. Which mixture is the fastest is for
        the clock to say: what is held against it are the times that it was chosen by."""
        for name, floor_db in (("kwt1", 30), ("resnet20-cifar10", 44)):
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                model = MODELS[name]
                words = ("--calibration", model.calibration_data, "--map", model.map, "--out", folder, "--min-sqnr-db", floor_db)
                (made,) = answer("quantize", model.fp32, "--to", "int8", *words)
                mixed = made["mixed"]
                self.assertTrue(mixed["measured_times"])
                (chosen,) = [point for point in mixed["points"] if point["chosen"]]
                self.assertTrue(chosen["holds"] and chosen["on_front"])
                self.assertGreaterEqual(chosen["sqnr_db"], floor_db)
                self.assertEqual(chosen["us_per_sample"], min(p["us_per_sample"] for p in mixed["points"] if p["holds"]))
                front = [(p["us_per_sample"], p["sqnr_db"]) for p in mixed["points"] if p["on_front"]]
                self.assertEqual(front, sorted(front))
                self.assertEqual([db for _, db in front], sorted(db for _, db in front))
                # All in int8 breaks the floor: there are mixtures with less of it, not all of them with the same, and this is one.
                self.assertTrue(any(point["int8_share"] > chosen["int8_share"] and not point["holds"] for point in mixed["points"]))
                self.assertGreater(len({point["int8_share"] for point in mixed["points"] if point["holds"]}), 1)
                self.assertGreater(chosen["int8_share"], 0)
                share = answer("inspect", made["file"])["mac_share"]
                self.assertAlmostEqual(share["int8"], chosen["int8_share"], places=6)
                self.assertAlmostEqual(share.get("bf16", 0), chosen["bf16_share"], places=6)
                self.assertTrue(all(layer["f32_us"] is not None for layer in mixed["layers"]))
                if HAS_BF16:
                    self.assertTrue(all(layer["bf16_us"] is not None for layer in mixed["layers"]))
                    self.assertTrue(any(point["bf16_layers"] for point in mixed["points"]), "none was tried")
                result = evaluated(model, made["file"], "--reference", model.fp32)
                fp32 = evaluated(model, model.fp32)
                self.assertGreaterEqual(result["top1"], fp32["top1"] - 0.5)
                # Held on calibration samples; others may be a little harder.
                self.assertGreaterEqual(result["sqnr_db"], floor_db - 4)
                self.assertNotIn("bf16", answer("inspect", made["file"], "--precision", "fp32")["mac_share"])

    def test_int8_weights_take_less_than_a_third_of_fp32s_memory(self):
        model = MODELS[LARGE]
        fp32 = answer("inspect", model.fp32)["weights_bytes"]
        for file in (model.shipped_int8, self.file(LARGE, "int8")):
            with self.subTest(file):
                self.assertLessEqual(answer("inspect", file)["weights_bytes"], 0.30 * fp32)


if __name__ == "__main__":
    real_models.skip_when_absent()
    octet_process.main()
