#!/usr/bin/env python3
"""Models with INT4 and UINT4 weights, as ONNX Runtime's 4-bit quantizer and others write them: Octet answers as ONNX Runtime does.

usage: four_bits_test.py OCTET
"""

import pathlib
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_4bits_quantizer import MatMul4BitsQuantizer

import octet_process

RNG = np.random.default_rng(5)
MS = "com.microsoft"
LIMITS = {TensorProto.INT4: (-8, 7), TensorProto.UINT4: (0, 15)}


def reals(*shape, low=-1.0, high=1.0):
    return RNG.uniform(low, high, shape).astype(np.float32)


def integers(kind, *shape):
    low, high = LIMITS[kind]
    return RNG.integers(low, high + 1, shape)


def pack(numbers):
    """Two in a byte, the first in the low bits."""
    flat = np.append(np.ravel(numbers), [0] * (np.size(numbers) % 2)).astype(np.int64) & 15
    return (flat[::2] | flat[1::2] << 4).astype(np.uint8).tobytes()


def four_bits(name, kind, numbers, raw=True):
    numbers = np.asarray(numbers)
    if raw:
        return helper.make_tensor(name, kind, numbers.shape, pack(numbers), raw=True)
    tensor = TensorProto(name=name, data_type=kind, dims=numbers.shape)
    tensor.int32_data.extend(pack(numbers))
    return tensor


def weights(kind, shape, scales, raw=True, zeros=True, **attributes):
    """A DequantizeLinear of constants, from "w", "s" and perhaps "z" to "r"."""
    constants = [four_bits("w", kind, integers(kind, *shape), raw), numpy_helper.from_array(reals(*scales, low=0.02, high=0.2), "s")]
    if zeros:
        constants.append(four_bits("z", kind, integers(kind, *scales), raw))
    node = helper.make_node("DequantizeLinear", [c.name for c in constants], ["r"], **attributes)
    return [node], constants


