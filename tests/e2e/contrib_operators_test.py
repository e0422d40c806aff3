#!/usr/bin/env python3
"""com.microsoft's operators as exporters and optimizers write them: Octet answers as ONNX Runtime does.

usage: contrib_operators_test.py OCTET

Each case is one node, and all of a test are one model. It runs twice: as Octet serves it, expanded into the operators that it is made of,
and by the reference kernels of their bodies. Floats differ by the order of sums, 8-bit results by one step.
"""

import json
import pathlib
import tempfile
import unittest

import onnx.reference  # noqa: F401  Debian's two copies of ONNX's schemas agree only in this order.
import numpy as np
import onnx.parser
import onnxruntime
from onnx import GraphProto, helper, numpy_helper

import octet_process

RNG = np.random.default_rng(7)
RTOL, ATOL = 1e-3, 1e-4
REFERENCE = ("--disable-pass", "expand_functions", "--disable-pass", "import_qlinear")


def reals(*shape, low=-1.0, high=1.0):
    return RNG.uniform(low, high, shape).astype(np.float32)


def integers(dtype, *shape, low=None, high=None):
    info = np.iinfo(dtype)
    return RNG.integers(info.min if low is None else low, (info.max if high is None else high) + 1, shape).astype(dtype)


class Const:
    """An input that is an initializer."""

    def __init__(self, array):
        self.array = np.asarray(array)


