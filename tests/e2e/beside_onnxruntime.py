"""Holds the answers of a model's files against those of ONNX Runtime.

Weights of 16 bits: Octet computes in f32 here, as ONNX Runtime does, and only the order of sums differs. Integers: an activation
that lies at a tie goes one step up in one and down in the other, and the steps behind it carry that on, so that answers may be two steps of
the output apart, and one arg-max of the samples. A step is the scale of the output where it is dequantized. No file that is made here
has such an output: the last product's sums are real and are not rounded to 8 bits. A step of theirs is that of an 8-bit output that reaches
as far as they do, a 255th of their span. Where a Softmax follows, the sums before it are compared: what it makes of a step depends on the
other sums, from nothing to half of it, and has no unit.
"""

import collections
import json
import pathlib
import tempfile
import unittest

import onnx.reference  # Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnxruntime
from onnx import numpy_helper

import demo_model
import octet_process
from octet_process import answer

SAMPLES = 64
LABELLED = 1000
ONE_OTHER = 100 - 100 / SAMPLES
MIN_AGREEMENT = {"fp16": 100, "bf16": 100, "int8": ONE_OTHER, "int8-dynamic": ONE_OTHER}  # per cent of arg-maxes
MAX_STEPS = {"fp16": 0.25, "bf16": 0.25, "int8": 2, "int8-dynamic": 2}
# An int8 file's bytes over the fp32 file's, where this has more bytes than the first number.
MOST_OF_FP32 = ((4e6, 0.26), (1e6, 0.28), (0, 0.35))
# A sum of a residual reads a convolution whose result is real: ONNX Runtime adds its products up in f32, Octet in integers, so that sums at
# a tie may be rounded apart. Of mobilenetv2's first such sum that are 5 of 600,000 elements, and more than forty layers behind it
# make 2.7 steps of them; up to there all integers are equal. In its int8-dynamic file seventeen depthwise convolutions are in float, whose
# sums are in another order here than there, and what they make is rounded behind each: 3.2 steps, where ONNX Runtime's own answers move by
# 8.3 when the last bit of the inputs does.
MORE_STEPS = {("mobilenetv2", "int8"): 4, ("mobilenetv2", "int8-dynamic"): 4}


class BesideOnnxRuntime(unittest.TestCase):
    def scores(self, file, samples):
        """What ONNX Runtime answers, once ONNX's own checker has nothing to say."""
        onnx.checker.check_model(str(file), full_check=True)
        return onnxruntime_scores(str(file), samples)

    def compare(self, model, precision, file, samples):
        scores = self.scores(file, samples)
        if precision == "int8":
            fp32_bytes = model.fp32.stat().st_size
            most = next(share for above, share in MOST_OF_FP32 if fp32_bytes > above)
            self.assertLessEqual(pathlib.Path(file).stat().st_size, most * fp32_bytes)
            self.expect_equal_accuracy(model, file)
            self.assertEqual(integer_kernels(file), quantized_kernels(file))
        most = MORE_STEPS.get((model.name, precision), MAX_STEPS[precision])
        self.expect_agreement(precision, file, samples, scores, most)

    def expect_equal_accuracy(self, model, file):
        """Top-1 on the labelled samples, to 0.2 points, or to one sample of few."""
        with np.load(model.eval_data) as data:
            integers, labels = data["inputs"][:LABELLED], data["labels"][:LABELLED]
        samples = demo_model.mapped(integers, model.map)
        classes = onnxruntime_scores(str(file), samples).reshape(len(samples), -1).argmax(axis=1)
        with tempfile.TemporaryDirectory() as name:
            np.savez(f"{name}/labelled.npz", inputs=samples, labels=labels)
            octets = answer("eval", file, "--data", f"{name}/labelled.npz")["top1"]
        self.assertLessEqual(abs(octets - 100 * float((classes == labels).mean())), max(0.2, 100 / len(labels)) + 1e-6)

    def expect_agreement(self, precision, file, samples, scores, most_steps):
        with tempfile.TemporaryDirectory() as name:
            if precision.startswith("int8"):
                file, scores = before_softmax(file, name, samples, scores)
            agreement, distance = octet_against(file, precision, samples, scores)
            self.assertGreaterEqual(agreement, MIN_AGREEMENT[precision])
            self.assertLessEqual(distance, most_steps * output_step(file, scores))


