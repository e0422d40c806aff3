"""The machine's peak: the most multiply-adds per second that a single layer reaches in fp32, bf16 and int8.

The layers are those that processors are best at: a convolution of 3 x 3 and of 1 x 1 with many channels, a large product.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# name: extents of the input, of the weights
LAYERS = {
    "conv3x3": ([1, 256, 28, 28], [256, 256, 3, 3]),
    "conv1x1": ([1, 512, 28, 28], [512, 512, 1, 1]),
    "product": ([512, 1024], [1024, 1024]),
}
OPSET = 17


def model(x_shape, w_shape, int8):
    """Returns y = Conv(x, w), or MatMul; for int8 of what QuantizeLinear and DequantizeLinear enclose, u8 by s8."""
    weights = np.random.default_rng(1).standard_normal(w_shape, np.float32)
    op = "Conv" if len(x_shape) == 4 else "MatMul"
    nodes, constants = [], {}

    def constant(name, value):
        constants[name] = numpy_helper.from_array(value, name)
        return name

    def dequantized(name, quantized, dtype):
        scale, zero = constant(f"{name}_scale", np.float32(0.02)), constant(f"{name}_zero", dtype(0))
        nodes.append(helper.make_node("DequantizeLinear", [quantized, scale, zero], [f"{name}_real"]))
        return f"{name}_real"

    def requantized(name, real):
        parameters = [constant(f"{name}_q_scale", np.float32(0.02)), constant(f"{name}_q_zero", np.uint8(0))]
        nodes.append(helper.make_node("QuantizeLinear", [real, *parameters], [f"{name}_q"]))
        return f"{name}_q"

    x, w, y = "x", constant("w", weights), "y"
    kind = TensorProto.FLOAT
    if int8:
        kind = TensorProto.UINT8
        x = dequantized("x", "x", np.uint8)
        w = dequantized("w8", constant("w8", np.clip(np.rint(weights * 40), -127, 127).astype(np.int8)), np.int8)
        del constants["w"]
    pads = {"pads": [w_shape[2] // 2] * 4} if op == "Conv" else {}
    nodes.append(helper.make_node(op, [x, w], ["real" if int8 else "y"], **pads))
    if int8:
        y = requantized("y", "real")
    out_shape = [x_shape[0], w_shape[0], *x_shape[2:]] if op == "Conv" else [x_shape[0], w_shape[1]]
    inputs = [helper.make_tensor_value_info("x", kind, x_shape)]
    outputs = [helper.make_tensor_value_info(y, kind, out_shape)]
    graph = helper.make_graph(nodes, op, inputs, outputs, list(constants.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def measure(start, cache, rounds, seconds, precision):
    """Returns multiply-adds per second in fp32, bf16 or int8. start(file, arrays, precision or None): a side that measures."""
    folder = cache / "peak"
    folder.mkdir(parents=True, exist_ok=True)
    int8, best = precision == "int8", 0.0
    for name, (x_shape, w_shape) in LAYERS.items():
        file = folder / f"{name}-{precision}.onnx"
        onnx.save(model(x_shape, w_shape, int8), file)
        x = np.random.default_rng(2).integers(0, 255, x_shape).astype(np.uint8 if int8 else np.float32)
        with start(file, {"x": x}, "bf16" if precision == "bf16" else None) as side:
            for _ in range(rounds):
                side.round(seconds)
            shortest = min(line["primitive_sum_ms"] for line in side.rounds)
            best = max(best, side.rounds[0]["macs"] / (shortest / 1e3))
    return best
