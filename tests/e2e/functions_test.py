#!/usr/bin/env python3
"""Models with functions of their own, as torch's and onnxscript's exporters write them: Octet answers as ONNX Runtime does.

usage: functions_test.py OCTET
"""

import json
import pathlib
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx.parser
import onnxruntime
from onnx import numpy_helper

import octet_process

RNG = np.random.default_rng(11)

# A layer as a module, and an operator that torch_lib has as a function: defaults, references, a call within a call.
LAYERS = """
<ir_version: 8, opset_import: ["" : 18, "nn" : 1, "lib" : 1]>
net (float[batch, 8] x) => (float[batch, 4] y)
<float[8, 16] w1 = {%s}, float[16, 4] w2 = {%s}, float low = {-0.25}>
{
    h = nn.Layer <slope: float = 0.2> (x, w1, low)
    y = nn.Layer (h, w2)
}
<domain: "nn", opset_import: ["" : 18, "lib" : 1]>
Layer <slope: float = 0.01> (a, w, low) => (z)
{
    p = MatMul (a, w)
    s = lib.at_least (p, low)
    r = LeakyRelu <alpha: float = @slope> (s)
    z = lib.normalized <axis: int = 1> (r)
}
<domain: "lib", opset_import: ["" : 18]>
at_least (p, low) => (s) { s = Clip (p, low) }
<domain: "lib", opset_import: ["" : 13]>
normalized <axis> (x) => (y)
{
    two = Constant <value_float: float = 2.0> ()
    square = Pow (x, two)
    axes = Constant <value_ints: ints = [1]> ()
    sum = ReduceSum <keepdims: int = 1> (square, axes)
    one = Constant <value: tensor = float {1.0}> ()
    norm = Add (sum, one)
    root = Sqrt (norm)
    quotient = Div (x, root)
    y = Softmax <axis: int = @axis> (quotient)
}
"""

# A function that a loop calls, with branches that call another.
LOOP = """
<ir_version: 8, opset_import: ["" : 18, "f" : 1]>
net (float[n, 3] x, int64 trips) => (float[n, 3] y, float[t, n, 3] steps)
{
    go = Constant <value: tensor = bool {1}> ()
    y, steps = Loop (trips, go, x) <
        body = turn (int64 i, bool on, float[n, 3] state) => (bool still, float[n, 3] next, float[n, 3] step)
        {
            still = Identity (on)
            next, step = f.Step <scale: float = 0.5> (state)
        }
    >
}
<domain: "f", opset_import: ["" : OPSET, "f" : 1]>
Step <scale> (state) => (next, state_mean)
{
    mean = MEAN
    zero = Constant <value: tensor = float {0.0}> ()
    all = ReduceSum <keepdims: int = 0> (mean)
    positive = Greater (all, zero)
    factor = Constant <value_float: float = @scale> ()
    next = If (positive) <
        then_branch = down () => (less) { less = f.Centred (state, mean, factor) },
        else_branch = up () => (more) { more = f.Centred (state, factor, factor) }
    >
    state_mean = Sub (next, mean)
}
<domain: "f", opset_import: ["" : OPSET]>
Centred (x, mean, factor) => (y)
{
    d = Sub (x, mean)
    y = Mul (d, factor)
}
"""

# The functions in the model's opset, and in an older one, whose ReduceMean has another form. ONNX Runtime takes them for the
# model's opset in both.
NEWER = LOOP.replace("OPSET", "18").replace("MEAN", "ReduceMean <keepdims: int = 1> (state, last)").replace(
    "    mean =", "    last = Constant <value: tensor = int64[1] {1}> ()\n    mean =")
OLDER = LOOP.replace("OPSET", "13").replace("MEAN", "ReduceMean <axes: ints = [1], keepdims: int = 1> (state)")

# A product, and what a function of an older opset makes of it; in branches, too.
MIXED = """
<ir_version: 8, opset_import: ["" : 18, "f" : 1]>
net (float[n, 4, 8] x) => (float[n, 4, 8] y)
<float[8, 8] w = {%s}, float zero = {0.0}>
{
    m = MatMul (x, w)
    r = f.Mean (m)
    all = ReduceSum <keepdims: int = 0> (x)
    positive = Greater (all, zero)
    b = If (positive) <
        then_branch = down () => (a) { a = f.Mean (m) },
        else_branch = up () => (c) { d = f.Mean (m) c = Neg (d) }
    >
    s = Add (r, b)
    y = Add (m, s)
}
<domain: "f", opset_import: ["" : 13]>
Mean (a) => (b)
{
    b = ReduceMean <axes: ints = [1, 2], keepdims: int = 1> (a)
}
"""


