#!/usr/bin/env python3
"""Every way in which others write a quantized model: `octet quantize` says that it is quantized already, and leaves no file.

usage: quantized_dialects_test.py OCTET
"""

import pathlib
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import octet_process
from demo_model import CALIBRATION, FP32, MAP, TEST, mapped
from octet_process import answer, octet
from real_models import SHARED


class Images(CalibrationDataReader):
    """A few images of the demo, one at a time."""

    def __init__(self):
        self.rest = iter(mapped(np.load(CALIBRATION)["inputs"][:8]))

    def get_next(self):
        image = next(self.rest, None)
        return None if image is None else {"image": image[None]}


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


W = constant("w", np.ones((4, 3), np.int8))
SCALE = constant("s", np.float32(0.1))
ZERO_I8 = constant("z", np.int8(0))
ZERO_U8 = constant("zu", np.uint8(128))
MS = "com.microsoft"

# Title: the nodes, what the constants are, and the operator that the message has to name. All read x [2, 4] and write y.
NODES = {
    "PyTorch's QDQ, per tensor": (
        [("QuantizeLinear", "x s z", "q"), ("DequantizeLinear", "q s z", "d"), ("DequantizeLinear", "w s z", "wd"), ("MatMul", "d wd", "y")],
        "QuantizeLinear",
    ),
    "weights alone": ([("DequantizeLinear", "w s z", "wd"), ("MatMul", "x wd", "y")], "DequantizeLinear"),
    "QOperator": (
        [("QuantizeLinear", "x s z", "q"), ("QLinearMatMul", "q s z w s z s z", "p"), ("DequantizeLinear", "p s z", "y")],
        "QuantizeLinear",
    ),
    "dynamic": (
        [("DynamicQuantizeLinear", "x", "q qs qz"), ("MatMulInteger", "q w qz", "p"), ("Cast", "p", "y", {"to": 1})],
        "DynamicQuantizeLinear",
    ),
    "MatMulInteger alone": ([("Cast", "x", "c", {"to": 3}), ("MatMulInteger", "c w", "p"), ("Cast", "p", "y", {"to": 1})], "MatMulInteger"),
    "com.microsoft's QDQ": (
        [("QuantizeLinear", "x s z", "q", {}, MS), ("DequantizeLinear", "q s z", "y", {}, MS)],
        "QuantizeLinear",
    ),
    "DynamicQuantizeMatMul": ([("DynamicQuantizeMatMul", "x w s z", "y", {}, MS)], "DynamicQuantizeMatMul"),
    "MatMulIntegerToFloat": (
        [("DynamicQuantizeLinear", "x", "q qs qz"), ("MatMulIntegerToFloat", "q w qs s qz z", "y", {}, MS)],
        "DynamicQuantizeLinear",
    ),
    "QGemm": (
        [("QuantizeLinear", "x s zu", "q"), ("QGemm", "q s zu w s z", "y", {}, MS)],
        "QuantizeLinear",
    ),
    "QLinearAdd": (
        [("Cast", "x", "c", {"to": 3}), ("QLinearAdd", "c s z c s z s z", "p", {}, MS), ("Cast", "p", "y", {"to": 1})],
        "QLinearAdd",
    ),
    "MatMulNBits": ([("MatMulNBits", "x w s", "y", {"K": 4, "N": 3, "bits": 8, "block_size": 16}, MS)], "MatMulNBits"),
    "QOrderedMatMul": ([("QOrderedMatMul", "x s w s s", "y", {"order_A": 1, "order_B": 1, "order_Y": 1}, MS)], "QOrderedMatMul"),
    "QEmbedLayerNormalization": ([("QEmbedLayerNormalization", "x w s z", "y", {}, MS)], "QEmbedLayerNormalization"),
}  # fmt: skip


# What of them Octet computes with integers, and as what.
MULTIPLY = {
    "PyTorch's QDQ, per tensor": "int8",
    "QOperator": "int8",
    "dynamic": "int8-dynamic",
    "MatMulInteger alone": "int8-dynamic",
    "DynamicQuantizeMatMul": "int8-dynamic",
    "MatMulIntegerToFloat": "int8-dynamic",
    "QGemm": "int8",
}
# What ONNX Runtime's static quantizer is asked for. Its weights of UINT8 have any zero point, but symmetric ones: those have 127.
FORMATS = {"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}
STATIC = {
    f"{form}-{weights.name}{'-per-channel' if per_channel else ''}": {"quant_format": FORMATS[form], "activation_type": QuantType.QUInt8, "weight_type": weights, "per_channel": per_channel}
    for form in FORMATS
    for weights in (QuantType.QInt8, QuantType.QUInt8)
    for per_channel in (False, True)
}
STATIC["qdq-s8-activations"] = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
STATIC["qdq-symmetric"] = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8, "extra_options": {"WeightSymmetric": True}}
SAMPLES = 128


