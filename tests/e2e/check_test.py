#!/usr/bin/env python3
"""`octet check` against golden folders in ONNX's test_data_set form, by tolerance and by quantization steps.

usage: check_test.py OCTET
"""

import json
import pathlib
import tempfile
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import octet_process
from octet_process import octet

SCALE = 0.5
X = np.array([[1.0, -2.0, 3.5, 0.5]], np.float32)  # Whole steps: quantizing leaves them as they are.


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def write_model(path, nodes, x=(1, 4), y=(1, 4), answers=TensorProto.FLOAT):
    """Writes a model of one input x, float, and one output y, of these shapes; the nodes may use `scale` and `zero`."""
    info = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in (("x", TensorProto.FLOAT, x), ("y", answers, y))]
    constants = [
        numpy_helper.from_array(np.float32(SCALE), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    graph = helper.make_graph(nodes, "quantized", info[:1], info[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def quantized(result):
    return [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], [result]),
    ]


class CheckTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.model = self.folder / "int8.onnx"

    def golden(self, expected, x=X):
        """Writes one set that expects this of x."""
        data = self.folder / "golden/test_data_set_0"
        data.mkdir(parents=True, exist_ok=True)
        for name, tensor in (("input_0", x), ("output_0", expected)):
            kind = tensor.dtype if tensor.dtype.kind in "iu" else np.float32
            (data / f"{name}.pb").write_bytes(numpy_helper.from_array(tensor.astype(kind)).SerializeToString())
        return self.folder / "golden"

    def check(self, expected, *words, x=X):
        """Returns the verb's exit code and its only comparison."""
        done = octet("check", self.model, "--golden", self.golden(expected, x), *words, "--json")
        self.assertIn(done.returncode, (0, 1), done.stderr)
        (comparison,) = json.loads(done.stdout)["comparisons"]
        return done.returncode, comparison

    def test_elements_are_compared_by_tolerance(self):
        write_model(self.model, quantized("y"))
        code, comparison = self.check(X)
        self.assertEqual((code, comparison["mismatches"]), (0, 0))
        off = X + np.array([[0, 0, 0, 0.5]], np.float32)
        code, comparison = self.check(off)
        self.assertEqual((code, comparison["mismatches"], comparison["max_abs"]), (1, 1, 0.5))
        self.assertNotIn("max_steps", comparison)
        self.assertEqual(self.check(off, "--atol", "0.5")[0], 0)

    def test_steps_of_a_dequantized_output(self):
        write_model(self.model, quantized("y"))
        off = X + np.array([[0, 2 * SCALE, 0, -SCALE]], np.float32)
        code, comparison = self.check(off, "--steps", "2")
        self.assertEqual(code, 0)
        self.assertAlmostEqual(comparison["max_steps"], 2, places=4)
        self.assertEqual(self.check(off, "--steps", "1.5")[0], 1)

    def test_integers_are_steps_themselves(self):
        write_model(self.model, quantized("r")[:1] + [helper.make_node("Identity", ["q"], ["y"])], answers=TensorProto.INT8)
        off = (X / SCALE + [[0, 2, 0, -1]]).astype(np.int8)
        code, comparison = self.check(off, "--steps", "2")
        self.assertEqual((code, comparison["max_steps"]), (0, 2))
        self.assertEqual(self.check(off, "--steps", "1")[0], 1)

    def test_integers_have_no_share_of_themselves_to_be_off_by(self):
        far = 2**60  # Neighbours there are one double.
        for kind in (np.int64, np.uint64):
            with self.subTest(kind.__name__):
                onnx_kind = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
                nodes = [
                    helper.make_node("Abs", ["x"], ["whole"]),
                    helper.make_node("Cast", ["whole"], ["i"], to=onnx_kind),
                    helper.make_node("Constant", [], ["far"], value=helper.make_tensor("far", onnx_kind, [], [far])),
                    helper.make_node("Add", ["i", "far"], ["y"]),
                ]
                write_model(self.model, nodes, answers=onnx_kind)
                expected = np.trunc(np.abs(X)).astype(kind) + kind(far)
                code, comparison = self.check(expected)
                self.assertEqual((code, comparison["mismatches"]), (0, 0))
                expected[0, 2] += kind(1)
                expected[0, 3] -= kind(3)
                code, comparison = self.check(expected)
                self.assertEqual((code, comparison["mismatches"], comparison["max_abs"]), (1, 2, 3))
                self.assertEqual(self.check(expected, "--atol", "2")[1]["mismatches"], 1)
                self.assertEqual(self.check(expected, "--atol", "3")[0], 0)

    def test_steps_are_told_from_the_shares_of_a_softmax(self):
        write_model(self.model, [*quantized("logits"), helper.make_node("Softmax", ["logits"], ["y"])])
        self.assertEqual(self.check(softmax(X))[0], 0)
        # One logit 2 steps higher: no shift of all is nearer than 1 step.
        off = softmax(X + np.array([[2 * SCALE, 0, 0, 0]], np.float32))
        self.assertEqual(self.check(off)[0], 1)
        code, comparison = self.check(off, "--steps", "1")
        self.assertEqual(code, 0)
        self.assertAlmostEqual(comparison["max_steps"], 1, places=4)
        self.assertEqual(self.check(off, "--steps", "0.9")[0], 1)

    def test_no_number_is_never_near(self):
        write_model(self.model, quantized("y"))
        self.assertEqual(self.check(X * np.nan)[0], 1)
        self.assertEqual(self.check(X * np.nan, "--steps", "2")[0], 1)

    def test_nothing_but_itself_is_near_an_infinity(self):
        write_model(self.model, [helper.make_node("Identity", ["x"], ["y"])])
        for infinity in (np.inf, -np.inf):
            expected = X.copy()
            expected[0, 1] = infinity
            code, comparison = self.check(expected)
            self.assertEqual((code, comparison["mismatches"]), (1, 1))
        divided = [helper.make_node("Sub", ["x", "x"], ["zeros"]), helper.make_node("Div", ["x", "zeros"], ["y"])]
        write_model(self.model, divided)
        with np.errstate(divide="ignore"):
            infinities = X / np.float32(0)
        self.assertEqual(self.check(infinities)[0], 0)
        self.assertEqual(self.check(-infinities)[1]["mismatches"], 4)
        self.assertEqual(self.check(X)[1]["mismatches"], 4)

    def test_a_share_that_should_be_none_is_far_away(self):
        write_model(self.model, [*quantized("logits"), helper.make_node("Softmax", ["logits"], ["y"])])
        for expected in ([[0, 1, 0, 0]], [[0, 0, 1, 0]]):
            self.assertEqual(self.check(np.array(expected, np.float32), "--steps", "1")[0], 1)
        far = np.array([[60, -60, 0, 1]], np.float32)  # Where both are none they are not apart.
        self.assertEqual(self.check(softmax(far), "--steps", "0.1", x=far)[0], 0)

    def test_only_shares_of_the_outputs_rows_have_steps(self):
        x = np.array([[[[1, 1, 1, 1]], [[2, 2, 2, 2]]]], np.float32)
        raised = x.copy()
        raised[0, 1] += 20
        powers = np.exp(raised - raised.max(axis=1, keepdims=True))
        columns = powers / powers.sum(axis=1, keepdims=True)
        rows = softmax(x)
        turned = helper.make_node("Transpose", ["s"], ["y"], perm=[0, 1, 3, 2])
        along = helper.make_node("Softmax", ["logits"], ["y"], axis=1)
        cases = {
            "along another axis": ([*quantized("logits"), along], columns),
            "turned": ([*quantized("logits"), helper.make_node("Softmax", ["logits"], ["s"]), turned], rows.transpose(0, 1, 3, 2)),
        }
        for name, (nodes, expected) in cases.items():
            with self.subTest(name):
                write_model(self.model, nodes, x.shape, expected.shape)
                done = octet("check", self.model, "--golden", self.golden(expected, x), "--steps", "1")
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn("output 'y' is not dequantized from 8 bits, with at most a Softmax over its last axis behind", done.stderr)

    def test_outputs_without_steps_are_refused(self):
        write_model(self.model, [helper.make_node("Relu", ["x"], ["y"])])
        done = octet("check", self.model, "--golden", self.golden(np.maximum(X, 0)), "--steps", "2")
        self.assertEqual(done.returncode, 1)
        self.assertIn("output 'y' is not dequantized from 8 bits", done.stderr)

    def test_a_golden_folder_without_sets(self):
        write_model(self.model, quantized("y"))
        done = octet("check", self.model, "--golden", self.folder / "none")
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(self.folder / "none"), done.stderr)

    def test_a_link_that_leads_to_itself_is_no_set(self):
        write_model(self.model, quantized("y"))
        golden = self.golden(X)
        (golden / "test_data_set_1").symlink_to("test_data_set_1")
        done = octet("check", self.model, "--golden", golden)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_the_pass_that_changes_an_answer(self):
        """Folding a BatchNormalization rounds otherwise, which shows when nothing is tolerated."""
        random = np.random.default_rng(1)
        info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in (("x", [3, 8, 8]), ("y", [4, 6, 6]))]
        constants = [numpy_helper.from_array(random.normal(size=(4, 3, 3, 3)).astype(np.float32), "w")]
        constants += [numpy_helper.from_array(random.uniform(0.5, 2, 4).astype(np.float32), name) for name in ("s", "b", "m", "v")]
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("BatchNormalization", list("csbmv"), ["y"])]
        graph = helper.make_graph(nodes, "normalized", info[:1], info[1:], constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), self.model)
        done = octet("check", self.model, "--bisect-passes", "--rtol", "0", "--atol", "0", "--json")
        self.assertEqual(done.returncode, 1, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual((found["pass"], found["rewrites"]), ("fold_batch_norm", 1))
        (comparison,) = found["comparisons"]
        self.assertEqual((comparison["output"], comparison["elements"]), ("y", 2 * 4 * 6 * 6))
        self.assertGreater(comparison["mismatches"], 0)
        self.assertLess(comparison["max_abs"], 1e-4)
        done = octet("check", self.model, "--bisect-passes", "--rtol", "0", "--atol", "0")
        self.assertRegex(done.stdout, r"^fold_batch_norm changes an answer: pass \d+ of \d+, 1 rewrites\nFAIL random y: ")
        done = octet("check", self.model, "--bisect-passes")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith("no pass changes an answer\nok "), done.stdout)

    def test_no_pass_is_blamed_for_what_the_model_answers(self):
        write_model(self.model, quantized("y"))
        done = octet("check", self.model, "--bisect-passes", "--golden", self.golden(X + 1), "--json")
        self.assertEqual(done.returncode, 1, done.stderr)
        found = json.loads(done.stdout)
        self.assertNotIn("pass", found)
        self.assertEqual(found["finding"], "answers differ already without any pass")

    def test_golden_outputs_may_only_miss_for_a_bisection(self):
        write_model(self.model, quantized("y"))
        self.assertEqual(octet("check", self.model).returncode, 2)


if __name__ == "__main__":
    octet_process.main()
