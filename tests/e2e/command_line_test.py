#!/usr/bin/env python3
"""Runs the verbs of `octet` on the demo model as a user would.

usage: command_line_test.py OCTET
"""

import os
import pathlib
import re
import shutil
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import octet_process
from demo_model import CALIBRATION, FP32, MAP, TEST
from octet_process import answer, octet


class QuantizedDemoTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.made = {
            row["precision"]: row
            for row in answer("quantize", FP32, "--calibration", CALIBRATION, "--map", MAP, "--out", cls.folder.name)
        }

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def evaluate(self, precision, data):
        return answer("eval", self.made[precision]["file"], "--data", data, "--map", MAP, "--reference", FP32)

    def test_golden_answers_are_for_whoever_may_read_the_model(self):
        version = pathlib.Path(self.folder.name) / "golden"
        version.mkdir()
        shutil.copy(FP32, version / "fp32.onnx")
        done = octet("golden", version, "--data", TEST, "--map", MAP, "--samples", "4")
        self.assertEqual(done.returncode, 0, done.stderr)
        umask = os.umask(0)
        os.umask(umask)
        self.assertEqual((version / "golden.npz").stat().st_mode & 0o777, 0o666 & ~umask)

    def test_a_scalar_may_be_a_golden_answer(self):
        version = pathlib.Path(self.folder.name) / "sum"
        version.mkdir()
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", ["N", 4]), ("y", [])))
        graph = helper.make_graph([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], "sum", [x], [y])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), version / "fp32.onnx")
        np.savez(version / "samples.npz", x=np.ones((3, 4), np.float32))
        done = octet("golden", version, "--data", version / "samples.npz")
        self.assertEqual(done.returncode, 0, done.stderr)
        with np.load(version / "golden.npz") as golden:
            self.assertEqual((golden["y"].shape, golden["y"].item()), ((), 12))

    def test_every_precision_is_made_and_smaller(self):
        self.assertEqual(set(self.made), {"fp16", "bf16", "int8", "int8-dynamic"})
        for precision in ("fp16", "bf16"):
            self.assertLess(self.made[precision]["ratio"], 0.53)
        for precision in ("int8", "int8-dynamic"):
            self.assertLess(self.made[precision]["ratio"], 0.30)

    def test_accuracy_stays_within_half_a_point_of_fp32(self):
        fp32 = answer("eval", FP32, "--data", TEST, "--map", MAP)
        self.assertEqual(fp32["count"], 1536)
        self.assertTrue(90 <= fp32["top1"] <= 99, fp32)
        for precision, agreement in (("fp16", 99.8), ("bf16", 99.5), ("int8", 99.0)):
            with self.subTest(precision):
                result = self.evaluate(precision, TEST)
                self.assertGreaterEqual(result["top1"], fp32["top1"] - 0.5)
                self.assertGreaterEqual(result["agreement"], agreement)

    def test_dynamic_ranges_agree_with_fp32(self):
        result = self.evaluate("int8-dynamic", CALIBRATION)
        self.assertEqual(result["count"], 320)
        self.assertGreaterEqual(result["agreement"], 98.5)

    def test_every_layer_is_compared_with_fp32(self):
        result = answer("eval", self.made["int8"]["file"], "--data", CALIBRATION, "--map", MAP, "--reference", FP32, "--layers")
        operators = [layer["operator"] for layer in result["layers"]]
        self.assertIn("BatchNormalization", operators, "a folded one leaves its result's name to the convolution")
        self.assertIn("Gemm", operators)
        self.assertGreater(len(operators), 10)
        for layer in result["layers"]:
            if layer["sqnr_db"] is not None:
                self.assertGreater(layer["sqnr_db"], 15, layer)

    def test_certificate_proves_int8(self):
        certificate = answer("inspect", self.made["int8"]["file"])
        self.assertEqual(certificate["precision"], "int8")
        self.assertGreaterEqual(certificate["mac_share"]["int8"], 0.97)
        for layer in certificate["layers"]:
            if layer["macs"]:
                self.assertEqual(layer["runs"], "int8", layer)
                self.assertNotIn("ref", layer["impl"], layer)

    def test_bench_reports_the_floor(self):
        rows = answer("bench", FP32, "--batch", "1,4", "--seconds", "0.1")
        self.assertEqual([row["batch"] for row in rows], [1, 4])
        for row in rows:
            self.assertGreater(row["latency_ms"]["min"], 0)
            self.assertGreater(row["primitive_sum_ms"], 0)
            self.assertGreater(row["primitives_in_place_ms"], 0)

    def test_bench_says_where_the_time_goes(self):
        (row,) = answer("bench", FP32, "--seconds", "0.1", "--layers")
        inspected = answer("inspect", FP32)["layers"]
        self.assertEqual([layer["name"] for layer in row["layers"]], [layer["name"] for layer in inspected])
        for layer in row["layers"]:
            self.assertGreater(layer["in_order_ms"], 0)
            self.assertEqual(layer["alone_ms"] > 0, layer["macs"] > 0 or "jit" in layer["implementation"], layer)
        self.assertAlmostEqual(sum(layer["alone_ms"] for layer in row["layers"]), row["primitive_sum_ms"], places=6)
        in_place = sum(layer["in_order_ms"] for layer in row["layers"] if layer["alone_ms"] > 0)
        self.assertAlmostEqual(in_place, row["primitives_in_place_ms"], places=6)
        listed = octet("bench", FP32, "--seconds", "0.1", "--layers").stdout
        self.assertIn("the longest first", listed)
        self.assertEqual(sum(layer["implementation"] in listed for layer in row["layers"]), len(row["layers"]))

    def test_a_quantized_model_is_refused(self):
        done = octet("quantize", self.made["int8"]["file"], "--to", "int8-dynamic", "--out", self.folder.name + "/again")
        self.assertEqual(done.returncode, 1)
        self.assertIn("quantized already", done.stderr)

    def test_unmet_int8_share_is_refused(self):
        done = octet("inspect", FP32, "--require-int8", "95")
        self.assertEqual(done.returncode, 1)
        self.assertIn("int8", done.stderr)


