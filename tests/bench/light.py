#!/usr/bin/env python3
"""Gives one of ONNX's `light` networks weights: the files have none, every constant in them is one number repeated.

usage: light.py LIGHT.onnx IMAGE FILE     (a process of its own: the framework keeps gigabytes)

With constants all alike every answer is a vector of one value, which nearly any wrong kernel gives as well, and nothing can be
quantized. Here they are random, from a fixed seed, and settled on IMAGE (.npy, one row as the network takes it): what a layer
adds up has a deviation of 1, batch normalization has the image's own statistics, and what goes into the last Softmax has a
deviation of 2. What is computed stays as it is.
"""

import sys

import numpy as np
import onnx
import onnx.reference  # finds every operator twice once the framework has registered its own
from onnx import helper, numpy_helper, version_converter

SEED = 1
LOGITS = 2.0  # deviation of what the last layer answers
OPSET = 13  # the first one whose DequantizeLinear has an axis: quantizers ask for it


def constants_of(model):
    """Takes out of the graph what makes constants, and returns {name: array} of all of them; none is an input any more."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            value = numpy_helper.to_array(node.attribute[0].t)
            constants[node.output[0]] = np.full(constants[node.input[0]], value[0], value.dtype)
        elif node.op_type == "Reshape" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]].reshape(constants[node.input[1]])
        else:
            kept.append(node)
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.node[:], graph.input[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.input.extend(inputs)
    return constants


class Settling:
    """Runs the network node by node, and gives each one its weights when its input is there."""

    def __init__(self, constants, opsets):
        import onnxruntime

        self.runtime, self.opsets, self.constants = onnxruntime, opsets, constants
        self.random = np.random.default_rng(SEED)
        self.values = {}

    def run(self, node):
        feeds = {name: self.value(name) for name in node.input if name}
        typed = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for name, x in feeds.items()]
        graph = helper.make_graph([node], "one", typed, [onnx.ValueInfoProto(name=node.output[0])])
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=8)
        session = self.runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run([node.output[0]], feeds)[0]

    def value(self, name):
        return self.values[name] if name in self.values else self.constants[name]

    def normal(self, name, mean, deviation):
        self.constants[name] = mean + np.float32(deviation) * self.random.standard_normal(self.constants[name].shape, np.float32)

    def settle(self, node, last):
        if node.op_type in ("Conv", "Gemm"):
            weights = node.input[1]
            self.normal(weights, np.float32(0), 1)
            for bias in node.input[2:]:
                self.normal(bias, np.float32(0), 0)
            deviation = (LOGITS if last else 1) / self.run(node).std()
            self.constants[weights] = (self.constants[weights] * np.float32(deviation)).astype(np.float32)
            for bias in node.input[2:]:
                self.normal(bias, np.float32(0), 0.1)
        elif node.op_type == "BatchNormalization":
            x = self.value(node.input[0])
            self.normal(node.input[1], np.float32(1), 0.1)
            self.normal(node.input[2], np.float32(0), 0.1)
            self.constants[node.input[3]] = x.mean((0, 2, 3)).astype(np.float32)
            self.constants[node.input[4]] = x.var((0, 2, 3)).astype(np.float32)
        elif node.op_type == "Unsqueeze" and node.input[0] in self.constants:
            # A scale or an offset per channel; which one, its only reader knows.
            self.normal(node.input[0], np.float32(self.reader[node.output[0]] == "Mul"), 0.1)
        self.values[node.output[0]] = self.run(node)

    def all(self, graph, image):
        self.values[graph.input[0].name] = image
        self.reader = {name: node.op_type for node in graph.node for name in node.input}
        last = [node for node in graph.node if node.op_type in ("Conv", "Gemm")][-1]
        for node in graph.node:
            self.settle(node, node is last)


def fill(file, image, out):
    model = onnx.load(file)
    constants = constants_of(model)
    [image_input] = model.graph.input
    extents = [d.dim_value for d in image_input.type.tensor_type.shape.dim]
    settling = Settling(constants, model.opset_import)
    settling.all(model.graph, np.load(image).reshape(extents))
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in constants.items() if name in read)
    model.ir_version = max(model.ir_version, 4)  # from there on a constant need not be an input
    onnx.save(version_converter.convert_version(model, OPSET), out)


if __name__ == "__main__":
    fill(*sys.argv[1:])
