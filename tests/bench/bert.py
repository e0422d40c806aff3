"""Writes an encoder of BERT-base's sizes with random weights: speed does not depend on what it was trained for.

    hidden [N, 128, 768] -> 12 x (12 heads of attention, residual, LayerNorm, 768 -> 3072 -> 768 with GELU, residual,
    LayerNorm) -> encoded [N, 128, 768]

Node for node what PyTorch's exporter makes of the encoder at opset 17.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, WIDTH, HEADS, INNER, SEQUENCE, OPSET = 12, 768, 12, 3072, 128, 17


class Graph:
    """Nodes and weights of a graph that grows."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], {}

    def weight(self, name, values):
        self.weights[name] = values
        return name

    def node(self, op, *inputs, **attributes):
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def linear(self, x, name, inputs, outputs):
        scale = np.float32(inputs**-0.5)
        weight = self.weight(f"{name}.weight", scale * self.random.standard_normal((inputs, outputs), np.float32))
        bias = self.weight(f"{name}.bias", np.float32(0.02) * self.random.standard_normal(outputs, np.float32))
        return self.node("Add", bias, self.node("MatMul", x, weight))

    def normalized(self, x, name):
        gain = self.weight(f"{name}.weight", 1 + np.float32(0.1) * self.random.standard_normal(WIDTH, np.float32))
        bias = self.weight(f"{name}.bias", np.float32(0.1) * self.random.standard_normal(WIDTH, np.float32))
        return self.node("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-12)

    def heads(self, x, permutation):
        return self.node("Transpose", self.node("Reshape", x, "split"), perm=permutation)


def attention(graph, x, name):
    query, key, value = (graph.linear(x, f"{name}.{part}", WIDTH, WIDTH) for part in ("query", "key", "value"))
    scores = graph.node("MatMul", graph.heads(query, [0, 2, 1, 3]), graph.heads(key, [0, 2, 3, 1]))
    shares = graph.node("Softmax", graph.node("Div", scores, "root"), axis=-1)
    mixed = graph.node("MatMul", shares, graph.heads(value, [0, 2, 1, 3]))
    joined = graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), "join")
    return graph.linear(joined, f"{name}.output", WIDTH, WIDTH)


def gelu(graph, x):
    error = graph.node("Erf", graph.node("Div", x, "sqrt2"))
    return graph.node("Mul", graph.node("Mul", x, graph.node("Add", error, "one")), "half")


def model(layers=LAYERS, seed=1):
    """Returns the encoder as a ModelProto."""
    graph = Graph(seed)
    graph.weight("split", np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
    graph.weight("join", np.array([0, 0, WIDTH], np.int64))
    for name, value in (("root", (WIDTH // HEADS) ** 0.5), ("sqrt2", 2**0.5), ("one", 1), ("half", 0.5)):
        graph.weight(name, np.array(value, np.float32))
    x = "hidden"
    for layer in range(layers):
        name = f"layer.{layer}"
        x = graph.normalized(graph.node("Add", attention(graph, x, f"{name}.attention"), x), f"{name}.attention.norm")
        inner = gelu(graph, graph.linear(x, f"{name}.inner", WIDTH, INNER))
        x = graph.normalized(graph.node("Add", graph.linear(inner, f"{name}.outer", INNER, WIDTH), x), f"{name}.norm")
    graph.nodes.append(helper.make_node("Identity", [x], ["encoded"], "encoded"))
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", SEQUENCE, WIDTH])] for name in ("hidden", "encoded")
    )
    weights = [numpy_helper.from_array(values, name) for name, values in graph.weights.items()]
    made = helper.make_graph(graph.nodes, "bert-base encoder", inputs, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def hidden_states(rows, seed):
    """Returns random inputs as the encoder meets them, behind an embedding's LayerNorm."""
    return np.random.default_rng(seed).standard_normal((rows, SEQUENCE, WIDTH), np.float32)


def write(folder):
    """Writes the model, rows to calibrate it with and rows to feed it with, unless they are there; their paths."""
    fp32, calibration, data = (folder / name for name in ("encoder.onnx", "calibration.npz", "data.npz"))
    if not data.is_file():  # written last
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model(), fp32)
        np.savez(calibration, inputs=hidden_states(16, 2))
        np.savez(data, inputs=hidden_states(64, 3))
    return fp32, calibration, data