def real_samples(model):
    """SAMPLES inputs as the model's own reals."""
    integers = np.load(model.eval_data)["inputs"]
    return demo_model.mapped(integers[:: max(1, len(integers) // SAMPLES)][:SAMPLES], model.map)


def onnxruntime_scores(file, samples):
    """[samples, classes, ...] by ONNX Runtime, one sample at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    rows = [session.run(None, {given.name: samples[i : i + 1]})[0] for i in range(len(samples))]
    return np.concatenate(rows)


def quantized_kernels(file):
    """How many layers the pairs of an int8 file make integer ones: convolutions whose result is quantized, and products of quantized
    activations with a bias."""
    nodes = onnx.load(file).graph.node
    dequantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    readers = {name: node for node in nodes for name in node.input}

    def is_quantized(name):
        while (reader := readers.get(name)) is not None and reader.op_type in ("Relu", "Clip"):
            name = reader.output[0]
        return reader is not None and reader.op_type == "QuantizeLinear"

    def is_integer(node):
        return node.input[0] in dequantized if node.op_type == "Gemm" else is_quantized(node.output[0])

    quantized = collections.Counter(node.op_type for node in nodes if is_integer(node))
    return {"QLinearConv": quantized["Conv"], "QGemm": quantized["Gemm"]}


def integer_kernels(file):
    """How many of these layers ONNX Runtime runs in integers."""
    with tempfile.TemporaryDirectory() as name:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = f"{name}/optimized.onnx"
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        kernels = collections.Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    return {name: kernels[name] for name in ("QLinearConv", "QGemm")}


def before_softmax(file, folder, samples, scores):
    """The file and its scores, or those of a copy in the folder without the Softmax that the file ends in."""
    model = onnx.load(file)
    (softmax,) = (node for node in model.graph.node if model.graph.output[0].name in node.output)
    if softmax.op_type != "Softmax":
        return file, scores
    model.graph.node.remove(softmax)
    model.graph.output[0].name = softmax.input[0]
    copy = f"{folder}/sums.onnx"
    onnx.save(model, copy)
    return copy, onnxruntime_scores(copy, samples)


def output_step(file, scores):
    """The scale of a dequantized output; of one that is real, a 255th of what these scores span."""
    graph = onnx.load(file).graph
    (made,) = (node for node in graph.node if graph.output[0].name in node.output)
    if made.op_type != "DequantizeLinear":
        return float(scores.max() - scores.min()) / 255
    (scale,) = (numpy_helper.to_array(i) for i in graph.initializer if i.name == made.input[1])
    return float(scale)


def octet_against(file, precision, samples, scores):
    """How many per cent of Octet's arg-maxes are those of `scores`, and the largest difference on the first samples."""
    compute = () if precision.startswith("int8") else ("--precision", "fp32")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.savez(folder / "samples.npz", inputs=samples, labels=scores.reshape(len(scores), -1).argmax(axis=1))
        agreement = answer("eval", file, "--data", folder / "samples.npz", "--batch", 1, *compute)["top1"]
        for row in range(8):
            golden = folder / f"test_data_set_{row}"
            golden.mkdir()
            for kind, array in (("input", samples), ("output", scores)):
                tensor = numpy_helper.from_array(array[row : row + 1])
                (golden / f"{kind}_0.pb").write_bytes(tensor.SerializeToString())
        checked = octet_process.octet("check", file, "--golden", folder, *compute, "--json")
    return agreement, max(c["max_abs"] for c in json.loads(checked.stdout)["comparisons"])
