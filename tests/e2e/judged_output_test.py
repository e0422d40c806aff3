#!/usr/bin/env python3
"""Which output `octet eval` judges: the first of reals, class labels before it or not; of a model without any, by what is equal.

usage: judged_output_test.py OCTET
"""

import pathlib
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import octet_process
from octet_process import answer, octet

ROWS, FEATURES, CLASSES = 40, 6, 3
TYPES = {"label": (TensorProto.INT64, ["N"]), "scores": (TensorProto.FLOAT, ["N", CLASSES])}


class JudgedOutputTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        random = np.random.default_rng(5)
        self.weights = random.normal(size=(FEATURES, CLASSES)).astype(np.float32)
        self.x = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
        self.labels = (self.x @ self.weights).argmax(axis=1)
        self.data = self.folder / "data.npz"
        np.savez(self.data, x=self.x, labels=self.labels)

    def write(self, name, outputs, weights=None):
        """A linear classifier with these outputs, in this order, as exporters of classical models write it."""
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        ]
        graph = helper.make_graph(
            nodes,
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
            [helper.make_tensor_value_info(output, *TYPES[output]) for output in outputs],
            [numpy_helper.from_array(self.weights if weights is None else weights, "w")],
        )
        file = self.folder / name
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), file)
        return file

    def eval(self, model, *words):
        return answer("eval", model, "--data", self.data, *words)

    def rounded(self):
        """Weights that choose another class for some samples."""
        weights = np.round(self.weights)
        changed = (self.x @ weights).argmax(axis=1)
        agreement = 100 * np.mean(changed == self.labels)
        self.assertTrue(0 < agreement < 100)
        return weights, agreement

    def test_labels_before_the_scores_are_passed_over(self):
        weights, agreement = self.rounded()
        for outputs in (("label", "scores"), ("scores", "label"), ("scores",)):
            with self.subTest(outputs=outputs):
                fp32, other = self.write("fp32.onnx", outputs), self.write("other.onnx", outputs, weights)
                judged = self.eval(other, "--reference", fp32)
                self.assertEqual(judged["output"], "scores")
                self.assertAlmostEqual(judged["agreement"], agreement)
                self.assertAlmostEqual(judged["top1"], agreement)
                self.assertGreater(judged["sqnr_db"], 0)
                self.assertEqual(self.eval(fp32)["top1"], 100)

    def test_the_reference_has_its_outputs_in_its_own_order(self):
        weights, agreement = self.rounded()
        judged = self.eval(self.write("other.onnx", ["scores"], weights), "--reference", self.write("fp32.onnx", ["label", "scores"]))
        self.assertAlmostEqual(judged["agreement"], agreement)

    def test_of_labels_alone_agreement_is_what_is_equal(self):
        weights, agreement = self.rounded()
        fp32, other = self.write("fp32.onnx", ["label"]), self.write("other.onnx", ["label"], weights)
        judged = self.eval(other, "--reference", fp32)
        self.assertEqual((judged["output"], judged["count"]), ("label", ROWS))
        self.assertAlmostEqual(judged["agreement"], agreement)
        for figure in ("top1", "sqnr_db", "non_finite"):
            self.assertIsNone(judged[figure], figure)
        self.assertIsNone(self.eval(other)["agreement"])
        lines = dict(line.split(maxsplit=1) for line in octet("eval", fp32, "--data", self.data, "--reference", fp32).stdout.splitlines())
        self.assertEqual((lines["output"], lines["agreement"], lines["sqnr_db"]), ("label", "100.0", "not measured"))

    def test_labels_are_not_held_against_scores(self):
        done = octet("eval", self.write("a.onnx", ["scores"]), "--data", self.data, "--reference", self.write("b.onnx", ["label"]))
        self.assertEqual(done.returncode, 1)
        self.assertIn("output 'scores' is [8,3] of FP32, the reference's 'label' [8] of INT64", done.stderr)

    def test_a_report_of_labels_alone(self):
        weights, agreement = self.rounded()
        fp32, other = self.write("fp32.onnx", ["label"]), self.write("other.onnx", ["label"], weights)
        quick = ("--rounds", 1, "--seconds", 0.05, "--out", self.folder / "page.html")
        done = octet("report", fp32, "--variants", other, "--data", self.data, *quick)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((self.folder / "page.html").is_file())


if __name__ == "__main__":
    octet_process.main()