class Case:
    """One node. `inputs`: arrays, constants, or None for what is absent. `outputs`: which are wanted, by position."""

    def __init__(self, op, inputs, attributes=None, outputs=(0,), domain="com.microsoft", rtol=RTOL, atol=ATOL, told=None):
        """`told`: what ONNX Runtime is given in place of some inputs."""
        self.op, self.inputs, self.attributes, self.told = op, inputs, attributes or {}, told or {}
        self.outputs, self.domain, self.rtol, self.atol = outputs, domain, rtol, atol

    def title(self):
        shapes = [None if x is None else (x.array if isinstance(x, Const) else x).shape for x in self.inputs]
        return f"{self.op} {self.attributes} {shapes} -> {self.outputs}"

    def given(self):
        """The arrays that a request brings, by name."""
        return {f"in{i}": x for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray)}

    def add_to(self, graph, prefix=""):
        """Adds the node, what it reads and what is wanted of it; their names begin with the prefix."""
        names = ["" if x is None else f"{prefix}in{i}" for i, x in enumerate(self.inputs)]
        results = [f"{prefix}out{i}" if i in self.outputs else "" for i in range(max(self.outputs) + 1)]
        graph.node.append(helper.make_node(self.op, names, results, domain=self.domain, name=f"{prefix}tested", **self.attributes))
        for name, array in self.given().items():
            # The batch is open until a request comes, as it is in models.
            is_batched = array.ndim and array.shape[0] == len(next(iter(self.given().values())))
            shape = [f"{prefix}batch", *array.shape[1:]] if is_batched else array.shape
            # Open where ONNX Runtime is given something else.
            if name in self.told:
                shape = [have if have == other else None for have, other in zip(array.shape, self.told[name].shape, strict=True)]
            graph.input.append(helper.make_tensor_value_info(prefix + name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
        graph.initializer.extend(
            numpy_helper.from_array(x.array, f"{prefix}in{i}") for i, x in enumerate(self.inputs) if isinstance(x, Const)
        )
        graph.output.extend(helper.make_empty_tensor_value_info(f"{prefix}out{i}") for i in self.outputs)

    def tolerance(self, expected):
        """How far Octet's answers may be from these, as options of `octet check`."""
        steps = all(array.dtype.kind in "iu" for array in expected)
        return ("--rtol", 0, "--atol", 1) if steps else ("--rtol", self.rtol, "--atol", self.atol)

    def expected(self, file):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return session.run(None, self.given() | self.told)


class Step(Case):
    """A request, of a model that is a text."""

    def __init__(self, given):
        super().__init__("", [])
        self.arrays = given

    def given(self):
        return self.arrays


def fused():
    x, w, b = reals(2, 4, 7, 6), reals(6, 4, 3, 3), reals(6)
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    for activation, parameters in (
        ("Relu", None),
        ("Tanh", None),
        ("Sigmoid", None),
        ("LeakyRelu", [0.1]),
        ("Clip", [-0.5, 0.5]),
        ("HardSigmoid", [0.3, 0.4]),
    ):
        attributes = {"activation": activation} | ({"activation_params": parameters} if parameters else {})
        yield Case("FusedConv", [x, Const(w), Const(b)], conv | attributes)
    yield Case("FusedConv", [x, Const(w)], {"activation": "Relu", "strides": [2, 2], "dilations": [1, 2]})
    yield Case("FusedConv", [x, Const(w), Const(b), reals(2, 6, 7, 6)], conv | {"activation": "Relu"})
    yield Case("FusedConv", [x, Const(reals(8, 2, 1, 1)), Const(reals(8))], {"group": 2, "activation": "Relu"})
    a, m, c = reals(5, 4), reals(4, 6), reals(6)
    for activation in ("Relu", "Sigmoid", "Tanh"):
        yield Case("FusedGemm", [a, Const(m), Const(c)], {"activation": activation})
    yield Case("FusedGemm", [a, Const(m), Const(c)], {"activation": "LeakyRelu", "activation_alpha": 0.2})
    transposed = {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}
    yield Case("FusedGemm", [reals(4, 5), Const(reals(6, 4)), Const(reals(5, 6))], transposed | {"activation": "Relu"})
    yield Case("FusedMatMul", [reals(2, 3, 4), reals(2, 4, 5)], {"alpha": 0.125})
    yield Case("FusedMatMul", [reals(2, 4, 3), reals(2, 4, 5)], {"transA": 1})
    yield Case("FusedMatMul", [reals(2, 3, 4), Const(reals(5, 4))], {"transB": 1, "alpha": 2.0})
    yield Case("FusedMatMul", [reals(2, 2, 4, 3), reals(2, 2, 5, 4)], {"transA": 1, "transB": 1})
    yield Case("FusedMatMul", [reals(3, 2, 2, 4), reals(2, 2, 4, 5)], {"transBatchA": 1})
    yield Case("FusedMatMul", [reals(2, 2, 3, 4), reals(4, 2, 2, 5)], {"transBatchB": 1})
    yield Case("FusedMatMul", [reals(4, 2, 2, 3), reals(5, 2, 2, 4)], {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1})
    yield Case("TransposeMatMul", [reals(2, 4, 3), reals(2, 4, 5)], {"transA": 1})
    yield Case("Gelu", [reals(3, 8, low=-4, high=4)])
    yield Case("BiasGelu", [reals(3, 8, low=-4, high=4), Const(reals(8))])
    yield Case("FastGelu", [reals(3, 8, low=-4, high=4)])
    yield Case("FastGelu", [reals(3, 8, low=-4, high=4), Const(reals(8))])
    yield Case("QuickGelu", [reals(3, 8, low=-4, high=4)])
    yield Case("QuickGelu", [reals(3, 8, low=-4, high=4)], {"alpha": 1.0})


def normalization():
    x, skip = reals(2, 5, 16), reals(2, 5, 16)
    gamma, beta, bias = Const(reals(16)), Const(reals(16)), Const(reals(16))
    op = "SkipLayerNormalization"
    yield Case(op, [x, skip, gamma, beta], {"epsilon": 1e-5})
    yield Case(op, [x, skip, gamma])
    yield Case(op, [x, skip, gamma, beta, bias], {"epsilon": 1e-5}, outputs=(0, 3))
    yield Case(op, [x, skip, gamma, None, bias], {"epsilon": 1e-5}, outputs=(0, 3))
    yield Case(op, [x, reals(1, 5, 16), gamma, beta], {"epsilon": 1e-5})
    yield Case(op, [x, Const(reals(5, 16)), gamma, beta], {"epsilon": 1e-5})
    op = "SkipSimplifiedLayerNormalization"
    yield Case(op, [x, skip, gamma], {"epsilon": 1e-5})
    yield Case(op, [x, skip, gamma, bias], {"epsilon": 1e-5}, outputs=(0, 3))
    op = "SimplifiedLayerNormalization"
    yield Case(op, [x, gamma], {"epsilon": 1e-6}, domain="")
    yield Case(op, [x, Const(reals(5, 16))], {"axis": 1}, domain="")
    ids, segments = integers(np.int32, 2, 6, low=0, high=19), integers(np.int32, 2, 6, low=0, high=1)
    word, position, segment = Const(reals(20, 16)), Const(reals(10, 16)), Const(reals(2, 16))
    mask = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], np.int32)
    op = "EmbedLayerNormalization"
    yield Case(op, [ids, segments, word, position, segment, gamma, beta], {"epsilon": 1e-5}, outputs=(0, 1))
    yield Case(op, [ids, segments, word, position, segment, gamma, beta, mask], outputs=(0, 1, 2))
    yield Case(op, [ids, None, word, position, None, gamma, beta], outputs=(0, 1))
    order = integers(np.int32, 2, 6, low=0, high=9)
    yield Case(op, [ids, segments, word, position, segment, gamma, beta, mask, order], outputs=(0, 1))


