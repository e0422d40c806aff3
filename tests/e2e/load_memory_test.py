#!/usr/bin/env python3
"""What loading a model takes: its weights are in memory once, packed while they are given back, and the answers are right.

usage: load_memory_test.py OCTET
"""

import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import octet_process

DEPTH = 8192
COLUMNS = 4096  # 134 MB of weights


class LoadMemoryTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.random = np.random.default_rng(8192)

    def reals(self, *shape):
        return self.random.standard_normal(shape, np.float32)

    def write(self, nodes, constants, x):
        """Returns the model's file, and one with its input."""
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        initializers = [numpy_helper.from_array(values, name) for name, values in constants.items()]
        graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], initializers)
        model, inputs = self.folder / "products.onnx", self.folder / "inputs.npz"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
        np.savez(inputs, x=x)
        return model, inputs

    def load(self, nodes, constants, x):
        """Returns what the model answers, and the most bytes that the process has had by then."""
        answers, status = self.first_answer(nodes, constants, x, "status")
        return answers, 1024 * int(re.search(r"VmHWM:\s*(\d+)", status)[1])

    def first_answer(self, nodes, constants, x, about):
        """Returns what the model answers, and that file of the process's folder in /proc by then."""
        model, inputs = self.write(nodes, constants, x)
        command = [octet_process.executable(), "bench", model, "--rounds", "--inputs", inputs]
        pipe = subprocess.PIPE  # It waits for the word to measure, which never comes.
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            line = process.stdout.readline()
            text = pathlib.Path(f"/proc/{process.pid}/{about}").read_text()
            _, said = process.communicate()
        self.assertTrue(line, said)
        return np.array(json.loads(line)["outputs"]["y"]), text

    def test_weights_are_in_memory_once(self):
        gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
        before = self.without_weights(gemm)
        for rows in (1, 4):
            w, b, x = self.reals(COLUMNS, DEPTH), self.reals(COLUMNS), self.reals(rows, DEPTH)
            answers, peak = self.load([gemm], {"w": w, "b": b}, x)
            np.testing.assert_allclose(answers, (x @ w.T + b).ravel(), rtol=1e-3, atol=1e-2)
            self.assertLess(peak - before, 1.5 * w.nbytes, f"{rows} rows: {peak} bytes at the peak, {before} without weights")

    def without_weights(self, gemm):
        return self.load([gemm], {"w": self.reals(8, 16), "b": self.reals(8)}, self.reals(1, 16))[1]

    def test_weights_are_in_memory_once_while_their_rows_are_moved(self):
        """A convolution answers channels last, and the product behind it takes its weights in that order."""
        gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
        before = self.without_weights(gemm)
        channels, height, width = 32, 16, 16
        nodes = [
            helper.make_node("Conv", ["x", "k"], ["image"], kernel_shape=[1, 1]),
            helper.make_node("Relu", ["image"], ["positive"]),
            helper.make_node("Flatten", ["positive"], ["row"]),
            helper.make_node("Gemm", ["row", "w", "b"], ["y"], transB=1),
        ]
        k, w, b = self.reals(channels, channels, 1, 1), self.reals(COLUMNS, DEPTH), self.reals(COLUMNS)
        x = self.reals(1, channels, height, width)
        answers, peak = self.load(nodes, {"k": k, "w": w, "b": b}, x)
        row = np.maximum(np.einsum("oc,nchw->nohw", k[:, :, 0, 0], x), 0).reshape(1, DEPTH)
        np.testing.assert_allclose(answers, (row @ w.T + b).ravel(), rtol=1e-3, atol=0.1)
        self.assertLess(peak - before, 1.5 * w.nbytes, f"{peak} bytes at the peak, {before} without weights")

    def test_weights_row_by_row_are_packed_where_they_lie(self):
        product = helper.make_node("MatMul", ["x", "w"], ["y"])
        before = self.without_weights(helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1))
        for rows in (1, 4):
            w, x = self.reals(DEPTH, COLUMNS), self.reals(rows, DEPTH)
            answers, peak = self.load([product], {"w": w}, x)
            np.testing.assert_allclose(answers, (x @ w).ravel(), rtol=1e-3, atol=1e-2)
            self.assertLess(peak - before, 1.25 * w.nbytes, f"{rows} rows: {peak} bytes at the peak, {before} without weights")

    def test_integers_whose_rows_are_moved_are_packed_where_they_lie(self):
        """What int8-dynamic files have: oneDNN puts sums behind the weights, for the zero points of what is quantized as it runs."""
        before = self.without_weights(helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1))
        channels, height, width = 64, 16, 16
        nodes = [
            helper.make_node("Conv", ["x", "k"], ["image"], kernel_shape=[1, 1]),
            helper.make_node("Flatten", ["image"], ["row"]),
            helper.make_node("DynamicQuantizeLinear", ["row"], ["bytes", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["bytes", "w", "zero"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["reals"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["scale", "step"], ["factor"]),
            helper.make_node("Mul", ["reals", "factor"], ["y"]),
        ]
        w = self.random.integers(-127, 128, (channels * height * width, 2 * COLUMNS), np.int8)
        step = np.float32(0.01)
        for rows in (1, 4):
            k, x = self.reals(channels, channels, 1, 1), self.reals(rows, channels, height, width)
            answers, peak = self.load(nodes, {"k": k, "w": w, "step": step}, x)
            row = np.einsum("oc,nchw->nohw", k[:, :, 0, 0], x).reshape(rows, -1)
            expected = (row @ w.astype(np.float32)).ravel() * step
            self.assertLess(np.abs(answers - expected).mean(), 0.03 * np.abs(expected).mean())
            self.assertLess(peak - before, 1.25 * w.nbytes, f"{rows} rows: {peak} bytes at the peak, {before} without weights")

    def test_weights_that_are_read_again_stay(self):
        w, x = self.reals(2048, 2048), self.reals(1, 2048)
        nodes = [
            helper.make_node("Gemm", ["x", "w"], ["turned"], transB=1),
            helper.make_node("MatMul", ["turned", "w"], ["product"]),
            helper.make_node("ReduceMax", ["w"], ["largest"], axes=[0], keepdims=1),
            helper.make_node("Add", ["product", "largest"], ["y"]),
        ]
        answers, _ = self.load(nodes, {"w": w}, x)
        np.testing.assert_allclose(answers, (x @ w.T @ w + w.max(0)).ravel(), rtol=1e-3, atol=1)

    def test_weights_of_a_post_op_with_an_operand_are_packed_before_they_go(self):
        w, x = self.reals(2048, 2048), self.reals(1, 2048)
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Sigmoid", ["x"], ["s"]),
            helper.make_node("Add", ["product", "s"], ["y"]),
        ]
        answers, _ = self.load(nodes, {"w": w}, x)
        np.testing.assert_allclose(answers, (x @ w + 1 / (1 + np.exp(-x))).ravel(), rtol=1e-3, atol=1e-2)

    def test_what_only_the_start_read_of_libraries_is_given_back(self):
        gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
        constants = {"w": self.reals(8, 16), "b": self.reals(8)}
        _, mappings = self.first_answer([gemm], constants, self.reals(1, 16), "smaps")
        # Without a server nothing calls it; before main() a third of it is read.
        of_one = re.compile(r"^\S+ r-\S+ .*/libcrypto\S*\nSize:\s+(\d+) kB\n(?:(?!Rss).*\n)*Rss:\s+(\d+) kB", re.MULTILINE)
        pages = [(int(size), int(resident)) for size, resident in of_one.findall(mappings)]
        self.assertTrue(pages, mappings)
        resident, size = sum(one for _, one in pages), sum(one for one, _ in pages)
        self.assertLess(resident, size / 8, f"{resident} of {size} kB")


if __name__ == "__main__":
    octet_process.main()
