#!/usr/bin/env python3
"""What `octet quantize` writes is plain ONNX: ONNX Runtime loads it and answers like Octet, and so is what `octet qat` writes. That of
trained models is held so where it is made: real_models_test.py.

usage: onnxruntime_test.py OCTET
"""

import pathlib
import tempfile
import unittest

import onnx.reference  # Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
from onnx import TensorProto, helper, numpy_helper

import demo_model
import octet_process
from beside_onnxruntime import MAX_STEPS, BesideOnnxRuntime, integer_kernels, onnxruntime_scores, quantized_kernels, real_samples
from octet_process import answer
from real_models import MODELS, SHARED, Model

HAS_BF16 = "avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text()


class Demo(Model):
    """The model that is part of the project, in the place of one of ../shared/models."""

    fp32 = demo_model.FP32
    map = demo_model.MAP
    eval_data = demo_model.TEST
    calibration_data = demo_model.CALIBRATION


class OnnxRuntimeTest(BesideOnnxRuntime):
    def test_answers_agree(self):
        model = Demo("glyphs", "", "")
        samples = real_samples(model)
        with tempfile.TemporaryDirectory() as folder:
            made = answer("quantize", model.fp32, "--calibration", model.calibration_data, "--map", model.map, "--out", folder)
            self.assertEqual(len(made), 4)
            for variant in made:
                with self.subTest(precision=variant["precision"]):
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


if __name__ == "__main__":
    octet_process.main()