MASK_2D = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)


def attention():
    x, w, b = reals(2, 5, 8), Const(reals(8, 24)), Const(reals(24))
    two = {"num_heads": 2}
    yield Case("Attention", [x, w, b], two)
    yield Case("Attention", [x, w, b], two | {"unidirectional": 1})
    yield Case("Attention", [x, w, b], two | {"scale": 0.3})
    yield Case("Attention", [x, w, b, MASK_2D], two)
    yield Case("Attention", [x, w, b, MASK_2D], two | {"mask_filter_value": -3.0})
    yield Case("Attention", [x, w, b, MASK_2D], two | {"unidirectional": 1})
    yield Case("Attention", [x, w, b, np.array([3, 5], np.int32)], two)
    yield Case("Attention", [x, w, b, np.array([4, 5, 1, 2], np.int32)], two)
    yield Case("Attention", [x, w, b, np.array([3, 5, 0, 3, 8, 0, 3, 8], np.int32)], two)
    yield Case("Attention", [x, w, b, integers(np.int32, 2, 5, 5, low=0, high=1)], two)
    yield Case("Attention", [x, w, b, None, None, reals(2, 2, 5, 5)], two)
    yield Case("Attention", [x, Const(reals(8, 28)), Const(reals(28))], two | {"qkv_hidden_sizes": [8, 8, 12]})
    past = reals(2, 2, 2, 3, 4)
    yield Case("Attention", [x, w, b, None, past], two, outputs=(0, 1))
    yield Case("Attention", [x, w, b, None, past], two | {"unidirectional": 1}, outputs=(0, 1))
    mask = np.array([[0, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 0]], np.int32)
    yield Case("Attention", [x, w, b, mask, past], two, outputs=(0, 1))
    yield Case("Attention", [x, w, b], two, outputs=(0, 1))


def lengths(*values):
    """seqlens_k of sequences of these lengths, and total_sequence_length."""
    return [np.array(values, np.int32) - 1, Const(np.array(max(values), np.int32))]


def group_query_attention():
    op, four = "GroupQueryAttention", {"num_heads": 4, "kv_num_heads": 2}
    q, k, v = reals(2, 5, 64), reals(2, 5, 32), reals(2, 5, 32)
    everything = (0, 1, 2)
    caches = [Const(reals(16, 8)), Const(reals(16, 8))]
    begins = [q, k, v, None, None, *lengths(5, 5)]
    for attributes in (
        {},
        {"scale": 0.3},
        {"softcap": 0.5},
        {"local_window_size": 2},
        {"smooth_softmax": 1},
        {"softcap": 0.5, "local_window_size": 3, "smooth_softmax": 1},
    ):
        yield Case(op, begins, four | attributes, everything)
    yield Case(op, [*begins, *caches], four | {"do_rotary": 1}, everything)
    yield Case(op, [*begins, *caches], four | {"do_rotary": 1, "rotary_interleaved": 1}, everything)
    yield Case(op, [reals(2, 5, 128), None, None, None, None, *lengths(5, 5), *caches], four | {"do_rotary": 1}, everything)
    yield Case(op, [q, reals(2, 5, 64), reals(2, 5, 64), None, None, *lengths(5, 5)], {"num_heads": 4, "kv_num_heads": 4}, everything)
    # One sequence goes on, with one position and with several, in a past with room and without.
    for rows in (1, 3):
        for room in (7, 12):
            past = reals(1, 2, room, 16), reals(1, 2, room, 16)
            new = reals(1, rows, 64), reals(1, rows, 32), reals(1, rows, 32)
            goes_on = [*new, *past, *lengths(7 + rows), *caches]
            yield Case(op, goes_on, four | {"do_rotary": 1}, everything)
            yield Case(op, goes_on[:7], four | {"local_window_size": 4}, everything)
    # Sequences of two lengths go on.
    for room in (8, 12):
        past = reals(2, 2, room, 16), reals(2, 2, room, 16)
        new = reals(2, 1, 64), reals(2, 1, 32), reals(2, 1, 32)
        goes_on = [*new, *past, *lengths(5, 9), *caches]
        yield Case(op, goes_on, four | {"do_rotary": 1}, everything)
        yield Case(op, goes_on[:7], four | {"local_window_size": 3, "smooth_softmax": 1}, everything)