class OpenExtentsTest(unittest.TestCase):
    """A model whose extents only a request knows: x [n, 3, h, w] -> convolution, + shift [n, 4, 1, 1] -> y."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = pathlib.Path(cls.folder.name) / "open.onnx"
        weights = np.random.default_rng(3).standard_normal((4, 3, 3, 3), np.float32)
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Add", ["r", "shift"], ["y"]),
        ]
        inputs = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"]),
            helper.make_tensor_value_info("shift", TensorProto.FLOAT, ["n", 4, 1, 1]),
        ]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, "oh", "ow"])]
        graph = helper.make_graph(nodes, "open", inputs, outputs, [numpy_helper.from_array(weights, "w")])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), cls.model)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def macs(self, *words):
        return answer("inspect", self.model, *words)["macs"]

    def test_a_shape_is_inspected(self):
        one = self.macs("--shape", "x=1x3x10x18")
        self.assertEqual(one, 8 * 16 * 4 * 27)
        self.assertEqual(self.macs("--shape", "x=?x3x10x18", "--batch", "3"), 3 * one)
        self.assertEqual(self.macs("--shape", "x=2x3x10x18", "--shape", "shift=2x4x1x1"), 2 * one)

    def test_a_shape_is_measured(self):
        rows = answer("bench", self.model, "--shape", "x=?x3x10x18", "--batch", "1,2", "--seconds", "0.05")
        self.assertEqual([row["batch"] for row in rows], [1, 2])
        self.assertEqual(rows[1]["macs"], 2 * rows[0]["macs"])

    def test_passes_are_bisected_at_a_shape(self):
        done = octet("check", self.model, "--bisect-passes", "--shape", "x=?x3x10x18")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("no pass changes an answer", done.stdout)

    def test_what_no_shape_says_is_named(self):
        done = octet("inspect", self.model)
        self.assertEqual(done.returncode, 2)
        for word in ("'x'", "[?,3,?,?]", "--shape x="):
            self.assertIn(word, done.stderr)

    def test_shapes_that_do_not_fit(self):
        fits = "x=1x3x10x18"
        for words, said in (
            (("y=1x3",), "the model has no input 'y', its inputs are 'x', 'shift'"),
            (("x=1x3x10",), "shape of input 'x': expected [?,3,?,?], got [1,3,10]"),
            (("x=1x4x10x18",), "expected [?,3,?,?], got [1,4,10,18]"),
            ((fits, fits), "input 'x' is given twice"),
            (("x=1x3x100000x100000",), "expected at most 4294967296 elements"),
            (("x",), "expected NAME=EXTENTxEXTENT..., got 'x'"),
            (("x=1x3xx18",), "got 'x=1x3xx18'"),
            (("x=1x3x0x18",), "got 'x=1x3x0x18'"),
            (("x=1x3x?x18",), "got 'x=1x3x?x18'"),
            (("x=",), "got 'x='"),
        ):
            given = [word for shape in words for word in ("--shape", shape)]
            for verb in (("inspect",), ("bench", "--seconds", "0.05"), ("check", "--bisect-passes")):
                with self.subTest(words=words, verb=verb[0]):
                    done = octet(verb[0], self.model, *verb[1:], *given)
                    self.assertEqual(done.returncode, 2, done.stderr)
                    self.assertIn(said, done.stderr)

    def test_a_shape_that_nobody_reads(self):
        shape = ("--shape", "x=1x3x10x18")
        for words in (("inspect", "--dump"), ("inspect", "--passes"), ("check", "--golden", "none"), ("bench", "--inputs", self.model)):
            with self.subTest(words=words):
                self.assertEqual(octet(words[0], self.model, *words[1:], *shape).returncode, 2)


class ReferenceTest(unittest.TestCase):
    """What `octet eval` compares with, and what it says of answers without classes."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        random = np.random.default_rng(5)
        self.data = self.folder / "data.npz"
        a, b = (random.standard_normal((20, 3), np.float32) for _ in range(2))
        np.savez(self.data, a=a, b=b, labels=np.zeros(20, np.int64))

    def write(self, name, inputs, nodes, width=3, dtype=TensorProto.FLOAT):
        """Writes a model of these inputs, [N, 3] each, and the output y, float [N, width]."""
        ends = [helper.make_tensor_value_info(end, dtype, ["N", 3]) for end in inputs]
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])
        graph = helper.make_graph(nodes, "net", ends, [y])
        file = self.folder / name
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
        return file

    def test_a_reference_of_other_inputs_is_refused(self):
        less = [helper.make_node("Sub", ["a", "b"], ["y"])]
        model = self.write("model.onnx", "ab", less)
        self.assertEqual(answer("eval", model, "--data", self.data, "--reference", model)["agreement"], 100)
        whole = [helper.make_node("Cast", [name], [f"{name}_real"], to=TensorProto.FLOAT) for name in "ab"]
        whole.append(helper.make_node("Sub", ["a_real", "b_real"], ["y"]))
        for name, inputs, nodes, dtype, said in (
            ("turned.onnx", "ba", less, TensorProto.FLOAT, "the reference takes another input 0 than the model: expected 'a' FP32, got 'b' FP32"),
            ("whole.onnx", "ab", whole, TensorProto.INT32, "expected 'a' FP32, got 'a' INT32"),
            ("one.onnx", "a", [helper.make_node("Neg", ["a"], ["y"])], TensorProto.FLOAT, "other inputs than the model: expected 2, got 1"),
        ):
            with self.subTest(name):
                done = octet("eval", model, "--data", self.data, "--reference", self.write(name, inputs, nodes, dtype=dtype))
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertIn(said, done.stderr)

    def test_a_label_that_is_no_class(self):
        model = self.write("model.onnx", "ab", [helper.make_node("Sub", ["a", "b"], ["y"])])
        with np.load(self.data) as arrays:
            for label in (3, -1):
                labels = np.zeros(20, np.int64)
                labels[9] = label
                np.savez(self.folder / "labels.npz", a=arrays["a"], b=arrays["b"], labels=labels)
                done = octet("eval", model, "--data", self.folder / "labels.npz")
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertIn(f"label of sample 9: expected 0 to 2, got {label}", done.stderr)

    def test_a_single_score_is_the_best_of_nothing(self):
        nodes = [helper.make_node("ReduceMax", ["a"], ["y"], axes=[1], keepdims=1)]
        other = [helper.make_node("ReduceMin", ["a"], ["y"], axes=[1], keepdims=1)]
        model, reference = self.write("max.onnx", "a", nodes, 1), self.write("min.onnx", "a", other, 1)
        judged = answer("eval", model, "--data", self.data, "--reference", reference)
        self.assertEqual((judged["count"], judged["top1"], judged["agreement"]), (20, None, None))
        self.assertIsNotNone(judged["sqnr_db"])

    def test_a_vector_may_be_the_scores_of_one_sample_and_a_map_is_none(self):
        random = np.random.default_rng(7)
        data = self.folder / "wide.npz"
        np.savez(data, x=random.standard_normal((20, 8), np.float32), labels=np.full(20, 3))
        bias = np.zeros(10, np.float32)
        bias[3] = 1000
        weights = {"w": random.standard_normal((8, 10), np.float32), "bias": bias, "boxes": random.standard_normal((8, 400), np.float32)}
        scores = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "bias"], ["scores"])]
        boxes = [helper.make_node("MatMul", ["x", "boxes"], ["flat"])]
        for rows, shape, nodes, percent in (
            (1, [10], scores, 100),
            ("N", ["N", 1, 1, 10], scores, 100),
            ("N", ["N", 100, 4], boxes, None),
        ):
            with self.subTest(shape=shape):
                sizes = np.array([-1 if extent == "N" else extent for extent in shape], np.int64)
                tensors = [numpy_helper.from_array(value, name) for name, value in {**weights, "sizes": sizes}.items()]
                last = helper.make_node("Reshape", [nodes[-1].output[0], "sizes"], ["y"])
                x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 8])
                y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
                graph = helper.make_graph([*nodes, last], "net", [x], [y], tensors)
                model = self.folder / "shaped.onnx"
                onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
                judged = answer("eval", model, "--data", data, "--reference", model)
                self.assertEqual((judged["count"], judged["top1"], judged["agreement"]), (20, percent, percent))

    def test_layers_are_compared_in_the_files_own_precision(self):
        words = ("--data", TEST, "--map", MAP, "--reference", FP32, "--layers", "--precision", "bf16")
        self.assertEqual(octet("eval", FP32, *words).returncode, 2)


