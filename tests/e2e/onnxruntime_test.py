#!/usr/bin/env python3
"""What `octet quantize` writes is plain ONNX: ONNX Runtime loads it and answers like Octet, and so is what `octet qat` writes.

usage: onnxruntime_test.py OCTET

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
from onnx import TensorProto, helper, numpy_helper

import demo_model
import octet_process
from octet_process import answer
from real_models import MODELS, SHARED, Model

HAS_BF16 = "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text()
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

REAL = ("resnet20-cifar10", "ic-resnet8-large", "squeezenet1.1", "mobilenetv2", "vww-mobilenetv1", "kws-dscnn", "kwt1")


class Demo(Model):
    """The model that is part of the project, in the place of one of ../shared/models."""

    fp32 = demo_model.FP32
    map = demo_model.MAP
    eval_data = demo_model.TEST
    calibration_data = demo_model.CALIBRATION


def models():
    """The demo model, and real ones where they are."""
    yield Demo("glyphs", "", "")
    if (SHARED / "models").is_dir():
        yield from (MODELS[name] for name in REAL)


class OnnxRuntimeTest(unittest.TestCase):
    def test_answers_agree(self):
        for model in models():
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                made = answer("quantize", model.fp32, "--calibration", model.calibration_data, "--map", model.map, "--out", folder)
                self.assertEqual(len(made), 4)
                samples = real_samples(model)
                for variant in made:
                    with self.subTest(model=model.name, precision=variant["precision"]):
                        self.compare(model, variant["precision"], variant["file"], samples)

    def test_other_recipes(self):
        """Activations of INT8 have no integer kernel behind a Relu there: such a file is compared by its answers alone."""
        model = Demo("glyphs", "", "")
        samples = real_samples(model)
        data = ("--map", model.map, "--calibration", model.calibration_data)
        recipes = {grid: ("--activations", grid) for grid in ("s8", "s8-asymmetric", "u8-symmetric")}
        recipes |= {"per-tensor": ("--per-tensor",), "mixed": ("--min-sqnr-db", 45)}
        with tempfile.TemporaryDirectory() as name:
            files = {"trained": pathlib.Path(name, "trained", "int8.onnx")}
            answer("qat", model.fp32, "--data", model.calibration_data, "--map", model.map, "--out", files["trained"], "--epochs", 1)
            for recipe, words in recipes.items():
                (made,) = answer("quantize", model.fp32, "--to", "int8", *data, "--out", pathlib.Path(name, recipe), *words)
                files[recipe] = pathlib.Path(made["file"])
                if recipe == "mixed":
                    in_float = [layer for layer in made["mixed"]["layers"] if layer["precision"] != "int8"]
                    self.assertTrue(0 < len(in_float) < len(made["mixed"]["layers"]))
            for recipe, file in files.items():
                with self.subTest(recipe):
                    scores = self.scores(file, samples)
                    if recipe in ("trained", "per-tensor"):
                        self.assertEqual(integer_kernels(file), quantized_kernels(file))
                    self.expect_agreement("int8", file, samples, scores, MAX_STEPS["int8"])

    def test_layers_that_dynamic_int8_would_slow_down(self):
        """They are in float, on weights of 8 bits; the certificate counts them as what they are, and both runtimes answer alike."""
        random = np.random.default_rng(1)
        weights = {"w1": (64, 1, 3, 3), "w2": (96, 64, 1, 1), "w3": (4, 96, 1, 1)}
        constants = [numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name) for name, shape in weights.items()]
        nodes = [
            helper.make_node("Conv", ["x", "w1"], ["a"], "depthwise", group=64, pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2"], ["c"], "pointwise"),
            helper.make_node("Conv", ["c", "w3"], ["y"], "narrow"),
        ]
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 8, 8]) for name, size in (("x", 64), ("y", 4)))
        graph = helper.make_graph(nodes, "separable", [x], [y], constants)
        with tempfile.TemporaryDirectory() as name:
            fp32 = f"{name}/fp32.onnx"
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), fp32)
            (made,) = answer("quantize", fp32, "--to", "int8-dynamic", "--out", name)
            self.assertEqual([record["name"] for record in made["records"] if record["what"] == "kept"], ["w1", "w3"])
            layers = {layer["name"]: layer for layer in answer("inspect", made["file"])["layers"] if layer["macs"]}
            runs = {layer: row["runs"] for layer, row in layers.items()}
            self.assertEqual(runs, {"depthwise": "f32", "pointwise": "int8", "narrow": "f32"})
            self.assertIn("f32", layers["depthwise"]["reason"])
            stored = {tensor.data_type for tensor in onnx.load(made["file"]).graph.initializer if len(tensor.dims) == 4}
            self.assertEqual(stored, {TensorProto.UINT8, TensorProto.INT8}, "no weights are real in the file")
            samples = random.normal(size=(8, 64, 8, 8)).astype(np.float32)
            np.savez(f"{name}/samples.npz", inputs=samples)
            result = answer("eval", made["file"], "--data", f"{name}/samples.npz", "--reference", fp32)
            self.assertGreater(result["sqnr_db"], 35)
            theirs, exact = (onnxruntime_scores(file, samples).astype(np.float64) for file in (made["file"], fp32))
            noise = 10 * np.log10(np.sum(exact**2) / np.sum((theirs - exact) ** 2))
            self.assertAlmostEqual(result["sqnr_db"], noise, delta=0.5)

    def test_transposed_convolutions(self):
        """A generator of images: pairs around each, scales on axis 1, also of groups; both runtimes answer alike."""
        random = np.random.default_rng(2)
        shapes = {"w1": (16, 32, 4, 4), "w2": (32, 8, 4, 4), "w3": (16, 3, 4, 4)}
        constants = [numpy_helper.from_array(random.normal(size=shape, scale=0.1).astype(np.float32), name) for name, shape in shapes.items()]
        constants += [numpy_helper.from_array(random.normal(size=size, scale=0.1).astype(np.float32), name) for name, size in (("b1", 32), ("b2", 16))]
        twice = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
        nodes = [
            helper.make_node("ConvTranspose", ["z", "w1", "b1"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("ConvTranspose", ["b", "w2", "b2"], ["c"], "grouped", group=2, **twice),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("ConvTranspose", ["d", "w3"], ["e"], "last", **twice),
            helper.make_node("Tanh", ["e"], ["y"]),
        ]
        z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 16, 1, 1])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 16, 16])
        with tempfile.TemporaryDirectory() as name:
            fp32 = f"{name}/fp32.onnx"
            graph = helper.make_graph(nodes, "generator", [z], [y], constants)
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), fp32)
            samples = random.normal(size=(64, 16, 1, 1)).astype(np.float32)
            np.savez(f"{name}/samples.npz", inputs=samples)
            words = ("--to", "int8,int8-dynamic", "--calibration", f"{name}/samples.npz", "--out", name, "--all-int8")
            for made in answer("quantize", fp32, *words):
                with self.subTest(made["precision"]):
                    layers = [layer for layer in answer("inspect", made["file"])["layers"] if layer["macs"]]
                    self.assertEqual([layer["runs"] for layer in layers], ["int8"] * 3)
                    nodes = onnx.load(made["file"]).graph.node
                    axes = {node.input[0]: node.attribute[0].i for node in nodes if node.input[0] in shapes}
                    self.assertEqual(axes, dict.fromkeys(shapes, 1), "of the scales of each matrix of integers")
                    result = answer("eval", made["file"], "--data", f"{name}/samples.npz", "--reference", fp32)
                    self.assertGreater(result["sqnr_db"], 30)
                    onnx.checker.check_model(made["file"], full_check=True)
                    if made["precision"] == "int8":  # Of one run of all samples, a range taken then is another.
                        theirs, exact = (onnxruntime_scores(file, samples).astype(np.float64) for file in (made["file"], fp32))
                        noise = 10 * np.log10(np.sum(exact**2) / np.sum((theirs - exact) ** 2))
                        self.assertAlmostEqual(result["sqnr_db"], noise, delta=0.5)

    @unittest.skipUnless((SHARED / "models").is_dir(), "the shared models are not here")
    def test_a_file_with_layers_in_bf16(self):
        """They are FLOAT there, with a word in the node's metadata, which ONNX knows from IR version 10 on."""
        model = MODELS["resnet20-cifar10"]
        samples = real_samples(model)
        with tempfile.TemporaryDirectory() as name:
            # Whether one of them is faster in bf16 is for the clock to say, of each floor anew.
            for floor_db in (44, 40, 48):
                words = ("--calibration", model.calibration_data, "--map", model.map, "--out", name, "--min-sqnr-db", floor_db)
                (made,) = answer("quantize", model.fp32, "--to", "int8", *words)
                in_bf16 = [layer["name"] for layer in made["mixed"]["layers"] if layer["precision"] == "bf16"]
                if in_bf16 or not HAS_BF16:
                    break
            file = onnx.load(made["file"])
            marked = [node.name for node in file.graph.node if [(p.key, p.value) for p in node.metadata_props] == [("octet.compute", "bf16")]]
            self.assertEqual(sorted(marked), sorted(in_bf16))
            self.assertEqual(file.ir_version, 10 if marked else 8)
            self.assertEqual(bool(marked), HAS_BF16)
            self.expect_agreement("int8", made["file"], samples, self.scores(made["file"], samples), MAX_STEPS["int8"])

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
    """How many layers the pairs of an int8 file make integer ones: convolutions whose result is quantized, and products with a bias."""
    nodes = onnx.load(file).graph.node
    readers = {name: node for node in nodes for name in node.input}

    def is_quantized(name):
        while (reader := readers.get(name)) is not None and reader.op_type in ("Relu", "Clip"):
            name = reader.output[0]
        return reader is not None and reader.op_type == "QuantizeLinear"

    quantized = collections.Counter(node.op_type for node in nodes if node.op_type == "Gemm" or is_quantized(node.output[0]))
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


if __name__ == "__main__":
    octet_process.main()