def contrib_forms():
    x = reals(3, 4, 5)
    yield Case("Trilu", [x], {})
    yield Case("Trilu", [x, Const(np.int64(-1))], {"upper": 0})
    yield Case("GridSample", [reals(2, 3, 4, 5), reals(2, 6, 7, 2)], {"mode": "bicubic", "padding_mode": "border"})
    yield Case("GridSample", [reals(2, 3, 4, 5), reals(2, 6, 7, 2)], {"align_corners": 1})
    yield Case("GatherND", [x, Const(np.array([[0, 1], [2, 3]], np.int64))])
    yield Case("Pad", [x, Const(np.array([0, 1, 0, 2, 0, 1], np.int64)), Const(np.array([0.5], np.float32))])
    yield Case("Pad", [x, Const(np.array([[0, 1, 2, 0, 0, 1]], np.int64))], {"mode": "reflect"})
    yield Case("Range", [Const(np.array([2], np.int64)), Const(np.array(9, np.int64))])
    yield Case("Range", [np.array([2.0], np.float32), np.array(9.0, np.float32), np.array(1.5, np.float32)])
    yield Case("Unique", [np.array([2, 1, 1, 3, 4, 3], np.float32)], outputs=(0, 1, 2))


def quantized_embedding():
    ids, segments = integers(np.int32, 2, 6, low=0, high=19), integers(np.int32, 2, 6, low=0, high=1)
    tables = [Const(integers(np.uint8, *shape)) for shape in ((20, 16), (10, 16), (2, 16), (16,), (16,))]
    scales = [Const(np.float32(value)) for value in (0.01, 0.02, 0.03, 0.01, 0.005)]
    zeros = [Const(np.uint8(value)) for value in (128, 120, 130, 100, 128)]
    mask = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], np.int32)
    op = "QEmbedLayerNormalization"
    yield Case(op, [ids, segments, *tables, mask, *scales, *zeros], {"epsilon": 1e-5}, outputs=(0, 1))
    absent = [tables[0], tables[1], None, tables[3], tables[4], None]
    scales[2] = zeros[2] = None
    yield Case(op, [ids, None, *absent, *scales, *zeros], outputs=(0, 1))


def quantized_attention():
    two = {"num_heads": 2}
    x, bias = integers(np.uint8, 2, 5, 8), Const(reals(24))
    scale, zero = Const(np.float32(0.02)), Const(np.uint8(120))
    w, w_scale, w_zero = Const(integers(np.int8, 8, 24)), Const(np.float32(0.01)), Const(np.int8(0))
    yield Case("QAttention", [x, w, bias, scale, w_scale, None, zero, w_zero], two)
    yield Case("QAttention", [x, w, bias, scale, w_scale, np.array([3, 5], np.int32), zero, w_zero], two)
    yield Case("QAttention", [x, w, bias, scale, w_scale, None, zero, w_zero], two | {"unidirectional": 1})
    per_column = Const(reals(24, low=0.005, high=0.02))
    yield Case("QAttention", [x, w, bias, scale, per_column, None, zero, Const(np.zeros(24, np.int8))], two)
    unsigned = Const(integers(np.uint8, 8, 24))
    yield Case("QAttention", [x, unsigned, bias, scale, w_scale, None, zero, Const(np.uint8(128))], two)
    # Scales that come with the request, as behind DynamicQuantizeLinear.
    dynamic = [x, w, bias, np.array(0.02, np.float32), w_scale, None, np.array(120, np.uint8), w_zero]
    yield Case("QAttention", dynamic, two)
    yield Case("QAttention", [*dynamic, reals(2, 2, 2, 3, 4)], two | {"unidirectional": 1}, outputs=(0, 1))