def sqnr_db(scores, reference):
    return 10 * np.log10(np.sum(reference.astype(np.float64) ** 2) / np.sum((scores.astype(np.float64) - reference) ** 2))


def model(nodes, columns):
    made = []
    for op, inputs, outputs, *rest in nodes:
        attributes, domain = (rest + [{}, ""][len(rest) :])[:2]
        made.append(helper.make_node(op, inputs.split(), outputs.split(), domain=domain, **attributes))
    used = {name for node in made for name in node.input}
    graph = helper.make_graph(
        made,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, columns])],
        [c for c in (W, SCALE, ZERO_I8, ZERO_U8) if c.name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13), helper.make_opsetid(MS, 1)], ir_version=8)


class QuantizedDialectsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def refused(self, file, op=None, precisions=("int8",)):
        for precision in precisions:
            with self.subTest(file=file.name, precision=precision):
                out = self.folder / "out"
                data = ("--calibration", CALIBRATION) if precision == "int8" else ()
                done = octet("quantize", file, "--to", precision, *data, "--out", out)
                self.assertEqual(done.returncode, 1, done.stderr)
                line = done.stderr.splitlines()[-1]
                self.assertIn("quantized already", line)
                self.assertIn(str(file), line)
                if op:
                    self.assertIn(op, line)
                self.assertFalse(list(out.glob("*")))

    def certified(self, file, precision):
        """All multiply-adds run in int8, so says the certificate."""
        with self.subTest(file=file.name):
            certificate = answer("inspect", file)
            self.assertEqual(certificate["precision"], precision)
            macs = [layer for layer in certificate["layers"] if layer["macs"]]
            self.assertTrue(macs)
            for layer in macs:
                self.assertEqual(layer["runs"], "int8", layer)
                self.assertNotIn("ref", layer["impl"], layer)

    def noise_of_onnxruntime(self, file, distance, fused=True):
        """The SQNR of Octet's answers is that of ONNX Runtime's, less `distance` dB at most."""
        options = onnxruntime.SessionOptions()
        if not fused:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        images = np.load(TEST)
        samples = mapped(images["inputs"][:SAMPLES])
        np.savez(self.folder / "samples.npz", inputs=samples, labels=images["labels"][:SAMPLES])

        def scores(model):
            session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            return np.concatenate([session.run(None, {"image": x[None]})[0] for x in samples])

        theirs = sqnr_db(scores(file), scores(FP32))
        # Ranges that are found when it runs are those of a batch: both sides take one image at a time.
        ours = answer("eval", file, "--data", self.folder / "samples.npz", "--reference", FP32, "--batch", "1")["sqnr_db"]
        self.assertGreater(ours, theirs - distance, file.name)

    def zero_points(self, file):
        """Those of the layers' weights, one array for each."""
        graph = onnx.load(file).graph
        constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        return [
            constants[node.input[2]]
            for node in graph.node
            if node.op_type == "DequantizeLinear" and constants.get(node.input[0], np.zeros(())).ndim > 1
        ]

    def with_zero_points_per_channel(self, file):
        """The same weights on grids that reach from each channel's least to its greatest: ONNX Runtime's are around 0."""
        model = onnx.load(file)
        tensors = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type != "DequantizeLinear" or node.input[0] not in tensors or len(tensors[node.input[0]].dims) < 2:
                continue
            q, scales, zeros = (numpy_helper.to_array(tensors[name]) for name in node.input)
            column = (-1,) + (1,) * (q.ndim - 1)
            reals = scales.reshape(column) * (q.astype(np.float32) - zeros.reshape(column))
            rows = reals.reshape(len(q), -1)
            least, most = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
            scales = ((most - least) / 255).astype(np.float32)
            zeros = np.round(-least / scales)
            q = np.clip(np.round(reals / scales.reshape(column)) + zeros.reshape(column), 0, 255)
            for name, array in zip(node.input, (q.astype(np.uint8), scales, zeros.astype(np.uint8)), strict=True):
                tensors[name].CopyFrom(constant(name, array))
        changed = self.folder / "zero-points-per-channel.onnx"
        onnx.save(model, changed)
        return changed

    def test_what_onnxruntimes_quantizer_makes(self):
        for name, form in STATIC.items():
            file = self.folder / f"{name}.onnx"
            quantize_static(FP32, file, Images(), **form)
            self.refused(file)
            self.certified(file, "int8")
            self.noise_of_onnxruntime(file, 0.5)
            if name == "qdq-QUInt8-per-channel":
                file = self.with_zero_points_per_channel(file)
                self.assertTrue(all(len(set(zeros.tolist())) > 1 for zeros in self.zero_points(file)))
                self.certified(file, "int8")
                # Fused, ONNX Runtime takes the integers of the biases for multiples of the scales.
                self.noise_of_onnxruntime(file, 0.5, fused=False)
            if name == "qdq-QUInt8":
                self.assertTrue(any(zeros != 128 for zeros in self.zero_points(file)))
            if name == "qdq-symmetric":
                self.assertTrue(all((zeros == 127).all() for zeros in self.zero_points(file)))
                # Integers that fit I8 need no sums.
                layers = [sum(bool(layer["macs"]) for layer in answer("inspect", model)["layers"]) for model in (file, FP32)]
                self.assertEqual(*layers)
        for weights in QuantType.QUInt8, QuantType.QInt8:
            file = self.folder / f"dynamic-{weights.name}.onnx"
            quantize_dynamic(FP32, file, weight_type=weights)
            self.refused(file)
            self.certified(file, "int8-dynamic")
            if weights == QuantType.QUInt8:  # It has no ConvInteger for the other.
                self.noise_of_onnxruntime(file, 0.5)

    def test_every_grid_of_activations_runs_in_int8(self):
        for grid in "u8", "u8-symmetric", "s8", "s8-asymmetric":
            out = self.folder / grid
            data = ("--calibration", CALIBRATION, "--map", MAP)
            answer("quantize", FP32, "--to", "int8", *data, "--method", "min-max", "--activations", grid, "--out", out)
            self.certified(out / "int8.onnx", "int8")

    def test_training_goes_on_from_what_onnxruntimes_quantizer_makes(self):
        prepared = self.folder / "prepared.onnx"
        quant_pre_process(str(FP32), str(prepared), skip_symbolic_shape=True)
        symmetric = {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}}
        # As it is, the model keeps its normalizations, whose rounded constants training cannot mend.
        for name, source, form in (("u8", prepared, {"per_channel": True}), ("s8", prepared, symmetric), ("kept", FP32, {})):
            with self.subTest(name):
                start, out = self.folder / "start.onnx", self.folder / "trained.onnx"
                quantize_static(source, start, Images(), quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt8, **form)
                data = ("--data", CALIBRATION, "--map", MAP, "--epochs", 6)
                curve = answer("qat", FP32, "--start", start, *data, "--out", out)
                self.assertLess(curve["epochs"][-1]["train_loss"], curve["epochs"][1]["train_loss"])
                if name == "kept":
                    continue
                if name == "u8":
                    self.assertGreater(curve["best_epoch"], 0)
                    data = ("--data", TEST, "--map", MAP, "--reference", FP32)
                    before, after = (answer("eval", file, *data)["sqnr_db"] for file in (start, out))
                    self.assertGreater(after, before)
                self.certified(out, "int8")
                onnx.checker.check_model(str(out), full_check=True)
                session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
                images = np.load(TEST)
                classes = np.argmax([session.run(None, {"image": x[None]})[0][0] for x in mapped(images["inputs"])], axis=1)
                top1 = answer("eval", out, "--data", TEST, "--map", MAP)["top1"]
                self.assertAlmostEqual(100 * np.mean(classes == images["labels"]), top1, delta=0.5)

    def test_every_operator_that_multiplies_runs_in_int8(self):
        for title, precision in MULTIPLY.items():
            nodes, _ = NODES[title]
            file = self.folder / f"{title.split()[0]}.onnx"
            onnx.save(model(nodes, 3), file)
            self.certified(file, precision)

    def test_every_operator_of_the_dialects(self):
        for i, (title, (nodes, op)) in enumerate(NODES.items()):
            with self.subTest(title):
                file = self.folder / f"{i}.onnx"
                onnx.save(model(nodes, 4 if "Add" in title or "QDQ" in title and MS in title else 3), file)
                self.refused(file, op)

    def test_what_octet_makes(self):
        precisions = ("int8", "int8-dynamic")
        data = ("--calibration", CALIBRATION, "--map", MAP, "--method", "min-max")
        answer("quantize", FP32, "--to", ",".join(precisions), *data, "--out", self.folder)
        for precision in precisions:
            self.refused(self.folder / f"{precision}.onnx", precisions=("int8", "int8-dynamic", "fp16"))

    @unittest.skipUnless((SHARED / "models").is_dir(), "no real models")
    def test_shipped_files(self):
        files = sorted((SHARED / "models").glob("*/1/int8.onnx"))
        self.assertGreaterEqual(len(files), 6)
        for file in files:
            self.refused(file)


if __name__ == "__main__":
    octet_process.main()