def reals(*shape):
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def layers():
    numbers = [", ".join(f"{value:.4f}" for value in reals(count)) for count in (128, 64)]
    return LAYERS % tuple(numbers), {"x": reals(3, 8)}


# Two functions that double what they call, thirty times.
def bomb():
    text = '<ir_version: 8, opset_import: ["" : 17, "f" : 1]> net (float[2] x) => (float[2] y) { y = f.F0 (x) }'
    for level in range(30):
        inner = "Neg" if level == 29 else f"f.F{level + 1}"
        text += f'<domain: "f", opset_import: ["" : 17, "f" : 1]> F{level} (a) => (b) {{ h = {inner} (a) b = {inner} (h) }}'
    return text


class FunctionsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.file = self.folder / "model.onnx"

    def save(self, text):
        onnx.save(onnx.parser.parse_model(text), self.file)

    def compare(self, text, given, told=None):
        """The model answers as ONNX Runtime does, to which another text may be told."""
        self.save(told or text)
        session = onnxruntime.InferenceSession(str(self.file), providers=["CPUExecutionProvider"])
        expected = session.run(None, given)
        self.save(text)
        data = self.folder / "test_data_set_0"
        data.mkdir()
        for kind, arrays in (("input", given.values()), ("output", expected)):
            for i, array in enumerate(arrays):
                (data / f"{kind}_{i}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
        done = octet_process.octet("check", self.file, "--golden", self.folder, "--precision", "fp32", "--rtol", 1e-4, "--atol", 1e-5,
                                   "--json")
        self.assertEqual(done.returncode, 0, f"{done.stderr}{done.stdout}")
        self.assertEqual(len(json.loads(done.stdout)["comparisons"]), len(expected))

    def test_layers(self):
        self.compare(*layers())

    def test_a_loop_calls_and_its_calls_branch(self):
        self.compare(NEWER, {"x": reals(4, 3), "trips": np.array(3, np.int64)})

    def test_functions_of_another_opset(self):
        self.compare(OLDER, {"x": reals(4, 3), "trips": np.array(2, np.int64)}, told=NEWER)

    def test_nodes_tell_whose_call_made_them(self):
        self.save(layers()[0])
        done = octet_process.octet("inspect", self.file)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("h/z/root", done.stdout + done.stderr)

    def test_a_quantized_file_has_one_opset(self):
        self.save(layers()[0])
        arrays = self.folder / "x.npz"
        np.savez(arrays, x=reals(64, 8))
        done = octet_process.octet("quantize", self.file, "--to", "int8", "--out", self.folder, "--calibration", arrays)
        self.assertEqual(done.returncode, 0, done.stderr)
        model = onnx.load(self.folder / "int8.onnx")
        self.assertEqual(len(model.functions), 0)
        self.assertEqual([entry.version for entry in model.opset_import if entry.domain == ""], [18])

    def test_each_precision_of_functions_of_another_opset(self):
        weights = ", ".join(f"{value:.4f}" for value in reals(64))
        self.save(MIXED % weights)
        # Means that are as large as what they are taken of.
        arrays = self.folder / "x.npz"
        np.savez(arrays, x=reals(64, 4, 8) + reals(64, 1, 8))
        for precision, least in (("fp16", 50), ("bf16", 30), ("int8", 25), ("int8-dynamic", 25)):
            with self.subTest(precision):
                given = ("--calibration", arrays) if precision == "int8" else ()
                done = octet_process.octet("quantize", self.file, "--to", precision, "--out", self.folder, *given)
                self.assertEqual(done.returncode, 0, done.stderr)
                made = self.folder / f"{precision}.onnx"
                self.assertEqual([entry.version for entry in onnx.load(made).opset_import if entry.domain == ""], [18])
                done = octet_process.octet("eval", made, "--data", arrays, "--reference", self.file, "--json")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertGreater(json.loads(done.stdout)["sqnr_db"], least)
                # The file's own answers, at batch 2, by another runtime.
                given = {"x": reals(2, 4, 8) + 1}
                session = onnxruntime.InferenceSession(str(made), providers=["CPUExecutionProvider"])
                data = self.folder / f"{precision}_set" / "test_data_set_0"
                data.mkdir(parents=True)
                for kind, array in (("input", given["x"]), ("output", session.run(None, given)[0])):
                    (data / f"{kind}_0.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
                done = octet_process.octet("check", self.file, "--golden", data.parent, "--precision", "fp32", "--rtol", 0.1,
                                           "--atol", 0.1, "--json")
                self.assertEqual(done.returncode, 0, f"{done.stderr}{done.stdout}")

    def test_a_bomb_is_refused(self):
        self.save(bomb())
        done = octet_process.octet("inspect", self.file)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("calls of the model's functions add too much: at most 131072 nodes", done.stderr)


if __name__ == "__main__":
    octet_process.main()