def multi_head_attention():
    op, two = "MultiHeadAttention", {"num_heads": 2}
    q, k, v = reals(2, 5, 8), reals(2, 7, 8), reals(2, 7, 12)
    yield Case(op, [q, k, v], two)
    yield Case(op, [q, k, v, Const(reals(28))], two)
    yield Case(op, [q, k, v], two | {"scale": 0.2})
    yield Case(op, [q, reals(2, 5, 8), reals(2, 5, 8)], two | {"unidirectional": 1})
    mask = np.array([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]], np.int32)
    yield Case(op, [q, k, v, None, mask], two)
    yield Case(op, [q, k, v, None, mask], two | {"mask_filter_value": -2.0})
    yield Case(op, [q, k, v, None, np.array([3, 7], np.int32)], two)
    yield Case(op, [q, k, v, None, np.array([3, 7, 0, 5, 10, 0, 3, 10], np.int32)], two)
    yield Case(op, [q, k, v, None, integers(np.int32, 2, 5, 7, low=0, high=1)], two)
    yield Case(op, [q, k, v, None, None, reals(1, 2, 5, 7)], two)
    # ONNX Runtime 1.21 reads beyond a bias that is the same for all heads.
    bias = reals(2, 1, 5, 7)
    yield Case(op, [q, k, v, None, None, bias], two, told={"in5": np.ascontiguousarray(np.broadcast_to(bias, (2, 2, 5, 7)))})
    yield Case(op, [q, reals(2, 2, 7, 4), reals(2, 2, 7, 4)], two)
    past = reals(2, 2, 3, 4), reals(2, 2, 3, 4)
    yield Case(op, [q, reals(2, 5, 8), reals(2, 5, 8), None, None, None, *past], two, outputs=(0, 1, 2))
    yield Case(op, [q, k, reals(2, 7, 8)], two, outputs=(0, 1, 2))


def rotary():
    op = "RotaryEmbedding"
    cos, sin = Const(reals(12, 4)), Const(reals(12, 4))
    positions = integers(np.int64, 2, 5, low=0, high=11)
    x = reals(2, 5, 16)
    yield Case(op, [x, positions, cos, sin])
    yield Case(op, [x, positions, cos, sin], {"interleaved": 1})
    yield Case(op, [x, np.array([3], np.int64), cos, sin])
    yield Case(op, [reals(2, 3, 5, 8), positions, cos, sin])
    half = Const(reals(12, 2)), Const(reals(12, 2))
    yield Case(op, [x, positions, *half], {"num_heads": 2, "rotary_embedding_dim": 4})


def integer_products():
    a, b = integers(np.uint8, 3, 6), Const(integers(np.int8, 6, 5))
    per_column = Const(reals(5, low=0.005, high=0.02))
    scale, zero = Const(np.float32(0.02)), Const(np.uint8(99))
    op = "MatMulIntegerToFloat"
    yield Case(op, [a, b, scale, Const(np.float32(0.01))])
    yield Case(op, [a, b, scale, per_column, zero, None, Const(reals(5))])
    yield Case(op, [a, b, scale, per_column, zero, Const(integers(np.int8, 5, low=-9, high=9)), Const(reals(5))])
    unsigned = Const(integers(np.uint8, 6, 5))
    yield Case(op, [a, unsigned, scale, Const(np.float32(0.01)), zero, Const(np.uint8(128))])
    dynamic = np.array(0.02, np.float32), np.array(99, np.uint8)
    yield Case(op, [a, b, dynamic[0], per_column, dynamic[1], None, Const(reals(5))])
    op = "DynamicQuantizeMatMul"
    yield Case(op, [reals(3, 6), b, Const(np.float32(0.01))])
    yield Case(op, [reals(2, 3, 6), b, per_column, Const(np.zeros(5, np.int8)), Const(reals(5))])
    yield Case(op, [reals(3, 6), unsigned, Const(np.float32(0.01)), Const(np.uint8(128))])
    for zeros in (False, True):
        for rows in (32, 40):
            yield packed_product(zeros, rows)
    yield packed_product(True, 32, bias=True)