def model(nodes, constants, inputs, output="y", opset=21):
    infos = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for name, x in inputs.items()]
    graph = helper.make_graph(nodes, "four_bits", infos, [helper.make_empty_tensor_value_info(output)], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


class FourBitsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.count = 0

    def compare(self, made, inputs, expected=None, external=False):
        """Answers of Octet, with its passes and without constant folding, beside ONNX Runtime's."""
        self.count += 1
        folder = self.folder / str(self.count)
        data = folder / "test_data_set_0"
        data.mkdir(parents=True)
        file = folder / "model.onnx"
        onnx.save(made, file, save_as_external_data=external, location="weights.bin", size_threshold=0)
        if expected is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            expected = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run(None, inputs)
        for kind, arrays in (("input", inputs.values()), ("output", expected)):
            for i, array in enumerate(arrays):
                (data / f"{kind}_{i}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
        for passes in ((), ("--disable-pass", "fold_constants")):
            done = octet_process.octet("check", file, "--golden", folder, *passes, "--rtol", 1e-4, "--atol", 1e-4)
            self.assertEqual(done.returncode, 0, f"{passes}: {done.stderr}{done.stdout}")
        return file

    def test_weights_of_products(self):
        x = reals(3, 33)
        for kind in LIMITS:
            for title, shape, scales, attributes in (
                ("per tensor", (33, 5), (), {}),
                ("per column", (33, 5), (5,), {"axis": 1}),
                ("per row", (33, 5), (33,), {"axis": 0}),
                ("blocks", (33, 5), (3, 5), {"axis": 0, "block_size": 16}),
                ("blocks along columns", (33, 5), (33, 2), {"axis": -1, "block_size": 4}),
            ):
                for raw in (True, False):
                    with self.subTest(title, kind=kind, raw=raw):
                        nodes, constants = weights(kind, shape, scales, raw, zeros=raw, **attributes)
                        nodes.append(helper.make_node("MatMul", ["x", "r"], ["y"]))
                        self.compare(model(nodes, constants, {"x": x}), {"x": x}, external=raw)

    def test_weights_of_other_layers(self):
        x = reals(2, 3, 6, 6)
        nodes, constants = weights(TensorProto.INT4, (5, 3, 3, 3), (5,), axis=0)
        nodes.append(helper.make_node("Conv", ["x", "r"], ["y"]))
        self.compare(model(nodes, constants, {"x": x}), {"x": x})
        x = reals(4, 6)
        nodes, constants = weights(TensorProto.UINT4, (6, 6), (6, 2), axis=1, block_size=3)
        nodes.append(helper.make_node("Gemm", ["x", "r"], ["y"], transB=1))
        self.compare(model(nodes, constants, {"x": x}), {"x": x})
        # Moved before they are read.
        nodes, constants = weights(TensorProto.INT4, (6, 5), (5,), axis=0, zeros=False)
        nodes.insert(0, helper.make_node("Transpose", ["w"], ["t"]))
        nodes[1].input[0] = "t"
        nodes.append(helper.make_node("Gemm", ["x", "r"], ["y"], transB=1))
        self.compare(model(nodes, constants, {"x": x}), {"x": x})

    def test_tables(self):
        ids = np.array([[3, 0, 69], [1, 1, 42]], np.int64)
        for kind in LIMITS:
            for scales, attributes in (((70,), {"axis": 0}), ((70, 3), {"axis": 1, "block_size": 16})):
                with self.subTest(kind=kind, scales=scales):
                    nodes, constants = weights(kind, (70, 36), scales, **attributes)
                    nodes.append(helper.make_node("Gather", ["r", "ids"], ["y"]))
                    self.compare(model(nodes, constants, {"ids": ids}), {"ids": ids})
            with self.subTest("GatherBlockQuantized", kind=kind):
                _, constants = weights(kind, (70, 64), (70, 4))
                attributes = {"gather_axis": 0, "quantize_axis": 1, "block_size": 16}
                nodes = [helper.make_node("GatherBlockQuantized", ["w", "ids", "s", "z"], ["y"], domain=MS, **attributes)]
                self.compare(model(nodes, constants, {"ids": ids}), {"ids": ids})

    def test_with_activations_of_8_bits_they_run_in_int8(self):
        """In memory they take a byte each then; as the weights of a layer in reals, half of one, and four a column for its scale."""
        x = reals(3, 128)
        for activations, runs, least, most in ((True, "int8", 1.0, 1.5), (False, "f32", 0.5, 0.55)):
            with self.subTest(runs=runs):
                nodes, constants = weights(TensorProto.INT4, (128, 64), (64,), axis=1, zeros=False)
                nodes.append(helper.make_node("MatMul", ["xr" if activations else "x", "r"], ["y"]))
                if activations:
                    constants += [numpy_helper.from_array(np.float32(2 / 255), "xs"), numpy_helper.from_array(np.uint8(128), "xz")]
                    nodes.insert(0, helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["xr"]))
                    nodes.insert(0, helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]))
                told = octet_process.answer("inspect", self.compare(model(nodes, constants, {"x": x}), {"x": x}))
                self.assertEqual([layer["runs"] for layer in told["layers"] if layer["macs"]], [runs])
                self.assertLessEqual(least, told["weights_bytes"] / (128 * 64))
                self.assertLess(told["weights_bytes"] / (128 * 64), most)

    def matmul_n_bits(self, x, columns, block, zeros=None, groups=None, bias=False):
        """A model of one MatMulNBits of 4 bits; zero points may be "packed" or "real"."""
        rows = x.shape[-1]
        blocks = -(-rows // block)
        constants = {
            "w": RNG.integers(0, 256, (columns, blocks, block // 2), np.uint8),
            "s": reals(columns * blocks, low=0.01, high=0.05),
            "z": {"packed": RNG.integers(0, 256, columns * -(-blocks // 2), np.uint8), "real": reals(columns * blocks, low=0.0, high=15.0)}.get(zeros),
            "g": groups,
            "b": reals(columns) if bias else None,
        }
        inputs = ["x"] + [name if value is not None else "" for name, value in constants.items()]
        attributes = {"K": rows, "N": columns, "bits": 4, "block_size": block}
        node = helper.make_node("MatMulNBits", inputs, ["y"], name="product", domain=MS, **attributes)
        given = [numpy_helper.from_array(value, name) for name, value in constants.items() if value is not None]
        return model([node], given, {"x": x})

    def test_matmul_n_bits_stays_in_4_bits(self):
        for rows, kernel in ((1, "octet:gemv_s4:"), (16, "octet:gemv_s4:"), (17, "octet:unpack_s4+brg_matmul:")):
            for block in (16, 32, 128):
                for zeros in (None, "packed"):
                    # A last block that is short, and one that is longer than K.
                    for depth in (256, 264, 100):
                        with self.subTest(rows=rows, block=block, zeros=zeros, depth=depth):
                            x = reals(2, 8, depth) if rows == 16 else reals(1, rows, depth)
                            file = self.compare(self.matmul_n_bits(x, 96, block, zeros, bias=block == 32), {"x": x})
                            told = octet_process.answer("inspect", file)
                            (layer,) = [layer for layer in told["layers"] if layer["macs"]]
                            self.assertIn(kernel, layer["impl"])
                            self.assertEqual(layer["op"], "octet:FourBitMatMul")
                            blocks = -(-depth // block)
                            packed = 96 * (-(-depth // 8) * 4 + blocks * (5 if zeros else 4))
                            self.assertLessEqual(packed, told["weights_bytes"])
                            self.assertLess(told["weights_bytes"], packed + 96 * 4 + 64)

    def test_matmul_n_bits_of_other_kinds(self):
        """Real zero points, and rows that name blocks out of order, are no integers in blocks: such weights become reals."""
        x = reals(3, 64)
        in_order = np.arange(64, dtype=np.int32) // 16
        for title, form, bits in (
            ("real zero points", {"zeros": "real"}, 32),
            # Beside a g_idx ONNX Runtime 1.21 takes 8 for zero points, whatever they are.
            ("g_idx in order", {"groups": in_order}, 4),
            ("g_idx out of order", {"groups": in_order[::-1].copy()}, 32),
        ):
            with self.subTest(title):
                file = self.compare(self.matmul_n_bits(x, 64, 16, **form), {"x": x})
                told = octet_process.answer("inspect", file)
                self.assertEqual("octet:FourBitMatMul" in [layer["op"] for layer in told["layers"]], bits == 4)
                self.assertLess(told["weights_bytes"] * 8 / (64 * 64), bits * 2)
        beyond = in_order.copy()
        beyond[5] = 4
        for groups, message in ((beyond, "'g_idx' holds 4, there are 4 blocks"), (in_order[:9].copy(), "'g_idx' has not 64 elements")):
            with self.subTest(message):
                file = self.folder / "groups.onnx"
                onnx.save(self.matmul_n_bits(x, 32, 16, groups=groups), file)
                done = octet_process.octet("inspect", file)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("MatMulNBits 'product' (opset 1): " + message, done.stderr)

    def test_what_onnxruntimes_quantizer_makes(self):
        x = reals(4, 96)
        constants = [numpy_helper.from_array(reals(96, 40), "a"), numpy_helper.from_array(reals(40, 24), "b")]
        nodes = [helper.make_node("MatMul", ["x", "a"], ["h"], name="first"), helper.make_node("Relu", ["h"], ["r"])]
        nodes.append(helper.make_node("MatMul", ["r", "b"], ["y"], name="second"))
        for symmetric in (True, False):
            for block in (16, 32):
                with self.subTest(symmetric=symmetric, block=block):
                    form = {"quant_format": QuantFormat.QDQ, "is_symmetric": symmetric, "block_size": block}
                    quantizer = MatMul4BitsQuantizer(model(nodes, constants, {"x": x}), **form)
                    quantizer.process()
                    made = quantizer.model.model
                    kinds = {tensor.data_type for tensor in made.graph.initializer}
                    self.assertIn(TensorProto.INT4 if symmetric else TensorProto.UINT4, kinds)
                    self.compare(made, {"x": x})

    def test_what_rounds_to_4_bits_saturates(self):
        x = np.array([-40.0, -8.6, -2.5, 0.4, 1.5, 7.6, 15.5, 300], np.float32)
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ]
        for kind in LIMITS:
            with self.subTest(kind=kind):
                constants = [numpy_helper.from_array(np.float32(0.5), "s"), four_bits("z", kind, np.array(3))]
                self.compare(model(nodes, constants, {"x": x}), {"x": x})
                # ONNX Runtime 1.21 casts no 4 bits.
                casts = [helper.make_node("Cast", ["x"], ["q"], to=kind), helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)]
                expected = np.clip(np.rint(x), *LIMITS[kind]).astype(np.float32)
                self.compare(model(casts, [], {"x": x}), {"x": x}, [expected])

    def test_wrong_files_are_refused(self):
        x = reals(3, 33)
        for raw, message in ((True, "raw_data for shape [33,5] of INT4: expected 83, got 82"), (False, "expected 83 by the shape, got 82")):
            with self.subTest(raw=raw):
                nodes, constants = weights(TensorProto.INT4, (33, 5), (), raw, zeros=False)
                if raw:
                    constants[0].raw_data = constants[0].raw_data[:-1]
                else:
                    del constants[0].int32_data[-1]
                nodes.append(helper.make_node("MatMul", ["x", "r"], ["y"]))
                file = self.folder / "short.onnx"
                file.write_bytes(model(nodes, constants, {"x": x}).SerializeToString())
                done = octet_process.octet("inspect", file)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("tensor 'w': ", done.stderr)
                self.assertIn(message, done.stderr)
        # 4 bits where ONNX has none.
        nodes, constants = weights(TensorProto.UINT4, (33, 5), (), zeros=False)
        nodes.append(helper.make_node("MatMul", ["x", "w"], ["y"], name="product"))
        file = self.folder / "product.onnx"
        file.write_bytes(model(nodes, constants, {"x": x}).SerializeToString())
        done = octet_process.octet("inspect", file)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("MatMul 'product' (opset 21): value 'w': unsupported element type: UINT4", done.stderr)


if __name__ == "__main__":
    octet_process.main()