class FloorTest(unittest.TestCase):
    def test_a_file_that_no_mixture_makes_less_noisy_says_so(self):
        """One sample reaches a thousand times as far as the others: whichever of them judge, int8 answers nothing like fp32."""
        random = np.random.default_rng(3)
        x = random.standard_normal((40, 8)).astype(np.float32)
        x[7] *= 1000
        weights = {"a": random.standard_normal((8, 16)).astype(np.float32), "b": random.standard_normal((16, 4)).astype(np.float32)}
        nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("Relu", ["h"], ["r"]), helper.make_node("MatMul", ["r", "b"], ["y"])]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name, width in (("x", 8), ("y", 4))]
        tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
        graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
        with tempfile.TemporaryDirectory() as folder:
            model, data = pathlib.Path(folder, "net.onnx"), pathlib.Path(folder, "data.npz")
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
            np.savez(data, x=x)
            done = octet("quantize", model, "--to", "int8", "--calibration", data, "--out", folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^  noisy outputs: SQNR \S+ dB: no layer can be in int8 with a floor of SQNR of at least 30 dB")

    def test_a_loss_of_top1_is_held(self):
        """On samples that were held back, by labels; others are answered as well as that."""
        with tempfile.TemporaryDirectory() as folder:
            data = ("--calibration", CALIBRATION, "--map", MAP)
            (made,) = answer("quantize", FP32, "--to", "int8", *data, "--max-drop", "0.7", "--out", folder)
            (chosen,) = [point for point in made["mixed"]["points"] if point["chosen"]]
            self.assertTrue(chosen["holds"])
            self.assertLessEqual(chosen["lost"], 0.7)
            self.assertLessEqual(chosen["drop"], chosen["lost"])
            self.assertIn("loss of top-1 of at most 0.7 points", made["mixed"]["floor"])
            top1 = answer("eval", made["file"], "--data", TEST, "--map", MAP)["top1"]
            fp32 = answer("eval", FP32, "--data", TEST, "--map", MAP)["top1"]
            self.assertGreaterEqual(top1, fp32 - 0.7)


class BadInputTest(unittest.TestCase):
    def test_missing_model_is_named(self):
        done = octet("inspect", "/nonexistent/model.onnx")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nonexistent/model.onnx", done.stderr)

    def test_garbage_is_no_model(self):
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(b"\xff" * 1000)
            file.flush()
            done = octet("inspect", file.name)
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stderr.startswith("octet: "), done.stderr)

    def test_int8_needs_calibration(self):
        with tempfile.TemporaryDirectory() as folder:
            done = octet("quantize", FP32, "--to", "int8", "--out", folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--calibration", done.stderr)

    def test_unknown_pass_is_refused(self):
        done = octet("inspect", FP32, "--disable-pass", "no_such_pass")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no_such_pass", done.stderr)

    def test_output_that_cannot_be_written_is_a_failure(self):
        for words in (("--help",), ("inspect", FP32, "--json"), ("check", "--help"), ("bench", FP32, "--seconds", "0.01", "--json")):
            with self.subTest(words=words), open("/dev/full", "w", encoding="utf-8") as full:
                done = octet(*words, stdout=full)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("octet: cannot write standard output", done.stderr.splitlines()[-1])

    def test_wrong_usage_ends_with_2(self):
        self.assertEqual(octet("inspect").returncode, 2)
        unknown = octet("diff", "x")
        self.assertEqual(unknown.returncode, 2)
        self.assertRegex(unknown.stderr, r"^octet: expected a verb, one of serve, quantize, .*, rollout, got 'diff'\n$")
        self.assertEqual(octet().returncode, 2)

    def test_what_prints_no_json_takes_no_json(self):
        for words in (("--dump", "--json"), ("--passes", "--json"), ("--dump", "--passes")):
            self.assertEqual(octet("inspect", FP32, *words).returncode, 2, words)

    def test_a_number_that_is_none_ends_with_2(self):
        """A floor that is NaN would hold of everything."""
        verbs = {
            "quantize": ((FP32, "--out", "x"), ("--percentile", "--max-drop", "--min-agreement", "--min-sqnr-db")),
            "qat": ((FP32, "--data", "x", "--out", "x"), ("--learning-rate", "--blend", "--held-back")),
            "inspect": ((FP32,), ("--require-int8",)),
            "check": ((FP32,), ("--rtol", "--atol", "--steps")),
            "bench": ((FP32,), ("--seconds", "--require-int8")),
            "load": (("--target", "x", "--model", "x"), ("--seconds", "--timeout-seconds")),
            "report": ((FP32, "--data", "x", "--out", "x"), ("--seconds",)),
            "top": (("--server", "x"), ("--seconds",)),
            "replay": (("x", "--server", "x", "--model", "x"), ("--min-agreement", "--min-sqnr-db", "--timeout-seconds")),
            "rollout": (
                ("x", "--server", "x", "--repository", "x"),
                (
                    "--shadow-percent",
                    "--ramp",
                    "--min-agreement",
                    "--min-sqnr-db",
                    "--max-error-percent",
                    "--max-p99-us",
                    "--require-int8",
                ),
            ),
        }
        for verb, (words, options) in verbs.items():
            for option in options:
                for value in ("nan", "-nan", "inf", "NaN(1)"):
                    with self.subTest(verb=verb, option=option, value=value):
                        done = octet(verb, *words, f"{option}={value}")
                        self.assertEqual(done.returncode, 2, done.stderr)
                        self.assertIn(option, done.stderr)
                        self.assertIn(value, done.stderr)

    def test_a_precision_named_twice_is_made_once(self):
        with tempfile.TemporaryDirectory() as folder:
            made = answer("quantize", FP32, "--to", "fp16,bf16,fp16", "--out", folder)
        self.assertEqual([row["precision"] for row in made], ["fp16", "bf16"])

    def test_a_folder_whose_name_is_no_utf8(self):
        with tempfile.TemporaryDirectory() as folder:
            (made,) = answer("quantize", FP32, "--to", "bf16", "--out", os.path.join(folder, os.fsdecode(b"caf\xe9")))
        self.assertRegex(made["file"], "caf\N{REPLACEMENT CHARACTER}/bf16.onnx$")

    def test_every_verb_has_help(self):
        verbs = re.findall(r"(?m)^  ([a-z]+) ", octet("--help").stdout)
        self.assertLessEqual({"serve", "quantize", "qat", "golden", "report", "experiments", "top", "rollout"}, set(verbs))
        for verb in verbs:
            done = octet(verb, "--help")
            self.assertEqual(done.returncode, 0, verb)
            self.assertNotRegex(done.stdout, r"[^\n -~]", f"{verb}: what a terminal cannot show")
        self.assertIn("--arrivals TEXT:{poisson,constant} [poisson]", octet("load", "--help").stdout)

    def test_every_verb_that_takes_a_folder_of_samples_says_so(self):
        for verb in ("quantize", "golden", "eval", "report", "qat", "load", "replay", "rollout"):
            words = " ".join(octet(verb, "--help").stdout.split())
            self.assertRegex(words, r"\.npz or \.npy file, .*or a folder of them", verb)


if __name__ == "__main__":
    octet_process.main()