def packed_product(zeros, rows, bias=False, columns=6, block=16, bits=4):
    blocks = -(-rows // block)
    b = Const(integers(np.uint8, columns, blocks, block * bits // 8))
    scales = Const(reals(columns * blocks, low=0.01, high=0.05))
    zero = Const(integers(np.uint8, columns * -(-blocks * bits // 8))) if zeros else None
    attributes = {"K": rows, "N": columns, "bits": bits, "block_size": block}
    inputs = [reals(3, rows), b, scales, zero] + ([None, Const(reals(columns))] if bias else [])
    return Case("MatMulNBits", inputs, attributes)


def quantized_lstm():
    """ONNX Runtime rounds the states of all sequences to 8 bits by one range, Octet each by its own, the reference kernel not
    at all: hence the distance."""
    hidden, width = 4, 6
    for directions, name in ((1, "forward"), (1, "reverse"), (2, "bidirectional")):
        for per_channel in (False, True):
            scale = [directions, 4 * hidden] if per_channel else [directions]
            quantized = [Const(reals(*scale, low=0.004, high=0.008)), Const(np.zeros(scale, np.int8))]
            inputs = [
                reals(5, 2, width),
                Const(integers(np.int8, directions, width, 4 * hidden)),
                Const(integers(np.int8, directions, hidden, 4 * hidden)),
                Const(reals(directions, 8 * hidden)),
                None,
                reals(directions, 2, hidden),
                reals(directions, 2, hidden),
                None,
                *quantized,
                *quantized,
            ]
            attributes = {"hidden_size": hidden, "direction": name}
            yield Case("DynamicQuantizeLSTM", inputs, attributes, outputs=(0, 1, 2), rtol=0, atol=0.02)
            if directions == 2:
                attributes["activations"] = ["HardSigmoid", "Tanh", "Tanh", "Sigmoid", "Softsign", "Tanh"]
                attributes |= {"activation_alpha": [0.3], "activation_beta": [0.45]}
                yield Case("DynamicQuantizeLSTM", inputs, attributes, outputs=(0, 1, 2), rtol=0, atol=0.02)


def qlinear():
    x, scale, zero = integers(np.uint8, 2, 4, 6, 5), Const(np.float32(0.02)), Const(np.uint8(100))
    out_scale, out_zero = Const(np.float32(0.03)), Const(np.uint8(90))
    shares = Const(np.float32(1 / 256)), Const(np.uint8(0))
    for axis, opset in ((-1, 13), (1, 13), (1, 12), (3, 11)):
        yield Case("QLinearSoftmax", [x, scale, zero, *shares], {"axis": axis, "opset": opset})
    condition, y = integers(np.uint8, 2, 4, 6, 5, low=0, high=1).astype(bool), integers(np.uint8, 5)
    yield Case("QLinearWhere", [condition, x, scale, zero, y, out_scale, out_zero, Const(np.float32(0.04)), Const(np.uint8(80))])
    w, bias = Const(integers(np.int8, 3, 4, 3, 3)), Const(integers(np.int32, 3, low=-500, high=500))
    w_quant = Const(reals(3, low=0.002, high=0.01)), Const(np.zeros(3, np.int8))
    tail = [*w_quant, out_scale, out_zero, bias]
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    yield Case("QLinearConv", [x, scale, zero, w, *tail], window)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    yield Case("QLinearConv", [last, scale, zero, w, *tail], window | {"channels_last": 1})
    pooled = [scale, zero, out_scale, out_zero]
    yield Case("QLinearGlobalAveragePool", [x, *pooled])
    yield Case("QLinearGlobalAveragePool", [last, *pooled], {"channels_last": 1})
    yield Case("QLinearAveragePool", [x, *pooled], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1})
    yield Case("QLinearAveragePool", [last, *pooled], {"kernel_shape": [2, 2], "strides": [2, 2], "channels_last": 1})
    yield Case("QLinearSigmoid", [x, scale, zero, *shares])
    yield Case("QLinearLeakyRelu", [x, *pooled], {"alpha": 0.1})
    yield Case("QLinearAdd", [x, scale, zero, integers(np.uint8, 1, 4, 1, 1), out_scale, out_zero, Const(np.float32(0.05)), zero])
    yield Case("QLinearMul", [x, scale, zero, integers(np.uint8, 1, 4, 1, 1), out_scale, out_zero, Const(np.float32(0.05)), zero])


# A decoder's step as Hugging Face's optimum writes it: lengths from a mask, in a past whose length is open; and one that is told how
# long its sequences are.
STEP = """
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
net (float[batch, new, 64] q, float[batch, new, 32] k, float[batch, new, 32] v, float[batch, 2, past, 16] past_k,
     float[batch, 2, past, 16] past_v, MASK) => (float[batch, new, 64] y, float[batch, 2, all, 16] present_k,
     float[batch, 2, all, 16] present_v)
{
    LENGTHS
    y, present_k, present_v = com.microsoft.GroupQueryAttention <num_heads: int = 4, kv_num_heads: int = 2>
        (q, k, v, past_k, past_v, lengths, total)
}
"""
FROM_MASK = STEP.replace("MASK", "int64[batch, all] mask").replace(
    "LENGTHS",
    """one = Constant <value: tensor = int64[1] {1}> ()
    counts = ReduceSum <keepdims: int = 0> (mask, one)
    less = Sub (counts, one)
    lengths = Cast <to: int = 6> (less)
    shape = Shape (mask)
    first = Constant <value: tensor = int64 {1}> ()
    extent = Gather <axis: int = 0> (shape, first)
    total = Cast <to: int = 6> (extent)""",
)
TOLD = STEP.replace("MASK", "int32[batch] lengths, int32 total").replace("LENGTHS", "")


def step(batch, new, past):
    return {
        "q": reals(batch, new, 64),
        "k": reals(batch, new, 32),
        "v": reals(batch, new, 32),
        "past_k": reals(batch, 2, past, 16),
        "past_v": reals(batch, 2, past, 16),
    }


class ContribOperatorsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def save(self, name, graph):
        """Returns the file, in a folder of its own."""
        file = self.folder / name / "model.onnx"
        file.parent.mkdir()
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
        return file

    def check(self, cases):
        """Asks ONNX Runtime about one case at a time, Octet about all of one tolerance in one model."""
        titles, together = {}, {}
        for i, case in enumerate(cases):
            titles[f"case{i}"] = case.title()
            with self.subTest(case.title()):
                alone, prefix = GraphProto(name="one"), f"case{i}_"
                case.add_to(alone)
                expected = case.expected(self.save(f"case{i}", alone))
                graph, given, answers = together.setdefault(case.tolerance(expected), (GraphProto(name="cases"), [], []))
                case.add_to(graph, prefix)
                given += case.given().values()
                answers += expected
        for i, (tolerance, (graph, given, answers)) in enumerate(together.items()):
            with self.subTest(tolerance=tolerance):
                self.compare(self.save(f"cases{i}", graph), given, answers, tolerance, titles)

    def compare(self, file, given, expected, tolerance, titles=None):
        data = file.parent / "test_data_set_0"
        data.mkdir()
        for kind, arrays in (("input", given), ("output", expected)):
            for i, array in enumerate(arrays):
                (data / f"{kind}_{i}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
        for passes in ((), REFERENCE):
            done = octet_process.octet("check", file, "--golden", file.parent, "--precision", "fp32", *passes, *tolerance, "--json")
            self.assertEqual(done.returncode, 0, f"{passes}: {done.stderr}{done.stdout}{titles or ''}")
            comparisons = json.loads(done.stdout)["comparisons"]
            self.assertEqual(len(comparisons), len(expected))

    def test_fused(self):
        self.check(fused())

    def test_normalization(self):
        self.check(normalization())

    def test_attention(self):
        self.check(attention())

    def test_quantized_attention(self):
        self.check(quantized_attention())

    def test_multi_head_attention(self):
        self.check(multi_head_attention())

    def test_group_query_attention(self):
        self.check(group_query_attention())

    def test_a_decoders_step(self):
        for batch, new, past in ((1, 1, 6), (1, 3, 6), (2, 1, 6)):
            given = step(batch, new, past)
            total = past + new
            mask = np.ones((batch, total), np.int64)
            mask[-1, : batch - 1] = 0
            lengths = (mask.sum(1) - 1).astype(np.int32)
            for text, more in ((FROM_MASK, {"mask": mask}), (TOLD, {"lengths": lengths, "total": np.array(total, np.int32)})):
                told = text == TOLD
                with self.subTest(batch=batch, new=new, past=past, told=told):
                    file = self.folder / f"{batch}-{new}-{told}" / "model.onnx"
                    file.parent.mkdir()
                    onnx.save(onnx.parser.parse_model(text), file)
                    case = Step(given | more)
                    expected = case.expected(file)
                    self.compare(file, case.given().values(), expected, case.tolerance(expected))

    def test_contrib_forms(self):
        self.check(contrib_forms())

    def test_quantized_embedding(self):
        self.check(quantized_embedding())

    def test_rotary(self):
        self.check(rotary())

    def test_integer_products(self):
        self.check(integer_products())

    def test_quantized_lstm(self):
        self.check(quantized_lstm())

    def test_qlinear(self):
        self.check(qlinear())


if __name__ == "__main__":
    octet_process.main()
