"""ONNX models that load in milliseconds and tell by their answers which file they came from, and clients of them."""

import os
import pathlib
import sys

import numpy
import onnx
from onnx import TensorProto, helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demo"))
import client  # noqa: E402
import grpc  # noqa: E402
import server  # noqa: E402,F401

EXTENT = 4


def _save(nodes, constants, path, width=EXTENT, rows="N"):
    """Writes a model of [rows, width] floats, whole or not at all."""
    shape = [rows, width]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("." + path.name)
    onnx.save(model, part)
    os.replace(part, path)


def write_scaling(path, factor):
    """y = factor * x."""
    _save([helper.make_node("Mul", ["x", "f"], ["y"])], {"f": numpy.full(EXTENT, factor, numpy.float32)}, path)


def write_identity(path):
    """y = x of any width."""
    _save([helper.make_node("Identity", ["x"], ["y"])], {}, path, "k")


def write_heavy(path, factor, extent=1024, width=EXTENT):
    """y = factor * x through two dense layers: 8 MiB of weights, so that one copy that is kept can be seen."""
    wide = factor * numpy.eye(width, extent, dtype=numpy.float32)
    square = numpy.eye(extent, dtype=numpy.float32)
    narrow = numpy.eye(extent, width, dtype=numpy.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["a"]),
        helper.make_node("MatMul", ["a", "s1"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "s2"], ["d"]),
        helper.make_node("MatMul", ["d", "narrow"], ["y"]),
    ]
    _save(nodes, {"wide": wide, "s1": square, "s2": square.copy(), "narrow": narrow}, path, width)


def write_quantized(path, factor, extent=1024, width=EXTENT):
    """y = factor * x as QDQ through four dense layers of int8; exact for whole x from 0 to 255 / factor, as every scale is 1."""
    layers = {
        "wide": numpy.eye(width, extent, dtype=numpy.int8),
        "s1": numpy.eye(extent, dtype=numpy.int8),
        "s2": factor * numpy.eye(extent, dtype=numpy.int8),
        "narrow": numpy.eye(extent, width, dtype=numpy.int8),
    }
    nodes, values = [], "x"
    for name in layers:
        nodes += [
            helper.make_node("QuantizeLinear", [values, "one", "zero_u8"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "one", "zero_u8"], [f"{name}_x"]),
            helper.make_node("DequantizeLinear", [name, "one", "zero_s8"], [f"{name}_w"]),
            helper.make_node("MatMul", [f"{name}_x", f"{name}_w"], ["y" if name == "narrow" else f"{name}_y"]),
        ]
        values = f"{name}_y"
    constants = {"one": numpy.float32(1), "zero_u8": numpy.uint8(0), "zero_s8": numpy.int8(0)}
    _save(nodes, layers | {name: numpy.asarray(value) for name, value in constants.items()}, path, width)


def write_slow(path, rounds, extent=2048, rows="N"):
    """y = x after `rounds` products of [extent, extent] matrices, 17 GFLOP each: a request that keeps a worker busy.

    One sum of all rows is in every answer, so requests do not share batches; how long one takes is known in advance with `rows` alone."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["m", "nothing"], ["m0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"m{i}", "m"], [f"m{i + 1}"]) for i in range(rounds)]
    nodes += [
        helper.make_node("ReduceSum", [f"m{rounds}", "axes"], ["rest"], keepdims=0),
        helper.make_node("Mul", ["rest", "zero"], ["none"]),
        helper.make_node("Add", ["x", "none"], ["y"]),
    ]
    constants = {
        "axes": numpy.array([0, 1], numpy.int64),
        "zero": numpy.zeros((), numpy.float32),
        "m": numpy.zeros((extent, extent), numpy.float32),
    }
    _save(nodes, constants, path, rows=rows)


class Caller:
    """Asks models of this kind."""

    def __init__(self, target, options=()):
        self.messages, services = client.load_stubs()
        self.channel = grpc.insecure_channel(target, options)
        self.stub = services.GRPCInferenceServiceStub(self.channel)

    def request(self, model):
        request = self.messages.ModelInferRequest(model_name=model)
        request.inputs.add(name="x", datatype="FP32", shape=[1, EXTENT])
        request.raw_input_contents.append(numpy.ones(EXTENT, numpy.float32).tobytes())
        return request

    def ask(self, model, timeout=30):
        """Returns the factor of the model that answered. grpc.RpcError when none did."""
        return self.factor(self.stub.ModelInfer(self.request(model), timeout=timeout))

    @staticmethod
    def factor(response):
        """Returns the factor of the model whose answer this is."""
        return float(numpy.frombuffer(response.raw_output_contents[0], numpy.float32)[0])

    def index(self):
        """Returns {(model, version): (state, reason)}."""
        rows = self.stub.RepositoryIndex(self.messages.RepositoryIndexRequest(), timeout=10).models
        return {(row.name, row.version): (row.state, row.reason) for row in rows}

    def load(self, model):
        self.stub.RepositoryModelLoad(self.messages.RepositoryModelLoadRequest(model_name=model), timeout=60)
